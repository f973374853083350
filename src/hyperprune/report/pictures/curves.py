"""Lyapunov spectra of the dense, the first and the last candidate as curves over the exponent's index.

Axis letters: S exponents.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes

from hyperprune.records import CandidateRecord, RunRecord
from hyperprune.report import facts, words
from hyperprune.report.pictures import style
from hyperprune.spectra import FLOOR

_MOST_LAYERS = 10  # more jumps than this are noise in the order, not borders between layers
_FEW = 40  # up to so many exponents each one is marked, so that one between two gaps is seen too


def draw(run: RunRecord) -> style.Drawing | None:
    """The three curves at the last epoch at which all of them were measured, epoch 0 faintly behind."""
    shown = _shown(run)
    if not shown:
        return None
    measured = [spectra_by_epoch(candidate) for candidate, _, _ in shown]
    common = set.intersection(*(set(spectra) for spectra in measured))
    if not common or len({s.size for spectra in measured for s in spectra.values()}) != 1:
        return None
    epoch = max(common)
    with style.mpl.rc_context(style.rc()):
        figure = style.new_figure(4.7)
        axes = figure.subplots()
        lost = 0
        borders = layer_borders(measured[0][epoch])
        for (_, role, look), spectra in zip(shown, measured, strict=True):
            lost += _plot(axes, spectra[epoch], look, role, borders)
            if epoch > 0 and 0 in spectra:
                values_S = _drawable(spectra[0], borders)
                axes.plot(
                    _index(values_S, borders),
                    values_S,
                    ":",
                    color=look.color,
                    linewidth=1.1,
                    alpha=0.75,
                    zorder=look.layer - 1,
                )
        if epoch > 0:
            axes.plot(
                [],
                [],
                ":",
                color=style.FAINT,
                linewidth=1.1,
                label="dotted: the same networks before training",
            )
        _mark_layers(axes, borders, measured[0][epoch].size)
        axes.set_xlabel("exponent, largest first" + (" within each layer" if borders else ""))
        axes.set_ylabel("nats per time step")
        axes.grid(axis="y")
        axes.margins(x=0.02)
        figure.legend(loc="outside lower left", ncols=1)
    who = (
        "the dense model and the candidates ranked first and last"
        if len(shown) == 3
        else "the networks named below it"
    )
    reading = (
        f"Each curve lists the Lyapunov exponents of one network after epoch {epoch} ({who}): the closer a "
        "candidate's curve runs to the dense model's, the more alike the two carry information through time."
        if run.is_search
        else f"The network's Lyapunov exponents after epoch {epoch}, largest first."
    )
    if lost:
        reading += (
            f" {words.plural(lost, 'exponent')} below {FLOOR:g} (−∞ included) left out; triangles mark where."
        )
    return style.Drawing(figure=figure, title=f"Lyapunov spectra after epoch {epoch}", reading=reading)


def spectra_by_epoch(candidate: CandidateRecord) -> dict[int, np.ndarray]:
    """The usable spectra of a candidate: measured, not empty, and free of NaN and +∞."""
    found = {record.epoch: record.spectrum for record in candidate.epochs if record.spectrum is not None}
    return {
        epoch: values_S
        for epoch, values_S in found.items()
        if values_S.size and not (np.isnan(values_S) | np.isposinf(values_S)).any()
    }


def layer_borders(spectrum_S: np.ndarray) -> list[int]:
    """Where the order, largest first, starts again: the index of every further layer's first exponent."""
    values_S = np.maximum(spectrum_S, FLOOR)
    rises = (np.flatnonzero(np.diff(values_S) > 1e-9) + 1).tolist()
    return rises if len(rises) < _MOST_LAYERS else []


def _shown(run: RunRecord) -> list[tuple[CandidateRecord, str, style.Look]]:
    looks, names = style.looks(run), style.legend_names(run)
    picked = [(run.reference, "dense model", style.DENSE)]
    ends = [candidate for candidate in (facts.leader(run), facts.worst(run)) if candidate is not None]
    picked += [(candidate, names[candidate.key], looks[candidate.key]) for candidate in ends]
    return [entry for entry in picked if spectra_by_epoch(entry[0])]


def _drawable(values_S: np.ndarray, borders: list[int]) -> np.ndarray:
    """What a line can show: nothing below the floor, and a gap at every border between layers."""
    return np.insert(np.where(values_S < FLOOR, np.nan, values_S), borders, np.nan)


def _index(drawable: np.ndarray, borders: list[int]) -> np.ndarray:
    return np.insert(np.arange(1.0, drawable.size - len(borders) + 1), borders, np.nan)


def _plot(axes: Axes, values_S: np.ndarray, look: style.Look, label: str, borders: list[int]) -> int:
    index_S = np.arange(1, values_S.size + 1)
    below_S = values_S < FLOOR
    line = _drawable(values_S, borders)
    axes.plot(
        _index(line, borders),
        line,
        linestyle=look.dashes,
        color=look.color,
        linewidth=look.width,
        marker="." if values_S.size <= _FEW else None,
        zorder=look.layer,
        label=label,
    )
    if below_S.any():
        # In the axes' own height, so that one vanished direction does not flatten all the curves.
        axes.plot(
            index_S[below_S],
            np.full(int(below_S.sum()), 0.015),
            "v",
            color=look.color,
            markersize=4,
            zorder=look.layer,
            transform=axes.get_xaxis_transform(),
        )
    return int(below_S.sum())


def _mark_layers(axes: Axes, borders: list[int], size: int) -> None:
    if not borders:
        return
    edges = [0, *borders, size]
    for border in borders:
        axes.axvline(border + 0.5, color=style.FAINT, linewidth=1, dashes=(4, 3))
    for layer, (start, end) in enumerate(pairwise(edges), start=1):
        axes.annotate(
            f"layer {layer}",
            ((start + end + 1) / 2, 1.01),
            xycoords=("data", "axes fraction"),
            ha="center",
            va="bottom",
            fontsize=9.5,
        )
