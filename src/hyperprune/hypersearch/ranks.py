"""Ranks, and Spearman's correlation of two of them.

References: Spearman 1904; Bonett & Wright 2000, "Sample size requirements for estimating Pearson, Kendall and
Spearman correlations", eq. for the standard error of Fisher's z of rho.
"""

from __future__ import annotations

import math

import numpy as np

_FEWEST = 3  # two points always correlate perfectly
_TWO_SIDED_95 = 1.959963984540054  # of the normal distribution


def mean_ranks(values_N: np.ndarray) -> np.ndarray:
    """Ranks from 1, smallest first; ties share the mean of theirs."""
    below_N = (values_N[None, :] < values_N[:, None]).sum(axis=1)
    level_N = (values_N[None, :] == values_N[:, None]).sum(axis=1)
    return below_N + (level_N + 1) / 2


def spearman(first_N: np.ndarray, second_N: np.ndarray) -> float:
    """Spearman's rho; NaN for fewer than 3 points, or where all of one side are equal."""
    if len(first_N) < _FEWEST:
        return math.nan
    ranks_2N = np.stack([mean_ranks(first_N), mean_ranks(second_N)])
    centred_2N = ranks_2N - ranks_2N.mean(axis=1, keepdims=True)
    norms = np.sqrt((centred_2N**2).sum(axis=1))
    return float(centred_2N[0] @ centred_2N[1] / norms.prod()) if norms.all() else math.nan


def spearman_interval(rho: float, num_points: int) -> tuple[float, float]:
    """The 95 % interval of rho: Fisher's z with the variance (1 + rho²/2) / (n − 3).

    A perfect order has no finite z: it counts as half an exchange of neighbours away from perfect, 1 −
    6 / (n (n² − 1)), so that few points never seem certain. With 3 points nothing can be said: −1 to 1.
    """
    if math.isnan(rho):
        return math.nan, math.nan
    if num_points <= _FEWEST:
        return -1.0, 1.0
    most = 1 - 6 / (num_points * (num_points**2 - 1))
    z = math.atanh(min(max(rho, -most), most))
    half = _TWO_SIDED_95 * math.sqrt((1 + rho**2 / 2) / (num_points - 3))
    return min(math.tanh(z - half), rho), max(math.tanh(z + half), rho)


def least_told(num_points: int) -> float | None:
    """The smallest rho, in hundredths, that so many points tell from none: whose interval lies above 0.

    None where they are too few for a perfect order.
    """
    hundredths = (step / 100 for step in range(101))
    return next((rho for rho in hundredths if spearman_interval(rho, num_points)[0] > 0), None)
