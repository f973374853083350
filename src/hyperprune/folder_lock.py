"""One process at a time writes to a folder: a lock that goes with its process, and that others can read."""

from __future__ import annotations

import fcntl
import os
import time
import uuid
from pathlib import Path
from types import TracebackType

from hyperprune.errors import InputError

LOCK = ".hyperprune.lock"  # held (flock) by the process that writes here, with its pid and a token inside
_TRIES = 10


class FolderLock:
    """The lock of a folder, held until `close` or the end of the process, however that comes.

    Args:
        folder: an existing one.
        kind: what it is, for errors: "run folder".

    Raises:
        InputError: a live process holds it.
        OSError: the folder cannot be written to, is on a full disk, or on one without locks.
    """

    def __init__(self, folder: Path, kind: str) -> None:
        self._file = (folder / LOCK).open("a+")
        try:
            self._take(folder, kind)
        except BaseException:
            self.close()
            raise

    def _take(self, folder: Path, kind: str) -> None:
        """Take the lock and leave the pid in it; patiently, since `holder` takes it for a moment."""
        for attempt in range(_TRIES):
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if attempt == _TRIES - 1:
                    self._file.seek(0)
                    pid = self._file.readline().strip() or "unknown"
                    raise InputError(
                        f"a {kind} serves one process at a time, and {folder} is held by process {pid}; "
                        "wait for it, stop it, or choose another --out"
                    ) from None
                time.sleep(0.1)
        self._file.truncate(0)
        self._file.write(f"{os.getpid()}\n{uuid.uuid4().hex}\n")
        self._file.flush()
        os.fsync(self._file.fileno())  # other machines read the token through a shared file system

    def close(self) -> None:
        """Let go."""
        self._file.close()

    def __enter__(self) -> FolderLock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def holder(folder: Path) -> int | None:
    """The pid of the live process that writes to a folder; 0 while it starts, None if none is."""
    try:
        with (folder / LOCK).open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                pid = lock.readline().strip()
                return int(pid) if pid.isdigit() else 0
    except OSError:
        pass
    return None


def token_of(folder: Path) -> str:
    """What tells the folder of the process that holds it from every other folder; "" without a holder."""
    lines = (folder / LOCK).read_text().splitlines()
    return lines[1] if len(lines) > 1 else ""


def same_folder_seen(folder: Path, token: str) -> bool:
    """Whether `folder` is here, on this machine, the folder with that token."""
    try:
        return token != "" and token_of(folder) == token
    except OSError:
        return False
