"""How candidates are sifted: the LS-based hyperpruning of the LSH paper, and training everything.

A strategy is a frozen set of numbers and one method that drives an `Arena`: admit, advance, rank,
eliminate, until the finalists are trained. It neither trains nor stores, so that the same strategy runs
on live training and on recorded candidates.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

from hyperprune.errors import InputError
from hyperprune.hypersearch.proposers import get_proposer
from hyperprune.hypersearch.signals import get_signal

NUM_FINALISTS = 2


@runtime_checkable
class Arena(Protocol):
    """Where candidates live. Keys name candidates; failed candidates drop out of every answer."""

    def admit(self, proposer: str, count: int, *, round_number: int) -> list[str]:
        """Create `count` new candidates, proposed from the survivors of the round, and return their keys."""
        ...

    def advance(self, keys: Sequence[str], to_epoch: int) -> list[str]:
        """Train the candidates, and the dense reference, to `to_epoch` epochs in all; the keys not failed."""
        ...

    def signals(self, keys: Sequence[str], signal: str, epoch: int) -> dict[str, float]:
        """The signal of each candidate at `epoch`; smaller is better."""
        ...

    def eliminate(
        self, round_number: int, epoch: int, signals: Mapping[str, float], kept: Sequence[str]
    ) -> None:
        """Drop every candidate of the round that is not kept."""
        ...


class PlannedRound(NamedTuple):
    """One round of a schedule: entrants train to `epoch`, `kept` stay, `inserted` are new."""

    number: int
    epoch: int
    entrants: int
    kept: int
    inserted: int
    epochs: int


@dataclass(frozen=True, kw_only=True)
class Strategy(ABC):
    """What every strategy has.

    Attributes:
        candidates: how many to begin with, at least 2.
        final_epochs: a finalist's epochs in all, selection included.
        proposer: "grid", "random" or "tpe".
        signal: what ranks candidates: "spectrum", or "loss" for loss-based search.
    """

    candidates: int = 24
    final_epochs: int = 100
    proposer: str = "tpe"
    signal: str = "spectrum"
    name: ClassVar[str]

    def __post_init__(self) -> None:
        get_proposer(self.proposer)
        get_signal(self.signal)
        if self.candidates < NUM_FINALISTS:
            raise InputError(
                f"candidates must be at least {NUM_FINALISTS}, got {self.candidates}; "
                "use 'hyperprune train' for one"
            )
        if self.final_epochs < 1:
            raise InputError(f"final_epochs must be at least 1, got {self.final_epochs}")

    @abstractmethod
    def plan(self) -> list[PlannedRound]:
        """The rounds, as they will be if no candidate fails."""

    @abstractmethod
    def run(self, arena: Arena) -> list[str]:
        """Drive the arena to the end; the finalists' keys."""

    def to_json(self) -> dict[str, Any]:
        """Name and settings."""
        return {"name": self.name, **asdict(self)}


@dataclass(frozen=True, kw_only=True)
class LSH(Strategy):
    """LS-based hyperpruning: halve the candidates by the signal, insert new ones, repeat, train the last two.

    Each round keeps the better half (rounded up) of its n entrants and inserts ⌊n/4⌋ proposed from the
    survivors; new candidates are trained from scratch to the others' epoch. With the grid proposer nothing
    is inserted. Reference: the LSH paper, §3.

    Attributes:
        first_epochs: epochs before the first elimination (e0).
        round_epochs: epochs between eliminations (e_i).
    """

    first_epochs: int = 3
    round_epochs: int = 3
    name = "lsh"

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in ("first_epochs", "round_epochs"):
            if getattr(self, field) < 1:
                raise InputError(f"{field} must be at least 1, got {getattr(self, field)}")
        selection = max((planned.epoch for planned in self.plan()), default=0)
        if self.final_epochs < selection:
            raise InputError(
                f"final_epochs must be at least the {selection} epochs of the selection, got "
                f"{self.final_epochs}; raise it, or lower first_epochs, round_epochs or candidates"
            )

    def plan(self) -> list[PlannedRound]:
        rounds, entrants, epoch, trained = [], self.candidates, self.first_epochs, 0
        newcomers = self.candidates
        while entrants > NUM_FINALISTS:
            kept, inserted = self._sizes(entrants)
            epochs = newcomers * epoch + (entrants - newcomers) * (epoch - trained)
            rounds.append(PlannedRound(len(rounds) + 1, epoch, entrants, kept, inserted, epochs))
            entrants, newcomers, trained = kept + inserted, inserted, epoch
            epoch += self.round_epochs
        return rounds

    def run(self, arena: Arena) -> list[str]:
        keys = arena.admit(self.proposer, self.candidates, round_number=0)
        round_number, epoch = 1, self.first_epochs
        while len(keys) > NUM_FINALISTS:
            kept_count, inserted_count = self._sizes(len(keys))
            keys = arena.advance(keys, epoch)
            signals = arena.signals(keys, self.signal, epoch)
            keys = sorted(keys, key=lambda key: (signals[key], key))[:kept_count]
            arena.eliminate(round_number, epoch, signals, keys)
            if inserted_count:
                keys = keys + arena.admit(self.proposer, inserted_count, round_number=round_number)
            round_number, epoch = round_number + 1, epoch + self.round_epochs
        return arena.advance(keys, self.final_epochs)

    def _sizes(self, entrants: int) -> tuple[int, int]:
        inserted = 0 if self.proposer == "grid" else entrants // 4
        return math.ceil(entrants / 2), inserted


@dataclass(frozen=True, kw_only=True)
class Full(Strategy):
    """Train every candidate to the end and keep the best: the yardstick, and the most expensive way.

    The signal is not used: nothing is eliminated. Without a history "tpe" draws like "random".
    """

    proposer: str = "random"
    name = "full"

    def plan(self) -> list[PlannedRound]:
        return []

    def run(self, arena: Arena) -> list[str]:
        keys = arena.admit(self.proposer, self.candidates, round_number=0)
        return arena.advance(keys, self.final_epochs)


STRATEGIES: dict[str, type[Strategy]] = {"lsh": LSH, "full": Full}


def planned_epochs(strategy: Strategy) -> int:
    """Epochs of all candidates together, the dense reference's apart, if none fails."""
    rounds = strategy.plan()
    if not rounds:
        return strategy.candidates * strategy.final_epochs
    last = rounds[-1]
    finalists = last.kept + last.inserted
    return sum(planned.epochs for planned in rounds) + finalists * (strategy.final_epochs - last.epoch)
