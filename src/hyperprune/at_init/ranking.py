"""Exactly so many weights with the largest scores; ties go to the earlier tensor, then the lower index."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from hyperprune.errors import InputError, NumericsError
from hyperprune.sparsity.counts import check_sparsity, num_live_at
from hyperprune.sparsity.selection import Ranked, largest, smallest

RANKINGS = ("global", "tensor")


def check_finite(scores: Mapping[str, Tensor], criterion: str) -> None:
    """Refuse scores that cannot be ranked.

    Raises:
        NumericsError: names the tensor.
    """
    for name, score in scores.items():
        bad = int((~torch.isfinite(score)).count_nonzero())
        if bad:
            raise NumericsError(
                f"scores must be finite to be ranked, {criterion} gave {bad} of {score.numel()} for {name} "
                "that are not; begin with smaller weights, or compute in float64"
            )


def num_kept(sparsity: float, total: int) -> int:
    """How many of all weights to keep.

    Raises:
        InputError: a sparsity out of range, or one that keeps nothing at all.
    """
    kept = num_live_at(check_sparsity(sparsity), total)
    if kept == 0:
        raise InputError(
            f"a sparsity must leave at least one weight, {sparsity} leaves none of {total}; lower it"
        )
    return kept


def best(
    scores: Mapping[str, Tensor],
    count: list[int] | int,
    live: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Masks that are True at the largest scores.

    Args:
        scores: finite, of any sign, by name.
        count: in all, or for each tensor.
        live: where a weight may be chosen; None is everywhere.
    """
    wide = torch.float64 if any(score.dtype == torch.float64 for score in scores.values()) else torch.float32
    flat = {name: score.detach().to(wide).reshape(-1) for name, score in scores.items()}
    eligible = {
        name: torch.ones_like(score, dtype=torch.bool) if live is None else live[name].reshape(-1)
        for name, score in flat.items()
    }
    if isinstance(count, int):
        chosen = _largest_signed(flat, eligible, count)
    else:
        chosen = {}
        for name, number in zip(flat, count, strict=True):
            chosen |= _largest_signed({name: flat[name]}, {name: eligible[name]}, number)
    return {name: chosen[name].view(score.shape) for name, score in scores.items()}


def _largest_signed(
    scores: Mapping[str, Tensor], eligible: Mapping[str, Tensor], count: int
) -> dict[str, Tensor]:
    """Selection ranks by magnitude: so those from 0 up by the largest, those below by the smallest."""
    upper = [Ranked(score, eligible[name] & (score >= 0), name) for name, score in scores.items()]
    num_upper = sum(int(part.eligible.count_nonzero()) for part in upper)
    if count <= num_upper:
        return dict(zip(scores, largest(upper, count), strict=True))
    lower = [Ranked(score, eligible[name] & (score < 0), name) for name, score in scores.items()]
    below = smallest(lower, count - num_upper)
    return {name: part.eligible | chosen for name, part, chosen in zip(scores, upper, below, strict=True)}
