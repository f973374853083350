"""The report as one HTML file, style and pictures inline. jinja2 is imported only here."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files

from hyperprune.report.story import Picture, Story


def to_html(story: Story, pictures: Sequence[Picture]) -> str:
    """Render a story; everything that comes from the run is escaped."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    folder = files("hyperprune.report")
    template = environment.from_string((folder / "page.html.jinja").read_text(encoding="utf-8"))
    style = (folder / "page.css").read_text(encoding="utf-8")
    return template.render(story=story, pictures=pictures, style=style)
