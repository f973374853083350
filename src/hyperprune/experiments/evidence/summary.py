"""The answer in short, by rules from the records: use the spectrum? from which epoch? what does it buy?

A verdict is a rule about an interval, so that nobody's wish decides it: a signal "tells" where the 95 %
interval of its rank correlation lies above 0, "misleads" where it lies below, and one tells more than another
where that of their difference lies above 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from hyperprune.experiments.evidence import bootstrap
from hyperprune.experiments.evidence.bootstrap import Estimate
from hyperprune.experiments.evidence.correlation import Measured, estimate, value
from hyperprune.experiments.evidence.searching import (
    FULL,
    GRID,
    RANDOM,
    SIGNALS,
    WITHIN,
    Outcome,
    epochs_text,
)
from hyperprune.experiments.evidence.signals import ENTRIES
from hyperprune.experiments.evidence.text import table

SHOWN = SIGNALS
_EPOCHS = (1, 2, 3, 6, 12)


def answer(found: Measured, outcomes: Sequence[Outcome], epoch: int) -> str:
    """A table of the main signals, and what follows from it by rule.

    Args:
        found: the signals of the main world.
        outcomes: of the searches replayed in it.
        epoch: of the paper's first elimination.
    """
    runs = found.world.table.runs
    counts = sorted({len(run.candidates) for run in runs})
    opening = (
        f"In {found.world.title} ({len(runs)} {'seed' if len(runs) == 1 else 'seeds'}, "
        f"{' or '.join(map(str, counts))} candidates each, {found.world.table.final_epochs} epochs):"
    )
    verdicts = [_against_loss(found, epoch), _within_kinds(found, epoch), _rival(found, epoch)]
    verdicts += [_when(found), _buys(outcomes)]
    lines = "\n".join(f"- {text}" for text in verdicts)
    return f"{opening}\n\n{lines}\n\n{_table(found, outcomes, epoch)}"


def _against_loss(found: Measured, epoch: int) -> str:
    spectrum, loss = (estimate(found, name, epoch) for name in ("spectrum", "loss"))
    lead = bootstrap.difference(spectrum, loss)
    full = estimate(found, "full", epoch)
    of_full = (
        ""
        if math.isnan(full.value)
        else f" The distance of the full state's spectrum: {full.text()}, lead over the loss "
        f"{bootstrap.difference(full, loss).text()}."
    )
    return (
        f"**Does the spectrum tell more than the loss?** {_verdict(lead, 'Yes', 'No, less')} at epoch "
        f"{epoch}: rank correlation with the final metric {spectrum.text()} for the distance of the hidden "
        f"state's spectrum, {loss.text()} for the validation loss, difference {lead.text()}."
        + (" So a small distance means a bad end here: it misleads." if spectrum.high < 0 else "")
        + of_full
    )


def _within_kinds(found: Measured, epoch: int) -> str:
    inside = estimate(found, "spectrum", epoch, "within")
    lead = bootstrap.difference(inside, estimate(found, "loss", epoch, "within"))
    without = ", ".join(
        f"{estimate(found, name, epoch, 'without threshold').text()} by {ENTRIES[name].label}"
        for name in ("spectrum", "loss", "training_losses")
    )
    return (
        "**Or does it only tell the kinds of death apart?** Within one kind its correlation is "
        f"{inside.text()}, {_tells(inside)}; its lead over the loss there {lead.text()}. Without threshold "
        f"death: {without}."
    )


def _rival(found: Measured, epoch: int) -> str:
    """The best of all others, which is chosen with hindsight."""
    rivals = [name for name, entry in ENTRIES.items() if entry.family in ("rival", "loss")]
    values = {name: value(found, name, epoch) for name in rivals}
    known = {name: rho for name, rho in values.items() if not math.isnan(rho)}
    if not known:
        return "**Does something cheaper do as well?** Nothing else was measured."
    best = max(known, key=lambda name: known[name])
    own = estimate(found, best, epoch)
    lead = bootstrap.difference(own, estimate(found, "spectrum", epoch))
    return (
        f"**Does something cheaper do as well?** The best of {len(known)} signals without a spectrum is "
        f"“{ENTRIES[best].label}” at {own.text()}; its lead over the spectrum: {lead.text()}. It was chosen "
        "with hindsight, for which the intervals do not account."
    )


def _when(found: Measured) -> str:
    texts = [
        f"{ENTRIES[name].label}: {_telling_epochs(found, name)}"
        for name in ("spectrum", "full", "mean_exponent", "loss", "training_losses")
        if not math.isnan(value(found, name, found.epochs[-1]))
    ]
    chance = estimate(found, "none", found.epochs[-1])
    return (
        f"**From which epoch?** The correlation's interval lies above 0 at epochs: {'; '.join(texts)}. By "
        "chance alone one interval in forty would at each epoch, and 95 % of the correlations would lie "
        f"between {chance.low:.2f} and {chance.high:.2f}."
    )


def _telling_epochs(found: Measured, name: str) -> str:
    """The epochs (0 apart) at which a signal tells, and at which it misleads, as ranges."""
    estimates = {epoch: estimate(found, name, epoch) for epoch in found.epochs if epoch > 0}
    telling = _ranges([epoch for epoch, own in estimates.items() if own.low > 0])
    misleading = _ranges([epoch for epoch, own in estimates.items() if own.high < 0])
    text = telling or f"none to {found.epochs[-1]}"
    return f"{text}, below 0 at {misleading}" if misleading else text


def _ranges(epochs: Sequence[int]) -> str:
    """Ascending epochs as text: "1, 3 to 5"."""
    ranges: list[list[int]] = []
    for epoch in epochs:
        if ranges and ranges[-1][-1] == epoch - 1:
            ranges[-1].append(epoch)
        else:
            ranges.append([epoch])
    texts = [f"{part[0]} to {part[-1]}" if len(part) > 1 else str(part[0]) for part in ranges]
    return ", ".join(texts)


def _buys(outcomes: Sequence[Outcome]) -> str:
    names = dict.fromkeys(item.point.signal for item in outcomes if item.point.family == GRID)
    texts = [f"{ENTRIES[name].label}, {_needed(outcomes, name)}" for name in names if name is not None]
    by_chance = [item for item in outcomes if item.point.family == RANDOM and item.mean.value <= WITHIN]
    full = next(item for item in outcomes if item.point.family == FULL)
    return (
        "**What does it buy?** Epochs on candidates until LSH over the grid comes within "
        f"{100 * WITHIN:.0f} % of the best on average: {'; '.join(texts)}. Random search, each candidate "
        f"trained to the end: {epochs_text(by_chance)}. Training all "
        f"{full.point.strategy.candidates} to the end: {full.epochs:.0f}."
    )


def _needed(outcomes: Sequence[Outcome], signal: str) -> str:
    own = [item for item in outcomes if (item.point.family, item.point.signal) == (GRID, signal)]
    return epochs_text([item for item in own if item.mean.value <= WITHIN]) if own else "–"


def _verdict(lead: Estimate, yes: str, no: str) -> str:
    if lead.low > 0:
        return yes
    return no if lead.high < 0 else "Not told apart"


def _tells(found: Estimate) -> str:
    if found.low > 0:
        return "so it tells more than the kind"
    return "which lies below 0" if found.high < 0 else "which cannot be told from 0"


def _table(found: Measured, outcomes: Sequence[Outcome], epoch: int) -> str:
    epochs = [item for item in _EPOCHS if item in found.epochs]
    rows = [
        [
            ENTRIES[name].label,
            *(estimate(found, name, item).text() for item in epochs),
            estimate(found, name, epoch, "within").text(),
            _needed(outcomes, name),
        ]
        for name in SHOWN
    ]
    head = ["signal", *(f"ρ, epoch {item}" for item in epochs), f"within kinds, epoch {epoch}"]
    return table([*head, f"LSH over the grid: epochs to {100 * WITHIN:.0f} %"], rows)
