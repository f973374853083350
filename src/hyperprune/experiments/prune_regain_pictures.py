"""Pictures of the prune-and-regain study. matplotlib is an optional dependency and is imported only here."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hyperprune.experiments.prune_regain_tables import CELL_NAMES, PART_NAMES, Points, published

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart with any colour vision; markers and dashes differ too.
_LOOKS = [("#0072b2", "o", "-"), ("#d55e00", "s", "--"), ("#009e73", "^", "-."), ("#b05f8f", "D", ":")]
_FAINT = "#7d838a"
CAPTIONS = {
    "prune-regain-regain": "Above, quality right after pruning; below, epochs of retraining until it is "
    "back; means over seeds. Lines of the lower row stand side by side where they would hide each other.",
    "prune-regain-exponents": "The largest Lyapunov exponent, mean over seeds, at 0 % that of the base "
    "model; no point where it is −∞.",
    "prune-regain-distance": "Each point is one pruned network; those of equal epochs stand a little apart.",
}


def save_pictures(points: Points, folder: Path) -> list[Path]:
    """Draw every picture, as PNG; needs matplotlib."""
    from matplotlib import rc_context

    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    with rc_context({"font.size": 9.5, "axes.spines.top": False, "axes.spines.right": False}):
        for name, draw in zip(CAPTIONS, (regain, exponents, distance), strict=True):
            paths.append(folder / f"{name}.png")
            draw(points).savefig(paths[-1], dpi=130)
    return paths


def _panels(points: Points, rows: int, height: float) -> tuple[Figure, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.4 * len(points.parts) + 0.6, height), layout="constrained")
    axes = figure.subplots(rows, len(points.parts), sharex=True, sharey="row", squeeze=False)
    for axis, part in zip(axes[0], points.parts, strict=True):
        axis.set_title(f"{PART_NAMES[part]} pruned", fontsize=10)
    for axis in axes[-1]:
        axis.set_xlabel("pruned (%)")
    for axis in axes.flat:
        axis.set_xticks(points.percents)
        axis.grid(color="#dcdfe3", linewidth=0.6)
        axis.set_axisbelow(True)
    return figure, axes


def _look(points: Points, cell: str) -> dict[str, Any]:
    color, marker, dashes = _LOOKS[points.cells.index(cell) % len(_LOOKS)]
    return {"color": color, "marker": marker, "linestyle": dashes, "markersize": 4.5, "linewidth": 1.4}


def _over_seeds(points: Points, cell: str, part: str, value: Any) -> list[float]:
    """Per percentage the mean of a figure over seeds, NaN where there is none."""
    means = []
    for percent in points.percents:
        values = [value(point) for point in points.select(cell=cell, part=part, percent=percent)]
        means.append(float(np.mean(values)) if values else math.nan)
    return means


def regain(points: Points) -> Figure:
    """Quality right after pruning, with the thesis's figures; and the epochs until it is back."""
    figure, axes = _panels(points, 2, 5.6)
    never = points.num_epochs + 1.5
    for column, part in enumerate(points.parts):
        for cell in points.cells:
            look, name = _look(points, cell), CELL_NAMES.get(cell, cell)
            quality = _over_seeds(points, cell, part, lambda point: point["pruned"]["test"])
            axes[0, column].plot(points.percents, quality, label=name, **look)
            quoted = published()["pruned"].get(part, {}).get(cell, {}) if points.is_thesis else {}
            axes[0, column].plot(
                [int(percent) for percent in quoted],
                list(quoted.values()),
                linestyle="none",
                marker=look["marker"],
                markersize=8,
                markerfacecolor="none",
                markeredgecolor=look["color"],
            )
            epochs = _over_seeds(points, cell, part, lambda point: _epochs(points, point, never))
            # Side by side, since most lines lie on 0 or 1.
            shift = 1.2 * (points.cells.index(cell) - (len(points.cells) - 1) / 2)
            places = [percent + shift for percent in points.percents]
            axes[1, column].plot(places, epochs, **{**look, "linewidth": 0.8})
        axes[1, column].axhline(never, color=_FAINT, linewidth=0.8, linestyle=(0, (1, 3)))
    axes[0, 0].set_ylabel(f"test {points.metric}\nright after pruning")
    axes[1, 0].set_ylabel("epochs of retraining\nto regain it")
    ticks = sorted({0, 1, points.num_epochs // 2, points.num_epochs})
    axes[1, 0].set_yticks([*ticks, never], [*map(str, ticks), "never"])
    handles, labels = axes[0, 0].get_legend_handles_labels()
    if points.is_thesis:
        from matplotlib.lines import Line2D

        handles.append(Line2D([], [], linestyle="none", marker="o", markersize=8, mfc="none", mec=_FAINT))
        labels.append("large and hollow: the thesis")
    figure.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False)
    return figure


def _epochs(points: Points, point: Any, never: float) -> float:
    epochs = points.epochs_to_regain(point)
    return never if epochs is None else epochs


def exponents(points: Points) -> Figure:
    """The largest exponent at each percentage, right after pruning and after retraining."""
    figure, axes = _panels(points, 2, 6.0)
    for column, part in enumerate(points.parts):
        for row, stage in enumerate(("pruned", "retrained")):
            axis: Axes = axes[row, column]
            axis.axhline(0, color=_FAINT, linewidth=0.8)
            for cell in points.cells:
                look = _look(points, cell)
                values = _over_seeds(
                    points, cell, part, lambda point, stage=stage: points.largest(point[stage])
                )
                finite = [value if math.isfinite(value) else math.nan for value in values]
                base = [points.largest(base) for (name, _), base in points.bases.items() if name == cell]
                axis.plot(
                    [0, *points.percents],
                    [float(np.mean(base)), *finite],
                    label=CELL_NAMES.get(cell, cell),
                    **look,
                )
    axes[0, 0].set_ylabel("largest exponent (nats/step)\nright after pruning")
    axes[1, 0].set_ylabel("largest exponent (nats/step)\nafter retraining")
    axes[0, 0].set_xticks([0, *points.percents])
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False)
    return figure


def distance(points: Points) -> Figure:
    """Epochs to regain against the distance to the base model's spectrum right after pruning."""
    from matplotlib.ticker import LogLocator

    figure, axes = _panels(points, 1, 3.6)
    never = points.num_epochs + 1.5
    for axis, part in zip(axes[0], points.parts, strict=True):
        for cell in points.cells:
            chosen = [point for point in points.points if (point["cell"], point["part"]) == (cell, part)]
            chosen = [point for point in chosen if point["pruned"]["spectrum"] is not None]
            shift = 0.12 * (points.cells.index(cell) - (len(points.cells) - 1) / 2)
            axis.plot(
                [point["pruned"]["spectrum"]["distance"] for point in chosen],
                [_epochs(points, point, never) + shift for point in chosen],
                label=CELL_NAMES.get(cell, cell),
                **{**_look(points, cell), "linestyle": "none"},
            )
        axis.axhline(never, color=_FAINT, linewidth=0.8, linestyle=(0, (1, 3)))
        axis.set_xscale("log")
        axis.set_xlabel("distance to the base spectrum\nright after pruning (nats per step)")
        axis.xaxis.set_major_locator(LogLocator(base=10, subs=(1.0, 3.0)))
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_formatter("")
    ticks = sorted({0, 1, points.num_epochs // 2, points.num_epochs})
    axes[0, 0].set_yticks([*ticks, never], [*map(str, ticks), "never"])
    axes[0, 0].set_ylabel("epochs of retraining\nto regain the quality")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False)
    return figure
