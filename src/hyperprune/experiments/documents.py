"""Pages of the documentation with a part that is made from a study's records.

The part lies between two comments, `<!-- NAME: begin -->` and `<!-- NAME: end -->`; the rest is written by
hand.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hyperprune.errors import InputError, install
from hyperprune.experiments.cells import Record, write_records
from hyperprune.files import write_atomically


@dataclass(frozen=True, kw_only=True)
class StudyPage:
    """What a study puts into a folder of documentation: its part of a page, its records, its pictures.

    Attributes:
        page: the file's name.
        part: the name of the marked part.
        records: the file's name below records/.
        fields: some that every record of the study has, and those of other studies have not.
    """

    page: str
    part: str
    records: str
    fields: Sequence[str]

    def check(self, docs: Path) -> None:
        """Tell what would keep `write` from working, before the hours of work.

        Raises:
            InputError: matplotlib is missing, or the page or its marks are.
        """
        if not has_pictures():
            raise InputError(f"--docs needs matplotlib; {install('report')}")
        marked_part(docs / self.page, self.part)

    def write(
        self,
        docs: Path,
        records: Sequence[Record],
        tables: str,
        captions: Mapping[str, str],
        draw: Callable[[Path], Sequence[Path]],
    ) -> None:
        """Write records/ and pictures/ (`draw` gets the folder), and fill the page's part.

        Of the captions, by the picture's name, those of pictures drawn are shown.
        """
        write_records(docs / "records" / self.records, records)
        drawn = {path.stem for path in draw(docs / "pictures")}
        shown = {name: caption for name, caption in captions.items() if name in drawn}
        fill_marked_part(docs / self.page, self.part, page_text(records, shown, tables))


def has_pictures() -> bool:
    """Whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def page_text(records: Sequence[Record], captions: Mapping[str, str], tables: str) -> str:
    """A study's part of a page: how it was made, its pictures (by name, with what they show), its tables."""
    images = [f"![{text}](pictures/{name}.png)\n\n{text}" for name, text in captions.items()]
    return "\n\n".join([made_by(records), *images, tables.strip()])


def made_by(records: Sequence[Record]) -> str:
    """How records were made, in one sentence: command, commit, dates, machine, torch; all that occur."""

    def every(name: str) -> str:
        return ", ".join(sorted({record["provenance"][name] for record in records}))

    commands = " and ".join(f"`{text}`" for text in sorted({r["provenance"]["command"] for r in records}))
    return (
        f"Made by {commands}, {every('date')}, commit {every('commit')}, {every('machine')}, "
        f"torch {every('torch')}."
    )


def marked_part(page: Path, name: str) -> str:
    """What lies between the comments of that name.

    Raises:
        InputError: the page cannot be read, or lacks one of the comments.
    """
    _, part, _ = _split(page, name)
    return part.strip("\n")


def fill_marked_part(page: Path, name: str, content: str) -> None:
    """Put `content` between the comments of that name, in place of what is there.

    Raises:
        InputError: the page cannot be read, or lacks one of the comments.
    """
    before, _, after = _split(page, name)
    write_atomically(page, f"{before}\n{content}\n\n{after}".encode())


def _split(page: Path, name: str) -> tuple[str, str, str]:
    begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
    try:
        text = page.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"a page must be a readable file, got {page}: {error.strerror}") from error
    head, found_begin, rest = text.partition(begin)
    part, found_end, tail = rest.partition(end)
    if not found_begin or not found_end:
        raise InputError(f"{page} must hold the lines {begin.strip()!r} and {end!r}, in this order; add them")
    return head + begin, part, end + tail
