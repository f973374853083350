"""An append-only file of JSON objects that survives kill -9 and power cuts at any byte.

Each line is the CRC-32 of the object's text in eight hexadecimal digits, a space, the text. A line counts
once it is flushed to the disk. On opening, everything from the first line that is not whole is cut off
and kept beside the journal: what it told is computed again, with the same result.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hyperprune.files import sync_folder, write_atomically


def read_journal(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The whole records at the head of a journal, and how many bytes they take. Changes nothing."""
    records, length = list[dict[str, Any]](), 0
    data = path.read_bytes() if path.exists() else b""
    for line in data.splitlines(keepends=True):
        record = _parse(line)
        if record is None:
            break
        records.append(record)
        length += len(line)
    return records, length


class Journal:
    """A journal open for appending; one process at a time (the run folder's lock sees to that).

    Attributes:
        records: what was whole when it was opened.
        num_cut_bytes: how much was cut off the end, into `<name>.damaged`.
    """

    def __init__(self, path: Path) -> None:
        self.records, length = read_journal(path)
        size = path.stat().st_size if path.exists() else 0
        self.num_cut_bytes = size - length
        if self.num_cut_bytes:
            write_atomically(path.with_name(path.name + ".damaged"), path.read_bytes()[length:])
            os.truncate(path, length)
        self._file = path.open("ab", buffering=0)  # nothing is left to write when it is closed
        self._length = length
        sync_folder(path.parent)

    def append(self, record: Mapping[str, Any]) -> None:
        """Add a record; it is on the disk when this returns.

        Raises:
            OSError: it could not be written (a full disk); the journal is as it was.
        """
        text = json.dumps(record, separators=(",", ":"), ensure_ascii=True).encode()
        line = b"%08x %s\n" % (zlib.crc32(text), text)
        try:
            left = memoryview(line)
            while left:  # a disk that fills up takes a part
                left = left[self._file.write(left) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            os.ftruncate(self._file.fileno(), self._length)
            error.filename = error.filename or self._file.name
            raise
        self._length += len(line)

    def close(self) -> None:
        self._file.close()


def _parse(line: bytes) -> dict[str, Any] | None:
    checksum, separator, text = line.removesuffix(b"\n").partition(b" ")
    if not line.endswith(b"\n") or not separator or len(checksum) != 8:
        return None
    if checksum != b"%08x" % zlib.crc32(text):
        return None
    record = json.loads(text)
    return record if isinstance(record, dict) else None
