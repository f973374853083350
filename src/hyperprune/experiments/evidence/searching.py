"""Question 2: what does a search that trusts a signal lose, and what does it cost?

Every point is a strategy with a schedule, replayed many times on recorded candidates. Replays on one table
are deterministic, so their outcomes are kept in a cache folder, by the table's content.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import sys
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from hyperprune import rng
from hyperprune.errors import InputError
from hyperprune.experiments.evidence import bootstrap, signals
from hyperprune.experiments.evidence.bootstrap import Estimate
from hyperprune.experiments.evidence.chance import chance, trained_fully
from hyperprune.experiments.evidence.signals import ENTRIES, known_to_the_search, values_of
from hyperprune.experiments.evidence.text import table
from hyperprune.experiments.evidence.worlds import World
from hyperprune.files import write_atomically
from hyperprune.hypersearch import (
    arena,
    atpe,
    dimensions,
    proposers,
    ranks,
    run_state,
    space,
    strategies,
    strategy,
)
from hyperprune.hypersearch import replay as replays
from hyperprune.hypersearch import signals as search_signals
from hyperprune.hypersearch import table as tables
from hyperprune.hypersearch.replay import replay
from hyperprune.hypersearch.strategies import LSH, Full, Hyperband, Random, SuccessiveHalving
from hyperprune.hypersearch.strategy import Arena, Strategy, planned_epochs
from hyperprune.hypersearch.table import CandidateTable
from hyperprune.processes import leave_with_parent
from hyperprune.spectra import distance

SIGNALS = (
    *("spectrum", "full", "spectrum_mean", "mean_exponent"),
    *("loss", "training_losses", "blend", "none"),
)
SCHEDULES = ((1, 1), (2, 1), (3, 1), (3, 3), (6, 3))
DEFAULT_SCHEDULE = (3, 3)  # the library's
TPE_SCHEDULES = ((1, 1), (3, 3))  # a replay with TPE takes ten times as long
HALVING_EPOCHS = (1, 2, 3, 6)
MOST_IN_GRID = 24  # candidates of LSH over the grid and of successive halving
WITHIN = 0.01  # of the best
GRID = "LSH, grid"
TPE = "LSH, TPE"
HALVING = "successive halving"
HYPERBAND = "Hyperband"
RANDOM = "random search, trained fully"
TPE_FULL = "TPE, trained fully"
FULL = "all, trained fully"
FAMILIES = (GRID, TPE, HALVING, HYPERBAND, RANDOM, TPE_FULL, FULL)
QUICK = (GRID, HALVING, HYPERBAND, RANDOM, FULL)  # without TPE, which takes nearly all of the time


@dataclass(frozen=True, kw_only=True)
class TPETrainedFully(Strategy):
    """TPE without early stopping: candidates proposed in batches, each trained to the end and told to TPE.

    Attributes:
        batch: proposed at a time.
    """

    batch: int = 4
    name = "tpe_trained_fully"

    def run(self, arena: Arena) -> list[str]:
        finalists: list[str] = []
        number = 0
        while len(finalists) < self.candidates:
            count = min(self.batch, self.candidates - len(finalists))
            keys = arena.admit(self.proposer, count, round_number=number, history="all")
            number += 1
            finalists += self.sift(arena, keys, number=number, epoch=self.final_epochs, keep=count)
        return finalists


@dataclass(frozen=True, kw_only=True)
class Point:
    """A family of searches and one member of it."""

    family: str
    signal: str | None
    strategy: Strategy


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What the replays of a point gave.

    Attributes:
        regret: by seed, the relative regret of each replay.
        epochs: mean epochs spent.
    """

    point: Point
    regret: tuple[np.ndarray, ...]
    epochs: float

    @property
    def mean(self) -> Estimate:
        return bootstrap.mean_of(self.regret)

    @property
    def near(self) -> float:
        """Share of the replays within 1 % of the best."""
        return float(np.mean([(values <= WITHIN).mean() for values in self.regret]))

    @property
    def median(self) -> float:
        return float(np.median(np.concatenate(self.regret)))


def points_of(data: CandidateTable) -> list[Point]:
    """All searches that fit into a table, and whose signal it holds at the epochs of their rounds."""
    final, rows = data.final_epochs, data.num_rows
    grid = min(MOST_IN_GRID, rows)
    first = grid if rows >= 2 * grid else max(2, rows // 2)  # insertions need as many rows again
    found: list[Point] = []
    plans: set[tuple[Any, ...]] = set()

    @cache
    def known(signal: str, epoch: int) -> bool:
        return not any(
            np.isnan(values_of(ENTRIES[signal], run.reference, list(run.candidates), epoch)).any()
            for run in data.runs
        )

    def add(family: str, signal: str | None, make: Callable[[], Strategy]) -> None:
        try:
            strategy = make()
        except InputError:  # a schedule longer than the table's epochs
            return
        if strategy.created > rows:
            return
        planned = (family, signal, strategy.created, tuple(strategy.plan()))
        if planned in plans:  # Hyperband rounds: several first epochs are one schedule
            return
        plans.add(planned)
        if signal is None or all(known(signal, planned.epoch) for planned in strategy.plan()):
            found.append(Point(family=family, signal=signal, strategy=strategy))

    for first_epochs, round_epochs in SCHEDULES:
        lsh = partial(LSH, final_epochs=final, first_epochs=first_epochs, round_epochs=round_epochs)
        for signal in SIGNALS:
            add(GRID, signal, partial(lsh, candidates=grid, proposer="grid", signal=signal))
            if (first_epochs, round_epochs) in TPE_SCHEDULES:
                add(TPE, signal, partial(lsh, candidates=first, proposer="tpe", signal=signal))
    for epochs in HALVING_EPOCHS:
        for signal in SIGNALS:
            add(
                HALVING,
                signal,
                partial(
                    SuccessiveHalving,
                    candidates=grid,
                    final_epochs=final,
                    first_epochs=epochs,
                    signal=signal,
                ),
            )
            add(HYPERBAND, signal, partial(Hyperband, final_epochs=final, first_epochs=epochs, signal=signal))
    for count in (2, 3, 4, 6, 8, 12, 16):
        if count <= grid:
            add(RANDOM, None, partial(Random, candidates=count, final_epochs=final))
    for count in (4, 8, 12, 16):
        if count <= grid:
            add(
                TPE_FULL,
                None,
                partial(TPETrainedFully, candidates=count, final_epochs=final, signal="best_loss"),
            )
    add(FULL, None, partial(Full, candidates=grid, final_epochs=final))
    return found


def outcomes(
    data: CandidateTable, points: Sequence[Point], *, repeats: int, cache: Path, workers: int = 1
) -> list[Outcome]:
    """Replay every point, or read what an earlier call found.

    Args:
        data: the table.
        points: of `points_of`.
        repeats: searches of each, the i-th on seed i modulo the number of seeds.
        cache: folder for the outcomes.
        workers: processes.
    """
    path = cache / f"replays-{_checksum(data)}-{repeats}.json"
    known: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    missing = [point for point in points if _key(point) not in known]
    if workers > 1 and len(missing) > 1:
        with ProcessPoolExecutor(
            workers, mp_context=get_context("spawn"), initializer=_begin, initargs=(data,)
        ) as pool:
            results = list(pool.map(partial(_replayed_by_worker, repeats), missing))
    else:
        results = [_replayed(data, repeats, point) for point in missing]
    if missing:
        known |= {_key(point): result for point, result in zip(missing, results, strict=True)}
        write_atomically(path, json.dumps(known).encode())
    num_seeds = len(data.runs)
    return [
        Outcome(
            point=point,
            regret=tuple(
                np.array(known[_key(point)]["regret"][seed::num_seeds]) for seed in range(num_seeds)
            ),
            epochs=known[_key(point)]["epochs"],
        )
        for point in points
    ]


_table: list[CandidateTable] = []  # a worker's one: signals are computed once and kept in it


def _begin(data: CandidateTable) -> None:
    leave_with_parent()
    _table.append(data)


def _replayed_by_worker(repeats: int, point: Point) -> dict[str, Any]:
    return _replayed(_table[0], repeats, point)


def _replayed(data: CandidateTable, repeats: int, point: Point) -> dict[str, Any]:
    if point.family == FULL and point.strategy.created == data.num_rows:
        repeats = max(len(data.runs), 2)  # nothing is drawn
    with known_to_the_search():
        found = replay(data, point.strategy, repeats=repeats)
    return {"regret": found.relative.round(6).tolist(), "epochs": float(found.epochs_spent.mean())}


def _key(point: Point) -> str:
    return json.dumps([point.family, point.strategy.to_json()], sort_keys=True)


def _checksum(data: CandidateTable) -> str:
    """Of all that replays look at, and of the code that they are."""
    digest = hashlib.sha256()
    modules = (signals, search_signals, distance, ranks, strategy, strategies, replays, arena, run_state)
    for module in (*modules, proposers, atpe, dimensions, space, rng, tables, sys.modules[__name__]):
        digest.update(inspect.getsource(module).encode())
    for run in data.runs:
        digest.update(repr((run.seed, [item.text for item in run.configurations])).encode())
        for records in (run.reference, *run.candidates):
            for record in records:
                numbers = (record.train_loss or np.nan, record.valid_loss, record.metric, record.at_sparsity)
                digest.update(np.array(numbers, dtype=np.float64).tobytes())
                digest.update(b"" if record.spectrum is None else record.spectrum.tobytes())
                for name, values in sorted(record.probes.items()):
                    digest.update(name.encode() + np.asarray(values).tobytes())
    return digest.hexdigest()[:16]


def search_outcomes(
    world: World, *, repeats: int, cache: Path, workers: int, families: Collection[str] = FAMILIES
) -> list[Outcome]:
    """The searches of these families that fit, on the world's candidates."""
    with known_to_the_search():
        points = [point for point in points_of(world.table) if point.family in families]
    return outcomes(world.table, points, repeats=repeats, cache=cache, workers=workers)


def replayed_on(world: World, repeats: int) -> str:
    """On what, and how often, `search_outcomes` replays."""
    rows = world.table.num_rows
    text = f"{repeats:,} replays of each search, on the {rows} candidates of {seeds_of(world.table)}."
    if rows <= MOST_IN_GRID:
        text += (
            " LSH over the grid and successive halving see all of them, so that each of their rows is one "
            "outcome per seed and no distribution: there the share within 1 % is one of seeds. Chance, and "
            "ties of the blend's ranks, are drawn anew in every replay. Who eliminates by chance ends as the "
            f"better one of two random candidates: {100 * chance(world).mean:.2f} % over all pairs."
        )
    return text


def seeds_of(data: CandidateTable) -> str:
    """The seeds of a table, named."""
    seeds = [str(run.seed) for run in data.runs]
    return f"{'seed' if len(seeds) == 1 else 'seeds'} {', '.join(seeds)}"


def regret_table(found: Sequence[Outcome], world: World) -> str:
    """One row per search: epochs, mean regret, median, share within 1 %, how often chance does as well."""
    ordered = sorted(found, key=lambda item: (item.point.family, item.point.signal or "", item.epochs))
    rows = [
        [
            outcome.point.family,
            _label(outcome.point.signal),
            _schedule(outcome.point.strategy),
            f"{outcome.epochs:.0f}",
            outcome.mean.percent(),
            " / ".join(f"{100 * item:.1f}" for item in outcome.mean.each),
            f"{100 * outcome.median:.1f}",
            f"{100 * outcome.near:.0f} %",
            *chance_texts(outcome, world),
        ]
        for outcome in ordered
    ]
    head = ["search", "signal", "schedule", "epochs", "mean regret, %", "of each seed", "median, %"]
    return table([*head, "within 1 %", *AS_WELL], rows)


AS_WELL = ("two random finalists do as well", "as many epochs on random candidates do as well")


def chance_texts(outcome: Outcome, world: World) -> tuple[str, str]:
    """How often chance loses no more; "–" for searches that are chance themselves.

    Two random finalists are compared with searches that keep two of all candidates. All searches that use a
    signal are compared with as many epochs on random candidates, each trained to the end.
    """
    lost, signal = outcome.mean.value, outcome.point.signal
    if signal in (None, "none"):
        return "–", "–"
    halves = outcome.point.family in (GRID, HALVING)
    halves = (
        halves and outcome.point.strategy.candidates == world.table.num_rows
    )  # else others in each replay
    two = f"{100 * chance(world).as_good(lost):.0f} %" if halves else "–"
    return two, f"{100 * trained_fully(world, outcome.epochs).as_good(lost):.0f} %"


def _label(signal: str | None) -> str:
    return "–" if signal is None else ENTRIES[signal].label


def _schedule(strategy: Strategy) -> str:
    match strategy:
        case LSH():
            return f"{strategy.candidates} candidates; {strategy.first_epochs}, {strategy.round_epochs}"
        case SuccessiveHalving():
            return f"{strategy.candidates} candidates; {strategy.first_epochs}, η {strategy.eta}"
        case Hyperband():
            first = min(planned.epoch for planned in strategy.plan())
            return f"first cut after epoch {first}, η {strategy.eta}"
    return f"{strategy.candidates} candidates"


def needed_table(found: Sequence[Outcome]) -> str:
    """What each kind of search loses with each of its schedules, and which are within 1 %."""
    kinds = dict.fromkeys((outcome.point.family, outcome.point.signal) for outcome in found)
    rows = []
    for family, signal in kinds:
        matching = [item for item in found if (item.point.family, item.point.signal) == (family, signal)]
        own = sorted(matching, key=lambda item: item.epochs)
        rows.append(
            [
                family,
                _label(signal),
                " / ".join(f"{item.epochs:.0f}" for item in own),
                " / ".join(f"{100 * item.mean.value:.1f}" for item in own),
                epochs_text([item for item in own if item.median <= WITHIN]),
                epochs_text([item for item in own if item.mean.value <= WITHIN]),
            ]
        )
    head = ["search", "signal", "epochs, by schedule", "mean regret of each, %"]
    return table([*head, "fewest epochs: median regret ≤ 1 %", "fewest epochs: mean regret ≤ 1 %"], rows)


def epochs_text(reaching: Sequence[Outcome]) -> str:
    """The fewest epochs among searches that came where they should."""
    return f"{min(item.epochs for item in reaching):.0f}" if reaching else "not reached"


def selection_epochs(strategy: Strategy) -> int:
    """Epochs of all candidates before the finalists are trained."""
    return sum(planned.epochs for planned in strategy.plan())


def total_epochs(strategy: Strategy) -> int:
    return planned_epochs(strategy)
