"""What ranks candidates early in training: small numbers are good.

A signal looks at a whole round: the records of the dense reference and of every candidate in it, epochs 0
to the round's. A function of one's own is added by its name, before the strategy that names it is made (a
task file is a good place):

    from hyperprune.hypersearch.signals import SIGNALS

    SIGNALS["final_gap"] = lambda reference, candidates: {
        key: records[-1].valid_loss - reference[-1].valid_loss for key, records in candidates.items()
    }

A run's identity holds the name alone: a function changed under its name takes another run folder.

References: the LSH paper, §3 (spectrum, loss); its published code compares raw spectra (spectrum_raw).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from hyperprune.errors import InputError, unknown_name
from hyperprune.hypersearch.trust import mean_ranks
from hyperprune.records import EpochRecord
from hyperprune.spectra import pca_trajectories, spectrum_distance

Records = Sequence[EpochRecord]
Signal = Callable[[Records, Mapping[str, Records]], Mapping[str, float]]


class Epochs(tuple[EpochRecord, ...]):
    """A recorded candidate's epochs 0 to some epoch, which keep the signals that were computed from them.

    Replays ask for the same ones a thousand times. One object belongs to one reference.
    """

    kept: dict[str, float]

    def __init__(self, _: Records) -> None:
        self.kept = {}


class EachAlone:
    """A signal in which a candidate's value does not depend on the others of its round."""

    def __init__(self, name: str, of: Callable[[Records, Records], float]) -> None:
        self._name, self._of = name, of

    def __call__(self, reference: Records, candidates: Mapping[str, Records]) -> dict[str, float]:
        return {key: self._value(reference, records) for key, records in candidates.items()}

    def _value(self, reference: Records, records: Records) -> float:
        if not isinstance(records, Epochs):
            return self._of(reference, records)
        if self._name not in records.kept:
            records.kept[self._name] = self._of(reference, records)
        return records.kept[self._name]


def rank_average(*signals: Signal) -> Signal:
    """A candidate's mean rank (1 is best, ties share their mean) within the round over several signals."""

    def blended(reference: Records, candidates: Mapping[str, Records]) -> dict[str, float]:
        rankings = [_ranks(signal(reference, candidates)) for signal in signals]
        return {key: sum(ranks[key] for ranks in rankings) / len(rankings) for key in candidates}

    return blended


def _joint(reference: Records, candidates: Mapping[str, Records]) -> dict[str, float]:
    """Distances from the reference in one PCA space of everybody's spectra."""
    dense, *others = pca_trajectories([spectra_of(records) for records in (reference, *candidates.values())])
    return {
        key: float(np.linalg.norm(path[-1] - dense[-1])) for key, path in zip(candidates, others, strict=True)
    }


spectrum = EachAlone("spectrum", lambda ref, own: spectrum_distance(spectra_of(ref), spectra_of(own)))
spectrum_raw = EachAlone(
    "spectrum_raw",
    lambda ref, own: spectrum_distance(spectra_of(ref[-1:]), spectra_of(own[-1:]), embedding="none"),
)
loss = EachAlone("loss", lambda _, own: own[-1].valid_loss)

SIGNALS: dict[str, Signal] = {
    "spectrum": spectrum,  # distance at the last epoch in the plane of the reference's and its own spectra
    "spectrum_joint": _joint,  # the same in one plane for the whole round
    "spectrum_raw": spectrum_raw,  # L2 distance of the last epoch's spectra, no PCA
    "loss": loss,  # the last validation loss; the reference plays no part
    "blend": rank_average(spectrum, loss),
}


def get_signal(name: str) -> Signal:
    """The signal of that name; an unknown one is an `InputError`."""
    try:
        return SIGNALS[name]
    except KeyError:
        raise unknown_name("signal", name, SIGNALS) from None


def measure(name: str, reference: Records, candidates: Mapping[str, Records]) -> dict[str, float]:
    """The signal of every candidate of a round.

    Args:
        name: of the signal.
        reference: the dense model's epochs 0 to the round's.
        candidates: the candidates' epochs, the same ones, by key.

    Raises:
        InputError: the signal gave no number, or NaN, for a candidate, or needs spectra and there are none.
    """
    values = get_signal(name)(reference, candidates)
    for key in candidates:
        if key not in values or math.isnan(values[key]):
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


def _ranks(values: Mapping[str, float]) -> dict[str, float]:
    return dict(zip(values, mean_ranks(np.array(list(values.values()))).tolist(), strict=True))
