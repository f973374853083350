"""Where a live search's candidates are trained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hyperprune.errors import HyperpruneError, InputError, WorkerError
from hyperprune.hypersearch.arena import StateArena
from hyperprune.hypersearch.executor import Executor, Job, Lost
from hyperprune.hypersearch.observer import Observer
from hyperprune.hypersearch.run_folder import RunFolder
from hyperprune.hypersearch.run_state import REFERENCE_KEY, Event
from hyperprune.hypersearch.signals import EachAlone, get_signal
from hyperprune.hypersearch.space import Configuration, Space
from hyperprune.hypersearch.strategy import Ahead, EveryCandidateFailed
from hyperprune.records import EpochRecord
from hyperprune.tasks.contract import Task
from hyperprune.training.candidate import BEST_WEIGHTS, Training, epoch_of_best
from hyperprune.training.segment import Advance


class LiveArena(StateArena):
    """Trains what a strategy asks for, or finds it in the journal.

    Rounds are no barriers: while segments of a round still run, idle workers begin what is certain to follow
    (`Ahead`). A candidate is certain to be kept once fewer than `keep` others are before it or still to come.
    That takes a signal in which a candidate's value does not depend on the others'.

    A candidate whose worker dies time and again is marked failed, and the others go on. Where two in a row
    are lost like that, or the dense reference, the machine is to blame rather than a candidate: the search
    stops, nobody is marked, and the same command tries again.

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
        self._running: set[str] = set()
        self._lost: tuple[str, Lost] | None = None
        self._values: dict[str, float] = {}

    def without_reference(self) -> LiveArena:
        """The same arena, in which the dense reference is trained only where it is asked for by its key."""
        return LiveArena(
            self._task,
            self._space,
            self._run,
            self._executor,
            measures_spectra=self._measures_spectra,
            with_reference=False,
            observer=self._observer,
        )

    def record(self, event: Event) -> None:
        self._run.record(event)
        self._observer.event(self.state, event)

    def advance(self, keys: Sequence[str], to_epoch: int, *, ahead: Ahead | None = None) -> list[str]:
        state = self.state
        if self._lead and state.reference.outcome == "failed" and not self._has(REFERENCE_KEY, to_epoch):
            raise _reference_failed(state.reference.reason)
        self._values.clear()
        left = {key for key in (*self._lead, *keys) if self._lacks(key, to_epoch)}
        # The longest first, so that no worker is left alone with one at the end; among equals the reference,
        # without which nothing is certain.
        for key in sorted(left, key=lambda key: (state.epochs_trained(key), key not in self._lead, key)):
            self._begin(key, to_epoch)
        while left:
            if ahead is not None:
                self._begin_certain([key for key in keys if key not in left], left, to_epoch, ahead)
            key = self._take()
            if key in left and (not self._lacks(key, to_epoch) or self._is_lost(key)):
                left.discard(key)
            elif key in left:
                self._begin(key, to_epoch)
        self._give_up_lost()
        # By epochs, not by outcome: a resumed search must not miss a candidate before the epoch it failed in.
        alive = [key for key in keys if self._has(key, to_epoch)]
        if not alive:
            reasons = "\n".join(f"  {key}: {state[key].reason}" for key in keys)
            raise EveryCandidateFailed(
                f"every candidate failed; lower learning_rate or the sparsity:\n{reasons}"
            )
        return alive

    def _lacks(self, key: str, to_epoch: int) -> bool:
        """Whether the candidate is still to be trained to an epoch.

        By the reason of a failure, not by the outcome: a finalist that failed beyond the final epoch, in an
        extension, stays a finalist.
        """
        return self.state[key].reason is None and not self._has(key, to_epoch)

    def _has(self, key: str, epoch: int) -> bool:
        return len(self.state[key].epochs) > epoch

    def _begin(self, key: str, to_epoch: int) -> None:
        """Have the candidate trained, unless it is being trained already."""
        if key not in self._running:
            self._running.add(key)
            self._executor.submit(self._job(key, to_epoch))

    def _begin_certain(self, done: Sequence[str], left: set[str], to_epoch: int, ahead: Ahead) -> None:
        """Give idle workers what is certain to follow."""
        idle = self._executor.idle
        if not idle:
            return
        for key, epoch in self._certain(done, left, to_epoch, ahead):
            if not idle:
                return
            if key not in self._running and not self._is_lost(key) and self._lacks(key, epoch):
                self._begin(key, epoch)
                idle -= 1

    def _certain(
        self, done: Sequence[str], left: set[str], to_epoch: int, ahead: Ahead
    ) -> Iterator[tuple[str, int]]:
        """Who is certain to be trained on, and to which epoch; the most urgent first."""
        trained = [key for key in done if self._has(key, to_epoch)]
        num_certain = ahead.keep - sum(key not in self._lead for key in left)
        if num_certain > 0 and not left & set(self._lead) and isinstance(get_signal(ahead.signal), EachAlone):
            fresh = [key for key in trained if key not in self._values]
            self._values |= self.signals(fresh, ahead.signal, to_epoch)
            trained.sort(key=lambda key: (self._values[key], key))
            yield from ((key, ahead.epochs[0]) for key in trained[:num_certain])
        yield from ((key, epoch) for epoch in ahead.epochs for key in self._lead)

    def _take(self) -> str:
        """Wait for a segment to end, and remember it; the key."""
        job, outcome = self._executor.wait(self._on_epoch)
        self._running.discard(job.key)
        if not isinstance(outcome, Lost):
            self._remember(job, outcome)
            self._give_up_lost()
        elif self._lost is not None or job.key == REFERENCE_KEY:
            raise _worker_died(job.key, outcome)
        else:
            self._lost = job.key, outcome
        return job.key

    def _is_lost(self, key: str) -> bool:
        return self._lost is not None and self._lost[0] == key

    def _give_up_lost(self) -> None:
        """Mark the candidate failed whose worker died every time, now that others are known to be well."""
        if self._lost is None:
            return
        (key, lost), candidate = self._lost, self.state[self._lost[0]]
        others = (REFERENCE_KEY, *self.state.candidates)
        if not any(self.state.epochs_trained(other) for other in others if other != key):
            raise _worker_died(key, lost)
        self._lost = None
        self.record(
            {
                "event": "segment",
                "key": key,
                "epochs": [],
                "best_epoch": candidate.best_epoch,
                "checkpoint": candidate.checkpoint,
                "failure": lost.text,
            }
        )

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
        if job.key in self._lead and result.failure:
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
            model=configuration.model,
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
        """Train again those whose best weights are damaged or another epoch's; the result is what it was."""
        damaged = []
        for key in keys:
            best = self.state[key].best_epoch
            try:
                saved = epoch_of_best(self._run.candidate_folder(key))
                problem = f"its best weights must be of epoch {best}, got those of epoch {saved}"
            except InputError as error:
                saved, problem = None, str(error)
            if saved != best:
                self._observer.note(f"{key} is trained again: {problem}")
                damaged.append(self._job(key, self.state.epochs_trained(key)))
        for job in damaged:
            self._executor.submit(job)
        for _ in damaged:
            job, outcome = self._executor.wait(self._on_epoch)
            self._run.in_training.pop(job.key, None)
            if isinstance(outcome, Lost):
                raise _worker_died(job.key, outcome)

    def _on_epoch(self, key: str, record: EpochRecord) -> None:
        self._run.note_epoch(key, record.epoch)
        self._observer.epoch(self.state, key, record)


def _worker_died(key: str, lost: Lost) -> WorkerError:
    return WorkerError(
        f"{key} cannot be trained: {lost.text}; too little memory is the usual cause: use fewer --workers. "
        "The same command goes on"
    )


def _reference_failed(reason: str | None) -> HyperpruneError:
    return HyperpruneError(
        f"the dense reference could not be trained: {reason}; lower learning_rate or set clip_norm, and "
        "begin anew with --overwrite"
    )
