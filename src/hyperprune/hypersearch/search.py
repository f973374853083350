"""The live search: a strategy, real training, and a run folder that remembers every step.

There is no separate path for going on after a crash. The strategy runs again from its first line; what
the journal already tells is answered from it, the rest is computed. As segments are pure functions, the
outcome is the one of an uninterrupted run.
"""

from __future__ import annotations

import os
import platform
import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import hyperprune
from hyperprune.errors import InputError
from hyperprune.hypersearch.audit import audit as run_audit
from hyperprune.hypersearch.audit import check_audit
from hyperprune.hypersearch.dimensions import plain
from hyperprune.hypersearch.executor import Execution, Executor, check_execution, make_executor
from hyperprune.hypersearch.extensions import carry_out
from hyperprune.hypersearch.fitting import check_space, fitting
from hyperprune.hypersearch.live_arena import LiveArena
from hyperprune.hypersearch.observer import Observer, SilentObserver
from hyperprune.hypersearch.reference import GivenReference, read_reference
from hyperprune.hypersearch.run_folder import FORMAT, RunFolder
from hyperprune.hypersearch.run_state import Event
from hyperprune.hypersearch.signals import get_signal, needs_spectra
from hyperprune.hypersearch.space import DENSE, Configuration, Space
from hyperprune.hypersearch.spaces import get_space
from hyperprune.hypersearch.strategies import LSH
from hyperprune.hypersearch.strategy import Strategy
from hyperprune.records import CandidateRecord, RunRecord, epoch_rows
from hyperprune.tasks.contract import Task
from hyperprune.training.candidate import Training
from hyperprune.training.checks import check_trainable
from hyperprune.training.segment import end


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """What a finished search hands back.

    Attributes:
        record: everything that was recorded, for reports.
        folder: the run folder.
    """

    record: RunRecord
    folder: Path

    @property
    def best(self) -> CandidateRecord:
        """The finalist with the best validation metric."""
        return self.record.candidates[0]  # of a searched sparsity: the best weighed metric

    @property
    def checkpoint(self) -> Path:
        """The winner's weights, for `hyperprune.load_model`."""
        assert self.best.checkpoint is not None
        return self.folder / self.best.checkpoint

    @property
    def epochs_spent(self) -> int:
        """Epochs trained by all candidates; the dense reference's are not among them."""
        return self.record.epochs_spent

    def epochs(self) -> list[dict[str, Any]]:
        """One row per candidate and epoch, as JSON could hold it; `pandas.DataFrame(result.epochs())`."""
        return list(epoch_rows(self.record))

    def leaderboard(self) -> list[dict[str, Any]]:
        """One row per candidate in rank order; `pandas.DataFrame(result.leaderboard())` makes a frame."""
        return [
            {
                "rank": rank,
                "key": candidate.key,
                "label": candidate.label,
                "outcome": candidate.outcome,
                "epochs": max(0, len(candidate.epochs) - 1),
                "signal": candidate.signals[max(candidate.signals)] if candidate.signals else None,
                self.record.metric: candidate.metric,
                **({} if self.record.sparsity is not None else {"weighed": self.record.score(candidate)}),
                "sparsity": self.record.sparsity_of(candidate),
                **candidate.configuration,
            }
            for rank, candidate in enumerate(self.record.candidates, start=1)
        ]


def search(
    task: Task,
    strategy: Strategy | None = None,
    *,
    sparsity: float | None = None,
    space: Space | str | None = None,
    reference: str | Path | None = None,
    audit: int | None = 0,
    folder: str | Path,
    seed: int = 0,
    workers: int | None = None,
    threads: int = 1,
    device: str = "cpu",
    executor: str = "local",
    ray_address: str | None = None,
    gpus_per_candidate: float | None = None,
    overwrite: bool = False,
    observer: Observer | None = None,
) -> SearchResult:
    """Find the pruning method that loses least at a sparsity, and train it.

    Calling it again with the same arguments and folder goes on where an interrupted run stopped, or
    returns at once if it had finished. With `workers > 1` a script needs the usual
    `if __name__ == "__main__":` guard, since workers import it.

    Args:
        task: what is pruned.
        strategy: how candidates are sifted; `LSH` with the task's `search_defaults` if None.
        sparsity: share of the prunable weights to remove, in [0, 1); the task's own if None, or the space's,
            where that searches it.
        space: what candidates are drawn from, a `Space` or a name of `spaces.SPACES`; the LSH paper's if
            None.
        reference: the run folder of another search of the same task, seed and length (or of 'hyperprune train
            --method dense'), whose dense model is taken instead of training it again.
        audit: how many eliminated candidates, drawn at random, are trained to the end after the search, to
            judge the signal; None is all of them. No part of the run's identity: a finished run can be
            audited later.
        folder: the run folder; created if missing.
        seed: of everything random.
        workers: candidates trained side by side. None is 1, in this process; on "cuda" as many as the GPUs
            hold, on Ray as many as the cluster holds.
        threads: CPU threads of each; part of the run's identity, since floating-point sums depend on it.
        device: "cpu", "cuda", "cuda:1", …
        executor: "local", in processes of this machine, or "ray". The result does not depend on it.
        ray_address: "auto" or host:port of a Ray cluster; None starts Ray on this machine.
        gpus_per_candidate: share of a GPU per candidate, in (0, 1], on "cuda"; 1 if None.
        overwrite: delete an earlier run in the folder first.
        observer: is told of every step.

    Returns:
        The result; `best` is the winner.

    Raises:
        InputError: an argument breaks a rule, or the folder holds another run. Nothing is lost.
        HyperpruneError: every candidate failed.
    """
    strategy = strategy if strategy is not None else LSH(**dict[str, Any](task.search_defaults))
    space = space if isinstance(space, Space) else get_space(space or "paper")
    observer = observer or SilentObserver()
    execution = Execution(
        executor=executor, workers=workers, ray_address=ray_address, gpus_per_candidate=gpus_per_candidate
    )
    sparsity = check_search(
        task,
        strategy,
        space,
        sparsity=sparsity,
        audit=audit,
        execution=execution,
        threads=threads,
        device=device,
    )
    base = Training(
        method=DENSE.build(),
        sparsity=0.0,
        total_epochs=strategy.final_epochs,
        seed=0,
        name=DENSE.text,
        device=_here(device),
        spectrum_state=strategy.spectrum_state,  # pyright: ignore[reportArgumentType]
    )
    ranks_by_spectra = strategy.uses_signal and needs_spectra(get_signal(strategy.signal))
    measures_spectra = check_trainable(task, base, needs_spectrum=ranks_by_spectra)
    space = fitting(task, space, sparsity, base, observer.note)
    check_space(strategy, space)
    header = header_of(
        task,
        strategy.to_json(),
        sparsity,
        seed,
        threads,
        device,
        space=space.to_mapping(),
    )
    header = {**header, "sparsity_weight": space.sparsity_weight}
    given = None
    if reference is not None:
        given = _given(Path(reference), Path(folder), header, needs_spectra=measures_spectra)
    with running(task, header, Path(folder), execution, overwrite=overwrite, observer=observer) as (
        run,
        places,
    ):
        arena = LiveArena(task, space, run, places, measures_spectra=measures_spectra, observer=observer)
        if given is not None and (event := given.copy_into(run)) is not None:
            arena.record(event)
        finish(arena, run, strategy, strategy.run(arena))
        run_audit(arena, strategy, audit)
        end_dropped(run)
        return SearchResult(record=run.state.to_record(), folder=run.path)


def train(
    task: Task,
    configuration: Configuration,
    *,
    epochs: int,
    sparsity: float | None = None,
    folder: str | Path,
    seed: int = 0,
    threads: int = 1,
    device: str = "cpu",
    overwrite: bool = False,
    observer: Observer | None = None,
) -> SearchResult:
    """Train one pruned model to the end: a run folder with a single candidate and no dense reference.

    Arguments and errors are those of `search`; `configuration` names the method, `epochs` the length.
    """
    if epochs < 1:
        raise InputError(f"epochs must be at least 1, got {epochs}")
    observer = observer or SilentObserver()
    sparsity = task.sparsity if sparsity is None else sparsity
    execution = Execution(workers=1)
    check_resources(task, sparsity, execution, threads, device)
    training = Training(
        method=configuration.build(),
        sparsity=configuration.pruned_to(sparsity),
        total_epochs=epochs,
        seed=0,
        name=configuration.text,
        device=_here(device),
        model=configuration.model,
    )
    measures_spectra = check_trainable(task, training, needs_spectrum=False)
    plan = {"name": "train", "final_epochs": epochs, **configuration.to_json()}
    header = header_of(task, plain(plan), sparsity, seed, threads, device)
    with running(task, header, Path(folder), execution, overwrite=overwrite, observer=observer) as (
        run,
        executor,
    ):
        arena = LiveArena(
            task,
            Space(),
            run,
            executor,
            measures_spectra=measures_spectra,
            with_reference=False,
            observer=observer,
        )
        keys = list(run.state.candidates) or arena.enter([configuration])
        arena.advance(keys, epochs)
        return finish(arena, run, None, keys)


def finish(
    arena: LiveArena, run: RunFolder, strategy: Strategy | None, finalists: Sequence[str]
) -> SearchResult:
    """From the strategy's finalists to the result: extensions, whole weights, the last event."""
    finalists = carry_out(arena, strategy, finalists)
    arena.mend(finalists)
    if not run.state.finished:
        arena.record({"event": "finished", "finalists": finalists})
    return SearchResult(record=run.state.to_record(), folder=run.path)


def end_dropped(run: RunFolder) -> None:
    """Free the disk of what nobody goes on from; an audit later trains a dropped one from the start."""
    for key, candidate in run.state.candidates.items():
        if candidate.outcome in ("eliminated", "failed"):
            end(run.candidate_folder(key))


@contextmanager
def running(
    task: Task, header: Event, folder: Path, execution: Execution, *, overwrite: bool, observer: Observer
) -> Iterator[tuple[RunFolder, Executor]]:
    """The run folder, begun, and an executor; both are let go whatever happens."""
    # Made before the folder, which a Ray cluster that does not answer must not leave behind; but closed
    # before the folder's lock is let go.
    identity = header["identity"]
    with ExitStack() as stack:
        executor = make_executor(task, execution, device=identity["device"], threads=identity["threads"])
        stack.callback(executor.close)
        run = stack.enter_context(RunFolder(folder, overwrite=overwrite))
        stack.callback(executor.close)
        for note in run.notes:
            observer.note(note)
        run.begin(header)
        yield run, executor


def check_search(
    task: Task,
    strategy: Strategy,
    space: Space,
    *,
    sparsity: float | None,
    audit: int | None,
    execution: Execution,
    threads: int,
    device: str,
) -> float | None:
    """Refuse what no search can be told, before anything is built; the sparsity, None if it is searched.

    Args and Raises: those of `search`.
    """
    sparsity = _sparsity(task, sparsity, space)
    check_resources(task, sparsity, execution, threads, device)
    check_audit(strategy, audit)
    check_space(strategy, space)
    return sparsity


def _sparsity(task: Task, sparsity: float | None, space: Space) -> float | None:
    """The run's sparsity; None where the space searches it."""
    if space.sparsity is None:
        return task.sparsity if sparsity is None else sparsity
    if sparsity is not None:
        raise InputError(
            f"the space searches the sparsity, and sparsity {sparsity} was given too; remove one of the two"
        )
    return None


def _given(source: Path, folder: Path, header: Event, *, needs_spectra: bool) -> GivenReference:
    if source.resolve() == folder.resolve():
        raise InputError(f"a reference must be of another run, and {source} is this run's own folder")
    header["provenance"]["reference"] = f"copied from {source}"
    return read_reference(source, header, needs_spectra=needs_spectra)


def _here(device: str) -> str:
    """Where a model is built to check it: on a cluster this machine may lack the GPUs that others have."""
    return device if torch.cuda.is_available() else "cpu"


def check_resources(
    task: Task, sparsity: float | None, execution: Execution, threads: int, device: str
) -> None:
    """Refuse numbers that no run can have, and devices and clusters that are not there."""
    if sparsity is not None and not 0 <= sparsity < 1:
        raise InputError(f"sparsity must lie in [0, 1), got {sparsity}; 0.67 keeps a third of the weights")
    if threads < 1:
        raise InputError(f"threads must be at least 1, got {threads}")
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
