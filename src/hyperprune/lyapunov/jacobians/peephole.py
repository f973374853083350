"""The LSTM layer with peepholes of `hyperprune.models`; gates in the order i, f, g, o.

    z_k = W_k x + U_k h + P_k c + b_k  for k = i, f, g,    c' = f c + i g
    z_o = W_o x + U_o h + P_o c' + b_o,                    h' = o tanh(c')

With a = (i(1−i) g, f(1−f) c, i (1−g²)), r = o(1−o) tanh c' and s = o (1 − tanh² c'):

    ∂c'/∂h = A = Σ diag(a_k) U_k                          ∂c'/∂c = D = diag(f) + Σ diag(a_k) P_k
    ∂h'/∂h = diag(r) (U_o + P_o A) + diag(s) A            ∂h'/∂c = diag(r) P_o D + diag(s) D

Axes: see base.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from hyperprune.lyapunov.jacobians.base import Affine, Carry, Layer, tanh_slope, weighted_rows


class PeepholeLayer(Layer):
    """Args:
    peephole: (3H) for the diagonals of i, f, o, or (4H, H) for the full matrices of i, f, g, o.
    hidden_only: J = ∂h'/∂h with c held fixed (S = H) instead of the Jacobian of (h, c) (S = 2H).
    """

    def __init__(
        self,
        weight_ih: Float[Tensor, "GH I"],
        weight_hh: Float[Tensor, "GH H"],
        peephole: Tensor,
        bias: Float[Tensor, " GH"] | None,
        *,
        hidden_only: bool,
    ) -> None:
        size = weight_hh.shape[1]
        self._size = size
        self.state_size = size if hidden_only else 2 * size
        self._drive = Affine([weight_ih, weight_hh], bias)
        self._hidden_only = hidden_only
        self._recurrent = weight_hh.chunk(4)
        self._is_full = peephole.ndim == 2
        if self._is_full:
            self._peephole = list(peephole.chunk(4))
        else:
            p_i, p_f, p_o = peephole.chunk(3)
            self._peephole = [p_i, p_f, torch.zeros_like(p_i), p_o]

    def _see(self, gate: int, cell: Tensor) -> Tensor:
        weight = self._peephole[gate]
        return torch.mm(cell, weight.t()) if self._is_full else cell * weight

    def step(self, x_BI: Tensor, carry: Carry) -> tuple[Tensor, Carry, Tensor]:
        h, c = carry
        z = self._drive(x_BI, h)
        z_i, z_f, z_g, z_o = z.chunk(4, dim=1)
        z_i, z_f, z_g = z_i + self._see(0, c), z_f + self._see(1, c), z_g + self._see(2, c)
        i, f, g = torch.sigmoid(z_i), torch.sigmoid(z_f), torch.tanh(z_g)
        new_c = f * c + i * g
        z_o = z_o + self._see(3, new_c)
        o, tanh_c = torch.sigmoid(z_o), torch.tanh(new_c)
        new_h = o * tanh_c
        coefficients = [
            # σ(-z) is 1 - σ(z), without being 0 where σ rounds to 1.
            *(i * torch.sigmoid(-z_i) * g, f * torch.sigmoid(-z_f) * c, i * tanh_slope(z_g)),
            *(o * tanh_slope(new_c), o * torch.sigmoid(-z_o) * tanh_c, f),
        ]
        return new_h, (new_h, new_c), torch.stack(coefficients, dim=1)[:, None]

    def build(self, factor: int, coefficients: Tensor, out: Tensor) -> None:
        size = self._size
        gates, r = coefficients[..., :3, :], coefficients[..., 4, :]
        cell_by_hidden = torch.empty_like(out) if self._hidden_only else out[..., size:, :size]
        weighted_rows(self._recurrent[:3], gates, cell_by_hidden)
        self._hidden_row(cell_by_hidden, coefficients, out[..., :size, :size])
        out[..., :size, :size].addcmul_(self._recurrent[3], r[..., None])
        if self._hidden_only:
            return
        cell_by_cell = out[..., size:, size:]
        f = coefficients[..., 5, :]
        if self._is_full:
            weighted_rows(self._peephole[:3], gates, cell_by_cell)
            cell_by_cell.diagonal(dim1=-2, dim2=-1).add_(f)
        else:
            cell_by_cell.zero_()
            slope = f + (gates * torch.stack(self._peephole[:3])).sum(-2)
            cell_by_cell.diagonal(dim1=-2, dim2=-1).copy_(slope)
        self._hidden_row(cell_by_cell, coefficients, out[..., :size, size:])

    def _hidden_row(self, cell_row: Tensor, coefficients: Tensor, out: Tensor) -> None:
        """What a change of c' does to h': `diag(s) X + diag(r) P_o X` for X = ∂c'/∂(h or c)."""
        s, r = coefficients[..., 3, :], coefficients[..., 4, :]
        if self._is_full:
            torch.mul(cell_row, s[..., None], out=out)
            out.addcmul_(self._peephole[3] @ cell_row, r[..., None])
        else:
            torch.mul(cell_row, (s + r * self._peephole[3])[..., None], out=out)
