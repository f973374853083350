"""What ranks candidates early in training: small numbers are good.

A signal looks at a whole round: the records of the dense reference and of every candidate in it, epochs 0
to the round's. It is a function; one of your own is added by its name, before the strategy that names it is
made (a task file is a good place, as examples/own_parts.py shows):

    from hyperprune.hypersearch.signals import SIGNALS

    def gap(reference, candidates):
        return {
            key: records[-1].valid_loss - reference[-1].valid_loss for key, records in candidates.items()
        }

    gap.needs_spectra = False  # else it is taken to need them
    SIGNALS["gap"] = gap

A run's identity holds the name alone: a function changed under its name takes another run folder.

Where the network itself is searched, signals see quantiles of the spectra (`measure`).

References: the LSH paper, §3 (spectrum, loss); its published code compares raw spectra (spectrum_raw).
Ru et al. 2021, Speedy performance estimation for neural architecture search (training_losses is its TSE,
last_training_loss its TSE-E with E = 1). mean_exponent is ours (docs/evidence.md); the mean of all exponents
is the mean log|det J| per dimension of the state.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Real

import numpy as np

from hyperprune.errors import InputError, check_whole, unknown_name
from hyperprune.hypersearch.ranks import mean_ranks
from hyperprune.records import EpochRecord
from hyperprune.spectra import compared_vector, pca_trajectories, resized, spectrum_distance

Records = Sequence[EpochRecord]
Signal = Callable[[Records, Mapping[str, Records]], Mapping[str, float]]


class Epochs(tuple[EpochRecord, ...]):
    """A recorded candidate's epochs 0 to some epoch, which keep the signals that were computed from them.

    Replays ask for the same ones a thousand times. One object belongs to one reference.
    """

    kept: dict[object, float]

    def __init__(self, _: Records) -> None:
        self.kept = {}


def _check_dims(dims: int) -> None:
    check_whole("spectrum_dims", dims, 1, example="2 is the paper's")


class EachAlone:
    """A signal in which a candidate's value does not depend on the others of its round.

    Subclasses give `value`; equal signals give equal values.
    """

    needs_spectra: bool = True

    def __call__(self, reference: Records, candidates: Mapping[str, Records]) -> dict[str, float]:
        return {key: self._value(reference, records) for key, records in candidates.items()}

    def value(self, reference: Records, records: Records) -> float:
        """The candidate's number."""
        raise NotImplementedError

    def _value(self, reference: Records, records: Records) -> float:
        if not isinstance(records, Epochs):
            return self.value(reference, records)
        if self not in records.kept:
            records.kept[self] = self.value(reference, records)
        return records.kept[self]


@dataclass(frozen=True, kw_only=True)
class SpectrumDistance(EachAlone):
    """Distance from the reference at the last epoch in the space of its and the candidate's own spectra.

    Attributes:
        dims: dimensions of that space (PCA); 2 is the paper's.
    """

    dims: int = 2

    def __post_init__(self) -> None:
        _check_dims(self.dims)

    def value(self, reference: Records, records: Records) -> float:
        return spectrum_distance(spectra_of(reference), spectra_of(records), dims=self.dims)


@dataclass(frozen=True, kw_only=True)
class JointSpectrumDistance:
    """The same in one space for all of the round.

    Attributes:
        dims: dimensions of that space (PCA).
    """

    dims: int = 2
    needs_spectra = True

    def __post_init__(self) -> None:
        _check_dims(self.dims)

    def __call__(self, reference: Records, candidates: Mapping[str, Records]) -> dict[str, float]:
        spectra = [spectra_of(records) for records in (reference, *candidates.values())]
        # No space of theirs has more axes than there are exponents.
        dense, *others = pca_trajectories(spectra, dims=min(self.dims, len(spectra[0][0])))
        return {
            key: float(np.linalg.norm(path[-1] - dense[-1]))
            for key, path in zip(candidates, others, strict=True)
        }


@dataclass(frozen=True, kw_only=True)
class RawSpectrumDistance(EachAlone):
    """L2 distance of the last epoch's spectra, without a PCA."""

    def value(self, reference: Records, records: Records) -> float:
        return spectrum_distance(spectra_of(reference[-1:]), spectra_of(records[-1:]), embedding="none")


@dataclass(frozen=True, kw_only=True)
class MeanExponent(EachAlone):
    """Minus the last epoch's mean exponent: how fast the state contracts; the reference plays no part.

    All layers' exponents count alike, those below `spectra.FLOOR` as the floor.
    """

    def value(self, reference: Records, records: Records) -> float:
        return -float(compared_vector(spectra_of(records[-1:])[0]).mean())


@dataclass(frozen=True, kw_only=True)
class Loss(EachAlone):
    """The last epoch's validation loss; the reference plays no part."""

    needs_spectra = False

    def value(self, reference: Records, records: Records) -> float:
        return records[-1].valid_loss


@dataclass(frozen=True, kw_only=True)
class TrainingLosses(EachAlone):
    """The sum of the training losses of all epochs so far; the reference plays no part."""

    needs_spectra = False

    def value(self, reference: Records, records: Records) -> float:
        losses = [record.train_loss for record in records if record.train_loss is not None]
        return sum(losses) if losses else math.nan


@dataclass(frozen=True, kw_only=True)
class LastTrainingLoss(EachAlone):
    """The last epoch's training loss; the reference plays no part."""

    needs_spectra = False

    def value(self, reference: Records, records: Records) -> float:
        loss = records[-1].train_loss
        return math.nan if loss is None else loss


@dataclass(frozen=True)
class RankAverage:
    """A candidate's mean rank (1 is best, ties share their mean) within the round over several signals.

    Attributes:
        signals: those averaged.
    """

    signals: tuple[Signal, ...]

    @property
    def needs_spectra(self) -> bool:
        return any(needs_spectra(signal) for signal in self.signals)

    def __call__(self, reference: Records, candidates: Mapping[str, Records]) -> dict[str, float]:
        values = [signal(reference, candidates) for signal in self.signals]
        rankings = [_ranks(own) for own in values]
        return {
            key: math.nan  # has no rank
            if any(math.isnan(own[key]) for own in values)
            else sum(ranks[key] for ranks in rankings) / len(rankings)
            for key in candidates
        }

    def with_dims(self, dims: int) -> RankAverage:
        """The same with another number of dimensions in every part that has one."""
        return RankAverage(tuple(_with_dims(signal, dims) or signal for signal in self.signals))


SIGNALS: dict[str, Signal] = {
    "spectrum": SpectrumDistance(),
    "spectrum_joint": JointSpectrumDistance(),
    "spectrum_raw": RawSpectrumDistance(),
    "mean_exponent": MeanExponent(),
    "loss": Loss(),
    "training_losses": TrainingLosses(),
    "last_training_loss": LastTrainingLoss(),
    "blend": RankAverage((SpectrumDistance(), Loss())),
}


def get_signal(name: str, *, dims: int | None = None) -> Signal:
    """The signal of that name.

    Args:
        name: a key of `SIGNALS`.
        dims: of the PCA space; None is the signal's own.

    Raises:
        InputError: no such signal, or one without a PCA space is given dims.
    """
    if name not in SIGNALS:
        raise unknown_name("signal", name, SIGNALS)
    signal = SIGNALS[name]
    if dims is None:
        return signal
    changed = _with_dims(signal, dims)
    if changed is None:
        raise InputError(
            f"spectrum_dims means nothing to the signal {name!r}, which has no PCA space; leave it out, or "
            "use --signal spectrum"
        )
    return changed


def needs_spectra(signal: Signal) -> bool:
    """Whether a signal looks at spectra; one that does not say so is taken to."""
    return getattr(signal, "needs_spectra", True)


def measure(
    name: str,
    reference: Records,
    candidates: Mapping[str, Records],
    *,
    dims: int | None = None,
    by_quantiles: bool = False,
) -> dict[str, float]:
    """The signal of every candidate of a round.

    Args:
        name: of the signal.
        reference: the dense model's epochs 0 to the round's.
        candidates: the candidates' epochs, the same ones, by key.
        dims: of the signal's PCA space; None is its own.
        by_quantiles: show all spectra as quantiles, as many as the reference has exponents
            (`spectra.resized`), and not layer by layer; for all of a search whose `networks_vary`.

    Raises:
        InputError: the signal gave no number, or NaN, for a candidate, or needs spectra and there are none.
    """
    signal = get_signal(name, dims=dims)
    if by_quantiles and needs_spectra(signal):
        size = len(spectra_of(reference)[-1])
        reference = _resized(reference, size)
        candidates = {key: _resized(records, size) for key, records in candidates.items()}
    values = signal(reference, candidates)
    for key in candidates:
        if not isinstance(values.get(key), Real) or math.isnan(values[key]):
            raise InputError(
                f"a signal must give every candidate a number, {name!r} gave {values.get(key)} for {key}; "
                "mend its function, or use --signal loss"
            )
    return {key: float(values[key]) for key in candidates}


def spectra_of(records: Records) -> list[np.ndarray]:
    """The spectrum of every epoch.

    Raises:
        InputError: one was not measured.
    """
    spectra = [record.spectrum for record in records if record.spectrum is not None]
    if len(spectra) != len(records):
        raise InputError(
            "a spectrum signal needs a spectrum at every epoch, and this run was trained without; "
            "use --signal loss"
        )
    return spectra


def _resized(records: Records, size: int) -> Records:
    return [
        replace(record, spectrum=resized(spectrum, size))
        for record, spectrum in zip(records, spectra_of(records), strict=True)
    ]


def _with_dims(signal: Signal, dims: int) -> Signal | None:
    """The signal with another number of dimensions; None if it has none."""
    if isinstance(signal, SpectrumDistance | JointSpectrumDistance):
        return replace(signal, dims=dims)
    if isinstance(signal, RankAverage) and any(_with_dims(part, dims) for part in signal.signals):
        return signal.with_dims(dims)
    return None


def _ranks(values: Mapping[str, float]) -> dict[str, float]:
    return dict(zip(values, mean_ranks(np.array(list(values.values()))).tolist(), strict=True))
