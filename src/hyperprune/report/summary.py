"""A run as one JSON object, for programs: what `hyperprune search --json` prints."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from hyperprune.records import CandidateRecord, RunRecord
from hyperprune.report import facts
from hyperprune.report.reliance import verdict


def summary_json(run: RunRecord, *, folder: Path | None = None, report: Path | None = None) -> dict[str, Any]:
    """Summarise a run in plain values that `json.dumps(..., allow_nan=False)` accepts.

    Args:
        run: the records.
        folder: the run folder; checkpoints are given as paths in it, or relative to it where it is None.
        report: the report to point to.

    Returns:
        `best` (None unless the run is finished and has a winner), `reference`, `candidates` in rank order,
        `epochs_spent`, `epochs_full`, `epochs_audit`, `trust` (one sentence on the signal, None where there
        is nothing to judge it by), `run` and `report`. A metric that is not finite is None.
    """
    best = facts.winner(run)
    return {
        "best": None
        if best is None
        else _entry(best, run, folder, "configuration", "metric", "epochs", "checkpoint"),
        "reference": _entry(run.reference, run, folder, "metric", "epochs"),
        "candidates": [_entry(candidate, run, folder) for candidate in run.candidates],
        "epochs_spent": run.epochs_spent,
        "epochs_full": run.epochs_full,
        "epochs_audit": run.epochs_audit,
        "trust": verdict(run),
        "run": None if folder is None else str(folder),
        "report": None if report is None else str(report),
    }


def _entry(candidate: CandidateRecord, run: RunRecord, folder: Path | None, *fields: str) -> dict[str, Any]:
    checkpoint = candidate.checkpoint
    if checkpoint is not None and folder is not None:
        checkpoint = str(folder / checkpoint)
    entry = {
        "key": candidate.key,
        "label": candidate.label,
        "configuration": dict(candidate.configuration),
        "outcome": candidate.outcome,
        "eliminated_in": candidate.eliminated_in,
        "reason": candidate.reason,
        "epochs": facts.epochs_trained(candidate),
        "signal": _finite(facts.last_signal(candidate)),
        "metric": _finite(facts.best_metric(candidate, lower_is_better=run.lower_is_better)),
        "sparsity": run.sparsity_of(candidate),
        "weighed": None if run.sparsity is not None else _finite(run.score(candidate)),
        "audited": candidate.key in facts.audited(run),
        "at_baseline": facts.at_baseline(candidate, run),
        "checkpoint": checkpoint,
    }
    return {field: entry[field] for field in fields} if fields else entry


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
