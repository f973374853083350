"""A run's records for other programs: JSON lines, and an Optuna study."""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hyperprune.errors import InputError
from hyperprune.files import write_atomically, writing_output
from hyperprune.records import CandidateRecord, RunRecord, epoch_rows

if TYPE_CHECKING:
    import optuna


def write_epochs(run: RunRecord, path: Path) -> None:
    """Write one JSON object per line for each network and epoch, those of `records.epoch_rows`.

    Raises:
        InputError: the file cannot be written.
        OSError: the disk is full.
    """
    lines = (json.dumps(row, allow_nan=False) + "\n" for row in epoch_rows(run))
    with writing_output(path, "--jsonl"):
        write_atomically(path, "".join(lines).encode())


def write_study(run: RunRecord, path: Path, *, name: str) -> None:
    """Write the run as an Optuna study into an SQLite file, for optuna-dashboard and Optuna's plots.

    A candidate is a trial: its settings the parameters, the metric of each epoch an intermediate value, its
    best metric the value. Finalists are complete, the eliminated pruned, the failed failed. Key, label, last
    signal and reason are user attributes; the dense reference is one of the study.

    Args:
        run: the records, of a finished run or not.
        path: of the file; other studies in it are left alone.
        name: of the study; the one that was written of this run before is replaced.

    Raises:
        InputError: the file cannot be written, is no such database, or holds another study of that name.
        OSError: the disk is full.
    """
    import optuna
    from sqlalchemy import URL
    from sqlalchemy.exc import DatabaseError

    # Which run this is: a study that has these may be written again.
    marks = {"task": run.task, "seed": run.seed, "started": run.provenance.get("started", "unknown")}
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        url = URL.create("sqlite", database=str(path))  # a path as text may hold what URLs cut off
        storage = optuna.storages.RDBStorage(url.render_as_string())
        try:
            if name in optuna.get_all_study_names(storage):
                there = optuna.load_study(study_name=name, storage=storage).user_attrs
                if {key: there.get(key) for key in marks} != marks:
                    raise InputError(
                        f"{path} holds a study {name!r} that was not written of this run; choose another file"
                    )
                optuna.delete_study(study_name=name, storage=storage)
            direction = "minimize" if run.lower_is_better else "maximize"
            study = optuna.create_study(storage=storage, study_name=name, direction=direction)
            more = {"metric": run.metric, f"dense {run.metric}": run.reference.metric}
            version = {"hyperprune": run.provenance.get("hyperprune", "unknown")}
            for key, value in (marks | more | version).items():
                study.set_user_attr(key, value)
            study.add_trials(_trials(run))
        finally:
            storage.engine.dispose()
    except DatabaseError as error:
        if getattr(error.orig, "sqlite_errorname", None) == "SQLITE_FULL":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
        raise InputError(
            f"--optuna must be an SQLite file that can be written, got {path}: {error.orig}"
        ) from error
    finally:
        optuna.logging.set_verbosity(verbosity)


def _trials(run: RunRecord) -> list[optuna.trial.FrozenTrial]:
    """The candidates in the order of their creation."""
    import optuna

    candidates = sorted(run.candidates, key=lambda candidate: (len(candidate.key), candidate.key))
    settings = [_parameters(candidate.configuration) for candidate in candidates]
    distributions = _distributions(settings)
    states = {
        "finalist": optuna.trial.TrialState.COMPLETE,
        "eliminated": optuna.trial.TrialState.PRUNED,
        "failed": optuna.trial.TrialState.FAIL,
        "running": optuna.trial.TrialState.RUNNING,
    }
    trials = []
    for candidate, params in zip(candidates, settings, strict=True):
        trial = optuna.trial.create_trial(
            state=states[candidate.outcome],
            value=candidate.metric if candidate.outcome == "finalist" else None,
            params=params,
            distributions={name: distributions[name] for name in params},
            intermediate_values={
                record.epoch: record.metric for record in candidate.epochs if math.isfinite(record.metric)
            },
            user_attrs=_attributes(candidate),
        )
        trials.append(trial)
    return trials


def _attributes(candidate: CandidateRecord) -> dict[str, Any]:
    signals = {f"signal of round {number}": value for number, value in candidate.signals.items()}
    reason = {} if candidate.reason is None else {"reason": candidate.reason}
    return {"key": candidate.key, "label": candidate.label, **signals, **reason}


def _parameters(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as Optuna takes them: plain values; a list or table as its text."""
    plain = bool | int | float | str
    return {
        name: value if value is None or isinstance(value, plain) else json.dumps(value)
        for name, value in configuration.items()
    }


def _distributions(
    settings: Sequence[Mapping[str, Any]],
) -> dict[str, optuna.distributions.BaseDistribution]:
    """Per name the range of its numbers, or the choice of its values, over all candidates."""
    import optuna

    distributions: dict[str, optuna.distributions.BaseDistribution] = {}
    for name in dict.fromkeys(name for own in settings for name in own):
        values = [own[name] for own in settings if name in own]
        if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
            distributions[name] = optuna.distributions.FloatDistribution(min(values), max(values))
        else:
            distributions[name] = optuna.distributions.CategoricalDistribution(list(dict.fromkeys(values)))
    return distributions
