"""What an executor is, and the simplest one: jobs in, ended jobs out, in the order of completion."""

from __future__ import annotations

import contextlib
import pickle
import traceback
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hyperprune.errors import HyperpruneError, InputError, NumericsError, WorkerError
from hyperprune.hypersearch.space import DENSE
from hyperprune.records import EpochRecord
from hyperprune.tasks.contract import Task
from hyperprune.training.candidate import Training
from hyperprune.training.checks import check_buildable
from hyperprune.training.segment import Advance, advance

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


@dataclass(frozen=True)
class Lost:
    """What became of a job whose worker died every time.

    Attributes:
        reason: how it died the last time.
    """

    reason: str

    @property
    def text(self) -> str:
        return f"its worker died {MAX_RETRIES + 1} times, the last time {self.reason}"


class Executor(ABC):
    """Runs jobs, one at a time in each of its places; jobs wait until a place is free."""

    def __init__(self) -> None:
        self._waiting: deque[Job] = deque()
        self._deaths: Counter[str] = Counter()

    def submit(self, job: Job) -> None:
        """Add a job; jobs begin in the order in which they are submitted."""
        self._waiting.append(job)

    @property
    @abstractmethod
    def idle(self) -> int:
        """How many more jobs could begin at once."""

    @abstractmethod
    def wait(self, on_epoch: OnEpoch) -> tuple[Job, Advance | Lost]:
        """The next job to end, and what came of it; `on_epoch` is told of every epoch on the way.

        Raises:
            HyperpruneError, OSError: what a job raised; other errors of a worker as `WorkerError` with its
                traceback.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of everything; a job in flight is lost but for its last checkpoint."""

    def _after_death(self, job: Job, reason: str) -> Lost | None:
        """Have the job begun again next, or give it up."""
        self._deaths[job.key] += 1
        if self._deaths[job.key] <= MAX_RETRIES:
            self._waiting.appendleft(job)
            return None
        del self._deaths[job.key]
        return Lost(reason)


class InProcess(Executor):
    """Runs jobs one after the other in the caller's process."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self._task = task

    @property
    def idle(self) -> int:
        return 0 if self._waiting else 1

    def wait(self, on_epoch: OnEpoch) -> tuple[Job, Advance | Lost]:
        job = self._waiting.popleft()
        return job, run_job(self._task, job, lambda record: on_epoch(job.key, record))

    def close(self) -> None:
        self._waiting.clear()


def run_job(task: Task, job: Job, on_epoch: Callable[[EpochRecord], None]) -> Advance:
    """The segment itself, the same in every executor; a candidate that cannot be built fails alone."""
    try:
        return advance(
            task,
            job.training,
            job.folder,
            job.to_epoch,
            on_epoch=on_epoch,
            best_weights_extra=job.best_weights_extra,
        )
    except (InputError, NumericsError) as error:
        if not _only_this_cannot_be_built(task, job.training):
            raise
        return Advance(epochs=(), best_epoch=None, failure=f"it cannot be built: {error}")


def _only_this_cannot_be_built(task: Task, training: Training) -> bool:
    """Whether the fault is the candidate's.

    Raises:
        HyperpruneError: the dense model cannot be built either, so that it is the machine's, or the data's.
    """
    check_buildable(task, replace(training, method=DENSE.build(), sparsity=0.0, model=()))
    try:
        check_buildable(task, training)
    except (InputError, NumericsError):
        return True
    return False


def portable(error: Exception) -> Exception:
    """An error as another process can read it: one of a task's own class need not exist there."""
    package = type(error).__module__.partition(".")[0]
    if isinstance(error, HyperpruneError | OSError) and package in ("hyperprune", "builtins"):
        with contextlib.suppress(Exception):  # whatever it was made of that cannot be sent
            pickle.loads(pickle.dumps(error))
            return error
    return WorkerError("a worker failed:\n" + "".join(traceback.format_exception(error)).rstrip())
