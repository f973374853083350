"""Pruning a trained network once, by magnitude, and keeping what is gone at zero.

Unlike `hyperprune.sparsity`, which trains a network under a method and always leaves live weights, a study
may take all weights away here, and from one part of the recurrent layers alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from hyperprune.errors import InputError, unknown_name
from hyperprune.sparsity.counts import rounded_share
from hyperprune.sparsity.selection import Ranked, smallest

# Names as `torch.nn` and `hyperprune.models.cells` give them; a full peephole carries the layer's own state.
_RECURRENT = ("weight_hh", "weight_peephole")
PARTS = {"both": ("weight_ih", *_RECURRENT), "input": ("weight_ih",), "recurrent": _RECURRENT}
SCOPES = ("network", "layer")

Masks = dict[str, Bool[Tensor, "..."]]


def matrices_of(model: nn.Module, part: str) -> dict[str, nn.Parameter]:
    """The matrices of a model's recurrent layers by name: input-to-hidden, hidden-to-hidden or both.

    Args:
        model: with recurrent modules whose parameters are named as `torch.nn` names them.
        part: "both", "input" or "recurrent".

    Raises:
        InputError: an unknown part, or a model without such matrices.
    """
    if part not in PARTS:
        raise unknown_name("part", part, PARTS)
    chosen = {
        name: weight
        for name, weight in model.named_parameters()
        if weight.ndim >= 2 and name.rpartition(".")[2].startswith(PARTS[part])
    }
    if not chosen:
        names = " or ".join(f"{prefix}*" for prefix in PARTS[part])
        raise InputError(
            f"a model must have matrices named {names} to prune its part {part!r}, got none; name recurrent "
            "weights as torch.nn does"
        )
    return chosen


def lowest_masks(matrices: Mapping[str, nn.Parameter], percent: int, *, scope: str = "network") -> Masks:
    """Masks that leave out the `percent` % of weights with the lowest magnitudes; True is live.

    Counts are exact (rounded to the nearest weight) and ties go to the earlier weight.

    Args:
        matrices: by name.
        percent: 0 to 100.
        scope: "network", one threshold over all matrices, or "layer", one for each layer's matrices.

    Raises:
        InputError: a percentage out of range or an unknown scope.
        NumericsError: a weight is not finite.
    """
    if not 0 <= percent <= 100:
        raise InputError(f"percent must lie in [0, 100], got {percent}")
    if scope not in SCOPES:
        raise unknown_name("scope", scope, SCOPES)
    groups: dict[str, list[str]] = {}
    for name in matrices:
        groups.setdefault("" if scope == "network" else _layer(name), []).append(name)
    masks: Masks = {}
    for names in groups.values():
        weights = [matrices[name].detach().flatten() for name in names]
        parts = [
            Ranked(weight, torch.ones_like(weight, dtype=torch.bool), name)
            for name, weight in zip(names, weights, strict=True)
        ]
        count = rounded_share(percent / 100, sum(weight.numel() for weight in weights))
        for name, dead in zip(names, smallest(parts, count), strict=True):
            masks[name] = ~dead.view_as(matrices[name])
    return masks


def _layer(name: str) -> str:
    """What the matrices of one layer have in common: the module's path and the layer's number."""
    path, _, leaf = name.rpartition(".")
    number = re.search(r"_l(\d+)", leaf)
    return f"{path}.{number.group(1) if number else ''}"


def prune_and_hold(matrices: Mapping[str, nn.Parameter], masks: Masks) -> None:
    """Set dead weights to 0 and let no gradient reach them.

    An optimizer that starts afterwards leaves them at exactly 0, weight decay and momentum included, because
    weight, gradient and moments all are; gradient norms count live weights only.
    """
    for name, mask in masks.items():
        with torch.no_grad():
            matrices[name].mul_(mask)
        matrices[name].register_hook(lambda gradient, mask=mask: gradient * mask)
