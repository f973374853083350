"""How far an early signal can be trusted: its rank correlation with the final metric.

Over the candidates that were trained to the end: the finalists, and eliminated ones that were audited. The
signal is computed again from their records at each round's epoch, alike for all, whatever their rounds were.
Finalists alone were selected by a small signal, which hides what the signal can do (restriction of range);
audited ones are drawn at random from the rest, or are all of it. In an extended run the final metric is that
of the epoch before the extension, to which the audited were trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np

from hyperprune.hypersearch.ranks import spearman, spearman_interval
from hyperprune.hypersearch.signals import SIGNALS, Signal, TrainingLosses, measure, needs_spectra
from hyperprune.records import CandidateRecord, RunRecord, networks_vary, weighed

USEFUL = 0.5  # a correlation below this would not have been worth eliminating by
COMPARED = ("training_losses", "mean_exponent", "spectrum", "loss")  # judged beside the run's own signal
_MOST_EPOCHS = 8
Verdict = Literal["helped", "misled", "did not help", "too few"]


class RankCorrelation(NamedTuple):
    """Spearman's rho with a 95 % interval; NaN where it cannot be said.

    Positive where candidates with a small signal end better, 0 where the signal says nothing.
    """

    rho: float
    low: float
    high: float
    n: int

    @property
    def verdict(self) -> Verdict:
        """What the interval says.

        "helped": all of it is above 0; "misled": below 0; "did not help": it holds 0 and ends below `USEFUL`;
        "too few": it holds both 0 and `USEFUL`, so that more candidates would have to tell.
        """
        if self.low > 0:
            return "helped"
        if self.high < 0:
            return "misled"
        return "did not help" if self.high < USEFUL else "too few"


class Judged(NamedTuple):
    """A signal at an epoch, judged by the candidates that were trained to the end."""

    signal: str
    epoch: int
    correlation: RankCorrelation


@dataclass(frozen=True, kw_only=True)
class Trust:
    """What a run tells of its signal.

    Attributes:
        judged: the run's own signal first, at every round's epoch, then others for comparison.
        num_finalists, num_audited: how many candidates it is judged by.
        num_failed: audited candidates that failed on the way and are left out.
    """

    judged: tuple[Judged, ...]
    num_finalists: int
    num_audited: int
    num_failed: int

    @property
    def first(self) -> Judged:
        """The run's own signal at the first elimination, which decided most."""
        return self.judged[0]


def rank_correlation(record: RunRecord, signal_values: Mapping[str, float]) -> RankCorrelation:
    """Rank correlation between an early signal and the final metric of the candidates trained to the end.

    Args:
        record: of the run; its finalists and audited candidates count. Where the sparsity is searched, the
            weighed metric does.
        signal_values: an early signal by candidate key, smaller is better; others are ignored.

    Returns:
        rho over the n candidates that have a signal; all NaN for fewer than 3 or without any difference among
        them. The interval (see `ranks`) is of the population that they are a sample of: with few it is wide.
    """
    pairs = [
        (signal_values[row.key], score if record.lower_is_better else -score)
        for row in trained_to_the_end(record)
        if (score := record.score(_as_ended(record, row))) is not None and row.key in signal_values
    ]
    points_N2 = np.array(pairs, dtype=np.float64).reshape(-1, 2)
    rho = spearman(*points_N2.T)
    return RankCorrelation(rho, *spearman_interval(rho, len(pairs)), len(pairs))


def trained_to_the_end(record: RunRecord) -> list[CandidateRecord]:
    """Finalists, and audited candidates that did not fail and have come to the end."""
    last = record.end_of_search
    return [
        row
        for row in record.candidates
        if row.outcome == "finalist"
        or (row.key in record.audited and row.outcome != "failed" and len(row.epochs) > last)
    ]


def trust(record: RunRecord) -> Trust | None:
    """How far the run's signal, and others beside it, told the final metric; None without any to judge.

    Judged are the run's own signal and those of `COMPARED`, at the epoch of each round, or, where nobody was
    eliminated, at a quarter of the final epochs. Signals that rank within a round ("blend", "spectrum_joint")
    rank within the candidates trained to the end. Those whose spectra or training losses the run did not
    record are left out. The run's own never is: where it is not known here, as that of a task's file is not,
    or fails on these candidates, who were never a round, it tells nobody.
    """
    rows = trained_to_the_end(record)
    epochs = _epochs(record)
    if not rows or not epochs or len(record.reference.epochs) <= epochs[-1]:
        return None
    own = record.strategy.get("signal")
    judged = [
        Judged(name, epoch, rank_correlation(record, _values(record, rows, name, epoch)))
        for name in dict.fromkeys((own, *COMPARED) if own else COMPARED)
        if name == own or _recorded(SIGNALS[name], [record.reference, *rows])
        for epoch in epochs
    ]
    if not judged:
        return None
    return Trust(
        judged=tuple(judged),
        num_finalists=sum(row.outcome == "finalist" for row in rows),
        num_audited=sum(row.outcome != "finalist" for row in rows),
        num_failed=sum(row.outcome == "failed" and row.key in record.audited for row in record.candidates),
    )


def _recorded(signal: Signal, rows: Sequence[CandidateRecord]) -> bool:
    """Whether all rows hold what a signal looks at."""
    if isinstance(signal, TrainingLosses):
        return all(item.train_loss is not None for row in rows for item in row.epochs[1:])
    return not needs_spectra(signal) or all(item.spectrum is not None for row in rows for item in row.epochs)


def _as_ended(record: RunRecord, row: CandidateRecord) -> CandidateRecord:
    """The candidate with the metric that it had at the end of the search, whatever followed."""
    last = record.end_of_search
    if not 0 < last < len(row.epochs) - 1:
        return row
    metrics = [entry.metric for entry in row.epochs[1 : last + 1] if entry.at_sparsity]
    best = min if record.lower_is_better else max
    return replace(row, metric=best(metrics, default=None))


def _epochs(record: RunRecord) -> list[int]:
    """The rounds' epochs, at most so many, the first and last among them."""
    epochs = sorted({entry.epoch for entry in record.rounds})
    if not epochs and (last := record.end_of_search):
        epochs = [max(1, last // 4)]
    if len(epochs) <= _MOST_EPOCHS:
        return epochs
    places = np.linspace(0, len(epochs) - 1, _MOST_EPOCHS).round().astype(int)
    return [epochs[place] for place in places]


def _values(record: RunRecord, rows: Sequence[CandidateRecord], name: str, epoch: int) -> dict[str, float]:
    """The signal of every row at an epoch, weighed as the search weighs it; none where the own one fails."""
    is_own = name == record.strategy.get("signal")
    dims = record.strategy.get("spectrum_dims") if is_own else None
    reference = record.reference.epochs[: epoch + 1]
    epochs = {row.key: row.epochs[: epoch + 1] for row in rows}
    by_quantiles = networks_vary(record.candidates)
    try:
        values = measure(name, reference, epochs, dims=dims, by_quantiles=by_quantiles)
    except Exception:
        if is_own:  # it ranked the search's rounds, and must not keep a finished search from its result
            return {}
        raise
    return {
        row.key: weighed(
            values[row.key], sparsity=row.configuration.get("sparsity"), weight=record.sparsity_weight
        )
        for row in rows
    }
