"""Which tensors of a model are pruned, under which name, and how many gates each stacks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

from torch import nn

from hyperprune.errors import InputError, unknown_name

_WRAPPERS = ("module.", "_orig_mod.")  # DistributedDataParallel, torch.compile
_GATES = ((nn.LSTM, 4), (nn.LSTMCell, 4), (nn.GRU, 3), (nn.GRUCell, 3))


def unwrapped(model: nn.Module) -> nn.Module:
    """The model that the user wrote, inside DistributedDataParallel and torch.compile."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and isinstance(model, nn.parallel.DistributedDataParallel):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def select_parameters(model: nn.Module, patterns: Iterable[str] | None) -> dict[str, nn.Parameter]:
    """The tensors to prune by name, in the model's order; a tied tensor once, under its first name.

    Args:
        model: wrappers around it do not show in the names.
        patterns: names or shell-style patterns ("rnn.weight_hh*"); None is every trained tensor with at
            least two axes: recurrent, linear, embedding and decoder matrices, not biases.

    Raises:
        InputError: a pattern matches no parameter, or nothing is selected.
    """
    model = unwrapped(model)
    if patterns is None:
        chosen = {
            name: parameter
            for name, parameter in model.named_parameters()
            if parameter.ndim >= 2 and parameter.requires_grad
        }
        if not chosen:
            raise InputError(
                "a model to prune must have a weight matrix, got none; name the tensors with parameters=[…]"
            )
        return _checked(chosen)
    patterns = (patterns,) if isinstance(patterns, str) else tuple(patterns)
    named = dict(model.named_parameters(remove_duplicate=False))
    first_name = {id(parameter): name for name, parameter in reversed(named.items())}
    wanted: set[str] = set()
    for pattern in patterns:
        matches = [name for name in named if fnmatchcase(name, pattern)]
        if not matches:
            raise unknown_name("parameter", pattern, named)
        wanted.update(first_name[id(named[name])] for name in matches)
    if not wanted:
        raise InputError("parameters must name at least one tensor, got none; leave it out for all matrices")
    return _checked({name: named[name] for name in named if name in wanted})


def _checked(chosen: Mapping[str, nn.Parameter]) -> dict[str, nn.Parameter]:
    for name, parameter in chosen.items():
        if not parameter.is_floating_point():
            raise InputError(
                f"a pruned tensor must be real floating point, got {name} of {parameter.dtype}; "
                "leave it out of parameters"
            )
        if parameter.numel() == 0:
            raise InputError(
                f"a pruned tensor must hold a weight, got {name} of shape {tuple(parameter.shape)}"
            )
        if not parameter.is_contiguous():
            raise InputError(
                f"a pruned tensor must be contiguous, got {name} with strides {parameter.stride()}; "
                "store it with .contiguous()"
            )
    return dict(chosen)


def num_gates(model: nn.Module, name: str) -> int:
    """How many gates the rows of a parameter stack: 4 in an LSTM, 3 in a GRU, else 1.

    Other recurrent modules say it by an attribute `num_gates`, which holds for their `weight_ih*`,
    `weight_hh*` and `weight_peephole*` matrices.
    """
    path, _, leaf = name.rpartition(".")
    if not leaf.startswith(("weight_ih", "weight_hh", "weight_peephole")):
        return 1
    module = unwrapped(model).get_submodule(path)
    if module.get_parameter(leaf).ndim < 2:  # a diagonal peephole
        return 1
    for kind, count in _GATES:
        if isinstance(module, kind):
            return count
    count = getattr(module, "num_gates", 1)
    rows = module.get_parameter(leaf).shape[0]
    return count if isinstance(count, int) and count > 0 and rows % count == 0 else 1


def parameter_name(name: str) -> str:
    """A name without the prefixes of wrappers."""
    for prefix in _WRAPPERS:
        name = name.removeprefix(prefix)
    return name
