"""What a strategy is: a frozen set of numbers and one method that drives an `Arena`.

It admits candidates, advances them, ranks and eliminates them, until the finalists are trained. It neither
trains nor stores, so that the same strategy runs on live training, on recorded candidates (`replay`), and on
nothing at all (`Rehearsal`, which makes the plan).

Rounds are the eliminations, numbered 1, 2, … through the whole search, brackets included (one that fails
leaves a gap); candidates that enter after round k are admitted with `round_number=k`, the initial with 0.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

from hyperprune.errors import HyperpruneError, InputError, check_whole, unknown_name
from hyperprune.hypersearch.proposers import get_proposer
from hyperprune.hypersearch.signals import get_signal

NUM_FINALISTS = 2
_MOST_STAGES = 10_000  # of a rehearsal; more is a strategy that never ends
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
        signal: what ranks candidates, a name of `signals.SIGNALS`: "training_losses", "loss", "spectrum" (the
            LSH paper's), … docs/evidence.md holds what each told about who ends well.
        spectrum_dims: dimensions of the signal's PCA space; None is the signal's own, 2.
        spectrum_state: of which state spectra are measured: "hidden", as in the paper, or "full" (an LSTM's
            hidden and cell state).
        uses_signal: whether candidates are ranked at all.
    """

    candidates: int = 24
    final_epochs: int = 100
    proposer: str = "tpe"
    signal: str = "training_losses"
    spectrum_dims: int | None = None
    spectrum_state: str = "hidden"
    name: ClassVar[str]
    uses_signal: ClassVar[bool] = True

    def __post_init__(self) -> None:
        get_proposer(self.proposer)
        get_signal(self.signal, dims=self.spectrum_dims)
        if self.spectrum_state not in SPECTRUM_STATES:
            raise unknown_name("spectrum_state", self.spectrum_state, SPECTRUM_STATES)
        self.check_at_least(1, "final_epochs")
        check_whole("candidates", self.candidates, NUM_FINALISTS, example="'hyperprune train' trains one")

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

    def rehearse(self, *, reference_epochs: int = 0) -> Rehearsal:
        """What the strategy asks for, if nothing fails and the reference has some epochs already.

        Raises:
            InputError: it ends without a finalist, with one not trained to the end, or never.
        """
        rehearsal = Rehearsal(reference_epochs)
        finalists = self.run(rehearsal)
        short = [key for key in finalists if rehearsal.epochs[key] != self.final_epochs]
        if not finalists or short or not any(map(sum, rehearsal.stages)):
            raise InputError(
                f"a strategy must end with finalists trained to its {self.final_epochs} final epochs, and "
                f"{self.name!r} ends with {len(finalists)}, {len(short)} of them trained to another epoch; "
                "change its numbers, or its run()"
            )
        return rehearsal

    def sift(
        self,
        arena: Arena,
        keys: Sequence[str],
        *,
        number: int,
        epoch: int,
        keep: int,
        later: Sequence[int] | None = None,
    ) -> list[str]:
        """Train to `epoch` and keep the `keep` smallest signals, best first; ties by key.

        `later` are the epochs of the eliminations that follow, none if the finalists' training does; its end
        is added. Whoever is kept may be trained ahead to the first of these. None begins nothing ahead.
        """
        ahead = None if later is None else Ahead(self.signal, keep, (*later, self.final_epochs))
        alive = arena.advance(keys, epoch, ahead=ahead)
        signals = arena.signals(alive, self.signal, epoch)
        kept = sorted(alive, key=lambda key: (signals[key], key))[:keep]
        return arena.eliminate(number, epoch, signals, kept)

    def check_at_least(self, least: int, *names: str) -> None:
        """Raise InputError where one of these is smaller, or no whole number."""
        for name in names:
            default = getattr(type(self), name, least)
            check_whole(name, getattr(self, name), least, example=f"{default} if it is left out")


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

    def __init__(self, reference_epochs: int = 0) -> None:
        self.epochs: dict[str, int] = {}
        self.rounds: list[PlannedRound] = []
        self.stages: list[list[int]] = []
        self._counted: dict[str, int] = {}
        self._reference = reference_epochs

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
