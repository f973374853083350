"""Strings with a label, valid or not: read from CSV files, and cut into padded batches of character codes.

Axes: T time (characters), B batch.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Int64
from torch import Tensor

from hyperprune.errors import InputError

NUM_CODES = 128
"""Characters are the codes 0 to 127 of ASCII; code 0 pads."""
COLUMNS = ("string", "valid")
_POOL = 16  # batches whose strings are sorted together


class PaddedBatch(NamedTuple):
    """Strings of several lengths side by side.

    Attributes:
        codes: (T, B) character codes, the longest string's length long, 0 behind a string's end.
        lengths: (B,) characters of each string, from 1 up.
        labels: (B,) 1 for valid, 0 for not.
    """

    codes: Int64[Tensor, "T B"]
    lengths: Int64[Tensor, " B"]
    labels: Int64[Tensor, " B"]


@dataclass(frozen=True)
class LabelledStrings:
    """Strings and whether each is valid, in order.

    Attributes:
        strings: of characters with codes 0 to 127, none empty.
        valid: as many.

    Raises:
        InputError: the two differ in number, or a string is empty or holds another character.
    """

    strings: tuple[str, ...]
    valid: tuple[bool, ...]

    def __post_init__(self) -> None:
        if len(self.strings) != len(self.valid):
            raise InputError(
                f"each string must have one label, got {len(self.strings)} strings and {len(self.valid)} "
                "labels"
            )
        for number, string in enumerate(self.strings):
            if problem := _problem(string):
                raise InputError(f"string {number}: {problem}")

    def __len__(self) -> int:
        return len(self.strings)

    def part(self, start: int, stop: int) -> LabelledStrings:
        """Those from `start` up to, not including, `stop`."""
        return LabelledStrings(self.strings[start:stop], self.valid[start:stop])

    def checksum(self) -> str:
        """SHA-256 of strings and labels, in order."""
        text = "\n".join(
            f"{string} {int(valid)}" for string, valid in zip(self.strings, self.valid, strict=True)
        )
        return hashlib.sha256(text.encode()).hexdigest()


def load_strings(path: str | Path) -> LabelledStrings:
    """Read a CSV file with a header and the columns `string` and `valid` (0 or 1); others are ignored.

    The format of the data sets of Darji (2021, arXiv 2407.20601). Strings may hold any character of codes 0
    to 127.

    Raises:
        InputError: no such file, not UTF-8, a missing column, a label other than 0 or 1, an empty string,
            a character outside codes 0 to 127, a row of another width, or no row; the message names file,
            line and column.
    """
    path = Path(path)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:  # spreadsheets write a mark at its start
            return _read(path, csv.reader(file, strict=True))
    except OSError as error:
        raise InputError(f"strings must be a readable CSV file, got {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} must be UTF-8, and byte {error.start} is not; save it as UTF-8") from error


def _read(path: Path, reader: Iterator[list[str]]) -> LabelledStrings:
    lines = _numbered(path, reader)
    _, header = next(lines, (1, []))
    for name in COLUMNS:
        if name not in header:
            raise _missing_column(path, name, header)
    string_at, valid_at = (header.index(name) for name in COLUMNS)
    strings, valid = [], []
    for line, row in lines:
        if len(row) != len(header):
            raise InputError(
                f"{path}, line {line}: a row must have {len(header)} columns as the header has, got "
                f"{len(row)}"
            )
        string, label = row[string_at], row[valid_at]
        if problem := _problem(string):
            raise InputError(f"{path}, line {line}, column 'string': {problem}")
        if label not in ("0", "1"):
            raise InputError(
                f"{path}, line {line}, column 'valid': a label must be 0 or 1, got {label!r}; write 1 for a "
                "valid string"
            )
        strings.append(string)
        valid.append(label == "1")
    if not strings:
        raise InputError(f"{path} must hold at least one string, got a header alone; add rows")
    return LabelledStrings(tuple(strings), tuple(valid))


def _numbered(path: Path, reader: Iterator[list[str]]) -> Iterator[tuple[int, list[str]]]:
    """Rows with the number of the line where each ends, blank lines left out."""
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            line = reader.line_num  # pyright: ignore[reportAttributeAccessIssue]
            raise InputError(f"{path}, line {line}: a row must be CSV, and this is not: {error}") from error
        if row:
            yield reader.line_num, row  # pyright: ignore[reportAttributeAccessIssue]


def _missing_column(path: Path, name: str, header: Sequence[str]) -> InputError:
    """The error for a column that a CSV file's header lacks."""
    return InputError(
        f"{path}, line 1: the header must have a column {name!r}, got "
        f"{', '.join(map(repr, header)) or 'none'}; rename or add it"
    )


def _problem(string: str) -> str | None:
    """What is wrong with a string, if something is."""
    if not string:
        return "a string must hold at least one character, got an empty one; remove the row"
    if string.isascii():
        return None
    place, letter = next((place, letter) for place, letter in enumerate(string, start=1) if ord(letter) > 127)
    return (
        f"characters must have codes 0 to {NUM_CODES - 1}, got {letter!r} (code {ord(letter)}) as character "
        f"{place} of {string!r}; replace it"
    )


def padded_batch(strings: Sequence[str], valid: Sequence[bool]) -> PaddedBatch:
    """Strings of characters with codes 0 to 127, none empty, as one batch."""
    lengths = torch.tensor([len(string) for string in strings])
    longest = int(lengths.max())
    text = "".join(string.ljust(longest, "\0") for string in strings).encode("ascii")
    codes = torch.frombuffer(bytearray(text), dtype=torch.uint8).view(len(strings), longest)
    return PaddedBatch(codes.t().long().contiguous(), lengths, torch.tensor(valid, dtype=torch.int64))


def padded_batches(
    data: LabelledStrings,
    batch_size: int,
    *,
    generator: torch.Generator | None = None,
    by_length: bool = False,
) -> Iterator[PaddedBatch]:
    """All strings once, in batches of `batch_size`, the last one smaller where it does not divide.

    Args:
        data: at least one string.
        batch_size: B, from 1 up.
        generator: shuffles the strings; None keeps their order.
        by_length: put strings of like lengths together, so that there is little padding: of every 16
            batches' strings in a row, sorted; the batches come in random order if there is a generator.

    Raises:
        InputError: `batch_size` below 1.
    """
    if batch_size < 1:
        raise InputError(f"batch_size must be at least 1, got {batch_size}; 32 is a usual choice")
    order = list(range(len(data)))
    if generator is not None:
        order = torch.randperm(len(data), generator=generator).tolist()
    if by_length:
        pool = _POOL * batch_size
        pools = (order[start : start + pool] for start in range(0, len(order), pool))
        order = [place for strings in pools for place in sorted(strings, key=lambda i: len(data.strings[i]))]
    starts = list(range(0, len(order), batch_size))
    if by_length and generator is not None:
        starts = [starts[i] for i in torch.randperm(len(starts), generator=generator).tolist()]
    for start in starts:
        chosen = order[start : start + batch_size]
        yield padded_batch([data.strings[i] for i in chosen], [data.valid[i] for i in chosen])
