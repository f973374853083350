"""Which live weights an update kills.

- `magnitude`: the share ζ of each tensor with the smallest |w|.
- `set` (Mocanu et al. 2018): half of ζ are the positive weights closest to zero, half the negative ones
  closest to zero; where one sign has too few, the other gives more.
- `threshold` (Mostafa & Wang 2019, "DSR"): all |w| below one threshold for the whole network, which is
  doubled or halved after an update that missed its target by more than the tolerance. With
  `at_once` the threshold is fitted to every update's target instead, a control that shows what the
  slow adaptation alone changes.
- `global_magnitude`: the share ζ of all weights with the smallest |w| over the network.

Every death kills exact counts, with ties by index; only the adaptive threshold kills what it finds. None
takes more from a block than its limit; a ranking of the network then takes more from the other blocks.
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

    def kill(self, blocks: Sequence[Block], rate: float, limits: Sequence[int] | None = None) -> None:
        """Mark about the share `rate` of the live weights of `blocks` as killed.

        Args:
            blocks: those that take part.
            rate: in [0, 1].
            limits: the most that each block may lose; None sets no limit.
        """
        ...

    def most_killed(self, num_live: int, rate: float) -> int:
        """The most that `kill` takes from a block of so many live weights."""
        ...


class MagnitudeDeath:
    """The smallest |w| of each block."""

    def __init__(self) -> None:
        self.state: dict[str, float] = {}

    def kill(self, blocks: Sequence[Block], rate: float, limits: Sequence[int] | None = None) -> None:
        for block, limit in zip(blocks, _limits(blocks, limits), strict=True):
            kill_smallest([block], min(rounded_share(rate, block.num_live()), limit))

    def most_killed(self, num_live: int, rate: float) -> int:
        return rounded_share(rate, num_live)


class GlobalMagnitudeDeath:
    """The smallest |w| over all blocks."""

    def __init__(self) -> None:
        self.state: dict[str, float] = {}

    def kill(self, blocks: Sequence[Block], rate: float, limits: Sequence[int] | None = None) -> None:
        kill_smallest_of_all(blocks, _target(blocks, rate, limits), _limits(blocks, limits))

    def most_killed(self, num_live: int, rate: float) -> int:
        return num_live  # the whole network's share may come from one block


class SetDeath:
    """The positive weights closest to zero, and as many negative ones."""

    def __init__(self) -> None:
        self.state: dict[str, float] = {}

    def kill(self, blocks: Sequence[Block], rate: float, limits: Sequence[int] | None = None) -> None:
        for block, limit in zip(blocks, _limits(blocks, limits), strict=True):
            weight, live = block.weight, block.live()
            positive = live & (weight >= 0)  # a weight grown and not yet moved counts as positive
            negative = live & ~positive  # NaN with them, so that ranking finds it
            count = min(rounded_share(rate, int(live.count_nonzero())), limit)
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

    def kill(self, blocks: Sequence[Block], rate: float, limits: Sequence[int] | None = None) -> None:
        target = _target(blocks, rate, limits)
        if self._at_once:
            kill_smallest_of_all(blocks, target, _limits(blocks, limits))
            return
        if target == 0:  # the exchange is over; a threshold would go on killing
            return
        num_killed = 0
        for block, limit in zip(blocks, _limits(blocks, limits), strict=True):
            part = Ranked(block.weight, block.live(), block.label)
            # Strictly below: weights that sit on the threshold together must not all go at once.
            chosen = below(part, self.state["threshold"])
            if int(chosen.count_nonzero()) > limit:
                chosen = smallest([part], limit)[0]
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


def kill_smallest_of_all(blocks: Sequence[Block], count: int, limits: Sequence[int]) -> None:
    """As `kill_smallest`, but no block loses more than its limit; the others make up for it.

    `count` must not exceed the sum of the limits.
    """
    parts = [Ranked(block.weight, block.live(), block.label) for block in blocks]
    missing, open_, rooms = 0, [], []
    for block, part, limit, mask in zip(blocks, parts, limits, each_smallest(parts, count), strict=True):
        chosen, num_chosen = mask, int(mask.count_nonzero())
        if num_chosen > limit:
            chosen = smallest([part], limit)[0]
            missing += num_chosen - limit
        else:
            open_.append(block)
            rooms.append(limit - num_chosen)
        block.kill(chosen)
    if missing:
        kill_smallest_of_all(open_, missing, rooms)


def _limits(blocks: Sequence[Block], limits: Sequence[int] | None) -> Sequence[int]:
    return [block.num_live() for block in blocks] if limits is None else limits


def _target(blocks: Sequence[Block], rate: float, limits: Sequence[int] | None) -> int:
    """How many weights a death that looks at the whole network is to kill."""
    share = rounded_share(rate, sum(block.num_live() for block in blocks))
    return min(share, sum(_limits(blocks, limits)))
