"""Whether a space suits a search: large enough, and every branch trainable on the task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from hyperprune.errors import InputError, NumericsError
from hyperprune.hypersearch.space import Space
from hyperprune.hypersearch.spaces import begins_dense
from hyperprune.hypersearch.strategy import Strategy
from hyperprune.tasks.contract import Task
from hyperprune.training.candidate import Training
from hyperprune.training.checks import check_buildable

Note = Callable[[str], None]


def check_space(strategy: Strategy, space: Space, *, taken: int = 0) -> None:
    """Whether the space holds all candidates that the strategy will ever ask for, beside those `taken`.

    Raises:
        InputError: it does not.
    """
    held = len(space.grid()) if strategy.proposer == "grid" else space.size()
    wanted = taken + strategy.created
    if wanted > held:
        where = "grid" if strategy.proposer == "grid" else "space"
        raise InputError(
            f"the {where} holds {held} configurations, and {wanted} candidates were asked for, "
            "later ones included; widen [space] or lower candidates"
        )


def fitting(task: Task, space: Space, sparsity: float | None, base: Training, note: Note) -> Space:
    """The space without the optional branches that the task cannot train; nothing is trained or written.

    Args:
        task: what is pruned.
        space: what candidates are drawn from.
        sparsity: the run's; None where the space searches it.
        base: how the dense model is trained.
        note: is told what was left out and why, and which methods begin dense.

    Raises:
        InputError: a branch that is not optional cannot be trained, or none is left.
    """
    kept, refusal = [], None
    for branch in space.branches:
        try:
            for point in branch.cover():
                for placed in space.at(point):
                    pruned = placed.pruned_to(sparsity)
                    training = replace(
                        base, method=placed.build(), sparsity=pruned, name=placed.text, model=placed.model
                    )
                    check_buildable(task, training)
        except (InputError, NumericsError) as error:
            if not branch.optional:
                raise
            refusal = error
            note(f"{branch.method} is left out of the space: {error}")
        else:
            kept.append(branch)
    if not kept and refusal is not None:
        raise InputError(f"no branch of the space can be trained; the last one said: {refusal}") from refusal
    if dense := [branch.method for branch in kept if begins_dense(branch.method)]:
        note(
            f"{', '.join(dense)} begin dense: early they look better than they will be, by any signal; the "
            "space 'sparse_to_sparse' is without them"
        )
    return replace(space, branches=kept)
