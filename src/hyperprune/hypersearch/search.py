"""The live search: a strategy, real training, and a run folder that remembers every step.

There is no separate path for going on after a crash. The strategy runs again from its first line; what
the journal already tells is answered from it, the rest is computed. As segments are pure functions, the
outcome is the one of an uninterrupted run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hyperprune.errors import InputError, check_whole
from hyperprune.hypersearch.audit import audit as run_audit
from hyperprune.hypersearch.dimensions import plain
from hyperprune.hypersearch.executor import Execution, Executor, make_executor
from hyperprune.hypersearch.extensions import carry_out
from hyperprune.hypersearch.live_arena import LiveArena
from hyperprune.hypersearch.observer import Observer, SilentObserver
from hyperprune.hypersearch.preparation import build_device, check_resources, header_of, prepare
from hyperprune.hypersearch.run_folder import RunFolder
from hyperprune.hypersearch.run_state import Event
from hyperprune.hypersearch.space import Configuration, Space
from hyperprune.hypersearch.spaces import get_space
from hyperprune.hypersearch.strategies import default_strategy
from hyperprune.hypersearch.strategy import Strategy
from hyperprune.records import CandidateRecord, RunRecord, epoch_rows
from hyperprune.tasks.contract import Task
from hyperprune.tasks.registry import as_found
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
            --method dense'), whose dense model is taken instead of training it again; copied once, so that
            this run goes on whatever becomes of the other.
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
    task = as_found(task)
    strategy = strategy if strategy is not None else default_strategy(task)
    observer = observer or SilentObserver()
    execution = Execution(
        executor=executor, workers=workers, ray_address=ray_address, gpus_per_candidate=gpus_per_candidate
    )
    prepared = prepare(
        task,
        strategy,
        sparsity=sparsity,
        space=space if isinstance(space, Space) else get_space(space or "paper"),
        reference=None if reference is None else Path(reference),
        audit=audit,
        folder=Path(folder),
        seed=seed,
        execution=execution,
        threads=threads,
        device=device,
        note=observer.note,
        overwrite=overwrite,
    )
    with running(task, prepared.header, Path(folder), execution, overwrite=overwrite, observer=observer) as (
        run,
        places,
    ):
        arena = LiveArena(
            task,
            prepared.space,
            run,
            places,
            measures_spectra=prepared.measures_spectra,
            observer=observer,
        )
        if prepared.reference is not None:
            arena.record(prepared.reference.copy_into(run))
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

    Arguments and errors are those of `search`; `configuration` names the method, `epochs` the length. The
    sparsity is 0 of the dense model, and the configuration's where that has one: another is an error.
    """
    check_whole("epochs", epochs, 1, example="a few show whether it learns")
    task, observer = as_found(task), observer or SilentObserver()
    pruned = configuration.pruned_to(task.sparsity if sparsity is None else sparsity)
    if sparsity is not None and sparsity != pruned:
        raise InputError(
            f"{configuration.label} is of sparsity {pruned:g}, got sparsity {sparsity:g} beside it; leave it "
            "out"
        )
    sparsity = pruned
    execution = Execution(workers=1)
    check_resources(task, sparsity, execution, threads, device)
    training = Training(
        method=configuration.build(),
        sparsity=sparsity,
        total_epochs=epochs,
        seed=0,
        name=configuration.text,
        device=build_device(device),
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
