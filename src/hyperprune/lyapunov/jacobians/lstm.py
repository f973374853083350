"""The LSTM layer of `torch.nn`, gates in the order i, f, g, o, with and without a projection P of h.

    c' = f c + i g,   m = o tanh(c'),   h' = m  (or P m)

With s = o (1 − tanh² c') and A = diag(i(1−i) g) U_i + diag(f(1−f) c) U_f + diag(i (1−g²)) U_g:

    ∂c'/∂h = A                                     ∂c'/∂c = diag(f)
    ∂m/∂h  = diag(s) A + diag(o(1−o) tanh c') U_o  ∂m/∂c  = diag(s f)

Axes: see base; R = size of h (H, or the projection's), M = H, the memory's size.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from hyperprune.lyapunov.jacobians.base import Affine, Carry, Layer, tanh_slope, weighted_rows


class LSTMLayer(Layer):
    """Args:
    hidden_only: J = ∂h'/∂h with c held fixed (S = R) instead of the Jacobian of (h, c) (S = R + M).
    """

    def __init__(
        self,
        weight_ih: Float[Tensor, "GM I"],
        weight_hh: Float[Tensor, "GM R"],
        bias: Float[Tensor, " GM"] | None,
        projection: Float[Tensor, "R M"] | None,
        *,
        hidden_only: bool,
    ) -> None:
        memory_size = weight_hh.shape[0] // 4
        self._hidden_size = weight_hh.shape[1]
        self.state_size = self._hidden_size + (0 if hidden_only else memory_size)
        self._drive = Affine([weight_ih, weight_hh], bias)
        self._projection = projection
        self._hidden_only = hidden_only
        self._recurrent = weight_hh.chunk(4)

    def step(self, x_BI: Tensor, carry: Carry) -> tuple[Tensor, Carry, Tensor]:
        h, c = carry
        z = self._drive(x_BI, h)
        # Of all four gates at once, though g has no use for it: small steps are bound by their number of
        # operations.
        gates = torch.sigmoid(z)
        slopes = gates * torch.sigmoid(-z)  # 1 - σ would be 0 where σ rounds to 1
        (i, f, _, o), (slope_i, slope_f, _, slope_o) = gates.chunk(4, dim=1), slopes.chunk(4, dim=1)
        z_g = z.chunk(4, dim=1)[2]
        g = torch.tanh(z_g)
        new_c = f * c + i * g
        tanh_c = torch.tanh(new_c)
        new_h = o * tanh_c
        if self._projection is not None:
            new_h = torch.mm(new_h, self._projection.t())
        a_i, a_f, a_g = slope_i * g, slope_f * c, i * tanh_slope(z_g)
        s, a_o = o * tanh_slope(new_c), slope_o * tanh_c
        coefficients = [a_i, a_f, a_g, s, a_o, f]
        if self._hidden_only:
            coefficients = [s * a_i, s * a_f, s * a_g, a_o]
        return new_h, (new_h, new_c), torch.stack(coefficients, dim=1)[:, None]

    def build(self, factor: int, coefficients: Tensor, out: Tensor) -> None:
        if self._hidden_only:
            self._through_projection(out, lambda m: weighted_rows(self._recurrent, coefficients, m))
            return
        s, a_o, f = (coefficients[..., row, :] for row in (3, 4, 5))
        size = self._hidden_size
        cell_by_hidden, cell_by_cell = out[..., size:, :size], out[..., size:, size:]
        weighted_rows(self._recurrent[:3], coefficients[..., :3, :], cell_by_hidden)
        cell_by_cell.zero_()
        cell_by_cell.diagonal(dim1=-2, dim2=-1).copy_(f)

        def memory_by_hidden(m: Tensor) -> None:
            torch.mul(cell_by_hidden, s[..., None], out=m)
            m.addcmul_(self._recurrent[3], a_o[..., None])

        self._through_projection(out[..., :size, :size], memory_by_hidden)
        hidden_by_cell = out[..., :size, size:]
        if self._projection is None:
            hidden_by_cell.zero_()
            hidden_by_cell.diagonal(dim1=-2, dim2=-1).copy_(s * f)
        else:
            torch.mul(self._projection, (s * f)[..., None, :], out=hidden_by_cell)

    def _through_projection(self, out: Tensor, write) -> None:
        if self._projection is None:
            write(out)
            return
        memory = out.new_empty(out.shape[0], self._projection.shape[1], self._hidden_size)
        write(memory)
        out.copy_(self._projection @ memory)
