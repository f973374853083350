"""Searches on recorded candidates: the live strategies, proposers and signals, and a table for training.

A replay runs the same `Strategy.run` on an arena that differs from the live one in two places: candidates
come from the table's rows, without replacement, and an epoch is looked up where it would be trained. Keys,
rounds, ranks and the pick come from the same `RunState`. It takes milliseconds, so that a strategy can be
judged by the distribution of its regret over a thousand searches.

With the proposers "grid" and "random" a batch is a uniform draw of the rows that are left. The ones that
learn answer in the space that the rows span, and the row nearest to each answer that is left is taken, any
of them where several are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

import numpy as np

from hyperprune.errors import InputError
from hyperprune.hypersearch.arena import StateArena
from hyperprune.hypersearch.dimensions import Choice, Dimension, Range
from hyperprune.hypersearch.run_state import REFERENCE_KEY, Event, RunState
from hyperprune.hypersearch.signals import Epochs, Records, get_signal, needs_spectra
from hyperprune.hypersearch.space import Branch, Configuration, Space, Suggest
from hyperprune.hypersearch.strategy import Ahead, Strategy
from hyperprune.hypersearch.table import CandidateTable
from hyperprune.records import RunRecord
from hyperprune.rng import derive_seed

_DIGITS = 15  # after the point, at least, of the ranges that rows span: a row's own numbers stay as they are


@dataclass(frozen=True, kw_only=True)
class Replays:
    """Many replays of one strategy on one table.

    Attributes:
        strategy: what was replayed.
        regret: (N,) final metric of the pick beyond the best row's of its run, in the metric's unit, ≥ 0.
        relative: (N,) the same as a share of the best row's metric (1 if that is 0 and was missed).
        epochs_spent: (N,) epochs of all candidates, as a live search counts them.
        picks: (N,) the label of each pick.
    """

    strategy: Strategy
    regret: np.ndarray
    relative: np.ndarray
    epochs_spent: np.ndarray
    picks: tuple[str, ...]

    def summary(self) -> dict[str, Any]:
        """Means, median, 90th percentile, the share that found the best row; for tables and JSON."""
        return {
            "strategy": self.strategy.name,
            "signal": self.strategy.signal if self.strategy.uses_signal else None,
            "repeats": len(self.regret),
            "epochs": float(self.epochs_spent.mean()),
            "regret_mean": float(self.regret.mean()),
            "regret_median": float(np.median(self.regret)),
            "regret_90": float(np.percentile(self.regret, 90)),
            "relative_mean": float(self.relative.mean()),
            "found_best": float((self.regret == 0).mean()),
        }


def replay(table: CandidateTable, strategy: Strategy, *, repeats: int = 1000, seed: int = 0) -> Replays:
    """Run a strategy on a table again and again, each time with other draws.

    Args:
        table: of `load_table`.
        strategy: its `final_epochs` must be the table's.
        repeats: how many searches; the i-th is on run i modulo the number of runs.
        seed: of all draws. Search i draws alike for every strategy, so that two can be compared in pairs.

    Raises:
        InputError: the strategy needs more candidates, other epochs or spectra than the table has.
    """
    if repeats < 1:
        raise InputError(f"repeats must be at least 1, got {repeats}; 1000 gives a distribution")
    regrets, relatives, epochs, picks = [], [], [], []
    runs = [_Rows(table, number) for number in range(len(table.runs))]
    check(table, strategy)
    for number in range(repeats):
        rows = runs[number % len(runs)]
        state = _search(rows, strategy, derive_seed(seed, "replay", number))
        pick = state.ranked()[0]
        assert pick.metric is not None
        regrets.append(abs(pick.metric - rows.best))
        relatives.append(
            regrets[-1] / abs(rows.best) if regrets[-1] and rows.best else float(regrets[-1] > 0)
        )
        epochs.append(state.epochs_spent)
        picks.append(pick.label)
    return Replays(
        strategy=strategy,
        regret=np.array(regrets),
        relative=np.array(relatives),
        epochs_spent=np.array(epochs),
        picks=tuple(picks),
    )


def replay_once(table: CandidateTable, strategy: Strategy, *, seed: int, run: int = 0) -> RunRecord:
    """One replayed search as a live one would have recorded it, epochs without their spectra.

    Args:
        table: of `load_table`.
        strategy: its `final_epochs` must be the table's.
        seed: of the proposers, used as a live search's.
        run: which of the table's runs.
    """
    check(table, strategy)
    return _search(_Rows(table, run), strategy, seed).to_record()


class ReplayArena(StateArena):
    """Looks up what a strategy asks to be trained."""

    def __init__(self, rows: _Rows, state: RunState) -> None:
        super().__init__(state, rows.space)
        self._rows = rows

    def record(self, event: Event) -> None:
        self.state.apply(event)

    def advance(self, keys: Sequence[str], to_epoch: int, *, ahead: Ahead | None = None) -> list[str]:
        for key in (REFERENCE_KEY, *keys):
            known = len(self.state[key].epochs)
            if known <= to_epoch:
                self.record(self._rows.segment(key, self._configuration(key), known, to_epoch))
        return list(keys)

    def _space_beside(self, known: Sequence[Configuration], count: int) -> Space:
        """In an order of this search's own, so that of rows as near to an answer none is preferred."""
        space = self._rows.space_beside(known, count)
        np.random.default_rng(derive_seed(self._seed, "rows")).shuffle(space.rows)
        return space

    def _records(self, key: str, epoch: int) -> Records:
        return self._rows.epochs(self._configuration(key), epoch)

    def _configuration(self, key: str) -> Configuration | None:
        if key == REFERENCE_KEY:
            return None
        return Configuration.from_json(self.state[key].configuration)


@dataclass(frozen=True, kw_only=True)
class RowSpace(Space):
    """The rows that are left, as a space for the proposers: what it has given away it no longer holds.

    Its branches are what the rows span: one for each method with the same names of settings; numbers span a
    range, anything else is one of the values that occur.
    """

    rows: list[Configuration] = field(default_factory=list)
    _places: dict[Configuration, Any] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        """The rows were checked when the table was made."""

    @classmethod
    def over(cls, rows: Sequence[Configuration]) -> RowSpace:
        kinds: dict[tuple[str, ...], list[Configuration]] = {}
        for row in rows:
            kinds.setdefault((row.method, *dict(row.settings)), []).append(row)
        return cls(branches=tuple(_spanned(alike) for alike in kinds.values()), rows=list(rows))

    def beside(self, known: Sequence[Configuration]) -> RowSpace:
        """The same without the known ones."""
        taken = set(known)
        return replace(self, rows=[row for row in self.rows if row not in taken])

    def grid(self) -> list[Configuration]:
        return list(self.rows)

    def everything(self) -> Iterator[Configuration]:
        return iter(list(self.rows))

    def sample(self, random: np.random.Generator) -> Configuration:
        return self.rows.pop(random.integers(len(self.rows)))

    def ask(self, suggest: Suggest) -> Configuration:
        return self.nearest(super().ask(suggest))

    def nearest(self, wanted: Configuration) -> Configuration:
        """Take the nearest row: the same method first, then fewest different names, then nearest numbers.

        Numbers are compared as shares of the range that the rows span. Of rows as near the first is taken.
        """
        here = self.coordinates(wanted)
        assert here is not None

        def distance(index: int) -> tuple[float, ...]:
            row = self._place(self.rows[index])
            if row.keys() != here.keys():
                return 1, 0, 0.0
            differing = sum(
                isinstance(own, Choice) and row[name][1] != value for name, (own, value) in here.items()
            )
            apart = sum(
                abs(row[name][1] - value) / (own.high - own.low)
                for name, (own, value) in here.items()
                if isinstance(own, Range)
            )
            return 0, differing, apart

        return self.rows.pop(min(range(len(self.rows)), key=distance))

    def size(self) -> int:
        return len(self.rows)

    def _place(self, row: Configuration) -> Any:
        """A row's coordinates, which a thousand replays ask for again."""
        if row not in self._places:
            self._places[row] = self.coordinates(row)
        return self._places[row]


def _spanned(rows: Sequence[Configuration]) -> Branch:
    """The branch that rows with the same method and names of settings span."""
    settings = [dict(row.settings) for row in rows]
    dimensions: dict[str, Dimension] = {}
    for name in settings[0]:
        values = list(dict.fromkeys(item[name] for item in settings))
        numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
        if numbers and len(values) > 1:
            digits = max(_DIGITS, *map(_decimals, values))
            dimensions[name] = Range(min(values), max(values), digits=digits)
        else:
            dimensions[name] = Choice(tuple(values))
    ordered = sorted(dimensions.items(), key=lambda pair: (isinstance(pair[1], Range), pair[0]))
    return Branch(method=rows[0].method, settings=tuple(ordered))


def _decimals(value: float) -> int:
    """How many digits after the point a number has as it prints."""
    exponent = Decimal(repr(value)).as_tuple().exponent
    assert isinstance(exponent, int)
    return max(0, -exponent)


class _Rows:
    """One run of a table, prepared for being looked up many times."""

    def __init__(self, table: CandidateTable, number: int) -> None:
        self.table, self.run = table, table.runs[number]
        self._by_configuration = dict(zip(self.run.configurations, self.run.candidates, strict=True))
        self.space = RowSpace.over(self.run.configurations)
        self._epochs: dict[tuple[Configuration | None, int], Epochs] = {}
        self._json: dict[tuple[Configuration | None, int], Mapping[str, Any]] = {}
        finals = [table.final_metric(records) for records in self.run.candidates]
        self.best = min(finals) if table.lower_is_better else max(finals)

    def epochs(self, configuration: Configuration | None, epoch: int) -> Epochs:
        key = (configuration, epoch)
        if key not in self._epochs:
            self._epochs[key] = Epochs(self._row(configuration)[: epoch + 1])
        return self._epochs[key]

    def segment(
        self, key: str, configuration: Configuration | None, known: int, to_epoch: int
    ) -> Mapping[str, Any]:
        """The event that a live search would have told of these epochs, without their spectra."""
        trained = [record for record in self._row(configuration)[1 : to_epoch + 1] if record.at_sparsity]
        better = min if self.table.lower_is_better else max
        best = better(trained, key=lambda record: record.metric).epoch if trained else None  # the first one
        entries = [self._entry(configuration, epoch) for epoch in range(known, to_epoch + 1)]
        return {
            "event": "segment",
            "key": key,
            "epochs": entries,
            "best_epoch": best,
            "checkpoint": None,
            "failure": None,
        }

    def space_beside(self, known: Sequence[Configuration], count: int) -> RowSpace:
        space = self.space.beside(known)
        if count > space.size():
            raise InputError(
                f"a replay draws without replacement, and {count} candidates were asked for where the table "
                f"has {space.size()} rows left; lower candidates"
            )
        return space

    def _entry(self, configuration: Configuration | None, epoch: int) -> Mapping[str, Any]:
        key = (configuration, epoch)
        if key not in self._json:
            self._json[key] = {**self._row(configuration)[epoch].to_json(), "spectrum": None}
        return self._json[key]

    def _row(self, configuration: Configuration | None) -> Records:
        return self.run.reference if configuration is None else self._by_configuration[configuration]


def _search(rows: _Rows, strategy: Strategy, seed: int) -> RunState:
    table = rows.table
    state = RunState()
    arena = ReplayArena(rows, state)
    arena.record(
        {
            "event": "run",
            "identity": {},
            "task": table.task,
            "sparsity": table.identity["sparsity"],
            "seed": seed,
            "strategy": strategy.to_json(),
            "metric": table.metric,
            "lower_is_better": table.lower_is_better,
            "baseline": None,
            "provenance": dict(rows.run.provenance),
        }
    )
    arena.record({"event": "finished", "finalists": strategy.run(arena)})
    return state


def check(table: CandidateTable, strategy: Strategy) -> None:
    """Whether the table can serve the strategy.

    Raises:
        InputError: it lacks the rows, epochs or spectra.
    """
    if strategy.final_epochs != table.final_epochs:
        raise InputError(
            f"a replay must have the table's final_epochs, {table.final_epochs}, which its schedules span; "
            f"got {strategy.final_epochs}; leave final_epochs out, or record another table"
        )
    if strategy.created > table.num_rows:
        raise InputError(
            f"a replay draws without replacement: {strategy.name} creates {strategy.created} candidates and "
            f"the table has {table.num_rows} rows; lower candidates (hyperband: raise first_epochs or eta)"
        )
    measured = table.identity.get("spectrum_state", "hidden")
    if table.has_spectra and strategy.spectrum_state != measured:
        raise InputError(
            f"a replay has the spectra that were recorded, of the {measured} state, and spectrum_state is "
            f"{strategy.spectrum_state!r}; leave it out, or record another table"
        )
    if strategy.uses_signal and not table.has_spectra and needs_spectra(get_signal(strategy.signal)):
        raise InputError(
            f"the signal {strategy.signal!r} needs spectra, and the table was recorded without; "
            "use --signal loss"
        )
