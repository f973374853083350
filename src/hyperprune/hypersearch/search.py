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
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

import hyperprune
from hyperprune.errors import InputError
from hyperprune.hypersearch.arena import LiveArena, Observer, SilentObserver
from hyperprune.hypersearch.executor import Execution, Executor, check_execution, make_executor
from hyperprune.hypersearch.extensions import carry_out
from hyperprune.hypersearch.run_folder import FORMAT, RunFolder
from hyperprune.hypersearch.run_state import Event
from hyperprune.hypersearch.space import DENSE, Configuration, Space
from hyperprune.hypersearch.strategies import LSH, Strategy
from hyperprune.records import CandidateRecord, RunRecord, epoch_rows
from hyperprune.tasks.contract import Task
from hyperprune.training.segment import Training, check_trainable


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
        return self.record.candidates[0]

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
                **candidate.configuration,
            }
            for rank, candidate in enumerate(self.record.candidates, start=1)
        ]


def search(
    task: Task,
    strategy: Strategy | None = None,
    *,
    sparsity: float | None = None,
    space: Space | None = None,
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
        sparsity: share of the prunable weights to remove, in [0, 1); the task's own if None.
        space: what candidates are drawn from; the LSH paper's if None.
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
    space = space or Space()
    observer = observer or SilentObserver()
    sparsity = task.sparsity if sparsity is None else sparsity
    execution = Execution(
        executor=executor, workers=workers, ray_address=ray_address, gpus_per_candidate=gpus_per_candidate
    )
    check_resources(task, sparsity, execution, threads, device)
    check_space(strategy, space)
    one_per_allocation = {dict(point.settings)["allocation"]: point for point in space.grid()}
    needs_spectrum = strategy.uses_signal and strategy.signal != "loss"
    measures_spectra = all(
        _check_trainable(task, point, sparsity, strategy.final_epochs, device, needs_spectrum=needs_spectrum)
        for point in one_per_allocation.values()
    )
    header = header_of(task, strategy.to_json(), sparsity, seed, threads, device, space=_plain(asdict(space)))
    with running(task, header, Path(folder), execution, overwrite=overwrite, observer=observer) as (
        run,
        places,
    ):
        arena = LiveArena(task, space, run, places, measures_spectra=measures_spectra, observer=observer)
        return finish(arena, run, strategy, strategy.run(arena))


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
    measures_spectra = _check_trainable(task, configuration, sparsity, epochs, device, needs_spectrum=False)
    plan = {"name": "train", "final_epochs": epochs, **configuration.to_json()}
    header = header_of(task, _plain(plan), sparsity, seed, threads, device)
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


def check_resources(task: Task, sparsity: float, execution: Execution, threads: int, device: str) -> None:
    if not 0 <= sparsity < 1:
        raise InputError(f"sparsity must lie in [0, 1), got {sparsity}; 0.67 keeps a third of the weights")
    if threads < 1:
        raise InputError(f"threads must be at least 1, got {threads}")
    check_execution(task, execution, device)


def check_space(strategy: Strategy, space: Space, *, taken: int = 0) -> None:
    """Whether the space holds all candidates that the strategy will ever ask for, beside those `taken`."""
    wanted = taken + strategy.candidates + sum(planned.inserted for planned in strategy.plan())
    held = len(space.grid()) if strategy.proposer == "grid" else space.size()
    if wanted > held:
        where = "grid" if strategy.proposer == "grid" else "space"
        raise InputError(
            f"the {where} holds {held:.0f} configurations, and {wanted} candidates were asked for, later "
            "ones included; widen [space] or lower candidates"
        )


def _check_trainable(
    task: Task,
    configuration: Configuration,
    sparsity: float,
    epochs: int,
    device: str,
    *,
    needs_spectrum: bool,
) -> bool:
    """Refuse, before a folder is touched, what cannot be trained; whether there are spectra to measure.

    On a cluster this machine may lack the GPUs that the others have; the check is then made on its CPU.
    """
    device = device if torch.cuda.is_available() else "cpu"
    training = Training(
        method=configuration.build(),
        sparsity=0.0 if configuration == DENSE else sparsity,
        total_epochs=epochs,
        seed=0,
        name=configuration.text,
        device=device,
    )
    return check_trainable(task, training, needs_spectrum=needs_spectrum)


def header_of(
    task: Task,
    strategy: Mapping[str, Any],
    sparsity: float,
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
        "identity": _plain(identity),
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


def _plain(value: Any) -> Any:
    """As JSON gives it back: tuples become lists."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
