"""Which live weights an update kills.

- `magnitude`: the share ζ of each tensor with the smallest |w|.
- `set` (Mocanu et al. 2018): half of ζ are the positive weights closest to zero, half the negative ones
  closest to zero; where one sign has too few, the other gives more.
- `threshold` (Mostafa & Wang 2019, "DSR"): all |w| below one threshold for the whole network, which is
  doubled or halved after an update that missed its target by more than the tolerance. With
  `at_once` the threshold is fitted to every update's target instead, a control that shows what the
  slow adaptation alone changes.
- `global_magnitude`: the share ζ of all weights with the smallest |w| over the network.

Every death kills exact counts, with ties by index; only the adaptive threshold kills what it finds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from hyperprune.sparsity.counts import rounded_share
from hyperprune.sparsity.masks import Block
from hyperprune.sparsity.selection import Ranked, below, each_smallest, smallest


class Death(Protocol):
    """Kills weights; what it must remember between updates is in `state`."""

    state: dict[str, float]

    def kill(self, blocks: Sequence[Block], rate: float) -> None:
        """Mark about the share `rate` of the live weights of `blocks` as killed."""
        ...

    def most_killed(self, num_live: int, rate: float) -> int:
        """The most that `kill` takes from a block of so many live weights."""
        ...


class MagnitudeDeath:
    """The smallest |w| of each block."""

    def __init__(self) -> None:
        self.state: dict[str, float] = {}

    def kill(self, blocks: Sequence[Block], rate: float) -> None:
        for block in blocks:
            kill_smallest([block], rounded_share(rate, block.num_live()))

    def most_killed(self, num_live: int, rate: float) -> int:
        return rounded_share(rate, num_live)


class GlobalMagnitudeDeath:
    """The smallest |w| over all blocks."""

    def __init__(self) -> None:
        self.state: dict[str, float] = {}

    def kill(self, blocks: Sequence[Block], rate: float) -> None:
        kill_smallest(blocks, rounded_share(rate, sum(block.num_live() for block in blocks)))

    def most_killed(self, num_live: int, rate: float) -> int:
        return num_live  # the whole network's share may come from one block


class SetDeath:
    """The positive weights closest to zero, and as many negative ones."""

    def __init__(self) -> None:
        self.state: dict[str, float] = {}

    def kill(self, blocks: Sequence[Block], rate: float) -> None:
        for block in blocks:
            weight, live = block.weight, block.live()
            positive = live & (weight >= 0)  # a weight grown and not yet moved counts as positive
            negative = live & ~positive  # NaN with them, so that ranking finds it
            count = rounded_share(rate, int(live.count_nonzero()))
            room_positive, room_negative = int(positive.count_nonzero()), int(negative.count_nonzero())
            from_positive = min((count + 1) // 2, room_positive)
            from_negative = min(count - from_positive, room_negative)
            from_positive = count - from_negative
            block.kill(smallest([Ranked(weight, positive, block.label)], from_positive)[0])
            block.kill(smallest([Ranked(weight, negative, block.label)], from_negative)[0])

    def most_killed(self, num_live: int, rate: float) -> int:
        return rounded_share(rate, num_live)


class ThresholdDeath:
    """All |w| below an adaptive threshold that the whole network shares.

    Args:
        start: the first threshold.
        tolerance: relative miss of the target beyond which the threshold is doubled or halved.
        at_once: meet every target exactly instead, by the threshold that does so.
    """

    def __init__(self, *, start: float = 1e-3, tolerance: float = 0.02, at_once: bool = False) -> None:
        self.state = {"threshold": start}
        self._tolerance = tolerance
        self._at_once = at_once

    def kill(self, blocks: Sequence[Block], rate: float) -> None:
        target = rounded_share(rate, sum(block.num_live() for block in blocks))
        if self._at_once:
            kill_smallest(blocks, target)
            return
        num_killed = 0
        for block in blocks:
            # Strictly below: weights that sit on the threshold together must not all go at once.
            chosen = below(Ranked(block.weight, block.live(), block.label), self.state["threshold"])
            num_killed += int(chosen.count_nonzero())
            block.kill(chosen)
        if num_killed > target * (1 + self._tolerance):
            self.state["threshold"] /= 2
        elif num_killed < target * (1 - self._tolerance):
            self.state["threshold"] *= 2

    def most_killed(self, num_live: int, rate: float) -> int:
        return num_live  # the whole network's share may come from one block


DEATHS: Mapping[str, type[Death]] = {
    "magnitude": MagnitudeDeath,
    "set": SetDeath,
    "threshold": ThresholdDeath,
    "global_magnitude": GlobalMagnitudeDeath,
}


def kill_smallest(blocks: Sequence[Block], count: int) -> None:
    """Kill exactly `count` weights: the smallest |w| over all `blocks` together."""
    parts = [Ranked(block.weight, block.live(), block.label) for block in blocks]
    for block, mask in zip(blocks, each_smallest(parts, count), strict=True):
        block.kill(mask)
