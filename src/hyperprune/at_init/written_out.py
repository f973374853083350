"""Torch's recurrent kernels written out step by step, for derivatives of derivatives in little memory.

Differentiated twice, torch's kernels keep a gradient as large as the weights for every time step, because
each step transposes the weights anew and autograd runs those nodes last. Here a sequence shares one
transposed matrix, whose gradient is one sum.

Axes: T time, B batch, F features, H hidden, G gates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_State = tuple[Tensor, ...]


def _tanh(driven_BH: Tensor, recurrent_BH: Tensor, state: _State) -> _State:
    return (torch.tanh(driven_BH + recurrent_BH),)


def _relu(driven_BH: Tensor, recurrent_BH: Tensor, state: _State) -> _State:
    return (torch.relu(driven_BH + recurrent_BH),)


def _gru(driven_BGH: Tensor, recurrent_BGH: Tensor, state: _State) -> _State:
    (reset, update, new), (of_reset, of_update, of_new) = (
        gates.chunk(3, dim=1) for gates in (driven_BGH, recurrent_BGH)
    )
    keep = torch.sigmoid(update + of_update)
    proposed = torch.tanh(new + torch.sigmoid(reset + of_reset) * of_new)
    return (keep * state[0] + (1 - keep) * proposed,)


def _lstm(driven_BGH: Tensor, recurrent_BGH: Tensor, state: _State) -> _State:
    put_in, forget, value, put_out = (driven_BGH + recurrent_BGH).chunk(4, dim=1)
    cell = torch.sigmoid(forget) * state[1] + torch.sigmoid(put_in) * torch.tanh(value)
    return torch.sigmoid(put_out) * torch.tanh(cell), cell


STEPS: dict[str, Callable[[Tensor, Tensor, _State], _State]] = {
    "rnn_tanh": _tanh,
    "rnn_relu": _relu,
    "gru": _gru,
    "lstm": _lstm,
}
"""One step, by the kernel's name: from W x + b, U h + c and the state (h first) to the new state."""


class WrittenOut(TorchFunctionMode):
    """Within this context recurrent kernels of torch are written out; others stay as they are.

    Those that are bidirectional, projected, packed, or drop units between layers stay, but run torch's own
    kernels: oneDNN's have no second derivative.
    """

    def __enter__(self) -> WrittenOut:
        self._onednn = torch.backends.mkldnn.enabled
        torch.backends.mkldnn.enabled = False
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        torch.backends.mkldnn.enabled = self._onednn

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        if name in STEPS and not kwargs and _is_plain(args):
            return _run(STEPS[name], *args)
        return func(*args, **(kwargs or {}))


def _is_plain(args: Sequence[Any]) -> bool:
    """Whether these arguments of a kernel are of a sequence that `_run` can run."""
    if len(args) != 9 or not isinstance(args[2], list | tuple):  # packed sequences have other arguments
        return False
    _, _, weights, has_biases, num_layers, dropout, train, bidirectional, _ = args
    is_projected = len(weights) != num_layers * (4 if has_biases else 2)
    return not (bidirectional or is_projected or (dropout and train and num_layers > 1))


def _run(
    step: Callable[[Tensor, Tensor, _State], _State],
    inputs: Tensor,
    start: Tensor | Sequence[Tensor],
    weights: Sequence[Tensor],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Tensor, ...]:
    """What the kernel of these arguments gives: outputs, and each part of the last state."""
    parts = (start,) if isinstance(start, Tensor) else tuple(start)
    outputs_TBF = inputs.transpose(0, 1) if batch_first else inputs
    ends = []
    per_layer = len(weights) // num_layers
    for layer in range(num_layers):
        weight_ih, weight_hh, *biases = weights[layer * per_layer : (layer + 1) * per_layer]
        bias_ih, bias_hh = biases if has_biases else (0, 0)
        driven_TBG = outputs_TBF @ weight_ih.t() + bias_ih
        turned_HG = weight_hh.t()  # one for all steps: see the module
        state = tuple(part[layer] for part in parts)
        hidden = []
        for driven_BG in driven_TBG.unbind(0):
            state = step(driven_BG, state[0] @ turned_HG + bias_hh, state)
            hidden.append(state[0])
        outputs_TBF = torch.stack(hidden)
        ends.append(state)
    last = (torch.stack(part) for part in zip(*ends, strict=True))
    return (outputs_TBF.transpose(0, 1) if batch_first else outputs_TBF, *last)
