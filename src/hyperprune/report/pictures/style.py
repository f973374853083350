"""How every picture looks, and how one figure becomes a PNG and an SVG that follows the page's colours.

Colours are Okabe and Ito's (distinguishable with any colour vision); they never carry meaning alone, so
emphasised lines also differ in width, dashes or markers. In the SVG each colour is a CSS variable, so the
page may lighten it on a dark background.
"""

from __future__ import annotations

import io
import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from hyperprune.records import CandidateRecord, RunRecord
from hyperprune.report import facts, words
from hyperprune.report.story import Picture

INK = "#1a1c1e"
FAINT = "#7d838a"
GRID = "#dcdfe3"
PAPER = "#ffffff"
WINNER = "#0072b2"
FINALIST = "#009e73"
WORST = "#d55e00"
FAILED = "#b05f8f"
CSS_NAMES = {
    INK: "ink",
    FAINT: "faint",
    GRID: "grid",
    PAPER: "paper",
    WINNER: "winner",
    FINALIST: "finalist",
    WORST: "worst",
    FAILED: "failed",
}

WIDTH = 7.6  # inches: at the page's width one point of type is a little more than a point on the screen
_RC: dict[Any, Any] = {
    "font.size": 10.5,
    "font.family": ["DejaVu Sans"],  # matplotlib carries it, so pictures are the same on every machine
    "axes.titlesize": 10.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "legend.labelcolor": INK,
    "text.color": INK,
    "text.parse_math": False,  # a "$" in a label is a dollar sign
    "xtick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.color": FAINT,
    "ytick.labelcolor": INK,
    "svg.fonttype": "path",
}


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """A figure with the words that belong to it.

    Attributes:
        reading: one plain sentence that says how to read the picture.
    """

    figure: Figure
    title: str
    reading: str


@dataclass(frozen=True, kw_only=True)
class Look:
    """How one model is drawn in every picture."""

    color: str
    width: float
    layer: int  # matplotlib's zorder
    dashes: str = "-"
    alpha: float = 1.0

    @property
    def emphasised(self) -> bool:
        return self.layer > 2


# The broad dense line lies under the narrower ones that come close to it, so that none hides another.
DENSE = Look(color=INK, width=3.4, layer=4)
_OTHER = Look(color=FAINT, width=1.0, layer=2, alpha=0.65)


def rc() -> mpl.RcParams:
    """The settings under which a figure must be made as well as saved."""
    return mpl.RcParams({**mpl.rcParamsDefault, **_RC})


def new_figure(height: float) -> Figure:
    """An empty figure of the report's width; `height` in inches."""
    return Figure(figsize=(WIDTH, height), layout="constrained")


def looks(run: RunRecord) -> dict[str, Look]:
    """By candidate key: first in the ranking, other finalists, last in the ranking, failed and the rest."""
    first, last = facts.leader(run), facts.worst(run)
    result = {}
    for candidate in run.candidates:
        if candidate is first:
            look = Look(color=WINNER, width=1.9, layer=5)
        elif candidate.outcome == "finalist":
            look = Look(color=FINALIST, width=1.9, layer=6, dashes="--")
        elif candidate is last:
            look = Look(color=WORST, width=1.6, layer=3)
        elif candidate.outcome == "failed":
            look = Look(color=FAILED, width=1.2, layer=2, dashes=":")
        else:
            look = _OTHER
        result[candidate.key] = look
    return result


_LEGEND_WIDTH = 46  # characters that fit into half a picture's width


def legend_names(run: RunRecord) -> dict[str, str]:
    """By candidate key, what a legend says: a name for the emphasised ones, a shared word for the others."""
    first, last = facts.leader(run), facts.worst(run)
    shared = {"eliminated": "eliminated", "failed": "failed", "running": "still running"}
    result = {}
    for candidate in run.candidates:
        if candidate is first:
            role = facts.role(run)
        elif candidate.outcome == "finalist":
            role = "finalist"
        elif candidate is last:
            role = "ranked last"
        else:
            result[candidate.key] = shared[candidate.outcome]
            continue
        result[candidate.key] = words.clip(f"{role}: {short_name(candidate)}", _LEGEND_WIDTH)
    return result


def cast(run: RunRecord) -> list[tuple[CandidateRecord, Look, str]]:
    """All networks with looks and legend names: the dense model, the emphasised candidates, the others."""
    look_of, name_of = looks(run), legend_names(run)
    candidates = sorted(run.candidates, key=lambda candidate: not look_of[candidate.key].emphasised)
    return [(run.reference, DENSE, "dense model"), *((c, look_of[c.key], name_of[c.key]) for c in candidates)]


def crossed(candidate: CandidateRecord, run: RunRecord, epochs: Sequence[int]) -> int | None:
    """Which of a line's points is crossed: the one at which its candidate was dropped or failed; None: none.

    Args:
        candidate: whose line it is.
        run: its run.
        epochs: of the line's points, in order; of an audited candidate they go on beyond the cross.
    """
    if candidate.outcome not in ("eliminated", "failed"):
        return None
    dropped_at = facts.dropped_at(candidate, run)
    return len(epochs) - 1 if dropped_at is None else max(0, bisect_right(epochs, dropped_at) - 1)


def short_name(candidate: CandidateRecord) -> str:
    """Key and label, short enough for half a picture's width."""
    return words.clip(f"{candidate.key}  {candidate.label}", _LEGEND_WIDTH)


def render(name: str, drawing: Drawing) -> Picture:
    """Save a figure twice: PNG on white, and SVG on nothing, with CSS variables for colours."""
    with mpl.rc_context({**_RC, "svg.hashsalt": f"hyperprune-{name}"}):
        png, svg = io.BytesIO(), io.StringIO()
        drawing.figure.savefig(png, format="png", dpi=150, facecolor=PAPER, metadata={"Software": None})
        none = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        drawing.figure.savefig(svg, format="svg", transparent=True, metadata=none)
    return Picture(
        name=name,
        title=drawing.title,
        reading=drawing.reading,
        png=png.getvalue(),
        svg=inline_svg(svg.getvalue()),
    )


def inline_svg(document: str) -> str:
    """An SVG document made fit for an HTML page: the element alone, sized and coloured by the page."""
    element = document[document.index("<svg") :]
    # Namespaces are implied inside HTML; the ids of groups would be repeated by the next picture.
    element = re.sub(r' xmlns(:xlink)?="[^"]*"', "", element)
    element = re.sub(r'<g id="[^"]*"', "<g", element)
    element = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", element, count=1)
    element = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", element, count=1)
    for color, variable in CSS_NAMES.items():
        element = element.replace(color, f"var(--{variable})")
    return element.strip()
