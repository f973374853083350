"""The recurrent highway layer: `depth` micro-steps, each of them one factor of the step's Jacobian.

    s' = h t + s c,   h = tanh(R_H s + …),  t = σ(R_T s + …),  c = 1 − t  or  σ(R_C s + …)

    J = diag(c) + diag(t (1−h²)) R_H + diag(h t(1−t)) R_T + diag(s ∂c) R_C,   coupled: R_C ∂c = −t(1−t) R_T

Reference: Zilly et al. 2017, eqs. 6-9. Axes: see base.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from hyperprune.lyapunov.jacobians.base import Affine, Carry, Layer, tanh_slope, weighted_rows


class RHNLayer(Layer):
    def __init__(
        self,
        weight_ih: Float[Tensor, "GH I"],
        weights_hh: list[Tensor],
        biases: list[Tensor | None],
        *,
        coupled: bool,
    ) -> None:
        self.state_size = weights_hh[0].shape[1]
        self.num_factors = len(weights_hh)
        # The input enters the first micro-step only.
        self._drives = [
            Affine([weight] if micro_step else [weight, weight_ih], bias)
            for micro_step, (weight, bias) in enumerate(zip(weights_hh, biases, strict=True))
        ]
        self._num_gates = 2 if coupled else 3
        self._coupled = coupled
        self._recurrent = [weight.chunk(self._num_gates) for weight in weights_hh]

    def step(self, x_BI: Tensor, carry: Carry) -> tuple[Tensor, Carry, Tensor]:
        (s,) = carry
        coefficients = []
        for micro_step, drive in enumerate(self._drives):
            z = drive(s) if micro_step else drive(s, x_BI)
            gates = z.chunk(self._num_gates, dim=1)
            h, t = torch.tanh(gates[0]), torch.sigmoid(gates[1])
            not_t = torch.sigmoid(-gates[1])  # 1 - t would be 0 where t rounds to 1
            if self._coupled:
                rows = [t * tanh_slope(gates[0]), (h - s) * t * not_t, not_t]
                s = s + t * (h - s)
            else:
                c, not_c = torch.sigmoid(gates[2]), torch.sigmoid(-gates[2])
                rows = [t * tanh_slope(gates[0]), h * t * not_t, s * c * not_c, c]
                s = h * t + s * c
            coefficients.append(torch.stack(rows, dim=1))
        return s, (s,), torch.stack(coefficients, dim=1)

    def build(self, factor: int, coefficients: Tensor, out: Tensor) -> None:
        weighted_rows(self._recurrent[factor], coefficients[..., :-1, :], out)
        out.diagonal(dim1=-2, dim2=-1).add_(coefficients[..., -1, :])
