"""Other death rates: how candidates end at each, what signals tell there, and searches among all of them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from hyperprune.experiments.evidence.correlation import Measured, lead, value
from hyperprune.experiments.evidence.signals import ENTRIES
from hyperprune.experiments.evidence.worlds import World, common, grid_point, restricted, setting
from hyperprune.hypersearch.ranks import spearman
from hyperprune.hypersearch.strategies import LSH
from hyperprune.hypersearch.table import CandidateTable, RecordedRun

DEFAULT_SIGNAL = LSH().signal
Ends = dict[tuple[Any, ...], float]


def by_rate(world: World) -> list[World]:
    """A world for each death rate, with the seeds that have it, the smallest first; none where there is one.

    Of a death rate that seeds do not share two candidates of, there is none either.
    """
    worlds = []
    for rate in _rates(world.everything):
        having = [run for run in world.everything.runs if rate in _rates_of(run)]
        own = restricted(
            replace(world.everything, runs=tuple(having)),
            lambda item, rate=rate: setting(item, "death_rate") == rate,
        )
        if own is not None and (found := common(own)) is not None:
            worlds.append(_named(world, f"death rate {rate:g}", found))
    return worlds if len(worlds) > 1 else []


def mixed_rates(world: World) -> list[World]:
    """Worlds of several death rates at once: what all seeds share, then what those with most candidates do.

    One where these are the same; none where there is one death rate.
    """
    data = world.everything
    most = max(len(run.candidates) for run in data.runs)
    widest = common(replace(data, runs=tuple(run for run in data.runs if len(run.candidates) == most)))
    found = {table.num_rows: table for table in (common(data), widest) if table is not None}
    return [
        _named(world, f"death rates {', '.join(f'{rate:g}' for rate in rates)}", table)
        for table in found.values()
        if len(rates := _rates(table)) > 1
    ]


def widest(world: World) -> CandidateTable:
    """The last one's table of `mixed_rates`, or the world's own."""
    mixed = mixed_rates(world)
    return mixed[-1].table if mixed else world.table


def _rates(data: CandidateTable) -> list[float]:
    return sorted(set[float]().union(*map(_rates_of, data.runs)))


def _rates_of(run: RecordedRun) -> set[float]:
    return {setting(item, "death_rate") for item in run.configurations} - {None}


def _named(world: World, about: str, data: CandidateTable) -> World:
    nothing = {"controls": None, "methods": None}
    return replace(world, name=f"{world.name}, {about}", table=data, everything=data, **nothing)


def agreement(worlds: Sequence[World]) -> str:
    """Whether candidates that differ in the death rate alone end in the same order, in the seeds of both."""
    texts = []
    for one, other in itertools.combinations(worlds, 2):
        first, second = _ends(one), _ends(other)
        seeds = [_agreement(first[seed], second[seed]) for seed in first.keys() & second.keys()]
        if seeds:
            names = (item.name.rsplit(" ", 1)[1] for item in (one, other))
            texts.append(f"{' and '.join(names)} {np.mean(seeds):.2f}")
    return f"Rank correlation of the ends at two death rates, over the grid: {', '.join(texts)}."


def leads(found: Measured, names: Sequence[str], epoch: int) -> str:
    """By how much each signal's rank correlation exceeds that of the default signal."""
    texts = [
        f"{ENTRIES[name].label} {lead(found, name, DEFAULT_SIGNAL, epoch).text()}"
        for name in names
        if name != DEFAULT_SIGNAL and not math.isnan(value(found, name, epoch))
    ]
    default = ENTRIES[DEFAULT_SIGNAL].label
    return f"{found.world.title}: leads over {default} at epoch {epoch}: {'; '.join(texts)}."


def _ends(world: World) -> dict[int, Ends]:
    """By seed, the final metric of each grid point."""
    return {
        run.seed: dict(zip(map(grid_point, run.configurations), world.finals(run), strict=True))
        for run in world.table.runs
    }


def _agreement(one: Ends, other: Ends) -> float:
    points = [point for point in one if point in other]
    return spearman(np.array([one[point] for point in points]), np.array([other[point] for point in points]))
