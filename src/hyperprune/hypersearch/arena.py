"""Where a live search's candidates are trained, and remembered.

What the journal already tells is answered from it; the rest is computed and told to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from hyperprune.errors import HyperpruneError
from hyperprune.hypersearch.executor import Executor, Job
from hyperprune.hypersearch.proposers import get_proposer
from hyperprune.hypersearch.run_folder import RunFolder
from hyperprune.hypersearch.run_state import REFERENCE_KEY, Event, RunState
from hyperprune.hypersearch.signals import get_signal
from hyperprune.hypersearch.space import DENSE, Configuration, Space
from hyperprune.records import EpochRecord
from hyperprune.rng import derive_seed
from hyperprune.tasks.contract import Task
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


class LiveArena:
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
        self._task, self._space, self._run = task, space, run
        self._lead = (REFERENCE_KEY,) if with_reference else ()
        self._executor, self._measures_spectra, self._observer = executor, measures_spectra, observer

    def record(self, event: Event) -> None:
        self._run.record(event)
        self._observer.event(self._run.state, event)

    def admit(self, proposer: str, count: int, *, round_number: int) -> list[str]:
        candidates = self._run.state.candidates
        known = [key for key, candidate in candidates.items() if candidate.born_in == round_number]
        if known:
            return known
        configurations = get_proposer(proposer)(
            self._space,
            count,
            self._history(round_number),
            [Configuration.from_json(candidate.configuration) for candidate in candidates.values()],
            derive_seed(self._seed, "proposer", round_number),
        )
        return self.enter(configurations, round_number=round_number)

    def enter(self, configurations: Sequence[Configuration], *, round_number: int = 0) -> list[str]:
        """Make candidates of configurations; their keys."""
        first = len(self._run.state.candidates) + 1
        entries = [
            {"key": f"c{number:02d}", "label": configuration.label, "configuration": configuration.to_json()}
            for number, configuration in enumerate(configurations, start=first)
        ]
        self.record({"event": "candidates", "round": round_number, "entries": entries})
        return [entry["key"] for entry in entries]

    def _history(self, round_number: int) -> list[tuple[Configuration, float]]:
        """The round's survivors and their signals; none before the first round."""
        if round_number == 0:
            return []
        survivors = self._run.state.rounds[round_number - 1]
        return [
            (
                Configuration.from_json(self._run.state.candidates[key].configuration),
                survivors.signals[key],
            )
            for key in survivors.kept
        ]

    def advance(self, keys: Sequence[str], to_epoch: int) -> list[str]:
        state = self._run.state
        jobs = [
            self._job(key, to_epoch)
            for key in (*self._lead, *keys)
            if state[key].outcome != "failed"
            and (not state[key].epochs or state.epochs_trained(key) < to_epoch)
        ]
        for job, result in self._executor.run(jobs, self._on_epoch):
            self._remember(job, result)
        alive = [key for key in keys if state[key].outcome != "failed"]
        if not alive:
            reasons = "\n".join(f"  {key}: {state[key].reason}" for key in keys)
            raise HyperpruneError(f"every candidate failed; lower learning_rate or the sparsity:\n{reasons}")
        return alive

    def _remember(self, job: Job, result: Advance) -> None:
        for note in result.notes:
            self._observer.note(f"{job.key}: {note}")
        known = len(self._run.state[job.key].epochs)
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
            raise HyperpruneError(
                f"the dense reference could not be trained: {result.failure}; lower learning_rate or "
                "set clip_norm"
            )

    def _job(self, key: str, to_epoch: int) -> Job:
        configuration = Configuration.from_json(self._run.state[key].configuration)
        header = self._run.state.header
        training = Training(
            method=configuration.build(),
            sparsity=0.0 if configuration == DENSE else header["sparsity"],
            total_epochs=header["strategy"]["final_epochs"],
            seed=self._seed,
            name=configuration.text,
            device=header["identity"]["device"],
            threads=header["identity"]["threads"],
            measure_spectrum=self._measures_spectra,
        )
        return Job(
            key=key,
            training=training,
            folder=self._run.candidate_folder(key),
            to_epoch=to_epoch,
            best_weights_extra={"task_source": self._task.source},
        )

    def _on_epoch(self, key: str, record: EpochRecord) -> None:
        self._observer.epoch(self._run.state, key, record)

    def signals(self, keys: Sequence[str], signal: str, epoch: int) -> dict[str, float]:
        state = self._run.state
        measure = get_signal(signal)
        reference = state.reference.epochs[: epoch + 1]
        return {key: measure(reference, state[key].epochs[: epoch + 1]) for key in keys}

    def eliminate(
        self, round_number: int, epoch: int, signals: Mapping[str, float], kept: Sequence[str]
    ) -> None:
        if len(self._run.state.rounds) >= round_number:
            return
        self.record(
            {
                "event": "round",
                "number": round_number,
                "epoch": epoch,
                "signals": dict(signals),
                "kept": list(kept),
            }
        )

    @property
    def _seed(self) -> int:
        return self._run.state.header["seed"]
