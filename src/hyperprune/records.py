"""What a search records: plain frozen data, free of torch, from which every table and picture is made.

Axis letters: S exponents of a spectrum.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

Outcome = Literal["running", "eliminated", "finalist", "failed"]
MODEL = "model."  # begins the names of a configuration's settings that are the task's, not the method's


@dataclass(frozen=True, kw_only=True)
class Topology:
    """Where the live weights of a pruned network are and how they have moved, as evaluation saw it.

    Attributes:
        gate_density: live share of each gate, by the name of the tensors that stack several, in their order.
        num_updates: topology updates so far.
        turnover: share of the live weights whose positions an update changed, summed over the updates so far.
        explored: share of all prunable weights that have been live at some time.
    """

    gate_density: Mapping[str, tuple[float, ...]]
    num_updates: int
    turnover: float
    explored: float

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Topology:
        gates = {name: tuple(densities) for name, densities in data["gate_density"].items()}
        return cls(**{**data, "gate_density": gates})


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
        density: live share of each prunable tensor, by parameter name.
        averaging: whether evaluation used averaged weights (SNT-ASGD after its trigger).
        topology: None for a dense model.
        at_sparsity: whether the network had reached its sparsity; a method that begins dense has not at
            first, and such an epoch is never a candidate's best.
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
    topology: Topology | None = None
    at_sparsity: bool = True
    probes: Mapping[str, np.ndarray] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """A JSON object that `from_json` turns back into an equal record, bit for bit, but for `probes`."""
        topology = None if self.topology is None else asdict(self.topology)
        changed = {"spectrum": _encode(self.spectrum), "density": dict(self.density), "topology": topology}
        own = {name: value for name, value in self.__dict__.items() if name != "probes"}
        return {**own, **changed}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> EpochRecord:
        topology = data["topology"]
        return cls(
            **{
                **data,
                "spectrum": _decode(data["spectrum"]),
                "topology": None if topology is None else Topology.from_json(topology),
            }
        )


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
        checkpoint: path relative to the run folder of the weights at `best_epoch`; None before it.
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


def networks_vary(candidates: Iterable[CandidateRecord]) -> bool:
    """Whether the network itself is searched, so that candidates may have other layers than the reference."""
    return any(name.startswith(MODEL) for candidate in candidates for name in candidate.configuration)


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
        sparsity: share of the prunable weights that is removed, in [0, 1); None where it is searched, and
            each candidate's configuration has its own.
        strategy: the strategy's name under "name", and its settings.
        metric: what the metric is called ("perplexity").
        lower_is_better: the metric's direction.
        baseline: name and value of the metric that needs no learning ("unigram perplexity"), if known.
        reference: the dense model.
        candidates: in rank order: finalists by metric, then the eliminated, those dropped at the latest epoch
            first, each by signal; failed ones last.
        rounds: the eliminations, in order.
        epochs_spent: epochs trained by all candidates, catching up included; the reference's and those of the
            audit not.
        epochs_full: what training every candidate ever created to the end would have cost.
        finished: whether the search came to its end.
        provenance: command, versions, machine, times, by name.
        sparsity_weight: w of the trade-off where the sparsity is searched; see `weighed`.
        audited: keys of eliminated candidates that were trained to the end afterwards, to judge the signal.
        epochs_audit: epochs that this took.
        schedule_epochs: the finalists' epochs before any extension, which schedules span and audited
            candidates are trained to; None where that is `strategy["final_epochs"]`.
    """

    task: str
    sparsity: float | None
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
    sparsity_weight: float = 0.0
    audited: tuple[str, ...] = ()
    epochs_audit: int = 0
    schedule_epochs: int | None = None

    @property
    def is_search(self) -> bool:
        """Whether candidates were compared; `hyperprune train` has one model and nothing beside it."""
        return self.strategy.get("name") != "train"

    @property
    def end_of_search(self) -> int:
        """The last epoch of finalists and audited, extensions apart; 0 if the strategy has none."""
        return self.schedule_epochs or self.strategy.get("final_epochs", 0)

    def sparsity_of(self, candidate: CandidateRecord) -> float:
        """The sparsity that a candidate is pruned to; the reference's is 0."""
        if candidate.configuration.get("method") == "dense":
            return 0.0
        return candidate.configuration.get("sparsity", self.sparsity)

    def score(self, candidate: CandidateRecord) -> float | None:
        """What finalists are ranked by: the metric, weighed where the sparsity is searched."""
        if candidate.metric is None:
            return None
        return weighed(
            candidate.metric,
            sparsity=self.sparsity_of(candidate) if self.sparsity is None else None,
            weight=self.sparsity_weight,
            lower_is_better=self.lower_is_better,
        )


def weighed(value: float, *, sparsity: float | None, weight: float, lower_is_better: bool = True) -> float:
    """A metric or signal under the trade-off with sparsity: worse by the factor 1 + weight · density.

    Args:
        value: multiplied by the factor, or divided where that makes it worse (a metric that should be high,
            or a negative one that should be low).
        sparsity: the candidate's own; None, where it is not searched, changes nothing.
        weight: w ≥ 0.
    """
    if sparsity is None:
        return value
    factor = 1 + weight * (1 - sparsity)
    return value * factor if (value >= 0) == lower_is_better else value / factor


def epoch_rows(run: RunRecord) -> Iterator[dict[str, Any]]:
    """One flat row per network and epoch, the dense reference's first: what a table or a frame wants.

    Values are as JSON holds them: the spectrum is a list, and None stands for what is not finite, an
    exponent of −∞ among them.
    """
    for candidate in (run.reference, *run.candidates):
        outcome = "reference" if candidate is run.reference else candidate.outcome
        for record in candidate.epochs:
            spectrum = None if record.spectrum is None else [_finite(value) for value in record.spectrum]
            yield {
                "key": candidate.key,
                "label": candidate.label,
                "outcome": outcome,
                "configuration": dict(candidate.configuration),
                "epoch": record.epoch,
                "train_loss": _finite(record.train_loss),
                "valid_loss": _finite(record.valid_loss),
                run.metric: _finite(record.metric),
                "averaging": record.averaging,
                "density": dict(record.density),
                "seconds": record.seconds,
                "spectrum_seconds": record.spectrum_seconds,
                "spectrum": spectrum,
            }


def _finite(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


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
