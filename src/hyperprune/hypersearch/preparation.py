"""Everything of a search that can be checked and settled before its folder is made and anything trained."""

from __future__ import annotations

import os
import platform
import shlex
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import hyperprune
from hyperprune.errors import InputError, check_whole
from hyperprune.hypersearch.atpe import require_hyperopt
from hyperprune.hypersearch.audit import check_audit
from hyperprune.hypersearch.dimensions import plain
from hyperprune.hypersearch.executor import Execution, check_execution
from hyperprune.hypersearch.fitting import Note, check_space, fitting
from hyperprune.hypersearch.reference import GivenReference, dense_training, read_reference
from hyperprune.hypersearch.run_folder import FORMAT, found_state
from hyperprune.hypersearch.run_state import Event, RunState
from hyperprune.hypersearch.signals import get_signal, needs_spectra
from hyperprune.hypersearch.space import Space
from hyperprune.hypersearch.strategy import Strategy
from hyperprune.tasks.contract import Task
from hyperprune.training.checks import check_trainable


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A search that may begin.

    Attributes:
        header: the first event of its run.
        space: without the optional branches that the task cannot train.
        measures_spectra: whether candidates' spectra are measured; they are wherever the task has any.
        reference: the dense model to take, if one was given and the run has none of its own yet.
    """

    header: Event
    space: Space
    measures_spectra: bool
    reference: GivenReference | None


def prepare(
    task: Task,
    strategy: Strategy,
    *,
    sparsity: float | None,
    space: Space,
    reference: Path | None,
    audit: int | None,
    folder: Path,
    seed: int,
    execution: Execution,
    threads: int,
    device: str,
    note: Note,
    overwrite: bool = False,
) -> Prepared:
    """Refuse what no search can be told; nothing is written.

    Args and Raises: those of `search`; `note` is told what is left out of the space, or not taken.
    """
    sparsity = _sparsity(task, sparsity, space)
    check_resources(task, sparsity, execution, threads, device)
    before = None if overwrite else found_state(folder)
    check_audit(strategy, audit, before)
    if strategy.proposer == "atpe" and not (before is not None and before.finished):
        require_hyperopt()
    check_space(strategy, space)
    base = dense_training(
        strategy.final_epochs, device=build_device(device), spectrum_state=strategy.spectrum_state
    )
    ranks_by_spectra = strategy.uses_signal and needs_spectra(get_signal(strategy.signal))
    measures_spectra = check_trainable(task, base, needs_spectrum=ranks_by_spectra)
    space = fitting(task, space, sparsity, base, note)
    check_space(strategy, space)
    header = header_of(task, strategy.to_json(), sparsity, seed, threads, device, space=space.to_mapping())
    header = {**header, "sparsity_weight": space.sparsity_weight}
    given = None
    if reference is not None:
        given = _given(reference, folder, before, header, note, needs_spectra=measures_spectra)
    return Prepared(header=header, space=space, measures_spectra=measures_spectra, reference=given)


def check_resources(
    task: Task, sparsity: float | None, execution: Execution, threads: int, device: str
) -> None:
    """Refuse numbers that no run can have, and devices and clusters that are not there."""
    if sparsity is not None and not 0 <= sparsity < 1:
        raise InputError(f"sparsity must lie in [0, 1), got {sparsity}; 0.67 keeps a third of the weights")
    check_whole("threads", threads, 1, example="1 gives each candidate a core")
    check_execution(task, execution, device)


def header_of(
    task: Task,
    strategy: Mapping[str, Any],
    sparsity: float | None,
    seed: int,
    threads: int,
    device: str,
    **more_identity: Any,
) -> Event:
    """A run's first event."""
    baseline = task.baseline()
    identity = {
        "format": FORMAT,
        "version": hyperprune.__version__,
        "task": task.identity(),
        "strategy": strategy,
        "sparsity": sparsity,
        "seed": seed,
        "threads": threads,
        "device": device,
        **more_identity,
    }
    return {
        "event": "run",
        "identity": plain(identity),
        "task": task.name,
        "source": task.source,
        "sparsity": sparsity,
        "seed": seed,
        "strategy": dict(strategy),
        "metric": task.metric,
        "lower_is_better": task.lower_is_better,
        "baseline": None if baseline is None else list(baseline),
        "provenance": {
            "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
            "started": time.strftime("%Y-%m-%d %H:%M:%S %z"),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}",
            "python": platform.python_version(),
            "torch": torch.__version__,
            "hyperprune": hyperprune.__version__,
        },
    }


def build_device(device: str) -> str:
    """Where a model is built to check it: on a cluster this machine may lack the GPUs that others have."""
    return device if torch.cuda.is_available() else "cpu"


def _sparsity(task: Task, sparsity: float | None, space: Space) -> float | None:
    """The run's sparsity; None where the space searches it."""
    if space.sparsity is None:
        return task.sparsity if sparsity is None else sparsity
    if sparsity is not None:
        raise InputError(
            f"the space searches the sparsity, and sparsity {sparsity} was given too; remove one of the two"
        )
    return None


def _given(
    source: Path, folder: Path, before: RunState | None, header: Event, note: Note, *, needs_spectra: bool
) -> GivenReference | None:
    """The dense model of `source`; None if the run, as it was left `before`, has epochs of one already.

    `note` is told if those are not of `source`.
    """
    if source.resolve() == folder.resolve():
        raise InputError(f"a reference must be of another run, and {source} is this run's own folder")
    origin = f"copied from {source}"
    if before is not None and before.reference.epochs:
        if before.header["provenance"].get("reference") != origin:
            note(f"the reference {source} is left out: {folder} has a dense model already")
        return None
    header["provenance"]["reference"] = origin
    return read_reference(source, header, needs_spectra=needs_spectra)
