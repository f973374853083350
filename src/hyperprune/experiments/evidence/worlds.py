"""Recorded tables put together: a world is a task at a sparsity, with all its seeds and candidates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hyperprune.errors import InputError
from hyperprune.hypersearch.joining import joined
from hyperprune.hypersearch.space import Configuration
from hyperprune.hypersearch.table import CandidateTable, RecordedRun, read_table
from hyperprune.records import EpochRecord

FIRST_RATE = 0.8
"""The death rate that is recorded first, and in every world."""
_CONTROLS = "controls"
_METHODS = "methods"
_PAPERS_SPARSITY = 0.67


@dataclass(frozen=True, kw_only=True)
class World:
    """All that was recorded of a task at a sparsity.

    Attributes:
        name: of the recording ("ptb-mini").
        table: the candidates of the space at `FIRST_RATE` that every seed has, one run per seed; where there
            are none, all that every seed has.
        everything: the candidates of the space at every death rate, of each seed those that it has.
        controls: static masks and a threshold that meets its target at once, which are outside the space;
            None where none were recorded.
        methods: candidates of other pruning methods; None where none were recorded.
        recorded: the tables that it was made from, as they were recorded.
    """

    name: str
    table: CandidateTable
    everything: CandidateTable
    controls: CandidateTable | None
    methods: CandidateTable | None
    recorded: tuple[CandidateTable, ...]

    @property
    def sparsity(self) -> float:
        return self.table.identity["sparsity"]

    @property
    def baseline(self) -> tuple[str, float] | None:
        """The metric that needs no learning."""
        found = self.table.identity.get("baseline")
        return None if found is None else (found[0], float(found[1]))

    @property
    def title(self) -> str:
        return f"{self.name}, sparsity {self.sparsity:g}"

    def finals(self, run: RecordedRun) -> np.ndarray:
        """(R,) the final metric of each candidate of a run, smaller is better."""
        sign = 1.0 if self.table.lower_is_better else -1.0
        return np.array([sign * self.table.final_metric(records) for records in run.candidates])

    def test_finals(self, run: RecordedRun) -> np.ndarray:
        """(R,) the test metric of each candidate's best weights, smaller is better."""
        sign = 1.0 if self.table.lower_is_better else -1.0
        return sign * np.array(run.test_metrics[1:])


def load_worlds(folder: Path) -> list[World]:
    """The worlds of all tables in a folder, the one with most candidates first; none where none is recorded.

    Tables that are not complete are left out (`unfinished`).

    Raises:
        InputError: no such folder, or tables that contradict each other.
    """
    if not folder.is_dir():
        raise InputError(
            f"evidence is made from recorded tables, and there is no folder {folder}; 'hyperprune reproduce "
            "record' makes them"
        )
    paths = sorted(folder.glob("*.npz"))
    grouped: dict[tuple[str, float], list[tuple[str, CandidateTable]]] = {}
    for path in paths:
        table = read_table(path)
        if table.num_missing > 0:
            continue
        key = (table.identity.get("name", table.task), table.identity["sparsity"])
        grouped.setdefault(key, []).append((path.name, table))
    worlds = []
    for (name, _), members in grouped.items():
        own: dict[str, list[tuple[str, CandidateTable]]] = {"": [], _CONTROLS: [], _METHODS: []}
        for member in members:
            group = member[1].identity.get("group", "")
            own[group if group in own else ""].append(member)
        if own[""]:
            everything = joined(own[""])
            first = restricted(everything, lambda item: setting(item, "death_rate") == FIRST_RATE)
            worlds.append(
                World(
                    name=name,
                    table=shared(first or everything),
                    everything=everything,
                    controls=joined(own[_CONTROLS]) if own[_CONTROLS] else None,
                    methods=joined(own[_METHODS]) if own[_METHODS] else None,
                    recorded=tuple(table for _, table in members),
                )
            )
    return sorted(worlds, key=_order)


def unfinished(folder: Path) -> dict[str, int]:
    """Tables of a folder that are not complete, by file name: how many networks each lacks."""
    missing = {path.name: read_table(path).num_missing for path in sorted(folder.glob("*.npz"))}
    return {name: count for name, count in missing.items() if count > 0}


def _order(world: World) -> tuple[float, ...]:
    """Most candidates first; among as many the shortest name, and the paper's sparsity."""
    return -_size(world.table), len(world.name), abs(world.sparsity - _PAPERS_SPARSITY)


def _size(table: CandidateTable) -> int:
    return sum(len(run.candidates) for run in table.runs)


def restricted(table: CandidateTable, keep: Callable[[Configuration], bool]) -> CandidateTable | None:
    """The table with those candidates alone; None if a run would keep fewer than two."""
    return _chosen(table, lambda run, index: keep(run.configurations[index]))


def shared(table: CandidateTable) -> CandidateTable:
    """The table with those candidates alone that every seed has: searches of all seeds draw from the same.

    Raises:
        InputError: these are fewer than two.
    """
    found = common(table)
    if found is None:
        raise InputError(
            f"the seeds of a world must share at least two candidates, those of {table.task!r} at sparsity "
            f"{table.identity['sparsity']:g} do not; record the same ones for each"
        )
    return found


def common(table: CandidateTable) -> CandidateTable | None:
    """As `shared`; None where these are fewer than two."""
    everywhere = set.intersection(*(set(run.configurations) for run in table.runs))
    return restricted(table, everywhere.__contains__)


def without_never_averaging(world: World) -> World | None:
    """The world without the candidates that averages never reached; None where all are, or nearly none."""
    never = {run.seed: never_averaging(run) for run in world.table.runs}
    if not any(never.values()):
        return None
    table = _chosen(world.table, lambda run, index: index not in never[run.seed])
    return None if table is None else replace(world, table=table)


def never_averaging(run: RecordedRun) -> list[int]:
    """Which candidates the optimizer's averages never reached."""
    return [index for index, records in enumerate(run.candidates) if first_averaging(records) is None]


def first_averaging(records: Sequence[EpochRecord]) -> int | None:
    """The first epoch evaluated with averaged weights; None if there is none."""
    return next((record.epoch for record in records if record.averaging), None)


def of_seeds(world: World, other: CandidateTable | None) -> World | None:
    """The world of those seeds alone that another table has too; None where there are none."""
    seeds = set() if other is None else {run.seed for run in other.runs}
    runs = tuple(run for run in world.table.runs if run.seed in seeds)
    return replace(world, table=replace(world.table, runs=runs)) if runs else None


def extended(world: World, other: CandidateTable) -> World:
    """The world with another table's candidates among its own, in the seeds that the other one has."""
    seeds = [run.seed for run in world.table.runs]
    runs = tuple(run for run in other.runs if run.seed in seeds)
    if not runs:
        return world
    table = joined([(world.name, world.table), (f"more of {world.name}", replace(other, runs=runs))])
    return replace(world, table=table)


def _chosen(table: CandidateTable, keep: Callable[[RecordedRun, int], bool]) -> CandidateTable | None:
    runs = []
    for run in table.runs:
        chosen = [index for index in range(len(run.configurations)) if keep(run, index)]
        if len(chosen) < 2:
            return None
        tests = run.test_metrics
        runs.append(
            replace(
                run,
                configurations=tuple(run.configurations[index] for index in chosen),
                candidates=tuple(run.candidates[index] for index in chosen),
                test_metrics=(tests[0], *(tests[index + 1] for index in chosen)) if tests else (),
            )
        )
    return replace(table, runs=tuple(runs))


def with_last_spectra(table: CandidateTable) -> CandidateTable:
    """Every epoch of a dense reference also tells the spectra of its last one, for signals that ask."""
    return replace(table, runs=tuple(replace(run, reference=_with_last(run.reference)) for run in table.runs))


def _with_last(records: Sequence[EpochRecord]) -> tuple[EpochRecord, ...]:
    last = records[-1]
    found: dict[str, np.ndarray] = {}
    if last.spectrum is not None:
        found["last_spectrum"] = last.spectrum
    if "spectrum_full" in last.probes:
        found["last_spectrum_full"] = last.probes["spectrum_full"]
    return tuple(replace(record, probes={**record.probes, **found}) for record in records)


def setting(configuration: Configuration, name: str) -> Any:
    """A setting of a configuration; None if it has none of that name."""
    return dict(configuration.settings).get(name)


def kind_of(configuration: Configuration) -> str:
    """The kind of death: what most divides the candidates."""
    return str(setting(configuration, "death") or configuration.method)


def grid_point(configuration: Configuration) -> tuple[Any, ...]:
    """The configuration without its death rate."""
    settings = tuple(item for item in configuration.settings if item[0] != "death_rate")
    return configuration.method, settings
