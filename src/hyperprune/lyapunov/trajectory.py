"""The network's own run through its inputs, which leaves behind the coefficients of all Jacobians.

Axes: T steps, B batch, F features, L layers.
"""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from hyperprune.errors import InputError, NumericsError
from hyperprune.lyapunov.jacobians import Carry, Stack

_CHUNK_ELEMENTS = 2**21
"""Coefficients kept at a time; bounds the memory of long sequences."""
_CHUNK_WORK = 2**20
"""Jacobian entries of a layer after which the chains may follow; fewer steps at a time overlap better with
the network's own run, more have less overhead."""


class Trajectory:
    """A network driven step by step, in the working type.

    Step by step, although the inputs' products could be one for all steps: so no bit depends on how a
    sequence is cut into pieces.
    """

    def __init__(self, stack: Stack, batch_size: int, dtype: torch.dtype, device: torch.device) -> None:
        self._layers = stack.layers
        self._input_size = stack.input_size
        self._batch_size, self._dtype, self._device = batch_size, dtype, device
        self.carries = list(stack.carries)

    def run(self, inputs: Float[Tensor, "T B F"], first_step: int) -> Iterator[list[Tensor]]:
        """Yield each layer's coefficients (T', B, factors, …), a bounded number of steps at a time.

        Raises:
            NumericsError: an input or state is not finite; names step and sample.
        """
        _require_finite(
            torch.isfinite(inputs).all(-1), first_step, "inputs", "look at the data or the embedding"
        )
        remedy = "look for weights or inputs that overflow, or compute in float64"
        kept: list[list[Tensor]] = [[] for _ in self._layers]
        outputs: list[Tensor] = []
        last = inputs.shape[0] - 1
        most_steps = max(8, _CHUNK_WORK // max(layer.state_size for layer in self._layers) ** 2)
        for step, x_BF in enumerate(inputs.detach().to(self._dtype)):
            below = x_BF
            for index, layer in enumerate(self._layers):
                below, self.carries[index], coefficients = layer.step(below, self.carries[index])
                kept[index].append(coefficients)
                outputs.append(below)
            num_kept = len(kept[0])
            num_elements = num_kept * sum(layer[0].numel() for layer in kept)
            if step == last or num_kept == most_steps or num_elements >= _CHUNK_ELEMENTS:
                chunk = [torch.stack(layer) for layer in kept]
                finite_TB = (
                    torch.stack(
                        [torch.isfinite(output).reshape(self._batch_size, -1).all(-1) for output in outputs]
                    )
                    .reshape(num_kept, len(self._layers), -1)
                    .all(1)
                )
                for coefficients in chunk:
                    finite_TB &= torch.isfinite(coefficients).flatten(2).all(-1)
                _require_finite(finite_TB, first_step + step + 1 - num_kept, "states", remedy)
                yield chunk
                kept, outputs = [[] for _ in self._layers], []

    def state(self) -> list[Carry]:
        """A copy of each layer's state."""
        return [tuple(part.clone() for part in carry) for carry in self.carries]

    def check(self, inputs: Tensor) -> None:
        """Refuse inputs of the wrong shape, type or device.

        Raises:
            InputError: the message names rule, value and remedy.
        """
        require_axes(inputs)
        shape = tuple(inputs.shape)
        if shape[0] < 1 or shape[1] != self._batch_size:
            raise InputError(
                f"inputs must have at least 1 step of {self._batch_size} samples, got shape {shape}; the "
                "axes are (time, batch, features), whatever `batch_first` says"
            )
        if self._input_size is not None and shape[2] != self._input_size:
            raise InputError(
                f"inputs must have {self._input_size} features, got shape {shape}; embed tokens first"
            )
        if inputs.device != self._device:
            raise InputError(
                f"module and inputs must be on one device, the module is on {self._device} and the inputs "
                f"on {inputs.device}; move one with .to()"
            )
        if not inputs.is_floating_point():
            raise InputError(f"inputs must be floating-point, got {inputs.dtype}; embed tokens first")


def require_axes(inputs: Any) -> None:
    """`inputs` must be a tensor of three axes."""
    if not isinstance(inputs, Tensor) or inputs.ndim != 3:
        got = tuple(inputs.shape) if isinstance(inputs, Tensor) else type(inputs).__name__
        raise InputError(
            f"inputs must have shape (time, batch, features), got {got}; use unsqueeze(1) for one"
        )


def _require_finite(finite_TB: Tensor, first_step: int, what: str, remedy: str) -> None:
    if not bool(finite_TB.all()):
        step, sample = (~finite_TB).nonzero()[0].tolist()
        raise NumericsError(
            f"{what} must be finite, step {first_step + step}, sample {sample} is not; {remedy}"
        )
