"""The GRU layer of `torch.nn`, whose reset gate acts after the recurrent product; gates r, z, n.

    n = tanh(W_n x + b + r q),  q = U_n h + b_hn,   h' = (1 − z) n + z h

    J = diag(z) + diag((h − n) z(1−z)) U_z + diag((1−z)(1−n²) r) U_n + diag((1−z)(1−n²) q r(1−r)) U_r

Axes: see base.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from hyperprune.lyapunov.jacobians.base import Affine, Carry, Layer, tanh_slope, weighted_rows


class GRULayer(Layer):
    def __init__(
        self,
        weight_ih: Float[Tensor, "GH I"],
        weight_hh: Float[Tensor, "GH H"],
        bias_ih: Float[Tensor, " GH"] | None,
        bias_hh: Float[Tensor, " GH"] | None,
    ) -> None:
        self.state_size = weight_hh.shape[1]
        self._drive, self._recur = Affine([weight_ih], bias_ih), Affine([weight_hh], bias_hh)
        self._recurrent = weight_hh.chunk(3)

    def step(self, x_BI: Tensor, carry: Carry) -> tuple[Tensor, Carry, Tensor]:
        (h,) = carry
        x_r, x_z, x_n = self._drive(x_BI).chunk(3, dim=1)
        h_r, h_z, q = self._recur(h).chunk(3, dim=1)
        a_r = x_r + h_r
        r, z = torch.sigmoid(a_r), torch.sigmoid(x_z + h_z)
        a_n = x_n + r * q
        n = torch.tanh(a_n)
        new_h = n + z * (h - n)
        slope, not_r = (1 - z) * tanh_slope(a_n), torch.sigmoid(-a_r)
        coefficients = [slope * q * r * not_r, (h - n) * z * (1 - z), slope * r, z]
        return new_h, (new_h,), torch.stack(coefficients, dim=1)[:, None]

    def build(self, factor: int, coefficients: Tensor, out: Tensor) -> None:
        weighted_rows(self._recurrent, coefficients[..., :3, :], out)
        out.diagonal(dim1=-2, dim2=-1).add_(coefficients[..., 3, :])
