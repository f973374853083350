"""The pictures of the Jacobian paper's study. matplotlib is an optional dependency, imported only here.

Reference:
    JSE, figures 1 to 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hyperprune.errors import InputError, install
from hyperprune.experiments.cells import Record
from hyperprune.experiments.jacobian_figures import EDGES
from hyperprune.experiments.jacobian_study import MAIN, Scale
from hyperprune.experiments.jacobian_tables import NAMES, Errors

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's colours; each line also has a style of its own.
_LOOK = {
    "dense": ("#1a1c1e", "-"),
    "snip": ("#d55e00", ":"),
    "snip_gamma": ("#d55e00", "-"),
    "grasp": ("#009e73", ":"),
    "grasp_gamma": ("#009e73", "-"),
    "random": ("#7d838a", "--"),
    "jacobian": ("#0072b2", "-"),
    "iterative_magnitude": ("#cc79a7", "-."),
}


CAPTIONS = {
    "at-init-gates": "Figure 1: how much of each gate each criterion keeps, input and recurrent weights.",
    "at-init-spectrum": "Figure 2: singular values of J = ∂h'/∂h before and after training.",
    "at-init-map": "Figure 3: where the kept weights lie; from left to right a gate's units, from top to "
    "bottom what they read.",
    "at-init-loss": "Figure 4: training loss.",
}


def draw(records: Sequence[Record], scale: Scale, folder: Path) -> list[Path]:
    """Draw every figure that the records have data for, as PNG.

    Raises:
        InputError: matplotlib is not installed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, make in zip(CAPTIONS, (gates, spectrum, maps, losses), strict=True):
        if (figure := make(records, scale)) is not None:
            paths.append(folder / f"{name}.png")
            figure.savefig(paths[-1], dpi=130)
    return paths


def _figure(width: float, height: float) -> Figure:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError(f"pictures need matplotlib; {install('report')}") from error
    return Figure(figsize=(width, height), layout="constrained")


def _found(records: Sequence[Record], scale: Scale, field: str) -> dict[str, list[Record]]:
    """The records of the figures' networks that have a field, by criterion."""
    errors, found = Errors(records), {}
    for criterion, start in MAIN:
        cells = errors.cells(criterion, units=scale.figure_units, start=start, sparsity=0.95, cell="gru")
        cells = [record for record in cells if record.get(field)]
        if cells:
            found[criterion] = cells
    return found


def gates(records: Sequence[Record], scale: Scale) -> Figure | None:
    """Figure 1: the density of each gate's input and recurrent weights."""
    found = _found(records, scale, "kept")
    if not found:
        return None
    figure = _figure(9, 4.2)
    axes = figure.subplots()
    first = next(iter(found.values()))[0]["kept"]["gates"]
    labels = [("input " if "_ih" in tensor else "recurrent ") + gate for tensor, gate, _, _ in first]
    width = 0.8 / len(found)
    for number, (criterion, cells) in enumerate(found.items()):
        densities = [[live / total for _, _, live, total in record["kept"]["gates"]] for record in cells]
        color, dashes = _LOOK[criterion]
        axes.bar(
            np.arange(len(labels)) + (number - (len(found) - 1) / 2) * width,
            np.mean(densities, axis=0),
            width,
            label=NAMES[criterion],
            color=color,
            hatch="///" if dashes == ":" else None,
            edgecolor="white",
        )
    axes.axhline(0.05, color="black", linewidth=0.8, linestyle="--", label="5 %: even")
    axes.set_xticks(np.arange(len(labels)), labels)
    axes.set(ylabel="share of weights kept", title=f"GRU {scale.figure_units}, 95 % sparse: kept by gate")
    axes.legend(fontsize=8)
    return figure


def spectrum(records: Sequence[Record], scale: Scale) -> Figure | None:
    """Figure 2: the singular values of J before and after training."""
    found = _found(records, scale, "after")
    if not found:
        return None
    figure = _figure(9, 4)
    sides = figure.subplots(1, 2, sharey=True)
    middles = (np.array(EDGES[1:]) + np.array(EDGES[:-1])) / 2
    for axes, when, title in zip(
        sides, ("before", "after"), ("before training", "after training"), strict=True
    ):
        for criterion, cells in found.items():
            counts = np.sum([record[when]["singular"] for record in cells], axis=0)
            color, dashes = _LOOK[criterion]
            shares = counts / counts.sum()
            axes.step(middles, shares, where="mid", color=color, linestyle=dashes, label=NAMES[criterion])
        axes.set(xlabel="singular value of ∂h'/∂h (last bin: 1.95 and above)", title=title, yscale="log")
    sides[0].set_ylabel("share of the singular values")
    figure.legend(*sides[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8)
    return figure


def maps(records: Sequence[Record], scale: Scale) -> Figure | None:
    """Figure 3: where the kept weights lie; units of the gates from left to right, as in the paper."""
    found = {
        criterion: next(record for record in cells if record["kept"]["map"])
        for criterion, cells in _found(records, scale, "kept").items()
        if any(record["kept"]["map"] for record in cells)
    }
    if not found:
        return None
    figure = _figure(9, 1.45 * len(found) + 0.7)
    grid: Any = figure.subplots(len(found), 2, squeeze=False, gridspec_kw={"width_ratios": (1, 1)})
    figure.suptitle(f"GRU {scale.figure_units}, 95 % sparse: where the kept weights lie (gates r, z, n)")
    images = []
    for pair, (criterion, record) in zip(grid, found.items(), strict=True):
        for axes, kind, label in zip(pair, ("_ih_", "_hh_"), ("input", "state"), strict=True):
            values = next(values for name, values in record["kept"]["map"].items() if kind in name)
            shown = axes.imshow(
                np.array(values).T / 100,
                aspect="auto",
                cmap="Greys",
                vmin=0,
                vmax=0.5,
                interpolation="nearest",
            )
            images.append(shown)
            thirds = len(values) / 3
            for gate in (1, 2):
                axes.axvline(gate * thirds - 0.5, color="#0072b2", linewidth=0.8)
            axes.set(xticks=[(gate + 0.5) * thirds - 0.5 for gate in range(3)], yticks=[])
            axes.set_xticklabels(["r", "z", "n"], fontsize=7)
            axes.set_ylabel(label, fontsize=8)
        pair[0].set_title(NAMES[criterion], fontsize=9, loc="left")
    figure.colorbar(images[0], ax=grid, label="share kept (0.5 and above: black)", shrink=0.6)
    return figure


def losses(records: Sequence[Record], scale: Scale) -> Figure | None:
    """Figure 4: training loss over the epochs."""
    from matplotlib.ticker import MaxNLocator

    found = _found(records, scale, "train_loss")
    if not found:
        return None
    figure = _figure(8, 4.4)
    axes = figure.subplots()
    for criterion, cells in found.items():
        whole = [record["train_loss"] for record in cells if record["failure"] is None]
        if not whole:
            continue
        curve = np.mean(whole, axis=0)
        color, dashes = _LOOK[criterion]
        axes.plot(np.arange(1, len(curve) + 1), curve, color=color, linestyle=dashes, label=NAMES[criterion])
    axes.set(
        yscale="log",
        xlabel="epoch",
        ylabel="training loss (mean over seeds)",
        title=f"GRU {scale.figure_units}, 95 % sparse, task {scale.task}",
    )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    return figure
