"""Question 1 once more with kinds of pruning as units: does a signal tell which method ends well?

The paper's space has four kinds of death, too few to tell a signal from luck. Here every other method that
was recorded from the same weights on the same data stands beside them, each kind as its candidates' mean.

Axes: E epochs, R candidates, K kinds.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from hyperprune.experiments.evidence import bootstrap
from hyperprune.experiments.evidence.bootstrap import Sample
from hyperprune.experiments.evidence.correlation import Measured, lead, measure, p_relation, with_p
from hyperprune.experiments.evidence.searching import SIGNALS
from hyperprune.experiments.evidence.signals import ENTRIES
from hyperprune.experiments.evidence.text import table
from hyperprune.experiments.evidence.worlds import World, extended, of_seeds, restricted, setting
from hyperprune.hypersearch.space import Configuration
from hyperprune.records import EpochRecord

BEGINS_DENSE, EXPLORES, STAYS = "dense", "sparse", "sparse, and stays"
_UNTRAINED = ("lost", "live_gates")
"""Signals that are of interest before any training."""


class Kinds(NamedTuple):
    """Everything recorded in a world, by kind of pruning: only kinds that every seed has.

    Attributes:
        starts: how each kind begins, and whether it stays so.
        every, sparse, exploring, staying: signals and ends of kinds, means over their candidates: of all
            kinds, of those that have the final sparsity from the start, and of these the ones whose masks
            change and the ones whose masks do not.
        candidates: signals and ends of each candidate that begins sparse.
        counts: networks of each kind, over all seeds.
    """

    starts: dict[str, str]
    every: Measured
    sparse: Measured
    exploring: Measured
    staying: Measured
    candidates: Measured
    counts: dict[str, int]

    @property
    def seeds(self) -> list[int]:
        return [run.seed for run in self.every.world.table.runs]

    @property
    def title(self) -> str:
        """Of the world, and of which seeds."""
        seeds = ", ".join(map(str, self.seeds))
        return f"{self.every.world.title}, seed {seeds}"

    def mean(self, columns: Sequence[np.ndarray], kind: str) -> float:
        """A kind's mean over seeds of what is given as (K,) per seed."""
        pairs = zip(columns, self.every.groups, strict=True)
        return float(np.mean([own[names == kind] for own, names in pairs]))

    def ends(self) -> dict[str, float]:
        """By kind its final metric, smaller is better, the best first."""
        means = {kind: self.mean(self.every.finals, kind) for kind in self.starts}
        return dict(sorted(means.items(), key=lambda pair: pair[1]))


def kind_of_pruning(configuration: Configuration) -> str:
    """The method; where the paper's space combines parts, its death, and its growth unless that is random."""
    if configuration.method == "dynamic_sparse":
        growth = setting(configuration, "growth")
        death = f"{setting(configuration, 'death')} death"
        return death if growth == "random" else f"{death}, {growth} growth"
    criterion = setting(configuration, "at_init")
    return configuration.method if criterion is None else f"{configuration.method}, {criterion}"


def measure_kinds(world: World) -> Kinds | None:
    """All kinds of pruning in a world, of the seeds with other methods.

    None where no seed has any, or one has fewer than two networks whose masks change, or whose masks stay.
    """
    own = of_seeds(world, world.methods)
    if own is None or world.methods is None:
        return None
    everything = extended(own, world.methods)
    if world.controls is not None:
        everything = extended(everything, world.controls)
    # A threshold that meets its target at once is the global magnitude's twin, not a kind of its own.
    table = restricted(everything.table, lambda item: not setting(item, "threshold_at_once"))
    assert table is not None  # a table of candidates is never of such twins alone
    common = set.intersection(*(set(map(kind_of_pruning, run.configurations)) for run in table.runs))
    kinds = [kind for kind in map(kind_of_pruning, table.runs[0].configurations) if kind in common]
    members = {
        kind: [
            records
            for run in table.runs
            for item, records in zip(run.configurations, run.candidates, strict=True)
            if kind_of_pruning(item) == kind
        ]
        for kind in dict.fromkeys(kinds)
    }
    starts = {kind: _start(own) for kind, own in members.items()}

    def measured(*wanted: str) -> Measured | None:
        """Of the kinds that begin so; some signals look at all others too."""
        own = restricted(table, lambda item: starts.get(kind_of_pruning(item)) in wanted)
        if own is None:
            return None
        found = measure(replace(everything, table=own), (*SIGNALS, *_UNTRAINED))
        names = [np.array([kind_of_pruning(item) for item in run.configurations]) for run in own.runs]
        return replace(found, groups=names, units=names)

    every, sparse = measured(BEGINS_DENSE, EXPLORES, STAYS), measured(EXPLORES, STAYS)
    exploring, staying = measured(EXPLORES), measured(STAYS)
    if every is None or sparse is None or exploring is None or staying is None:
        return None
    return Kinds(
        starts=starts,
        every=_as_kinds(every),
        sparse=_as_kinds(sparse),
        exploring=_as_kinds(exploring),
        staying=_as_kinds(staying),
        candidates=sparse,
        counts={kind: len(own) for kind, own in members.items()},
    )


def _start(members: Sequence[Sequence[EpochRecord]]) -> str:
    if not all(record.at_sparsity for records in members for record in records):
        return BEGINS_DENSE
    moved = sum(float(record.probes["turnover"]) for records in members for record in records[:-1])
    return EXPLORES if moved > 0 else STAYS


def _as_kinds(found: Measured) -> Measured:
    """The means over each kind's candidates; every kind is a group and a unit of its own."""
    pairs = list(enumerate(found.groups))
    names = [np.array(list(dict.fromkeys(own.tolist()))) for own in found.groups]
    return replace(
        found,
        values={
            name: [_per_kind(columns[number], own) for number, own in pairs]
            for name, columns in found.values.items()
        },
        finals=[_per_kind(found.finals[number], own) for number, own in pairs],
        groups=names,
        units=names,
        metrics=[_per_kind(found.metrics[number], own) for number, own in pairs],
    )


def _per_kind(values_R: np.ndarray, kinds_R: np.ndarray) -> np.ndarray:
    """(…, K) means over the members of each kind, in the order in which kinds first come."""
    kinds = dict.fromkeys(kinds_R.tolist())
    return np.stack([values_R[..., kinds_R == kind].mean(axis=-1) for kind in kinds], axis=-1)


def signals_table(kinds: Kinds, epoch: int) -> str:
    """Each main signal: what it tells about the kinds, among whom, when, and what following it loses."""
    epochs = [0, *kinds.sparse.told_epochs]
    rows = [
        [
            ENTRIES[name].label,
            *(with_p(kinds.sparse, name, item) for item in epochs),
            "–" if name in ("loss", "none") else lead(kinds.sparse, name, "loss", epoch).text(),
            with_p(kinds.exploring, name, epoch),
            with_p(kinds.staying, name, epoch),
            with_p(kinds.every, name, epoch),
            _percent(_regret_of_two(kinds, name, epoch)),
        ]
        for name in SIGNALS
    ]
    head = [
        f"signal (seed {', '.join(map(str, kinds.seeds))})",
        *(f"begin sparse ({_count(kinds.sparse)}), epoch {item}" for item in epochs),
        f"lead over the loss there, epoch {epoch}",
        f"explore too ({_count(kinds.exploring)}), epoch {epoch}",
        f"stay ({_count(kinds.staying)}), epoch {epoch}",
        f"all ({_count(kinds.every)}), epoch {epoch}",
        f"regret of two picks at epoch {epoch}, %",
    ]
    return table(head, rows)


def _count(found: Measured) -> int:
    return len(found.groups[0])


def never_changes(kinds: Kinds) -> str:
    """The rank correlation of a trait that is known before training: that a mask never changes."""
    samples = [
        Sample((starts == STAYS).astype(float), final_K, names, names)
        for starts, final_K, names in zip(
            by_trait(kinds).groups, kinds.sparse.finals, kinds.sparse.groups, strict=True
        )
    ]
    p = p_relation(bootstrap.p_of_groups(samples))
    return bootstrap.estimate(samples, bootstrap.overall).text(also=p)


def by_trait(kinds: Kinds) -> Measured:
    """The kinds that begin sparse, in two groups: those whose masks change, and those whose masks do not."""
    starts = [np.array([kinds.starts[kind] for kind in names.tolist()]) for names in kinds.sparse.groups]
    return replace(kinds.sparse, groups=starts)


def beyond_table(kinds: Kinds) -> str:
    """What signals tell beyond whether a mask ever changes, before any training and after."""
    found = by_trait(kinds)
    epochs = [0, *found.told_epochs]
    rows = [
        [ENTRIES[name].label, *(with_p(found, name, epoch, "within") for epoch in epochs)]
        for name in (*SIGNALS, *_UNTRAINED)
    ]
    heads = [f"epoch {epoch}" if epoch else "epoch 0, untrained" for epoch in epochs]
    return table(["given whether masks change", *heads], rows)


def _regret_of_two(kinds: Kinds, name: str, epoch: int) -> float:
    """The mean over seeds, NaN where the signal is unknown; where it is none, what two random picks lose."""
    found = kinds.candidates
    regrets = []
    for finals, values_ER in zip(found.finals, found.values[name], strict=True):
        pairs = list(itertools.combinations(range(len(finals)), 2))
        if name != "none":
            if np.isnan(values_ER[epoch]).any():
                return math.nan
            pairs = [tuple(np.argsort(values_ER[epoch], kind="stable")[:2])]
        picked = np.mean([min(finals[one], finals[other]) for one, other in pairs])
        regrets.append((picked - finals.min()) / abs(finals.min()))
    return float(np.mean(regrets))


def _percent(share: float) -> str:
    return "–" if math.isnan(share) else f"{100 * share:.1f}"


def kinds_table(kinds: Kinds, epoch: int) -> str:
    """Every kind, the best first: how it ended, and what the main signals said about it."""
    found = kinds.every
    rows = []
    for name, end in kinds.ends().items():
        early = kinds.mean([own[epoch] for own in found.metrics], name)
        signals = [
            f"{kinds.mean([own[epoch] for own in found.values[signal]], name):.2f}"
            for signal in ("spectrum", "full", "mean_exponent")
        ]
        count, start = kinds.counts[name], kinds.starts[name]
        rows.append([name, str(count), start, f"{abs(end):.4g}", f"{early:.4g}", *signals])
    metric = found.world.table.metric
    head = ["kind", "networks", "begins", "final", f"{metric}, epoch {epoch}"]
    return table(
        [*head, "distance, hidden spectrum", "distance, full-state spectrum", "minus mean exponent"], rows
    )
