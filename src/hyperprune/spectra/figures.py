"""Figures derived from a set of exponents, and the error bar of a mean over time and samples.

References:
- Kaplan & Yorke 1979, "Chaotic behavior of multidimensional difference equations": the dimension.
- Pesin 1977; Eckmann & Ruelle 1985, Rev. Mod. Phys. 57, eq. (4.7): the sum of the positive exponents
  bounds the entropy rate, with equality for a smooth invariant measure.
- Flegal & Jones 2010, Ann. Statist. 38: batch means with batches of about sqrt(T) steps.

Axes: N time blocks, B samples, K exponents.
"""

import math

import numpy as np
from jaxtyping import Float64, Int64


def kaplan_yorke_dimension(exponents_K: Float64[np.ndarray, " K"]) -> float:
    """The dimension `j + (λ_1 + … + λ_j) / |λ_{j+1}|`, with j the most leading exponents whose sum is ≥ 0.

    Args:
        exponents_K: any order, `-inf` allowed.

    Returns:
        0 for a spectrum without an exponent ≥ 0, K where no partial sum is negative; a fraction between
        the two else. Over the K exponents given: a truncated spectrum gives a lower bound.
    """
    ordered_K = np.sort(exponents_K)[::-1]
    sums_K = np.cumsum(ordered_K)
    j = int(np.count_nonzero(sums_K >= 0))
    if j == 0 or j == len(ordered_K):
        return float(j)
    return j + float(sums_K[j - 1] / -ordered_K[j])


def entropy_rate(exponents_K: Float64[np.ndarray, " K"]) -> float:
    """Sum of the positive exponents, in nats per step."""
    return float(exponents_K[exponents_K > 0].sum())


def standard_error(
    growth_NBK: Float64[np.ndarray, "N B K"], steps_N: Int64[np.ndarray, " N"]
) -> Float64[np.ndarray, " K"]:
    """Standard error of the mean growth rate per step, by batch means over time and samples.

    Consecutive blocks are joined into about sqrt(T) batches per sample, long enough to be nearly
    independent of each other; each batch of each sample counts as one draw.

    Args:
        growth_NBK: nats gathered in each block of steps.
        steps_N: length of each block.

    Returns:
        Nats per step; NaN where it cannot be estimated (a single batch, or an exponent of `-inf`).
    """
    num_blocks, _, num_exponents = growth_NBK.shape
    num_batches = min(num_blocks, max(1, math.isqrt(int(steps_N.sum()))))
    starts_M = np.linspace(0, num_blocks, num_batches, endpoint=False).astype(np.int64)
    growth_MBK = np.add.reduceat(growth_NBK, starts_M, axis=0)
    steps_M11 = np.add.reduceat(steps_N, starts_M)[:, None, None].astype(np.float64)
    num_draws = growth_MBK.shape[0] * growth_MBK.shape[1]
    if num_draws < 2:
        return np.full(num_exponents, np.nan)
    total = steps_M11.sum() * growth_MBK.shape[1]
    finite_K = np.isfinite(growth_MBK).all(axis=(0, 1))
    growth_MBK = np.where(finite_K, growth_MBK, 0.0)
    mean_K = growth_MBK.sum(axis=(0, 1)) / total
    # Weighted by length, because the last batch may be shorter; the factor is Bessel's correction.
    deviations_MBK = growth_MBK - mean_K * steps_M11
    variance_K = (deviations_MBK**2).sum(axis=(0, 1)) / total**2 * (num_draws / (num_draws - 1))
    return np.where(finite_K, np.sqrt(variance_K), np.nan)
