"""How the weights to grow are shared out over the tensors, after some have died.

- `none`: each tensor gets back what it lost.
- `magnitude`: in proportion to the mean |w| of its live weights.
- `nonzeros`: in proportion to the number of its live weights, those above the threshold (Mostafa & Wang
  2019, algorithm 1).
- `momentum`: in proportion to the mean |momentum| of its live weights (Dettmers & Zettlemoyer 2019).

What exceeds a tensor's room is passed on in the same proportion, a tensor that lost all its weights gets
at least one back (one that had none before need not), and the total is exact.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from hyperprune.sparsity.counts import apportion
from hyperprune.sparsity.masks import KILLED, Block

Momentum = Callable[[Block], Tensor | None]


def _lost(block: Block, momentum: Momentum) -> float:
    return float(block.num_with(KILLED))


def _mean_magnitude(block: Block, momentum: Momentum) -> float:
    return _mean_of_live(block.weight, block)


def _num_live(block: Block, momentum: Momentum) -> float:
    return float(block.num_live())


def _mean_momentum(block: Block, momentum: Momentum) -> float:
    values = momentum(block)
    return 0.0 if values is None else _mean_of_live(values, block)


def _mean_of_live(values: Tensor, block: Block) -> float:
    """Mean |value| over the live weights; the values of dead ones are 0 already."""
    wide = torch.float64 if values.dtype == torch.float64 else torch.float32
    return float(torch.linalg.vector_norm(values, 1, dtype=wide)) / max(1, block.num_live())


REDISTRIBUTIONS: Mapping[str, Callable[[Block, Momentum], float]] = {
    "none": _lost,
    "magnitude": _mean_magnitude,
    "nonzeros": _num_live,
    "momentum": _mean_momentum,
}


def shares(rule: str, blocks: Sequence[Block], count: int, momentum: Momentum) -> list[int]:
    """How many weights each block gets, `count` in all.

    Args:
        rule: a name in `REDISTRIBUTIONS`.
        blocks: after death, with killed weights and their momentum at 0.
        count: at most the number of dead weights.
        momentum: the (N,) smoothed gradient of a block, None where there is none yet.
    """
    rooms = [block.total - block.num_live() for block in blocks]
    emptied = [i for i, block in enumerate(blocks) if rooms[i] == block.total and block.num_with(KILLED)]
    served = emptied[:count]  # not even one for each: as far as it goes
    minimums = [int(i in served) for i in range(len(blocks))]
    return apportion(count, [REDISTRIBUTIONS[rule](block, momentum) for block in blocks], rooms, minimums)
