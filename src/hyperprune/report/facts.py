"""What the records imply: who leads, who learned, by how much. No wording, no layout.

"Better" follows the run's direction everywhere; a metric that is not finite is never better than another.
"""

from __future__ import annotations

import math

from hyperprune.records import CandidateRecord, RunRecord

# A model that has clearly learned is beyond this share of the baseline (see `limit`) …
LEARNED = 0.7
# … and one that has learned next to nothing has not even passed this one.
AT_BASELINE = 0.95


def best_metric(candidate: CandidateRecord, *, lower_is_better: bool) -> float | None:
    """The recorded best metric, else the best finite one among the trained epochs; None before the first.

    Epochs in which a network has more weights than it is to have do not count.
    """
    if candidate.metric is not None:
        return candidate.metric
    trained = [record.metric for record in candidate.epochs if record.epoch > 0 and record.at_sparsity]
    finite = [metric for metric in trained if math.isfinite(metric)]
    if finite:
        return min(finite) if lower_is_better else max(finite)
    return trained[-1] if trained else None


def last_metric(candidate: CandidateRecord) -> float | None:
    """The metric of the last trained epoch; None before the first."""
    return candidate.epochs[-1].metric if epochs_trained(candidate) else None


def epochs_trained(candidate: CandidateRecord) -> int:
    """How many epochs the candidate was trained for; the record of epoch 0 is before training."""
    return candidate.epochs[-1].epoch if candidate.epochs else 0


def last_signal(candidate: CandidateRecord) -> float | None:
    """The ranking signal of the last round that the candidate took part in."""
    return candidate.signals[max(candidate.signals)] if candidate.signals else None


def dropped_at(candidate: CandidateRecord, run: RunRecord) -> int | None:
    """The epoch of the round that dropped the candidate, whatever an audit trained beyond; None: none did."""
    return next((part.epoch for part in run.rounds if part.number == candidate.eliminated_in), None)


def winner(run: RunRecord) -> CandidateRecord | None:
    """The first finalist of a finished run; None while the run goes on, or when no candidate got there."""
    if not run.finished:
        return None
    return next((c for c in run.candidates if c.outcome == "finalist"), None)


def leader(run: RunRecord) -> CandidateRecord | None:
    """The winner, or in an unfinished run the highest ranked trained candidate that is still in it."""
    if run.finished:
        return winner(run)
    alive = (c for c in run.candidates if c.outcome in ("running", "finalist"))
    return next((c for c in alive if epochs_trained(c)), None)


def role(run: RunRecord) -> str:
    """What the leader of a run is called."""
    if not run.is_search:
        return "model"
    return "winner" if run.finished else "leader"


def worst(run: RunRecord) -> CandidateRecord | None:
    """The lowest ranked candidate that was eliminated; None when nobody was."""
    return next((c for c in reversed(run.candidates) if c.outcome == "eliminated"), None)


def ratio(value: float | None, reference: float | None) -> float | None:
    """`value / reference` where both are finite and the reference is positive; else it would mean nothing."""
    if value is None or reference is None or not math.isfinite(value):
        return None
    return value / reference if math.isfinite(reference) and reference > 0 else None


def is_bounded(run: RunRecord) -> bool:
    """Whether the metric is taken for one that ends at 1, as an accuracy does."""
    return not run.lower_is_better and run.baseline is not None and 0 < run.baseline[1] < 1


def limit(run: RunRecord, *, share: float) -> float | None:
    """The metric at `share` of the baseline; None where that means nothing: no baseline, or none above 0.

    Where higher is better it is baseline / share, and of a bounded metric that whose distance to 1 is `share`
    of the baseline's: an accuracy is judged as its error rate would be.
    """
    if run.baseline is None or not run.baseline[1] > 0:
        return None
    baseline = run.baseline[1]
    if is_bounded(run):
        return 1 - share * (1 - baseline)
    return share * baseline if run.lower_is_better else baseline / share


def beyond(metric: float | None, run: RunRecord, *, share: float) -> bool | None:
    """Whether a metric is at or beyond `share` of the baseline (see `limit`).

    None where it cannot be said: no metric, one that is not a number, or no limit.
    """
    end = limit(run, share=share)
    if metric is None or math.isnan(metric) or end is None:
        return None
    if math.isinf(metric):
        return False
    return metric <= end if run.lower_is_better else metric >= end


def learned(candidate: CandidateRecord, run: RunRecord) -> bool | None:
    """Whether the candidate ended clearly beyond the baseline; None where it cannot be said."""
    return beyond(best_metric(candidate, lower_is_better=run.lower_is_better), run, share=LEARNED)


def at_baseline(candidate: CandidateRecord, run: RunRecord) -> bool:
    """Whether the candidate's best metric still is where no learning at all would be."""
    return (
        beyond(best_metric(candidate, lower_is_better=run.lower_is_better), run, share=AT_BASELINE) is False
    )


def unlearned_when_ranked(run: RunRecord) -> list[CandidateRecord]:
    """Who was no better than the baseline at the epoch at which candidates were ranked for the first time.

    A loss tells next to nothing of these. Nobody where none was ranked, or there is no baseline.
    """
    if not run.rounds or run.baseline is None:
        return []
    first, baseline = run.rounds[0], run.baseline[1]
    return [
        row
        for row in run.candidates
        for entry in row.epochs
        if row.key in first.signals and entry.epoch == first.epoch
        if not (entry.metric < baseline if run.lower_is_better else entry.metric > baseline)
    ]


def hopeless(run: RunRecord) -> str | None:
    """Why a run that has no end cannot go on; None if it has one, or can."""
    if run.finished:
        return None
    if run.reference.outcome == "failed":
        return f"the dense reference could not be trained ({run.reference.reason})"
    if run.candidates and all(candidate.outcome == "failed" for candidate in run.candidates):
        return "every candidate failed"
    return None


def unfinished_audits(run: RunRecord) -> list[str]:
    """Candidates whose training after the search has not come to its end."""
    return [
        candidate.key
        for candidate in run.candidates
        if candidate.key in run.audited
        and candidate.reason is None
        and epochs_trained(candidate) < run.end_of_search
    ]


def audited(run: RunRecord) -> set[str]:
    """Eliminated candidates that were trained to the end after the search."""
    return set(run.audited) - set(unfinished_audits(run))


def saving(run: RunRecord) -> float | None:
    """How many times fewer epochs a search spent than training every candidate to the end would have.

    None before it has finished.
    """
    return run.epochs_full / run.epochs_spent if run.finished and run.epochs_spent else None
