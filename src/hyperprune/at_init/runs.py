"""Which recurrent modules a model has, and which sequences drive them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from hyperprune import rng
from hyperprune.at_init.recurrence import RECURRENT_MODULES
from hyperprune.errors import InputError

Runs = Callable[[nn.Module, Any], Sequence[Any]]
"""(model, batch) -> [(module, inputs (T, B, F), state), …], as `Task.recurrent`."""


class _AllSeenError(BaseException):
    """Ends a forward pass once every recurrent module has been driven; no caller's `except` may catch it."""


def recurrent_modules(model: nn.Module) -> list[nn.Module]:
    """The recurrent modules inside a model that are recognised, in its order."""
    return [module for module in model.modules() if isinstance(module, RECURRENT_MODULES)]


def watched_runs(
    model: nn.Module, loss_fn: Callable[[nn.Module, Any], Any], batch: Any
) -> list[tuple[nn.Module, Tensor, Any]]:
    """What drives each recurrent module of `model` while `loss_fn(model, batch)` runs.

    Only a module's first call counts; the pass ends where the last one would begin.

    Raises:
        InputError: no recurrent module is recognised, one is not called, or is given a packed sequence.
    """
    modules = recurrent_modules(model)
    if not modules:
        raise InputError(
            "the model must hold a recurrent module (nn.RNN, nn.LSTM, nn.GRU, hyperprune.models), found "
            "none; say where the recurrence sits with recurrent=…"
        )
    seen: dict[nn.Module, tuple[Tensor, Any]] = {}

    def watch(module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        if module in seen:
            return
        inputs = arguments[0] if arguments else named.get("input", named.get("inputs"))
        state = arguments[1] if len(arguments) > 1 else named.get("hx", named.get("state"))
        seen[module] = _time_first(module, inputs, state)
        if len(seen) == len(modules):
            raise _AllSeenError

    handles = [module.register_forward_pre_hook(watch, with_kwargs=True) for module in modules]
    try:
        with torch.no_grad():
            loss_fn(model, batch)
    except _AllSeenError:
        pass
    finally:
        for handle in handles:
            handle.remove()
    missing = [name for name, module in model.named_modules() if module in modules and module not in seen]
    if missing:
        raise InputError(
            f"loss_fn must run every recurrent module, it did not call {', '.join(missing)}; say which ones "
            "count with recurrent=…"
        )
    return [(module, *seen[module]) for module in modules]


def _time_first(module: nn.Module, inputs: Any, state: Any) -> tuple[Tensor, Any]:
    """A module's arguments as (T, B, F) and a state for it."""
    if isinstance(inputs, PackedSequence):
        raise InputError(
            "a recurrent module must see a plain tensor, it was given a packed sequence, whose samples end "
            "at different steps; use a batch of equal lengths, or recurrent=…"
        )
    if inputs.ndim == 2 and isinstance(module, nn.RNNBase):  # one sequence without a batch axis
        if state is not None:
            parts = (state,) if isinstance(state, Tensor) else state
            parts = tuple(part.unsqueeze(1) for part in parts)
            state = parts if isinstance(module, nn.LSTM) else parts[0]
        return inputs.unsqueeze(1), state
    if isinstance(module, nn.RNNBase) and module.batch_first:
        inputs = inputs.transpose(0, 1)
    return inputs, state


@contextmanager
def evaluation(model: nn.Module, seed: int) -> Iterator[None]:
    """Evaluation mode, gradients on, the global generators seeded; all as it was afterwards."""
    modes = {module: module.training for module in model.modules()}
    devices = {parameter.device for parameter in model.parameters() if parameter.device.type == "cuda"}
    # Without cuDNN, whose recurrent kernels have no derivative in evaluation mode.
    with (
        torch.random.fork_rng(devices=list(devices)),
        torch.enable_grad(),
        torch.backends.cudnn.flags(enabled=False),
    ):
        rng.seed_global(seed, devices)
        model.eval()
        try:
            yield
        finally:
            for module, mode in modes.items():
                module.training = mode
