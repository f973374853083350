"""The picture of masks. matplotlib is an optional dependency and is imported only here.

Reference:
    JSE, figures 1 and 3: kept connections by gate and kind, and their map.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor, nn

from hyperprune.at_init.kept import kept_by_gate
from hyperprune.errors import InputError, install
from hyperprune.sparsity.parameters import num_gates

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_CELLS = 120  # of a map along its longer side: a dot for each weight would be smaller than a pixel


def coarse(mask: Tensor, cells: int = _CELLS, *, gates: int = 1) -> np.ndarray:
    """The density of kept weights in a grid of at most `cells` by `cells` rectangles of a matrix.

    No rectangle reaches over the border of two of the `gates` that are stacked in the rows.
    """
    num_rows, num_columns = mask.flatten(1).shape
    size = num_rows // gates
    rows = [
        part + gate * size
        for gate in range(gates)
        for part in np.array_split(np.arange(size), min(size, cells // gates))
    ]
    live = mask.flatten(1).cpu().numpy().astype(float)
    by_row = np.stack([live[part].mean(axis=0) for part in rows])
    columns = np.array_split(np.arange(num_columns), min(num_columns, cells))
    return np.stack([by_row[:, part].mean(axis=1) for part in columns], axis=1)


def figure_of(model: nn.Module, masks: Mapping[str, Tensor], *, title: str) -> Figure:
    """Left: the density of every gate of every tensor. Right: where in the matrices the weights lie.

    Raises:
        InputError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError(f"the picture needs matplotlib; {install('report')}") from error
    rows = kept_by_gate(model, masks)
    matrices = {name: mask for name, mask in masks.items() if mask.ndim >= 2}
    figure = Figure(figsize=(11, max(4.0, 0.28 * len(rows) + 1.5)), layout="constrained")
    figure.suptitle(f"{title}: kept weights")
    halves: Any = figure.subfigures(1, 2)
    left, right = halves
    bars = left.subplots()
    labels = [f"{row.tensor} {row.gate}".strip() for row in rows]
    bars.barh(labels, [row.density for row in rows], color="#0072b2")
    overall = sum(row.live for row in rows) / sum(row.total for row in rows)
    bars.axvline(overall, color="black", linewidth=1, linestyle="--", label=f"all: {overall:.3g}")
    bars.invert_yaxis()
    bars.set(xlabel="share of the weights that is kept")
    bars.legend(loc="lower right")
    if not matrices:
        return figure
    maps = np.atleast_1d(right.subplots(1, len(matrices)))
    grids = {name: coarse(mask, gates=num_gates(model, name)) for name, mask in matrices.items()}
    top = max(float(grid.max()) for grid in grids.values())
    images = []
    for axes, (name, grid) in zip(maps, grids.items(), strict=True):
        images.append(axes.imshow(grid, aspect="auto", cmap="Greys", vmin=0, vmax=top or 1))
        axes.set(xticks=[], yticks=[], xlabel="input" if "_ih" in name else "state")
        axes.set_title(name.rpartition(".")[2], fontsize=9)
    maps[0].set_ylabel("unit, gates one below the other")
    right.colorbar(images[0], ax=list(maps), label="share kept in a cell of the map", shrink=0.8)
    return figure
