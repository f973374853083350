"""Who proposes the next candidates: the grid, chance, or a tree-structured Parzen estimator.

A proposal depends only on the seed (which names run and round), the space and what is known, so that a
search that goes on after a crash proposes the same. A batch holds no duplicates, of itself or of earlier
candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from hyperprune.errors import InputError, unknown_name
from hyperprune.hypersearch.space import Configuration, Space

if TYPE_CHECKING:
    import optuna


class Seen(NamedTuple):
    """A candidate that a proposer may learn from.

    Attributes:
        signal: its last one, smaller is better.
        dropped_at: the epoch at which it was eliminated; None if it was not.
    """

    configuration: Configuration
    signal: float
    dropped_at: int | None = None


History = Sequence[Seen]
Proposer = Callable[[Space, int, History, Sequence[Configuration], int], list[Configuration]]
_DRAWS_PER_CANDIDATE = 200  # how often a duplicate is drawn again before the space counts as exhausted


def random(
    space: Space, count: int, history: History, known: Sequence[Configuration], seed: int
) -> list[Configuration]:
    """Uniform draws from the space (Bergstra & Bengio 2012)."""
    source = np.random.default_rng(seed)
    return _unseen(lambda: space.sample(source), count, known)


def grid(
    space: Space, count: int, history: History, known: Sequence[Configuration], seed: int
) -> list[Configuration]:
    """Points of the grid in a seeded order.

    Raises:
        InputError: more are asked for than the grid has left.
    """
    points = [point for point in space.grid() if point not in set(known)]
    if count > len(points):
        raise InputError(
            f"the grid has {len(points)} points left and {count} candidates were asked for; "
            f"use at most {len(points)} candidates, or the proposer 'tpe' or 'random'"
        )
    order = np.random.default_rng(seed).permutation(len(points))
    return [points[index] for index in order[:count]]


def tpe(
    space: Space, count: int, history: History, known: Sequence[Configuration], seed: int
) -> list[Configuration]:
    """Tree-structured Parzen estimator (Bergstra et al. 2011), by Optuna's ask and tell.

    Eliminated candidates are told as pruned trials with the signal at their last epoch: Optuna sorts them
    behind all completed ones, the later pruned before the earlier. As completed trials they would compete
    by value, and signals of different epochs (ranks of different rounds, with "blend") do not compare.

    Args:
        space: to draw from.
        count: how many to propose.
        history: earlier candidates; none gives random draws.
        known: configurations not to propose again.
        seed: of this batch.
    """
    if not history:
        return random(space, count, history, known, seed)
    import optuna

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study(
            sampler=optuna.samplers.TPESampler(seed=seed % 2**32, n_startup_trials=1, constant_liar=True)
        )
        distributions: dict[str, optuna.distributions.BaseDistribution] = {
            name: optuna.distributions.CategoricalDistribution(options)
            for name, options in space.choices().items()
        }
        distributions["death_rate"] = optuna.distributions.FloatDistribution(*space.death_rate)
        for seen in history:
            params = {name: dict(seen.configuration.settings)[name] for name in distributions}
            study.add_trial(
                optuna.trial.create_trial(params=params, distributions=distributions, value=seen.signal)
                if seen.dropped_at is None
                else optuna.trial.create_trial(
                    state=optuna.trial.TrialState.PRUNED,
                    params=params,
                    distributions=distributions,
                    intermediate_values={seen.dropped_at: seen.signal},
                )
            )
        return _unseen(lambda: space.configuration(**study.ask(distributions).params), count, known)
    finally:
        optuna.logging.set_verbosity(verbosity)


PROPOSERS: dict[str, Proposer] = {"grid": grid, "random": random, "tpe": tpe}


def get_proposer(name: str) -> Proposer:
    """The proposer of that name; an unknown one is an `InputError`."""
    try:
        return PROPOSERS[name]
    except KeyError:
        raise unknown_name("proposer", name, PROPOSERS) from None


def _unseen(
    draw: Callable[[], Configuration], count: int, known: Sequence[Configuration]
) -> list[Configuration]:
    seen, batch = set(known), list[Configuration]()
    for _ in range(count * _DRAWS_PER_CANDIDATE):
        if len(batch) == count:
            return batch
        configuration = draw()
        if configuration not in seen:
            seen.add(configuration)
            batch.append(configuration)
    if len(batch) == count:
        return batch
    raise InputError(
        f"the space must hold the {count} new candidates asked for, and only {len(batch)} unseen ones "
        "were found; widen [space] or ask for fewer candidates"
    )
