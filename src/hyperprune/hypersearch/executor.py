"""Where segments run: in this process, or in spawned workers. The result is the same, bit for bit.

`concurrent.futures` loses every pending task when one worker dies; this pool knows which job a dead
worker had and gives it to a fresh one. Workers watch the pipe to their parent and exit with it.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from hyperprune.errors import HyperpruneError, InputError, WorkerError
from hyperprune.processes import leave_with_parent
from hyperprune.records import EpochRecord
from hyperprune.tasks.contract import Task
from hyperprune.tasks.registry import maker_of
from hyperprune.training.segment import Advance, Training, advance

MAX_RETRIES = 2  # a job whose worker dies is tried this often again
OnEpoch = Callable[[str, EpochRecord], None]


@dataclass(frozen=True, kw_only=True)
class Job:
    """Bring the candidate `key` from `from_epoch` to `to_epoch`, in its folder."""

    key: str
    training: Training
    folder: Path
    from_epoch: int
    to_epoch: int
    best_weights_extra: dict[str, Any]


@runtime_checkable
class Executor(Protocol):
    """The contract of every executor: jobs in, (job, result) out in the order of completion.

    An error that a job raises is raised here, and so is a worker's dying again and again.
    """

    def run(self, jobs: Sequence[Job], on_epoch: OnEpoch) -> Iterator[tuple[Job, Advance]]: ...

    def close(self) -> None: ...


class InProcess:
    """Runs jobs one after the other in the caller's process."""

    def __init__(self, task: Task) -> None:
        self._task = task

    def run(self, jobs: Sequence[Job], on_epoch: OnEpoch) -> Iterator[tuple[Job, Advance]]:
        for job in jobs:
            yield job, _advance(self._task, job, lambda record, key=job.key: on_epoch(key, record))

    def close(self) -> None:
        """Nothing to release."""


class Workers:
    """Runs jobs in `num_workers` spawned processes, one at a time in each.

    Args:
        task: sent to each worker once.
        num_workers: at least 1.
    """

    def __init__(self, task: Task, num_workers: int) -> None:
        self._make_task = maker_of(task)
        self._num_workers = num_workers
        self._idle: list[_Worker] = []
        self._busy: dict[Connection, tuple[_Worker, Job]] = {}

    def run(self, jobs: Sequence[Job], on_epoch: OnEpoch) -> Iterator[tuple[Job, Advance]]:
        # The longest jobs first, so that no worker is left alone with one at the end.
        waiting = sorted(jobs, key=lambda job: (job.from_epoch - job.to_epoch, job.key))
        tries = dict.fromkeys((job.key for job in jobs), 0)
        while waiting or self._busy:
            while waiting and len(self._busy) < self._num_workers:
                worker = self._idle.pop() if self._idle else _Worker(self._make_task)
                job = waiting.pop(0)
                try:
                    worker.pipe.send(job)
                except (BrokenPipeError, ConnectionResetError):
                    waiting.insert(0, job)  # the idle worker had died; another takes the job
                    worker.stop()
                    continue
                self._busy[worker.pipe] = worker, job
            for pipe in wait(list(self._busy)):
                assert isinstance(pipe, Connection)
                worker, job = self._busy[pipe]
                try:
                    kind, content = pipe.recv()
                except (EOFError, ConnectionResetError):
                    del self._busy[pipe]
                    worker.stop()
                    tries[job.key] += 1
                    if tries[job.key] > MAX_RETRIES:
                        raise WorkerError(
                            f"the worker of {job.key} died {MAX_RETRIES + 1} times ({worker.exit_text}); too "
                            "little memory is the usual cause: use fewer --workers. The same command goes on"
                        ) from None
                    waiting.insert(0, job)
                    continue
                if kind == "epoch":
                    on_epoch(job.key, content)
                    continue
                del self._busy[pipe]
                self._idle.append(worker)
                if kind == "error":
                    raise content
                yield job, content

    def close(self) -> None:
        """End all workers; a job in flight is lost but for its last checkpoint."""
        for worker in [*self._idle, *(worker for worker, _ in self._busy.values())]:
            worker.stop()
        self._idle.clear()
        self._busy.clear()


class _Worker:
    """The parent's end of one worker process."""

    def __init__(self, make_task: Callable[[], Task]) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, there = context.Pipe()
        self._process = context.Process(target=_work, args=(there, make_task), daemon=True)
        # A child inherits the blocked signal: Ctrl-C reaches the whole group, and the parent alone decides.
        # The tracker comes first because starting it unblocks the signal.
        resource_tracker.ensure_running()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        there.close()

    def stop(self) -> None:
        self.pipe.close()
        self._process.join(timeout=0.2)  # one that waits for work sees the closed pipe and leaves
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    @property
    def exit_text(self) -> str:
        code = self._process.exitcode
        if code is not None and code < 0:
            with contextlib.suppress(ValueError):
                return f"killed by {signal.Signals(-code).name}"
        return f"exit code {code}"


def _work(pipe: Connection, make_task: Callable[[], Task]) -> None:
    """A worker's life: jobs from the pipe, one after the other, until the parent is gone."""

    def tell(kind: str, content: object) -> None:
        try:
            pipe.send((kind, content))
        except (BrokenPipeError, ConnectionResetError):
            os._exit(1)  # the parent has let go of this worker, which has nobody to work for

    leave_with_parent()
    try:
        task = make_task()
    except Exception as error:  # told when asked for work, so that it is not taken for a death
        with contextlib.suppress(EOFError, ConnectionResetError):
            pipe.recv()
            tell("error", error if isinstance(error, HyperpruneError) else _portable(error))
        return
    while True:
        try:
            job = pipe.recv()
        except (EOFError, ConnectionResetError):
            return
        try:
            result = _advance(task, job, lambda record: tell("epoch", record))
        except HyperpruneError as error:
            tell("error", error)
        except Exception as error:  # the parent raises it; a task's own bug must be seen there
            tell("error", _portable(error))
        else:
            tell("done", result)


def _advance(task: Task, job: Job, on_epoch: Callable[[EpochRecord], None]) -> Advance:
    return advance(
        task,
        job.training,
        job.folder,
        job.to_epoch,
        on_epoch=on_epoch,
        best_weights_extra=job.best_weights_extra,
    )


def _portable(error: Exception) -> WorkerError:
    """The error as text: an exception of a task's own class need not exist in the parent."""
    import traceback

    return WorkerError("a worker failed:\n" + "".join(traceback.format_exception(error)).rstrip())


def check_portable(task: Task) -> None:
    """Refuse a task that cannot be sent to worker processes."""
    try:
        pickle.dumps(maker_of(task))
    except Exception as error:
        raise InputError(
            f"with several workers a task must be picklable, and {task.name!r} is not ({error}); define it "
            "at the top of a file and pass file.py:name, or use one worker"
        ) from error


def make_executor(task: Task, num_workers: int) -> Executor:
    """In this process for one worker, else a pool."""
    return InProcess(task) if num_workers == 1 else Workers(task, num_workers)
