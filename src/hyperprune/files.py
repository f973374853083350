"""Files that are whole or not there: written aside, flushed, renamed into place."""

from __future__ import annotations

import os
import tempfile
from contextlib import AbstractContextManager
from pathlib import Path

from hyperprune.errors import writing

_ASIDE = ".partial-"


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` to `path` so that a reader, or a crash at any time, sees the old file or the new one.

    What a link points to is written, and a device or a pipe is written to.
    """
    if path.exists() and not path.is_file():
        path.write_bytes(data)
        return
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}{_ASIDE}")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)  # mkstemp's 0600 would hide the file from the owner's group
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def writing_output(path: Path, option: str) -> AbstractContextManager[None]:
    """In the block the file is written that an option names; `errors.writing` tells what is raised."""
    return writing(f"{option} must be a file that can be written, and {path} is not", remedy="choose another")


def remove_leftovers(folder: Path) -> None:
    """Delete what a killed `write_atomically` left in a folder; no other process may be writing there."""
    for path in folder.glob(f".*{_ASIDE}*"):
        path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make the names of a folder's new files survive a power cut, not only their content."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
