"""Question 1: which early signal tells the final metric, from which epoch on, among whom?

Axes: E epochs, R candidates.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from hyperprune.experiments.evidence import bootstrap
from hyperprune.experiments.evidence.bootstrap import Estimate, Sample
from hyperprune.experiments.evidence.signals import ENTRIES, values_of
from hyperprune.experiments.evidence.text import table
from hyperprune.experiments.evidence.worlds import (
    World,
    extended,
    grid_point,
    kind_of,
    with_last_spectra,
    without_never_averaging,
)

LAST_EPOCH = 12
_TOLD_EPOCHS = (1, 3, 6, 12)
AMONG = ("all", "within", "between", "without threshold", "learning")


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Every signal of a world at every early epoch.

    Attributes:
        epochs: 0 … 12, or the last one before the end.
        values: by signal, one (E, R) array per seed.
        finals: (R,) per seed, smaller is better.
        kinds: (R,) per seed, the kind of death.
        points: (R,) per seed, the number of the grid point.
        metrics: (E, R) per seed.
    """

    world: World
    epochs: tuple[int, ...]
    values: Mapping[str, list[np.ndarray]]
    finals: list[np.ndarray]
    kinds: list[np.ndarray]
    points: list[np.ndarray]
    metrics: list[np.ndarray]

    @property
    def told_epochs(self) -> list[int]:
        """Those of the epochs that tables tell."""
        return [epoch for epoch in _TOLD_EPOCHS if epoch in self.epochs]


def measure(world: World, names: Sequence[str] = tuple(ENTRIES)) -> Measured:
    """Compute signals for every candidate at the early epochs."""
    data = with_last_spectra(world.table)
    epochs = tuple(range(min(LAST_EPOCH, data.final_epochs - 1) + 1))
    return Measured(
        world=world,
        epochs=epochs,
        values={
            name: [
                np.stack(
                    [values_of(ENTRIES[name], run.reference, list(run.candidates), epoch) for epoch in epochs]
                )
                for run in data.runs
            ]
            for name in names
        },
        finals=[world.finals(run) for run in data.runs],
        kinds=[np.array([kind_of(item) for item in run.configurations]) for run in data.runs],
        points=[_numbered([grid_point(item) for item in run.configurations]) for run in data.runs],
        metrics=[
            np.array([[records[epoch].metric for records in run.candidates] for epoch in epochs])
            for run in data.runs
        ],
    )


def _numbered(items: Sequence[object]) -> np.ndarray:
    """The number of each item among the different ones, in their order."""
    numbers = {item: number for number, item in enumerate(dict.fromkeys(items))}
    return np.array([numbers[item] for item in items])


def estimate(found: Measured, name: str, epoch: int, among: str = "all") -> Estimate:
    """The rank correlation of a signal at an epoch with the final metric.

    Args:
        found: the world's signals.
        name: of the signal.
        epoch: at which it is asked.
        among: "all" candidates; "within" kinds of death (the mean over kinds); "between" the kinds' means;
            all "without threshold" death; those that are "learning": better than the baseline by then.
    """
    samples, statistic = _asked(found, name, epoch, among)
    return (bootstrap.by_chance if name == "none" else bootstrap.estimate)(samples, statistic)


def value(found: Measured, name: str, epoch: int, among: str = "all") -> float:
    """The same without an interval, a thousand times faster."""
    return 0.0 if name == "none" else bootstrap.point(*_asked(found, name, epoch, among))


def by_kinds(found: Measured, name: str, epoch: int, *, beyond: tuple[str, int] | None = None) -> float:
    """Two-sided p, with kinds as units, of a signal's correlation among all, or of its lead over another's.

    How often a correlation so far from 0 comes about when the kinds of death exchange their ends. `beyond`
    is the other signal and the epoch at which that one is asked.
    """
    values, draws = [], []
    for signal, at in filter(None, [(name, epoch), beyond]):
        samples, statistic = _asked(found, signal, at, "all")
        values.append(bootstrap.point(samples, statistic))
        draws.append(bootstrap.with_groups_shuffled(samples, statistic))
    if beyond is not None:
        return bootstrap.two_sided(values[0] - values[1], draws[0] - draws[1])
    return bootstrap.two_sided(values[0], draws[0])


def _asked(found: Measured, name: str, epoch: int, among: str) -> tuple[list[Sample], bootstrap.Statistic]:
    samples = []
    for number, values_ER in enumerate(found.values[name]):
        sample = Sample(values_ER[epoch], found.finals[number], found.kinds[number], found.points[number])
        keep = np.ones(len(sample.final_N), dtype=bool)
        if among == "without threshold":
            keep = sample.group_N != "threshold"
        elif among == "learning":
            keep = _learning(found, number, epoch)
        samples.append(Sample(*(column[keep] for column in sample)))
    return samples, {"within": bootstrap.within, "between": bootstrap.between}.get(among, bootstrap.overall)


def _learning(found: Measured, number: int, epoch: int) -> np.ndarray:
    baseline = found.world.baseline
    metrics_R = found.metrics[number][epoch]
    if baseline is None:
        return np.ones(len(metrics_R), dtype=bool)
    return metrics_R < baseline[1] if found.world.table.lower_is_better else metrics_R > baseline[1]


def share_learning(found: Measured) -> np.ndarray:
    """(E,) share of the candidates that are better than the baseline by each epoch."""
    return np.array(
        [
            np.mean([_learning(found, number, epoch).mean() for number in range(len(found.finals))])
            for epoch in found.epochs
        ]
    )


def decisive_table(found: Measured, epoch: int) -> str:
    """At one epoch: among whom each signal tells anything, with intervals, and its lead over the loss."""
    loss = estimate(found, "loss", epoch)
    rows = []
    for name, entry in ENTRIES.items():
        cells = {among: estimate(found, name, epoch, among).text() for among in AMONG if among != "between"}
        between = value(found, name, epoch, "between")
        p = math.nan if name == "none" else by_kinds(found, name, epoch)
        lead = bootstrap.difference(estimate(found, name, epoch), loss)
        rows.append(
            [
                entry.label,
                cells["all"],
                p_text(p),
                cells["within"],
                "–" if math.isnan(between) else f"{between:.2f}",
                cells["without threshold"],
                cells["learning"],
                "–" if name == "loss" else lead.text(),
            ]
        )
    num_kinds = len({kind for kinds in found.kinds for kind in kinds})
    between = f"between the {num_kinds} kinds (too few for an interval)"
    head = ["signal", "all", "p by kinds", "within kinds of death", between, "without threshold", "learning"]
    return table([*head, "all: lead over the loss"], rows)


def with_p(found: Measured, name: str, epoch: int) -> str:
    """The correlation among all with its interval and, but for chance itself, p by kinds."""
    p = "" if name == "none" else p_relation(by_kinds(found, name, epoch))
    return estimate(found, name, epoch).text(also=p)


def p_text(p: float) -> str:
    """For a table's column of p."""
    return p_relation(p).removeprefix("p ").removeprefix("= ")


def p_relation(p: float) -> str:
    """For a sentence: "p = 0.12"; "–" where it cannot be said."""
    if math.isnan(p):
        return "–"
    return "p < 0.01" if p < 0.01 else f"p = {p:.2f}"


def sensitivity_table(found: Measured, names: Sequence[str], epoch: int) -> str:
    """The main signals once more, with something changed that the answer might hang on."""
    world = found.world
    changed = {"as above": found}
    averaged = without_never_averaging(world)
    if averaged is not None:
        changed["without those that never averaged"] = measure(averaged, names)
    if all(run.test_metrics for run in world.table.runs):
        finals = [world.test_finals(run) for run in world.table.runs]
        changed[f"end by test {world.table.metric}"] = replace(found, finals=finals)
    if world.controls is not None:
        changed["controls counted as candidates"] = measure(extended(world, world.controls), names)
    rows = [
        [ENTRIES[name].label, *(estimate(item, name, epoch).text() for item in changed.values())]
        for name in names
    ]
    return table([f"ρ at epoch {epoch}", *changed], rows)
