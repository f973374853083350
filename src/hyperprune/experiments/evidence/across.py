"""Question 1 once more with kinds of pruning as units: does a signal tell which method ends well?

The paper's space has four kinds of death, too few to tell a signal from luck. Here every other method that
was recorded from the same weights on the same data stands beside them, each kind as its candidates' mean.

Axes: E epochs, R candidates, K kinds.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from hyperprune.experiments.evidence import bootstrap
from hyperprune.experiments.evidence.correlation import (
    Measured,
    by_kinds,
    estimate,
    measure,
    p_relation,
    with_p,
)
from hyperprune.experiments.evidence.searching import SIGNALS
from hyperprune.experiments.evidence.signals import ENTRIES
from hyperprune.experiments.evidence.text import table
from hyperprune.experiments.evidence.worlds import World, extended, restricted, setting
from hyperprune.hypersearch.space import Configuration
from hyperprune.hypersearch.table import CandidateTable
from hyperprune.records import EpochRecord

BEGINS_DENSE, EXPLORES, STAYS = "dense", "sparse", "sparse, and stays"
NEVER_CHANGES = "never changes"
BEFOREHAND = {
    NEVER_CHANGES: "the mask never changes (the method alone)",
    "lost": "directions lost at initialisation, full state",
    "live_gates": "live weights per gate, unevenness, at initialisation",
    "spectrum": "distance of the hidden state's spectrum at initialisation",
    "full": "distance of the full state's spectrum at initialisation",
}
"""What can be said of a kind before any training: a trait, and signals at epoch 0."""

DISTANCES = {"spectrum": "hidden", "full": "full"}
"""Signals that are distances of spectra, and of which state."""


class Kinds(NamedTuple):
    """Everything recorded in a world, by kind of pruning.

    Attributes:
        of_kinds: the signals and ends of each kind, means over its candidates.
        of_candidates: the same of each candidate, with its kind.
        sparse: (K,) per seed, kinds whose candidates have the final sparsity from the start.
        exploring: (K,) per seed, those of them whose masks ever change.
    """

    of_kinds: Measured
    of_candidates: Measured
    sparse: list[np.ndarray]
    exploring: list[np.ndarray]

    def that_begin_sparse(self) -> Measured:
        return _only(self.of_kinds, self.sparse)

    def that_explore(self) -> Measured:
        return _only(self.of_kinds, self.exploring)

    def that_stay(self) -> Measured:
        pairs = zip(self.sparse, self.exploring, strict=True)
        return _only(self.of_kinds, [one & ~other for one, other in pairs])

    def mean(self, columns: Sequence[np.ndarray], kind: str) -> float:
        """A kind's mean over seeds of what is given as (K,) per seed."""
        pairs = zip(columns, self.of_kinds.kinds, strict=True)
        return float(np.mean([own[names == kind] for own, names in pairs if kind in names]))

    def ends(self) -> dict[str, float]:
        """By kind its final metric, smaller is better, the best first."""
        found = self.of_kinds
        means = {name: self.mean(found.finals, name) for names in found.kinds for name in names.tolist()}
        return dict(sorted(means.items(), key=lambda pair: pair[1]))

    def start(self, kind: str) -> str:
        """How a kind begins, and whether it stays so."""
        if not self.mean(self.sparse, kind):
            return BEGINS_DENSE
        return EXPLORES if self.mean(self.exploring, kind) else STAYS


def kind_of_pruning(configuration: Configuration) -> str:
    """The method; where the paper's space combines parts, its death, and its growth unless that is random."""
    if configuration.method == "dynamic_sparse":
        growth = setting(configuration, "growth")
        death = f"{setting(configuration, 'death')} death"
        return death if growth == "random" else f"{death}, {growth} growth"
    criterion = setting(configuration, "at_init")
    return configuration.method if criterion is None else f"{configuration.method}, {criterion}"


def measure_kinds(world: World) -> Kinds | None:
    """All kinds of pruning in a world, of the seeds that have them all; None where none has other methods."""
    seeds = _seeds(world.table) & _seeds(world.methods)
    if world.methods is None or not seeds:
        return None
    others = [world.methods]
    if world.controls is not None and seeds & _seeds(world.controls):
        others.append(world.controls)
    everything = extended(world, *others)
    # A threshold that meets its target at once is the global magnitude's twin, not a kind of its own.
    candidates = restricted(everything.table, lambda item: not setting(item, "threshold_at_once"))
    assert candidates is not None
    everything = replace(everything, table=candidates)
    found = measure(everything, (*SIGNALS, *(set(BEFOREHAND) - {NEVER_CHANGES, *SIGNALS})))
    runs = everything.table.runs
    kinds = [np.array([kind_of_pruning(item) for item in run.configurations]) for run in runs]
    of_candidates = replace(found, kinds=kinds, points=[np.arange(len(own)) for own in kinds])
    sparse = _kinds_that(_begins_sparse, of_candidates)
    moving = _kinds_that(_explores, of_candidates)
    of_kinds = _as_kinds(of_candidates)
    staying = [np.broadcast_to(~own, (len(found.epochs), len(own))).astype(float) for own in moving]
    return Kinds(
        of_kinds=replace(of_kinds, values={**of_kinds.values, NEVER_CHANGES: staying}),
        of_candidates=of_candidates,
        sparse=sparse,
        exploring=[one & other for one, other in zip(sparse, moving, strict=True)],
    )


def _seeds(table: CandidateTable | None) -> set[int]:
    return set() if table is None else {run.seed for run in table.runs}


def _begins_sparse(records: Sequence[EpochRecord]) -> bool:
    return all(record.at_sparsity for record in records)


def _explores(records: Sequence[EpochRecord]) -> bool:
    return sum(float(record.probes.get("turnover", 0.0)) for record in records) > 0


def _kinds_that(trait: Callable[[Sequence[EpochRecord]], bool], found: Measured) -> list[np.ndarray]:
    """(K,) per seed, whether all candidates of a kind have a trait."""
    return [
        _per_kind(np.array([trait(records) for records in run.candidates]), own) == 1.0
        for run, own in zip(found.world.table.runs, found.kinds, strict=True)
    ]


def _as_kinds(found: Measured) -> Measured:
    """The means over each kind's candidates; every kind is a group and a unit of its own."""
    pairs = list(enumerate(found.kinds))
    names = [np.array(list(dict.fromkeys(own.tolist()))) for own in found.kinds]
    return replace(
        found,
        values={
            name: [_per_kind(columns[number], own) for number, own in pairs]
            for name, columns in found.values.items()
        },
        finals=[_per_kind(found.finals[number], own) for number, own in pairs],
        kinds=names,
        points=[np.arange(len(own)) for own in names],
        metrics=[_per_kind(found.metrics[number], own) for number, own in pairs],
    )


def _per_kind(values_R: np.ndarray, kinds_R: np.ndarray) -> np.ndarray:
    """(…, K) means over the members of each kind, in the order in which kinds first come."""
    kinds = dict.fromkeys(kinds_R.tolist())
    return np.stack([values_R[..., kinds_R == kind].mean(axis=-1) for kind in kinds], axis=-1)


def _only(found: Measured, keep: Sequence[np.ndarray]) -> Measured:
    """Those columns alone that `keep` tells, one mask per seed."""
    return replace(
        found,
        values={
            name: [own[:, mask] for own, mask in zip(columns, keep, strict=True)]
            for name, columns in found.values.items()
        },
        finals=[own[mask] for own, mask in zip(found.finals, keep, strict=True)],
        kinds=[own[mask] for own, mask in zip(found.kinds, keep, strict=True)],
        points=[np.arange(int(mask.sum())) for mask in keep],
        metrics=[own[:, mask] for own, mask in zip(found.metrics, keep, strict=True)],
    )


def lead(found: Measured, name: str, epoch: int, over: tuple[str, int]) -> str:
    """How much more a signal at an epoch tells about kinds than another one at another epoch does."""
    own = bootstrap.difference(estimate(found, name, epoch), estimate(found, *over))
    return own.text(also=p_relation(by_kinds(found, name, epoch, beyond=over)))


def signals_table(kinds: Kinds, epoch: int) -> str:
    """Each main signal: what it tells about the kinds, among whom, when, and what following it loses."""
    sparse, exploring = kinds.that_begin_sparse(), kinds.that_explore()
    epochs = sparse.told_epochs
    rows = []
    for name in SIGNALS:
        beyond = "–" if name in ("loss", "none") else lead(sparse, name, epoch, ("loss", epoch))
        rows.append(
            [
                ENTRIES[name].label,
                *(with_p(sparse, name, item) for item in epochs),
                beyond,
                with_p(exploring, name, epoch),
                with_p(kinds.of_kinds, name, epoch),
                f"{100 * _regret_of_two(kinds, name, epoch):.1f}",
            ]
        )
    counts = [len(own.kinds[0]) for own in (sparse, exploring, kinds.of_kinds)]
    head = [
        "signal",
        *(f"begin sparse ({counts[0]}), epoch {item}" for item in epochs),
        f"lead over the loss there, epoch {epoch}",
        f"explore too ({counts[1]}), epoch {epoch}",
        f"all ({counts[2]}), epoch {epoch}",
        f"regret of two picks at epoch {epoch}, %",
    ]
    return table(head, rows)


def beforehand_table(kinds: Kinds, epoch: int) -> str:
    """What is known of a kind before training, and what spectra at an epoch tell beyond it."""
    groups = {
        "begin sparse": kinds.that_begin_sparse(),
        "explore too": kinds.that_explore(),
        "stay": kinds.that_stay(),
    }
    sparse = groups["begin sparse"]
    rows = []
    for name, label in BEFOREHAND.items():
        told = [with_p(found, name, 0) for found in groups.values()]
        beyond = [lead(sparse, signal, epoch, (name, 0)) for signal in DISTANCES]
        rows.append([label, *told, *beyond])
    for name in ("spectrum", "full", "loss"):
        told = [with_p(found, name, epoch) for found in groups.values()]
        rows.append([f"{ENTRIES[name].label}, epoch {epoch}", *told, "–", "–"])
    heads = [f"{label} ({len(found.kinds[0])})" for label, found in groups.items()]
    leads = [f"lead of the {state} state's spectrum at epoch {epoch} over it" for state in DISTANCES.values()]
    return table(["known before training", *heads, *leads], rows)


def _regret_of_two(kinds: Kinds, name: str, epoch: int) -> float:
    """The mean over seeds; what two picks at random lose where the signal is none."""
    found = kinds.of_candidates
    regrets = []
    for number, kinds_R in enumerate(found.kinds):
        keep = np.isin(kinds_R, kinds.of_kinds.kinds[number][kinds.sparse[number]])
        finals, values = found.finals[number][keep], found.values[name][number][epoch][keep]
        pairs = list(itertools.combinations(range(len(finals)), 2))
        if name != "none":
            pairs = [tuple(np.argsort(values, kind="stable")[:2])]
        picked = np.mean([min(finals[one], finals[other]) for one, other in pairs])
        regrets.append((picked - finals.min()) / abs(finals.min()))
    return float(np.mean(regrets))


def kinds_table(kinds: Kinds, epoch: int) -> str:
    """Every kind, the best first: how it ended, and what the main signals said about it."""
    found = kinds.of_kinds
    rows = []
    for name, end in kinds.ends().items():
        early = kinds.mean([own[epoch] for own in found.metrics], name)
        signals = [
            f"{kinds.mean([own[epoch] for own in found.values[signal]], name):.2f}"
            for signal in ("spectrum", "full", "mean_exponent")
        ]
        members = sum(int((own == name).sum()) for own in kinds.of_candidates.kinds)
        rows.append([name, str(members), kinds.start(name), f"{abs(end):.4g}", f"{early:.4g}", *signals])
    metric = found.world.table.metric
    head = ["kind", "networks", "begins", "final", f"{metric}, epoch {epoch}"]
    return table(
        [*head, "distance, hidden spectrum", "distance, full-state spectrum", "minus mean exponent"], rows
    )
