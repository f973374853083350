"""Searches on a simulated clock: the real strategies, arena, journal and order of work, without training.

`Simulated` is an executor like any other, but that a segment takes no time: its seconds move a clock.
"""

import heapq
import itertools
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hyperprune.hypersearch.executor import Executor, Job
from hyperprune.hypersearch.executor.contract import OnEpoch
from hyperprune.hypersearch.live_arena import LiveArena
from hyperprune.hypersearch.observer import SilentObserver
from hyperprune.hypersearch.run_folder import FORMAT, RunFolder
from hyperprune.hypersearch.space import Space
from hyperprune.hypersearch.strategy import Ahead, Strategy
from hyperprune.records import EpochRecord
from hyperprune.rng import derive_seed
from hyperprune.tasks.contract import Task
from hyperprune.training.segment import Advance


class Simulated(Executor):
    """`places` workers on a clock that only moves when one waits for them.

    Args:
        places: how many segments run at a time.
        seconds: how long a job takes.

    Attributes:
        now: seconds since the start.
        busy: seconds of all workers' work.
    """

    def __init__(self, places: int, seconds: Callable[[Job], float]) -> None:
        super().__init__()
        self._places, self._seconds = places, seconds
        self._running: list[tuple[float, int, Job]] = []
        self._count = itertools.count()
        self.now = self.busy = 0.0

    @property
    def idle(self) -> int:
        return max(0, self._places - len(self._running) - len(self._waiting))

    def wait(self, on_epoch: OnEpoch) -> tuple[Job, Advance]:
        while self._waiting and len(self._running) < self._places:
            job = self._waiting.popleft()
            seconds = self._seconds(job)
            self.busy += seconds
            heapq.heappush(self._running, (self.now + seconds, next(self._count), job))
        self.now, _, job = heapq.heappop(self._running)
        return job, made_up(job)

    def close(self) -> None:
        self._waiting.clear()


def made_up(job: Job) -> Advance:
    """What a candidate might record: a loss of its own that falls, with noise."""
    draws = np.random.default_rng(derive_seed(0, job.training.name))
    last, noise = draws.uniform(4, 5), draws.normal(scale=0.1, size=job.to_epoch + 1)
    records = tuple(
        EpochRecord(
            epoch=epoch,
            train_loss=loss if epoch else None,
            valid_loss=loss,
            metric=loss,
            seconds=1.0,
        )
        for epoch in range(job.to_epoch + 1)
        if (loss := float(last + 3 / (1 + epoch) + noise[epoch])) is not None
    )
    best = min(records[1:], key=lambda record: record.metric).epoch if job.to_epoch else None
    return Advance(epochs=records, best_epoch=best, failure=None)


@dataclass(frozen=True, kw_only=True)
class SegmentTimes:
    """Seconds of recorded segments.

    Attributes:
        fresh, resumed: of segments from the first epoch and from a checkpoint, all but their epochs: building
            the network, reading the checkpoint, what is measured before training.
        epochs: of each recorded candidate, one after the other: training, evaluation, spectrum, checkpoint.
    """

    fresh: Sequence[float]
    resumed: Sequence[float]
    epochs: Sequence[Sequence[float]]

    def of(self, job: Job) -> float:
        """A candidate takes the times of one recorded candidate, from its first epoch again and again."""
        draw = derive_seed(0, job.training.name)
        own = self.epochs[draw % len(self.epochs)]
        trained = sum(own[epoch % len(own)] for epoch in range(job.from_epoch, job.to_epoch))
        rest = self.resumed if job.from_epoch else self.fresh
        return rest[draw % len(rest)] + trained


class _Barriers(LiveArena):
    """The same arena, in which nothing begins before everything of the round has ended."""

    def advance(self, keys: Sequence[str], to_epoch: int, *, ahead: Ahead | None = None) -> list[str]:
        return super().advance(keys, to_epoch)


def simulate(
    task: Task, strategy: Strategy, *, places: int, seconds: Callable[[Job], float], barriers: bool
) -> dict[str, float]:
    """A whole search with so many workers.

    Returns:
        The simulated seconds of the search, of all work, and their quotient per worker, the efficiency.
    """
    executor = Simulated(places, seconds)
    kind = _Barriers if barriers else LiveArena
    with tempfile.TemporaryDirectory() as folder, RunFolder(Path(folder)) as run:
        run.begin(header_of(task, strategy))
        arena = kind(task, Space(), run, executor, measures_spectra=False, observer=SilentObserver())
        strategy.run(arena)
    return {
        "seconds": executor.now,
        "work": executor.busy,
        "efficiency": executor.busy / (places * executor.now),
    }


def header_of(task: Task, strategy: Strategy) -> Mapping[str, Any]:
    """The first event of a run whose arena is driven here."""
    return {
        "event": "run",
        "identity": {"format": FORMAT, "device": "cpu", "threads": 1},
        "task": task.name,
        "sparsity": task.sparsity,
        "seed": 0,
        "strategy": strategy.to_json(),
        "metric": task.metric,
        "lower_is_better": True,
        "baseline": None,
        "provenance": {},
    }
