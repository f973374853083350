"""Question 3: the tables and the figure of the LSH paper, in the recorded worlds.

Axes: R candidates, B samples, S exponents, E epochs.
"""

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
from hyperprune.experiments.cells import Record, read_records
from hyperprune.experiments.evidence.death_rates import widest
from hyperprune.experiments.evidence.searching import (
    DEFAULT_SCHEDULE,
    GRID,
    TPE,
    Outcome,
    Point,
    outcomes,
    selection_epochs,
    total_epochs,
)
from hyperprune.experiments.evidence.signals import known_to_the_search
from hyperprune.experiments.evidence.text import table
from hyperprune.experiments.evidence.worlds import World, kind_of, restricted, setting
from hyperprune.experiments.methods_study import published_figures
from hyperprune.experiments.methods_tables import to_tables
from hyperprune.hypersearch.ranks import spearman
from hyperprune.hypersearch.strategies import LSH
from hyperprune.hypersearch.table import CandidateTable
from hyperprune.records import EpochRecord
from hyperprune.spectra import compared_vector, spectrum_distance

BUDGETS = (8, 12, 16, 24, 30, 36, 40)
ADAPTIVE = "LSH, adaptive TPE"
ADAPTIVE_REPEATS = 50  # each takes seconds
ENOUGH_FOR_ADAPTIVE = 10  # survivors of the first round; hyperopt draws at random until it knows so many
FIRST_RATE = 0.8
SCHEDULES = tuple(itertools.product((1, 2, 3), (1, 2, 3, 4)))
COMPARED = {"spectrum": "spectrum", "loss": "loss", "training_losses": "training losses"}  # the third is ours
SAMPLE_COUNTS = (1, 2, 5, 10)
RATIO_CANDIDATES = 20


def methods_table(path: Path) -> str:
    """Table 1: the order of published methods, ours from the methods study beside the paper's."""
    records = read_records(path)
    if not records:
        return f"Not recorded yet: `hyperprune reproduce methods` writes what belongs into {path.name}."
    first = records[0]
    about = (
        f"Test perplexity on `{first['task']}` after {first['epochs']} epochs, mean over seeds, half their "
        "range in brackets; how it was made stands in [methods.md](methods.md)."
    )
    return f"{about}\n\n{to_tables(records)}"


def published_table() -> str:
    """All of the paper's Table 1: its methods, and its searches by signal and proposer."""
    columns = {"stacked LSTM, sparsity 0.67": "stacked_lstm_067", "RHN, sparsity 0.53": "rhn_053"}
    methods = [published_figures(name) for name in columns.values()]
    searches = [published_figures("lsh_searches")[name] for name in columns.values()]
    rows = [[name, *(_test_and_valid(column[name]) for column in methods)] for name in methods[0]]
    rows += [
        [f"search by {label}, {proposer}", *(_test_and_valid(column[led][proposer]) for column in searches)]
        for led, label in (("loss", "loss"), ("lsh", "spectrum (LSH)"))
        for proposer in searches[0][led]
    ]
    return table(["paper: test perplexity (validation)", *columns], rows)


def _test_and_valid(quoted: Sequence[float]) -> str:
    return "{:.1f} ({:.1f})".format(*quoted)


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
    for proposer, most in {"tpe": repeats, "atpe": min(repeats, ADAPTIVE_REPEATS)}.items():
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
    seeds = ", ".join(str(run.seed) for run in data.runs)
    adaptive = any(item.point.family == ADAPTIVE for item in found)
    fewer = f" ({min(repeats, ADAPTIVE_REPEATS)} with adaptive TPE)" if adaptive else ""
    about = (
        f"{repeats:,} replays{fewer} on {data.num_rows} candidates of seed {seeds}. In brackets: 2.5 to "
        "97.5 % of the picks."
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


def samples_table(world: World, epoch: int) -> str:
    """Table 4: spectra from few samples and from ten; the spread between samples and between models."""
    rows = []
    if epoch in _sampled_epochs(world):
        for run in world.table.runs:
            finals = world.finals(run)
            chosen = {"best": int(finals.argmin()), "worst": int(finals.argmax())}
            for name, index in chosen.items():
                samples_BS = _samples(run.candidates[index][epoch])
                for count in (2, len(samples_BS)):
                    mean_S = samples_BS[:count].mean(axis=0)
                    rows.append(
                        [
                            f"seed {run.seed}, epoch {epoch}, {name}",
                            str(count),
                            f"{mean_S.max():.3f}",
                            f"{mean_S.mean():.3f}",
                            f"{mean_S.var():.3f}",
                        ]
                    )
    for name, values in published_figures("lsh_samples").items():
        for count, quoted in values.items():
            rows.append([f"paper, {name.replace('_', ' ')}", count, *(f"{value:.2f}" for value in quoted)])
    head = ["model", "samples", "largest", "mean", "variance"]
    return table(head, rows) + "\n\n" + _spread_table(world)


def _spread_table(world: World) -> str:
    """How far apart samples of one model are, and models; and what the signal says from few samples."""
    rows = []
    for epoch in _sampled_epochs(world):
        found: dict[int, list[float]] = {count: [] for count in SAMPLE_COUNTS}
        between_samples, between_models = [], []
        for run in world.table.runs:
            dense_BS = _samples(run.reference[epoch])
            models = [_samples(records[epoch]) for records in run.candidates]
            finals = world.finals(run)
            means = np.stack([samples_BS.mean(axis=0) for samples_BS in models])
            between_samples += [
                np.linalg.norm(samples_BS - samples_BS.mean(axis=0), axis=1).mean() for samples_BS in models
            ]
            between_models.append(np.linalg.norm(means - means.mean(axis=0), axis=1).mean())
            for count in SAMPLE_COUNTS:
                distances = [
                    np.linalg.norm(dense_BS[:count].mean(axis=0) - samples_BS[:count].mean(axis=0))
                    for samples_BS in models
                ]
                found[count].append(spearman(np.array(distances), finals))
        rows.append(
            [
                str(epoch),
                f"{np.mean(between_samples):.2f}",
                f"{np.mean(between_models):.2f}",
                *(f"{np.mean(found[count]):+.2f}" for count in SAMPLE_COUNTS),
            ]
        )
    head = ["epoch", "L2, a sample to its model's mean", "L2, a model to the models' mean"]
    return table([*head, *(f"ρ of the distance (L2), {count} samples" for count in SAMPLE_COUNTS)], rows)


def _sampled_epochs(world: World) -> list[int]:
    first = world.table.runs[0].reference[1:-1]
    return [record.epoch for record in first if "spectrum_samples" in record.probes]


def _samples(record: EpochRecord) -> np.ndarray:
    """(B, S) each sample's spectrum, −∞ set to the floor that distances use."""
    values_BS = np.asarray(record.probes["spectrum_samples"], dtype=np.float64)
    return np.stack([compared_vector(values_S) for values_S in values_BS])


def first_round_table(world: World, epoch: int = 3) -> str:
    """The published pool after 3 epochs at paper scale, beside ours: spectrum distance and perplexity."""
    paper = published_first_round()
    rows = []
    for kind in ("threshold", "magnitude", "global_magnitude", "set"):
        distances, metrics, finals = [], [], []
        for run in world.table.runs:
            values = world.finals(run)
            for index, configuration in enumerate(run.configurations):
                if kind_of(configuration) != kind:
                    continue
                records = run.candidates[index]
                dense, own = run.reference[epoch].spectrum, records[epoch].spectrum
                if dense is not None and own is not None:
                    distances.append(spectrum_distance([dense], [own], embedding="none"))
                metrics.append(records[epoch].metric)
                finals.append(abs(values[index]))
        if metrics:
            quoted = paper[kind]
            rows.append(
                [
                    kind,
                    f"{np.mean(distances):.2f}" if distances else "–",
                    f"{np.mean(metrics):.4g}",
                    f"{np.mean(finals):.4g}",
                    f"{quoted[0]:.1f}",
                    f"{quoted[1]:.1f}",
                ]
            )
    dense = np.mean([run.reference[epoch].metric for run in world.table.runs])
    final = np.mean([world.table.final_metric(run.reference) for run in world.table.runs])
    curve = published_figures("dense_curve")
    rows.append(["dense model", "0", f"{dense:.4g}", f"{final:.4g}", "0", f"{curve['3']:.1f}"])
    head = [
        "kind of death",
        f"distance, epoch {epoch}",
        f"{world.table.metric}, epoch {epoch}",
        "final",
        "paper: distance",
        "paper: perplexity",
    ]
    return table(head, rows) + "\n\n" + _agreement_text(world, epoch)


def _agreement_text(world: World, epoch: int) -> str:
    """Whether distance and metric prefer the same candidates then."""
    values = []
    for run in world.table.runs:
        pairs = [
            (spectrum_distance([dense], [own], embedding="none"), records[epoch].valid_loss)
            for records in run.candidates
            if (dense := run.reference[epoch].spectrum) is not None
            and (own := records[epoch].spectrum) is not None
        ]
        if pairs:
            distances, losses = np.array(pairs).T
            values.append(spearman(distances, losses))
    paper = published_figures("lsh_first_round_agreement")
    ours = f"{np.mean(values):+.2f} among ours, " if values else ""
    return (
        f"Rank correlation of the spectrum's distance with the loss at that epoch: {ours}"
        f"{paper['rank_correlation']:+.2f} among the {paper['candidates']} published. The published winner "
        f"was number {paper['winner_by_distance']} by distance and {paper['winner_by_perplexity']} by "
        "perplexity."
    )


def published_first_round() -> dict[str, tuple[float, float]]:
    """Mean spectrum distance and validation perplexity after 3 epochs, by kind of death."""
    return {name: (one, other) for name, (one, other) in published_figures("lsh_first_round").items()}


def curve_table(records: Sequence[Record]) -> str:
    """Dense models trained with the paper's recipe, beside the published validation perplexities."""
    rows = []
    for record in records:
        for epoch, quoted in published_figures("dense_curve").items():
            if int(epoch) < len(record["valid"]):
                name = f"{record['table']}, seed {record['seed']}, epoch {epoch}"
                rows.append([name, f"{record['valid'][int(epoch)]:.1f}", f"{quoted:.1f}"])
    return table(["dense model", "validation perplexity", "paper"], rows)
