"""Where the best candidate's live weights are and how they moved: density, turnover and exploration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle, islice, pairwise

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from hyperprune.records import EpochRecord, RunRecord, Topology
from hyperprune.report import facts, words
from hyperprune.report.pictures import style

_COLORS = (style.WINNER, style.WORST, style.FINALIST, style.FAILED, style.INK, style.FAINT)
_DASHES = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)))
_MOST_NAMED = 12  # tensors; more could not be told apart
_Point = tuple[int, Topology, Mapping[str, float]]


def draw(run: RunRecord) -> style.Drawing | None:
    """Density per tensor, and per gate where tensors stack several; turnover per update; explored share."""
    candidate = facts.leader(run)
    points = [] if candidate is None else _points(candidate.epochs)
    if candidate is None or len(points) < 2 or not _moves(points):
        return None
    gates = bool(points[-1][1].gate_density)
    with style.mpl.rc_context(style.rc()):
        figure = style.new_figure(6.4)
        panels = figure.subplot_mosaic("DG;TE" if gates else "DD;TE")
        named = _plot_tensors(panels["D"], points)
        if gates:
            _plot_gates(panels["G"], points, named)
        _plot_turnover(panels["T"], points)
        _plot_explored(panels["E"], points)
        for axes in panels.values():
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: words.percent(share)))
            axes.set_xlim(points[0][0], points[-1][0])
            axes.set_xlabel("epoch")
            axes.grid()
        handles, labels = panels["D"].get_legend_handles_labels()
        if gates:
            of_gates = panels["G"].get_legend_handles_labels()
            handles, labels = handles + of_gates[0], labels + of_gates[1]
        figure.legend(handles, labels, loc="outside lower left", ncols=4)
    role = facts.role(run)
    reading = (
        f"The {role} is {words.name(candidate)}. Above, the share of live weights in each tensor"
        + (
            " and in each gate of those that stack several (gates in the order of their rows)"
            if gates
            else ""
        )
        + ", as evaluation saw them; below, how many live weights an update moved elsewhere, and the share "
        "of all weights that have been live at some time."
    )
    return style.Drawing(figure=figure, title=f"Where the {role}'s live weights are", reading=reading)


def _points(epochs: Sequence[EpochRecord]) -> list[_Point]:
    return [(record.epoch, record.topology, record.density) for record in epochs if record.topology]


def _moves(points: Sequence[_Point]) -> bool:
    """Whether there is anything to see: a mask that never changes is a straight line."""
    return any(one.num_updates != other.num_updates for (_, one, _), (_, other, _) in pairwise(points))


def _looks(names: Sequence[str]) -> dict[str, tuple[str, object]]:
    """Colour and dashes by tensor."""
    dashes = ["-"] * len(_COLORS) + [_DASHES[1]] * len(_COLORS)
    return dict(
        zip(names[:_MOST_NAMED], zip(islice(cycle(_COLORS), _MOST_NAMED), dashes, strict=True), strict=False)
    )


def _plot_tensors(axes: Axes, points: Sequence[_Point]) -> dict[str, tuple[str, object]]:
    names = list(points[-1][2])
    looks = _looks(names)
    epochs = [epoch for epoch, _, _ in points]
    for name in names:
        color, dashes = looks.get(name, (style.FAINT, "-"))
        label = name if name in looks else "further tensors" if name == names[_MOST_NAMED] else None
        densities = [density[name] for _, _, density in points]
        axes.plot(epochs, densities, color=color, linestyle=dashes, linewidth=1.7, label=label)
    axes.set_title("density of each tensor", loc="left")
    axes.set_ylim(0, 1.1 * max(max(density.values()) for _, _, density in points))
    return looks


def _plot_gates(axes: Axes, points: Sequence[_Point], looks: Mapping[str, tuple[str, object]]) -> None:
    epochs = [epoch for epoch, _, _ in points]
    most = 0
    for name, shares in points[-1][1].gate_density.items():
        color, _ = looks.get(name, (style.FAINT, "-"))
        most = max(most, len(shares))
        for gate, dashes in zip(range(len(shares)), cycle(_DASHES)):
            densities = [topology.gate_density[name][gate] for _, topology, _ in points]
            axes.plot(epochs, densities, color=color, linestyle=dashes, linewidth=1.2)
    for gate, dashes in zip(range(most), cycle(_DASHES)):
        axes.plot([], [], color=style.INK, linestyle=dashes, linewidth=1.2, label=f"gate {gate + 1}")
    axes.set_title("density of each gate, in the tensor's colour", loc="left")


def _plot_turnover(axes: Axes, points: Sequence[_Point]) -> None:
    epochs, shares = [], []
    for (_, before, _), (epoch, after, _) in pairwise(points):
        if num_updates := after.num_updates - before.num_updates:
            epochs.append(epoch)
            shares.append((after.turnover - before.turnover) / num_updates)
    axes.plot(epochs, shares, ".-", color=style.WINNER, linewidth=1.7)
    axes.set_title("live weights moved per update", loc="left")
    axes.set_ylim(0, 1.1 * max(shares) or 1)


def _plot_explored(axes: Axes, points: Sequence[_Point]) -> None:
    axes.plot(
        [epoch for epoch, _, _ in points],
        [topology.explored for _, topology, _ in points],
        color=style.WINNER,
        linewidth=1.7,
    )
    axes.set_title("weights that were ever live", loc="left")
    axes.set_ylim(0, 1)
