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
from hyperprune.experiments.evidence.worlds import World, grid_point, restricted, setting
from hyperprune.hypersearch.ranks import spearman
from hyperprune.hypersearch.strategies import LSH
from hyperprune.hypersearch.table import CandidateTable

DEFAULT_SIGNAL = LSH().signal
Ends = dict[tuple[Any, ...], float]


def widest(world: World) -> CandidateTable:
    """The seeds with most candidates, with all of them."""
    return world.table if world.wider is None else world.wider


def by_rate(world: World) -> list[World]:
    """A world for each death rate of the widest table, the smallest first; none where it has one alone."""
    data = widest(world)
    rates = {setting(item, "death_rate") for run in data.runs for item in run.configurations}
    found = {
        rate: restricted(data, lambda item, rate=rate: setting(item, "death_rate") == rate)
        for rate in sorted(rates - {None})
    }
    worlds = [_named(world, f"death rate {rate:g}", own) for rate, own in found.items() if own is not None]
    return worlds if len(worlds) > 1 else []


def all_rates(world: World) -> World:
    """The world of the widest table."""
    return _named(world, "all death rates", widest(world))


def _named(world: World, about: str, data: CandidateTable) -> World:
    nothing = {"wider": None, "controls": None, "methods": None}
    return replace(world, name=f"{world.name}, {about}", table=data, **nothing)


def agreement(worlds: Sequence[World]) -> str:
    """Whether candidates that differ in the death rate alone end in the same order."""
    texts = []
    for one, other in itertools.combinations(worlds, 2):
        seeds = [_agreement(*pair) for pair in zip(_ends(one), _ends(other), strict=True)]
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


def _ends(world: World) -> list[Ends]:
    """By seed, the final metric of each grid point."""
    return [
        dict(zip(map(grid_point, run.configurations), world.finals(run), strict=True))
        for run in world.table.runs
    ]


def _agreement(one: Ends, other: Ends) -> float:
    points = [point for point in one if point in other]
    return spearman(np.array([one[point] for point in points]), np.array([other[point] for point in points]))
