"""Pruning in rounds, with retraining between: iterative magnitude pruning and the lottery ticket."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import Tensor
from torch.optim import Optimizer

from hyperprune.errors import InputError, check_whole
from hyperprune.sparsity.counts import num_live_at
from hyperprune.sparsity.death import kill_smallest
from hyperprune.sparsity.gradual import GradualMethod, GradualRule
from hyperprune.sparsity.method import Rule, check_choice, check_number
from hyperprune.sparsity.network import SparseNetwork
from hyperprune.sparsity.schedules import Clock, geometric_rounds, stepped_density

SCOPES = ("tensor", "network")


@dataclass(frozen=True, kw_only=True)
class IterativeMagnitude(GradualMethod):
    """Prune, retrain, prune again, in rounds of equal length.

    Attributes:
        num_rounds: prunings, each removing the same share of what is left.
        densities_by_round: densities after each round instead, falling; those below the final density
            are left out (JSE's "L2" schedule is 0.8 0.6 0.4 0.2 0.1 0.05 0.02 0.01).
        scope: "tensor": each tensor by its own ranking and allocation; "network": one ranking of |w|
            over all tensors.
    """

    num_rounds: int = 5
    densities_by_round: Any = ()
    scope: str = "tensor"
    update_every: int | str = 1

    name: ClassVar[str] = "iterative_magnitude"
    summary: ClassVar[str] = "from dense, smallest |w| in rounds, retraining between"
    paper: ClassVar[str] = "Han et al. 2015, Learning both weights and connections (arXiv 1506.02626)"
    equation: ClassVar[str] = "section 3"
    deviations: ClassVar[tuple[str, ...]] = (
        "an exact share goes in each of several equal rounds; the paper's threshold is a multiple of the "
        "standard deviation of a layer's weights",
        "L2 penalty and dropout are the caller's; the paper lowers dropout as weights go",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole("num_rounds", self.num_rounds, 1, example="5 prunes five times")
        check_choice("scope", self.scope, SCOPES)
        if not isinstance(self.densities_by_round, Iterable):
            raise InputError(
                f"densities_by_round must be a list, got {self.densities_by_round!r}; try (0.8, 0.6, 0.4)"
            )
        rounds = tuple(self.densities_by_round)
        for density in rounds:
            check_number(
                "a density in densities_by_round", density, 0, 1, low_open=True, example="try 0.8 0.6 0.4"
            )
        if list(rounds) != sorted(rounds, reverse=True):
            raise InputError(f"densities_by_round must fall, got {list(rounds)}; try 0.8 0.6 0.4")
        if rounds and self.num_rounds != type(self).num_rounds:
            raise InputError("give num_rounds or densities_by_round, got both; remove one")
        if self.scope == "network" and (self.densities or self.keep_dense or self.allocation != "uniform"):
            raise InputError(
                'scope="network" ranks all tensors together, so allocation, densities and keep_dense do not '
                'apply; remove them or use scope="tensor"'
            )
        if self.scope == "network" and self.gates == "separate":
            raise InputError(
                'scope="network" ranks all gates together, got gates="separate"; use scope="tensor" or '
                'gates="exchange"'
            )
        object.__setattr__(self, "densities_by_round", tuple(float(density) for density in rounds))

    def build(self, network: SparseNetwork, sparsity: float, clock: Clock) -> Rule:
        return RoundsRule(self, network, sparsity)


class RoundsRule(GradualRule):
    """A density that falls in steps."""

    def __init__(self, method: IterativeMagnitude, network: SparseNetwork, sparsity: float) -> None:
        super().__init__(method, network, sparsity)
        self._rounds = method
        self._reached = 0.0
        if method.scope == "network":
            network.check_one_ranking()

    def target_sparsity(self, clock: Clock) -> float:
        final = 1.0 - self.sparsity
        advance = self._rounds.advance(clock)
        if advance >= 1.0:
            return self.sparsity
        rounds = self._rounds.densities_by_round or geometric_rounds(final, self._rounds.num_rounds)
        return 1.0 - stepped_density(final, rounds, advance)

    def due_after_step(self, clock: Clock) -> bool:
        return self._round_ends(clock) and super().due_after_step(clock)

    def due_after_epoch(self, clock: Clock) -> bool:
        return self._round_ends(clock) and super().due_after_epoch(clock)

    def _round_ends(self, clock: Clock) -> bool:
        return self.target_sparsity(clock) > self._reached

    def update(self, clock: Clock) -> None:
        self._reached = self.target_sparsity(clock)
        if self._rounds.scope == "tensor":
            super().update(clock)
            return
        self._finished = self.settings.advance(clock) >= 1.0
        excess = self.network.num_live() - num_live_at(self._reached, self.network.total)
        kill_smallest(self.network.blocks, excess)
        self.network.zero_dead_weights()
        self.network.zero_dead_state()

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "reached": self._reached}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self._reached = state["reached"]


@dataclass(frozen=True, kw_only=True)
class LotteryTicket(IterativeMagnitude):
    """Prune in rounds, and after each go back to the weights and optimizer state of an early step.

    Attributes:
        rewind_step: the step whose weights training returns to; 0 is initialisation.
    """

    rewind_step: int = 0

    name: ClassVar[str] = "lottery_ticket"
    summary: ClassVar[str] = "in rounds, smallest |w|, then back to the weights of an early step"
    paper: ClassVar[str] = "Frankle & Carbin 2019, The lottery ticket hypothesis (arXiv 1803.03635)"
    equation: ClassVar[str] = (
        "section 1, iterative pruning; late rewinding: Frankle et al. 2020 (arXiv 1912.05671)"
    )
    deviations: ClassVar[tuple[str, ...]] = (
        "the learning-rate schedule and the data order go on; buffers of the model are not rewound",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole("rewind_step", self.rewind_step, 0, example="0 rewinds to initialisation")

    def build(self, network: SparseNetwork, sparsity: float, clock: Clock) -> Rule:
        rule = _RewindingRule(self, network, sparsity)
        rule.check_rewind_step(clock)
        return rule


class _RewindingRule(RoundsRule):
    """Rounds with a rewind; holds a copy of all trained parameters and of the optimizers' state."""

    def __init__(self, method: LotteryTicket, network: SparseNetwork, sparsity: float) -> None:
        super().__init__(method, network, sparsity)
        self._rewind_step = method.rewind_step
        self._saved: dict[str, Any] | None = None
        self.num_rewinds = 0

    def check_rewind_step(self, clock: Clock) -> None:
        """Refuse what is planned to prune too early, unless an epoch's end cannot be known."""
        assert self.cadence is not None
        length = clock.steps_per_epoch if self.cadence.by_epoch else 1
        if length is None or self._rewind_step == 0:
            return
        last = (self._rewind_step - 1) // length * length
        if self.settings.advance(replace(clock, num_steps=last)) < 1.0:  # else pruned by then, cadence or not
            every = self.cadence.every * length
            last = last // every * every
        if self.target_sparsity(replace(clock, num_steps=last)) > 0.0:
            raise self._too_late(f"by step {last}")

    def _too_late(self, when: str) -> InputError:
        return InputError(
            f"rewind_step must come before the first pruning, got {self._rewind_step} and a pruning {when}; "
            "lower rewind_step or num_rounds"
        )

    def ready(self) -> None:
        if self._rewind_step == 0:
            self._save()

    def after_step(self, clock: Clock) -> None:
        if clock.num_steps == self._rewind_step and self._saved is None:
            self._save()

    def _trained(self) -> list[Tensor]:
        return [
            parameter
            for optimizer in self.network.optimizers
            for group in optimizer.param_groups
            for parameter in group["params"]
        ]

    def _save(self) -> None:
        self._saved = {
            "weights": [parameter.detach().clone() for parameter in self._trained()],
            "optimizers": [
                copy.deepcopy(optimizer.state_dict()["state"]) for optimizer in self.network.optimizers
            ],
            "groups": [_group_state(optimizer) for optimizer in self.network.optimizers],
        }

    def update(self, clock: Clock) -> None:
        if self._saved is None:
            raise self._too_late(f"at step {clock.num_steps}")
        super().update(clock)
        for parameter, weights in zip(self._trained(), self._saved["weights"], strict=True):
            parameter.copy_(weights)
        saved = zip(self._saved["optimizers"], self._saved["groups"], strict=True)
        for optimizer, (state, groups) in zip(self.network.optimizers, saved, strict=True):
            now = optimizer.state_dict()
            # Learning rates stay as the user's scheduler has set them.
            optimizer.load_state_dict({"state": copy.deepcopy(state), "param_groups": now["param_groups"]})
            for group, entries in zip(optimizer.param_groups, groups, strict=True):
                group.update(entries)
        self.network.zero_dead_weights()
        self.network.zero_dead_state()
        self.num_rewinds += 1

    def state_dict(self) -> dict[str, Any]:
        own = {"saved": copy.deepcopy(self._saved), "num_rewinds": self.num_rewinds}
        return {**super().state_dict(), **own}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self._saved = copy.deepcopy(state["saved"])
        self.num_rewinds = state["num_rewinds"]


def _group_state(optimizer: Optimizer) -> list[dict[str, Any]]:
    """What of each group's entries is state and no setting, as the optimizer itself tells."""
    names = getattr(optimizer, "group_state", ())
    return [{name: group[name] for name in names} for group in optimizer.param_groups]
