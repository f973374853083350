"""docs/evidence.md: what is written by hand stays; the marked parts are made from the records.

A part stands between `<!-- part: NAME -->` and `<!-- end: NAME -->`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

from hyperprune.errors import InputError
from hyperprune.files import write_atomically

CALIBRATION = "calibration.jsonl"
METHODS = "methods.jsonl"


def write_page(path: Path, parts: Mapping[str, str]) -> None:
    """Put every part into its place; a page that does not exist begins as the package's template.

    Args:
        path: of the page.
        parts: Markdown by name.

    Raises:
        InputError: the page has no place for a part, or a place for one that is not made.
    """
    text = path.read_text() if path.exists() else template()
    places = set(places_of(text))
    if places != set(parts):
        missing, unknown = sorted(set(parts) - places), sorted(places - set(parts))
        raise InputError(
            f"{path} must have a place, '<!-- part: NAME -->' to '<!-- end: NAME -->', for each part; it "
            f"lacks {missing} and has the unknown {unknown}; move the page away to begin it anew"
        )
    for name, content in parts.items():
        begin, end = f"<!-- part: {name} -->", f"<!-- end: {name} -->"
        before, _, rest = text.partition(begin)
        _, found, after = rest.partition(end)
        if not found:
            raise InputError(f"the part {name!r} of {path} has no end; add {end}")
        text = f"{before}{begin}\n{content.strip()}\n{end}{after}"
    write_atomically(path, text.encode())


def places_of(text: str) -> list[str]:
    """The names of a page's parts, in their order."""
    return re.findall(r"<!-- part: (\S+) -->", text)


def template() -> str:
    """The page before anything was made."""
    return (files("hyperprune.experiments.evidence") / "page.md").read_text()
