"""A recurrent module as what pruning at initialisation needs of it: a step, and a run over a window.

Unlike the Lyapunov engine's layers these keep the graph to the weights: a score is a derivative by them. A
run goes through torch's own kernels where there are any; a step is written out, since those kernels have
no forward-mode derivative.

Axes: T time, B batch, F features, H hidden.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from hyperprune.at_init.written_out import STEPS
from hyperprune.errors import InputError
from hyperprune.models.cells import RHN, PeepholeLSTM

Carry = tuple[Tensor, ...]
"""A layer's state: one tensor (B, ·) for each part, h first."""


class Layer(ABC):
    """One layer, driven by the one below."""

    @abstractmethod
    def step(self, x_BF: Tensor, carry: Carry) -> Carry:
        """The state after one time step."""

    def run(self, x_TBF: Tensor, carry: Carry) -> tuple[Tensor, Carry]:
        """h after each of T ≥ 1 steps, (T, B, H), and the last state."""
        hidden = []
        for x_BF in x_TBF.unbind(0):
            carry = self.step(x_BF, carry)
            hidden.append(carry[0])
        return torch.stack(hidden), carry


@dataclass(frozen=True)
class Recurrence:
    """A recurrent module and the sequence that drives it.

    Attributes:
        layers: the one nearest to the inputs first.
        carries: the state that each starts from, detached.
        inputs: (T, B, F), detached.
        matrices: the module's parameters with at least two axes; empty for a bare function.
        module: as it was given.
    """

    layers: tuple[Layer, ...]
    carries: tuple[Carry, ...]
    inputs: Tensor
    matrices: tuple[nn.Parameter, ...]
    module: Any

    @property
    def batch_size(self) -> int:
        return self.inputs.shape[1]

    def run(self, inputs: Tensor) -> tuple[list[Tensor], tuple[Carry, ...]]:
        """h of every layer after every step, [(T, B, H)], and the last states."""
        if inputs.shape[0] == 0:
            return [], self.carries
        hidden, carries = [], []
        for layer, carry in zip(self.layers, self.carries, strict=True):
            inputs, last = layer.run(inputs, carry)
            hidden.append(inputs)
            carries.append(last)
        return hidden, tuple(carries)

    def step(self, x_BF: Tensor, carries: Sequence[Carry]) -> tuple[Carry, ...]:
        """The states of all layers after one time step."""
        new = []
        for layer, carry in zip(self.layers, carries, strict=True):
            new.append(layer.step(x_BF, carry))
            x_BF = new[-1][0]
        return tuple(new)


class _TorchLayer(Layer):
    """One layer of an `nn.RNN`, `nn.LSTM` or `nn.GRU`; its weights are read when they are used."""

    def __init__(self, module: nn.RNNBase, layer: int) -> None:
        self._module = module
        names = ["weight_ih", "weight_hh", *(["bias_ih", "bias_hh"] if module.bias else [])]
        self._names = [f"{name}_l{layer}" for name in names]
        self._projection = f"weight_hr_l{layer}" if module.proj_size else None

    def _weights(self) -> list[Tensor]:
        names = [*self._names, *([self._projection] if self._projection else [])]
        return [getattr(self._module, name) for name in names]

    @property
    def _kernel(self) -> str:
        """The name of torch's kernel, and of the step in `STEPS`."""
        return self._module.mode.lower()

    def step(self, x_BF: Tensor, carry: Carry) -> Carry:
        weight_ih, weight_hh, *biases = (getattr(self._module, name) for name in self._names)
        bias_ih, bias_hh = biases or (None, None)
        driven = functional.linear(x_BF, weight_ih, bias_ih)
        hidden, *cell = STEPS[self._kernel](driven, functional.linear(carry[0], weight_hh, bias_hh), carry)
        if self._projection:
            hidden = functional.linear(hidden, getattr(self._module, self._projection))
        return hidden, *cell

    def run(self, x_TBF: Tensor, carry: Carry) -> tuple[Tensor, Carry]:
        state = [part.unsqueeze(0).contiguous() for part in carry]
        # train=True, since inference kernels have no derivative; with dropout 0 nothing is drawn.
        settings = (self._weights(), self._module.bias, 1, 0.0, True, False, False)
        start = state if isinstance(self._module, nn.LSTM) else state[0]
        outputs, *last = getattr(torch, self._kernel)(x_TBF, start, *settings)
        return outputs, tuple(part.squeeze(0) for part in last)


class _PeepholeLayer(Layer):
    def __init__(self, module: PeepholeLSTM, layer: int) -> None:
        self._module, self._layer = module, layer

    def step(self, x_BF: Tensor, carry: Carry) -> Carry:
        hidden, cell = carry
        return self._module.layer_step(self._layer, x_BF, (hidden, cell))


class _RHNLayer(Layer):
    def __init__(self, module: RHN) -> None:
        self._module = module

    def step(self, x_BF: Tensor, carry: Carry) -> Carry:
        return (self._module.step(x_BF, carry[0]),)

    def run(self, x_TBF: Tensor, carry: Carry) -> tuple[Tensor, Carry]:
        outputs, last = self._module(x_TBF, carry[0])
        return outputs, (last,)


class _FunctionLayer(Layer):
    """A user's step function `(x_t, state) -> new state`, state in the form in which it was given."""

    def __init__(self, function: Callable[..., Any], state: Any) -> None:
        self._function = function
        self._is_tuple = not isinstance(state, Tensor)

    def step(self, x_BF: Tensor, carry: Carry) -> Carry:
        new = self._function(x_BF, carry if self._is_tuple else carry[0])
        parts = tuple(new) if isinstance(new, tuple | list) else (new,)
        shapes = [tuple(part.shape) for part in carry]
        got = [tuple(part.shape) if isinstance(part, Tensor) else type(part).__name__ for part in parts]
        if isinstance(new, Tensor) == self._is_tuple or got != shapes:
            raise InputError(
                f"a step function must return a state of the form it was given, shapes {shapes}, got {got}; "
                "return the new state only, a tensor for a tensor and a tuple for a tuple"
            )
        return parts


RECURRENT_MODULES = (nn.RNN, nn.LSTM, nn.GRU, PeepholeLSTM, RHN)
"""The modules that are recognised inside a model; anything else is a step function."""


def matrices_of(module: nn.Module) -> tuple[nn.Parameter, ...]:
    """A module's parameters with at least two axes."""
    return tuple(parameter for parameter in module.parameters() if parameter.ndim >= 2)


def open_recurrence(module: Any, inputs: Any, state: Any = None) -> Recurrence:
    """Take a module and what drives it apart.

    Args:
        module: one of `RECURRENT_MODULES`, or a callable `(x_t, state) -> new state` on batches.
        inputs: (T, B, F), time first whatever the module's `batch_first`.
        state: initial state in the module's own form; None for zeros. A callable needs one: a tensor or
            a tuple of tensors, samples first.

    Raises:
        InputError: inputs or state of the wrong form, a bidirectional module, or no module at all.
    """
    if not isinstance(inputs, Tensor) or inputs.ndim != 3 or inputs.numel() == 0:
        got = tuple(inputs.shape) if isinstance(inputs, Tensor) else type(inputs).__name__
        raise InputError(
            f"a recurrent module's inputs must be (time, batch, features), none of them 0, got {got}; name "
            "modules and inputs with recurrent=…"
        )
    inputs = inputs.detach()
    if isinstance(module, nn.RNNBase):
        layers, carries = _open_torch(module, inputs, state)
    elif isinstance(module, PeepholeLSTM):
        layers = [_PeepholeLayer(module, layer) for layer in range(module.num_layers)]
        zeros = module.initial_state(inputs.shape[1])
        parts = zeros if state is None else _checked(state, [tuple(part.shape) for part in zeros])
        carries = list(zip(*(part.unbind(0) for part in parts), strict=True))
    elif isinstance(module, RHN):
        layers = [_RHNLayer(module)]
        carries = [(module.initial_state(inputs.shape[1]) if state is None else state,)]
    elif callable(module):
        layers, carries = _open_function(module, inputs, state)
    else:
        raise InputError(
            "a recurrent module must be nn.RNN, nn.LSTM, nn.GRU, one of hyperprune.models or a callable "
            f"(x_t, state) -> new state, got {type(module).__name__}; pass the recurrent layer itself"
        )
    owner = module if isinstance(module, nn.Module) else getattr(module, "__self__", None)
    return Recurrence(
        layers=tuple(layers),
        carries=tuple(tuple(part.detach() for part in carry) for carry in carries),
        inputs=inputs,
        matrices=matrices_of(owner) if isinstance(owner, nn.Module) else (),
        module=module,
    )


def _open_torch(
    module: nn.RNNBase, inputs: Tensor, state: Any
) -> tuple[list[_TorchLayer], list[tuple[Tensor, ...]]]:
    if module.bidirectional:
        raise InputError(
            f"pruning by a Jacobian needs a step from h[t] to h[t+1], a bidirectional "
            f"{type(module).__name__} has none; use snip or grasp, or pass each direction by itself"
        )
    sizes = [module.proj_size or module.hidden_size, module.hidden_size]
    shapes = [(module.num_layers, inputs.shape[1], size) for size in sizes]
    if not isinstance(module, nn.LSTM):
        shapes = shapes[:1]
    parts = [inputs.new_zeros(shape) for shape in shapes] if state is None else _checked(state, shapes)
    layers = [_TorchLayer(module, layer) for layer in range(module.num_layers)]
    return layers, list(zip(*(part.unbind(0) for part in parts), strict=True))


def _checked(state: Any, shapes: list[tuple[int, ...]]) -> list[Tensor]:
    """The parts of a state that must have these shapes."""
    parts = list(state) if isinstance(state, tuple | list) else [state]
    got = [tuple(part.shape) if isinstance(part, Tensor) else type(part).__name__ for part in parts]
    if got != shapes:
        raise InputError(f"the state must have shapes {shapes}, got {got}; pass None to start from zero")
    return parts


def _open_function(
    function: Callable[..., Any], inputs: Tensor, state: Any
) -> tuple[list[_FunctionLayer], list[tuple[Tensor, ...]]]:
    parts = (state,) if isinstance(state, Tensor) else state
    is_state = (
        isinstance(parts, tuple | list)
        and len(parts) > 0
        and all(isinstance(part, Tensor) and part.shape[:1] == inputs.shape[1:2] for part in parts)
    )
    if not is_state:
        unknown = (
            f"; {type(function).__name__} is taken for one, being no nn.RNN, nn.LSTM, nn.GRU, PeepholeLSTM "
            "or RHN; snip, grasp, magnitude and random score any weights"
        )
        raise InputError(
            f"a step function needs a state: a tensor or tuple of tensors with {inputs.shape[1]} samples "
            "first; its shape cannot be known otherwise"
            + (unknown if isinstance(function, nn.Module) else "")
        )
    return [_FunctionLayer(function, state)], [tuple(parts)]
