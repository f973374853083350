"""What the spectrum needs to know of one recurrent layer: its step, and the Jacobian of that step.

The Jacobian of a gated layer is a sum of matrices that are fixed for the whole run, each scaled by rows
with coefficients that come out of the forward step. So a step hands back the coefficients, which are small
and can be kept for a whole window, and the Jacobian is built from them when it is needed and where it is
needed.

Axes: B batch, I input, H hidden, O output, S state, F factors of one step, G gates, C coefficient rows.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

Carry = tuple[Tensor, ...]
"""A layer's state: one tensor (B, ·) for each part, h first."""


class Layer(ABC):
    """One layer as a dynamical system driven by the layer below.

    A step's Jacobian is the product of `num_factors` factors, the first one applied first; only a layer
    with micro-steps (RHN) has more than one.
    """

    state_size: int
    num_factors: int = 1

    @abstractmethod
    def step(
        self, x_BI: Float[Tensor, "B I"], carry: Carry
    ) -> tuple[Float[Tensor, "B O"], Carry, Float[Tensor, "B F *coefficients"]]:
        """Output for the layer above, new state, and the coefficients of the factors."""

    @abstractmethod
    def build(self, factor: int, coefficients: Float[Tensor, "B ..."], out: Float[Tensor, "B S S"]) -> None:
        """Write factor number `factor` into `out`; rows index the new state.

        Args:
            coefficients: of that factor.
        """


def weighted_rows(
    weights: Sequence[Float[Tensor, "H M"]], coefficients: Float[Tensor, "B G H"], out: Float[Tensor, "B H M"]
) -> None:
    """`out = Σ_g diag(coefficients[g]) @ weights[g]` by row scaling, without diagonal matrices."""
    columns = coefficients.unsqueeze(-1).unbind(-3)
    torch.mul(weights[0], columns[0], out=out)
    for weight, column in zip(weights[1:], columns[1:], strict=True):
        out.addcmul_(weight, column)


def tanh_slope(z: Tensor) -> Tensor:
    """The derivative of tanh; from z, since tanh(z) rounds to 1 from |z| = 9 on in float32."""
    return torch.cosh(z).pow(-2)


class Affine:
    """`x Wᵀ + h Uᵀ + b` for a few samples at a time.

    The matrices are kept transposed: for a handful of rows that is several times faster than `linear`.
    """

    def __init__(self, weights: Sequence[Float[Tensor, "GH _"]], bias: Float[Tensor, " GH"] | None) -> None:
        self._weights = [weight.t().contiguous() for weight in weights]
        self._bias = bias

    def __call__(self, *inputs: Float[Tensor, "B _"]) -> Float[Tensor, "B GH"]:
        result = torch.mm(inputs[0], self._weights[0])
        for value, weight in zip(inputs[1:], self._weights[1:], strict=True):
            result += torch.mm(value, weight)
        return result if self._bias is None else result.add_(self._bias)
