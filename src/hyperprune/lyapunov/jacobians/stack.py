"""From a module to its layers: which cell is computed how, and in which form it keeps its state.

A new cell is one file with its `Layer` and one row in the table at the end of this one.

Axes: L layers, B batch, F features.
"""

import copy
import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from hyperprune.errors import InputError, NumericsError
from hyperprune.lyapunov.jacobians.autodiff import AutodiffLayer
from hyperprune.lyapunov.jacobians.base import Carry, Layer
from hyperprune.lyapunov.jacobians.gru import GRULayer
from hyperprune.lyapunov.jacobians.lstm import LSTMLayer
from hyperprune.lyapunov.jacobians.peephole import PeepholeLayer
from hyperprune.lyapunov.jacobians.rhn import RHNLayer
from hyperprune.lyapunov.jacobians.rnn import RNNLayer
from hyperprune.lyapunov.jacobians.wired import WiredBlock
from hyperprune.models.cells import RHN, PeepholeLSTM
from hyperprune.models.graph_rnn import Block, GraphRNN


@dataclasses.dataclass(frozen=True)
class Stack:
    """The layers of a network, first one nearest to the inputs, and the state each of them starts from.

    Args:
        input_size: features the first layer takes; None if any number goes.
    """

    layers: list[Layer]
    carries: list[Carry]
    input_size: int | None


def stack_of(
    module: Any, state: Any, *, batch: int, hidden_only: bool, dtype: torch.dtype, device: torch.device
) -> Stack:
    """Take a module (or step function) apart into layers, with weights and states in the working type.

    Args:
        module: a recurrent module of `torch.nn` or `hyperprune.models`, or a callable.
        state: initial state in the module's own form; None for zeros (modules only).
        batch: samples B.
        hidden_only: whether the Jacobians are of h alone, with the cell held fixed.
        dtype: what to compute in.
        device: what the result lives on; the module must be there.

    Raises:
        InputError: bidirectional module, wrong device, or a state of the wrong form.
    """
    for kind, open_module in _TABLE.items():
        if isinstance(module, kind):
            _refuse_own_forward(module, kind)
            _refuse_hooks(module, kind)
            return open_module(module, state, batch, hidden_only, _Weights(module, dtype, device))
    if callable(module):
        return _open_callable(module, state, batch, hidden_only, dtype, device)
    raise InputError(
        "module must be nn.RNN, nn.LSTM, nn.GRU, a recurrent module of hyperprune.models or a callable "
        f"(x_t, state) -> new state, got {type(module).__name__}; pass the recurrent layer itself"
    )


def _refuse_own_forward(module: nn.Module, kind: type[nn.Module]) -> None:
    """A forward of its own may compute something else than the weights of its base class say."""
    if getattr(module.forward, "__func__", None) is not kind.forward:
        raise InputError(
            f"a {kind.__name__} is measured by its weights, and {type(module).__name__} has a forward of its "
            "own, which may do more; pass its step as a callable (x_t, state) -> new state"
        )


def _refuse_hooks(module: nn.Module, kind: type[nn.Module]) -> None:
    """A hook may make the weights anew at each forward pass, or change what it takes or gives."""
    for part in module.modules():
        if part._forward_pre_hooks or part._forward_hooks:
            raise InputError(
                f"a {kind.__name__} is measured by its weights and must be free of forward hooks, which may "
                f"change them or its outputs, got some on a {type(part).__name__}; take them off "
                "(prune.remove, remove_weight_norm, or the handle's remove()), or pass its step as a "
                "callable (x_t, state) -> new state"
            )


class _Weights:
    """Reads a module's tensors in the working type, detached."""

    def __init__(self, module: nn.Module, dtype: torch.dtype, device: torch.device) -> None:
        self._module, self.dtype, self.device = module, dtype, device
        _require_device(module, device)

    def __call__(self, name: str) -> Tensor:
        return self.checked(name, getattr(self._module, name))

    def checked(self, name: str, tensor: Tensor) -> Tensor:
        tensor = tensor.detach().to(self.dtype)
        if not bool(torch.isfinite(tensor).all()):
            raise NumericsError(
                f"weights must be finite, {name} is not; leave this network out or train it more gently"
            )
        return tensor

    def optional(self, name: str) -> Tensor | None:
        return self(name) if getattr(self._module, name, None) is not None else None

    def states(self, parts: Any, shapes: Sequence[tuple[int, ...]]) -> list[Tensor]:
        """Check the parts of a given state, or make zeros where it is None."""
        if not isinstance(parts, tuple | list) or len(parts) != len(shapes):
            raise InputError(
                f"the state must be {' and '.join(map(str, shapes))}, got {_describe(parts)}; "
                "pass None to start from zero"
            )
        result = []
        for part, shape in zip(parts, shapes, strict=True):
            if part is None:
                result.append(torch.zeros(shape, dtype=self.dtype, device=self.device))
                continue
            if not isinstance(part, Tensor) or tuple(part.shape) != shape:
                raise InputError(
                    f"the state must have shape {shape}, got {_describe(part)}; pass None to start from zero"
                )
            _require_same_device(part, self.device)
            result.append(part.detach().to(self.dtype))
        return result


def _describe(value: Any) -> str:
    if isinstance(value, Tensor):
        return str(tuple(value.shape))
    if isinstance(value, tuple | list):
        return "(" + ", ".join(_describe(item) for item in value) + ")"
    return type(value).__name__


def _require_device(module: nn.Module, device: torch.device) -> None:
    for name, tensor in chain(module.named_parameters(), module.named_buffers()):
        if tensor.device != device:
            raise InputError(
                f"module and inputs must be on one device, {name} is on {tensor.device} and the inputs on "
                f"{device}; move one with .to()"
            )


def _require_same_device(part: Tensor, device: torch.device) -> None:
    if part.device != device:
        raise InputError(
            f"state and inputs must be on one device, the state is on {part.device} and the inputs on "
            f"{device}; move one with .to()"
        )


def _require_one_direction(module: nn.RNNBase) -> None:
    if module.bidirectional:
        raise InputError(
            f"a Lyapunov spectrum needs a step from h[t] to h[t+1], a bidirectional {type(module).__name__} "
            "has none: its backward half runs from the end of the sequence, and the layer above reads both; "
            "pass a unidirectional module, or each direction of one layer by itself"
        )


def _bias_sum(weights: _Weights, layer: int) -> Tensor | None:
    bias_ih, bias_hh = weights.optional(f"bias_ih_l{layer}"), weights.optional(f"bias_hh_l{layer}")
    return None if bias_ih is None or bias_hh is None else bias_ih + bias_hh


def _open_rnn(module: nn.RNN, state: Any, batch: int, hidden_only: bool, weights: _Weights) -> Stack:
    _require_one_direction(module)
    layers: list[Layer] = [
        RNNLayer(
            weights(f"weight_ih_l{layer}"),
            weights(f"weight_hh_l{layer}"),
            _bias_sum(weights, layer),
            module.nonlinearity,  # type: ignore[arg-type]
        )
        for layer in range(module.num_layers)
    ]
    (h,) = weights.states((state,), [(module.num_layers, batch, module.hidden_size)])
    return Stack(layers, [(part,) for part in h], module.input_size)


def _open_gru(module: nn.GRU, state: Any, batch: int, hidden_only: bool, weights: _Weights) -> Stack:
    _require_one_direction(module)
    layers: list[Layer] = [
        GRULayer(
            weights(f"weight_ih_l{layer}"),
            weights(f"weight_hh_l{layer}"),
            weights.optional(f"bias_ih_l{layer}"),
            weights.optional(f"bias_hh_l{layer}"),
        )
        for layer in range(module.num_layers)
    ]
    (h,) = weights.states((state,), [(module.num_layers, batch, module.hidden_size)])
    return Stack(layers, [(part,) for part in h], module.input_size)


def _open_lstm(module: nn.LSTM, state: Any, batch: int, hidden_only: bool, weights: _Weights) -> Stack:
    _require_one_direction(module)
    layers: list[Layer] = [
        LSTMLayer(
            weights(f"weight_ih_l{layer}"),
            weights(f"weight_hh_l{layer}"),
            _bias_sum(weights, layer),
            weights(f"weight_hr_l{layer}") if module.proj_size else None,
            hidden_only=hidden_only,
        )
        for layer in range(module.num_layers)
    ]
    shapes = [
        (module.num_layers, batch, size)
        for size in (module.proj_size or module.hidden_size, module.hidden_size)
    ]
    h, c = weights.states((None, None) if state is None else state, shapes)
    return Stack(layers, list(zip(h, c, strict=True)), module.input_size)


def _open_peephole(
    module: PeepholeLSTM, state: Any, batch: int, hidden_only: bool, weights: _Weights
) -> Stack:
    layers: list[Layer] = [
        PeepholeLayer(
            weights(f"weight_ih_l{layer}"),
            weights(f"weight_hh_l{layer}"),
            weights(f"weight_peephole_l{layer}"),
            weights.optional(f"bias_l{layer}"),
            hidden_only=hidden_only,
        )
        for layer in range(module.num_layers)
    ]
    shapes = [(module.num_layers, batch, module.hidden_size)] * 2
    h, c = weights.states((None, None) if state is None else state, shapes)
    return Stack(layers, list(zip(h, c, strict=True)), module.input_size)


def _open_rhn(module: RHN, state: Any, batch: int, hidden_only: bool, weights: _Weights) -> Stack:
    layer = RHNLayer(
        weights("weight_ih_l0"),
        [weights(f"weight_hh_l0_d{micro_step}") for micro_step in range(module.depth)],
        [weights.optional(f"bias_l0_d{micro_step}") for micro_step in range(module.depth)],
        coupled=module.coupled,
    )
    (s,) = weights.states((state,), [(batch, module.hidden_size)])
    return Stack([layer], [(s,)], module.input_size)


def _open_graph(module: GraphRNN, state: Any, batch: int, hidden_only: bool, weights: _Weights) -> Stack:
    widths = [len(nodes) for nodes in module.graph.layers]
    shape = (batch, module.num_units)
    if module.cell == "lstm":
        parts = weights.states((None, None) if state is None else state, [shape, shape])
    else:
        parts = weights.states((state,), [shape])
    layers: list[Layer] = []
    carries: list[Carry] = []
    last = None
    for block in module.blocks():
        reads = None
        if block.source is not None:
            start = sum(widths[: block.source])
            reads = slice(start, start + widths[block.source])
        adds_to = widths[block.target] if block.target == last else 0
        layers.append(WiredBlock(_cell_of(block, module.cell, hidden_only, weights), reads, adds_to))
        carries.append(tuple(part[:, block.units] for part in parts))
        last = block.target
    return Stack(layers, carries, module.input_size)


def _cell_of(block: Block, cell: str, hidden_only: bool, weights: _Weights) -> Layer:
    """One recurrent layer of a graph-wired network by itself."""
    where = f"of the recurrent layer from {block.source} to {block.target}"
    weight_ih, weight_hh, bias_ih, bias_hh = (
        weights.checked(f"{name} {where}", getattr(block, name))
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    if cell == "gru":
        return GRULayer(weight_ih, weight_hh, bias_ih, bias_hh)
    if cell == "lstm":
        return LSTMLayer(weight_ih, weight_hh, bias_ih + bias_hh, None, hidden_only=hidden_only)
    return RNNLayer(weight_ih, weight_hh, bias_ih + bias_hh, "tanh" if cell == "rnn" else "relu")


def _open_callable(
    function: Callable[..., Any],
    state: Any,
    batch: int,
    hidden_only: bool,
    dtype: torch.dtype,
    device: torch.device,
) -> Stack:
    parts = (state,) if isinstance(state, Tensor) else state
    is_state = (
        isinstance(parts, tuple | list)
        and len(parts) > 0
        and all(isinstance(part, Tensor) and part.ndim >= 1 and part.shape[0] == batch for part in parts)
    )
    if not is_state:
        raise InputError(
            f"a callable needs a state: a tensor or tuple of tensors with {batch} samples first, got "
            f"{_describe(state)}; its shape cannot be known otherwise"
        )
    module = module_behind(function)
    if module is not None:
        _require_device(module, device)
        tensors = chain(module.parameters(), module.buffers())
        if any(tensor.is_floating_point() and tensor.dtype != dtype for tensor in tensors):
            module = copy.deepcopy(module).to(dtype)
            function = _of_module(function, module)
        function = partial(_in_evaluation, module, function)
    for part in parts:
        _require_same_device(part, device)
    carry = tuple(part.detach().to(dtype).clone() for part in parts)
    layer = AutodiffLayer(function, carry[0] if isinstance(state, Tensor) else carry, hidden_only=hidden_only)
    return Stack([layer], [carry], None)


def module_behind(function: Any) -> nn.Module | None:
    """The module that a step belongs to: itself, or the one whose method (or `partial` of it) it is."""
    if isinstance(function, partial):
        return module_behind(function.func)
    owner = function.__self__ if isinstance(function, MethodType) else function
    return owner if isinstance(owner, nn.Module) else None


def _of_module(function: Any, module: nn.Module) -> Callable[..., Any]:
    """A module's step as the same step of another module."""
    if isinstance(function, partial):
        return partial(_of_module(function.func, module), *function.args, **function.keywords)
    return MethodType(function.__func__, module) if isinstance(function, MethodType) else module


def _in_evaluation(module: nn.Module, function: Callable[..., Any], x: Tensor, state: Any) -> Any:
    """One step without dropout; every part of the module is in its mode again afterwards."""
    training = [part for part in module.modules() if part.training]
    for part in training:
        part.training = False
    try:
        return function(x, state)
    finally:
        for part in training:
            part.training = True


_TABLE: dict[type, Callable[..., Stack]] = {
    nn.RNN: _open_rnn,
    nn.LSTM: _open_lstm,
    nn.GRU: _open_gru,
    PeepholeLSTM: _open_peephole,
    RHN: _open_rhn,
    GraphRNN: _open_graph,
}
