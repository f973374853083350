"""Top-KAST: the largest weights are used, a somewhat larger set is trained, and all are remembered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Bool
from torch import Tensor

from hyperprune.sparsity.counts import apportion, rounded_share
from hyperprune.sparsity.masks import BACKWARD, Block, MaskedTensor
from hyperprune.sparsity.method import Method, Rule, check_number
from hyperprune.sparsity.network import SparseNetwork
from hyperprune.sparsity.schedules import Cadence, Clock
from hyperprune.sparsity.selection import Ranked, largest


@dataclass(frozen=True, kw_only=True)
class TopKAST(Method):
    """Forward set: the largest |w|; backward set: those and the next largest.

    Attributes:
        backward: share of all weights in the backward set beyond the forward one, in [0, 1].
        penalty: L2 penalty on the forward set; on the rest of the backward set divided by the density. Each
            step of SGD shrinks weights by lr·penalty, so a learning rate of 20 needs a far smaller one than
            0.1 does.
        update_every: steps between choices of the sets, "epoch" or "3 epochs".
    """

    backward: float = 0.1
    penalty: float = 1e-4
    update_every: int | str = 100

    name: ClassVar[str] = "top_kast"
    summary: ClassVar[str] = "the largest |w| are used, some more are trained, both sets follow |w|"
    paper: ClassVar[str] = "Jayakumar et al. 2020, Top-KAST (arXiv 2106.03517)"
    equation: ClassVar[str] = "section 2"
    chooses_masks: ClassVar[bool] = True
    deviations: ClassVar[tuple[str, ...]] = (
        "parameters hold the forward set; the others' values are kept aside, 4 bytes per weight",
        "the penalty is added to the gradient, after any clipping",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("backward", self.backward, 0, 1, example="0.1 trains a tenth more than it uses")
        check_number("penalty", self.penalty, 0, float("inf"), example="try 1e-4")
        Cadence.parse(self.update_every)

    def build(self, network: SparseNetwork, sparsity: float, clock: Clock) -> Rule:
        return _TopKASTRule(self, network, sparsity)


class _TopKASTRule(Rule):
    """Holds the weights outside the forward set; within a step the backward set is put in place."""

    def __init__(self, method: TopKAST, network: SparseNetwork, sparsity: float) -> None:
        super().__init__(method, network, sparsity)
        self._settings = method
        self.cadence = Cadence.parse(method.update_every)
        self._hidden: dict[str, Tensor] = {}
        network.trains_backward_set = True

    def start(self, masks: Mapping[str, Bool[Tensor, "..."]] | None) -> None:
        assert masks is None
        for tensor in self.network.tensors:
            tensor.status.zero_()
        self._choose_sets()
        for block in self.network.blocks:
            block.forget_changes()

    @torch.no_grad()
    def ready(self) -> None:
        for tensor in self.network.tensors:
            hidden = tensor.parameter.detach().clone()
            hidden.masked_fill_(tensor.live(), 0)
            self._hidden[tensor.name] = hidden

    def _choose_sets(self) -> None:
        """The forward and backward sets of the largest |parameter|, exact per tensor."""
        for tensor, count in zip(self.network.tensors, self.final_counts(), strict=True):
            blocks = self.network.blocks_of(tensor)
            sizes = [block.total for block in blocks]
            wider = min(tensor.total, count + rounded_share(self._settings.backward, tensor.total))
            forward = apportion(count, sizes, sizes)
            backward = apportion(wider, sizes, sizes, forward)
            for block, num_forward, num_backward in zip(blocks, forward, backward, strict=True):
                self._choose_in(block, num_forward, num_backward)

    @staticmethod
    def _choose_in(block: Block, num_forward: int, num_backward: int) -> None:
        everything = torch.ones_like(block.live())
        used = largest([Ranked(block.weight, everything, block.label)], num_forward)[0]
        trained = largest([Ranked(block.weight, everything, block.label)], num_backward)[0]
        before = block.live()
        block.kill(before & ~used)
        block.grow(used & ~before)
        block.set_flag(BACKWARD, trained)

    def _trained_only(self, tensor: MaskedTensor) -> Bool[Tensor, "..."]:
        """The backward set without the forward set."""
        return (tensor.status >= 0) & (tensor.status.bitwise_and(BACKWARD) != 0)

    @torch.no_grad()
    def before_step(self, clock: Clock) -> None:
        penalty = self._settings.penalty
        for tensor in self.network.tensors:
            parameter, beyond = tensor.parameter, self._trained_only(tensor)
            gradient = parameter.grad
            if gradient is not None and penalty > 0:
                if gradient.is_sparse:  # the penalty has a gradient at every weight
                    gradient = parameter.grad = gradient.to_dense()
                gradient.add_(parameter, alpha=penalty)  # zero outside the forward set
            parameter.add_(self._hidden[tensor.name] * beyond)
            if gradient is not None and penalty > 0:
                density = tensor.num_live() / tensor.total
                gradient.add_(parameter * beyond, alpha=penalty / density)

    @torch.no_grad()
    def after_step(self, clock: Clock) -> None:
        for tensor in self.network.tensors:
            beyond = self._trained_only(tensor)
            hidden = self._hidden[tensor.name]
            hidden.copy_(torch.where(beyond, tensor.parameter, hidden))
        self.network.zero_dead_averages()

    def update(self, clock: Clock) -> None:
        before = [tensor.trained() for tensor in self.network.tensors]
        for tensor in self.network.tensors:
            tensor.parameter.add_(self._hidden[tensor.name])
        self._choose_sets()
        self.ready()
        self.network.zero_dead_weights()
        self.network.zero_dead_state()
        for tensor, trained in zip(self.network.tensors, before, strict=True):
            self.network.refresh(tensor, tensor.trained() & ~trained)
        self.network.settle_averages()

    def follow_device(self) -> None:
        for tensor in self.network.tensors:
            self._hidden[tensor.name] = self._hidden[tensor.name].to(tensor.parameter.device)

    def finalize(self) -> None:
        self._hidden.clear()

    def state_dict(self) -> dict[str, Any]:
        return {"hidden": {name: values.clone() for name, values in self._hidden.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name, values in state["hidden"].items():
            self._hidden[name].copy_(values)
