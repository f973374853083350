"""Where a search's candidates are remembered, and a live search's trained.

What the journal already tells is answered from it; the rest is computed and told to it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from hyperprune.errors import HyperpruneError, InputError
from hyperprune.hypersearch.executor import Executor, Job
from hyperprune.hypersearch.proposers import Seen, get_proposer
from hyperprune.hypersearch.run_folder import RunFolder
from hyperprune.hypersearch.run_state import REFERENCE_KEY, Event, RunState
from hyperprune.hypersearch.signals import Records, measure
from hyperprune.hypersearch.space import Configuration, Space
from hyperprune.hypersearch.strategies import EveryCandidateFailed
from hyperprune.records import EpochRecord
from hyperprune.rng import derive_seed
from hyperprune.tasks.contract import Task
from hyperprune.training.checkpoint import load_checkpoint
from hyperprune.training.segment import BEST_WEIGHTS, Advance, Training


@runtime_checkable
class Observer(Protocol):
    """What may watch a search: the command line's progress display, a notebook, a test."""

    def event(self, state: RunState, event: Event) -> None:
        """After each event that entered the journal."""
        ...

    def epoch(self, state: RunState, key: str, record: EpochRecord) -> None:
        """After each epoch of a candidate, before it enters the journal."""
        ...

    def note(self, text: str) -> None:
        """Something the user should know (a damaged checkpoint was passed over)."""
        ...


class SilentObserver:
    """Watches without a word."""

    def event(self, state: RunState, event: Event) -> None: ...

    def epoch(self, state: RunState, key: str, record: EpochRecord) -> None: ...

    def note(self, text: str) -> None: ...


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
    def advance(self, keys: Sequence[str], to_epoch: int) -> list[str]:
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
            {"key": f"c{number:02d}", "label": configuration.label, "configuration": configuration.to_json()}
            for number, configuration in enumerate(configurations, start=first)
        ]
        self.record({"event": "candidates", "round": round_number, "entries": entries})
        return [entry["key"] for entry in entries]

    def signals(self, keys: Sequence[str], signal: str, epoch: int) -> dict[str, float]:
        values = measure(
            signal,
            self._records(REFERENCE_KEY, epoch),
            {key: self._records(key, epoch) for key in keys},
            dims=self.state.header["strategy"].get("spectrum_dims"),
        )
        candidates = self.state.candidates
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
        """The round's survivors, best first; if `which` is "all", everyone else who was ranked after them."""
        last = self.state.round(round_number)
        kept = () if last is None else last.kept
        survivors = [self._seen(key, None) for key in kept]
        if which == "survivors":
            return survivors
        ranked = [item for item in self.state.candidates.values() if item.signals and item.key not in kept]
        epochs = {entry.number: entry.epoch for entry in self.state.rounds}
        others = [
            self._seen(item.key, None if item.eliminated_in is None else epochs[item.eliminated_in])
            for item in ranked
            if item.outcome != "failed"
        ]
        return survivors + others

    def _seen(self, key: str, dropped_at: int | None) -> Seen:
        candidate = self.state.candidates[key]
        signal = candidate.signals[max(candidate.signals)]
        return Seen(Configuration.from_json(candidate.configuration), signal, dropped_at)

    @property
    def _seed(self) -> int:
        return self.state.header["seed"]


class LiveArena(StateArena):
    """Trains what a strategy asks for, or finds it in the journal.

    Args:
        task: what is trained.
        space: where proposals come from.
        run: the run folder, begun.
        executor: where segments run.
        measures_spectra: whether candidates' spectra are measured.
        with_reference: whether the dense model advances with the candidates.
        observer: is told of every event, epoch and note.
    """

    def __init__(
        self,
        task: Task,
        space: Space,
        run: RunFolder,
        executor: Executor,
        *,
        measures_spectra: bool,
        with_reference: bool = True,
        observer: Observer,
    ) -> None:
        super().__init__(run.state, space)
        self._task, self._run = task, run
        self._lead = (REFERENCE_KEY,) if with_reference else ()
        self._executor, self._measures_spectra, self._observer = executor, measures_spectra, observer

    def record(self, event: Event) -> None:
        self._run.record(event)
        self._observer.event(self.state, event)

    def advance(self, keys: Sequence[str], to_epoch: int) -> list[str]:
        state = self.state
        if state.reference.outcome == "failed":
            raise _reference_failed(state.reference.reason)
        jobs = [
            self._job(key, to_epoch)
            for key in (*self._lead, *keys)
            if state[key].outcome != "failed"
            and (not state[key].epochs or state.epochs_trained(key) < to_epoch)
        ]
        for job, result in self._executor.run(jobs, self._on_epoch):
            self._remember(job, result)
        # By epochs, not by outcome: a resumed search must not miss a candidate before the epoch it failed in.
        alive = [key for key in keys if state.epochs_trained(key) >= to_epoch]
        if not alive:
            reasons = "\n".join(f"  {key}: {state[key].reason}" for key in keys)
            raise EveryCandidateFailed(
                f"every candidate failed; lower learning_rate or the sparsity:\n{reasons}"
            )
        return alive

    def _remember(self, job: Job, result: Advance) -> None:
        for note in result.notes:
            self._observer.note(f"{job.key}: {note}")
        known = len(self.state[job.key].epochs)
        best = (
            None
            if result.best_epoch is None
            else str((job.folder / BEST_WEIGHTS).relative_to(self._run.path))
        )
        self.record(
            {
                "event": "segment",
                "key": job.key,
                "epochs": [record.to_json() for record in result.epochs[known:]],
                "best_epoch": result.best_epoch,
                "checkpoint": best,
                "failure": result.failure,
            }
        )
        if job.key == REFERENCE_KEY and result.failure:
            raise _reference_failed(result.failure)

    def _job(self, key: str, to_epoch: int) -> Job:
        configuration = Configuration.from_json(self.state[key].configuration)
        header = self.state.header
        training = Training(
            method=configuration.build(),
            sparsity=configuration.pruned_to(header["sparsity"]),
            total_epochs=header["strategy"]["final_epochs"],
            seed=self._seed,
            name=configuration.text,
            device=header["identity"]["device"],
            threads=header["identity"]["threads"],
            measure_spectrum=self._measures_spectra,
            spectrum_state=header["strategy"].get("spectrum_state", "hidden"),
        )
        return Job(
            key=key,
            training=training,
            folder=self._run.candidate_folder(key),
            from_epoch=self.state.epochs_trained(key),
            to_epoch=to_epoch,
            best_weights_extra={"task_source": self._task.source},
        )

    def mend(self, keys: Sequence[str]) -> None:
        """Train again those whose weights on the disk are damaged; the result is what it was."""
        damaged = []
        for key in keys:
            path = self._run.candidate_folder(key) / BEST_WEIGHTS
            try:
                load_checkpoint(path)
            except InputError as error:
                self._observer.note(f"{key} is trained again: {error}")
                damaged.append(self._job(key, self.state.epochs_trained(key)))
        for _ in self._executor.run(damaged, self._on_epoch):
            pass

    def _on_epoch(self, key: str, record: EpochRecord) -> None:
        self._observer.epoch(self.state, key, record)


def _reference_failed(reason: str | None) -> HyperpruneError:
    return HyperpruneError(
        f"the dense reference could not be trained: {reason}; lower learning_rate or set clip_norm, and "
        "begin anew with --overwrite"
    )
