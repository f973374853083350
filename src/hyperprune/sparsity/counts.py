"""Whole numbers that add up: how many weights live in all, and how they are shared out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from hyperprune.errors import InputError, NumericsError


def check_sparsity(sparsity: Any) -> float:
    """`sparsity` as a float, if it is a number in [0, 1)."""
    valid = isinstance(sparsity, int | float) and not isinstance(sparsity, bool)
    if not valid or not 0 <= sparsity < 1:
        raise InputError(f"sparsity must lie in [0, 1), got {sparsity!r}; 0.67 keeps a third of the weights")
    return float(sparsity)


def rounded_share(share: float, total: int) -> int:
    """`share · total` rounded to the nearest whole number, halves up.

    The share is taken as the decimal number that it prints as, so that 0.67 of 100 is 67 and not 66.
    """
    return math.floor(Fraction(repr(float(share))) * total + Fraction(1, 2))


def num_live_at(sparsity: float, total: int) -> int:
    """How many of `total` weights live at a sparsity."""
    return total - rounded_share(sparsity, total)


def apportion(
    total: int,
    weights: Sequence[float],
    rooms: Sequence[int],
    minimums: Sequence[int] | None = None,
) -> list[int]:
    """Share out `total` in proportion to `weights`, exactly, never beyond a share's room.

    What exceeds a room is passed on to the others in proportion; leftovers of rounding go to the
    largest remainders, ties to the lower index. Where all open weights are zero, room takes their place.

    Args:
        total: what is shared out; at most the sum of the rooms.
        weights: finite, at least 0.
        rooms: the most that each may get.
        minimums: the least that each must get, at most its room; default 0.

    Raises:
        NumericsError: a weight is not finite.
    """
    if not all(math.isfinite(weight) for weight in weights):
        raise NumericsError(f"shares must be finite to be proportional to, got {list(weights)}")
    shares = list(minimums) if minimums is not None else [0] * len(weights)
    assert sum(shares) <= total <= sum(rooms), (total, shares, rooms)
    # A minimum is part of the share, not on top of it: only shares that would fall below are held at it.
    held: set[int] = set()
    while True:
        free = [i for i in range(len(weights)) if i not in held]
        quotas = _quotas(total - sum(shares[i] for i in held), free, weights, rooms)
        low = [i for i in free if minimums is not None and quotas[i] < minimums[i]]
        if not low:
            break
        held.update(low)
    for i in free:
        shares[i] = math.floor(quotas[i])
    leftover = total - sum(shares)
    by_remainder = sorted(free, key=lambda i: (shares[i] - quotas[i], i))
    for i in by_remainder[:leftover]:
        shares[i] += 1
    return shares


def _quotas(
    total: int, indices: Sequence[int], weights: Sequence[float], rooms: Sequence[int]
) -> dict[int, Fraction]:
    """Exact proportional shares that fill rooms and pass the excess on."""
    quotas = {i: Fraction(0) for i in indices}
    open_, remaining = [i for i in indices if rooms[i] > 0], Fraction(total)
    while open_ and remaining > 0:
        basis = {i: Fraction(weights[i]) for i in open_}
        if not any(basis.values()):
            basis = {i: Fraction(rooms[i]) for i in open_}
        scale = remaining / sum(basis.values())
        full = [i for i in open_ if basis[i] * scale >= rooms[i]]
        if not full:
            quotas |= {i: basis[i] * scale for i in open_}
            break
        for i in full:
            quotas[i] = Fraction(rooms[i])
            remaining -= rooms[i]
        open_ = [i for i in open_ if i not in full]
    return quotas
