"""Growth summed over blocks of time: enough for error bars and a running estimate, bounded in memory.

Axes: N blocks (or slots to be added), B samples, K directions.
"""

import copy
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, Int64

_MAX_BLOCKS = 128


class TimeBlocks:
    """Growth of one layer's directions in at most 128 blocks, whatever the number of steps.

    Blocks have equal length (the last one may be shorter). When there are too many, neighbours are
    joined; that depends on the number of steps alone, not on how they were handed over.

    Args:
        steps_per_slot: steps behind each entry that `add` is given.
        lost_rate: nats per step by which a direction that Jacobians map to zero stays at least below the
            leading one; negative.
    """

    def __init__(self, steps_per_slot: int, lost_rate: float) -> None:
        self._steps_per_slot = steps_per_slot
        self._lost_rate = lost_rate
        self._slots_per_block = 1
        self._sums: list[np.ndarray] = []
        self._open: np.ndarray | None = None
        self._open_slots = 0
        self._tail: tuple[np.ndarray, int] | None = None

    def add(self, logs_NBK: Float64[np.ndarray, "N B K"]) -> None:
        """Add whole slots."""
        for logs_BK in logs_NBK:
            total_BK = logs_BK if self._open is None else self._open + logs_BK
            self._open, self._open_slots = total_BK, self._open_slots + 1
            if self._open_slots == self._slots_per_block:
                self._sums.append(total_BK)
                self._open, self._open_slots = None, 0
                if len(self._sums) == _MAX_BLOCKS:
                    self._sums = [a + b for a, b in zip(self._sums[::2], self._sums[1::2], strict=True)]
                    self._slots_per_block *= 2

    def with_tail(self, logs_BK: Float64[np.ndarray, "B K"], num_steps: int) -> "TimeBlocks":
        """A copy that ends with a slot of fewer steps."""
        ended = copy.deepcopy(self)
        ended._tail = (logs_BK, num_steps)
        return ended

    def growth(
        self, remainder_BK: Float64[np.ndarray, "B K"], num_null: int = 0
    ) -> Float64[np.ndarray, "N B K"]:
        """Growth by block; the last one gets what the frames themselves still hold.

        `-inf` for a direction that time does not tell apart from round-off. All steps together decide: in a
        single one the round-off of a lost direction may pass for growth.

        Args:
            num_null: how many of a sample's directions are known to be lost: at least the smallest ones.
        """
        blocks = list(self._sums)
        if self._open is not None:
            blocks.append(self._open)
        if self._tail is not None:
            blocks.append(self._tail[0])
        blocks[-1] = blocks[-1] + remainder_BK
        growth_NBK = np.stack(blocks)
        total_BK = growth_NBK.sum(axis=0)
        limit_B1 = total_BK.max(axis=-1, keepdims=True) + self._lost_rate * self.steps().sum()
        place_BK = total_BK.argsort(axis=-1).argsort(axis=-1)
        is_lost_BK = np.isfinite(total_BK) & ((total_BK <= limit_B1) | (place_BK < num_null))
        return np.where(is_lost_BK, -np.inf, growth_NBK)

    def steps(self) -> Int64[np.ndarray, " N"]:
        """Length of each block."""
        steps = [self._slots_per_block * self._steps_per_slot] * len(self._sums)
        if self._open is not None:
            steps.append(self._open_slots * self._steps_per_slot)
        if self._tail is not None:
            steps.append(self._tail[1])
        return np.asarray(steps, dtype=np.int64)

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values; none of numpy's, which `torch.load` takes from trusted files only."""
        return {
            "sums": [torch.tensor(sum_BK) for sum_BK in self._sums],
            "open": None if self._open is None else torch.tensor(self._open),
            "open_slots": self._open_slots,
            "slots_per_block": self._slots_per_block,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._sums = [sum_BK.numpy().copy() for sum_BK in state["sums"]]
        self._open = None if state["open"] is None else state["open"].numpy().copy()
        self._open_slots, self._slots_per_block = state["open_slots"], state["slots_per_block"]
