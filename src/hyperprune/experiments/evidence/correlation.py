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
    first_averaging,
    grid_point,
    kind_of,
    of_seeds,
    with_last_spectra,
    without_never_averaging,
)
from hyperprune.hypersearch.ranks import spearman

LAST_EPOCH = 12
_TOLD_EPOCHS = (1, 3, 6, 12)
_RARE = 0.05
AMONG = ("all", "within", "between", "without threshold", "learning")


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Signals of a world at every epoch from the start on.

    Attributes:
        epochs: 0 … 12, or as was asked, but not the end.
        values: by signal, one (E, R) array per seed.
        finals: (R,) per seed, smaller is better.
        groups: (R,) per seed, whose members end alike: the kind of death.
        units: (R,) per seed, who counts as one observation: the number of the grid point.
        metrics: (E, R) per seed.
    """

    world: World
    epochs: tuple[int, ...]
    values: Mapping[str, list[np.ndarray]]
    finals: list[np.ndarray]
    groups: list[np.ndarray]
    units: list[np.ndarray]
    metrics: list[np.ndarray]

    @property
    def told_epochs(self) -> list[int]:
        """Those of the epochs that tables tell."""
        return [epoch for epoch in _TOLD_EPOCHS if epoch in self.epochs]


def measure(
    world: World, names: Sequence[str] = tuple(ENTRIES), *, last_epoch: int | None = None
) -> Measured:
    """Compute signals for every candidate at the epochs up to `last_epoch`; None is `LAST_EPOCH`."""
    data = with_last_spectra(world.table)
    last_epoch = LAST_EPOCH if last_epoch is None else last_epoch
    epochs = tuple(range(min(last_epoch, data.final_epochs - 1) + 1))
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
        groups=[np.array([kind_of(item) for item in run.configurations]) for run in data.runs],
        units=_numbered([[grid_point(item) for item in run.configurations] for run in data.runs]),
        metrics=[
            np.array([[records[epoch].metric for records in run.candidates] for epoch in epochs])
            for run in data.runs
        ],
    )


def _numbered(seeds: Sequence[Sequence[object]]) -> list[np.ndarray]:
    """The number of each item among the different ones of all seeds, in their order."""
    different = dict.fromkeys(item for items in seeds for item in items)
    numbers = {item: number for number, item in enumerate(different)}
    return [np.array([numbers[item] for item in items], dtype=int) for items in seeds]


def estimate(found: Measured, name: str, epoch: int, among: str = "all") -> Estimate:
    """The rank correlation of a signal at an epoch with the final metric.

    Args:
        found: the world's signals.
        name: of the signal.
        epoch: at which it is asked.
        among: "all" candidates; "within" kinds of death (the mean over kinds); "between" the kinds' means;
            all "without threshold" death; those that are "learning": better than the baseline then.
    """
    samples, statistic = _samples(found, name, epoch, among), _statistic(among)
    return (bootstrap.by_chance if name == "none" else bootstrap.estimate)(samples, statistic)


def lead(found: Measured, name: str, other: str, epoch: int, among: str = "all") -> Estimate:
    """How much larger a signal's rank correlation is than another one's."""
    one, two = (_samples(found, item, epoch, among) for item in (name, other))
    return bootstrap.lead(one, two, _statistic(among))


def value(found: Measured, name: str, epoch: int, among: str = "all") -> float:
    """The same without an interval, a thousand times faster."""
    if name == "none":
        return 0.0
    each = bootstrap.each_seed(_samples(found, name, epoch, among), _statistic(among))
    return float(each.mean())


def p_value(found: Measured, name: str, epoch: int, among: str = "all") -> float:
    """Two-sided p: how often a correlation so far from 0 comes about by chance.

    Among "all" the kinds of death exchange their ends, so that kinds are the units; "within" kinds their
    candidates do.
    """
    if name == "none":
        return math.nan
    p_of = {"all": bootstrap.p_of_groups, "within": bootstrap.p_of_members}[among]
    return p_of(_samples(found, name, epoch, among))


def is_shown(found: Measured, name: str, epoch: int, among: str = "all") -> bool:
    """The page's rule: the interval leaves out 0, the same is rare by chance, and all seeds agree."""
    own = estimate(found, name, epoch, among)
    agree = bool((own.each > 0).all() or (own.each < 0).all())
    return agree and (own.low > 0 or own.high < 0) and p_value(found, name, epoch, among) <= _RARE


def _statistic(among: str) -> bootstrap.Statistic:
    return {"within": bootstrap.within, "between": bootstrap.between}.get(among, bootstrap.overall)


def _samples(found: Measured, name: str, epoch: int, among: str) -> list[Sample]:
    samples = []
    for number, values_ER in enumerate(found.values[name]):
        sample = Sample(values_ER[epoch], found.finals[number], found.groups[number], found.units[number])
        keep = np.ones(len(sample.final_N), dtype=bool)
        if among == "without threshold":
            keep = sample.group_N != "threshold"
        elif among == "learning":
            keep = _learning(found, number, epoch)
        samples.append(Sample(*(column[keep] for column in sample)))
    return samples


def _learning(found: Measured, number: int, epoch: int) -> np.ndarray:
    baseline = found.world.baseline
    metrics_R = found.metrics[number][epoch]
    if baseline is None:
        return np.ones(len(metrics_R), dtype=bool)
    return metrics_R < baseline[1] if found.world.table.lower_is_better else metrics_R > baseline[1]


def share_learning(found: Measured) -> np.ndarray | None:
    """(E,) share of the candidates that are better than the baseline at each epoch; None without one."""
    if found.world.baseline is None:
        return None
    return np.array(
        [
            np.mean([_learning(found, number, epoch).mean() for number in range(len(found.finals))])
            for epoch in found.epochs
        ]
    )


def decisive_table(found: Measured, epoch: int) -> str:
    """At one epoch: among whom each signal tells anything, with intervals, and its lead over the loss."""
    rows = []
    for name, entry in ENTRIES.items():
        own = {among: estimate(found, name, epoch, among) for among in AMONG if among != "between"}
        if np.isnan(own["all"].value):  # not measured, or the same of all, in some seed
            continue
        between = value(found, name, epoch, "between")
        rows.append(
            [
                entry.label,
                own["all"].text(),
                seeds_text(own["all"]),
                p_text(p_value(found, name, epoch)),
                told(own["within"]),
                "–" if math.isnan(between) else f"{between:.2f}",
                told(own["without threshold"]),
                told(own["learning"]),
                "–" if name in ("loss", "none") else lead(found, name, "loss", epoch).text(),
            ]
        )
    num_kinds = len({kind for kinds in found.groups for kind in kinds})
    between = f"between the {num_kinds} kinds (too few for an interval)"
    head = ["signal", "all", "each seed", "p by kinds", "within kinds of death", between]
    return table([*head, "without threshold", "learning", "all: lead over the loss"], rows)


def seeds_text(own: Estimate) -> str:
    """For a table: the value of each seed."""
    return " / ".join("–" if math.isnan(item) else f"{item:.2f}" for item in own.each)


def told(own: Estimate, *, also: str = "") -> str:
    """A correlation with its interval and, where there are several, each seed's in square brackets."""
    text = own.text(also=also)
    return text if len(own.each) < 2 or math.isnan(own.value) else f"{text} [{seeds_text(own)}]"


def with_p(found: Measured, name: str, epoch: int, among: str = "all") -> str:
    """The correlation with its interval, its p (chance itself has none) and each seed's."""
    p = p_value(found, name, epoch, among)
    return told(estimate(found, name, epoch, among), also="" if math.isnan(p) else p_relation(p))


def p_text(p: float) -> str:
    """For a table's column of p; one digit more where two could not tell on which side of .05 it lies."""
    if math.isnan(p):
        return "–"
    if p < 0.01:
        return "< 0.01"
    return f"{p:.3f}" if 0.04 <= p < 0.06 else f"{p:.2f}"


def p_relation(p: float) -> str:
    """For a sentence: "p = 0.12", "p < 0.01"."""
    text = p_text(p)
    return f"p {text}" if text.startswith("<") else f"p = {text}"


def sensitivity_table(found: Measured, names: Sequence[str], epoch: int) -> str:
    """The main signals once more, with something changed that the answer might hang on."""
    world = found.world
    changed = {"as above": found}
    without = without_never_averaging(world)
    averaged = measure(world if without is None else without, names)
    if without is not None:
        changed["without those that never averaged"] = averaged
    if all(run.test_metrics for run in world.table.runs):
        finals = [world.test_finals(run) for run in world.table.runs]
        changed[f"end by test {world.table.metric}"] = replace(found, finals=finals)
    controlled = of_seeds(world, world.controls)
    if controlled is not None and world.controls is not None:
        counted = measure(extended(controlled, world.controls), names)
        seeds = [run.seed for run in counted.world.table.runs]
        some = "" if len(seeds) == len(world.table.runs) else f" (seed {', '.join(map(str, seeds))})"
        changed[f"controls counted as candidates{some}"] = counted
    head = [f"ρ at epoch {epoch}", *changed]
    rows = [
        [ENTRIES[name].label, *(estimate(item, name, epoch).text() for item in changed.values())]
        for name in names
    ]
    starts = averaging_starts(averaged.world)
    if starts is not None:
        head.append("of those that averaged, given when they began")
        for row, name in zip(rows, names, strict=True):
            row.append(_given(averaged, name, epoch, starts))
    return table(head, rows)


def averaging_starts(world: World) -> list[np.ndarray] | None:
    """(R,) per seed, from which epoch on each candidate is evaluated with averages; None if one never is."""
    firsts = [[first_averaging(records) for records in run.candidates] for run in world.table.runs]
    if any(first is None for own in firsts for first in own):
        return None
    return [np.array(own, dtype=float) for own in firsts]


def _given(found: Measured, name: str, epoch: int, others: Sequence[np.ndarray]) -> str:
    """The partial rank correlation with the final metric, another column (one per seed) held fixed."""
    own = np.array(
        [
            _partial(found.values[name][number][epoch], found.finals[number], other_R)
            for number, other_R in enumerate(others)
        ]
    )
    if name == "none" or np.isnan(own).any():
        return "–"
    return f"{own.mean():.2f} [{' / '.join(f'{item:.2f}' for item in own)}]"


def _partial(one_R: np.ndarray, two_R: np.ndarray, fixed_R: np.ndarray) -> float:
    """Spearman's partial correlation of two columns given a third; NaN where that explains one wholly."""
    direct, first, second = (spearman(*pair) for pair in ((one_R, two_R), (one_R, fixed_R), (two_R, fixed_R)))
    left = (1 - first**2) * (1 - second**2)
    return (direct - first * second) / math.sqrt(left) if left > 1e-12 else math.nan
