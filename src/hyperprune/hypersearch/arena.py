"""Where a search's candidates are remembered.

What the journal already tells is answered from it; the rest is computed and told to it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from hyperprune.hypersearch.proposers import Seen, get_proposer
from hyperprune.hypersearch.run_state import REFERENCE_KEY, Event, RunState
from hyperprune.hypersearch.signals import Records, measure
from hyperprune.hypersearch.space import Configuration, Space
from hyperprune.hypersearch.strategy import Ahead
from hyperprune.records import networks_vary
from hyperprune.rng import derive_seed


class StateArena(ABC):
    """An arena whose memory is a `RunState`; how candidates advance is a subclass's.

    What the state already tells is answered from it: a search that is run again from its first line goes on
    where it was.

    Args:
        state: with a header.
        space: where proposals come from.
    """

    def __init__(self, state: RunState, space: Space) -> None:
        self.state, self._space = state, space

    @abstractmethod
    def record(self, event: Event) -> None:
        """Remember an event, in the state above all."""

    @abstractmethod
    def advance(self, keys: Sequence[str], to_epoch: int, *, ahead: Ahead | None = None) -> list[str]:
        """Train the candidates, and the dense reference, to `to_epoch` epochs in all; the keys not failed."""

    def admit(self, proposer: str, count: int, *, round_number: int, history: str = "survivors") -> list[str]:
        candidates = self.state.candidates
        born = [key for key, candidate in candidates.items() if candidate.born_in == round_number]
        if born:
            return born
        known = [Configuration.from_json(candidate.configuration) for candidate in candidates.values()]
        configurations = get_proposer(proposer)(
            self._space_beside(known, count),
            count,
            self._history(round_number, history),
            known,
            derive_seed(self._seed, "proposer", round_number),
        )
        return self.enter(configurations, round_number=round_number)

    def enter(self, configurations: Sequence[Configuration], *, round_number: int = 0) -> list[str]:
        """Make candidates of configurations; their keys."""
        first = len(self.state.candidates) + 1
        entries = [
            {"key": f"c{number:02d}", "label": own.full_label, "configuration": own.to_json()}
            for number, own in enumerate(configurations, start=first)
        ]
        self.record({"event": "candidates", "round": round_number, "entries": entries})
        return [entry["key"] for entry in entries]

    def signals(self, keys: Sequence[str], signal: str, epoch: int) -> dict[str, float]:
        candidates = self.state.candidates
        values = measure(
            signal,
            self._records(REFERENCE_KEY, epoch),
            {key: self._records(key, epoch) for key in keys},
            dims=self.state.header["strategy"].get("spectrum_dims"),
            by_quantiles=networks_vary(candidates.values()),
        )
        return {key: self.state.weighed(value, candidates[key]) for key, value in values.items()}

    def eliminate(
        self, round_number: int, epoch: int, signals: Mapping[str, float], kept: Sequence[str]
    ) -> list[str]:
        known = self.state.round(round_number)
        if known is not None:
            return list(known.kept)
        self.record(
            {
                "event": "round",
                "number": round_number,
                "epoch": epoch,
                "signals": dict(signals),
                "kept": list(kept),
            }
        )
        return list(kept)

    def _space_beside(self, known: Sequence[Configuration], count: int) -> Space:
        """Where `count` proposals come from when `known` ones are taken."""
        return self._space

    def _records(self, key: str, epoch: int) -> Records:
        """A candidate's epochs 0 to `epoch`."""
        return self.state[key].epochs[: epoch + 1]

    def _history(self, round_number: int, which: str) -> list[Seen]:
        """The round's survivors, best first; if `which` is "all", everyone else who was ranked after them.

        A survivor that fails later is told of all the same: with several workers some train ahead of the
        others, and whether one has failed by now would depend on their number.
        """
        last = self.state.round(round_number)
        kept = () if last is None else last.kept
        survivors = [self._seen(key, None) for key in kept]
        if which == "survivors":
            return survivors
        epochs = {entry.number: entry.epoch for entry in self.state.rounds}
        # One that failed in an audit was eliminated all the same: an audit changes no proposal.
        ranked = {
            item.key: (epochs[max(item.signals)], item.eliminated_in is not None)
            for item in self.state.candidates.values()
            if item.signals
            and item.key not in kept
            and (item.eliminated_in is not None or item.outcome != "failed")
        }
        # Finalists of other brackets compete only if their signal is of this round's epoch.
        finalists = [epoch for epoch, is_eliminated in ranked.values() if not is_eliminated]
        current = max(finalists, default=0) if last is None else last.epoch
        others = [
            self._seen(key, epoch if is_eliminated or epoch != current else None)
            for key, (epoch, is_eliminated) in ranked.items()
        ]
        return survivors + others

    def _seen(self, key: str, dropped_at: int | None) -> Seen:
        candidate = self.state.candidates[key]
        signal = candidate.signals[max(candidate.signals)]
        return Seen(Configuration.from_json(candidate.configuration), signal, dropped_at)

    @property
    def _seed(self) -> int:
        return self.state.header["seed"]
