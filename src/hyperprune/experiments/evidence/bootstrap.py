"""Rank correlations with intervals, over configurations and seeds at once.

Such an interval takes candidates for independent. Candidates of a group end alike, so that beside it stands
how often the same comes about when the groups' ends are exchanged.

References: Spearman 1904; percentile bootstrap of Efron 1979, with seeds crossed with units: a draw resamples
seeds, and the units within each (the same units for every seed, where seeds have the same). A unit is a grid
point with all its death rates, which end too much alike to count as so many observations.

Axes: D bootstrap draws, N candidates, U units, M members of a unit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import rankdata

DRAWS = 1000
_FEWEST = 3  # two points always correlate perfectly


class Estimate(NamedTuple):
    """A number with its 95 % bootstrap interval, and the draws behind it; NaN where it cannot be said."""

    value: float
    low: float
    high: float
    draws: np.ndarray

    def text(self, digits: int = 2, *, also: str = "") -> str:
        """The value and its interval; `also` stands behind the interval."""
        if np.isnan(self.value):
            return "–"
        if np.isnan(self.low):
            return f"{self.value:.{digits}f}"
        interval = f"{self.low:.{digits}f} to {self.high:.{digits}f}"
        return f"{self.value:.{digits}f} ({'; '.join(filter(None, [interval, also]))})"

    def percent(self) -> str:
        """The same of a share, in percent."""
        return Estimate(100 * self.value, 100 * self.low, 100 * self.high, self.draws).text(1)


class Sample(NamedTuple):
    """One seed's candidates: a signal, the final metric (smaller is better), the group and the unit of each.

    Candidates of one unit are resampled together; units lie within groups.
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


def point(samples: Sequence[Sample], statistic: Statistic) -> float:
    """The mean of a statistic over seeds, without an interval."""
    return float(np.mean(_mean([_as_is(sample, statistic) for sample in samples])))


def _as_is(sample: Sample, statistic: Statistic) -> np.ndarray:
    """(1,) the statistic of all candidates."""
    signal_N, final_N, group_N, _ = sample
    if len(final_N) < _FEWEST:
        return np.full(1, np.nan)
    return statistic(signal_N[None], final_N[None], np.ones((1, len(final_N)), dtype=bool), group_N)


def _drawn(sample: Sample, random: np.random.Generator, *, by_group: bool) -> tuple[np.ndarray, np.ndarray]:
    """(D, UM) candidates of drawn units, -1 where a unit has fewer than others, and (UM,) their groups.

    Args:
        sample: with at least one candidate.
        random: of the draws.
        by_group: draw as many units of each group as it has; else as many as there are of all.
    """
    strata = sample.group_N if by_group else np.zeros(len(sample.unit_N), dtype=int)
    units = [np.flatnonzero(sample.unit_N == unit) for unit in dict.fromkeys(sample.unit_N.tolist())]
    most = max(map(len, units))
    members_UM = np.array([np.pad(own, (0, most - len(own)), constant_values=-1) for own in units])
    stratum_U = strata[members_UM[:, 0]]
    columns, groups = [], []
    for stratum in np.unique(stratum_U):
        own = np.flatnonzero(stratum_U == stratum)
        columns.append(own[random.integers(len(own), size=(DRAWS, len(own)))])
        groups += [stratum] * (len(own) * most)
    index_DN = members_UM[np.concatenate(columns, axis=1)].reshape(DRAWS, -1)
    return index_DN, np.array(groups)


def estimate(samples: Sequence[Sample], statistic: Statistic, *, seed: int = 0) -> Estimate:
    """The mean of a statistic over seeds, with seeds and units resampled.

    With `within` and `between` every group keeps its units' number in every draw.
    """
    values, columns = [], []
    for sample in samples:
        values.append(_as_is(sample, statistic)[0])
        if len(sample.final_N) < _FEWEST:
            columns.append(np.full(DRAWS, np.nan))
            continue
        # The same numbers for samples with as many units: theirs are the same.
        random = np.random.default_rng((seed, len(np.unique(sample.unit_N))))
        index_DN, group_N = _drawn(sample, random, by_group=statistic is not overall)
        columns.append(statistic(sample.signal_N[index_DN], sample.final_N[index_DN], index_DN >= 0, group_N))
    picks_DS = np.random.default_rng((seed, len(samples), 1)).integers(
        len(samples), size=(DRAWS, len(samples))
    )
    picked_DS = np.take_along_axis(np.stack(columns, axis=1), picks_DS, axis=1)
    return _estimate(float(_mean([np.array([value]) for value in values])[0]), _mean(list(picked_DS.T)))


def by_chance(samples: Sequence[Sample], statistic: Statistic, *, seed: int = 0) -> Estimate:
    """What signals that are noise give: 0 on average; the draws are of as many such signals."""
    random = np.random.default_rng(seed)
    columns = []
    for sample in samples:
        noise_DN = random.random((DRAWS, len(sample.final_N)))
        final_DN = np.broadcast_to(sample.final_N, noise_DN.shape)
        columns.append(statistic(noise_DN, final_DN, np.ones(noise_DN.shape, dtype=bool), sample.group_N))
    draws = _mean(columns)
    return _estimate(float("nan") if np.isnan(draws).all() else 0.0, draws)


def with_groups_shuffled(samples: Sequence[Sample], statistic: Statistic, *, seed: int = 0) -> np.ndarray:
    """(D,) the mean of a statistic over seeds, were the groups exchangeable and so their members.

    Each draw gives every group the finals of another one, the same one in every seed, in another order; of a
    smaller one some of them twice. What a signal tells by groups alone, among few groups, it tells here by
    chance as well.
    """
    columns = []
    for sample in samples:
        random = np.random.default_rng(seed)  # the same exchanges for every seed with these groups
        inside = np.random.default_rng((seed, 1))
        members = {group: np.flatnonzero(sample.group_N == group) for group in np.unique(sample.group_N)}
        final_DN = np.empty((DRAWS, len(sample.final_N)))
        for final_N in final_DN:
            for own, donor in zip(members.values(), random.permutation(list(members)), strict=True):
                given = inside.permutation(sample.final_N[members[donor]])
                final_N[own] = np.resize(given, len(own))
        signal_DN = np.broadcast_to(sample.signal_N, final_DN.shape)
        columns.append(statistic(signal_DN, final_DN, np.ones(final_DN.shape, dtype=bool), sample.group_N))
    return _mean(columns)


def two_sided(value: float, draws: np.ndarray) -> float:
    """The share of draws as far from 0 as a value, which counts as one; NaN where it cannot be said."""
    known = draws[~np.isnan(draws)]
    if math.isnan(value) or len(known) < DRAWS // 2:
        return math.nan
    return float((1 + (np.abs(known) >= abs(value) - 1e-12).sum()) / (1 + len(known)))


def difference(one: Estimate, other: Estimate) -> Estimate:
    """How much larger one is than another one of the same draws."""
    return _estimate(one.value - other.value, one.draws - other.draws)


def mean_of(groups: Sequence[np.ndarray], *, seed: int = 0) -> Estimate:
    """The mean over groups (seeds) of their values' means, groups and values resampled.

    A single group has no interval: how its own values vary says nothing about another seed.
    """
    value = float(np.mean([values.mean() for values in groups]))
    if len(groups) < 2:
        return Estimate(value, np.nan, np.nan, np.full(DRAWS, value))
    random = np.random.default_rng(seed)
    means_DG = np.stack(
        [values[random.integers(len(values), size=(DRAWS, len(values)))].mean(axis=1) for values in groups],
        axis=1,
    )
    picks_DG = random.integers(len(groups), size=means_DG.shape)
    draws = np.take_along_axis(means_DG, picks_DG, axis=1).mean(axis=1)
    return _estimate(value, draws)


def _estimate(value: float, draws: np.ndarray) -> Estimate:
    known = draws[~np.isnan(draws)]
    if np.isnan(value) or len(known) < DRAWS // 2:
        return Estimate(value, np.nan, np.nan, draws)
    low, high = np.percentile(known, [2.5, 97.5])
    return Estimate(value, float(low), float(high), draws)


def _mean(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Mean of those that are known; NaN where none is."""
    stacked = np.stack(parts)
    known = ~np.isnan(stacked)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(known, stacked, 0.0).sum(axis=0) / known.sum(axis=0)
