"""A recurrent layer of a graph-wired network, which reads one lower layer of the graph and adds to its own.

What a layer hands on is everything that later ones may read: the outputs of all layers of the graph so far,
side by side. No recurrent layer sees another one that comes after it, so the network's Jacobian is block
lower triangular, and its exponents are those of the recurrent layers' own blocks.

Axes: see base.
"""

import torch
from torch import Tensor

from hyperprune.lyapunov.jacobians.base import Carry, Layer


class WiredBlock(Layer):
    """Args:
    layer: the recurrent layer by itself.
    reads: the columns it reads of what is handed on; None for the network's inputs.
    adds_to: how many of the last columns its output is added to; 0 opens columns of its own.
    """

    def __init__(self, layer: Layer, reads: slice | None, adds_to: int) -> None:
        self.state_size, self.num_factors = layer.state_size, layer.num_factors
        self._layer, self._reads, self._adds_to = layer, reads, adds_to

    def step(self, x_BI: Tensor, carry: Carry) -> tuple[Tensor, Carry, Tensor]:
        own_input = x_BI if self._reads is None else x_BI[:, self._reads]
        output, carry, coefficients = self._layer.step(own_input, carry)
        if self._reads is None:  # nothing but the first layer reads the inputs
            return output, carry, coefficients
        if self._adds_to:
            kept = x_BI.shape[1] - self._adds_to
            passed = torch.cat([x_BI[:, :kept], x_BI[:, kept:] + output], dim=1)
        else:
            passed = torch.cat([x_BI, output], dim=1)
        return passed, carry, coefficients

    def build(self, factor: int, coefficients: Tensor, out: Tensor) -> None:
        self._layer.build(factor, coefficients, out)
