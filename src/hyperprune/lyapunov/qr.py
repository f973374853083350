"""Orthonormalisation of a tangent frame: block Gram-Schmidt made of matrix products, and Householder.

What an exponent needs is the product of the triangular factors of all steps. If a step leaves
`Z = F R` with a frame F that is only nearly orthonormal, the next step starts from the same F, so
`J_T … J_1 F_0 = F_T R_T … R_1` stays exact: the lack of orthogonality never adds up over time. An
orthonormal F_0 and one triangular factor of the last frame remove what is left. That allows the cheapest
orthonormalisation there is on today's hardware, one made of matrix products, as long as the frame stays
well conditioned; a frame that does not is made again by Householder reflections.

`Workspace.gram_schmidt` is right-looking and recursive: orthonormalise the left half of the columns, take
its components out of the right half, go on there; narrow panels by one Cholesky factor of their Gram
matrix. With J F it takes 4 S³ flops, all but S²·O(panel) of them in large products, against the 10/3 S³ of
LAPACK's `ormqr` and `geqrf`, which below S = 200 run at less than half the speed of a product.

References:
- Björck 1967, BIT 7: R of modified Gram-Schmidt is backward stable whatever happens to Q.
- Jalby & Philippe 1991, SIAM J. Sci. Stat. Comput. 12: block form.
- Yamamoto, Nakatsukasa, Yanagisawa, Fukaya 2015, ETNA 44: Cholesky QR, of which one pass is enough here.

Axes: B samples (may be missing), S state, K columns (P of a panel). Frames are kept transposed, `frame_KS`.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Float64
from torch import Tensor

_PANEL = 56
"""Most columns of a panel. Wider panels move work from products to Cholesky factors and triangular solves,
and their columns differ more in length."""

LARGEST_LOSS = 0.5
"""A frame F with ‖FᵀF − I‖ (Frobenius) above this is made again; below, its condition number is under
sqrt((1 + 0.5) / (1 − 0.5)) = 1.8, which costs no digits."""

_REPAIRABLE_LOSS = 10.0
"""Up to this loss the same procedure, applied to F once more, mends it: columns are still near unit length,
so that projections cancel few digits."""

_FAST_FROM = 2**21
"""Multiply-adds from which the operator below is faster than torch's own product; it has more overhead."""


def householder(frame_KS: Float[Tensor, "*B K S"]) -> tuple[Float[Tensor, "*B K S"], Float[Tensor, "*B K"]]:
    """Orthonormal columns and the diagonal of R, up to signs, for any condition."""
    reflectors_SK, scales_K = torch.geqrf(frame_KS.mT)
    diagonal_K = reflectors_SK.diagonal(dim1=-2, dim2=-1).clone()
    return torch.linalg.householder_product(reflectors_SK, scales_K).mT, diagonal_K


def log_triangle(frame_KS: Float[Tensor, "*B K S"]) -> Float64[Tensor, "*B K"]:
    """`ln |R_kk|` of a frame; by reflectors, because batched LU on CPU can be silently wrong."""
    return torch.geqrf(frame_KS.mT)[0].diagonal(dim1=-2, dim2=-1).double().abs().log()


def _fast_product(like: Tensor) -> Callable[[Tensor, Tensor], Tensor] | None:
    """A product `x @ w.mT` of large matrices that is faster here than torch's own; None if there is none.

    In single precision on CPUs that are not Intel's, oneDNN multiplies at twice the speed of the BLAS that
    torch is built with (measured: 200 against 95 GFlop/s on one Zen 5 core). torch reaches it through an
    internal operator only, so it is used where it exists, and nothing depends on it.
    """
    operator = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
    suits = like.dtype == torch.float32 and like.device.type == "cpu"
    if not suits or operator is None or not torch.backends.mkldnn.is_available():
        return None
    return lambda x, w: operator(x, w, None, "none", [], "")


class Workspace:
    """A frame that is filled and then orthonormalised in place.

    It is made once for a chain: its parts' views would cost as much to make in each step as the products
    of small matrices take.

    Args:
        batch: number of frames; None for one without a batch axis, whose products have less overhead.
        size: length S of the K columns.
    """

    def __init__(self, batch: int | None, num_columns: int, size: int, like: Tensor) -> None:
        lead = () if batch is None else (batch,)
        self.frame_KS = like.new_zeros(*lead, num_columns, size)
        self._frame_SK = self.frame_KS.mT
        # The operator knows no batches; for graphics cards and double precision there is none either.
        self._fast_product = _fast_product(like) if batch is None else None
        # Whether a frame passes must not depend on chance, so the probe is fixed: signs without a period.
        probe_K = 1.0 - 2.0 * ((torch.arange(num_columns) * 0.6180339887 % 1.0) > 0.5)
        self._probe_K = probe_K.to(like)
        self._steps: list[tuple[Tensor, ...]] = []
        self._plan(0, num_columns)

    def _plan(self, start: int, stop: int) -> None:
        """Write down the recursion: (panel, its transpose) or (left, its transpose, right)."""
        if stop - start <= _PANEL:
            panel_PS = self.frame_KS[..., start:stop, :]
            self._steps.append((panel_PS, panel_PS.mT))
            return
        middle = start - (start - stop) // 8 * 4  # about half, a multiple of 4
        left_PS, right_PS = self.frame_KS[..., start:middle, :], self.frame_KS[..., middle:stop, :]
        self._plan(start, middle)
        self._steps.append((left_PS, left_PS.mT, right_PS))
        self._plan(middle, stop)

    def load(self, frame_KS: Float[Tensor, "*B K S"], jacobian_SS: Float[Tensor, "*B S S"]) -> None:
        """Set this frame to another one pushed through a Jacobian: `F ← J F`."""
        num_columns, size = frame_KS.shape[-2:]
        if self._fast_product is not None and num_columns * size * size >= _FAST_FROM:
            self.frame_KS.copy_(self._fast_product(frame_KS, jacobian_SS))
        else:
            torch.matmul(frame_KS, jacobian_SS.mT, out=self.frame_KS)

    def gram_schmidt(self) -> Float[Tensor, "*B K"]:
        """Make the columns nearly orthonormal, fast; returns the diagonal of R.

        The result means nothing (it may hold NaN) unless `loss_of_orthogonality` finds it small.
        """
        diagonals = []
        for step in self._steps:
            if len(step) == 2:
                diagonals.append(self._normalise(*step))
            else:
                self._project(*step)
        return torch.cat(diagonals, dim=-1)

    def _normalise(self, panel_PS: Tensor, panel_SP: Tensor) -> Tensor:
        factor_PP = torch.linalg.cholesky_ex(torch.matmul(panel_PS, panel_SP))[0]
        torch.linalg.solve_triangular(factor_PP.mT, panel_SP, upper=True, left=False, out=panel_SP)
        return factor_PP.diagonal(dim1=-2, dim2=-1)

    def _project(self, left_PS: Tensor, left_SP: Tensor, right_PS: Tensor) -> None:
        multiply = self._fast_product
        if multiply is not None and left_PS.shape[0] * right_PS.numel() >= _FAST_FROM:
            right_PS.sub_(multiply(multiply(right_PS, left_PS), left_SP))
        else:
            subtract = right_PS.addmm_ if right_PS.ndim == 2 else right_PS.baddbmm_
            subtract(torch.matmul(right_PS, left_SP), left_PS, alpha=-1)

    def loss_of_orthogonality(self) -> float:
        """Estimate of `‖FᵀF − I‖` (Frobenius, the largest of the batch) from its action on one vector."""
        if self.frame_KS.ndim == 2:
            image_K = torch.mv(self.frame_KS, torch.mv(self._frame_SK, self._probe_K))
            return torch.dist(image_K, self._probe_K).item()
        image_BK1 = self.frame_KS @ (self._frame_SK @ self._probe_K[:, None])
        loss_B = torch.linalg.vector_norm(image_BK1[..., 0] - self._probe_K, dim=-1)
        return loss_B.max().item()  # NaN if any is

    def orthonormalise(self, *, fast: bool) -> Float[Tensor, "*B K"] | None:
        """Make the columns nearly orthonormal; returns the diagonal of R, up to signs.

        Args:
            fast: by Gram-Schmidt, twice if once is not enough. Then None means that it failed, and that
                the frame is lost.
        """
        if not fast:
            frame_KS, diagonal_K = householder(self.frame_KS)
            self.frame_KS.copy_(frame_KS)
            return diagonal_K
        diagonal_K = self.gram_schmidt()
        loss = self.loss_of_orthogonality()
        if LARGEST_LOSS < loss <= _REPAIRABLE_LOSS:
            diagonal_K = diagonal_K * self.gram_schmidt()
            loss = self.loss_of_orthogonality()
        return diagonal_K if loss <= LARGEST_LOSS else None  # NaN fails the comparison
