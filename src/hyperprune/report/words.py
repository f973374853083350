"""Numbers and outcomes as text, the same in every output."""

from __future__ import annotations

import math

from hyperprune.records import CandidateRecord, RunRecord
from hyperprune.report import facts

NOTHING = "–"


def number(value: float | None) -> str:
    """Four significant digits without exponents in the range where people read metrics."""
    if value is None:
        return NOTHING
    if math.isnan(value):
        return "not a number"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    size = abs(value)
    if size >= 1e7:
        return f"{value:.3e}"
    if size >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}" if size < 1 else f"{value:#.4g}"


def times(value: float | None) -> str:
    """A ratio with its sign ("0.15×")."""
    return NOTHING if value is None else f"{value:.2f}×"


def limit(run: RunRecord, share: float, *, of: str) -> str:
    """What a metric must pass to be beyond `share` of the baseline, which is spoken of as in "of it"."""
    if facts.is_bounded(run):
        return number(facts.limit(run, share=share))
    return f"{share if run.lower_is_better else 1 / share:.3g}× {of}"


def percent(share: float) -> str:
    """A share in [0, 1] as a percentage, without needless digits ("67 %", "99.5 %")."""
    return f"{100 * share:.4g} %"


def outcome(candidate: CandidateRecord) -> str:
    """What became of a candidate, with the round or the reason."""
    if candidate.outcome == "eliminated":
        return (
            "eliminated"
            if candidate.eliminated_in is None
            else f"eliminated in round {candidate.eliminated_in}"
        )
    if candidate.outcome == "failed":
        return f"failed: {candidate.reason or 'reason not recorded'}"
    return candidate.outcome


def name(candidate: CandidateRecord) -> str:
    """Key and label, the way a candidate is spoken of ("c07 (er · set · none · 0.50)")."""
    return f"{candidate.key} ({candidate.label})" if candidate.label else candidate.key


def plural(count: int, noun: str) -> str:
    """ "1 candidate", "2 candidates", "1,200 epochs"."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def clip(text: str, width: int) -> str:
    """One line of at most `width` characters; what is cut off is shown as an ellipsis."""
    line = " ".join(text.split())
    return line if len(line) <= width else line[: max(width - 1, 0)] + "…"[:width]
