"""Pruning from dense to sparse: cubic, by gradual thresholds, and in rounds with or without rewinding.

Live counts follow a schedule exactly, fall only, and reach the final density at `end` of the planned steps,
or with the last planned batch if too many of them were lost for that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Bool
from torch import Tensor

from hyperprune.errors import InputError
from hyperprune.sparsity.counts import apportion
from hyperprune.sparsity.death import kill_smallest
from hyperprune.sparsity.masks import Block
from hyperprune.sparsity.method import Method, Rule, check_number
from hyperprune.sparsity.network import SparseNetwork
from hyperprune.sparsity.schedules import (
    Cadence,
    Clock,
    cubic_sparsity,
    narang_threshold,
)
from hyperprune.sparsity.selection import Ranked, below


@dataclass(frozen=True, kw_only=True)
class GradualMethod(Method):
    """What the methods that prune a dense network have in common.

    Attributes:
        begin, end: shares of the planned steps between which the density falls, 0 ≤ begin < end ≤ 1.
        update_every: steps between prunings, "epoch" or "3 epochs".
    """

    begin: float = 0.0
    end: float = 0.75
    update_every: int | str = 100

    chooses_masks: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("begin", self.begin, 0, 1, example="0 starts at once")
        check_number("end", self.end, 0, 1, low_open=True, example="0.75 leaves a quarter to recover")
        if self.begin >= self.end:
            raise InputError(f"begin must lie below end, got {self.begin} and {self.end}; try 0 and 0.75")
        Cadence.parse(self.update_every)

    def advance(self, clock: Clock) -> float:
        """How far the pruning phase is: 0 before it, 1 after it."""
        if clock.is_over(clock.num_steps):
            return 1.0
        return min(1.0, max(0.0, (clock.progress - self.begin) / (self.end - self.begin)))

    def last_epoch(self, num_epochs: int) -> int | None:
        """After which of so many planned epochs the last pruning follows; None if it comes between steps."""
        if not Cadence.parse(self.update_every).by_epoch:
            return None
        clocks = (Clock(total_steps=num_epochs, num_steps=epoch) for epoch in range(1, num_epochs + 1))
        return next(clock.num_steps for clock in clocks if self.advance(clock) >= 1.0)


class GradualRule(Rule):
    """Kills the smallest weights down to a density schedule."""

    def __init__(self, method: GradualMethod, network: SparseNetwork, sparsity: float) -> None:
        super().__init__(method, network, sparsity)
        self.settings = method
        self.cadence = Cadence.parse(method.update_every)
        self._finished = False
        if sparsity == 0.0 and any(density < 1 for _, density in method.densities):
            raise InputError(
                f"method {method.name} at sparsity 0 removes nothing, so densities below 1 do not apply; "
                "remove densities or raise the sparsity"
            )
        self.final_counts()  # a sparsity that leaves a tensor nothing is an error now, not at the end

    def start(self, masks: Mapping[str, Bool[Tensor, "..."]] | None) -> None:
        """Everything lives."""
        assert masks is None

    def target_sparsity(self, clock: Clock) -> float:
        """The sparsity that the schedule wants now."""
        raise NotImplementedError

    def due_after_step(self, clock: Clock) -> bool:
        assert self.cadence is not None
        return not self.cadence.by_epoch and self._due(clock, super().due_after_step(clock))

    def due_after_epoch(self, clock: Clock) -> bool:
        # Also for updates by steps: the last planned batch may take none.
        return self._due(clock, super().due_after_epoch(clock))

    def _due(self, clock: Clock, by_cadence: bool) -> bool:
        # The end may fall between two prunings or at the last planned step; its target must be met.
        return not self._finished and (by_cadence or self.settings.advance(clock) >= 1.0)

    def death_rate(self, clock: Clock) -> float:
        density = self.network.num_live() / self.network.total
        return max(0.0, 1.0 - (1.0 - self.target_sparsity(clock)) / density)

    def counts(self, sparsity: float) -> list[int]:
        """Live weights per tensor on the way, never more than there are."""
        tensors = self.network.tensors
        if self.sparsity == 0.0:
            return [tensor.total for tensor in tensors]
        return self.method.spread().num_live(
            tensors,
            min(sparsity, self.sparsity),
            final_sparsity=self.sparsity,
            rooms=[tensor.num_live() for tensor in tensors],
        )

    def update(self, clock: Clock) -> None:
        self._finished = self.settings.advance(clock) >= 1.0
        self._prune_to(self.counts(self.target_sparsity(clock)))
        self.network.zero_dead_weights()
        self.network.zero_dead_state()

    def _prune_to(self, counts: list[int]) -> None:
        for tensor, count in zip(self.network.tensors, counts, strict=True):
            blocks = self.network.blocks_of(tensor)
            live = [block.num_live() for block in blocks]
            shares = apportion(count, [block.total for block in blocks], live)
            for block, alive, share in zip(blocks, live, shares, strict=True):
                kill_smallest([block], alive - share)

    def state_dict(self) -> dict[str, Any]:
        return {"finished": self._finished}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._finished = state["finished"]


@dataclass(frozen=True, kw_only=True)
class GMP(GradualMethod):
    """Gradual magnitude pruning, from dense, by a cubic schedule."""

    name: ClassVar[str] = "gmp"
    summary: ClassVar[str] = "from dense, smallest |w| per tensor, sparsity by a cubic schedule"
    paper: ClassVar[str] = "Zhu & Gupta 2017, To prune, or not to prune (arXiv 1710.01878)"
    equation: ClassVar[str] = "eq. 1, s_i = 0"
    deviations: ClassVar[tuple[str, ...]] = (
        "pruned weights never return, and their optimizer state is cleared",
    )

    def build(self, network: SparseNetwork, sparsity: float, clock: Clock) -> Rule:
        return _CubicRule(self, network, sparsity)


class _CubicRule(GradualRule):
    def target_sparsity(self, clock: Clock) -> float:
        return cubic_sparsity(self.sparsity, self.settings.advance(clock))


@dataclass(frozen=True, kw_only=True)
class Narang(GradualMethod):
    """Gradual thresholds per tensor that rise slowly, then faster.

    Attributes:
        ramp: share of the pruning phase after which the threshold rises faster.
        steepening: how many times faster.
    """

    ramp: float = 0.25
    steepening: float = 1.5

    name: ClassVar[str] = "narang"
    summary: ClassVar[str] = "from dense, all |w| below a threshold that rises in two slopes"
    paper: ClassVar[str] = (
        "Narang et al. 2017, Exploring sparsity in recurrent neural networks (arXiv 1704.05119)"
    )
    equation: ClassVar[str] = "algorithm 1"
    deviations: ClassVar[tuple[str, ...]] = (
        "thresholds are fitted to the current weights so that the final density is met exactly",
        "pruned weights never return",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("ramp", self.ramp, 0, 1, example="0.25 rises faster after a quarter of the phase")
        check_number("steepening", self.steepening, 1, float("inf"), example="the paper uses 1.5 to 2")

    def build(self, network: SparseNetwork, sparsity: float, clock: Clock) -> Rule:
        return _NarangRule(self, network, sparsity)


class _NarangRule(GradualRule):
    def __init__(self, method: Narang, network: SparseNetwork, sparsity: float) -> None:
        super().__init__(method, network, sparsity)
        self._narang = method

    def target_sparsity(self, clock: Clock) -> float:
        return self.sparsity if self._narang.advance(clock) >= 1.0 else 0.0

    def update(self, clock: Clock) -> None:
        advance = self._narang.advance(clock)
        if advance >= 1.0:
            super().update(clock)
            return
        share = narang_threshold(advance, self._narang.ramp, self._narang.steepening)
        for tensor, count in zip(self.network.tensors, self.counts(self.sparsity), strict=True):
            blocks = self.network.blocks_of(tensor)
            live = [block.num_live() for block in blocks]
            finals = apportion(count, [block.total for block in blocks], live)
            for block, alive, final in zip(blocks, live, finals, strict=True):
                self._kill_below(block, share, alive - final)
        self.network.zero_dead_weights()
        self.network.zero_dead_state()

    @staticmethod
    def _kill_below(block: Block, share: float, most: int) -> None:
        """Kill live weights below `share` of the magnitude under which the final share of weights lies."""
        if most == 0:
            return
        magnitudes = block.weight[block.live()].abs().float()
        final_threshold = float(torch.kthvalue(magnitudes, most).values)
        chosen = below(Ranked(block.weight, block.live(), block.label), share * final_threshold)
        block.kill(chosen)
