"""Which dead positions of a block come to life.

- `random`: every set of positions equally likely (Mocanu et al. 2018).
- `gradient`: the largest |∂L/∂w|, the dense gradient summed through time (Evci et al. 2020).
- `momentum`: the largest |smoothed dense gradient| (Dettmers & Zettlemoyer 2019).

Positions that the same update killed are left alone unless nothing else has room. Equal gradients go by
index: those of a tensor without one, and of embedding rows that no batch has seen, which are all 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from hyperprune.sparsity.gradients import Candidates
from hyperprune.sparsity.masks import KILLED, LIVE, Block
from hyperprune.sparsity.selection import Ranked, at_random, largest

# Share of a smoothed gradient that may stem from before the steps that are collected. Collecting begins anew
# after every update, so where updates lie closer together more of it is missing.
_FORGOTTEN = 0.01


@dataclass(frozen=True)
class Growth:
    """How positions are ranked.

    Attributes:
        ranked: by dense gradients; otherwise at random.
        smoothed: gradients are averaged with the optimizer's momentum coefficient, not evenly.
    """

    ranked: bool = False
    smoothed: bool = False

    def num_batches(self, asked: int, momentum: float) -> int:
        """In how many steps before an update dense gradients are needed."""
        if not self.smoothed:
            return asked if self.ranked else 0
        return max(1, math.ceil(math.log(_FORGOTTEN) / math.log(momentum)))

    def grow(
        self,
        block: Block,
        count: int,
        scores: Tensor | Candidates | None,
        generator: torch.Generator,
        *,
        avoid_killed: bool = True,
    ) -> None:
        """Bring exactly `count` dead weights of `block` to life.

        Args:
            block: must have that many dead weights.
            count: at least 0.
            scores: (N,) gradients of any scale, if `ranked`; None ranks all positions the same. Candidates
                suffice if they are all that can grow and no killed weight may.
            generator: on the block's device.
            avoid_killed: take just-killed positions only when the others do not suffice.
        """
        if not avoid_killed:
            block.grow(self._choose(block, block.status >= 0, count, scores, generator))
            return
        from_others = min(count, block.num_with(LIVE | KILLED, 0))
        others = block.status.bitwise_and(LIVE | KILLED) == 0
        block.grow(self._choose(block, others, from_others, scores, generator))
        if count > from_others:
            killed = block.status.bitwise_and(LIVE | KILLED) == KILLED
            block.grow(self._choose(block, killed, count - from_others, scores, generator))

    def _choose(
        self,
        block: Block,
        eligible: Bool[Tensor, " N"],
        count: int,
        scores: Tensor | Candidates | None,
        generator: torch.Generator,
    ) -> Bool[Tensor, " N"]:
        if not self.ranked:
            return at_random(eligible, count, generator)
        if isinstance(scores, Candidates):
            return scores.largest(count)
        if scores is None:
            scores = torch.zeros_like(eligible, dtype=torch.float32)
        return largest([Ranked(scores, eligible, f"the gradient of {block.label}")], count)[0]


GROWTHS: Mapping[str, Growth] = {
    "random": Growth(),
    "gradient": Growth(ranked=True),
    "momentum": Growth(ranked=True, smoothed=True),
}
