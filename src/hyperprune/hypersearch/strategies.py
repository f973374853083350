"""How candidates are sifted: the LSH paper's search, successive halving, Hyperband, training everything.

References:
- LSH: the paper on hyperpruning, §3.
- Jamieson & Talwalkar 2016, "Non-stochastic best arm identification": successive halving.
- Li et al. 2018, "Hyperband", JMLR 18(185), algorithm 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, fields

from hyperprune.errors import InputError, unknown_name
from hyperprune.hypersearch.strategy import NUM_FINALISTS, Arena, EveryCandidateFailed, Strategy
from hyperprune.settings import from_mapping
from hyperprune.tasks.contract import Task

HISTORIES = ("survivors", "all")
_LEARN_NOTHING = ("grid", "random")  # of the proposers


@dataclass(frozen=True, kw_only=True)
class LSH(Strategy):
    """The LSH paper's search: halve the candidates by a signal, insert new ones, repeat, train the last two.

    With `signal="spectrum"` it is LS-based hyperpruning; the default is the same by training losses.

    Each round keeps the better half (rounded up) of its n entrants and inserts ⌊n/4⌋ proposed from the
    outcome; new candidates are trained from scratch to the others' epoch. With the grid proposer nothing
    is inserted. Reference: the LSH paper, §3.

    Attributes:
        first_epochs: epochs before the first elimination (e0).
        round_epochs: epochs between eliminations (e_i).
        history: what the proposer learns from: the round's "survivors", as in the paper, or "all" that were
            ever ranked, the eliminated ones as such.
    """

    first_epochs: int = 3
    round_epochs: int = 3
    history: str = "survivors"
    name = "lsh"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_at_least(1, "first_epochs", "round_epochs")
        if self.history not in HISTORIES:
            raise unknown_name("history", self.history, HISTORIES)
        if self.history != "survivors" and self.proposer in _LEARN_NOTHING:
            raise InputError(
                f"history means nothing to the proposer {self.proposer!r}, which learns nothing; leave it "
                "out, or use the proposer tpe or atpe"
            )
        selection = max((planned.epoch for planned in self.plan()), default=0)
        if self.final_epochs < selection:
            raise InputError(
                f"final_epochs must be at least the {selection} epochs of the selection, got "
                f"{self.final_epochs}; raise it, or lower first_epochs, round_epochs or candidates"
            )

    def run(self, arena: Arena) -> list[str]:
        keys = arena.admit(self.proposer, self.candidates, round_number=0)
        number, epoch = 1, self.first_epochs
        while len(keys) > NUM_FINALISTS:
            keep = math.ceil(len(keys) / 2)
            insert = self._inserted(len(keys))
            later = range(epoch + self.round_epochs, self.final_epochs, self.round_epochs)
            later = later[: self._rounds_from(keep + insert)]
            keys = self.sift(arena, keys, number=number, epoch=epoch, keep=keep, later=later)
            if insert:
                keys += arena.admit(self.proposer, insert, round_number=number, history=self.history)
            number, epoch = number + 1, epoch + self.round_epochs
        return arena.advance(keys, self.final_epochs)

    def _inserted(self, entrants: int) -> int:
        return 0 if self.proposer == "grid" else entrants // 4

    def _rounds_from(self, entrants: int) -> int:
        """How many eliminations there will be from so many candidates on."""
        rounds = 0
        while entrants > NUM_FINALISTS:
            entrants = math.ceil(entrants / 2) + self._inserted(entrants)
            rounds += 1
        return rounds


@dataclass(frozen=True, kw_only=True)
class SuccessiveHalving(Strategy):
    """Keep one in `eta`, give the rest `eta` times the epochs, repeat; train what is left to the end.

    n candidates are ranked after `first_epochs · eta^i` epochs and ⌊n / eta^(i+1)⌋ are kept, while that is
    at least one and the epochs are fewer than `final_epochs`. Nothing is inserted. Where `final_epochs` is
    no such product, the finalists' last stretch is longer or shorter than a factor of `eta`.
    Reference: Jamieson & Talwalkar 2016, in the form of Li et al. 2018, algorithm 1.

    Attributes:
        first_epochs: epochs before the first elimination.
        eta: how many candidates compete for one place, at least 2.
    """

    proposer: str = "random"
    first_epochs: int = 3
    eta: int = 3
    name = "successive_halving"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_at_least(1, "first_epochs")
        self.check_at_least(2, "eta")
        if not self.plan():
            raise InputError(
                "successive_halving must eliminate somebody: candidates at least eta, first_epochs below "
                f"final_epochs; got {self.candidates} candidates, eta {self.eta}, {self.first_epochs} first "
                f"and {self.final_epochs} final epochs; use the strategy 'full' to eliminate nobody"
            )

    def run(self, arena: Arena) -> list[str]:
        keys = arena.admit(self.proposer, self.candidates, round_number=0)
        rungs = list(self._rungs())
        for number, (epoch, keep) in enumerate(rungs, start=1):
            later = [later for later, _ in rungs[number:]]
            keys = self.sift(arena, keys, number=number, epoch=epoch, keep=keep, later=later)
        return arena.advance(keys, self.final_epochs)

    def _rungs(self) -> Iterator[tuple[int, int]]:
        """Epoch and survivors of each elimination."""
        epoch, keep = self.first_epochs, self.candidates // self.eta
        while keep >= 1 and epoch < self.final_epochs:
            yield epoch, keep
            epoch, keep = epoch * self.eta, keep // self.eta


@dataclass(frozen=True, kw_only=True)
class Hyperband(Strategy):
    """Successive halving in brackets, from many candidates ranked early to few that are only trained.

    With R = `final_epochs` and s_max the largest s for which R / eta^s is at least `first_epochs`, bracket
    s = s_max … 0 admits ⌈(s_max + 1) / (s + 1) · eta^s⌉ candidates and ranks them after ⌊R / eta^s⌋,
    ⌊R / eta^(s-1)⌋, … epochs, one in `eta` surviving each time; its survivors are trained to R. All
    brackets' survivors are finalists. How many candidates there are follows from these numbers. Brackets
    run one after the other; a proposer that learns is told of every candidate ranked in the earlier ones.
    Reference: Li et al. 2018, algorithm 1, with whole epochs.

    Attributes:
        candidates: of the first bracket; computed.
        first_epochs: the fewest epochs after which a candidate may be dropped.
        eta: how many candidates compete for one place, at least 2.
    """

    candidates: int = field(init=False, default=0)
    proposer: str = "random"
    first_epochs: int = 3
    eta: int = 3
    name = "hyperband"

    def __post_init__(self) -> None:
        self.check_at_least(1, "first_epochs")
        self.check_at_least(2, "eta")
        if self.final_epochs < self.first_epochs * self.eta:
            raise InputError(
                f"final_epochs must be at least eta · first_epochs = {self.first_epochs * self.eta}, got "
                f"{self.final_epochs}; lower first_epochs or eta"
            )
        object.__setattr__(self, "candidates", self._bracket_size(self._most_halvings))
        super().__post_init__()

    def run(self, arena: Arena) -> list[str]:
        finalists, failure, number = list[str](), None, 0
        for halvings in range(self._most_halvings, -1, -1):
            size = self._bracket_size(halvings)
            keys = arena.admit(self.proposer, size, round_number=number, history="all")
            first = number + 1
            number += halvings  # the bracket's rounds keep their numbers even if it fails before the last
            try:
                epochs = [self.final_epochs // self.eta ** (halvings - rung) for rung in range(halvings)]
                for rung, epoch in enumerate(epochs):
                    keep = size // self.eta ** (rung + 1)
                    later = epochs[rung + 1 :]
                    keys = self.sift(arena, keys, number=first + rung, epoch=epoch, keep=keep, later=later)
                finalists += arena.advance(keys, self.final_epochs)
            except EveryCandidateFailed as error:
                failure = error
        if not finalists and failure is not None:
            raise failure
        return finalists

    @property
    def _most_halvings(self) -> int:
        """s_max, in whole numbers: a logarithm would round 3^5 down."""
        halvings = 0
        while self.first_epochs * self.eta ** (halvings + 1) <= self.final_epochs:
            halvings += 1
        return halvings

    def _bracket_size(self, halvings: int) -> int:
        return -(-(self._most_halvings + 1) * self.eta**halvings // (halvings + 1))


@dataclass(frozen=True, kw_only=True)
class Full(Strategy):
    """Train every candidate to the end and keep the best: the yardstick, and the most expensive way.

    The signal is not used: nothing is eliminated. Without a history "tpe" draws like "random".
    """

    proposer: str = "random"
    name = "full"
    uses_signal = False

    def run(self, arena: Arena) -> list[str]:
        keys = arena.admit(self.proposer, self.candidates, round_number=0)
        return arena.advance(keys, self.final_epochs)


@dataclass(frozen=True, kw_only=True)
class Random(Full):
    """Random search (Bergstra & Bengio 2012): `Full` whose candidates are always drawn at random."""

    proposer: str = field(init=False, default="random")
    name = "random"


def check_search_defaults(task: Task) -> None:
    """Refuse a task whose `search_defaults` hold what is no setting of LSH's.

    Raises:
        InputError: one is none.
    """
    known = [setting.name for setting in fields(LSH) if setting.init]
    for key in task.search_defaults:
        if key not in known:
            raise unknown_name("key in Task.search_defaults", key, known)


def default_strategy(task: Task) -> LSH:
    """`LSH` with the settings that the task brings.

    Raises:
        InputError: one of them is none of LSH's, or breaks a rule.
    """
    return from_mapping(LSH, task.search_defaults, "Task.search_defaults")


STRATEGIES: dict[str, type[Strategy]] = {
    kind.name: kind for kind in (LSH, SuccessiveHalving, Hyperband, Full, Random)
}
