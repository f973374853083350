"""The contract of a pruning method: frozen settings, and the rule that they set to work on a network.

A `Method` is data: hashable, picklable, printable, with its paper beside it. `build` makes a `Rule`, which
holds what changes during training. `SparseTraining` drives a rule through the steps and knows no method.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import torch
from jaxtyping import Bool
from torch import Tensor

from hyperprune.errors import InputError, unknown_name
from hyperprune.sparsity.allocation import ALLOCATIONS, Allocation
from hyperprune.sparsity.counts import apportion, check_sparsity
from hyperprune.sparsity.masks import MaskedTensor
from hyperprune.sparsity.network import SparseNetwork
from hyperprune.sparsity.schedules import Cadence, Clock
from hyperprune.sparsity.selection import at_random

GATES = ("exchange", "separate")
BUDGETS = ("all", "free")


@dataclass(frozen=True, kw_only=True)
class Method(ABC):
    """What all methods share: how the budget is spread over tensors.

    Attributes:
        allocation: "uniform" or "er".
        densities: pattern ▶ density in (0, 1] for tensors that do not follow the allocation; where weights
            are redistributed, the density that a tensor starts with.
        keep_dense: patterns of tensors that keep all their weights ("encoder.weight").
        budget: "all": the sparsity is the whole network's, so other tensors make up for fixed ones;
            "free": it is that of the tensors without a fixed density.
        gates: "exchange": the gates stacked in a matrix share its budget and exchange weights; "separate":
            each gets an equal part of the budget, and loses and grows weights by itself. The allocation looks
            at whole matrices either way, and the gates of a parametrized matrix count as one.
        at_init: a criterion of `hyperprune.at_init` that chooses the starting masks in place of the
            allocation ("jacobian"); None draws them at random. Training by a task does it;
            `SparseTraining` must be given the masks.
    """

    allocation: str = "uniform"
    densities: Any = ()
    keep_dense: Any = ()
    budget: str = "all"
    gates: str = "exchange"
    at_init: Any = None

    name: ClassVar[str]
    summary: ClassVar[str]
    paper: ClassVar[str] = ""
    equation: ClassVar[str] = ""
    deviations: ClassVar[tuple[str, ...]] = ()
    chooses_masks: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_choice("allocation", self.allocation, ALLOCATIONS)
        check_choice("budget", self.budget, BUDGETS)
        check_choice("gates", self.gates, GATES)
        pairs = self.densities.items() if isinstance(self.densities, Mapping) else self.densities
        pairs = tuple(pairs) if isinstance(pairs, Iterable) else None
        if pairs is None or any(not isinstance(pair, tuple | list) or len(pair) != 2 for pair in pairs):
            raise InputError(
                f'densities must map patterns to densities, got {self.densities!r}; try {{"decoder*": 0.5}}'
            )
        pairs = tuple((str(pattern), density) for pattern, density in pairs)
        for pattern, density in pairs:
            check_number(
                f"the density of {pattern!r}", density, 0, 1, low_open=True, example="0.5 keeps half"
            )
        object.__setattr__(self, "densities", tuple((pattern, float(density)) for pattern, density in pairs))
        keep = (self.keep_dense,) if isinstance(self.keep_dense, str) else self.keep_dense
        if not isinstance(keep, Iterable):
            raise InputError(f'keep_dense must be patterns of names, got {keep!r}; try "encoder.weight"')
        object.__setattr__(self, "keep_dense", tuple(str(pattern) for pattern in keep))
        if self.at_init is not None:
            self._check_at_init()

    def _check_at_init(self) -> None:
        if not isinstance(self.at_init, str):
            raise InputError(f'at_init must be the name of a criterion, got {self.at_init!r}; try "jacobian"')
        if self.chooses_masks:
            raise InputError(
                f"method {self.name} chooses its own masks, got at_init={self.at_init!r}; use static or a "
                "dynamic method"
            )
        self.check_spread_unused(f"at_init={self.at_init!r} decides")

    def check_spread_unused(self, decided_by: str) -> None:
        """Nothing may be said about densities that starting masks decide.

        Raises:
            InputError: allocation, densities or keep_dense are not the defaults.
        """
        if self.densities or self.keep_dense or self.allocation != type(self).allocation:
            raise InputError(
                f"{decided_by} how dense each tensor is, so allocation, densities and "
                "keep_dense do not apply; remove them"
            )

    @property
    def may_empty(self) -> bool:
        """Whether starting masks may leave a tensor without a live weight."""
        return False

    @property
    def citation(self) -> str:
        """The paper to cite, in one line."""
        return self.paper

    def settings(self) -> dict[str, Any]:
        """All fields by name; `methods.get(method.name, **settings)` makes an equal method."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def spread(self) -> Allocation:
        return Allocation(
            rule=self.allocation,
            densities=tuple((pattern, 1.0) for pattern in self.keep_dense) + self.densities,
            counts_fixed=self.budget == "all",
        )

    @abstractmethod
    def build(self, network: SparseNetwork, sparsity: float, clock: Clock) -> Rule:
        """The rule that prunes `network`.

        Raises:
            InputError: the settings make no sense with this network, optimizer or sparsity.
        """


class Rule:
    """What a method does while a network trains. The base class keeps its starting masks for ever."""

    cadence: Cadence | None = None
    num_rewinds = 0  # how often the weights went back to those of an earlier step

    def __init__(self, method: Method, network: SparseNetwork, sparsity: float) -> None:
        self.method = method
        self.network = network
        self.sparsity = sparsity

    def start(self, masks: Mapping[str, Bool[Tensor, "..."]] | None) -> None:
        """Set the first masks: those given, or random ones with exact counts."""
        if masks is not None:
            self.network.set_masks(masks)
            return
        generator = self.network.random()
        for tensor, count in zip(self.network.tensors, self.final_counts(), strict=True):
            tensor.status.zero_()
            blocks = self.network.blocks_of(tensor)
            sizes = [block.total for block in blocks]
            for block, share in zip(blocks, apportion(count, sizes, sizes), strict=True):
                block.grow(at_random(torch.ones_like(block.live()), share, generator))
                block.forget_changes()

    def final_counts(self) -> list[int]:
        """Live weights per tensor at the method's sparsity."""
        return self.method.spread().num_live(self.network.tensors, self.sparsity)

    def ready(self) -> None:
        """After the first masks and the rescaling of weights, before dead weights are zeroed."""

    def collects(self, clock: Clock) -> float | None:
        """Whether the step in progress must add its dense gradients to those collected, and their decay."""
        return None

    def most_grown(self, clock: Clock) -> list[int] | None:
        """When gradients are collected: the most that the coming update can grow in each block, if known."""
        return None

    def follow_device(self) -> None:
        """Move what the rule holds to where the model has been moved."""

    def before_step(self, clock: Clock) -> None:
        """Right before the optimizer's step; gradients are masked."""

    def after_step(self, clock: Clock) -> None:
        """Right after the optimizer's step; dead weights are zeroed next."""

    def due_after_step(self, clock: Clock) -> bool:
        return self.cadence is not None and self.cadence.due_after_step(clock)

    def due_after_epoch(self, clock: Clock) -> bool:
        return self.cadence is not None and self.cadence.due_after_epoch(clock)

    def update(self, clock: Clock) -> None:
        """Change the topology: kill and grow blocks, zero what died."""

    def death_rate(self, clock: Clock) -> float:
        """The share of live weights that an update at this moment would kill."""
        return 0.0

    def finalize(self) -> None:
        """Training is over."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Back to a saved state of the same method on the same network."""


def check_choice(name: str, value: object, allowed: Iterable[str]) -> None:
    """`value` must be one of the allowed names."""
    allowed = list(allowed)
    if not isinstance(value, str) or value not in allowed:
        raise unknown_name(name, value, allowed)


def check_flag(name: str, value: object) -> None:
    """`value` must be a bool; the text "False" would count as true."""
    if not isinstance(value, bool):
        raise InputError(f"{name} must be True or False, got {value!r}; pass a bool, not a text or a number")


def check_number(
    name: str, value: Any, low: float, high: float, *, low_open: bool = False, example: str
) -> None:
    """`value` must be finite and in [low, high], or (low, high] if `low_open`; `high` may be infinite."""
    valid = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not valid or not low <= value <= high or (low_open and value == low):
        bracket = "(" if low_open else "["
        close = ")" if math.isinf(high) else "]"
        raise InputError(f"{name} must lie in {bracket}{low:g}, {high:g}{close}, got {value!r}; {example}")


def sparsity_of_masks(
    masks: Mapping[str, Tensor],
    tensors: Sequence[MaskedTensor],
    method: Method,
    sparsity: float | None,
) -> float:
    """The sparsity of starting masks, after checking them against the tensors and a sparsity asked for.

    Raises:
        InputError: names every mask that does not fit.
    """
    if method.chooses_masks:
        raise InputError(
            f"method {method.name} chooses its own masks, got masks; use static or a dynamic method"
        )
    method.check_spread_unused("masks decide")
    here = {tensor.name: tensor for tensor in tensors}
    problems = [f"{name} has no mask" for name in here if name not in masks]
    problems += [f"{name} is no pruned tensor" for name in masks if name not in here]
    for name in here.keys() & masks.keys():
        mask, shape = masks[name], here[name].parameter.shape
        if mask.dtype != torch.bool or mask.shape != shape:
            problems.append(f"{name} needs bool {tuple(shape)}, got {mask.dtype} {tuple(mask.shape)}")
        elif not method.may_empty and not bool(mask.any()):
            problems.append(f"{name} keeps no live weight")
    if problems:
        raise InputError(f"masks must fit the pruned tensors, but {'; '.join(sorted(problems))}")
    total = sum(tensor.total for tensor in tensors)
    actual = 1.0 - sum(int(masks[name].count_nonzero()) for name in here) / total
    if sparsity is not None and abs(actual - sparsity) * total > len(here):  # each may be rounded
        raise InputError(
            f"sparsity must agree with the masks, got {sparsity} and masks of {actual:.4f}; leave it out"
        )
    return actual


def check_method(method: object) -> None:
    """`method` must be a method, and not its name or its class."""
    if isinstance(method, type) and issubclass(method, Method):
        raise InputError(
            f"method must be made first, got the class {method.__name__}; call it: {method.name}()"
        )
    if not isinstance(method, Method):
        raise InputError(
            f"method must be one of hyperprune.methods or a DynamicSparse, got {method!r}; "
            'hyperprune.methods.get("rigl") finds one by its name'
        )


def check_method_sparsity(method: Method, sparsity: float | None) -> float:
    """A valid sparsity that the method can do something with."""
    sparsity = check_sparsity(sparsity)
    if method.name == "dense" and sparsity > 0:
        raise InputError(
            f"method dense removes nothing, so sparsity must be 0, got {sparsity}; "
            'leave it at 0 or choose another method ("static")'
        )
    return sparsity
