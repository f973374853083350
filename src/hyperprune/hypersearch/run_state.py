"""A search as its events tell it: the one way from a journal to candidates, rounds and ranks.

The running search, its resumption, `hyperprune status` and the report all apply the same events here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from hyperprune.errors import InputError
from hyperprune.records import CandidateRecord, EpochRecord, RoundRecord, RunRecord, weighed

REFERENCE_KEY = "dense"
Event = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Extension:
    """What a finished run was extended by.

    Attributes:
        final_epochs: the finalists' new total; None where candidates were added.
        candidates: how many were added; None where epochs were.
        after_round: the further candidates' rounds are numbered on from it; they themselves are born in it.
    """

    final_epochs: int | None
    candidates: int | None
    after_round: int

    @property
    def text(self) -> str:
        """For people."""
        if self.final_epochs is None:
            return f"{self.candidates} candidates"
        return f"training to epoch {self.final_epochs}"


@dataclass
class RunState:
    """All that is known of a run; changed by `apply` alone.

    Attributes:
        identity: what decides the run's results.
        header: the run's first event (task, strategy, metric, baseline, provenance).
        reference: the dense model.
        candidates: by key, in order of creation.
        rounds: the eliminations so far.
        audited: eliminated candidates that are trained to the end after the search.
        extensions: what it was extended by, in order.
        finished: whether the run came to its end, that of its last extension.
    """

    identity: Mapping[str, Any] = field(default_factory=dict)
    header: Event = field(default_factory=dict)
    reference: CandidateRecord = field(
        default_factory=lambda: CandidateRecord(
            key=REFERENCE_KEY, label="dense", configuration={"method": "dense"}
        )
    )
    candidates: dict[str, CandidateRecord] = field(default_factory=dict)
    rounds: list[RoundRecord] = field(default_factory=list)
    audited: tuple[str, ...] = ()
    extensions: list[Extension] = field(default_factory=list)
    finished: bool = False

    @classmethod
    def replay(cls, events: Iterable[Event]) -> RunState:
        state = cls()
        for event in events:
            state.apply(event)
        return state

    def apply(self, event: Event) -> None:
        """Take one event into account.

        Raises:
            InputError: the event is of a kind that this version does not know.
        """
        kinds: dict[str, Callable[[Event], None]] = {
            "run": self._run,
            "candidates": self._candidates,
            "segment": self._segment,
            "round": self._round,
            "finished": self._finished,
            "audit": self._audit,
            "extended": self._extended,
        }
        handler = kinds.get(event.get("event", ""))
        if handler is None:
            raise InputError(
                f"a run folder must be of this version, and its journal tells of {event.get('event')!r}; "
                "use the version that wrote it, or another folder"
            )
        handler(event)

    def _run(self, event: Event) -> None:
        self.identity, self.header = event["identity"], event

    def _candidates(self, event: Event) -> None:
        for entry in event["entries"]:
            self.candidates[entry["key"]] = CandidateRecord(**entry, born_in=event["round"])
        last = self.extensions[-1] if self.extensions else None
        opens = last is not None and last.candidates is not None and last.after_round == event["round"]
        if self.rounds and self.rounds[-1].number == event["round"] and not opens:
            self.rounds[-1] = replace(
                self.rounds[-1], inserted=tuple(entry["key"] for entry in event["entries"])
            )

    def _segment(self, event: Event) -> None:
        candidate = self[event["key"]]
        epochs = {record.epoch: record for record in candidate.epochs}
        epochs |= {entry["epoch"]: EpochRecord.from_json(entry) for entry in event["epochs"]}
        best = event["best_epoch"]
        self[event["key"]] = replace(
            candidate,
            epochs=tuple(epochs[epoch] for epoch in sorted(epochs)),
            best_epoch=best,
            metric=None if best is None else epochs[best].metric,
            checkpoint=event["checkpoint"],
            outcome="failed" if event["failure"] else candidate.outcome,
            reason=event["failure"],
        )

    def _round(self, event: Event) -> None:
        number, signals, kept = event["number"], event["signals"], tuple(event["kept"])
        self.rounds.append(
            RoundRecord(number=number, epoch=event["epoch"], signals=signals, kept=kept, inserted=())
        )
        for key, value in signals.items():
            candidate = self.candidates[key]
            dropped = key not in kept
            # One that failed at the round's own epoch was ranked by it, and stays failed.
            self.candidates[key] = replace(
                candidate,
                signals={**candidate.signals, number: value},
                outcome="eliminated" if dropped and candidate.reason is None else candidate.outcome,
                eliminated_in=number if dropped else None,
            )

    def _finished(self, event: Event) -> None:
        self.finished = True
        for key in event["finalists"]:
            self.candidates[key] = replace(self.candidates[key], outcome="finalist")

    def _audit(self, event: Event) -> None:
        self.audited = tuple(event["keys"])

    def _extended(self, event: Event) -> None:
        self.finished = False
        values = {name: event[name] for name in ("final_epochs", "candidates", "after_round")}
        self.extensions.append(Extension(**values))

    def __getitem__(self, key: str) -> CandidateRecord:
        return self.reference if key == REFERENCE_KEY else self.candidates[key]

    def __setitem__(self, key: str, record: CandidateRecord) -> None:
        if key == REFERENCE_KEY:
            self.reference = record
        else:
            self.candidates[key] = record

    def round(self, number: int) -> RoundRecord | None:
        """The elimination of that number; None before it took place."""
        return next((entry for entry in reversed(self.rounds) if entry.number == number), None)

    def epochs_trained(self, key: str) -> int:
        return max(0, len(self[key].epochs) - 1)

    @property
    def final_epochs(self) -> int:
        """A finalist's epochs in all, extensions included."""
        given = self.header["strategy"]["final_epochs"]
        return max([given, *(extension.final_epochs or 0 for extension in self.extensions)])

    @property
    def epochs_spent(self) -> int:
        """Epochs trained by all candidates; the dense reference's and the audit's are not among them."""
        return sum(self.epochs_trained(key) for key in self.candidates) - self.epochs_audit

    @property
    def epochs_audit(self) -> int:
        """Epochs trained by eliminated candidates after the search."""
        dropped_at = {entry.number: entry.epoch for entry in self.rounds}
        return sum(
            max(0, self.epochs_trained(key) - dropped_at[self.candidates[key].eliminated_in or 0])
            for key in self.audited
        )

    def weighed(self, value: float, candidate: CandidateRecord, *, lower_is_better: bool = True) -> float:
        """A candidate's metric or signal under the run's trade-off with sparsity, if it searches it."""
        return weighed(
            value,
            sparsity=candidate.configuration.get("sparsity"),
            weight=self.header.get("sparsity_weight") or 0.0,
            lower_is_better=lower_is_better,
        )

    def ranked(self) -> list[CandidateRecord]:
        """Finalists by metric, the running, the eliminated (late epochs first, by signal), the failed."""
        lower = self.header.get("lower_is_better", True)
        # Not by the round's number: Hyperband's later brackets drop candidates at early epochs again.
        dropped_at = {entry.number: entry.epoch for entry in self.rounds}

        def rank(candidate: CandidateRecord) -> tuple[float, ...]:
            metric = candidate.metric if candidate.metric is not None else float("inf") * (1 if lower else -1)
            metric = self.weighed(metric, candidate, lower_is_better=lower)
            last_signal = candidate.signals[max(candidate.signals)] if candidate.signals else float("inf")
            match candidate.outcome:
                case "finalist":
                    return (0, metric if lower else -metric)
                case "running":
                    return (1, -len(candidate.signals), last_signal)
                case "eliminated":
                    return (2, -dropped_at.get(candidate.eliminated_in or 0, 0), last_signal)
                case "failed":
                    return (3, -len(candidate.epochs))

        return sorted(self.candidates.values(), key=lambda candidate: (*rank(candidate), candidate.key))

    def to_record(self) -> RunRecord:
        """The run as the report reads it."""
        header = self.header
        strategy = {**header["strategy"], "final_epochs": self.final_epochs}
        if self.extensions:
            strategy["extended by"] = ", then ".join(extension.text for extension in self.extensions)
        return RunRecord(
            task=header["task"],
            sparsity=header["sparsity"],
            seed=header["seed"],
            strategy=strategy,
            metric=header["metric"],
            lower_is_better=header["lower_is_better"],
            baseline=None if header["baseline"] is None else tuple(header["baseline"]),
            reference=self.reference,
            candidates=tuple(self.ranked()),
            rounds=tuple(self.rounds),
            epochs_spent=self.epochs_spent,
            epochs_full=self.final_epochs * len(self.candidates),
            finished=self.finished,
            provenance=header["provenance"],
            sparsity_weight=header.get("sparsity_weight") or 0.0,
            audited=self.audited,
            epochs_audit=self.epochs_audit,
            schedule_epochs=header["strategy"]["final_epochs"],
        )
