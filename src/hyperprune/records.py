"""What a search records: plain frozen data, free of torch, from which every table and picture is made.

Axis letters: S exponents of a spectrum.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

Outcome = Literal["running", "eliminated", "finalist", "failed"]


@dataclass(frozen=True, kw_only=True)
class EpochRecord:
    """One epoch of one candidate, as evaluation saw it (with averaged weights where the optimizer averages).

    Attributes:
        epoch: 0 is before training.
        train_loss: mean loss per item over the epoch; None at epoch 0.
        valid_loss: mean validation loss per item, nats for a language model.
        metric: the task's metric on the validation split (perplexity for a language model).
        seconds: wall time of training and evaluating the epoch, the spectrum apart.
        spectrum: (S,) exponents in nats per step, per layer largest first, layers concatenated; None when
            it was not measured.
        spectrum_seconds: wall time of measuring the spectrum.
        density: live share of each sparse tensor, by parameter name; empty for a dense model.
        averaging: whether evaluation used averaged weights (SNT-ASGD after its trigger).
        probes: what else was measured, by name; of recorded tables only, not part of a run's journal.
    """

    epoch: int
    train_loss: float | None
    valid_loss: float
    metric: float
    seconds: float
    spectrum: np.ndarray | None = None
    spectrum_seconds: float = 0.0
    density: Mapping[str, float] = field(default_factory=dict)
    averaging: bool = False
    probes: Mapping[str, np.ndarray] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """A JSON object that `from_json` turns back into an equal record, bit for bit, but for `probes`."""
        own = {name: value for name, value in self.__dict__.items() if name != "probes"}
        return {**own, "spectrum": _encode(self.spectrum), "density": dict(self.density)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> EpochRecord:
        return cls(**{**data, "spectrum": _decode(data["spectrum"])})


@dataclass(frozen=True, kw_only=True)
class CandidateRecord:
    """One candidate of a search, or its dense reference, with all that is known of it so far.

    Attributes:
        key: "c01", "c02", … in the order of creation; "dense" for the reference.
        label: a short name for people ("er · global_magnitude · nonzeros · 0.70").
        configuration: the method's name under "method", and its settings.
        born_in: the round in which it was inserted; 0 for the initial candidates.
        eliminated_in: the round that dropped it, if one did.
        reason: why it failed, if it failed.
        epochs: the records of epochs 0, 1, …, without gaps.
        signals: the ranking signal (smaller is better) by round.
        best_epoch: the epoch with the best validation metric, which a finalist's checkpoint holds; None
            before the first epoch is trained.
        metric: the metric at `best_epoch`.
        checkpoint: path relative to the run folder of the weights at `best_epoch`; None once removed.
    """

    key: str
    label: str
    configuration: Mapping[str, Any]
    born_in: int = 0
    outcome: Outcome = "running"
    eliminated_in: int | None = None
    reason: str | None = None
    epochs: tuple[EpochRecord, ...] = ()
    signals: Mapping[int, float] = field(default_factory=dict)
    best_epoch: int | None = None
    metric: float | None = None
    checkpoint: str | None = None


@dataclass(frozen=True, kw_only=True)
class RoundRecord:
    """One elimination: who entered, what the signal said, who was kept, who was inserted after it.

    Attributes:
        number: 1 for the first elimination.
        epoch: how many epochs every entrant had been trained for.
        signals: signal by candidate key, smaller is better; failed candidates are absent.
        kept: keys, best first.
        inserted: keys of the new candidates proposed from the outcome.
    """

    number: int
    epoch: int
    signals: Mapping[str, float]
    kept: tuple[str, ...]
    inserted: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """A search, finished or not, as its journal tells it.

    Attributes:
        task: name of the task.
        sparsity: share of the prunable weights that is removed, in [0, 1).
        strategy: the strategy's name under "name", and its settings.
        metric: what the metric is called ("perplexity").
        lower_is_better: the metric's direction.
        baseline: name and value of the metric that needs no learning ("unigram perplexity"), if known.
        reference: the dense model.
        candidates: in rank order: finalists by metric, then the eliminated, those trained longest first,
            each by signal; failed ones last.
        rounds: the eliminations, in order.
        epochs_spent: epochs trained by all candidates, catching up included; the reference's not.
        epochs_full: what training every candidate ever created to the end would have cost.
        finished: whether the search came to its end.
        provenance: command, versions, machine, times, by name.
    """

    task: str
    sparsity: float
    seed: int
    strategy: Mapping[str, Any]
    metric: str
    lower_is_better: bool
    baseline: tuple[str, float] | None
    reference: CandidateRecord
    candidates: tuple[CandidateRecord, ...]
    rounds: tuple[RoundRecord, ...]
    epochs_spent: int
    epochs_full: int
    finished: bool
    provenance: Mapping[str, str]


def _encode(array: np.ndarray | None) -> dict[str, Any] | None:
    if array is None:
        return None
    data = np.ascontiguousarray(array, dtype="<f8")
    return {"shape": list(data.shape), "float64": base64.b64encode(data.tobytes()).decode()}


def _decode(data: Mapping[str, Any] | None) -> np.ndarray | None:
    if data is None:
        return None
    flat = np.frombuffer(base64.b64decode(data["float64"]), dtype="<f8")
    return flat.reshape(data["shape"])
