"""What ranks candidates early in training: small numbers are good.

A signal looks at the records of the dense reference and of a candidate up to the same epoch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from hyperprune.errors import InputError, unknown_name
from hyperprune.records import EpochRecord
from hyperprune.spectra import spectrum_distance

Signal = Callable[[Sequence[EpochRecord], Sequence[EpochRecord]], float]


def spectrum(reference: Sequence[EpochRecord], candidate: Sequence[EpochRecord]) -> float:
    """Distance of the Lyapunov spectra in the 2-dimensional PCA space of both over their epochs (LSH, §3)."""
    return spectrum_distance(_spectra(reference), _spectra(candidate))


def loss(reference: Sequence[EpochRecord], candidate: Sequence[EpochRecord]) -> float:
    """The candidate's validation loss at the last epoch; the reference plays no part."""
    return candidate[-1].valid_loss


SIGNALS: dict[str, Signal] = {"spectrum": spectrum, "loss": loss}


def get_signal(name: str) -> Signal:
    """The signal of that name; an unknown one is an `InputError`."""
    try:
        return SIGNALS[name]
    except KeyError:
        raise unknown_name("signal", name, SIGNALS) from None


def _spectra(records: Sequence[EpochRecord]) -> list[np.ndarray]:
    spectra = [record.spectrum for record in records if record.spectrum is not None]
    if len(spectra) != len(records):
        raise InputError(
            "the spectrum signal needs a spectrum at every epoch, and this run was trained without"
        )
    return spectra
