"""What signals tell later in training, and what a search loses that cuts once, then.

Axes: D draws, E epochs, R candidates.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hyperprune.experiments.evidence.chance import trained_fully
from hyperprune.experiments.evidence.correlation import (
    Measured,
    estimate,
    is_shown,
    lead,
    measure,
    seeds_text,
    value,
    with_p,
)
from hyperprune.experiments.evidence.signals import ENTRIES
from hyperprune.experiments.evidence.text import ranges, table
from hyperprune.experiments.evidence.worlds import World

NAMES = ("last_training_loss", "training_losses", "loss", "mean_exponent", "spectrum")
"""Signals of which every epoch was recorded."""
_TOLD_EPOCHS = (3, 6, 9, 12, 15, 18, 24, 30)
_LATE = 15
_CUTS = (3, 6, 9, 12, 15, 18)
_FULL_TRAININGS = (5, 8)  # that a search may spend; the default schedule's 183 epochs are five
_FINALISTS = 3
_CUT_BY = ("last_training_loss", "training_losses", "loss")
_DRAWS = 4000


def measure_all(world: World) -> Measured:
    """The signals at every epoch but the last."""
    return measure(world, NAMES, last_epoch=world.table.final_epochs - 1)


def correlations_table(measured: Sequence[Measured]) -> str:
    """One row per world and signal: the rank correlation with the final metric, and when it is shown."""
    epochs = [epoch for epoch in _TOLD_EPOCHS if epoch in measured[0].epochs]
    rows = []
    for found in measured:
        for name in NAMES:
            shown = [epoch for epoch in found.epochs[1:] if is_shown(found, name, epoch)]
            right = ranges([epoch for epoch in shown if value(found, name, epoch) > 0])
            wrong = ranges([epoch for epoch in shown if value(found, name, epoch) < 0])
            cells = [_cell(found, name, epoch) for epoch in epochs]
            rows.append([found.world.title, ENTRIES[name].label, *cells, right or "–", wrong or "–"])
    last = measured[0].epochs[-1]
    head = ["world", "signal", *(f"ρ, epoch {epoch}" for epoch in epochs)]
    return table([*head, f"shown at epochs, of 1 to {last}", "shown to point the wrong way at"], rows)


def _cell(found: Measured, name: str, epoch: int) -> str:
    if epoch not in found.epochs:
        return "–"
    own = estimate(found, name, epoch)
    return f"{own.value:.2f}" + (f" [{seeds_text(own)}]" if len(own.each) > 1 else "")


def late_table(measured: Sequence[Measured]) -> str:
    """The training loss of the last epoch at one late epoch: inside kinds, and its leads."""
    name, *others = _CUT_BY
    epoch = min(_LATE, *(found.epochs[-1] for found in measured))
    rows = [
        [
            found.world.title,
            with_p(found, name, epoch),
            with_p(found, name, epoch, "within"),
            *(lead(found, name, other, epoch).text() for other in others),
        ]
        for found in measured
    ]
    head = [f"{ENTRIES[name].label}, epoch {epoch}", "ρ", "within kinds of death"]
    return table([*head, *(f"lead over {ENTRIES[other].label}" for other in others)], rows)


def cuts_table(measured: Sequence[Measured]) -> str:
    """One row per budget and cut, each once: the mean regret by each signal.

    A column for each world, but for those of another number of epochs than the first.
    """
    final = measured[0].world.table.final_epochs
    measured = [found for found in measured if found.world.table.final_epochs == final]
    rows, told = [], set[tuple[int, int]]()
    for full in _FULL_TRAININGS:
        budget = full * final
        chances = [f"{100 * trained_fully(found.world, budget).mean:.1f}" for found in measured]
        rows.append([f"{full} drawn, trained fully", str(budget), *chances])
        for epoch in (epoch for epoch in _CUTS if epoch < final):
            drawn = min(affordable(budget, epoch, final), *(found.world.table.num_rows for found in measured))
            if drawn <= _FINALISTS or (drawn, epoch) in told:  # all there are: a larger budget draws no more
                continue
            told.add((drawn, epoch))
            spent = drawn * epoch + _FINALISTS * (final - epoch)
            cells = [
                " / ".join(f"{100 * regret(found, name, epoch, drawn):.1f}" for name in _CUT_BY)
                for found in measured
            ]
            rows.append([f"{drawn} drawn, cut after epoch {epoch}", str(spent), *cells])
    return table(["candidates", "epochs", *(found.world.title for found in measured)], rows)


def affordable(budget: int, epoch: int, final: int) -> int:
    """How many candidates can be trained to an epoch, and the finalists on to the end."""
    return (budget - _FINALISTS * (final - epoch)) // epoch


def regret(found: Measured, name: str, epoch: int, drawn: int, *, seed: int = 0) -> float:
    """The mean relative regret of a search that draws so many candidates and cuts once.

    Of those drawn at random the finalists with the smallest signal at the epoch are trained to the end; ties
    are decided by chance.
    """
    random = np.random.default_rng(seed)
    means = []
    for values_ER, finals_R in zip(found.values[name], found.finals, strict=True):
        rows_DR = np.tile(np.arange(len(finals_R)), (_DRAWS, 1))
        drawn_DR = random.permuted(rows_DR, axis=1)[:, :drawn]
        order_DR = np.argsort(values_ER[epoch][drawn_DR], axis=1, kind="stable")[:, :_FINALISTS]
        ends_D = finals_R[np.take_along_axis(drawn_DR, order_DR, axis=1)].min(axis=1)
        means.append((ends_D - finals_R.min()).mean() / abs(finals_R.min()))
    return float(np.mean(means))
