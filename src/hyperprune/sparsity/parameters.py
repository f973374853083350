"""Which tensors of a model are pruned, under which names, their gates and the matrices they stand for."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from fnmatch import fnmatchcase

from torch import Tensor, nn

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
        InputError: a pattern matches no parameter, nothing is selected, or what is cannot be pruned.
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
        return _checked(model, chosen)
    patterns = (patterns,) if isinstance(patterns, str) else tuple(patterns)
    named = dict(model.named_parameters(remove_duplicate=False))
    first_name = _first_names(named)
    wanted: set[str] = set()
    for pattern in patterns:
        matches = [name for name in named if fnmatchcase(name, pattern)]
        if not matches:
            raise unknown_name("parameter", pattern, named)
        wanted.update(first_name[name] for name in matches)
    if not wanted:
        raise InputError("parameters must name at least one tensor, got none; leave it out for all matrices")
    return _checked(model, {name: named[name] for name in named if name in wanted})


def _first_names(named: dict[str, nn.Parameter]) -> dict[str, str]:
    """The first name of the tensor that each name stands for."""
    first = {id(parameter): name for name, parameter in reversed(named.items())}
    return {name: first[id(parameter)] for name, parameter in named.items()}


def _checked(model: nn.Module, chosen: Mapping[str, nn.Parameter]) -> dict[str, nn.Parameter]:
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
        if _is_weight_normed(model, name):
            raise InputError(
                f"a pruned tensor must be the weight itself, got {name}, which weight_norm divides by the "
                "norm of its rows: a row without a live weight gives NaN; remove weight_norm first "
                "(parametrize.remove_parametrizations, or remove_weight_norm), or leave it out of parameters"
            )
        if _is_parametrized_by(model, name, "_Orthogonal"):
            raise InputError(
                f"a pruned tensor must be the weight itself, got {name}, of which orthogonal makes a dense "
                "one; remove it first (parametrize.remove_parametrizations), or leave it out of parameters"
            )
    return dict(chosen)


def _is_weight_normed(model: nn.Module, name: str) -> bool:
    """Whether a parameter is the gain or the direction of either of torch's `weight_norm`s."""
    path, _, leaf = name.rpartition(".")
    module = model.get_submodule(path)
    return _is_parametrized_by(model, name, "_WeightNorm") or any(
        type(hook).__name__ == "WeightNorm" and leaf in (f"{name}_g", f"{name}_v")
        for hook in module._forward_pre_hooks.values()
        for name in [getattr(hook, "name", None)]
    )


def _is_parametrized_by(model: nn.Module, name: str, kind: str) -> bool:
    module = model.get_submodule(name.rpartition(".")[0])
    return isinstance(module, nn.utils.parametrize.ParametrizationList) and any(
        type(part).__name__ == kind for part in module
    )


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


def matrix_shape(model: nn.Module, name: str) -> tuple[int, ...] | None:
    """The shape of the matrix that a parameter stands for, if its module says that it is not its own.

    Modules that leave out weights say it by an attribute `matrix_shapes`, which maps their parameters' names.
    """
    path, _, leaf = name.rpartition(".")
    shapes = getattr(unwrapped(model).get_submodule(path), "matrix_shapes", None)
    return shapes.get(leaf) if isinstance(shapes, Mapping) else None


def parameter_name(name: str, known: Container[str]) -> str:
    """A name without the prefixes of wrappers, as long as it is not a known one with them."""
    while name not in known and name.startswith(_WRAPPERS):
        name = name.partition(".")[2]
    return name


def masks_by_name(model: nn.Module, masks: object) -> dict[str, Tensor]:
    """Masks under the first names of their tensors, whichever name they were given under.

    Raises:
        InputError: `masks` is no mapping to tensors, or gives two masks to a tied tensor.
    """
    if not isinstance(masks, Mapping) or not all(isinstance(mask, Tensor) for mask in masks.values()):
        kinds = {type(mask).__name__ for mask in masks.values()} if isinstance(masks, Mapping) else masks
        raise InputError(
            f"masks must map parameters' names to bool tensors, got {kinds!r}; torch.from_numpy(mask) makes "
            "a tensor of an array"
        )
    named = dict(unwrapped(model).named_parameters(remove_duplicate=False))
    first_name, found = _first_names(named), {}
    for given, mask in masks.items():
        name = parameter_name(given, named)
        name = first_name.get(name, name)
        if name in found:
            raise InputError(
                f"a tensor must have one mask, got two for {name}, also under the name of {given}; remove one"
            )
        found[name] = mask
    return found
