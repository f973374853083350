"""The front door: masks, or scores, for a model that has not been trained."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor, nn

from hyperprune import rng
from hyperprune.at_init import ranking as ranks
from hyperprune.at_init.criteria import get
from hyperprune.at_init.criterion import Criterion, LossFunction, Problem, recurrent_matrices
from hyperprune.at_init.runs import Runs, evaluation, recurrent_modules
from hyperprune.errors import InputError
from hyperprune.files import write_atomically
from hyperprune.sparsity.counts import apportion
from hyperprune.sparsity.method import check_choice, check_flag
from hyperprune.sparsity.parameters import select_parameters, unwrapped

ELSEWHERE = ("refuse", "random")


def prune_at_init(
    model: nn.Module,
    loss_fn: LossFunction | None = None,
    batches: Iterable[Any] = (),
    *,
    criterion: str | Criterion = "jacobian",
    sparsity: float = 0.95,
    generator: torch.Generator | None = None,
    parameters: Iterable[str] | None = None,
    recurrent: Runs | None = None,
    ranking: str = "global",
    elsewhere: str = "refuse",
    allow_empty: bool = False,
) -> dict[str, Tensor]:
    """Choose, before training, which weights a network keeps.

    The model runs in evaluation mode; its weights, gradients, modes and the global generators are as before
    afterwards. Counts are exact, ties go to the lower index.

    Args:
        model: on any device.
        loss_fn: (model, batch) -> scalar loss. Not needed by criteria that look at no data (random,
            magnitude, synflow), nor, with `recurrent`, by the Jacobian.
        batches: what `loss_fn` takes, all counted alike; the paper takes one of 64 samples.
        criterion: a name of `hyperprune.at_init.names()`, or a criterion with settings of its own.
        sparsity: share of the parameters' weights to remove, in [0, 1).
        generator: a CPU generator, for random draws; None for a fixed one.
        parameters: names or shell-style patterns; None: the recurrent layers' matrices.
        recurrent: (model, batch) -> [(module, inputs (T, B, F), state), …], as `Task.recurrent`; a module may
            be a step function (x_t, state) -> new state. None: the recurrent modules inside the model, and
            what drives each at its first call while `loss_fn` runs.
        ranking: "global": one ranking of all weights; "tensor": every tensor keeps the same share.
        elsewhere: what becomes of tensors that the criterion cannot score (an embedding, for the Jacobian):
            "refuse" them, or keep the same share of each at "random".
        allow_empty: whether a tensor may be left without any weight.

    Returns:
        Bool masks by parameter name, True is live: `masks` of `SparseTraining`.

    Raises:
        InputError: a setting breaks a rule; the model, the loss or the batches lack what the criterion needs;
            a tensor would be left empty.
        NumericsError: a loss, state or score is not finite; names the tensor.

    Reference:
        JSE, algorithm 1; the other criteria as `hyperprune.at_init.table()` says.
    """
    check_choice("ranking", ranking, ranks.RANKINGS)
    check_choice("elsewhere", elsewhere, ELSEWHERE)
    check_flag("allow_empty", allow_empty)
    chosen = _criterion(criterion)
    problem, others = _problem(model, loss_fn, batches, chosen, generator, parameters, recurrent, elsewhere)
    scored, rest = ([tensor.numel() for tensor in group.values()] for group in (problem.parameters, others))
    # A wrong sparsity is told before the work.
    final, *random_counts = _shares(sparsity, [sum(scored), *rest])
    masks: dict[str, Tensor] | None = None
    live = scored  # of each tensor
    with evaluation(problem.model, _seed(problem.generator)):
        for number in range(1, chosen.num_rounds + 1):
            # In rounds the density falls by the same factor each time.
            share = (1 - sparsity) ** (number / chosen.num_rounds)
            is_last = number == chosen.num_rounds
            count = final if is_last else max(final, min(sum(live), round(share * sum(scored))))
            found = chosen.scores(replace(problem, live=masks))
            ranks.check_finite(found, chosen.name)
            # Rounded, a smaller total may give one tensor more than before: no more than it has.
            by_tensor = apportion(count, scored, live) if ranking == "tensor" else count
            masks = ranks.best(found, by_tensor, masks)
            live = [int(mask.count_nonzero()) for mask in masks.values()]
    assert masks is not None
    for (name, tensor), share in zip(others.items(), random_counts, strict=True):
        draws = torch.rand(tensor.shape, generator=problem.generator, dtype=torch.float64)
        masks[name] = ranks.best({name: draws}, share)[name].to(tensor.device)
    empty = [name for name in masks if not bool(masks[name].any())]
    if empty and not allow_empty:
        remedy = "" if ranking == "tensor" else 'set ranking to "tensor", '
        raise InputError(
            f"every tensor must keep a weight, but {chosen.name} at sparsity {sparsity} empties "
            f"{', '.join(empty)}; lower the sparsity, {remedy}or set allow_empty"
        )
    order = [name for name, _ in unwrapped(model).named_parameters() if name in masks]
    return {name: masks[name] for name in order}


def scores(
    model: nn.Module,
    loss_fn: LossFunction | None = None,
    batches: Iterable[Any] = (),
    *,
    criterion: str | Criterion = "jacobian",
    generator: torch.Generator | None = None,
    parameters: Iterable[str] | None = None,
    recurrent: Runs | None = None,
) -> dict[str, Tensor]:
    """What a criterion gives each weight, by parameter name; `prune_at_init` keeps the largest.

    Arguments and errors are those of `prune_at_init`. Of an iterative criterion they are the first round's.
    """
    chosen = _criterion(criterion)
    problem, _ = _problem(model, loss_fn, batches, chosen, generator, parameters, recurrent, "refuse")
    with evaluation(problem.model, _seed(problem.generator)):
        found = chosen.scores(problem)
    ranks.check_finite(found, chosen.name)
    return found


def _criterion(criterion: str | Criterion) -> Criterion:
    if isinstance(criterion, Criterion):
        return criterion
    if not isinstance(criterion, str):
        raise InputError(f'criterion must be a name or a Criterion, got {criterion!r}; try "jacobian"')
    return get(criterion)


def _seed(generator: torch.Generator) -> int:
    """For the global generators, from which a loss function may draw."""
    return int(torch.randint(2**62, (1,), generator=generator, dtype=torch.int64))


def _shares(sparsity: float, sizes: list[int]) -> list[int]:
    """How many weights each group keeps, in proportion to its size."""
    return apportion(ranks.num_kept(sparsity, sum(sizes)), sizes, sizes)


def _problem(
    model: nn.Module,
    loss_fn: LossFunction | None,
    batches: Iterable[Any],
    criterion: Criterion,
    generator: torch.Generator | None,
    patterns: Iterable[str] | None,
    recurrent: Runs | None,
    elsewhere: str,
) -> tuple[Problem, dict[str, nn.Parameter]]:
    """What is to be scored, and the tensors that the criterion cannot score."""
    if isinstance(batches, Tensor):
        raise InputError("batches must be an iterable of batches, got a tensor; pass [batch] for one")
    if not isinstance(batches, Iterable):
        raise InputError(f"batches must be an iterable of batches, got {batches!r}; leave it out for none")
    if generator is None:
        generator = rng.generator(0, "at_init")
    if not isinstance(generator, torch.Generator):
        raise InputError(
            f"generator must be a torch.Generator, got {generator!r}; use torch.Generator().manual_seed(0)"
        )
    if generator.device.type != "cpu":
        raise InputError(f"generator must be a CPU generator, got one on {generator.device}")
    model = unwrapped(model)
    with torch.random.fork_rng(devices=[]):  # a DataLoader draws from the global generator
        all_batches = tuple(batches)
    problem = Problem(
        model=model,
        parameters={},
        loss_fn=loss_fn,
        batches=all_batches,
        recurrent=recurrent,
        generator=generator,
    )
    named = dict(model.named_parameters())
    if patterns is None:
        ids = recurrent_matrices(model, _runs(problem))
        selected = {name: parameter for name, parameter in named.items() if id(parameter) in ids}
        if not selected:
            raise InputError(
                "the model must hold a recurrent layer whose matrices can be pruned, found none; name the "
                "tensors with parameters=[…]"
            )
    else:
        selected = select_parameters(model, patterns)
    frozen = [name for name, parameter in selected.items() if not parameter.requires_grad]
    if frozen:
        raise InputError(
            f"a scored tensor must require gradients, {', '.join(frozen)} does not; leave it out of "
            "parameters"
        )
    others: dict[str, nn.Parameter] = {}
    if criterion.recurrent_only:
        ids = _recurrent_parameters(problem)
        others = {name: own for name, own in selected.items() if ids and id(own) not in ids}
    if len(others) == len(selected) or (others and elsewhere == "refuse"):
        raise InputError(
            f"{criterion.name} scores the weights of recurrent layers, and {', '.join(others)} is none; "
            'leave it out of parameters, or keep random weights there with elsewhere="random"'
        )
    scored = {name: own for name, own in selected.items() if name not in others}
    return replace(problem, parameters=scored), others


def _runs(problem: Problem) -> list[Any] | None:
    """The recurrent modules that the user has named, if any."""
    if problem.recurrent is None:
        return None
    with evaluation(problem.model, 0):
        return problem.recurrences[0]


def _recurrent_parameters(problem: Problem) -> set[int]:
    """All parameters of the recurrent modules; empty where a step function hides them."""
    runs = _runs(problem)
    modules = recurrent_modules(problem.model) if runs is None else [run.module for run in runs]
    owners = [
        module if isinstance(module, nn.Module) else getattr(module, "__self__", None) for module in modules
    ]
    if not all(isinstance(owner, nn.Module) for owner in owners):
        return set()
    return {id(parameter) for owner in owners for parameter in owner.parameters()}  # pyright: ignore[reportOptionalMemberAccess]


def save_masks(path: Any, masks: Mapping[str, Tensor]) -> None:
    """Write masks to an .npz file of exactly that name, one array of booleans under each parameter's name."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{name: mask.cpu().numpy() for name, mask in masks.items()})  # pyright: ignore[reportArgumentType]
    write_atomically(Path(path), buffer.getvalue())


def load_masks(path: Any) -> dict[str, Tensor]:
    """The masks that `save_masks` wrote.

    Raises:
        InputError: no such file, or something else in it.
    """
    try:
        with Path(path).open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            masks = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    except (
        *(OSError, EOFError, ValueError, TypeError, AttributeError),
        *(NotImplementedError, BadZipFile, zlib.error),
    ) as error:
        raise InputError(f"masks must be a readable .npz file, {path} is not: {error}") from error
    if not all(mask.dtype == torch.bool for mask in masks.values()):
        raise InputError(f"{path} must hold arrays of booleans; write it with save_masks")
    return masks
