"""The plain recurrent layer of `torch.nn.RNN`: h' = φ(W x + U h + b), J = diag(φ') U.

Axes: see base.
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from hyperprune.lyapunov.jacobians.base import Affine, Carry, Layer, tanh_slope, weighted_rows


class RNNLayer(Layer):
    def __init__(
        self,
        weight_ih: Float[Tensor, "H I"],
        weight_hh: Float[Tensor, "H H"],
        bias: Float[Tensor, " H"] | None,
        nonlinearity: Literal["tanh", "relu"],
    ) -> None:
        self.state_size = weight_hh.shape[0]
        self._drive = Affine([weight_ih, weight_hh], bias)
        self._nonlinearity = nonlinearity
        self._recurrent = [weight_hh]

    def step(self, x_BI: Tensor, carry: Carry) -> tuple[Tensor, Carry, Tensor]:
        (h,) = carry
        z = self._drive(x_BI, h)
        if self._nonlinearity == "tanh":
            h = torch.tanh(z)
            slope = tanh_slope(z)
        else:
            h = torch.relu(z)
            slope = (z > 0).to(z.dtype)  # 0 at the kink, as autograd has it
        return h, (h,), slope[:, None, None]

    def build(self, factor: int, coefficients: Tensor, out: Tensor) -> None:
        weighted_rows(self._recurrent, coefficients, out)
