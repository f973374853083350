"""Spawned worker processes on this machine.

`concurrent.futures` loses every pending task when one worker dies; this pool knows which job a dead
worker had and gives it to a fresh one. Workers watch the pipe to their parent and exit with it.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait

from hyperprune.hypersearch.executor.contract import Executor, Job, Lost, OnEpoch, portable, run_job
from hyperprune.processes import leave_with_parent
from hyperprune.tasks.contract import Task
from hyperprune.tasks.registry import maker_of
from hyperprune.training.segment import Advance

_PATIENCE = 0.2  # seconds in which a worker that waits for work sees the closed pipe and leaves
_VISIBLE = "CUDA_VISIBLE_DEVICES"


class Workers(Executor):
    """Runs jobs in spawned processes, one at a time in each.

    Args:
        task: sent to each worker once.
        gpus: one entry per worker: the GPU that it sees, by its number here; None leaves it all of them.
    """

    def __init__(self, task: Task, gpus: Sequence[int | None]) -> None:
        super().__init__()
        self._make_task = maker_of(task)
        self._free = list(reversed(gpus))
        self._idle: list[_Worker] = []
        self._busy: dict[Connection, tuple[_Worker, Job]] = {}

    @property
    def idle(self) -> int:
        return max(0, len(self._idle) + len(self._free) - len(self._waiting))

    def wait(self, on_epoch: OnEpoch) -> tuple[Job, Advance | Lost]:
        while True:
            self._begin_waiting()
            for pipe in wait(list(self._busy)):
                assert isinstance(pipe, Connection)
                worker, job = self._busy[pipe]
                try:
                    kind, content = pipe.recv()
                except (EOFError, OSError):  # killed between messages, or in the middle of one
                    del self._busy[pipe]
                    self._bury(worker)
                    if lost := self._after_death(job, worker.exit_text):
                        return job, lost
                    continue
                if kind == "epoch":
                    on_epoch(job.key, content)
                    continue
                del self._busy[pipe]
                self._idle.append(worker)
                self._deaths.pop(job.key, None)
                if kind == "error":
                    raise content
                return job, content

    def _begin_waiting(self) -> None:
        while self._waiting and (self._idle or self._free):
            worker = self._idle.pop() if self._idle else _Worker(self._make_task, self._free.pop())
            try:
                worker.pipe.send(self._waiting[0])
            except (BrokenPipeError, ConnectionResetError):
                self._bury(worker)  # it had died while it waited; another takes the job
                continue
            self._busy[worker.pipe] = worker, self._waiting.popleft()

    def _bury(self, worker: _Worker) -> None:
        _stop([worker])
        self._free.append(worker.gpu)

    def close(self) -> None:
        _stop([*self._idle, *(worker for worker, _ in self._busy.values())])
        self._idle.clear()
        self._busy.clear()
        self._waiting.clear()


class _Worker:
    """The parent's end of one worker process."""

    def __init__(self, make_task: Callable[[], Task], gpu: int | None) -> None:
        self.gpu = gpu
        context = multiprocessing.get_context("spawn")
        self.pipe, there = context.Pipe()
        self.process = context.Process(target=_work, args=(there, make_task), daemon=True)
        # A child inherits the blocked signal: Ctrl-C reaches the whole group, and the parent alone decides.
        # The tracker comes first because starting it unblocks the signal.
        resource_tracker.ensure_running()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            with _seeing(gpu):
                self.process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        there.close()

    @property
    def exit_text(self) -> str:
        code = self.process.exitcode
        if code is not None and code < 0:
            with contextlib.suppress(ValueError):
                return f"killed by {signal.Signals(-code).name}"
        return f"with exit code {code}"


@contextmanager
def _seeing(gpu: int | None) -> Iterator[None]:
    """Processes started in the block see that GPU alone, as their `cuda`."""
    if gpu is None:
        yield
        return
    before = os.environ.get(_VISIBLE)
    os.environ[_VISIBLE] = str(gpu) if before is None else before.split(",")[gpu].strip()
    try:
        yield
    finally:
        if before is None:
            del os.environ[_VISIBLE]
        else:
            os.environ[_VISIBLE] = before


def _stop(workers: Iterable[_Worker]) -> None:
    """End worker processes, together: those that do not leave by themselves are killed."""
    workers = list(workers)
    for worker in workers:
        worker.pipe.close()
    deadline = time.monotonic() + _PATIENCE
    for worker in workers:
        worker.process.join(max(0.0, deadline - time.monotonic()))
    for worker in workers:
        worker.process.kill()
    for worker in workers:
        worker.process.join()


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
            tell("error", portable(error))
        return
    while True:
        try:
            job = pipe.recv()
        except (EOFError, ConnectionResetError):
            return
        try:
            result = run_job(task, job, lambda record: tell("epoch", record))
        except Exception as error:  # the parent raises it; a task's own bug must be seen there
            tell("error", portable(error))
        else:
            tell("done", result)
