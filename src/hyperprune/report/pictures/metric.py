"""The validation metric over the epochs, of every network."""

from __future__ import annotations

import math

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from hyperprune.records import CandidateRecord, RunRecord
from hyperprune.report import words
from hyperprune.report.pictures import style

_WIDE = 4.0  # values that span more than this factor are drawn on a logarithmic scale
_FAR = 4.0  # a diverged candidate may stretch the axis this far beyond the models that matter


def draw(run: RunRecord) -> style.Drawing | None:
    """Dense, first and other finalists emphasised; the rest thin, with a cross where they were dropped.

    Epoch 0 is left out: what an untrained network scores would take most of the height.
    """
    drawn = [(model, look, name, _points(model)) for model, look, name in style.cast(run)]
    drawn = [entry for entry in drawn if entry[3]]
    if not drawn:
        return None
    values = [value for _, _, _, points in drawn for _, value in points]
    with style.mpl.rc_context(style.rc()):
        figure = style.new_figure(5.0)
        axes = figure.subplots()
        named = set()
        for model, look, name, points in drawn:
            epochs, metrics = zip(*points, strict=True)
            axes.plot(
                epochs,
                metrics,
                linestyle=look.dashes,
                color=look.color,
                linewidth=look.width,
                alpha=look.alpha,
                zorder=look.layer,
                marker="o" if len(points) == 1 else None,
                markersize=4,
                label=None if name in named else name,
            )
            named.add(name)
            if (cross := style.crossed(model, run, epochs)) is not None:
                axes.plot(
                    epochs[cross], metrics[cross], "x", color=look.color, markersize=5, zorder=look.layer
                )
        if run.baseline is not None:
            name, value = run.baseline
            axes.axhline(
                value, color=style.INK, linewidth=1.2, dashes=(1, 2), label=f"{name}: {words.number(value)}"
            )
        top = _cut(run, drawn, values)
        shown = values if run.baseline is None else [*values, run.baseline[1]]
        _scale(axes, shown, top, may_be_logarithmic=run.lower_is_better)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("epoch")
        axes.margins(x=0.03)
        axes.set_ylabel(f"validation {run.metric}")
        axes.grid()
        figure.legend(loc="outside lower left", ncols=2)
    direction = "lower" if run.lower_is_better else "higher"
    beyond = "; an audited one was trained on" if run.audited else ""
    reading = (
        f"Each line is one network's validation {run.metric} after every epoch ({direction} is better); thin "
        f"lines are the other candidates, and a cross marks the epoch after which one was dropped{beyond}."
        if run.is_search
        else f"Validation {run.metric} after every epoch ({direction} is better)."
    )
    if top is not None:
        reading += f" Values above {words.number(top)} are cut off."
    return style.Drawing(figure=figure, title=f"Validation {run.metric} over the epochs", reading=reading)


def _points(model: CandidateRecord) -> list[tuple[int, float]]:
    return [(r.epoch, r.metric) for r in model.epochs if r.epoch > 0 and math.isfinite(r.metric)]


def _cut(
    run: RunRecord,
    drawn: list[tuple[CandidateRecord, style.Look, str, list[tuple[int, float]]]],
    values: list[float],
) -> float | None:
    """Where the axis ends because a diverged candidate would flatten the others; None: it need not."""
    if not run.lower_is_better:
        return None
    yardstick = [value for _, look, _, points in drawn if look.layer >= 4 for _, value in points]
    if run.baseline is not None:
        yardstick.append(run.baseline[1])
    if not yardstick or max(yardstick) <= 0 or max(values) <= _FAR * max(yardstick):
        return None
    return _FAR / 2 * max(yardstick)


def _scale(axes: Axes, values: list[float], top: float | None, *, may_be_logarithmic: bool) -> None:
    """Choose the axis; an accuracy is told apart at its upper end, which logarithms would squeeze."""
    shown = [value for value in values if top is None or value <= top]
    logarithmic = may_be_logarithmic and min(shown) > 0 and max(shown) > _WIDE * min(shown)
    if top is not None:  # the margin below would otherwise be a share of what is cut off
        low = min(shown)
        axes.set_ylim(low * 0.85 if logarithmic else low - 0.05 * (top - low), top)
    if not logarithmic:
        return
    axes.set_yscale("log")
    decades = math.log10(max(shown) / min(shown))
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < 3 else (1,)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
