"""Pages of the documentation with a part that is made from a study's records.

The part lies between two comments, `<!-- NAME: begin -->` and `<!-- NAME: end -->`; the rest is written by
hand.
"""

from __future__ import annotations

from pathlib import Path

from hyperprune.errors import InputError
from hyperprune.files import write_atomically


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
