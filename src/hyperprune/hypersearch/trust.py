"""How far an early signal can be trusted: its rank correlation with the final metric.

References: Spearman 1904; percentile bootstrap of Efron 1979.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from hyperprune.records import RunRecord
from hyperprune.rng import derive_seed

_DRAWS = 2000
_FEWEST = 3  # two points always correlate perfectly


class RankCorrelation(NamedTuple):
    """Spearman's rho with a 95 % bootstrap interval; NaN where it cannot be said.

    Positive where candidates with a small signal end better, 0 where the signal says nothing.
    """

    rho: float
    low: float
    high: float
    n: int


def rank_correlation(record: RunRecord, signal_values: Mapping[str, float]) -> RankCorrelation:
    """Rank correlation between an early signal and the final metric of the candidates trained to the end.

    Args:
        record: of the run; its finalists count.
        signal_values: an early signal by candidate key, smaller is better; others than finalists are ignored.

    Returns:
        rho over the n finalists that have a signal; all NaN for fewer than 3 or without any difference among
        them. The interval resamples candidates: with few it is wide, and beyond them it says nothing.
    """
    pairs = [
        (signal_values[row.key], row.metric if record.lower_is_better else -row.metric)
        for row in record.candidates
        if row.outcome == "finalist" and row.metric is not None and row.key in signal_values
    ]
    points_N2 = np.array(pairs, dtype=np.float64).reshape(-1, 2)
    rho = _spearman(points_N2)
    if np.isnan(rho):
        return RankCorrelation(rho, np.nan, np.nan, len(pairs))
    random = np.random.default_rng(derive_seed(record.seed, "rank correlation"))
    draws = [_spearman(points_N2[random.integers(len(pairs), size=len(pairs))]) for _ in range(_DRAWS)]
    low, high = np.nanpercentile(draws, [2.5, 97.5])  # a draw of equal candidates has no correlation
    return RankCorrelation(rho, float(low), float(high), len(pairs))


def _spearman(points_N2: np.ndarray) -> float:
    if len(points_N2) < _FEWEST:
        return float("nan")
    ranks_2N = np.stack([mean_ranks(column_N) for column_N in points_N2.T])
    centred_2N = ranks_2N - ranks_2N.mean(axis=1, keepdims=True)
    norms = np.sqrt((centred_2N**2).sum(axis=1))
    return float(centred_2N[0] @ centred_2N[1] / norms.prod()) if norms.all() else float("nan")


def mean_ranks(values_N: np.ndarray) -> np.ndarray:
    """Ranks from 1, smallest first; ties share the mean of theirs."""
    below_N = (values_N[None, :] < values_N[:, None]).sum(axis=1)
    level_N = (values_N[None, :] == values_N[:, None]).sum(axis=1)
    return below_N + (level_N + 1) / 2
