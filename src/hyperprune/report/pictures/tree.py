"""The elimination tree: who entered when, who was dropped in which round, who is left."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes

from hyperprune.records import CandidateRecord, RunRecord
from hyperprune.report import facts, words
from hyperprune.report.pictures import style

_LABEL_WIDTH = 46  # characters


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One upright line of the picture: the start, a round, or the end."""

    number: int
    epoch: int
    head: str


def draw(run: RunRecord) -> style.Drawing | None:
    """One row per candidate in rank order; rounds stand at equal distances, whatever their epochs."""
    if not run.candidates or not run.is_search:
        return None
    stages = _stages(run)
    looks = style.looks(run)
    rows = len(run.candidates)
    with style.mpl.rc_context(style.rc()):
        figure = style.new_figure(1.5 + 0.2 * rows)
        axes = figure.subplots()
        for position, _ in enumerate(stages):
            axes.axvline(position, color=style.GRID, linewidth=1.2, zorder=1)
        for row, candidate in enumerate(run.candidates):
            _draw_row(axes, row, candidate, looks[candidate.key], _span(candidate, run, stages))
        axes.set_ylim(rows - 0.4, -0.6)
        axes.set_xlim(-0.15, len(stages) - 1 + 0.15)
        crowded = len(stages) > 8
        axes.set_xticks(range(len(stages)), [_head(stage, crowded=crowded) for stage in stages], fontsize=9)
        if crowded:
            axes.annotate(
                "round\nafter epoch",
                (0, 1),
                (-24, 7),
                "axes fraction",
                "offset points",
                ha="right",
                fontsize=9,
            )
        axes.xaxis.tick_top()
        names = [words.clip(f"{c.key}  {c.label}", _LABEL_WIDTH) for c in run.candidates]
        axes.set_yticks(range(rows), names, fontsize=8.5)
        axes.tick_params(length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
        for tick, candidate in zip(axes.get_yticklabels(), run.candidates, strict=True):
            if looks[candidate.key].emphasised:
                tick.set_color(looks[candidate.key].color)
                tick.set_fontweight("bold" if candidate is facts.leader(run) else "normal")
        _legend(axes, run)
        figure.legend(loc="outside lower left", ncols=4, columnspacing=1.4)
    reading = (
        "Each row is one candidate, the best on top: its line begins (dot) where it was created, "
        "and ends in a cross at the round that dropped it; the rows that reach the right edge "
        f"{'were trained to the end' if run.finished else 'are still in the search'}."
    )
    return style.Drawing(figure=figure, title="Elimination tree", reading=reading)


def _stages(run: RunRecord) -> list[Stage]:
    last = max((facts.epochs_trained(candidate) for candidate in run.candidates), default=0)
    rounds = [Stage(number=part.number, epoch=part.epoch, head=f"round {part.number}") for part in run.rounds]
    final = max([last, *(stage.epoch for stage in rounds)])
    end = Stage(number=-1, epoch=final, head="end" if run.finished else "now")
    return [Stage(number=0, epoch=0, head="start"), *rounds, end]


def _head(stage: Stage, *, crowded: bool) -> str:
    """A stage's two lines; with many rounds, numbers only, and the words stand at the left once."""
    if crowded:
        return f"{stage.head.removeprefix('round ')}\n{stage.epoch}"
    return f"{stage.head}\nepoch {stage.epoch}"


def _span(candidate: CandidateRecord, run: RunRecord, stages: list[Stage]) -> tuple[float, float]:
    """Where a candidate's line begins and ends, in stages."""
    position = {stage.number: float(place) for place, stage in enumerate(stages)}
    # Numbers may lack a round: of a bracket that failed, or before that of an extension.
    begin = sum(part.number <= candidate.born_in for part in run.rounds)
    if candidate.outcome == "eliminated" and candidate.eliminated_in in position:
        return begin, position[candidate.eliminated_in]
    if candidate.outcome in ("eliminated", "failed"):
        return begin, _reached(facts.epochs_trained(candidate), begin, stages)
    return begin, float(len(stages) - 1)


def _reached(epoch: int, begin: int, stages: list[Stage]) -> float:
    """Where an epoch of a candidate lies: between the stages of its own bracket, along which epochs rise."""
    epochs = [0]
    for stage in stages[begin + 1 :]:
        if stage.epoch <= epochs[-1]:
            break
        epochs.append(stage.epoch)
    return float(np.interp(epoch, epochs, begin + np.arange(len(epochs))))


def _draw_row(
    axes: Axes, row: int, candidate: CandidateRecord, look: style.Look, span: tuple[float, float]
) -> None:
    begin, end = span
    axes.plot(
        [begin, end],
        [row, row],
        linestyle=look.dashes,
        color=look.color,
        linewidth=look.width,
        zorder=look.layer,
    )
    axes.plot(begin, row, ".", color=look.color, markersize=6, zorder=look.layer)
    marker = {"eliminated": "x", "failed": "X", "finalist": "o", "running": ">"}[candidate.outcome]
    axes.plot(
        end,
        row,
        marker,
        color=look.color,
        markersize=6,
        markeredgewidth=1.5,
        zorder=look.layer,
        clip_on=False,
    )


def _legend(axes: Axes, run: RunRecord) -> None:
    outcomes = {candidate.outcome for candidate in run.candidates}
    axes.plot([], [], ".", color=style.FAINT, markersize=6, label="created")
    for outcome, marker, label in (
        ("eliminated", "x", "eliminated"),
        ("failed", "X", "failed"),
        ("finalist", "o", "finalist"),
        ("running", ">", "still in the search"),
    ):
        if outcome in outcomes:
            color = style.FAILED if outcome == "failed" else style.FAINT
            axes.plot([], [], marker, color=color, markersize=6, label=label)
