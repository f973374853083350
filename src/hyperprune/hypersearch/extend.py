"""Going on from a finished run: `hyperprune.extend`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from hyperprune.errors import InputError, unknown_name
from hyperprune.hypersearch.atpe import require_hyperopt
from hyperprune.hypersearch.executor import Execution
from hyperprune.hypersearch.extensions import extension_event, further
from hyperprune.hypersearch.fitting import check_space
from hyperprune.hypersearch.live_arena import LiveArena
from hyperprune.hypersearch.observer import Observer, SilentObserver
from hyperprune.hypersearch.preparation import build_device, check_resources, header_of
from hyperprune.hypersearch.reference import dense_training
from hyperprune.hypersearch.run_folder import RunFolder, read_state
from hyperprune.hypersearch.search import (
    SearchResult,
    end_dropped,
    finish,
    running,
)
from hyperprune.hypersearch.spaces import space_from
from hyperprune.hypersearch.strategies import STRATEGIES
from hyperprune.hypersearch.strategy import Strategy
from hyperprune.records import EpochRecord
from hyperprune.tasks.contract import Task
from hyperprune.tasks.registry import as_found, load_task
from hyperprune.training.checks import check_trainable


def extend(
    folder: str | Path,
    *,
    final_epochs: int | None = None,
    candidates: int | None = None,
    task: Task | None = None,
    workers: int | None = None,
    executor: str = "local",
    ray_address: str | None = None,
    gpus_per_candidate: float | None = None,
    observer: Observer | None = None,
) -> SearchResult:
    """Go on from a finished run: train its finalists longer, or sift more candidates.

    What either means is told in `hyperprune.hypersearch.extensions`. An interrupted extension goes on when
    `extend`, or the search itself, is called again as before. Sparsity, seed, device and threads stay the
    run's.

    Args:
        folder: of a finished run.
        final_epochs: of the finalists, more than before; with `candidates` None.
        candidates: how many more; with `final_epochs` None.
        task: the run's own; None loads it as the run did, which needs a named task or a file's.
        workers, executor, ray_address, gpus_per_candidate, observer: as for `search`.

    Raises:
        InputError: an argument breaks a rule, or the run is not finished. Nothing is lost.
    """
    folder, observer = Path(folder), observer or SilentObserver()
    state = read_state(folder)
    there, identity = state.header, state.identity
    if task is not None:
        task = as_found(task)
    elif there.get("source") is None:
        raise InputError(
            f"the task of {folder} was made by a program; call hyperprune.extend(…, task=…) from one"
        )
    else:
        task = load_task(**there["source"])
    sparsity, seed, threads, device = (identity[name] for name in ("sparsity", "seed", "threads", "device"))
    strategy = strategy_of(there["strategy"])
    space = space_from(identity.get("space", {}))
    execution = Execution(
        executor=executor, workers=workers, ray_address=ray_address, gpus_per_candidate=gpus_per_candidate
    )
    check_resources(task, sparsity, execution, threads, device)
    dense = dense_training(there["strategy"]["final_epochs"], device=build_device(device), threads=threads)
    check_trainable(task, dense, needs_spectrum=False)  # its batches may become part of its identity
    more = {"space": identity["space"]} if "space" in identity else {}
    header = header_of(task, there["strategy"], sparsity, seed, threads, device, **more)
    with running(task, header, folder, execution, overwrite=False, observer=observer) as (run, places):
        event = extension_event(run.state, strategy, final_epochs=final_epochs, candidates=candidates)
        if event is not None and strategy is not None and candidates is not None:
            if strategy.proposer == "atpe":
                require_hyperopt()
            check_space(further(strategy, candidates), space, taken=len(run.state.candidates))
        arena = LiveArena(
            task,
            space,
            run,
            places,
            measures_spectra=any(record.spectrum is not None for record in _first_records(run)),
            with_reference=strategy is not None,
            observer=observer,
        )
        if event is not None:
            arena.record(event)
        finalists = list(run.state.candidates) if strategy is None else strategy.run(arena)
        result = finish(arena, run, strategy, finalists)
        end_dropped(run)
        return result


def strategy_of(values: Mapping[str, Any]) -> Strategy | None:
    """The strategy that a header tells of; None if one model was trained.

    Raises:
        InputError: one of a user's own, which is not in `STRATEGIES`; the task's file may put it there.
    """
    if values["name"] == "train":
        return None
    kind = STRATEGIES.get(values["name"])
    if kind is None:
        raise unknown_name("strategy", values["name"], STRATEGIES)
    return kind(**{field.name: values[field.name] for field in fields(kind) if field.init})


def _first_records(run: RunFolder) -> Iterator[EpochRecord]:
    """Every candidate's record before training."""
    return (candidate.epochs[0] for candidate in run.state.candidates.values() if candidate.epochs)
