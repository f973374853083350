"""Deep-R: a connection keeps its sign, dies when it would change it, and a random one takes its place.

Every potential connection k has a sign s_k for good: w_k = s_k θ_k, live while θ_k >= 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool
from torch import Tensor

from hyperprune.sparsity.growth import GROWTHS
from hyperprune.sparsity.masks import KILLED, NEGATIVE, Block
from hyperprune.sparsity.method import Method, Rule, check_number
from hyperprune.sparsity.network import SparseNetwork
from hyperprune.sparsity.schedules import Cadence, Clock
from hyperprune.sparsity.selection import Ranked, largest


@dataclass(frozen=True, kw_only=True)
class DeepR(Method):
    """Sign-constrained random rewiring after every step but the last planned one.

    Attributes:
        l1: strength α of the pull towards 0; each step takes lr·α off every live weight, so a learning rate
            of 20 needs a far smaller one than 0.1 does.
        temperature: T of the random walk; each step adds noise of standard deviation sqrt(2·lr·T).
    """

    l1: float = 1e-5
    temperature: float = 0.0

    name: ClassVar[str] = "deep_r"
    summary: ClassVar[str] = "a weight that crosses 0 dies and a random one starts, after every step"
    paper: ClassVar[str] = "Bellec et al. 2018, Deep rewiring (arXiv 1711.05136)"
    equation: ClassVar[str] = "algorithm 1"
    deviations: ClassVar[tuple[str, ...]] = (
        "pull and noise are applied after the optimizer's step, so any optimizer may be used",
        "the number of live weights is constant per tensor",
        "no noise unless a temperature is set",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("l1", self.l1, 0, float("inf"), example="try 1e-5")
        check_number("temperature", self.temperature, 0, float("inf"), example="0 adds no noise")

    def build(self, network: SparseNetwork, sparsity: float, clock: Clock) -> Rule:
        return _DeepRRule(self, network, sparsity)


class _DeepRRule(Rule):
    """The sign of a weight, live or dead, is a bit of its mask: a live one's first, a coin's for the dead."""

    cadence = Cadence(1, by_epoch=False)

    def __init__(self, method: DeepR, network: SparseNetwork, sparsity: float) -> None:
        super().__init__(method, network, sparsity)
        self._settings = method

    def start(self, masks: Mapping[str, Bool[Tensor, "..."]] | None) -> None:
        super().start(masks)
        generator = self.network.random()
        for block in self.network.blocks:
            coin = torch.rand(block.total, generator=generator, device=generator.device) < 0.5
            block.set_flag(NEGATIVE, torch.where(block.live(), block.weight < 0, coin))

    def update(self, clock: Clock) -> None:
        network = self.network
        generator = network.random()
        blocks = [block for block in network.blocks if block.tensor.parameter.requires_grad]
        for block in blocks:
            weight, negative = block.weight, block.has(NEGATIVE)
            lr = float(network.learning_rate(block.tensor))
            sign = 1.0 - 2.0 * negative.to(weight.dtype)
            moved = weight - lr * self._settings.l1 * sign
            if self._settings.temperature > 0:
                noise = torch.randn(
                    weight.shape, generator=generator, device=weight.device, dtype=weight.dtype
                )
                moved += (2.0 * lr * self._settings.temperature) ** 0.5 * noise
            weight.copy_(moved)
            self._kill_crossing(block, block.live() & (moved * sign < 0))
        network.zero_dead_weights()
        network.zero_dead_state()
        for block in blocks:
            GROWTHS["random"].grow(block, block.num_with(KILLED), None, generator)
        network.refresh_grown()

    @staticmethod
    def _kill_crossing(block: Block, crossing: Bool[Tensor, " N"]) -> None:
        """Weights that crossed 0 die, the farthest first; where no place is left to grow they change sign."""
        room = block.total - block.num_live()
        dying = crossing
        if int(crossing.count_nonzero()) > room:
            dying = largest([Ranked(block.weight, crossing, block.label)], room)[0]
        block.set_flag(NEGATIVE, block.has(NEGATIVE) ^ (crossing & ~dying))
        block.kill(dying)
