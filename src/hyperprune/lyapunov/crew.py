"""Independent work on one core each."""

from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import TypeVar

import torch

_Result = TypeVar("_Result")


class Crew:
    """As many threads as torch may use, each of which works with one core, while the context lasts.

    Chains side by side on one core each are faster than one after the other on several cores, and a
    layer's step on a handful of samples is too small to be shared out at all; so torch's own number of
    threads is one within the context, and restored after it. With one thread, or off the CPU, work is done
    when it is handed over.

    Args:
        device: of the work.
        shares: whether the pieces of work are worth a thread; small ones only wait for Python's lock.
    """

    def __init__(self, device: torch.device, *, shares: bool = True) -> None:
        self._is_parallel = device.type == "cpu" and torch.get_num_threads() > 1
        self._shares = shares
        self._num_threads = torch.get_num_threads()
        self._pool: ThreadPoolExecutor | None = None

    def __enter__(self) -> "Crew":
        if self._is_parallel:
            torch.set_num_threads(1)
        if self._is_parallel and self._shares:
            # A new thread starts with torch's default number of threads, so each has to be told.
            self._pool = ThreadPoolExecutor(
                self._num_threads, initializer=torch.set_num_threads, initargs=(1,)
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        if self._is_parallel:
            torch.set_num_threads(self._num_threads)

    def start(self, tasks: Iterable[Callable[[], _Result]]) -> list[Future[_Result]]:
        """Begin all tasks; results come from `result()`, in the same order."""
        if self._pool is not None:
            return [self._pool.submit(task) for task in tasks]
        futures = []
        for task in tasks:
            future: Future[_Result] = Future()
            future.set_result(task())
            futures.append(future)
        return futures

    def run(self, tasks: Iterable[Callable[[], _Result]]) -> list[_Result]:
        """Do all tasks."""
        return [future.result() for future in self.start(tasks)]
