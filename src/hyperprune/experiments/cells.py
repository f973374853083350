"""A study is a set of cells: independent pieces of work, each ending in one record.

Records are kept as one JSON object per line and written as soon as a cell is done, so a study that is
killed loses the cells in flight, and the same call goes on with the rest.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import platform
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, TypeVar

import torch

import hyperprune
from hyperprune.errors import InputError, WorkerError, writing
from hyperprune.files import write_atomically
from hyperprune.folder_lock import FolderLock
from hyperprune.processes import leave_with_parent

RECORDS = "records.jsonl"
Record = dict[str, Any]
Cell = TypeVar("Cell")


def run_cells(
    work: Callable[[Cell], Record],
    cells: Mapping[str, Cell],
    folder: Path,
    *,
    workers: int = 1,
    command: str = "",
    say: Callable[[str], None] = print,
    line: Callable[[Record], str] = lambda record: record["key"],
) -> list[Record]:
    """Run every cell that `folder` has no record of, and return all records.

    Args:
        work: makes a cell's record; a function of a module (it is sent to spawned processes). It runs with
            one thread, and must seed what it draws.
        cells: by their key, in the order in which they are begun.
        folder: gets records.jsonl; created if missing.
        workers: cells run at a time; one runs them in this process.
        command: recorded with each record, beside commit, date, machine and versions.
        say: gets `line` of each finished record.

    Returns:
        The records, in the order in which they were made; `key` and `provenance` are added.

    Raises:
        InputError: records.jsonl is broken, the folder cannot be written to, or another process works in it.
        WorkerError: a worker process died.
    """
    path = folder / RECORDS
    with _locked(folder):
        records = read_records(path)
        done = {record["key"] for record in records}
        left = {key: cell for key, cell in cells.items() if key not in done}
        commit = commit_of_source() if left else ""
        for key, content in _results(work, left, workers):
            records.append({"key": key, **content, "provenance": _provenance(command, commit)})
            write_records(path, records)
            shutil.rmtree(workspace(folder, key), ignore_errors=True)
            say(line(records[-1]))
    return records


def workspace(folder: Path, key: str) -> Path:
    """Where a cell may keep what it goes on from; removed once its record is written."""
    return folder / "unfinished" / key


def _locked(folder: Path) -> FolderLock:
    with writing(f"a study's folder must be writable, and {folder} is not", remedy="choose another --out"):
        folder.mkdir(parents=True, exist_ok=True)
        return FolderLock(folder, "study's folder")


def check_world(records: Iterable[Record], task: str, epochs: int, *, option: str = "--scale") -> None:
    """Refuse records of another task or of other epochs, which keys do not name: they would pass for these.

    Args:
        records: of the folder; those without epochs, of run times, are of any.
        task: by its own name.
        epochs: of every cell.
        option: the one that asked for them.

    Raises:
        InputError: such a record.
    """
    for record in records:
        found = record.get("task"), record.get("epochs", epochs)
        if found != (task, epochs):
            raise InputError(
                f"records must be of the scale's task {task!r} and {epochs} epochs, {record['key']} is of "
                f"{found[0]!r} and {found[1]}; name its {option}, or another --out"
            )


def in_order(records: Iterable[Record], keys: Iterable[str]) -> list[Record]:
    """The records of these keys in their order, whichever cell was done first; those not there left out.

    What is resampled or dealt into folds depends on the order of the records.
    """
    by_key = {record["key"]: record for record in records}
    return [by_key[key] for key in keys if key in by_key]


def _results(
    work: Callable[[Cell], Record], cells: Mapping[str, Cell], workers: int
) -> Iterator[tuple[str, Record]]:
    if workers == 1:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield from ((key, work(cell)) for key, cell in cells.items())
        finally:
            torch.set_num_threads(threads)
        return
    pool = ProcessPoolExecutor(
        workers, mp_context=multiprocessing.get_context("spawn"), initializer=_begin_worker
    )
    with pool:
        keys = {pool.submit(work, cell): key for key, cell in cells.items()}
        try:
            for future in as_completed(keys):
                yield keys[future], future.result()
        except BrokenProcessPool as error:
            raise WorkerError(
                "a worker of the study died; too little memory is the usual cause: use fewer --workers. "
                "The same command goes on"
            ) from error
        except BaseException:
            processes = list(pool._processes.values())  # those of the pool alone; it has no public list
            pool.shutdown(wait=False, cancel_futures=True)
            for process in processes:
                process.kill()
            raise


def _begin_worker() -> None:
    leave_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    torch.set_num_threads(1)


def _provenance(command: str, commit: str) -> Record:
    return {
        "command": command,
        "commit": commit,
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "torch": torch.__version__,
        "hyperprune": hyperprune.__version__,
    }


def commit_of_source() -> str:
    """The commit that the package's source is at, "-dirty" added where it was changed; else "unknown"."""
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            cwd=Path(hyperprune.__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return found.stdout.strip() or "unknown"


def read_records(path: Path) -> list[Record]:
    """The records of a study, in the order in which they were made; none if the file does not exist.

    Raises:
        InputError: the file is no text, or a line no JSON object.
    """
    if not path.exists():
        return []
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"records must be lines of JSON, and byte {error.start} of {path} is no text; name another file"
        ) from error
    records = list[Record]()
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            records.append(_record(line, f"{path}, line {number},"))
    return records


def _record(line: str, where: str) -> Record:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise InputError(f"{where} must hold one JSON object: {error}; remove the broken line") from error
    if not isinstance(record, dict):
        raise InputError(f"{where} must hold one JSON object, got {record!r}; remove the line")
    return record


def write_records(path: Path, records: Iterable[Record]) -> None:
    """Write all records, atomically."""
    write_atomically(path, "".join(json.dumps(record) + "\n" for record in records).encode())
