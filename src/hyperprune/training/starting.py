"""The masks that a candidate starts from, where its method leaves them to a criterion at initialisation."""

from __future__ import annotations

import itertools
from typing import Any

from torch import Tensor, nn

from hyperprune.at_init import prune_at_init
from hyperprune.at_init.criterion import Criterion
from hyperprune.at_init.runs import recurrent_modules
from hyperprune.errors import InputError
from hyperprune.rng import generator
from hyperprune.sparsity.method import Method
from hyperprune.sparsity.parameters import select_parameters
from hyperprune.tasks.contract import Task
from hyperprune.training.nested import to_device


def starting_masks(
    task: Task, model: nn.Module, method: Method, sparsity: float, seed: int
) -> dict[str, Tensor] | None:
    """The masks that `method.at_init` chooses on the first training batch; None if it names no criterion.

    What is scored are the weights as they were drawn. Where the recipe has `rescale_weights`, training then
    multiplies each tensor by 1/sqrt(its density), so that the network trained is not the one scored.

    Raises:
        InputError: an unknown criterion, one that cannot score this task's model, or one that leaves a tensor
            without a weight.
        NumericsError: a score is not finite.
    """
    if method.at_init is None:
        return None
    masks = task_masks(task, model, method.at_init, sparsity=sparsity, seed=seed, allow_empty=True)
    empty = [name for name, mask in masks.items() if not bool(mask.any())]
    if empty and not method.may_empty:
        raise InputError(
            f"{method.name} needs a weight in every tensor to start from, but at_init={method.at_init!r} at "
            f"sparsity {sparsity} empties {', '.join(empty)}; lower the sparsity, take another criterion, or "
            "static with allow_empty"
        )
    return masks


def task_masks(
    task: Task,
    model: nn.Module,
    criterion: str | Criterion,
    *,
    sparsity: float,
    seed: int,
    num_batches: int = 1,
    **options: Any,
) -> dict[str, Tensor]:
    """`prune_at_init` of a task's model: its loss, its prunable tensors, its first training batches.

    Tensors that the criterion cannot score keep the same share of random weights, so that every criterion
    goes with every task; but networks wired by a graph take SNIP, GraSP, magnitude and random alone.

    Args:
        criterion: by name, or with settings of its own.
        seed: of the run; the draws are the same for all methods with this criterion.
        num_batches: training batches, from the first epoch's first.
        options: of `prune_at_init`: `ranking`, `allow_empty`.

    Raises:
        InputError, NumericsError: as `prune_at_init`.
    """
    if num_batches < 1:
        raise InputError(f"batches must be at least 1, got {num_batches}; the paper takes one of 64 samples")
    device = next(model.parameters()).device
    batches = list(itertools.islice(task.batches("train", 1), num_batches))
    if len(batches) < num_batches:
        raise InputError(
            f"batches must be at most an epoch's, {len(batches)} of task {task.name!r}, got {num_batches}"
        )
    return prune_at_init(
        model,
        lambda model, batch: task.loss(model, batch, None).loss,
        [to_device(batch, device) for batch in batches],
        criterion=criterion,
        sparsity=sparsity,
        generator=generator(seed, "at_init"),
        parameters=list(select_parameters(model, task.prunable(model))),
        # What the loss drives is the whole sequence; a task's own runs are those of its spectra. But of a
        # padded batch's last steps most are padding, which no loss depends on.
        recurrent=task.recurrent if task.padded or not recurrent_modules(model) else None,
        elsewhere="random",
        **options,
    )
