"""The report as Markdown (GitHub's tables), with pictures as files beside it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from hyperprune.report.story import Picture, Story
from hyperprune.report.table import Table


def to_markdown(story: Story, pictures: Sequence[Picture], *, remark: str | None = None) -> str:
    """Render a story; `remark` is shown on top, for what the report lacks."""
    parts = [f"# {escape(story.title)}", escape(story.subtitle), f"**{escape(story.headline)}**"]
    parts += [f"> {escape(notice)}" for notice in (*story.notices, *([remark] if remark else []))]
    for picture in pictures:
        parts += [
            f"## {escape(picture.title)}",
            f"![{escape(picture.title)}](pictures/{picture.name}.png)",
            escape(picture.reading),
        ]
    for table in (story.candidates, story.rounds, story.trust, story.making):
        parts += [] if table is None else _table(table)
    parts.append("## What the words mean")
    parts += [f"**{escape(term)}.** {escape(meaning)}" for term, meaning in story.definitions]
    return "\n\n".join(parts) + "\n"


def escape(text: str) -> str:
    """Text that Markdown shows as it is: one line, no markup, no HTML, no table borders, no links."""
    line = " ".join(text.split())
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    line = re.sub(r"([\\`*|\[\]~$])", r"\\\1", line)
    # An underscore within a word is an ordinary character; elsewhere it may open emphasis.
    return re.sub(r"(?<!\w)_|_(?!\w)", r"\_", line)


def _table(table: Table) -> list[str]:
    parts = [f"## {escape(table.title)}"]
    if table.intro:
        parts.append(escape(table.intro))
    if table.rows:
        rule = ["---:" if column in table.numeric else "---" for column in range(len(table.header))]
        lines = [[escape(cell) for cell in table.header], rule]
        lines += [[escape(cell) for cell in row] for row in table.rows]
        parts.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
    return parts
