"""Segments as Ray tasks: one machine, or a cluster.

Only Ray Core is used: stateless tasks with declared CPUs and GPUs. What is lost with a node or a worker is
begun again here, by the same rule as for local workers, so Ray's own retries are off. Checkpoints lie in
the run folder where the node sees it (a shared file system); a node that does not gets the candidate's
files with the task and gives them back with the result.

Each task is a stream: every epoch's record, then the outcome.
"""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, no_type_check

from hyperprune.errors import InputError, WorkerError, install
from hyperprune.files import write_atomically
from hyperprune.folder_lock import same_folder_seen, token_of
from hyperprune.hypersearch.executor.choose import Execution
from hyperprune.hypersearch.executor.contract import Executor, Job, Lost, OnEpoch, portable, run_job
from hyperprune.tasks.contract import Task
from hyperprune.tasks.registry import maker_of
from hyperprune.training.segment import Advance

CONNECT_SECONDS = 10.0
_CHECKPOINTS = "*.pt"
# Connects as a process of its own because Ray's own attempt cannot be ended: it goes on for minutes.
_PROBE = "import sys, ray; ray.init(address=sys.argv[1], logging_level='ERROR', log_to_driver=False)"


class RayTasks(Executor):
    """Runs jobs as Ray tasks.

    Args:
        task: sent once; each Ray worker makes it once.
        execution: with `executor` "ray".
        device: "cpu" or "cuda"; on "cuda" a task takes `gpus_per_candidate` GPUs, one if that is None.
        threads: CPUs that a task takes.

    Raises:
        InputError: Ray is not installed or does not answer, or the cluster has no such GPU.
    """

    def __init__(self, task: Task, execution: Execution, *, device: str, threads: int) -> None:
        super().__init__()
        self._ray, self._is_ours = _connect(execution.ray_address)
        self._flying: dict[Any, Job] = {}
        self._folders_are_shared = True
        self._threads, self._workers = threads, execution.workers
        self._gpus = 0.0 if device == "cpu" else execution.gpus_per_candidate or 1.0
        resources = self._ray.cluster_resources()
        try:
            for name, needed in (("GPU", self._gpus), ("CPU", threads)):
                if resources.get(name, 0) < needed:
                    raise InputError(
                        f"a candidate takes {needed:g} {name}(s), and the Ray cluster has "
                        f"{resources.get(name, 0):g}; add a node, or lower threads or use --device cpu"
                    )
        except InputError:
            self.close()
            raise
        self._task_name = uuid.uuid4().hex
        self._make_task = self._ray.put(maker_of(task))
        self._segment = self._ray.remote(
            num_cpus=threads, num_gpus=self._gpus, max_retries=0, num_returns="streaming"
        )(_segment)

    @property
    def idle(self) -> int:
        return max(0, self._places() - len(self._flying) - len(self._waiting))

    def _places(self) -> int:
        """How many candidates the cluster trains at a time; nodes come and go."""
        if self._workers is not None:
            return self._workers
        resources = self._ray.cluster_resources()
        places = resources.get("CPU", 0) / self._threads
        if self._gpus:
            places = min(places, resources.get("GPU", 0) / self._gpus)
        return max(1, int(places + 1e-9))

    def wait(self, on_epoch: OnEpoch) -> tuple[Job, Advance | Lost]:
        while True:
            for _ in range(min(len(self._waiting), self._places() - len(self._flying))):
                self._begin(self._waiting.popleft())
            ready, _ = self._ray.wait(list(self._flying), num_returns=1)
            for stream in ready:
                job = self._flying[stream]
                kind, content = self._next(stream)
                if kind == "epoch":
                    on_epoch(job.key, content)
                    continue
                del self._flying[stream]
                if kind == "died":
                    if lost := self._after_death(job, content):
                        return job, lost
                    continue
                if kind == "unseen":
                    self._folders_are_shared = False
                    self._waiting.appendleft(job)
                    continue
                self._deaths.pop(job.key, None)
                if kind == "error":
                    raise content
                result, files = content
                _put_files(job.folder, files)
                return job, result

    def _begin(self, job: Job) -> None:
        files = None if self._folders_are_shared else _files(job.folder)
        run = job.folder.parents[1].resolve()
        there = replace(job, folder=job.folder.resolve())
        stream = self._segment.remote(self._task_name, self._make_task, there, run, token_of(run), files)
        self._flying[stream] = job

    def _next(self, stream: Any) -> tuple[str, Any]:
        """What a task tells next; its worker's or node's death counts as such."""
        errors = self._ray.exceptions
        try:
            return self._ray.get(next(stream))
        except (
            errors.WorkerCrashedError,
            errors.NodeDiedError,
            errors.LocalRayletDiedError,
            errors.OutOfMemoryError,
            errors.ObjectLostError,
        ) as error:
            return "died", f"by {type(error).__name__}"
        except errors.RayError as error:
            return "error", WorkerError(f"Ray could not run a segment: {error}")

    def close(self) -> None:
        for stream in self._flying:
            self._ray.cancel(stream, force=True)
        self._flying.clear()
        self._waiting.clear()
        if self._is_ours:
            self._is_ours = False
            self._ray.shutdown()


def _connect(address: str | None) -> tuple[Any, bool]:
    """Ray, connected, and whether that was done here."""
    try:
        import ray
    except ImportError as error:
        raise InputError(f"the executor 'ray' needs Ray; {install('ray')}") from error
    if ray.is_initialized():
        if address is not None:
            raise InputError(
                f"this process is connected to Ray already, got ray_address {address!r}; leave it out, or "
                "call ray.shutdown() first"
            )
        return ray, False
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    quiet: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
    if address is None:
        ray.init(address="local", include_dashboard=False, **quiet)  # not a cluster that happens to run
        return ray, True
    _check_address(address)
    ray.init(address=address, **quiet)
    return ray, True


def _check_address(address: str) -> None:
    if address.startswith("ray://"):
        raise InputError(
            f"ray_address must be 'auto' or the host:port of a cluster that this machine belongs to, got "
            f"{address}; run the command on one of its nodes"
        )
    try:
        subprocess.run(
            [sys.executable, "-c", _PROBE, address], timeout=CONNECT_SECONDS, capture_output=True, check=True
        )
    except (subprocess.TimeoutExpired, subprocess.CalledProcessError) as error:
        raise InputError(
            f"ray_address must be that of a running Ray cluster, and {address} did not answer within "
            f"{CONNECT_SECONDS:g} s; start one with 'ray start --head', or leave the address out to start "
            "Ray here"
        ) from error


_TASKS: dict[str, Task] = {}  # in a Ray worker: made once per run


@no_type_check  # a type checker's wrapper would hide from Ray that this is a generator
def _segment(
    task_name: str,
    make_task: Callable[[], Task],
    job: Job,
    run: Path,
    token: str,
    files: Mapping[str, bytes] | None,
) -> Iterator[tuple[str, Any]]:
    """A segment on a node: in the run folder, or in a folder of its own that begins with `files`."""
    if files is None and not same_folder_seen(run, token):
        yield "unseen", None
        return
    if task_name not in _TASKS:
        try:
            _TASKS[task_name] = make_task()
        except Exception as error:
            yield "error", portable(error)
            return
    if files is None:
        for kind, content in _told(_TASKS[task_name], job):
            yield kind, (content, {}) if kind == "done" else content
        return
    with tempfile.TemporaryDirectory(prefix="hyperprune-") as name:
        folder = Path(name)
        for file, data in files.items():
            (folder / file).write_bytes(data)
        for kind, content in _told(_TASKS[task_name], replace(job, folder=folder)):
            yield kind, (content, _files(folder)) if kind == "done" else content


def _told(task: Task, job: Job) -> Iterator[tuple[str, Any]]:
    """Every epoch's record as it ends, then ("done", result) or ("error", error)."""
    told: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()

    def work() -> None:
        try:
            told.put(("done", run_job(task, job, lambda record: told.put(("epoch", record)))))
        except Exception as error:
            told.put(("error", portable(error)))

    threading.Thread(target=work, daemon=True).start()
    kind = "epoch"
    while kind == "epoch":
        kind, content = told.get()
        yield kind, content


def _files(folder: Path) -> dict[str, bytes]:
    """A candidate's checkpoints, by file name."""
    return {path.name: path.read_bytes() for path in folder.glob(_CHECKPOINTS)}


def _put_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Make the folder's checkpoints those; none means that they were written in place."""
    for name, data in files.items():
        write_atomically(folder / name, data)
    if files:
        for path in folder.glob(_CHECKPOINTS):
            if path.name not in files:
                path.unlink()
