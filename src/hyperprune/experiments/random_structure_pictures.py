"""Pictures of the study of graph-wired networks. matplotlib is optional and is imported only here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hyperprune.errors import InputError, install
from hyperprune.experiments.random_structure_results import (
    CELL_NAMES,
    FAMILY_NAMES,
    Outcome,
    published_correlation,
)
from hyperprune.experiments.random_structure_tables import (
    accuracies,
    cells_of,
    correlations,
    families_of,
    of_cell,
    words_of,
)
from hyperprune.graphs import FEATURES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart with any colour vision; markers differ too.
_LOOKS = [("#d55e00", "o"), ("#0072b2", "s"), ("#009e73", "^"), ("#b05f8f", "D")]
_INK, _FAINT = "#1a1c1e", "#7d838a"
CAPTIONS = {
    "random-structure-accuracy": "Test accuracy of every network, by the family of its graph; lines are "
    "means.",
    "random-structure-correlation": "Correlation of each property with test accuracy: dots and their 95 % "
    "intervals are ours, crosses the thesis's.",
    "random-structure-nodes": "Test accuracy against the number of nodes.",
}


def save_pictures(outcomes: Sequence[Outcome], folder: Path) -> list[Path]:
    """Draw every picture, as PNG.

    Raises:
        InputError: matplotlib is missing.
    """
    try:
        from matplotlib import rc_context
    except ImportError as error:
        raise InputError(f"pictures need matplotlib; {install('report')}") from error
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    with rc_context({"font.size": 9.5, "axes.spines.top": False, "axes.spines.right": False}):
        for name, draw in zip(CAPTIONS, (accuracy, correlation, nodes), strict=True):
            paths.append(folder / f"{name}.png")
            draw(outcomes).savefig(paths[-1], dpi=130)
    return paths


def _panels(outcomes: Sequence[Outcome], height: float, width: float) -> tuple[Figure, Any]:
    from matplotlib.figure import Figure

    cells = cells_of(outcomes)
    figure = Figure(figsize=(width * len(cells) + 0.6, height), layout="constrained")
    axes = figure.subplots(1, len(cells), sharey=True, squeeze=False)[0]
    for axis, cell in zip(axes, cells, strict=True):
        axis.set_title(CELL_NAMES[cell], fontsize=10)
        axis.grid(color="#dcdfe3", linewidth=0.6)
        axis.set_axisbelow(True)
    return figure, axes


def accuracy(outcomes: Sequence[Outcome]) -> Figure:
    """Every network's test accuracy by family of its graph, with the means."""
    figure, axes = _panels(outcomes, 3.4, 3.0)
    families = families_of(outcomes)
    shift = np.random.default_rng(0)  # sideways only, so that equal accuracies do not hide each other
    for axis, cell in zip(axes, cells_of(outcomes), strict=True):
        for place, family in enumerate(families):
            values = accuracies(outcomes, cell, family)
            if not values:
                continue
            color, marker = _LOOKS[place % len(_LOOKS)]
            across = place + shift.uniform(-0.18, 0.18, len(values))
            axis.plot(across, values, marker, color=color, alpha=0.55, markersize=4, markeredgewidth=0)
            mean = float(np.mean(values))
            axis.plot([place - 0.3, place + 0.3], [mean, mean], color=_INK, linewidth=1.8)
            axis.annotate(
                f"{mean:.3f}", (place + 0.33, mean), va="center", fontsize=8.5, annotation_clip=False
            )
        axis.set_xticks(range(len(families)), [FAMILY_NAMES.get(name, name) for name in families])
        axis.set_xlim(-0.5, len(families) - 0.3)
    axes[0].set_ylabel("test accuracy")
    figure.suptitle("One mark per network; lines: means", fontsize=10)
    return figure


def correlation(outcomes: Sequence[Outcome]) -> Figure:
    """Pearson's correlation of each property with accuracy, its interval, and the thesis's."""
    figure, axes = _panels(outcomes, 6.2, 3.1)
    table = correlations(outcomes)
    rows = np.arange(len(FEATURES))[::-1]
    for axis, cell in zip(axes, cells_of(outcomes), strict=True):
        axis.axvline(0, color=_FAINT, linewidth=1)
        for row, feature in zip(rows, FEATURES, strict=True):
            found = table[feature, cell].pearson
            axis.plot([found.low, found.high], [row, row], color=_LOOKS[1][0], linewidth=1.6)
            axis.plot(found.value, row, "o", color=_LOOKS[1][0], markersize=4.5)
            quoted = published_correlation(feature, cell)
            if quoted is not None:
                axis.plot(quoted, row, "x", color=_LOOKS[0][0], markersize=6, markeredgewidth=1.6)
        axis.set_xlim(-1.05, 1.05)
        axis.set_xlabel("correlation with test accuracy")
    axes[0].set_yticks(rows, [words_of(feature) for feature in FEATURES], fontsize=8.5)
    figure.suptitle("dots: Pearson's coefficient, 95 % interval; crosses: the thesis's", fontsize=10)
    return figure


def nodes(outcomes: Sequence[Outcome]) -> Figure:
    """Test accuracy against the number of nodes."""
    figure, axes = _panels(outcomes, 3.4, 3.0)
    families = families_of(outcomes)
    for axis, cell in zip(axes, cells_of(outcomes), strict=True):
        for place, family in enumerate(families):
            own = [outcome for outcome in of_cell(outcomes, cell) if outcome.family == family]
            color, marker = _LOOKS[place % len(_LOOKS)]
            axis.plot(
                [outcome.features["nodes"] for outcome in own],
                [outcome.accuracy for outcome in own],
                marker,
                color=color,
                alpha=0.7,
                markersize=4.5,
                markeredgewidth=0,
                label=FAMILY_NAMES.get(family, family),
            )
        axis.set_xlabel("nodes of the graph")
    axes[0].set_ylabel("test accuracy")
    axes[0].legend(fontsize=8.5, frameon=False, loc="lower right")
    return figure
