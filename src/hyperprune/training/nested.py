"""Batches and states: tensors in tuples, lists, dicts and dataclasses, handled as one value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence


def map_tensors(value: Any, function: Callable[[Any], Any], *more: type) -> Any:
    """`value` with `function` applied to every tensor in it, and to every value of the types `more`.

    Anything else that is no container passes through.
    """
    if isinstance(value, (Tensor, *more)):
        return function(value)
    if is_dataclass(value) and not isinstance(value, type):
        given = {field.name: getattr(value, field.name) for field in fields(value) if field.init}
        mapped = {name: map_tensors(item, function, *more) for name, item in given.items()}
        return replace(value, **mapped)
    if isinstance(value, tuple):
        items = [map_tensors(item, function, *more) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
    if isinstance(value, list):
        return [map_tensors(item, function, *more) for item in value]
    if isinstance(value, dict):
        return {key: map_tensors(item, function, *more) for key, item in value.items()}
    return value


def to_device(value: Any, device: torch.device) -> Any:
    """`value` with its tensors on `device`; of a packed sequence the batch sizes stay on the CPU."""
    return map_tensors(value, lambda item: item.to(device, non_blocking=True), PackedSequence)


def detached(value: Any) -> Any:
    """`value` with its tensors cut from the graph, for truncated backpropagation through time."""
    return map_tensors(value, lambda tensor: tensor.detach())
