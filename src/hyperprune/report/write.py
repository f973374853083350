"""Writing a report into a folder: each file whole or not there."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from hyperprune.errors import install
from hyperprune.files import write_atomically
from hyperprune.records import RunRecord
from hyperprune.report.markdown import to_markdown
from hyperprune.report.story import tell

_EXTRA = ("matplotlib", "jinja2")


@dataclass(frozen=True, kw_only=True)
class ReportFiles:
    """Where a report lies.

    Attributes:
        html: the one-file page; None when the extra `report` is not installed.
        pictures: the PNG files that `markdown` shows.
    """

    markdown: Path
    html: Path | None = None
    pictures: tuple[Path, ...] = ()


def write_report(run: RunRecord, folder: Path) -> ReportFiles:
    """Write `report.md`, `report.html` and `pictures/*.png`, replacing what an earlier report left.

    Args:
        run: the records, of a finished run or not.
        folder: usually the run folder; made if it is not there.

    Returns:
        The files. Without matplotlib and jinja2 it is `report.md` alone, which then says what to install.
    """
    story = tell(run)
    if missing := [name for name in _EXTRA if find_spec(name) is None]:
        remark = (
            f"Pictures and report.html were left out because {' and '.join(missing)} cannot be imported; "
            f"{install('report')}, and write the report again."
        )
        markdown = _write(folder / "report.md", to_markdown(story, (), remark=remark))
        return ReportFiles(markdown=markdown)
    from hyperprune.report.page import to_html
    from hyperprune.report.pictures import PICTURES, draw_pictures

    pictures = draw_pictures(run)
    paths = {picture.name: folder / "pictures" / f"{picture.name}.png" for picture in pictures}
    for picture in pictures:
        write_atomically(paths[picture.name], picture.png)
    markdown = _write(folder / "report.md", to_markdown(story, pictures))
    html = _write(folder / "report.html", to_html(story, pictures))
    for name in PICTURES.keys() - paths.keys():  # an older report's, of data that this run no longer has
        (folder / "pictures" / f"{name}.png").unlink(missing_ok=True)
    return ReportFiles(markdown=markdown, html=html, pictures=tuple(paths.values()))


def _write(path: Path, text: str) -> Path:
    write_atomically(path, text.encode(errors="replace"))  # a path in a command may be no UTF-8
    return path
