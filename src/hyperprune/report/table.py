"""A table of text, which Markdown and HTML lay out alike."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Table:
    """A titled table of text.

    Attributes:
        numeric: indices of the columns that are set flush right.
        marks: the class of each row ("winner", "finalist", "eliminated", "failed", …), for emphasis.
    """

    title: str
    intro: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: tuple[int, ...] = ()
    marks: tuple[str, ...] = ()
