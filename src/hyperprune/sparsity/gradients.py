"""Dense gradients for growth: held from the step that has them to the update that ranks dead weights by them.

A dense gradient takes as much memory as the model. Where it is that of a single batch and an update can
grow no more than a known number of weights per block, only that many candidates are kept: the dead weights
with the largest gradients, which is exact. In all other cases the whole is kept: several batches must be
added up before they can be ranked, and a redistribution decides only after death how much a block gets.

Axes: N weights of a block, flattened; K candidates.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from hyperprune.sparsity.masks import CANDIDATE, Block, MaskedTensor
from hyperprune.sparsity.selection import Ranked, largest


@dataclass(frozen=True)
class Candidates:
    """The dead weights of a block that may grow, marked in its mask, and their (K,) gradients in order."""

    block: Block
    values: Tensor

    def largest(self, count: int) -> Bool[Tensor, " N"]:
        """True at the `count` candidates with the largest magnitudes; ties to the lower index."""
        everyone = torch.ones_like(self.values, dtype=torch.bool)
        chosen = largest([Ranked(self.values, everyone, f"the gradient of {self.block.label}")], count)[0]
        where = self.block.has(CANDIDATE)
        return torch.zeros_like(where).masked_scatter_(where, chosen)


class DenseGradients:
    """Gradients of pruned tensors, taken before they are masked.

    Args:
        tensors: all of them.
        blocks: theirs, in the same order.
    """

    def __init__(self, tensors: Sequence[MaskedTensor], blocks: Sequence[Block]) -> None:
        self._tensors = tensors
        self._blocks = blocks
        self._whole: dict[str, Tensor] = {}
        self._candidates: dict[str, Tensor] = {}

    def __bool__(self) -> bool:
        return bool(self._whole or self._candidates)

    def follow_device(self) -> None:
        """Move what is held to where the model has been moved."""
        for tensor in self._tensors:
            if tensor.name in self._whole:
                self._whole[tensor.name] = self._whole[tensor.name].to(tensor.parameter.device)
        for block in self._blocks:
            if block.label in self._candidates:
                device = block.tensor.parameter.device
                self._candidates[block.label] = self._candidates[block.label].to(device)

    @property
    def num_bytes(self) -> int:
        """Memory that is held."""
        held = (*self._whole.values(), *self._candidates.values())
        return sum(values.numel() * values.element_size() for values in held)

    @torch.no_grad()
    def add(self, decay: float, most: Sequence[int] | None = None) -> str | None:
        """Take the gradients of this step: `whole = decay · whole + gradient`, or the candidates alone.

        Args:
            decay: of what is held already.
            most: how many weights the coming update can grow at most, per block; None: not known, or several
                batches are added up.

        Returns:
            The name of a tensor whose gradient is not finite, if there is one; nothing is taken then.
        """
        gradients = {}
        for tensor in self._tensors:
            gradient = tensor.parameter.grad
            if gradient is not None:
                gradients[tensor.name] = gradient.to_dense() if gradient.is_sparse else gradient
        for name, gradient in gradients.items():
            if not math.isfinite(torch.linalg.vector_norm(gradient, math.inf)):
                return name
        limits = dict(zip(self._blocks, most, strict=True)) if most is not None else {}
        for tensor in self._tensors:
            if tensor.name not in gradients:
                continue
            blocks = [block for block in self._blocks if block.tensor is tensor]
            gradient = gradients[tensor.name]
            if all(block in limits and limits[block] <= block.total - block.num_live() for block in blocks):
                for block in blocks:
                    self._take_candidates(block, block.of(gradient), limits[block])
            elif tensor.name in self._whole:
                self._whole[tensor.name].mul_(decay).add_(gradient)
            else:
                self._whole[tensor.name] = gradient.to(_wide(gradient), copy=True)
        return None

    def _take_candidates(self, block: Block, gradient: Tensor, most: int) -> None:
        dead = block.status >= 0
        chosen = largest([Ranked(gradient, dead, f"the gradient of {block.label}")], most)[0]
        block.set_flag(CANDIDATE, chosen)
        self._candidates[block.label] = gradient[chosen].to(_wide(gradient))

    def of(self, block: Block) -> Tensor | Candidates | None:
        """The (N,) gradient of a block, or its candidates; None if it had no gradient."""
        if block.label in self._candidates:
            return Candidates(block, self._candidates[block.label])
        values = self._whole.get(block.tensor.name)
        return None if values is None else block.of(values)

    def clear(self) -> None:
        """Let go of everything; the marks in the masks go with those of the update."""
        self._whole.clear()
        self._candidates.clear()

    def state_dict(self) -> dict[str, Any]:
        return {
            "whole": {name: values.clone() for name, values in self._whole.items()},
            "candidates": {label: values.clone() for label, values in self._candidates.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Back to a saved state; the masks, which mark the candidates, are loaded apart."""
        self._whole, self._candidates = (
            {name: values.clone() for name, values in state[part].items()} for part in ("whole", "candidates")
        )
        self.follow_device()


def _wide(gradient: Tensor) -> torch.dtype:
    return gradient.dtype if gradient.dtype == torch.float64 else torch.float32
