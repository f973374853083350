"""Who proposes the next candidates: the grid, chance, or a tree-structured Parzen estimator.

A proposal depends only on the seed (which names run and round), the space and what is known, so that a
search that goes on after a crash proposes the same. A batch holds no duplicates, of itself or of earlier
candidates, as long as the space has others.

A proposer is a function `(space, count, history, known, seed) -> configurations`; the built-in ones are below
and in `atpe`. One of your own is added by its name, before a strategy names it (a task file is a good place):

    PROPOSERS["mine"] = lambda space, count, history, known, seed: distinct(
        draw, count, known, space, seed  # where draw() gives one configuration
    )
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from hyperprune.errors import InputError, unknown_name
from hyperprune.hypersearch.dimensions import Choice, Dimension
from hyperprune.hypersearch.space import Configuration, Space, Suggest

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
_MOST_DUPLICATES = 20  # in a row, before another way of drawing is taken


def random(
    space: Space, count: int, history: History, known: Sequence[Configuration], seed: int
) -> list[Configuration]:
    """Uniform draws from the space (Bergstra & Bengio 2012)."""
    source = np.random.default_rng(seed)
    return distinct(lambda: space.sample(source), count, known, space, seed)


def grid(
    space: Space, count: int, history: History, known: Sequence[Configuration], seed: int
) -> list[Configuration]:
    """Points of the grid that are left, shuffled anew for each batch.

    Raises:
        InputError: more are asked for than the grid has left.
    """
    taken = set(known)
    points = [point for point in space.grid() if point not in taken]
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
    Only the settings of the branch that was drawn are asked for.

    Args:
        space: to draw from; of the history, what lies outside it is left out.
        count: how many to propose.
        history: earlier candidates; none gives random draws.
        known: configurations not to propose again.
        seed: of this batch.
    """
    told = [(seen, place) for seen in history if (place := space.coordinates(seen.configuration)) is not None]
    if not told:
        return random(space, count, history, known, seed)
    import optuna

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study(
            sampler=optuna.samplers.TPESampler(seed=seed % 2**32, n_startup_trials=1, constant_liar=True)
        )
        for seen, place in told:
            params = {name: _told(own, value) for name, (own, value) in place.items()}
            distributions = {name: _distribution(own) for name, (own, _) in place.items()}
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
        return distinct(lambda: space.ask(_asking(study.ask())), count, known, space, seed)
    finally:
        optuna.logging.set_verbosity(verbosity)


def _told(own: Dimension, value: Any) -> Any:
    """A value as the estimators know it: a choice by its number."""
    return own.options.index(value) if isinstance(own, Choice) else value


def _distribution(own: Dimension) -> optuna.distributions.BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if isinstance(own, Choice):
        return CategoricalDistribution(tuple(range(own.size)))
    return FloatDistribution(own.low, own.high, log=own.log)


def _asking(trial: optuna.Trial) -> Suggest:
    def suggest(name: str, own: Dimension) -> Any:
        if isinstance(own, Choice):
            return own.options[trial.suggest_categorical(name, tuple(range(own.size)))]
        return own.rounded(trial.suggest_float(name, own.low, own.high, log=own.log))

    return suggest


def distinct(
    draw: Callable[[], Configuration],
    count: int,
    known: Sequence[Configuration],
    space: Space,
    seed: int,
) -> list[Configuration]:
    """A batch without duplicates, of itself or of the known ones.

    Args:
        draw: gives configurations, duplicates among them.
        count: how many are wanted.
        known: not to be proposed again.
        space: where uniform draws take over when `draw` gives nothing but duplicates, and, when these do too,
            a shuffle of all that is left.
        seed: of both.

    Raises:
        InputError: the space has fewer left.
    """
    seen, batch = set(known), list[Configuration]()
    source = np.random.default_rng([seed, 1])
    for another in (draw, lambda: space.sample(source)):
        duplicates = 0
        while len(batch) < count and duplicates < _MOST_DUPLICATES:
            configuration = another()
            duplicates += 1
            if configuration not in seen:
                seen.add(configuration)
                batch.append(configuration)
                duplicates = 0
    if len(batch) == count:
        return batch
    left = [configuration for configuration in space.everything() if configuration not in seen]
    missing = count - len(batch)
    if len(left) < missing:
        raise InputError(
            f"the space must hold the {count} new candidates asked for, and it has {len(batch) + len(left)} "
            "unseen ones left; widen [space] or ask for fewer candidates"
        )
    return batch + [left[index] for index in source.permutation(len(left))[:missing]]


def _atpe(
    space: Space, count: int, history: History, known: Sequence[Configuration], seed: int
) -> list[Configuration]:
    """Adaptive TPE, by hyperopt; see `atpe`, which is imported when it is asked for."""
    from hyperprune.hypersearch.atpe import atpe

    return atpe(space, count, history, known, seed)


PROPOSERS: dict[str, Proposer] = {"grid": grid, "random": random, "tpe": tpe, "atpe": _atpe}


def get_proposer(name: str) -> Proposer:
    """The proposer of that name; an unknown one is an `InputError`."""
    try:
        return PROPOSERS[name]
    except KeyError:
        raise unknown_name("proposer", name, PROPOSERS) from None
