"""How far the signal of a run can be trusted, in words and as a table; the numbers are `trust`'s."""

from __future__ import annotations

import math

from hyperprune.hypersearch.ranks import least_told
from hyperprune.hypersearch.trust import RankCorrelation, Trust, trust
from hyperprune.records import RunRecord
from hyperprune.report.table import Table
from hyperprune.report.words import plural

TITLE = "How far the signal can be trusted"


def verdict(run: RunRecord) -> str | None:
    """One sentence on the run's signal; None where there is nothing to judge it by."""
    found = _trust(run)
    return None if found is None else f"{_opening(run, found)} ({_numbers(found.first.correlation)})."


def reliance(run: RunRecord) -> Table | None:
    """The verdict and the rank correlations by epoch; None where there is nothing to judge it by."""
    found = _trust(run)
    if found is None:
        return None
    rows = tuple(
        (
            judged.signal,
            str(judged.epoch),
            _signed(judged.correlation.rho),
            _interval(judged.correlation),
            str(judged.correlation.n),
        )
        for judged in found.judged
    )
    return Table(
        title=TITLE,
        intro=f"{_opening(run, found)} ({_numbers(found.first.correlation)}). {_caveats(run, found)}",
        header=("signal", "epoch", "rank correlation", "95 % interval", "candidates"),
        rows=rows,
        numeric=(1, 2, 3, 4),
    )


def compared(run: RunRecord) -> list[str]:
    """The names of the signals judged beside the run's own."""
    found = _trust(run)
    own = run.strategy.get("signal")
    return list(dict.fromkeys(item.signal for item in found.judged if item.signal != own)) if found else []


def _trust(run: RunRecord) -> Trust | None:
    return trust(run) if run.finished and run.is_search else None


def _opening(run: RunRecord, found: Trust) -> str:
    first = found.first
    subject = f"the signal {first.signal!r} at epoch {first.epoch}"
    if first.correlation.n == 0:
        return (
            f"Whether {subject} helped is not judged: it is not known here, or fails on the candidates "
            "trained to the end"
        )
    match first.correlation.verdict:
        case "helped":
            return f"It helped here: candidates that {subject} put first ended with the better {run.metric}"
        case "misled":
            return f"It misled here: candidates that {subject} put first ended with the worse {run.metric}"
        case "did not help":
            return f"It did not help here: {subject} does not tell who ends with the better {run.metric}"
        case "too few":
            opening = f"Too few candidates to tell whether {subject} helped here"
            least = least_told(first.correlation.n)
            if least is None:
                return f"{opening}: not even a perfect order of so few would tell"
            return f"{opening}: the smallest correlation that so many tell from none is {least:.2f}"


def _caveats(run: RunRecord, found: Trust) -> str:
    eliminated = sum(row.eliminated_in is not None for row in run.candidates)
    audited_all = found.num_audited + found.num_failed == eliminated
    judged = f"Judged by {plural(found.num_finalists, 'finalist')}"
    if found.num_audited and audited_all:
        whom = "the one eliminated" if eliminated == 1 else f"all {eliminated} of the eliminated"
        if found.num_failed:
            whom = f"{found.num_audited} of the {eliminated} eliminated"
        judged += f" and {whom}, trained on after the search"
    elif found.num_audited:
        judged += (
            f" and {found.num_audited} of the eliminated, drawn at random and trained on after the search"
        )
    parts = [
        f"{judged}: Spearman's correlation of the signal at a round's epoch with the final {run.metric}; "
        "1 is a perfect order, 0 is chance. The interval is of candidates like these"
    ]
    if found.num_failed:
        are = "is" if found.num_failed == 1 else "are"
        parts.append(f"{plural(found.num_failed, 'audited candidate')} failed on the way and {are} left out")
    if eliminated and not found.num_audited + found.num_failed:
        parts.append(
            "Finalists were chosen by a small signal and cannot show what it does; --audit N trains "
            "N of the eliminated to the end"
        )
    elif not audited_all:
        parts.append("Finalists, chosen by a small signal, are over-represented")
    return ". ".join(parts) + "."


def _numbers(correlation: RankCorrelation) -> str:
    if math.isnan(correlation.rho):
        return f"n = {correlation.n}"
    return f"rank correlation {_signed(correlation.rho)}, {_interval(correlation)}, n = {correlation.n}"


def _signed(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:+.2f}".replace("-", "−")


def _interval(correlation: RankCorrelation) -> str:
    if math.isnan(correlation.low):
        return "–"
    return f"{_signed(correlation.low)} … {_signed(correlation.high)}"
