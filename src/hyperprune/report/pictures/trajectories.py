"""The paths of all networks through LS space: one joint PCA of every measured spectrum."""

from __future__ import annotations

import numpy as np

from hyperprune.records import RunRecord, networks_vary
from hyperprune.report.pictures import style
from hyperprune.report.pictures.curves import spectra_by_epoch
from hyperprune.spectra import compared_vector, pca_trajectories, resized


def draw(run: RunRecord) -> style.Drawing | None:
    """One path per network: hollow at its start, crossed where it was dropped, filled at its end."""
    if not run.is_search:  # one network's path is near to nothing and far from nothing
        return None
    models = style.cast(run)
    measured = [spectra_by_epoch(model) for model, _, _ in models]
    size = next((spectrum.size for spectra in measured for spectrum in spectra.values()), 0)
    if networks_vary(run.candidates):  # exponents of other layers are not compared one by one
        measured = [
            {epoch: resized(spectrum, size) for epoch, spectrum in spectra.items()} for spectra in measured
        ]
    usable = [
        (entry, spectra)
        for entry, spectra in zip(models, measured, strict=True)
        if {s.size for s in spectra.values()} == {size}
    ]
    paths = [list(spectra.values()) for _, spectra in usable]
    if sum(map(len, paths)) < 3:  # two points always lie on one line and say nothing
        return None
    points = pca_trajectories(paths)
    if np.ptp(np.concatenate(points), axis=0).max() < 1e-9:  # round-off: all spectra are the same
        return None
    shares = _shares(paths, points)
    with style.mpl.rc_context(style.rc()):
        figure = style.new_figure(_height(points))
        axes = figure.subplots()
        named = set()
        for ((model, look, name), spectra), point_ED in zip(usable, points, strict=True):
            axes.plot(
                point_ED[:, 0],
                point_ED[:, 1],
                linestyle=look.dashes,
                color=look.color,
                linewidth=look.width,
                alpha=look.alpha,
                zorder=look.layer,
                label=None if name in named else name,
            )
            named.add(name)
            axes.plot(
                *point_ED[0],
                "o",
                color=look.color,
                markerfacecolor=style.PAPER,
                markersize=6 if look.emphasised else 3.5,
                zorder=look.layer + 0.1,
            )
            cross = style.crossed(model, run, list(spectra))
            ends = {len(point_ED) - 1: "o"} | ({} if cross is None else {cross: "x"})
            for place, marker in ends.items():
                axes.plot(
                    *point_ED[place],
                    marker,
                    color=look.color,
                    markersize=7.5 if look.emphasised else 5,
                    markeredgewidth=2 if look.emphasised else 1.2,
                    zorder=look.layer + 0.2,
                )
        for marker, face, text in (
            ("o", style.PAPER, "before training"),
            ("o", None, "end"),
            ("x", None, "dropped"),
        ):
            label = f"{'hollow' if face else 'cross' if marker == 'x' else 'filled'}: {text}"
            axes.plot([], [], marker, color=style.FAINT, markerfacecolor=face or style.FAINT, label=label)
        # Distances are what this picture is about, so one nat is equally long on both axes.
        axes.set_aspect("equal", adjustable="datalim")
        axes.set_xlabel(f"first axis of LS space, nats per step ({shares[0]:.0%} of all differences)")
        axes.set_ylabel(f"second axis ({shares[1]:.0%})")
        axes.grid()
        figure.legend(loc="outside lower left", ncols=2)
    reading = (
        "Each line follows one network's spectrum from epoch to epoch: candidates that end near the dense "
        "model's path behave like it"
    )
    signal = str(run.strategy.get("signal", "")).replace("_", " ")
    if run.rounds and signal == "spectrum":
        reading += ", and those far from it at the time of a round were dropped"
    elif run.rounds and signal:
        reading += f" (candidates were ranked by {signal}, not by this distance)"
    reading += "."
    return style.Drawing(figure=figure, title="Paths through LS space", reading=reading)


def _height(points: list[np.ndarray]) -> float:
    """Inches: both axes have the same scale, so flat clouds need less height than round ones."""
    first, second = np.ptp(np.concatenate(points), axis=0)
    legend = 1.9
    return legend + min(max(6.5 * second / first, 2.0), 5.0) if first > 0 else legend + 2.0


def _shares(paths: list[list[np.ndarray]], points: list[np.ndarray]) -> tuple[float, float]:
    total = float(np.var([compared_vector(spectrum) for path in paths for spectrum in path], axis=0).sum())
    along = np.var(np.concatenate(points), axis=0)
    return (float(along[0]) / total, float(along[1]) / total) if total > 0 else (0.0, 0.0)
