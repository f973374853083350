"""Do other worlds agree with the first? How candidates end, what signals tell there, what searches lose."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from hyperprune.experiments.evidence.chance import chance, trained_fully
from hyperprune.experiments.evidence.correlation import (
    Measured,
    estimate,
    p_text,
    p_value,
    seeds_text,
    share_learning,
    value,
)
from hyperprune.experiments.evidence.searching import SCHEDULES, Outcome, chance_texts
from hyperprune.experiments.evidence.signals import ENTRIES
from hyperprune.experiments.evidence.text import table
from hyperprune.experiments.evidence.worlds import World, kind_of
from hyperprune.hypersearch.strategies import LSH


def ends_table(measured: Sequence[Measured]) -> str:
    """One row per world: how its candidates end, by kind of death too, and how soon they learn."""
    rows = []
    for found in measured:
        world, data = found.world, found.world.table
        shares = share_learning(found)
        by_kind = _means_by_kind(world)
        rows.append(
            [
                world.title,
                str(len(data.runs)),
                f"{np.mean([data.final_metric(run.reference) for run in data.runs]):.4g}",
                *(
                    f"{np.mean([abs(choose(world.finals(run))) for run in data.runs]):.4g}"
                    for choose in (np.min, np.median, np.max)
                ),
                ", ".join(f"{kind} {by_kind[kind]:.4g}" for kind in by_kind),
                "–"
                if shares is None
                else " / ".join(
                    f"{100 * shares[found.epochs.index(epoch)]:.0f} %" for epoch in found.told_epochs
                ),
            ]
        )
    epochs = ", ".join(map(str, measured[0].told_epochs))
    head = ["world", "seeds", "dense", "best", "median", "worst", "means of the kinds of death, best first"]
    return table([*head, f"better than the baseline at epochs {epochs}"], rows)


def _means_by_kind(world: World) -> dict[str, float]:
    """The mean final metric of each kind of death, the best first."""
    found: dict[str, list[float]] = {}
    for run in world.table.runs:
        for configuration, records in zip(run.configurations, run.candidates, strict=True):
            found.setdefault(kind_of(configuration), []).append(world.table.final_metric(records))
    means = {kind: float(np.mean(finals)) for kind, finals in found.items()}
    ordered = sorted(means, key=lambda kind: means[kind], reverse=not world.table.lower_is_better)
    return {kind: means[kind] for kind in ordered}


def signals_table(
    measured: Sequence[Measured],
    outcomes: Mapping[str, Sequence[Outcome]],
    names: Sequence[str],
    epoch: int,
) -> str:
    """One row per world and signal: the rank correlation with the final metric, the regret of searches.

    Args:
        measured: the worlds.
        outcomes: of LSH over the grid, by the world's title.
        names: of the signals.
        epoch: at which the seeds, p and the correlation within kinds are told.
    """
    rows = []
    for found in measured:
        for name in names:
            if math.isnan(value(found, name, epoch)):
                continue
            own = estimate(found, name, epoch)
            rows.append(
                [
                    found.world.title,
                    ENTRIES[name].label,
                    *(_at(found, name, item) for item in measured[0].told_epochs),
                    seeds_text(own),
                    p_text(p_value(found, name, epoch)),
                    estimate(found, name, epoch, "within").text(),
                    _regrets(outcomes[found.world.title], name, found.world),
                ]
            )
        rows += _without_signal(found, outcomes[found.world.title], 5 + len(measured[0].told_epochs))
    head = ["world", "signal", *(f"ρ, epoch {item}" for item in measured[0].told_epochs)]
    head += [f"each seed, epoch {epoch}", f"p by kinds, epoch {epoch}", f"within kinds, epoch {epoch}"]
    schedules = "; ".join(f"{first}, {each}" for first, each in SCHEDULES)
    regret = (
        "regret of LSH over the grid, %, and how often two random finalists, and random candidates trained "
        f"fully for as many epochs, do as well, by e0, ei: {schedules}"
    )
    return table([*head, regret], rows)


def _at(found: Measured, name: str, epoch: int) -> str:
    """The rank correlation at an epoch; "–" in a world that is shorter."""
    return estimate(found, name, epoch).text() if epoch in found.epochs else "–"


def _without_signal(found: Measured, outcomes: Sequence[Outcome], columns: int) -> list[list[str]]:
    """What the schedules' epochs buy without any signal: halving by chance, and a few candidates fully."""
    epochs = {
        (strategy.first_epochs, strategy.round_epochs): item.epochs
        for item in outcomes
        if isinstance(strategy := item.point.strategy, LSH)
    }
    fully = {schedule: trained_fully(found.world, spent) for schedule, spent in epochs.items()}
    halving = f"{100 * chance(found.world).mean:.1f}"
    texts = {
        "eliminating by chance": dict.fromkeys(epochs, halving),
        "as many epochs on random candidates, trained fully": {
            schedule: f"{100 * own.mean:.1f} ({own.picks} of them)" for schedule, own in fully.items()
        },
    }
    return [
        [
            found.world.title,
            label,
            *["–"] * (columns - 2),
            " / ".join(own.get(schedule, "–") for schedule in SCHEDULES),
        ]
        for label, own in texts.items()
    ]


def _regrets(outcomes: Sequence[Outcome], name: str, world: World) -> str:
    """Of each schedule in its turn; "–" where it does not fit, or its signal was not measured."""
    own = {
        (strategy.first_epochs, strategy.round_epochs): (
            f"{100 * item.mean.value:.1f} ({', '.join(chance_texts(item, world))})"
        )
        for item in outcomes
        if isinstance(strategy := item.point.strategy, LSH) and item.point.signal == name
    }
    return " / ".join(own.get(schedule, "–") for schedule in SCHEDULES)
