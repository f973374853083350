"""Dynamic sparse training: constant numbers of live weights, some of which die and regrow elsewhere.

Frozen tensors and dense ones keep their weights: an exchange would set some to 0 and train no other instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from hyperprune.errors import InputError, check_whole
from hyperprune.sparsity.death import DEATHS, Death, ThresholdDeath
from hyperprune.sparsity.growth import GROWTHS
from hyperprune.sparsity.masks import KILLED, Block
from hyperprune.sparsity.method import (
    Method,
    Rule,
    check_choice,
    check_flag,
    check_number,
)
from hyperprune.sparsity.network import SparseNetwork
from hyperprune.sparsity.redistribution import REDISTRIBUTIONS, shares
from hyperprune.sparsity.schedules import DECAYS, Cadence, Clock, decayed

# Share of dead weights below which a block loses no more than it has dead ones, redistribution or not (as in
# Dettmers & Zettlemoyer's and Liu et al.'s code: of a layer that is less sparse, at most its sparsity dies).
_NEARLY_DENSE = 0.2


@dataclass(frozen=True, kw_only=True)
class DynamicSparse(Method):
    """Allocation × death × growth × redistribution × schedule of the death rate × cadence, freely combined.

    Attributes:
        death: "magnitude", "set", "threshold" or "global_magnitude".
        growth: "random", "gradient" or "momentum".
        redistribution: "none", "magnitude", "nonzeros" or "momentum".
        death_rate: share of the live weights that an update kills, in [0, 1].
        final_death_rate: where linear and cosine decay end.
        decay: "constant", "linear" or "cosine".
        decay_end: share of the planned steps at which the decay ends, in (0, 1].
        update_every: steps between updates, "epoch" or "3 epochs".
        first_step, last_step: no update before or after so many steps.
        stop: share of the planned steps from which on no update happens; None never stops.
        gradient_batches: over how many batches before an update gradient growth averages; with updates by
            epoch at most those of the epoch that ends.
        regrow_killed: whether a position may regrow in the update that killed it.
        threshold_start, threshold_tolerance, threshold_at_once: of threshold death only; see `death`.
    """

    death: str = "magnitude"
    growth: str = "random"
    redistribution: str = "none"
    death_rate: float = 0.5
    final_death_rate: float = 0.0
    decay: str = "cosine"
    decay_end: float = 1.0
    update_every: int | str = "epoch"
    first_step: int = 0
    last_step: int | None = None
    stop: float | None = None
    gradient_batches: int = 1
    regrow_killed: bool = False
    threshold_start: float = 1e-3
    threshold_tolerance: float = 0.02
    threshold_at_once: bool = False

    name: ClassVar[str] = "dynamic_sparse"
    summary: ClassVar[str] = "any combination of allocation, death, growth and redistribution"
    paper: ClassVar[str] = "the search space of Lyapunov-guided hyperpruning (arXiv 2506.07975)"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("death", self.death, DEATHS)
        check_choice("growth", self.growth, GROWTHS)
        check_choice("redistribution", self.redistribution, REDISTRIBUTIONS)
        check_choice("decay", self.decay, DECAYS)
        check_number("death_rate", self.death_rate, 0, 1, example="0.5 kills half of the live weights")
        check_number("final_death_rate", self.final_death_rate, 0, 1, example="0 ends the exchange")
        check_number("decay_end", self.decay_end, 0, 1, low_open=True, example="1 decays to the last step")
        if self.stop is not None:
            check_number("stop", self.stop, 0, 1, example="0.75 freezes the last quarter")
        check_whole("gradient_batches", self.gradient_batches, 1, example="1 uses the last batch alone")
        check_whole("first_step", self.first_step, 0, example="0 sets no limit")
        if self.last_step is not None:
            check_whole("last_step", self.last_step, self.first_step, example="None sets no limit")
        check_flag("regrow_killed", self.regrow_killed)
        check_flag("threshold_at_once", self.threshold_at_once)
        check_number(
            "threshold_start", self.threshold_start, 0, float("inf"), low_open=True, example="try 0.001"
        )
        check_number("threshold_tolerance", self.threshold_tolerance, 0, 1, example="try 0.02")
        self._check_unused(Cadence.parse(self.update_every))

    def _check_unused(self, cadence: Cadence) -> None:
        """An option that the chosen parts would ignore is an error, not a surprise."""
        if self.death != "threshold":
            self._refuse_changed(
                ("threshold_start", "threshold_tolerance", "threshold_at_once"),
                f'death="threshold", got death={self.death!r}',
            )
        if self.threshold_at_once:
            self._refuse_changed(
                ("threshold_start", "threshold_tolerance"), "a threshold that moves, got threshold_at_once"
            )
        if self.decay == "constant":
            self._refuse_changed(
                ("final_death_rate", "decay_end"),
                'decay="linear" or "cosine", got decay="constant" (in a space: a branch of its own)',
            )
        if self.growth == "gradient" and not cadence.by_epoch and self.gradient_batches > cadence.every:
            raise InputError(
                f"gradient_batches must be at most the steps between updates, {cadence.every}, got "
                f"{self.gradient_batches}; lower it, or update less often"
            )
        if self.growth != "gradient" and self.gradient_batches != 1:
            raise InputError(
                f'gradient_batches needs growth="gradient", got growth={self.growth!r}; '
                "remove gradient_batches"
            )

    def _refuse_changed(self, options: Sequence[str], need: str) -> None:
        for option in options:
            if getattr(self, option) != type(self).__dataclass_fields__[option].default:
                raise InputError(f"{option} needs {need}; remove {option}")

    def build(self, network: SparseNetwork, sparsity: float, clock: Clock) -> Rule:
        return DynamicRule(self, network, sparsity, clock)


class DynamicRule(Rule):
    """Death, redistribution, growth, when due."""

    def __init__(self, method: DynamicSparse, network: SparseNetwork, sparsity: float, clock: Clock) -> None:
        super().__init__(method, network, sparsity)
        self.settings = method
        self.cadence = Cadence.parse(method.update_every, method.first_step, method.last_step)
        self._growth = GROWTHS[method.growth]
        self._death: Death = (
            ThresholdDeath(
                start=method.threshold_start,
                tolerance=method.threshold_tolerance,
                at_once=method.threshold_at_once,
            )
            if method.death == "threshold"
            else DEATHS[method.death]()
        )
        if method.death == "global_magnitude" or method.threshold_at_once:
            network.check_one_ranking()
        beta = network.momentum_coefficient()
        if beta is None and "momentum" in (method.growth, method.redistribution):
            which = "growth" if method.growth == "momentum" else "redistribution"
            raise InputError(
                f'{which}="momentum" needs an optimizer with momentum, got '
                f"{type(network.optimizers[0]).__name__} without; use SGD(momentum=0.9), Adam, or "
                f'{which}="{"gradient" if which == "growth" else "magnitude"}"'
            )
        self._beta = beta or 0.0
        self._num_batches = self._growth.num_batches(method.gradient_batches, self._beta)
        if self.cadence.by_epoch and method.gradient_batches > 1:
            if clock.steps_per_epoch is None:
                raise InputError(
                    f"gradient_batches = {self._num_batches} with updates once an epoch needs the epoch's "
                    "length; pass steps_per_epoch to SparseTraining, or set gradient_batches to 1"
                )
            if method.gradient_batches > clock.steps_per_epoch:
                raise InputError(
                    "gradient_batches must be at most those of the epoch that ends with the update, "
                    f"{clock.steps_per_epoch}, got {self._num_batches}; lower it, or update by steps"
                )

    def _length_unknown(self, clock: Clock) -> bool:
        assert self.cadence is not None
        return self.cadence.by_epoch and clock.steps_per_epoch is None

    def death_rate(self, clock: Clock) -> float:
        method = self.settings
        progress = clock.progress / method.decay_end
        return decayed(method.death_rate, method.final_death_rate, method.decay, progress)

    def _stopped(self, clock: Clock, ahead: int = 0) -> bool:
        """Whether updates are over, now or so many steps later."""
        then = replace(clock, num_steps=clock.num_steps + ahead)
        return self.settings.stop is not None and then.progress >= self.settings.stop

    def _most_lost(self, block: Block) -> int:
        """The most that an update may kill in a block.

        Without redistribution a block grows back all that it loses, and what finds no place among the
        weights that were dead before would come back where it was, set to 0. With redistribution other
        blocks may take it, so that only a nearly dense one is held.
        """
        num_dead = block.total - block.num_live()
        if not block.tensor.parameter.requires_grad:
            return 0
        if self.settings.redistribution == "none" or num_dead < _NEARLY_DENSE * block.total:
            return min(num_dead, block.num_live())
        return block.num_live()

    def due_after_step(self, clock: Clock) -> bool:
        return super().due_after_step(clock) and not self._stopped(clock)

    def due_after_epoch(self, clock: Clock) -> bool:
        return super().due_after_epoch(clock) and not self._stopped(clock) and not self._gradients_lost(clock)

    def _gradients_lost(self, clock: Clock) -> bool:
        """Whether the batches that new weights would be ranked by were lost, with gradients not finite."""
        length_fits = clock.steps_per_epoch in (None, clock.num_batches)
        return self._growth.ranked and not self.network.gradients and clock.num_lost > 0 and length_fits

    def collects(self, clock: Clock) -> float | None:
        assert self.cadence is not None
        ahead = self.cadence.steps_to_update(clock)
        if ahead is None or ahead >= self._num_batches or self._stopped(clock, 1 + ahead):
            return None
        if self._growth.smoothed:
            return self._beta
        # Any step may be an epoch's last one when its length is unknown: keep only the newest batch.
        return 0.0 if self._num_batches == 1 or self._length_unknown(clock) else 1.0

    def most_grown(self, clock: Clock) -> list[int] | None:
        method = self.settings
        if self._num_batches > 1 or self._length_unknown(clock):
            return None  # gradients are added up, or replaced at every step
        if method.redistribution != "none" or method.regrow_killed:
            return None  # the share is known after death only, or the killed are ranked too
        # Each block gets back what it loses, at most the share at the rate after this step, after any later
        # one, or now: the last batch of an epoch may take no step.
        rate = max(self.death_rate(clock), self.death_rate(replace(clock, num_steps=clock.num_steps + 1)))
        if method.decay != "constant":
            rate = max(rate, method.final_death_rate)
        return [
            min(self._death.most_killed(block.num_live(), rate), self._most_lost(block))
            for block in self.network.blocks
        ]

    def update(self, clock: Clock) -> None:
        network = self.network
        blocks = [
            block
            for block in network.blocks
            if block.tensor.parameter.requires_grad and block.num_live() < block.total
        ]
        if blocks and self._growth.ranked and not network.gradients:
            raise InputError(
                f"growth={self.settings.growth!r} needs the gradients of the last steps before an "
                f"update, got none at step {clock.num_steps}; pass the true steps_per_epoch, or none, to "
                "SparseTraining, and leave gradients in place until step()"
            )
        self._death.kill(blocks, self.death_rate(clock), [self._most_lost(block) for block in blocks])
        # Now, because redistribution looks at live weights and momentum, and a killed weight that comes
        # back at once for want of room must start at 0 too.
        network.zero_dead_weights()
        network.zero_dead_state()
        num_killed = sum(block.num_with(KILLED) for block in blocks)
        counts = shares(self.settings.redistribution, blocks, num_killed, network.momentum)
        generator = network.random()
        for block, count in zip(blocks, counts, strict=True):
            self._growth.grow(
                block,
                count,
                network.gradients.of(block),
                generator,
                avoid_killed=not self.settings.regrow_killed,
            )
        network.refresh_grown()
        network.gradients.clear()

    def state_dict(self) -> dict[str, Any]:
        return {"death": dict(self._death.state)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._death.state.update(state["death"])
