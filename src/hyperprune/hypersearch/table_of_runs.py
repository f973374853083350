"""Finished runs made into a table."""

from __future__ import annotations

import platform
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import hyperprune
from hyperprune.errors import InputError
from hyperprune.hypersearch.run_folder import found_state, read_state
from hyperprune.hypersearch.run_state import RunState
from hyperprune.hypersearch.space import Configuration, Space
from hyperprune.hypersearch.strategy import Strategy
from hyperprune.hypersearch.table import CandidateTable, RecordedRun
from hyperprune.records import MODEL

_SHARED = ("format", "version", "task", "sparsity", "threads", "device")  # of the runs' identities


def record_table(folders: Sequence[str | Path]) -> CandidateTable:
    """The table of finished runs whose candidates were all trained to the end, the eliminated by an audit.

    Args:
        folders: run folders of the same task, sparsity and threads, each of another seed. Failed candidates
            are left out.

    Raises:
        InputError: a run is not finished, has candidates that it did not train to the end, or differs from
            the first one.
    """
    if not folders:
        raise InputError("a table must be made from at least one run, got none; name finished run folders")
    states = [read_state(Path(folder)) for folder in folders]
    for folder, state in zip(folders, states, strict=True):
        _check_run(folder, state, states[0])
    seeds = [state.header["seed"] for state in states]
    if len(set(seeds)) < len(seeds):
        raise InputError(f"the runs of a table must have different seeds, got {seeds}; leave one out")
    header = states[0].header
    return CandidateTable(
        task=header["task"],
        metric=header["metric"],
        lower_is_better=header["lower_is_better"],
        final_epochs=header["strategy"]["final_epochs"],
        identity=_shared(states[0]),
        runs=tuple(_recorded(state) for state in states),
        provenance={
            "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
            "written": time.strftime("%Y-%m-%d %H:%M:%S %z"),
            "python": platform.python_version(),
            "numpy": np.__version__,
            "hyperprune": hyperprune.__version__,
        },
    )


def check_recordable(strategy: Strategy, space: Space, folder: Path | None) -> None:
    """Whether a search can become a table once it is done, asked before anything is trained.

    Args:
        strategy: of the search; candidates that it eliminates are audited.
        space: what its candidates are drawn from.
        folder: of its run, which it may go on with; None where a new one begins.

    Raises:
        InputError: it cannot: candidates of several sparsities or networks, or longer training there.
    """
    if space.sparsity is not None:
        raise InputError(
            "a table is of one sparsity, and the space searches it; leave sparsity out of [space], or search "
            "without a table"
        )
    if any(name.startswith(MODEL) for branch in space.branches for name, _ in branch.settings):
        raise InputError(
            "a table is of one network, and the space changes it; leave model out of its branches, or search "
            "without a table"
        )
    state = None if folder is None else found_state(folder)
    if state is not None and state.final_epochs > strategy.final_epochs and state.extensions:
        raise _extended(folder)


def _check_run(folder: str | Path, state: RunState, first: RunState) -> None:
    if state.header["strategy"]["name"] == "train":
        raise InputError(
            f"a table is made from searches, and {folder} holds a single training; search with --strategy "
            "full"
        )
    configurations = (Configuration.from_json(item.configuration) for item in state.candidates.values())
    if any(configuration.model for configuration in configurations):
        raise InputError(
            f"a table is of one network, and the candidates of {folder} change it; record a search whose "
            "space leaves model out of its branches"
        )
    if not state.finished:
        raise InputError(f"a table is made from finished runs, and {folder} is not; run its command again")
    if state.header["sparsity"] is None:
        raise InputError(
            f"a table is of one sparsity, and {folder} searched it; search a space without sparsity"
        )
    if state.final_epochs != state.header["strategy"]["final_epochs"]:
        raise _extended(folder)
    stopped = [
        key
        for key, item in state.candidates.items()
        if item.outcome == "eliminated" and state.epochs_trained(key) < state.final_epochs
    ]
    if stopped:
        raise InputError(
            f"a table is made from runs that trained every candidate to the end, and {folder} stopped "
            f"{len(stopped)} ({stopped[0]}, …); give its command again with --record, which trains them on, "
            "or search with --strategy full"
        )
    here, there = _shared(state), _shared(first)
    final = state.header["strategy"]["final_epochs"], first.header["strategy"]["final_epochs"]
    differing = [name for name in here if here[name] != there[name]]
    if final[0] != final[1]:
        differing.append("final_epochs")
    if differing:
        raise InputError(
            f"the runs of a table must differ in nothing but the seed and the candidates, and {folder} has "
            f"another {', '.join(differing)}; make a table of its own from it"
        )


def _extended(folder: str | Path | None) -> InputError:
    return InputError(
        f"a table's schedules must span its epochs, and {folder} was extended by final epochs; record a run "
        "that was not"
    )


def _shared(state: RunState) -> dict[str, Any]:
    shared = {name: state.identity[name] for name in _SHARED}
    return shared | {"spectrum_state": state.identity["strategy"]["spectrum_state"]}


def _recorded(state: RunState) -> RecordedRun:
    trained = [item for item in state.candidates.values() if item.outcome != "failed"]
    return RecordedRun(
        seed=state.header["seed"],
        configurations=tuple(Configuration.from_json(item.configuration) for item in trained),
        reference=state.reference.epochs,
        candidates=tuple(item.epochs for item in trained),
        provenance=state.header["provenance"],
    )
