"""Which executor a run gets, and whether this machine or cluster has what it asks for."""

from __future__ import annotations

import math
import pickle
from dataclasses import dataclass

import torch

from hyperprune.errors import InputError, check_whole, unknown_name
from hyperprune.hypersearch.executor.contract import Executor, InProcess
from hyperprune.hypersearch.executor.local import Workers
from hyperprune.tasks.contract import Task
from hyperprune.tasks.registry import maker_of

EXECUTORS = ("local", "ray")


@dataclass(frozen=True, kw_only=True)
class Execution:
    """How segments are run. No part of a run's identity: the result is the same.

    Attributes:
        executor: "local" (this process, or spawned ones) or "ray".
        workers: candidates trained at a time, at least 1. None is one; on GPUs as many as they hold; on Ray
            as many as the cluster holds.
        ray_address: "auto" for the cluster of this machine, or host:port; None starts Ray here.
        gpus_per_candidate: the share of a GPU that each candidate takes, in (0, 1], with a CUDA device.
    """

    executor: str = "local"
    workers: int | None = None
    ray_address: str | None = None
    gpus_per_candidate: float | None = None

    def __post_init__(self) -> None:
        if self.executor not in EXECUTORS:
            raise unknown_name("executor", self.executor, EXECUTORS)
        if self.workers is not None:
            check_whole("workers", self.workers, 1, example="1 trains in this process")
        if self.ray_address is not None and self.executor != "ray":
            raise InputError(
                f"ray_address is for the executor 'ray', got it with {self.executor!r}; add --executor ray "
                "or leave it out"
            )
        share = self.gpus_per_candidate
        if share is not None and not 0 < share <= 1:
            raise InputError(
                f"gpus_per_candidate must lie in (0, 1], got {share}; with 0.25 four candidates share a GPU"
            )

    @property
    def per_gpu(self) -> int:
        """Candidates on one GPU."""
        return math.floor(1 / (self.gpus_per_candidate or 1) + 1e-9)


def check_device(device: str) -> None:
    """Refuse what is no device, or none of this machine.

    Raises:
        InputError: another name than "cpu", "cuda" or "cuda:N", or no such GPU.
    """
    _check_present(_place(device))


def _place(device: str) -> torch.device:
    try:
        place = torch.device(device)
    except RuntimeError as error:
        raise InputError(f"device must be 'cpu' or 'cuda' (or 'cuda:N'), got {device!r}") from error
    if place.type not in ("cpu", "cuda"):
        raise InputError(f"device must be 'cpu' or 'cuda' (or 'cuda:N'), got {device!r}")
    return place


def _check_present(place: torch.device) -> None:
    if place.type == "cuda" and (place.index or 0) >= torch.cuda.device_count():
        raise InputError(
            f"device {str(place)!r} needs a CUDA GPU and {torch.cuda.device_count() or 'none'} is available; "
            "use --device cpu"
        )


def check_execution(task: Task, execution: Execution, device: str) -> None:
    """Refuse what cannot run, as far as it can be told without starting anything.

    Raises:
        InputError: no such device, a share of a GPU without one, a task that cannot be sent to processes.
    """
    place = _place(device)
    if execution.gpus_per_candidate is not None and place.type != "cuda":
        raise InputError(
            f"gpus_per_candidate needs a GPU, and the device is {device!r}; add --device cuda or leave it out"
        )
    if execution.executor == "ray":
        if place.index is not None:
            raise InputError(f"on Ray the device is 'cpu' or 'cuda', got {device!r}; Ray chooses the GPU")
    else:
        _check_present(place)
    if execution.executor == "ray" or len(_places(execution, device)) > 1:
        try:
            pickle.dumps(maker_of(task))
        except InputError:  # of the task's own, whose data are not there perhaps
            raise
        except Exception as error:
            raise InputError(
                f"with several workers a task must be picklable, and {task.name!r} is not ({error}); define "
                "it at the top of a file and pass file.py:name, or use one worker"
            ) from error


def make_executor(task: Task, execution: Execution, *, device: str, threads: int) -> Executor:
    """The executor for a run whose segments take `threads` CPU threads each.

    Raises:
        InputError: Ray is not installed, does not answer, or has no such GPU.
    """
    if execution.executor == "ray":
        from hyperprune.hypersearch.executor.ray_tasks import RayTasks

        return RayTasks(task, execution, device=device, threads=threads)
    places = _places(execution, device)
    return InProcess(task) if len(places) == 1 else Workers(task, places)


def num_places(execution: Execution, device: str) -> int | None:
    """How many candidates are trained at a time; None on Ray, where the cluster decides."""
    return execution.workers if execution.executor == "ray" else len(_places(execution, device))


def _places(execution: Execution, device: str) -> list[int | None]:
    """One entry per worker of this machine: the GPU it is bound to; None where there is nothing to choose."""
    place = torch.device(device)
    if place.type != "cuda":
        return [None] * (execution.workers or 1)
    num_gpus = torch.cuda.device_count() if place.index is None else 1
    room = num_gpus * execution.per_gpu
    workers = execution.workers or room
    if execution.gpus_per_candidate is not None and workers > room:
        raise InputError(
            f"with gpus_per_candidate {execution.gpus_per_candidate:g} at most {room} workers fit on "
            f"{num_gpus} GPU(s), got {workers}; lower either"
        )
    return [None if num_gpus == 1 else number % num_gpus for number in range(workers)]
