"""The pictures of a report. matplotlib is imported by this package's modules and nowhere else in `report`.

Each picture is one module with one function `draw(run) -> Drawing | None` (None: the run has no data for it)
and one row in `PICTURES`.
"""

from collections.abc import Callable

from hyperprune.records import RunRecord
from hyperprune.report.pictures import curves, metric, topology, trajectories, tree
from hyperprune.report.pictures.style import Drawing, render
from hyperprune.report.story import Picture

PICTURES: dict[str, Callable[[RunRecord], Drawing | None]] = {
    "metric": metric.draw,
    "tree": tree.draw,
    "spectra": curves.draw,
    "trajectories": trajectories.draw,
    "topology": topology.draw,
}


def draw_pictures(run: RunRecord) -> tuple[Picture, ...]:
    """Every picture that the run has data for, in the order in which a reader wants them."""
    drawings = {name: draw(run) for name, draw in PICTURES.items()}
    return tuple(render(name, drawing) for name, drawing in drawings.items() if drawing is not None)


__all__ = ["PICTURES", "draw_pictures"]
