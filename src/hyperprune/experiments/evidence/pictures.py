"""The pictures of docs/evidence.md. Colours are Okabe and Ito's; dashes and markers tell them apart too."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hyperprune.experiments.evidence import across, searching
from hyperprune.experiments.evidence.bootstrap import ENOUGH_SEEDS
from hyperprune.experiments.evidence.canvas import FAINT, INK, picture, side_by_side
from hyperprune.experiments.evidence.correlation import Measured, estimate, share_learning, value
from hyperprune.experiments.evidence.paper_searches import Ratio
from hyperprune.experiments.evidence.searching import Outcome
from hyperprune.experiments.evidence.signals import ENTRIES
from hyperprune.experiments.evidence.why import control_name, usable
from hyperprune.experiments.evidence.worlds import World, kind_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SIGNALS: Mapping[str, tuple[str, str]] = {  # colour and dashes
    "spectrum": ("#0072b2", "-"),
    "full": ("#56b4e9", "--"),
    "spectrum_mean": ("#009e73", "-."),
    "mean_exponent": (INK, "-."),
    "loss": ("#d55e00", "-"),
    "training_losses": ("#e69f00", "--"),
    "last_training_loss": ("#8c564b", "-"),
    "blend": ("#cc79a7", "-."),
    "frobenius_alone": ("#7b4fa3", ":"),
    "none": (FAINT, ":"),
}
_BANDS = "bands: 95 % intervals of the paper's distance (blue) and of the validation loss (orange)"
_WORLDS_IN_A_ROW = 3
_KINDS: Mapping[str, tuple[str, str]] = {  # colour and marker
    "threshold": ("#0072b2", "o"),
    "magnitude": ("#009e73", "s"),
    "global_magnitude": ("#e69f00", "^"),
    "set": ("#cc79a7", "D"),
}


def correlation(found: Measured, path: Path) -> None:
    """Rank correlation with the final metric over the epochs, among all and within kinds of death."""
    titles = {"all": "among all candidates", "within": "within a kind of death (mean of kinds)"}
    with picture(path, 9.0, 4.6) as figure:
        for axes, (among, title) in zip(side_by_side(figure, 2, sharey=True), titles.items(), strict=True):
            _correlations(axes, found, among, found.values)
            axes.set_title(title)
        figure.axes[0].set_ylabel(f"Spearman's ρ with the final {found.world.table.metric}")
        handles, names = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=2)
        figure.suptitle(
            f"{found.world.title}: does a small signal early mean a good network at the end?\n{_BANDS}",
            fontsize=11,
        )


def worlds(measured: Sequence[Measured], path: Path, *, which: str = "early signals") -> None:
    """Rank correlation with the final metric over the epochs, a panel for each world."""
    names = set.intersection(*(set(found.values) for found in measured)) - {"spectrum_mean", "blend"}
    columns = min(len(measured), _WORLDS_IN_A_ROW)
    rows = math.ceil(len(measured) / columns)
    with picture(path, 1.5 + 3.6 * columns, 1.3 + 3.0 * rows) as figure:
        panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
        for axes, found in zip(panels, measured, strict=False):
            _correlations(axes, found, "all", names)
            seeds, shares = len(found.finals), share_learning(found)
            learned = (
                ""
                if shares is None
                else "\nbetter than the baseline: "
                + ", ".join(
                    f"{100 * shares[found.epochs.index(epoch)]:.0f} % after {epoch}"
                    for epoch in found.told_epochs[1:3]
                )
            )
            title = f"{found.world.title} ({seeds} {'seed' if seeds == 1 else 'seeds'})"
            axes.set_title(f"{title}{learned}", fontsize=9)
            axes.tick_params(labelbottom=True)  # a panel may have none below it
        for axes in panels[len(measured) :]:
            axes.set_visible(False)
        figure.supylabel("Spearman's ρ with the final metric", fontsize=10)
        handles, names = panels[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=min(columns, 3))
        figure.suptitle(
            f"What {which} tell of the end, among all candidates of a world (above 0: the right way)\n"
            f"{_BANDS}",
            fontsize=11,
        )


def _correlations(axes: Axes, found: Measured, among: str, names: Collection[str]) -> None:
    """A line for each signal, with the interval of spectrum and loss."""
    for name, (color, dashes) in _SIGNALS.items():
        if name not in names or name == "none":
            continue
        cells = [estimate(found, name, epoch, among) for epoch in found.epochs]
        axes.plot(found.epochs, [cell.value for cell in cells], dashes, color=color, label=_label(name))
        if name in ("spectrum", "loss"):
            axes.fill_between(
                found.epochs,
                [cell.low for cell in cells],
                [cell.high for cell in cells],
                color=color,
                alpha=0.13,
                linewidth=0,
            )
    axes.axhline(0, color=FAINT, linewidth=1)
    axes.set_xlabel("epoch at which the signal is asked")
    axes.set_ylim(-1.02, 1.02)
    axes.grid(axis="y")


def all_signals(found: Measured, path: Path) -> None:
    """Every signal at every epoch as a coloured table."""
    epochs, asked = found.epochs, [name for name in ENTRIES if name in found.values]
    names = [name for name in asked if not all(np.isnan(value(found, name, epoch)) for epoch in epochs)]
    titles = {
        "all": "among all",
        "within": "within kinds of death",
        "without threshold": "without threshold death",
        "between": "between kinds",
    }
    with picture(path, 16.0, 0.29 * len(names) + 1.7) as figure:
        panels = side_by_side(figure, len(titles), sharey=True)
        image = None
        for axes, (among, title) in zip(panels, titles.items(), strict=True):
            grid = np.array([[value(found, name, epoch, among) for epoch in found.epochs] for name in names])
            image = axes.imshow(np.ma.masked_invalid(grid), cmap="PuOr_r", vmin=-1, vmax=1, aspect="auto")
            for row, column in np.ndindex(*grid.shape):
                cell = grid[row, column]
                if not np.isnan(cell):
                    axes.text(
                        column,
                        row,
                        f"{100 * cell:.0f}",
                        ha="center",
                        va="center",
                        fontsize=7,
                        color="white" if abs(cell) > 0.6 else INK,
                    )
            axes.set_xticks(range(len(found.epochs)), [str(epoch) for epoch in found.epochs])
            axes.set_title(title)
            axes.set_xlabel("epoch")
            axes.spines[:].set_visible(False)
            axes.tick_params(length=0)
        panels[0].set_yticks(range(len(names)), [ENTRIES[name].label for name in names])
        assert image is not None
        figure.colorbar(image, ax=panels, label="ρ", shrink=0.6)
        figure.suptitle(
            f"{found.world.title}: rank correlation (× 100) of each signal with the final "
            f"{found.world.table.metric}; positive: small is good; white: not measured, or alike",
            fontsize=11,
        )


def regret(found: Sequence[Outcome], world: World, path: Path) -> None:
    """Mean regret against epochs, one panel per kind of search."""
    families = [searching.GRID, searching.HALVING, searching.HYPERBAND, searching.TPE]
    shown = [family for family in families if any(item.point.family == family for item in found)]
    with picture(path, 3.4 * max(len(shown), 2) + 1, 4.6) as figure:
        panels = side_by_side(figure, max(len(shown), 1), sharey=True)
        for axes, family in zip(panels, shown, strict=False):
            for name, (color, dashes) in _SIGNALS.items():
                own = [item for item in found if (item.point.family, item.point.signal) == (family, name)]
                _curve(axes, own, color, dashes, "o", _label(name))
            for baseline, marker in ((searching.RANDOM, "x"), (searching.TPE_FULL, "+")):
                own = [item for item in found if item.point.family == baseline]
                _curve(axes, own, INK, ":", marker, baseline)
            axes.axhline(100 * searching.WITHIN, color=FAINT, linewidth=1)
            axes.set_title(family)
            axes.set_xscale("log")
            for axis_format in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
                axis_format(lambda value, _: f"{value:.0f}" if f"{value:e}"[0] in "125" else "")
            axes.set_xlabel("epochs spent on candidates")
            axes.grid(axis="y")
        panels[0].set_ylim(bottom=0)
        panels[0].set_ylabel("mean regret, % of the best")
        entries: dict[str, Any] = {}
        for axes in panels:
            handles, names = axes.get_legend_handles_labels()
            entries |= dict(zip(names, handles, strict=True))
        figure.legend(list(entries.values()), list(entries), loc="outside lower center", ncols=3)
        full = next(item for item in found if item.point.family == searching.FULL)
        figure.suptitle(
            f"{world.title}: what a search loses against what it spends "
            f"(training all {full.point.strategy.candidates}: {full.epochs:.0f} epochs; line: 1 %"
            f"{'; shaded: 95 % intervals' if len(full.regret) >= ENOUGH_SEEDS else ''})",
            fontsize=11,
        )


def _curve(axes: Axes, own: Sequence[Outcome], color: str, dashes: str, marker: str, label: str) -> None:
    if not own:
        return
    ordered = sorted(own, key=lambda item: item.epochs)
    axes.plot(
        [item.epochs for item in ordered],
        [100 * item.mean.value for item in ordered],
        dashes,
        marker=marker,
        markersize=4,
        color=color,
        label=label,
    )
    if own[0].point.signal in ("spectrum", "loss"):
        means = [item.mean for item in ordered]
        axes.fill_between(
            [item.epochs for item in ordered],
            [100 * mean.low for mean in means],
            [100 * mean.high for mean in means],
            color=color,
            alpha=0.13,
            linewidth=0,
        )


def ratios(found: Sequence[Ratio], metric: str, path: Path) -> None:
    """The final metric by sparsity, of what each search picks."""
    looks = {
        "dense model": (INK, "-", "."),
        "best candidate": (FAINT, "--", "^"),
        "median candidate": (FAINT, ":", "v"),
        "Selfish-RNN": ("#cc79a7", "-.", "D"),
        "LSH by spectrum": ("#0072b2", "-", "o"),
        "LSH by loss": ("#d55e00", "-", "s"),
        "LSH by training losses": ("#009e73", "-", "P"),
        "LSH by chance": (FAINT, "-", "x"),
    }
    with picture(path, 7.5, 4.4) as figure:
        axes = figure.subplots()
        for name, (color, dashes, marker) in looks.items():
            points = [(item.sparsity, item.metrics[name]) for item in found if name in item.metrics]
            if points:
                axes.plot(*zip(*points, strict=True), dashes, marker=marker, color=color, label=name)
            spans = [(item.sparsity, *item.ranges[name]) for item in found if name in item.ranges]
            if spans and name != "LSH by chance":
                sparsities, lows, highs = zip(*spans, strict=True)
                axes.fill_between(sparsities, lows, highs, color=color, alpha=0.13, linewidth=0)
        axes.set_xlabel("sparsity")
        axes.set_ylabel(f"final {metric}")
        axes.set_xticks([item.sparsity for item in found], [f"{item.sparsity:g}" for item in found])
        axes.grid(axis="y")
        figure.legend(loc="outside right upper")
        axes.set_title(
            "What each search ends with: 20 candidates drawn\n"
            "of those at death rate 0.8; shaded: 95 % of the searches by signal"
        )


def spectra(world: World, epoch: int, path: Path) -> None:
    """How the kinds of death differ from the dense model, and from each other in the end."""
    with picture(path, 9.5, 4.4) as figure:
        left, right = side_by_side(figure, 2)
        for kind, (color, marker) in _KINDS.items():
            differences, points = [], []
            for run in world.table.runs:
                dense = usable(run.reference[epoch])
                for configuration, records in zip(run.configurations, run.candidates, strict=True):
                    own = usable(records[epoch])
                    if kind_of(configuration) == kind and dense is not None and own is not None:
                        differences.append(own - dense)
                        points.append((np.linalg.norm(own - dense), world.table.final_metric(records)))
            if not points:
                continue
            values_RS = np.array(differences)
            index_S = np.arange(1, values_RS.shape[1] + 1)
            left.plot(index_S, values_RS.mean(axis=0), color=color, label=kind)
            low, high = np.percentile(values_RS, [10, 90], axis=0)
            left.fill_between(index_S, low, high, color=color, alpha=0.15, linewidth=0)
            right.plot(*zip(*points, strict=True), marker, color=color, label=kind, alpha=0.75, markersize=5)
        _controls(right, world, epoch)
        left.axhline(0, color=FAINT, linewidth=1)
        left.set_title("exponents minus the dense model's (mean, 10 to 90 %)")
        left.set_xlabel("exponent, largest first within each layer")
        left.set_ylabel("nats per step")
        right.set_title("distance then, quality at the end; stars: controls")
        right.set_xlabel(f"spectrum distance (L2) at epoch {epoch}")
        right.set_ylabel(f"final {world.table.metric}")
        for axes in (left, right):
            axes.grid(axis="y")
        handles, names = right.get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=4)
        figure.suptitle(f"{world.title}, epoch {epoch}", fontsize=11)


def _controls(axes: Axes, world: World, epoch: int) -> None:
    dense = {run.seed: usable(run.reference[epoch]) for run in world.table.runs}
    found: dict[str, list[tuple[float, float]]] = {}
    for run in world.controls.runs if world.controls else ():
        for configuration, records in zip(run.configurations, run.candidates, strict=True):
            own, reference = usable(records[epoch]), dense.get(run.seed)
            if own is not None and reference is not None:
                point = (float(np.linalg.norm(own - reference)), world.table.final_metric(records))
                found.setdefault(control_name(configuration), []).append(point)
    for (name, points), color in zip(found.items(), (INK, FAINT, "#d55e00", "#56b4e9"), strict=False):
        axes.plot(*zip(*points, strict=True), "*", color=color, markersize=10, label=name)


_STARTS = {
    across.EXPLORES: ("#0072b2", "o", "begin sparse and explore"),
    across.STAYS: ("#e69f00", "s", "begin sparse, masks never change"),
    across.BEGINS_DENSE: (FAINT, "^", "begin dense"),
}


def kinds(found: across.Kinds, epoch: int, path: Path) -> None:
    """What four signals say about each kind of pruning; kinds from the best end, at the top, to the worst."""
    ends = found.ends()
    rows = np.arange(len(ends))
    with picture(path, 10.5, 0.9 + 0.27 * len(ends)) as figure:
        panels = figure.subplots(1, 4, sharey=True)
        for axes, signal in zip(panels, ("spectrum", "full", "mean_exponent", "loss"), strict=True):
            columns = [own[epoch] for own in found.every.values[signal]]
            values = np.array([found.mean(columns, kind) for kind in ends])
            for start, (color, marker, label) in _STARTS.items():
                own = np.array([found.starts[kind] == start for kind in ends])
                axes.plot(values[own], rows[own], marker, color=color, label=label, markersize=6)
            axes.set_title(ENTRIES[signal].label.replace(", ", ",\n").replace(" (", "\n("))
            if signal in ("spectrum", "full"):  # a lost direction makes a distance ten times the others'
                axes.set_xscale("symlog", linthresh=1)
                axes.set_xlim(left=-0.2)
                axes.set_xticks([0, 1, 10, 100], ["0", "1", "10", "100"])
            axes.grid(axis="both")
        panels[0].set_yticks(rows, [f"{kind}  {abs(end):.4g}" for kind, end in ends.items()])
        panels[0].invert_yaxis()
        handles, names = panels[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=3)
        figure.suptitle(
            f"{found.title}: signals at epoch {epoch}, kinds from the best end to the worst (final "
            f"{found.every.world.table.metric} beside the name);\nof a signal that tells, points go from "
            "left to right",
            fontsize=10,
        )


def switch(world: World, path: Path) -> None:
    """Distances over the epochs, as evaluated and of raw weights, and who averages when."""
    with picture(path, 9.5, 5.2) as figure:
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
        epochs = np.arange(world.table.final_epochs + 1)
        for kind, (color, marker) in _KINDS.items():
            evaluated, raw, averaging = ([[] for _ in epochs] for _ in range(3))
            for run in world.table.runs:
                for configuration, records in zip(run.configurations, run.candidates, strict=True):
                    if kind_of(configuration) != kind:
                        continue
                    for epoch in epochs:
                        dense, own = run.reference[epoch], records[epoch]
                        _append(evaluated[epoch], usable(dense), usable(own))
                        _append(
                            raw[epoch],
                            usable(dense, "spectrum_raw" if dense.averaging else None),
                            usable(own, "spectrum_raw" if own.averaging else None),
                        )
                        averaging[epoch].append(own.averaging)
            if not any(evaluated):
                continue
            top.plot(
                epochs, [np.median(item) if item else np.nan for item in evaluated], color=color, label=kind
            )
            measured = [epoch for epoch in epochs if raw[epoch]]
            top.plot(
                measured, [np.median(raw[epoch]) for epoch in measured], marker, color=color, markersize=3.5
            )
            bottom.plot(epochs, [100 * np.mean(item) for item in averaging], color=color)
        for run in world.table.runs:
            first = next((record.epoch for record in run.reference if record.averaging), None)
            if first is not None:
                for axes in (top, bottom):
                    axes.axvline(first, color=INK, linewidth=1, dashes=(3, 3))
        top.set_ylabel("median distance (L2)")
        top.set_title(
            f"{world.title}: distance from the dense model. Lines: the weights that evaluation uses;\n"
            "markers: raw weights of both; dashed: a dense model begins to average"
        )
        bottom.set_ylabel("candidates\naveraging, %")
        bottom.set_xlabel("epoch")
        for axes in (top, bottom):
            axes.grid(axis="y")
        top.set_ylim(bottom=0)
        figure.legend(loc="outside lower center", ncols=4)


def _append(values: list[float], dense: np.ndarray | None, own: np.ndarray | None) -> None:
    if dense is not None and own is not None:
        values.append(float(np.linalg.norm(own - dense)))


def _label(name: str) -> str:
    return ENTRIES[name].label
