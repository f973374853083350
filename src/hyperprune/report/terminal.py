"""The leaderboard as plain text, for terminals, pipes and logs."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from hyperprune.records import CandidateRecord, RunRecord
from hyperprune.report import facts, words
from hyperprune.report.reliance import verdict

_HEADER = ("rank", "key", "label", "outcome", "epochs", "signal")
_LABEL = 2
_LEFT = (1, 2, 3)  # the columns of words; numbers are set flush right
_NARROWEST_LABEL = 5


def text_table(run: RunRecord, width: int = 80) -> str:
    """Lay out the candidates in rank order, the dense reference above them.

    Args:
        run: the records, of a finished run or not.
        width: characters per line, at least 60. Labels are shortened to fit.

    Returns:
        Lines of at most `width` characters, without a newline at the end.
    """
    width = max(width, 60)
    dense = "dense, failed" if run.reference.outcome == "failed" else "dense"
    rows = [_cells("", run.reference, run, dense)] if run.is_search else []
    rows += [_cells(str(rank), c, run, _outcome(c)) for rank, c in enumerate(run.candidates, start=1)]
    table = [(*_HEADER, words.clip(run.metric, 12)), *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    others = sum(widths) - widths[_LABEL] + 2 * (len(widths) - 1)
    labels = [row[_LABEL] for row in table]
    if widths[_LABEL] > width - others:
        labels = [label.replace(" · ", "·") for label in labels]
    widths[_LABEL] = max(min(max(map(len, labels)), width - others), _NARROWEST_LABEL)
    lines = [
        _line([*row[:_LABEL], _fit(label, widths[_LABEL]), *row[_LABEL + 1 :]], widths, width)
        for row, label in zip(table, labels, strict=True)
    ]
    lines.insert(1, "-" * min(sum(widths) + 2 * (len(widths) - 1), width))
    if run.baseline is not None:
        name, value = run.baseline
        note = f"{name}: {words.number(value)}"
        if any(row[-1].endswith("*") for row in rows):
            note += f"; * has hardly learned: no better than {words.limit(run, facts.AT_BASELINE, of='that')}"
        lines.append(words.clip(note, width))
    if run.is_search:
        spent, full = f"{run.epochs_spent:,}", f"{run.epochs_full:,}"
        lines += textwrap.wrap(
            f"epochs of all candidates: {spent}; to train all of them fully: {full}", width
        )
    if run.sparsity is None:
        rule = f"ranked by signal or {run.metric}, each made worse by 1 + {run.sparsity_weight:g} · density"
        lines += textwrap.wrap(f"{rule}; each label ends with the sparsity", width)
    unfinished = facts.unfinished_audits(run)
    if audited := [key for key in run.audited if key not in unfinished]:
        lines.append(words.clip(f"audited after the search: {', '.join(audited)}", width))
    if (sentence := verdict(run)) is not None:
        lines += textwrap.wrap(sentence, width)
    if not run.finished and facts.hopeless(run) is None:
        search = "The search is not finished; the order may still change."
        lines.append(words.clip(search if run.is_search else "The training is not finished.", width))
    return "\n".join(lines)


def _cells(rank: str, candidate: CandidateRecord, run: RunRecord, outcome: str) -> tuple[str, ...]:
    metric = words.number(facts.best_metric(candidate, lower_is_better=run.lower_is_better))
    # The mark has its own place, so that the numbers stay in line.
    mark = "*" if facts.at_baseline(candidate, run) else " "
    epochs = f"{facts.epochs_trained(candidate):,}"
    signal = words.number(facts.last_signal(candidate))
    return (
        rank,
        words.clip(candidate.key, 8),
        words.clip(candidate.label, 200),
        outcome,
        epochs,
        signal,
        metric + mark,
    )


def _fit(label: str, width: int) -> str:
    """A label whose two ends stay readable: settings that differ often stand last."""
    if len(label) <= width:
        return label
    tail = (width - 1) // 2
    return f"{label[: width - 1 - tail]}…{label[len(label) - tail :]}"


def _outcome(candidate: CandidateRecord) -> str:
    if candidate.outcome == "eliminated" and candidate.eliminated_in is not None:
        return f"out in r{candidate.eliminated_in}"
    return candidate.outcome


def _line(row: Sequence[str], widths: Sequence[int], width: int) -> str:
    cells = [
        words.clip(cell, size).ljust(size) if column in _LEFT else cell.rjust(size)
        for column, (cell, size) in enumerate(zip(row, widths, strict=True))
    ]
    return "  ".join(cells).rstrip()[:width]
