"""Named pruning methods with their papers' settings: `methods.rigl(death_rate=0.3)`, `methods.get("rigl")`.

Every preset is a frozen dataclass; its `summary`, `paper`, `equation` and `deviations` are data, from which
the documentation's table is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import torch
from jaxtyping import Bool
from torch import Tensor

from hyperprune.errors import InputError, unknown_name
from hyperprune.sparsity.deep_r import DeepR
from hyperprune.sparsity.dynamic import DynamicSparse
from hyperprune.sparsity.gradual import GMP, Narang
from hyperprune.sparsity.method import Method, Rule, check_flag
from hyperprune.sparsity.network import SparseNetwork
from hyperprune.sparsity.rounds import IterativeMagnitude, LotteryTicket
from hyperprune.sparsity.schedules import Clock
from hyperprune.sparsity.top_kast import TopKAST


@dataclass(frozen=True, kw_only=True)
class SET(DynamicSparse):
    """Sparse evolutionary training."""

    allocation: str = "er"
    death: str = "set"
    death_rate: float = 0.3
    decay: str = "constant"

    name: ClassVar[str] = "set_"
    summary: ClassVar[str] = (
        "per tensor, positive and negative weights closest to 0 for random ones, once an epoch"
    )
    paper: ClassVar[str] = (
        "Mocanu et al. 2018, Scalable training of artificial neural networks (arXiv 1707.04780)"
    )
    equation: ClassVar[str] = "the SET procedure (pseudocode)"
    deviations: ClassVar[tuple[str, ...]] = (
        "half of the death rate is taken from each sign, not the rate of each",
        "exact counts instead of independent draws; gates of a matrix are one matrix",
        "grown weights start at 0; the authors' code draws small random values",
    )


@dataclass(frozen=True, kw_only=True)
class DSR(DynamicSparse):
    """Dynamic sparse reparameterisation."""

    death: str = "threshold"
    redistribution: str = "nonzeros"
    death_rate: float = 0.2
    decay: str = "constant"

    name: ClassVar[str] = "dsr"
    summary: ClassVar[str] = "weights below one adaptive threshold regrow at random, more where more survive"
    paper: ClassVar[str] = "Mostafa & Wang 2019, Parameter efficient training (arXiv 1902.05967)"
    equation: ClassVar[str] = "algorithm 1"
    deviations: ClassVar[tuple[str, ...]] = (
        "updates once an epoch; the paper's period of 1,000 to 8,000 steps is update_every",
        "the target is a share of the live weights; the paper's is a number",
        "the threshold moves when the target was missed by more than 2 %; in the authors' code by 10 %",
    )


@dataclass(frozen=True, kw_only=True)
class SNFS(DynamicSparse):
    """Sparse networks from scratch by sparse momentum."""

    growth: str = "momentum"
    redistribution: str = "momentum"
    death_rate: float = 0.5

    name: ClassVar[str] = "snfs"
    summary: ClassVar[str] = "smallest |w| per tensor; regrown by |momentum|, between tensors and within"
    paper: ClassVar[str] = "Dettmers & Zettlemoyer 2019, Sparse networks from scratch (arXiv 1907.04840)"
    equation: ClassVar[str] = "algorithm 1"
    deviations: ClassVar[tuple[str, ...]] = (
        "dead weights' smoothed gradients are kept apart from the optimizer, so that dead weights have no "
        "momentum, over the last steps before an update and from 0 after each: with 0.9 and updates every "
        "10 steps, the 35 % that is older is missing",
        "tensors share by mean |momentum| after death; the authors' code before it, and with Adam by m/√v",
        "the death rate ends at 0; in their code at 0.005",
    )


@dataclass(frozen=True, kw_only=True)
class RigL(DynamicSparse):
    """The rigged lottery."""

    allocation: str = "er"
    growth: str = "gradient"
    death_rate: float = 0.3
    decay_end: float = 0.75
    update_every: int | str = 100
    stop: float | None = 0.75

    name: ClassVar[str] = "rigl"
    summary: ClassVar[str] = "smallest |w| per tensor for the largest |dense gradient|, every 100 steps"
    paper: ClassVar[str] = "Evci et al. 2020, Rigging the lottery (arXiv 1911.11134)"
    equation: ClassVar[str] = "algorithm 1"
    deviations: ClassVar[tuple[str, ...]] = (
        "the optimizer's step is taken before an update too",
        "weights just killed do not regrow; regrow_killed allows it, at 0 with fresh state, where the "
        "authors' code keeps their value and state",
    )


@dataclass(frozen=True, kw_only=True)
class SelfishRNN(DynamicSparse):
    """Selfish sparse RNN training; for SNT-ASGD."""

    death_rate: float = 0.8

    name: ClassVar[str] = "selfish_rnn"
    summary: ClassVar[str] = "smallest |w| per matrix for random ones, gates exchange weights, once an epoch"
    paper: ClassVar[str] = "Liu et al. 2021, Selfish sparse RNN training (arXiv 2101.09048)"
    equation: ClassVar[str] = "algorithm 1"
    deviations: ClassVar[tuple[str, ...]] = (
        "the optimizer is the caller's; the paper's is SNT-ASGD",
        "the epoch in which averaging is triggered has its update too; in the authors' code it has none",
    )


@dataclass(frozen=True, kw_only=True)
class Static(Method):
    """A random mask that stays.

    Attributes:
        allow_empty: masks that are given, or chosen by `at_init`, may leave a tensor without a live weight.
    """

    allow_empty: bool = False

    name: ClassVar[str] = "static"
    summary: ClassVar[str] = "a random mask that never changes, or the one given"
    paper: ClassVar[str] = "the static baseline of Mocanu et al. 2018 (arXiv 1707.04780)"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_flag("allow_empty", self.allow_empty)

    @property
    def may_empty(self) -> bool:
        return self.allow_empty

    def build(self, network: SparseNetwork, sparsity: float, clock: Clock) -> Rule:
        return Rule(self, network, sparsity)


@dataclass(frozen=True, kw_only=True)
class Dense(Method):
    """No pruning: everything works, nothing is masked."""

    name: ClassVar[str] = "dense"
    summary: ClassVar[str] = "nothing is pruned; the reference"
    chooses_masks: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if any(density < 1 for _, density in self.densities):
            raise InputError(
                f'method dense removes nothing, got densities {dict(self.densities)}; use "static"'
            )
        if self.keep_dense or self.allocation != type(self).allocation:
            raise InputError(
                f"method dense removes nothing, got keep_dense {self.keep_dense} and allocation "
                f'{self.allocation!r}, which share out what is left; remove them, or use "static"'
            )

    def build(self, network: SparseNetwork, sparsity: float, clock: Clock) -> Rule:
        return _DenseRule(self, network, sparsity)


class _DenseRule(Rule):
    def start(self, masks: Mapping[str, Bool[Tensor, "..."]] | None) -> None:
        assert masks is None
        for tensor in self.network.tensors:
            tensor.set_live(torch.ones_like(tensor.live()))


_TABLE: dict[str, type[Method]] = {
    kind.name: kind
    for kind in (
        Dense,
        Static,
        SET,
        DeepR,
        DSR,
        SNFS,
        RigL,
        TopKAST,
        SelfishRNN,
        GMP,
        Narang,
        IterativeMagnitude,
        LotteryTicket,
        DynamicSparse,
    )
}

dense = Dense
static = Static
set_ = SET
deep_r = DeepR
dsr = DSR
snfs = SNFS
rigl = RigL
top_kast = TopKAST
selfish_rnn = SelfishRNN
gmp = GMP
narang = Narang
iterative_magnitude = IterativeMagnitude
lottery_ticket = LotteryTicket
dynamic_sparse = DynamicSparse


def names() -> tuple[str, ...]:
    """All methods' names, in the order of the documentation."""
    return tuple(_TABLE)


def kind(name: str) -> type[Method]:
    """The class of a method, with its summary, paper, equation and deviations.

    Raises:
        InputError: no method has this name.
    """
    if name not in _TABLE:
        raise unknown_name("method", name, _TABLE)
    return _TABLE[name]


def get(name: str, /, **settings: Any) -> Method:
    """The method of a name, with some settings other than its defaults.

    Raises:
        InputError: an unknown name or setting (the message names those allowed), or a wrong value.
    """
    method = kind(name)
    allowed = [field.name for field in fields(method)]
    for setting in settings:
        if setting not in allowed:
            raise unknown_name(f"setting of method {name}", setting, allowed)
    return method(**settings)


def table() -> str:
    """All methods as a Markdown table: what each does, paper, equation, deviations."""
    lines = ["| method | what it does | paper | equation | deviations |", "|---|---|---|---|---|"]
    for name, method in _TABLE.items():
        cells = [f"`{name}`", method.summary, method.paper, method.equation, "; ".join(method.deviations)]
        cells = [cell.replace("|", "\\|") or "–" for cell in cells]  # a bare bar would end the cell
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def page() -> str:
    """The documentation's page of methods, `docs/methods.md`, without the results of the study."""
    settings = ["| method | settings and defaults |", "|---|---|"]
    for name, method in _TABLE.items():
        values = ", ".join(f"{key}={value!r}" for key, value in method().settings().items())
        settings.append(f"| `{name}` | `{values}` |")
    return _PAGE.format(table=table(), settings="\n".join(settings))


_PAGE = """# Pruning methods

This page is made from the code (`hyperprune.sparsity.methods.page()`) and, where it tells results, from the
committed records (`hyperprune reproduce methods`); tests compare them.

A method is one call away, `hp.methods.rigl(death_rate=0.2)` or `hp.methods.get("rigl", death_rate=0.2)`, and
`hp.DynamicSparse(...)` combines the parts of dynamic sparse training freely.

{table}

Common to all: counts are exact with respect to the method's target at that step, ties go to the lower
index (gradients that are all 0 too), dead weights, their gradients and their optimizer state are exactly 0,
and grown weights start at 0 with the state per weight that a new optimizer would give them; what an optimizer
counts per tensor goes on. Two methods differ on purpose: `top_kast` trains a backward set beyond the live
weights, whose values and moments it keeps, and weights enter its forward set with the value they have;
`lottery_ticket` goes back to saved weights and optimizer state.

Where weights die and grow:

- New weights go where others were dead before the update; the references of `set_`, `deep_r`, `dsr`,
  `snfs` and `selfish_rnn` draw from all that are dead after it. Just-killed places are taken when a
  redistribution gives a tensor more than that.
- A tensor loses no more weights than were dead in it, or what it cannot place would come back at 0. Where
  another tensor may take them (any `redistribution` but "none") that holds of tensors less than 20 % sparse,
  as in the code of `snfs` and `selfish_rnn`. So a dense tensor (`keep_dense`, or by allocation) stays as it
  is and gets nothing; in `deep_r` its weights may change sign.
- A frozen tensor (`requires_grad=False`) keeps weights and mask; methods that begin dense prune it all the
  same.
- `densities` hold for the whole training without redistribution, at its start with it.
- Nothing grows at the last planned step, since nothing would train it: the masks stay as they are, unless a
  method that begins dense has still to prune (`end = 1`).

## Settings

{settings}

## Results

Every method with its defaults on one small language model, trained once per seed and sparsity:

```sh
hyperprune reproduce methods --data-dir DATA --workers 2 --docs docs    # hours; the same command goes on
hyperprune reproduce methods --from docs/records/methods.jsonl          # this text, from the records
```

<!-- methods: begin -->

Not run yet.

<!-- methods: end -->

What the recipe does to three of them:

- `deep_r` multiplies its pull towards 0 by the learning rate, 20 here. The default `l1` then takes 2e-4
  off every live weight at every step. At sparsity 0.9, 5 % of the live weights were replaced per step in
  the first epoch and 41 % in the fourth, so that none lived long enough to learn; with `l1=0`, 0.2 % in
  the first. With Adam at 2e-3 and the default `l1`, validation perplexity was 147 after four epochs and
  falling. (Recorded when a connection that came back drew a new sign; since then signs are
  fixed, as in the paper.)
- `top_kast` multiplies its penalty by the learning rate too. Here the default shrinks the weights in use
  by 41 % and the rest of the backward set, at sparsity 0.9, by 99.5 % in an epoch of 266 steps. With
  `penalty=0` it stood at validation perplexity 131 after three epochs and 100 after seven.
- `lottery_ticket` goes back to the start for the last time when three quarters of the epochs are over;
  its last ticket is trained for the remaining quarter.
"""
