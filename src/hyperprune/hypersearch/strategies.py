"""How candidates are sifted: LS-based hyperpruning, successive halving, Hyperband, training everything.

A strategy is a frozen set of numbers and one method that drives an `Arena`: admit, advance, rank,
eliminate, until the finalists are trained. It neither trains nor stores, so that the same strategy runs
on live training, on recorded candidates (`replay`), and on nothing at all (`plan`).

Rounds are the eliminations, numbered 1, 2, … through the whole search, brackets included (one that fails
leaves a gap); candidates that enter after round k are admitted with `round_number=k`, the initial with 0.

References:
- LSH: the paper on hyperpruning, §3.
- Jamieson & Talwalkar 2016, "Non-stochastic best arm identification": successive halving.
- Li et al. 2018, "Hyperband", JMLR 18(185), algorithm 1.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

from hyperprune.errors import HyperpruneError, InputError, unknown_name
from hyperprune.hypersearch.proposers import get_proposer
from hyperprune.hypersearch.signals import get_signal

NUM_FINALISTS = 2
_MOST_STAGES = 10_000  # of a rehearsal; more is a strategy that never ends
HISTORIES = ("survivors", "all")
SPECTRUM_STATES = ("hidden", "full")


class EveryCandidateFailed(HyperpruneError):
    """None of the candidates that were to advance is left."""


class Ahead(NamedTuple):
    """What is certain to follow an advance, so that an arena may begin it before the advance has ended.

    Attributes:
        signal: what the next elimination ranks by.
        keep: how many it keeps.
        epochs: the epochs of the eliminations after it and, last, of the finalists. Whoever is kept reaches
            the first of them, and the dense reference all.
    """

    signal: str
    keep: int
    epochs: tuple[int, ...]


@runtime_checkable
class Arena(Protocol):
    """Where candidates live. Keys name candidates; failed candidates drop out of every answer."""

    def admit(self, proposer: str, count: int, *, round_number: int, history: str = "survivors") -> list[str]:
        """Create `count` new candidates after a round and return their keys.

        The proposer learns of the round's survivors, or, where `history` is "all", of every candidate that
        was ever ranked.
        """
        ...

    def advance(self, keys: Sequence[str], to_epoch: int, *, ahead: Ahead | None = None) -> list[str]:
        """Train the candidates, and the dense reference, to `to_epoch` epochs in all; the keys not failed.

        Args:
            keys: of the candidates.
            to_epoch: at least this many epochs each.
            ahead: what follows; beginning it early changes no result.

        Raises:
            EveryCandidateFailed: none is left.
        """
        ...

    def signals(self, keys: Sequence[str], signal: str, epoch: int) -> dict[str, float]:
        """The signal of each candidate at `epoch`, among these; smaller is better."""
        ...

    def eliminate(
        self, round_number: int, epoch: int, signals: Mapping[str, float], kept: Sequence[str]
    ) -> list[str]:
        """Drop whom the round does not keep; the keys kept (of a round that is known already, its own)."""
        ...


class PlannedRound(NamedTuple):
    """One elimination of a schedule: entrants train to `epoch`, `kept` stay, `inserted` enter after it.

    `epochs` are those trained for it, by its entrants since they last were in a round.
    """

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
        proposer: a name of `proposers.PROPOSERS`: "grid", "random", "tpe", "atpe".
        signal: what ranks candidates, a name of `signals.SIGNALS`: "spectrum", "loss", "blend", …
        spectrum_dims: dimensions of the signal's PCA space; None is the signal's own, 2.
        spectrum_state: of which state spectra are measured: "hidden", as in the paper, or "full" (an LSTM's
            hidden and cell state).
        uses_signal: whether candidates are ranked at all.
    """

    candidates: int = 24
    final_epochs: int = 100
    proposer: str = "tpe"
    signal: str = "spectrum"
    spectrum_dims: int | None = None
    spectrum_state: str = "hidden"
    name: ClassVar[str]
    uses_signal: ClassVar[bool] = True

    def __post_init__(self) -> None:
        get_proposer(self.proposer)
        get_signal(self.signal, dims=self.spectrum_dims)
        if self.spectrum_state not in SPECTRUM_STATES:
            raise unknown_name("spectrum_state", self.spectrum_state, SPECTRUM_STATES)
        self._at_least(1, "final_epochs")
        if self.candidates < NUM_FINALISTS:
            raise InputError(
                f"candidates must be at least {NUM_FINALISTS}, got {self.candidates}; "
                "use 'hyperprune train' for one"
            )

    @abstractmethod
    def run(self, arena: Arena) -> list[str]:
        """Drive the arena to the end; the finalists' keys."""

    def plan(self) -> list[PlannedRound]:
        """The rounds, as they will be if no candidate fails."""
        return self.rehearse().rounds

    @property
    def created(self) -> int:
        """How many candidates there will have been in all."""
        return len(self.rehearse().epochs)

    def to_json(self) -> dict[str, Any]:
        """Name and settings."""
        return {"name": self.name, **asdict(self)}

    def rehearse(self) -> Rehearsal:
        """What the strategy asks for, if nothing fails.

        Raises:
            InputError: it ends without a finalist, with one not trained to the end, or never.
        """
        rehearsal = Rehearsal()
        finalists = self.run(rehearsal)
        short = [key for key in finalists if rehearsal.epochs[key] != self.final_epochs]
        if not finalists or short or not any(map(sum, rehearsal.stages)):
            raise InputError(
                f"a strategy must end with finalists trained to its {self.final_epochs} final epochs, and "
                f"{self.name!r} ends with {len(finalists)}, {len(short)} of them trained to another epoch; "
                "change its numbers, or its run()"
            )
        return rehearsal

    def _sift(
        self,
        arena: Arena,
        keys: Sequence[str],
        *,
        number: int,
        epoch: int,
        keep: int,
        later: Sequence[int] = (),
    ) -> list[str]:
        """Train to `epoch` and keep the `keep` smallest signals, best first; ties by key.

        `later` are the epochs of the eliminations that follow; the finalists' are added.
        """
        alive = arena.advance(keys, epoch, ahead=Ahead(self.signal, keep, (*later, self.final_epochs)))
        signals = arena.signals(alive, self.signal, epoch)
        kept = sorted(alive, key=lambda key: (signals[key], key))[:keep]
        return arena.eliminate(number, epoch, signals, kept)

    def _at_least(self, least: int, *names: str) -> None:
        for name in names:
            if getattr(self, name) < least:
                raise InputError(f"{name} must be at least {least}, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class LSH(Strategy):
    """LS-based hyperpruning: halve the candidates by the signal, insert new ones, repeat, train the last two.

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
        self._at_least(1, "first_epochs", "round_epochs")
        if self.history not in HISTORIES:
            raise unknown_name("history", self.history, HISTORIES)
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
            keys = self._sift(arena, keys, number=number, epoch=epoch, keep=keep, later=later)
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
        self._at_least(1, "first_epochs")
        self._at_least(2, "eta")
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
            keys = self._sift(arena, keys, number=number, epoch=epoch, keep=keep, later=later)
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
        self._at_least(1, "first_epochs")
        self._at_least(2, "eta")
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
                    keys = self._sift(arena, keys, number=first + rung, epoch=epoch, keep=keep, later=later)
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


STRATEGIES: dict[str, type[Strategy]] = {
    kind.name: kind for kind in (LSH, SuccessiveHalving, Hyperband, Full, Random)
}


def planned_epochs(strategy: Strategy) -> int:
    """Epochs of all candidates together, the dense reference's apart, if none fails."""
    return sum(strategy.rehearse().epochs.values())


class Rehearsal:
    """An arena in which nothing is trained and nothing fails: what a strategy asks of it is its plan.

    Attributes:
        epochs: how far each candidate was asked to be trained.
        rounds: the eliminations.
        stages: for each advance, the epochs that each candidate is trained for, and, first, the reference.
    """

    def __init__(self) -> None:
        self.epochs: dict[str, int] = {}
        self.rounds: list[PlannedRound] = []
        self.stages: list[list[int]] = []
        self._counted: dict[str, int] = {}
        self._reference = 0

    def admit(self, proposer: str, count: int, *, round_number: int, history: str = "survivors") -> list[str]:
        keys = [str(len(self.epochs) + number) for number in range(count)]
        self.epochs |= dict.fromkeys(keys, 0)
        if round_number:
            self.rounds[-1] = self.rounds[-1]._replace(inserted=count)
        return keys

    def advance(self, keys: Sequence[str], to_epoch: int, *, ahead: Ahead | None = None) -> list[str]:
        reference = max(0, to_epoch - self._reference)
        self.stages.append([reference, *(to_epoch - self.epochs[key] for key in keys)])
        if len(self.stages) > _MOST_STAGES:
            raise InputError(
                f"a strategy must come to its end, and this one has asked for training {_MOST_STAGES} times; "
                "eliminate candidates until the finalists are left"
            )
        self._reference += reference
        self.epochs |= dict.fromkeys(keys, to_epoch)
        return list(keys)

    def signals(self, keys: Sequence[str], signal: str, epoch: int) -> dict[str, float]:
        return dict.fromkeys(keys, 0.0)

    def eliminate(
        self, round_number: int, epoch: int, signals: Mapping[str, float], kept: Sequence[str]
    ) -> list[str]:
        epochs = sum(epoch - self._counted.get(key, 0) for key in signals)
        self._counted |= dict.fromkeys(signals, epoch)
        self.rounds.append(PlannedRound(round_number, epoch, len(signals), len(kept), 0, epochs))
        return list(kept)
