"""Orthonormalisation of a tangent frame: block Gram-Schmidt made of matrix products, and Householder.

What an exponent needs is the product of the triangular factors of all steps. If a step leaves
`Z = F R` with a frame F that is only nearly orthonormal, the next step starts from the same F, so
`J_T … J_1 F_0 = F_T R_T … R_1` stays exact: the lack of orthogonality never adds up over time, and one
triangular factor of the last frame removes what is left of it. That allows the cheapest
orthonormalisation there is on today's hardware, one made of matrix products, as long as the frame stays
well conditioned; a frame that does not is made again by Householder reflections.

`Workspace.gram_schmidt` is right-looking and recursive: orthonormalise the left half of the columns, remove its
components from the right half, go on there; narrow panels by one Cholesky factor of their Gram matrix.
With J F it takes 4 S³ flops, all but S²·O(panel) of them in large products, against the 10/3 S³ of
`geqrf` + `ormqr`, which run at half the speed of a product below S = 200. R is as accurate as from
Householder reflections, since the panels' columns are of similar length.

References:
- Björck 1967, BIT 7: R of modified Gram-Schmidt is backward stable whatever happens to Q.
- Jalby & Philippe 1991, SIAM J. Sci. Stat. Comput. 12: block form.
- Yamamoto, Nakatsukasa, Yanagisawa, Fukaya 2015, ETNA 44: Cholesky QR, of which one pass is enough here.

Axes: B samples (may be missing), S state, K columns.
"""

import torch
from jaxtyping import Float, Float64
from torch import Tensor

_PANEL = 56
"""Most columns of a panel. Wider panels move work from products to Cholesky factors and triangular solves,
and their columns differ more in length."""

LARGEST_LOSS = 0.5
"""A frame F with ‖FᵀF − I‖ (Frobenius) above this is made again; below, its condition number is under
sqrt((1 + 0.5) / (1 − 0.5)) = 1.8, which costs no digits."""


def householder(z_SK: Float[Tensor, "*B S K"]) -> tuple[Float[Tensor, "*B S K"], Float[Tensor, "*B K"]]:
    """Orthonormal columns and the diagonal of R, up to signs, for any condition of Z."""
    reflectors_SK, scales_K = torch.geqrf(z_SK)
    diagonal_K = reflectors_SK.diagonal(dim1=-2, dim2=-1)
    return torch.linalg.householder_product(reflectors_SK, scales_K), diagonal_K.clone()


class Workspace:
    """A matrix, stored by columns, that is filled and then orthonormalised in place.

    It is made once for a chain: its parts' views would cost as much to make in each step as the products
    of small matrices take.

    Args:
        batch: number of matrices; None for one without a batch axis, whose products have less overhead.
    """

    def __init__(self, batch: int | None, rows: int, columns: int, like: Tensor) -> None:
        lead = () if batch is None else (batch,)
        self.matrix_SK = like.new_zeros(*lead, columns, rows).mT
        self._transposed_KS = self.matrix_SK.mT
        # Whether what is loaded passes must not depend on chance, so the probe is fixed: a sequence of
        # signs without a period.
        probe_K = 1.0 - 2.0 * ((torch.arange(columns) * 0.6180339887 % 1.0) > 0.5)
        self._probe_K = probe_K.to(like)
        self._steps: list[tuple[Tensor, ...]] = []
        self._plan(0, columns)

    def _plan(self, start: int, stop: int) -> None:
        """Write down the operations of the recursion: (panel, its transpose) or (left, its transpose, right)."""
        if stop - start <= _PANEL:
            panel_SK = self.matrix_SK[..., start:stop]
            self._steps.append((panel_SK, panel_SK.mT))
            return
        middle = start - (start - stop) // 8 * 4  # about half, a multiple of 4
        left_SK, right_SK = self.matrix_SK[..., start:middle], self.matrix_SK[..., middle:stop]
        self._plan(start, middle)
        self._steps.append((left_SK, left_SK.mT, right_SK))
        self._plan(middle, stop)

    def gram_schmidt(self) -> Float[Tensor, "*B K"]:
        """Make the columns nearly orthonormal, fast; returns the diagonal of R.

        The result means nothing (it may hold NaN) unless `loss_of_orthogonality` finds it small.
        """
        product = torch.mm if self.matrix_SK.ndim == 2 else torch.bmm
        diagonals = []
        for step in self._steps:
            if len(step) == 2:
                panel_SK, transposed_KS = step
                factor_KK = torch.linalg.cholesky_ex(product(transposed_KS, panel_SK))[0]
                torch.linalg.solve_triangular(factor_KK.mT, panel_SK, upper=True, left=False, out=panel_SK)
                diagonals.append(factor_KK.diagonal(dim1=-2, dim2=-1))
            else:
                left_SK, transposed_KS, right_SK = step
                subtract = right_SK.addmm_ if right_SK.ndim == 2 else right_SK.baddbmm_
                subtract(left_SK, product(transposed_KS, right_SK), alpha=-1)
        return torch.cat(diagonals, dim=-1)

    def loss_of_orthogonality(self) -> float:
        """Estimate of `‖FᵀF − I‖` (Frobenius, the largest of the batch) from its action on one vector."""
        if self.matrix_SK.ndim == 2:
            image_K = torch.mv(self._transposed_KS, torch.mv(self.matrix_SK, self._probe_K))
            return torch.dist(image_K, self._probe_K).item()
        image_BK1 = self._transposed_KS @ (self.matrix_SK @ self._probe_K[:, None])
        loss_B = torch.linalg.vector_norm(image_BK1[..., 0] - self._probe_K, dim=-1)
        return loss_B.max().item()  # NaN if any is


def log_triangle(frame_SK: Float[Tensor, "*B S K"]) -> Float64[Tensor, "*B K"]:
    """`ln |R_kk|` of a matrix; by reflectors, because batched LU on CPU can be silently wrong."""
    return torch.geqrf(frame_SK)[0].diagonal(dim1=-2, dim2=-1).double().abs().log()
