"""Rank correlations with intervals, and how often the same comes about by chance.

An interval takes candidates for independent. Candidates of a group end alike, so that beside it stands p: how
often the same comes about when the groups' ends are exchanged.

References: Spearman 1904; percentile bootstrap of Efron 1979: a draw resamples units, the same ones in every
seed. A unit is a grid point with all its death rates, which end too much alike to count as so many
observations. Seeds are resampled, crossed with units, only where there are `ENOUGH_SEEDS`: two or three
resampled say nothing about others, so that fewer are averaged as they are.

Axes: D draws or exchanges, S seeds, N candidates, U units, M members of a unit, G groups.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy.stats import rankdata

DRAWS = 1000
EXCHANGES = 20_000  # a p of .05 is good to .0015
ENOUGH_SEEDS = 5
_FEWEST = 3  # two points always correlate perfectly


class Estimate(NamedTuple):
    """A number with its 95 % bootstrap interval; NaN where it cannot be said.

    Attributes:
        value: the mean over seeds.
        low, high: of the interval.
        draws: (D,) the bootstrap's.
        each: (S,) the value of each seed.
    """

    value: float
    low: float
    high: float
    draws: np.ndarray
    each: np.ndarray

    def text(self, digits: int = 2, *, also: str = "") -> str:
        """The value and its interval; `also` stands behind the interval."""
        if np.isnan(self.value):
            return "–"
        interval = "" if np.isnan(self.low) else f"{self.low:.{digits}f} to {self.high:.{digits}f}"
        inside = "; ".join(filter(None, [interval, also]))
        return f"{self.value:.{digits}f}" + (f" ({inside})" if inside else "")

    def percent(self) -> str:
        """The same of a share, in percent."""
        scaled = self._replace(value=100 * self.value, low=100 * self.low, high=100 * self.high)
        return scaled.text(1)


class Sample(NamedTuple):
    """One seed's candidates: a signal, the final metric (smaller is better), the group and the unit of each.

    Candidates of one unit are resampled together; units lie within groups. Both have the same names in every
    seed.
    """

    signal_N: np.ndarray
    final_N: np.ndarray
    group_N: np.ndarray
    unit_N: np.ndarray


def spearman_rows(
    one_DN: np.ndarray, other_DN: np.ndarray, present_DN: np.ndarray | None = None
) -> np.ndarray:
    """(D,) Spearman's rho of each row; NaN for fewer than 3 candidates, or without any difference.

    Where `present_DN` is False there is no candidate.
    """
    if one_DN.shape[-1] < _FEWEST:
        return np.full(one_DN.shape[:-1], np.nan)
    present_DN = np.ones(one_DN.shape, dtype=bool) if present_DN is None else present_DN
    count_D1 = present_DN.sum(axis=-1, keepdims=True)
    one, other = (_centred_ranks(values_DN, present_DN, count_D1) for values_DN in (one_DN, other_DN))
    norms = np.sqrt((one**2).sum(axis=-1) * (other**2).sum(axis=-1))
    with np.errstate(invalid="ignore", divide="ignore"):
        known = (norms > 0) & (count_D1[..., 0] >= _FEWEST)
        return np.where(known, (one * other).sum(axis=-1) / norms, np.nan)


def _centred_ranks(values_DN: np.ndarray, present_DN: np.ndarray, count_D1: np.ndarray) -> np.ndarray:
    """Ranks among those present minus their mean; 0 for the others, which infinity ranks behind all."""
    ranks_DN = rankdata(np.where(present_DN, values_DN, np.inf), axis=-1, nan_policy="propagate")
    mean_D1 = (ranks_DN * present_DN).sum(axis=-1, keepdims=True) / np.maximum(count_D1, 1)
    return (ranks_DN - mean_D1) * present_DN


Statistic = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""Of a seed's signals, finals and who is present, (D, N) each, and groups, (N,): a number per draw, (D,)."""


def overall(
    signal_DN: np.ndarray, final_DN: np.ndarray, present_DN: np.ndarray, group_N: np.ndarray
) -> np.ndarray:
    """Rank correlation among all candidates."""
    return spearman_rows(signal_DN, final_DN, present_DN)


def within(
    signal_DN: np.ndarray, final_DN: np.ndarray, present_DN: np.ndarray, group_N: np.ndarray
) -> np.ndarray:
    """Mean over groups of the rank correlation among the candidates of one group."""
    members = [group_N == group for group in np.unique(group_N)]
    return _mean([spearman_rows(signal_DN[:, own], final_DN[:, own], present_DN[:, own]) for own in members])


def between(
    signal_DN: np.ndarray, final_DN: np.ndarray, present_DN: np.ndarray, group_N: np.ndarray
) -> np.ndarray:
    """Rank correlation of the groups' means."""
    members = [group_N == group for group in np.unique(group_N)]
    means = [
        np.stack([values[:, own].mean(axis=1, where=present_DN[:, own]) for own in members], axis=1)
        for values in (signal_DN, final_DN)
    ]
    return spearman_rows(*means)


def each_seed(samples: Sequence[Sample], statistic: Statistic) -> np.ndarray:
    """(S,) the statistic of each seed's candidates, without an interval; NaN where it cannot be said."""
    return np.array([_as_is(sample, statistic) for sample in samples])


def _as_is(sample: Sample, statistic: Statistic) -> float:
    signal_N, final_N, group_N, _ = sample
    if len(final_N) < _FEWEST:
        return math.nan
    return float(statistic(signal_N[None], final_N[None], np.ones((1, len(final_N)), dtype=bool), group_N)[0])


def estimate(samples: Sequence[Sample], statistic: Statistic, *, seed: int = 0) -> Estimate:
    """The mean of a statistic over seeds, with units resampled, and seeds too where there are enough.

    With `within` and `between` every group keeps its units' number in every draw.
    """
    return _over_seeds(each_seed(samples, statistic), _draws(samples, statistic, seed), seed)


def lead(
    samples: Sequence[Sample], others: Sequence[Sample], statistic: Statistic, *, seed: int = 0
) -> Estimate:
    """How much more one signal says than another about the same candidates, in the same draws."""
    differences = each_seed(samples, statistic) - each_seed(others, statistic)
    draws = _draws(samples, statistic, seed) - _draws(others, statistic, seed)
    return _over_seeds(differences, draws, seed)


def _over_seeds(each: np.ndarray, draws_SD: np.ndarray, seed: int) -> Estimate:
    """The mean over seeds; of what one of them cannot say nothing is said."""
    columns_DS = draws_SD.T
    if len(each) >= ENOUGH_SEEDS:
        picks_DS = np.random.default_rng((seed, 1)).integers(len(each), size=columns_DS.shape)
        columns_DS = np.take_along_axis(columns_DS, picks_DS, axis=1)
    return _estimate(float(each.mean()), columns_DS.mean(axis=1), each)


def _draws(samples: Sequence[Sample], statistic: Statistic, seed: int) -> np.ndarray:
    """(S, D) the statistic of each seed in every draw; a draw takes the same units of every seed."""
    units = _units(samples)
    drawn_DU = _drawn_units(units, np.random.default_rng(seed), by_group=statistic is not overall)
    columns = []
    for sample in samples:
        if len(sample.final_N) < _FEWEST:
            columns.append(np.full(DRAWS, math.nan))
            continue
        index_DN, group_N = _members(sample, units, drawn_DU)
        columns.append(statistic(sample.signal_N[index_DN], sample.final_N[index_DN], index_DN >= 0, group_N))
    return np.stack(columns)


def _units(samples: Sequence[Sample]) -> dict[object, object]:
    """All units that any seed has, and the group of each."""
    return {
        unit: group
        for sample in samples
        for unit, group in zip(sample.unit_N.tolist(), sample.group_N.tolist(), strict=True)
    }


def _drawn_units(
    units: Mapping[object, object], random: np.random.Generator, *, by_group: bool
) -> np.ndarray:
    """(D, U) numbers of drawn units, as many as there are; with `by_group` each place keeps its group."""
    strata = list(units.values()) if by_group else [None] * len(units)
    drawn_DU = np.empty((DRAWS, len(units)), dtype=int)
    for stratum in dict.fromkeys(strata):
        own = np.array([number for number, other in enumerate(strata) if other == stratum])
        drawn_DU[:, own] = own[random.integers(len(own), size=(DRAWS, len(own)))]
    return drawn_DU


def _members(
    sample: Sample, units: Mapping[object, object], drawn_DU: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(D, UM) a seed's candidates of drawn units, -1 where a unit has fewer than others, and (UM,) groups."""
    own = [np.flatnonzero(sample.unit_N == unit) for unit in units]
    most = max(map(len, own))
    members_UM = np.array([np.pad(found, (0, most - len(found)), constant_values=-1) for found in own])
    return members_UM[drawn_DU].reshape(len(drawn_DU), -1), np.repeat(np.array(list(units.values())), most)


def by_chance(samples: Sequence[Sample], statistic: Statistic, *, seed: int = 0) -> Estimate:
    """What signals that are noise give: 0 on average; the draws are of as many such signals."""
    random = np.random.default_rng(seed)
    columns = []
    for sample in samples:
        noise_DN = random.random((DRAWS, len(sample.final_N)))
        final_DN = np.broadcast_to(sample.final_N, noise_DN.shape)
        columns.append(statistic(noise_DN, final_DN, np.ones(noise_DN.shape, dtype=bool), sample.group_N))
    draws = np.mean(columns, axis=0)
    value = math.nan if np.isnan(draws).all() else 0.0
    return _estimate(value, draws, np.full(len(samples), value))


def p_of_groups(samples: Sequence[Sample], *, seed: int = 0) -> float:
    """Two-sided p of the rank correlation among all, were groups exchangeable, and the members of each.

    NaN where the correlation of a seed cannot be said.

    Each exchange gives every group the finals of another one, in another order; of a smaller one some of them
    twice. It is the same one in every seed. What a signal tells by groups alone, among few groups, it tells
    here by chance as well.
    """
    draws = []
    for sample, ranks_DN in zip(samples, _exchanged_ranks(_finals_of(samples), seed), strict=True):
        draws.append(ranks_DN @ _unit_ranks(sample.signal_N[None])[0])
    return _two_sided(each_seed(samples, overall), draws)


_Finals = tuple[tuple[tuple[float, ...], tuple[object, ...], tuple[object, ...]], ...]


def _finals_of(samples: Sequence[Sample]) -> _Finals:
    """Finals, groups and units of every seed, to be remembered by."""
    return tuple(
        (tuple(final_N.tolist()), tuple(group_N.tolist()), tuple(unit_N.tolist()))
        for _, final_N, group_N, unit_N in samples
    )


@lru_cache(maxsize=4)
def _exchanged_ranks(finals: _Finals, seed: int) -> tuple[np.ndarray, ...]:
    """Per seed (D, N) the ranks of exchanged finals, centred and of norm 1; signals of a world share them."""
    random = np.random.default_rng(seed)
    groups = {group: random.random(EXCHANGES) for own in finals for group in dict.fromkeys(own[1])}
    units = {unit: random.random(EXCHANGES) for own in finals for unit in dict.fromkeys(own[2])}
    found = []
    for final, group, unit in finals:
        final_N, group_N = np.array(final), np.array(group, dtype=object)
        own = list(dict.fromkeys(group))
        members = [np.flatnonzero(group_N == name) for name in own]
        shuffled = [_shuffled(final_N[index], [units[unit[number]] for number in index]) for index in members]
        exchanged_DN = np.empty((EXCHANGES, len(final_N)))
        donor_DG = np.argsort([groups[name] for name in own], axis=0).T if own else np.empty((0, 0))
        for number, index in enumerate(members):
            for donor, given_DM in enumerate(shuffled):
                rows = donor_DG[:, number] == donor
                repeated = np.resize(np.arange(given_DM.shape[1]), len(index))
                exchanged_DN[np.ix_(rows, index)] = given_DM[rows][:, repeated]
        found.append(_unit_ranks(exchanged_DN))
    return tuple(found)


def _shuffled(values_M: np.ndarray, keys: Sequence[np.ndarray]) -> np.ndarray:
    """(D, M) values in the order of random keys, of one unit each."""
    return values_M[np.argsort(np.stack(keys, axis=1), axis=1, kind="stable")]


def _unit_ranks(values_DN: np.ndarray) -> np.ndarray:
    ranks_DN = rankdata(values_DN, axis=-1)
    ranks_DN -= ranks_DN.mean(axis=-1, keepdims=True)
    norms_D1 = np.sqrt((ranks_DN**2).sum(axis=-1, keepdims=True))
    return np.divide(ranks_DN, norms_D1, out=np.full_like(ranks_DN, math.nan), where=norms_D1 > 0)


def p_of_members(samples: Sequence[Sample], *, seed: int = 0) -> float:
    """Two-sided p of the rank correlation within groups, were the members of each group exchangeable."""
    random = np.random.default_rng(seed)
    units = {unit: random.random(EXCHANGES) for unit in _units(samples)}
    draws = []
    for sample in samples:
        final_DN = np.empty((EXCHANGES, len(sample.final_N)))
        for group in np.unique(sample.group_N):
            index = np.flatnonzero(sample.group_N == group)
            keys = [units[unit] for unit in sample.unit_N[index].tolist()]
            final_DN[:, index] = _shuffled(sample.final_N[index], keys)
        signal_DN = np.broadcast_to(sample.signal_N, final_DN.shape)
        draws.append(within(signal_DN, final_DN, np.ones(final_DN.shape, dtype=bool), sample.group_N))
    return _two_sided(each_seed(samples, within), draws)


def _two_sided(each: np.ndarray, draws: Sequence[np.ndarray]) -> float:
    """The share of draws as far from 0 as the mean over seeds, which counts as one; NaN if it is unknown."""
    if np.isnan(each).any():
        return math.nan
    found = np.mean(draws, axis=0)
    known = found[~np.isnan(found)]
    return float((1 + (np.abs(known) >= abs(each.mean()) - 1e-12).sum()) / (1 + len(known)))


def mean_of(groups: Sequence[np.ndarray], *, seed: int = 0) -> Estimate:
    """The mean over groups (seeds) of their values' means, groups and values resampled.

    Few groups have no interval: how one's own values vary says nothing about another seed.
    """
    each = np.array([values.mean() for values in groups])
    if len(groups) < ENOUGH_SEEDS:
        return Estimate(float(each.mean()), math.nan, math.nan, np.full(DRAWS, each.mean()), each)
    random = np.random.default_rng(seed)
    means_DG = np.stack(
        [values[random.integers(len(values), size=(DRAWS, len(values)))].mean(axis=1) for values in groups],
        axis=1,
    )
    picks_DG = random.integers(len(groups), size=means_DG.shape)
    draws = np.take_along_axis(means_DG, picks_DG, axis=1).mean(axis=1)
    return _estimate(float(each.mean()), draws, each)


def _estimate(value: float, draws: np.ndarray, each: np.ndarray) -> Estimate:
    known = draws[~np.isnan(draws)]
    if math.isnan(value) or len(known) < DRAWS // 2:
        return Estimate(value, math.nan, math.nan, draws, each)
    low, high = np.percentile(known, [2.5, 97.5])
    return Estimate(value, float(low), float(high), draws, each)


def _mean(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Mean of those that are known; NaN where none is."""
    stacked = np.stack(parts)
    known = ~np.isnan(stacked)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(known, stacked, 0.0).sum(axis=0) / known.sum(axis=0)
