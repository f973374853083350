"""Rank correlations with intervals, over configurations and seeds at once.

References: Spearman 1904; percentile bootstrap of Efron 1979, here with seeds as clusters: a draw resamples
seeds, and the candidates within each (the same candidates for every seed, where seeds have the same).

Axes: D bootstrap draws, N candidates.
"""

from __future__ import annotations

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

    def text(self, digits: int = 2) -> str:
        if np.isnan(self.value):
            return "–"
        if np.isnan(self.low):
            return f"{self.value:.{digits}f}"
        return f"{self.value:.{digits}f} ({self.low:.{digits}f} to {self.high:.{digits}f})"


class Sample(NamedTuple):
    """One seed's candidates: a signal, the final metric (smaller is better), and the group of each."""

    signal_N: np.ndarray
    final_N: np.ndarray
    group_N: np.ndarray


def spearman(one_DN: np.ndarray, other_DN: np.ndarray) -> np.ndarray:
    """(D,) Spearman's rho of each row; NaN for fewer than 3 candidates, or without any difference."""
    if one_DN.shape[-1] < _FEWEST:
        return np.full(one_DN.shape[:-1], np.nan)
    ranks = [rankdata(values, axis=-1, nan_policy="propagate") for values in (one_DN, other_DN)]
    one, other = (rank - rank.mean(axis=-1, keepdims=True) for rank in ranks)
    norms = np.sqrt((one**2).sum(axis=-1) * (other**2).sum(axis=-1))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(norms > 0, (one * other).sum(axis=-1) / norms, np.nan)


Statistic = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""Of a seed's signals (D, N), finals (D, N) and groups (N,): a number for each draw, (D,)."""


def overall(signal_DN: np.ndarray, final_DN: np.ndarray, group_N: np.ndarray) -> np.ndarray:
    """Rank correlation among all candidates."""
    return spearman(signal_DN, final_DN)


def within(signal_DN: np.ndarray, final_DN: np.ndarray, group_N: np.ndarray) -> np.ndarray:
    """Mean over groups of the rank correlation among the candidates of one group."""
    return _mean(
        [
            spearman(signal_DN[:, group_N == group], final_DN[:, group_N == group])
            for group in np.unique(group_N)
        ]
    )


def between(signal_DN: np.ndarray, final_DN: np.ndarray, group_N: np.ndarray) -> np.ndarray:
    """Rank correlation of the groups' means."""
    means = [
        np.stack([values[:, group_N == group].mean(axis=1) for group in np.unique(group_N)], axis=1)
        for values in (signal_DN, final_DN)
    ]
    return spearman(*means)


def point(samples: Sequence[Sample], statistic: Statistic) -> float:
    """The mean of a statistic over seeds, without an interval."""
    values = [statistic(sample.signal_N[None], sample.final_N[None], sample.group_N) for sample in samples]
    return float(_mean(values)[0])


def estimate(samples: Sequence[Sample], statistic: Statistic, *, seed: int = 0) -> Estimate:
    """The mean of a statistic over seeds, with seeds and candidates resampled.

    With `within` and `between` every group keeps its size in every draw.
    """
    values, columns = [], []
    for sample in samples:
        size = len(sample.final_N)
        if size < _FEWEST:
            values.append(np.nan)
            columns.append(np.full(DRAWS, np.nan))
            continue
        # The same numbers for samples of the same size: their candidates are the same configurations.
        random = np.random.default_rng((seed, size))
        if statistic is overall:
            order, index_DN = np.arange(size), random.integers(size, size=(DRAWS, size))
        else:
            order = np.argsort(sample.group_N, kind="stable")
            counts = [int((sample.group_N == group).sum()) for group in np.unique(sample.group_N)]
            parts = np.split(order, np.cumsum(counts)[:-1])
            drawn = [part[random.integers(len(part), size=(DRAWS, len(part)))] for part in parts]
            index_DN = np.concatenate(drawn, axis=1)
        groups_N = sample.group_N[order]
        values.append(statistic(sample.signal_N[order][None], sample.final_N[order][None], groups_N)[0])
        columns.append(statistic(sample.signal_N[index_DN], sample.final_N[index_DN], groups_N))
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
        columns.append(statistic(noise_DN, final_DN, sample.group_N))
    draws = _mean(columns)
    return _estimate(float("nan") if np.isnan(draws).all() else 0.0, draws)


def difference(one: Estimate, other: Estimate) -> Estimate:
    """How much larger one is than another one of the same draws."""
    return _estimate(one.value - other.value, one.draws - other.draws)


def mean_of(groups: Sequence[np.ndarray], *, seed: int = 0) -> Estimate:
    """The mean over groups (seeds) of their values' means, groups and values resampled."""
    random = np.random.default_rng(seed)
    means_DG = np.stack(
        [values[random.integers(len(values), size=(DRAWS, len(values)))].mean(axis=1) for values in groups],
        axis=1,
    )
    picks_DG = random.integers(len(groups), size=means_DG.shape)
    draws = np.take_along_axis(means_DG, picks_DG, axis=1).mean(axis=1)
    return _estimate(float(np.mean([values.mean() for values in groups])), draws)


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
