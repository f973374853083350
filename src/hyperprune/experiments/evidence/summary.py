"""The answer in short, by rules from the records: use the spectrum? from which epoch? what does it buy?

A verdict is a rule, so that nobody's wish decides it (`correlation.is_shown`). A lead is shown where its
interval leaves out 0 and the leading signal itself is shown to point the right way.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from hyperprune.experiments.evidence.across import Kinds, by_trait, never_changes
from hyperprune.experiments.evidence.chance import chance, trained_fully
from hyperprune.experiments.evidence.correlation import (
    Measured,
    estimate,
    is_shown,
    lead,
    p_text,
    p_value,
    seeds_text,
    told,
    value,
    with_p,
)
from hyperprune.experiments.evidence.searching import (
    AS_WELL,
    DEFAULT_SCHEDULE,
    FULL,
    GRID,
    SIGNALS,
    Outcome,
    chance_texts,
)
from hyperprune.experiments.evidence.signals import ENTRIES
from hyperprune.experiments.evidence.text import ranges, table
from hyperprune.experiments.evidence.why import twin_differences
from hyperprune.experiments.evidence.worlds import World, kind_of
from hyperprune.hypersearch.strategies import LSH

MAIN = ("spectrum", "full", "mean_exponent", "loss", "training_losses")
_WITHOUT_DENSE = ("mean_exponent", "loss", "training_losses", "none")
"""Of the signals shown those that need no dense model."""


def answer(
    found: Measured,
    kinds: Kinds | None,
    outcomes: Sequence[Outcome],
    epoch: int,
    others: Sequence[Measured] = (),
) -> str:
    """A table of the main signals, and what follows from it by rule.

    Args:
        found: the signals of the main world.
        kinds: of all methods in it, where others than the space's were recorded.
        outcomes: of the searches replayed in it.
        epoch: of the paper's first elimination.
        others: the signals of the other worlds.
    """
    runs = found.world.table.runs
    counts = sorted({len(run.candidates) for run in runs})
    opening = (
        f"In {found.world.title} ({_seeds(len(runs))}, {' or '.join(map(str, counts))} candidates each, "
        f"{found.world.table.final_epochs} epochs):"
    )
    verdicts = [_use_it(found, epoch), _within_kinds(found, epoch), _when(found)]
    verdicts += [] if kinds is None else [_across(kinds, epoch)]
    verdicts += [_elsewhere(others, epoch)] if others else []
    verdicts += [_buys(found.world, outcomes), _rival(found, epoch)]
    lines = "\n".join(f"- {text}" for text in verdicts)
    return f"{opening}\n\n{lines}\n\n{_table(found, outcomes, epoch)}"


def _use_it(found: Measured, epoch: int) -> str:
    num_kinds = len({kind for kinds in found.groups for kind in kinds})
    return (
        f"**Does the spectrum tell more than the loss?** {_spectrum_against_loss(found, epoch)} The "
        "intervals take candidates for independent; p is how often the same comes about when the "
        f"{num_kinds} kinds of death exchange their ends."
    )


def _elsewhere(others: Sequence[Measured], epoch: int) -> str:
    texts = [
        f"{found.world.title} ({_seeds(len(found.finals))}): {_spectrum_against_loss(found, epoch)}"
        for found in others
    ]
    return f"**And in the other worlds?** {' '.join(texts)}"


def _spectrum_against_loss(found: Measured, epoch: int) -> str:
    """The verdict, and what it stands on."""
    margin = lead(found, "spectrum", "loss", epoch)
    ahead = "spectrum" if margin.value > 0 else "loss"
    is_ahead = (margin.low > 0 or margin.high < 0) and _tells(found, ahead, epoch)
    verdict = "Not shown" if not is_ahead else "Yes" if ahead == "spectrum" else "No"
    if is_ahead and len(found.finals) == 1:
        verdict += ", in its only seed"
    names = [name for name in MAIN if not math.isnan(value(found, name, epoch))]
    texts = ", ".join(f"{ENTRIES[name].label} {with_p(found, name, epoch)}" for name in names)
    return (
        f"{verdict}. Rank correlation with the final metric at epoch {epoch}: {texts}. "
        f"{_shown_text(found, names, epoch)}. Lead of the hidden state's spectrum over the loss: "
        f"{margin.text()}; of the training losses over that spectrum: "
        f"{lead(found, 'training_losses', 'spectrum', epoch).text()}."
    )


def _seeds(count: int) -> str:
    return f"{count} seed{'' if count == 1 else 's'}"


def _shown_text(found: Measured, names: Sequence[str], epoch: int, among: str = "all") -> str:
    shown = [
        f"{ENTRIES[name].label}{' (the wrong way)' if value(found, name, epoch, among) < 0 else ''}"
        for name in names
        if is_shown(found, name, epoch, among)
    ]
    only = ", in the only seed" if len(found.finals) == 1 else ""
    return f"Shown{only}: {', '.join(shown)}" if shown else "None of them is shown"


def _within_kinds(found: Measured, epoch: int) -> str:
    own = estimate(found, "spectrum", epoch, "within")
    tells = is_shown(found, "spectrum", epoch, "within") and own.value > 0
    without = ", ".join(
        f"{told(estimate(found, name, epoch, 'without threshold'))} by {ENTRIES[name].label}"
        for name in ("spectrum", "full", "loss", "training_losses")
        if not math.isnan(value(found, name, epoch))
    )
    verdict = "It tells more" if tells else "More is not shown"
    return (
        f"**Or does it only tell the kinds of death apart?** {verdict}: within one kind its correlation is "
        f"{with_p(found, 'spectrum', epoch, 'within')}, its lead over the loss there "
        f"{lead(found, 'spectrum', 'loss', epoch, 'within').text()}. Without threshold death: {without}."
    )


def _across(kinds: Kinds, epoch: int) -> str:
    """The main signals with kinds of pruning as units, methods outside the space among them."""
    sparse, trait = kinds.sparse, by_trait(kinds)

    def texts(found: Measured, names: Sequence[str], among: str = "all") -> str:
        return ", ".join(f"{ENTRIES[name].label} {with_p(found, name, epoch, among)}" for name in names)

    leads = " and ".join(
        f"{lead(sparse, name, 'loss', epoch).text()} of the {state} state's"
        for name, state in (("spectrum", "hidden"), ("full", "full"))
    )
    seeds = ", ".join(map(str, kinds.seeds))
    return (
        f"**Does a signal tell which method ends well?** Of the {len(sparse.groups[0])} kinds of pruning "
        f"recorded here that begin sparse (seed {seeds}), rank correlation of the kinds' means at epoch "
        f"{epoch}: {texts(sparse, MAIN)}. {_shown_text(sparse, MAIN, epoch)}. Lead over the loss: "
        f"{leads} spectrum. But that a mask never changes, which is known before training, has "
        f"{never_changes(kinds)}. Given that: {texts(trait, ('spectrum', 'full', 'loss'), 'within')}. "
        f"{_shown_text(trait, ('spectrum', 'full', 'loss'), epoch, 'within')}."
    )


def _rival(found: Measured, epoch: int) -> str:
    """The best of all others, which is chosen with hindsight."""
    rivals = [name for name, entry in ENTRIES.items() if entry.family in ("rival", "loss")]
    values = {name: value(found, name, epoch) for name in rivals}
    known = {name: rho for name, rho in values.items() if not math.isnan(rho)}
    if not known:
        return "**Does something cheaper do as well?** Nothing else was measured."
    best = max(known, key=lambda name: known[name])
    over = "" if best == "loss" else f"; its lead over the loss: {lead(found, best, 'loss', epoch).text()}"
    late = found.epochs[-1]
    return (
        f"**Does something else do better?** The best of {len(known)} signals without a spectrum, chosen "
        f"with hindsight, is “{ENTRIES[best].label}”: {with_p(found, best, epoch)}{over}. At epoch "
        f"{late} it has {estimate(found, best, late).text()}."
    )


def _when(found: Measured) -> str:
    names = [name for name in MAIN if not math.isnan(value(found, name, found.epochs[-1]))]
    texts = [f"{ENTRIES[name].label}: {_telling_epochs(found, name)}" for name in names]
    shown = {name: [epoch for epoch in found.epochs[1:] if _tells(found, name, epoch)] for name in names}
    lines = [f"{ENTRIES[name].label} at {ranges(epochs)}" for name, epochs in shown.items() if epochs]
    verdict = f"Shown: {'; '.join(lines)}." if lines else "Of no signal shown, at no epoch."
    return (
        f"**From which epoch?** {verdict} The interval alone lies above 0 at epochs: {'; '.join(texts)}. Of "
        f"{len(found.epochs) - 1} epochs and {len(texts)} signals some will by chance."
    )


def _tells(found: Measured, name: str, epoch: int) -> bool:
    return value(found, name, epoch) > 0 and is_shown(found, name, epoch)


def _telling_epochs(found: Measured, name: str) -> str:
    """The epochs (0 apart) at which a signal tells, and at which it misleads, as ranges."""
    estimates = {epoch: estimate(found, name, epoch) for epoch in found.epochs if epoch > 0}
    telling = ranges([epoch for epoch, own in estimates.items() if own.low > 0])
    misleading = ranges([epoch for epoch, own in estimates.items() if own.high < 0])
    text = telling or f"none to {found.epochs[-1]}"
    return f"{text}, below 0 at {misleading}" if misleading else text


def _buys(world: World, outcomes: Sequence[Outcome]) -> str:
    own, by_chance = _by_default_schedule(outcomes), chance(world)
    full = next(item for item in outcomes if item.point.family == FULL)
    text = "**What does it buy?** "
    if own:
        texts = [
            f"{ENTRIES[name].label} {100 * item.mean.value:.1f} %"
            for name, item in sorted(own.items(), key=lambda pair: pair[1].mean.value)
            if name != "none"
        ]
        low, high = 100 * np.percentile(by_chance.draws, [2.5, 97.5])
        epochs = next(iter(own.values())).epochs
        fully = trained_fully(world, epochs)
        text += (
            f"Mean regret of LSH over the grid, {_schedule(own)}: {epochs:.0f} epochs on candidates (all "
            f"{full.point.strategy.candidates} to the end: {full.epochs:.0f}): {', '.join(texts)}. "
            f"Eliminating by chance: {100 * by_chance.mean:.1f} % (95 % of the draws: {low:.1f} to "
            f"{high:.1f}). As many epochs spent on random candidates, {fully.picks} of them, each trained to "
            f"the end: {100 * fully.mean:.1f} %. They do as well in so many of the draws: "
            f"{_as_good(own, world)}."
        )
    kind, regret = _by_kind_alone(world)
    text += f" Knowing only that {kind} ends best, and drawing one of it: {100 * regret:.1f} %."
    twins = twin_differences(world)
    if twins:
        text += (
            " Two runs of one recipe that differ in random draws alone end "
            f"{', '.join(f'{100 * twin:.1f} %' for twin in twins)} apart ({len(twins)} pairs)."
        )
    return text


def _as_good(own: Mapping[str, Outcome], world: World) -> str:
    """How often random candidates, trained fully, do as well as each of the main signals."""
    texts = [f"{ENTRIES[name].label} {chance_texts(own[name], world)[1]}" for name in MAIN if name in own]
    return ", ".join(texts)


def _by_kind_alone(world: World) -> tuple[str, float]:
    """The kind of death that ends best, known with hindsight, and the mean regret of drawing one of it."""
    by_kind: dict[str, list[float]] = {}
    for run in world.table.runs:
        finals = world.finals(run)
        regrets = (finals - finals.min()) / abs(finals.min())
        for configuration, regret in zip(run.configurations, regrets, strict=True):
            by_kind.setdefault(kind_of(configuration), []).append(float(regret))
    means = {kind: float(np.mean(regrets)) for kind, regrets in by_kind.items()}
    best = min(means, key=lambda kind: means[kind])
    return best, means[best]


def _by_default_schedule(outcomes: Sequence[Outcome]) -> dict[str, Outcome]:
    """By signal, LSH over the grid with the library's schedule, or the first that fits if that is longer."""
    grids = [item for item in outcomes if item.point.family == GRID and item.point.signal]
    schedules = [_first_and_each(item) for item in grids]
    chosen = DEFAULT_SCHEDULE if DEFAULT_SCHEDULE in schedules else next(iter(schedules), None)
    return {
        item.point.signal: item
        for item, schedule in zip(grids, schedules, strict=True)
        if schedule == chosen and item.point.signal is not None
    }


def _first_and_each(outcome: Outcome) -> tuple[int, int]:
    strategy = outcome.point.strategy
    assert isinstance(strategy, LSH)
    return strategy.first_epochs, strategy.round_epochs


def _schedule(own: Mapping[str, Outcome]) -> str:
    first, each = _first_and_each(next(iter(own.values())))
    return f"first cut after epoch {first}, then every {'epoch' if each == 1 else f'{each} epochs'}"


def _table(found: Measured, outcomes: Sequence[Outcome], epoch: int) -> str:
    epochs = found.told_epochs
    own, by_chance = _by_default_schedule(outcomes), chance(found.world)
    rows = []
    for name in SIGNALS:
        schedules = [item for item in outcomes if (item.point.family, item.point.signal) == (GRID, name)]
        regrets = [100 * (by_chance.mean if name == "none" else item.mean.value) for item in schedules]
        rows.append(
            [
                ENTRIES[name].label,
                "no" if name in _WITHOUT_DENSE else "yes",
                *(estimate(found, name, item).text() for item in epochs),
                seeds_text(estimate(found, name, epoch)),
                p_text(p_value(found, name, epoch)),
                told(estimate(found, name, epoch, "within")),
                f"{100 * (by_chance.mean if name == 'none' else own[name].mean.value):.1f}"
                if name in own
                else "–",
                *(chance_texts(own[name], found.world) if name in own else ("–", "–")),
                f"{min(regrets):.1f} to {max(regrets):.1f}" if regrets else "–",
            ]
        )
    told_schedule = f"LSH over the grid, {_schedule(own)}" if own else "LSH over the grid"
    head = ["signal", "needs the dense model", *(f"ρ, epoch {item}" for item in epochs)]
    head += [f"each seed, epoch {epoch}", f"p by kinds, epoch {epoch}", f"within kinds, epoch {epoch}"]
    return table([*head, f"regret, %: {told_schedule}", *AS_WELL, "all its schedules"], rows)
