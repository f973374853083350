"""What changes in the course of training: death rates, densities, and when updates are due.

Progress is the share of the planned steps that are done; it may exceed 1 when training is extended.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hyperprune.errors import InputError

DECAYS: Mapping[str, Callable[[float], float]] = {
    "constant": lambda progress: 1.0,
    "linear": lambda progress: 1.0 - progress,
    # Clamped by the caller: the bare cosine would climb again after its end.
    "cosine": lambda progress: 0.5 * (1.0 + math.cos(math.pi * progress)),
}


def decayed(start: float, end: float, decay: str, progress: float) -> float:
    """A death rate on its way from `start` (progress 0) to `end` (progress 1 and ever after).

    `constant` never leaves `start`. Between, `linear`, or the `cosine` of Dettmers & Zettlemoyer 2019.
    """
    progress = min(max(progress, 0.0), 1.0)
    if decay != "constant" and progress >= 1.0:
        return end
    return end + (start - end) * DECAYS[decay](progress)


def cubic_sparsity(final: float, progress: float) -> float:
    """s = s_f - s_f (1 - progress)³, from dense (Zhu & Gupta 2017, eq. 1 with s_i = 0)."""
    if progress >= 1.0:
        return final
    return final - final * (1.0 - max(progress, 0.0)) ** 3


def stepped_density(final: float, rounds: Sequence[float], progress: float) -> float:
    """The density of the round in progress: rounds are equally long, the last ends at progress 1.

    Args:
        final: reached with the last round.
        rounds: densities after each pruning, falling; those at or below `final` are left out and
            `final` is appended.
        progress: of the pruning phase; 0 is before the first pruning.
    """
    # 1 - 0.9 is a little below 0.1, which is no round of its own.
    densities = [density for density in rounds if density - final > 1e-9] + [final]
    if progress >= 1.0:
        return final
    num_done = math.floor(max(progress, 0.0) * len(densities) + 1e-9)
    return 1.0 if num_done == 0 else densities[num_done - 1]


def geometric_rounds(final: float, num_rounds: int) -> list[float]:
    """Densities that remove the same share of what is left in every round (Frankle & Carbin 2019)."""
    return [final ** (index / num_rounds) for index in range(1, num_rounds + 1)]


def narang_threshold(progress: float, ramp: float, steepening: float) -> float:
    """A threshold that rises linearly and, from `ramp` on, `steepening` times as fast; 1 at progress 1.

    Narang et al. 2017, algorithm 1, with the slopes scaled to end at 1.
    """
    progress = min(max(progress, 0.0), 1.0)
    end = ramp + steepening * (1.0 - ramp)
    now = min(progress, ramp) + steepening * max(progress - ramp, 0.0)
    return now / end


@dataclass
class Clock:
    """How far training is.

    Attributes:
        total_steps: optimizer steps that schedules span.
        steps_per_epoch: if no batch is lost; None if not known. Needed only to tell which steps come right
            before an epoch's end.
        num_steps: optimizer steps done.
        num_epochs: epochs ended.
        epoch_start: `num_steps` when the epoch in progress began.
        num_lost: batches of the epoch in progress that took no step: a gradient scaler skipped it, or the
            user gave them up.
        num_lost_before: those of earlier epochs.
    """

    total_steps: int
    steps_per_epoch: int | None = None
    num_steps: int = 0
    num_epochs: int = 0
    epoch_start: int = 0
    num_lost: int = 0
    num_lost_before: int = 0

    @property
    def progress(self) -> float:
        return self.num_steps / self.total_steps

    @property
    def num_batches(self) -> int:
        """Batches of the epoch in progress that are over."""
        return self.num_steps - self.epoch_start + self.num_lost

    def is_over(self, step: int) -> bool:
        """Whether as many batches as were planned are over with this step, those lost so far among them."""
        return step + self.num_lost + self.num_lost_before >= self.total_steps


@dataclass(frozen=True)
class Cadence:
    """When updates are due: every so many steps, or at the end of every so many epochs.

    None is due at the last planned step: nothing would train the weights that it grows. That may be any
    from the end of the planned batches, where some were lost, to step `total_steps`, where others make up for
    them; training beyond it has updates again.

    Attributes:
        every: steps or epochs between updates.
        by_epoch: which of them.
        first_step: no update before so many steps are done.
        last_step: no update after so many steps; None sets no limit.
    """

    every: int
    by_epoch: bool
    first_step: int = 0
    last_step: int | None = None

    @classmethod
    def parse(cls, update_every: Any, first_step: int = 0, last_step: int | None = None) -> Cadence:
        """From `100` (steps), "epoch" or "3 epochs".

        Raises:
            InputError: anything else.
        """
        if isinstance(update_every, int) and not isinstance(update_every, bool) and update_every >= 1:
            return cls(update_every, False, first_step, last_step)
        if isinstance(update_every, str):
            match = re.fullmatch(r"(?:([1-9]\d*) )?epochs?", update_every)
            if match:
                return cls(int(match[1] or 1), True, first_step, last_step)
        raise InputError(
            f'update_every must be a number of steps from 1, "epoch" or "3 epochs", got {update_every!r}'
        )

    def _allows(self, step: int, clock: Clock) -> bool:
        if step <= clock.total_steps and clock.is_over(step):
            return False
        return step >= self.first_step and (self.last_step is None or step <= self.last_step)

    def due_after_step(self, clock: Clock) -> bool:
        """Whether an update is due now that step number `clock.num_steps` is done."""
        return (
            not self.by_epoch and clock.num_steps % self.every == 0 and self._allows(clock.num_steps, clock)
        )

    def due_after_epoch(self, clock: Clock) -> bool:
        """Whether an update is due now that epoch number `clock.num_epochs` has ended."""
        return self.by_epoch and clock.num_epochs % self.every == 0 and self._allows(clock.num_steps, clock)

    def steps_to_update(self, clock: Clock) -> int | None:
        """How many more steps follow the one in progress before the next update; None if none is coming.

        An epoch of unknown length, or longer than told, may end after any step: then 0, if its end brings an
        update.
        """
        step = clock.num_steps + 1
        if not self.by_epoch:
            ahead = -step % self.every
        else:
            if (clock.num_epochs + 1) % self.every:
                return None
            length = clock.steps_per_epoch
            ahead = 0 if length is None else max(0, length - clock.num_batches - 1)
        return ahead if self._allows(step + ahead, clock) else None
