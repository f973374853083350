"""Question 3: what the LSH paper's searches end with: its tables 2 and 3 and its figure 3, replayed."""

from __future__ import annotations

import itertools
import math
import statistics as plain
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from hyperprune.errors import InputError
from hyperprune.experiments.evidence.death_rates import widest
from hyperprune.experiments.evidence.searching import (
    DEFAULT_SCHEDULE,
    GRID,
    TPE,
    Outcome,
    Point,
    outcomes,
    seeds_of,
    selection_epochs,
    total_epochs,
)
from hyperprune.experiments.evidence.signals import known_to_the_search
from hyperprune.experiments.evidence.text import table
from hyperprune.experiments.evidence.worlds import FIRST_RATE, World, restricted, setting
from hyperprune.experiments.methods_study import published_figures
from hyperprune.hypersearch.strategies import LSH
from hyperprune.hypersearch.table import CandidateTable

BUDGETS = (8, 12, 16, 24, 30, 36, 40)
ADAPTIVE = "LSH, adaptive TPE"
TPE_REPEATS = 200  # each takes a tenth of a second
ADAPTIVE_REPEATS = 50  # seconds
ENOUGH_FOR_ADAPTIVE = 10  # survivors of the first round; hyperopt draws at random until it knows so many
SCHEDULES = tuple(itertools.product((1, 2, 3), (1, 2, 3, 4)))
COMPARED = {"spectrum": "spectrum", "loss": "loss", "training_losses": "training losses"}  # the third is ours
RATIO_CANDIDATES = 20


def published_budgets_table() -> str:
    """The paper's Table 2."""
    quoted = published_figures("lsh_budgets")
    counts = list(next(iter(quoted.values())))
    rows = [
        [name, *(" ± ".join(f"{item:.1f}" for item in values[count]) for count in counts)]
        for name, values in quoted.items()
    ]
    return table(["paper: test perplexity", *(f"{count} initial candidates" for count in counts)], rows)


def budgets_table(world: World, *, repeats: int, cache: Path, workers: int) -> str:
    """Table 2: how the outcome depends on the number of initial candidates, and on who proposes more."""
    data = widest(world)
    found: list[Outcome] = []
    counts = {"tpe": min(repeats, TPE_REPEATS), "atpe": min(repeats, ADAPTIVE_REPEATS)}
    for proposer, most in counts.items():
        points = _budgets(data, proposer)
        found += outcomes(data, points, repeats=most, cache=cache, workers=workers) if points else []
    if not found:
        return "No budget fits into so few candidates and epochs."
    rows = []
    for count, proposer in dict.fromkeys(_budget_of(item.point) for item in found):
        own = [item for item in found if _budget_of(item.point) == (count, proposer)]
        rows.append(
            [
                str(count),
                {"tpe": "TPE", "atpe": "adaptive TPE"}[proposer],
                str(own[0].point.strategy.created),
                f"{own[0].epochs:.0f}",
                *(_spread(item.regret) for item in own),
            ]
        )
    adaptive = any(item.point.family == ADAPTIVE for item in found)
    fewer = f" ({counts['atpe']} with adaptive TPE)" if adaptive else ""
    about = (
        f"{counts['tpe']:,} replays{fewer} on {data.num_rows} candidates of {seeds_of(data)}. In brackets: "
        "2.5 to 97.5 % of the picks."
    )
    regrets = [f"{name}: mean regret, %" for name in COMPARED.values()]
    head = ["initial candidates (e0, ei = 1, 1)", "proposer", "created", "epochs", *regrets]
    return f"{about}\n\n{table(head, sorted(rows, key=lambda row: int(row[0])))}"


def _budgets(data: CandidateTable, proposer: str) -> list[Point]:
    """The searches that the table's rows suffice for, and in which the proposer is more than chance."""
    points = []
    for count, signal in itertools.product(BUDGETS, COMPARED):
        make = partial(
            LSH, candidates=count, first_epochs=1, round_epochs=1, proposer=proposer, signal=signal
        )
        lsh = _fitting(make, data)
        if lsh is None or lsh.created > data.num_rows:
            continue
        if proposer == "tpe":
            points.append(Point(family=TPE, signal=signal, strategy=lsh))
        elif math.ceil(count / 2) >= ENOUGH_FOR_ADAPTIVE:
            points.append(Point(family=ADAPTIVE, signal=signal, strategy=lsh))
    return points


def _budget_of(point: Point) -> tuple[int, str]:
    assert isinstance(point.strategy, LSH)
    return point.strategy.candidates, point.strategy.proposer


def _spread(regret: Sequence[np.ndarray]) -> str:
    """The mean of the replays, and where nearly all of them lie."""
    percent = 100 * np.concatenate(regret)
    low, high = np.percentile(percent, [2.5, 97.5])
    return f"{percent.mean():.1f} ({low:.1f} to {high:.1f})"


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """The outcomes at one sparsity, as final metrics (means over seeds); NaN where not recorded.

    Attributes:
        seeds: how many.
        ranges: of the searches, 2.5 and 97.5 % of the replays' picks (means over seeds).
    """

    sparsity: float
    seeds: int
    metrics: dict[str, float]
    ranges: dict[str, tuple[float, float]]


def ratios(worlds: Sequence[World], *, repeats: int, cache: Path, workers: int) -> list[Ratio]:
    """Figure 3: what LSH and its rivals end with, by sparsity; searches draw 20 candidates as there."""
    first = worlds[0]
    found = []
    for world in sorted((item for item in worlds if item.name == first.name), key=lambda item: item.sparsity):
        data = restricted(world.table, lambda item: setting(item, "death_rate") == FIRST_RATE)
        if data is None:
            continue
        found.append(_ratio(world, data, repeats=repeats, cache=cache, workers=workers))
    return found


def _ratio(world: World, data: CandidateTable, *, repeats: int, cache: Path, workers: int) -> Ratio:
    finals = [np.array([data.final_metric(records) for records in run.candidates]) for run in data.runs]
    best = [float(values.min() if data.lower_is_better else values.max()) for values in finals]
    metrics = {
        "dense model": plain.mean(data.final_metric(run.reference) for run in data.runs),
        "best candidate": plain.mean(best),
        "median candidate": plain.mean(float(np.median(values)) for values in finals),
        "Selfish-RNN": _named(data, death="magnitude", allocation="uniform", redistribution="none"),
    }
    names = {signal: f"LSH by {name}" for signal, name in {**COMPARED, "none": "chance"}.items()}
    count = min(RATIO_CANDIDATES, data.num_rows)
    points = []
    for signal in names:
        with known_to_the_search():
            grid = partial(LSH, candidates=count, proposer="grid", signal=signal)
            first, each = DEFAULT_SCHEDULE
            lsh = _fitting(partial(grid, first_epochs=first, round_epochs=each), data)
        if lsh is not None:
            points.append(Point(family=GRID, signal=signal, strategy=lsh))
    sign = 1.0 if data.lower_is_better else -1.0
    ranges: dict[str, tuple[float, float]] = {}
    for item in outcomes(data, points, repeats=repeats, cache=cache, workers=workers):
        assert item.point.signal is not None
        picks = [top * (1 + sign * regret) for top, regret in zip(best, item.regret, strict=True)]
        name = names[item.point.signal]
        metrics[name] = plain.mean(float(values.mean()) for values in picks)
        low, high = np.mean([np.percentile(values, [2.5, 97.5]) for values in picks], axis=0)
        ranges[name] = (float(low), float(high))
    return Ratio(sparsity=world.sparsity, seeds=len(data.runs), metrics=metrics, ranges=ranges)


def _named(data: CandidateTable, **settings: str) -> float:
    values = [
        data.final_metric(records)
        for run in data.runs
        for configuration, records in zip(run.configurations, run.candidates, strict=True)
        if all(setting(configuration, name) == value for name, value in settings.items())
    ]
    return plain.mean(values) if values else float("nan")


def ratios_table(found: Sequence[Ratio]) -> str:
    names = list(dict.fromkeys(name for item in found for name in item.metrics))
    rows = [[name, *(_ratio_text(item, name) for item in found)] for name in names]
    seeds = [f"{item.seeds} seed{'s' if item.seeds > 1 else ''}" for item in found]
    columns = [f"sparsity {item.sparsity:g} ({text})" for item, text in zip(found, seeds, strict=True)]
    first, each = DEFAULT_SCHEDULE
    return table([f"final metric; LSH with e0, ei = {first}, {each}", *columns], rows)


def _ratio_text(item: Ratio, name: str) -> str:
    if name not in item.metrics:
        return "–"
    span = "({:.4g} to {:.4g})".format(*item.ranges[name]) if name in item.ranges else ""
    return f"{item.metrics[name]:.4g} {span}".strip()


def schedules_table(world: World, *, repeats: int, cache: Path, workers: int) -> str:
    """Table 3: epochs of the selection, the paper's formula beside ours, and what each schedule loses."""
    data = restricted(world.table, lambda item: setting(item, "death_rate") == FIRST_RATE)
    if data is None:
        return f"Not recorded yet at death rate {FIRST_RATE:g}."
    rows = []
    for first_epochs, round_epochs in SCHEDULES:
        lsh = partial(LSH, candidates=data.num_rows, first_epochs=first_epochs, round_epochs=round_epochs)
        grid = _fitting(partial(lsh, proposer="grid"), data)
        inserting = _fitting(partial(lsh, proposer="tpe"), data)
        if grid is None:
            continue
        points = [
            Point(family=GRID, signal=signal, strategy=replace(grid, signal=signal)) for signal in COMPARED
        ]
        found = outcomes(data, points, repeats=repeats, cache=cache, workers=workers)
        rows.append(
            [
                f"{first_epochs}, {round_epochs}",
                str(24 * first_epochs + 58 * round_epochs),
                "–" if inserting is None else str(selection_epochs(inserting)),
                str(selection_epochs(grid)),
                str(total_epochs(grid)),
                *(item.mean.percent() for item in found),
            ]
        )
    head = [
        "e0, ei",
        "paper: 24·e0 + 58·ei",
        "ours, with insertion",
        "ours, grid",
        "grid with the finalists",
        *(f"grid by {name}: mean regret, %" for name in COMPARED.values()),
    ]
    return table(head, rows)


def _fitting(make: partial[LSH], data: CandidateTable) -> LSH | None:
    """The strategy with the table's epochs; None where its selection is longer."""
    try:
        return make(final_epochs=data.final_epochs)
    except InputError:
        return None
