"""Every early signal that is put to the test: those of the search, their parts, and their cheap rivals.

All are signals of the search (`hypersearch.signals`), so that the same function is correlated with the final
metric and replayed. Small numbers are meant to be good. Where a measurement is compared with the dense
model's, the distance counts; where it stands alone, the sign is given in its label.

References: χ: Zhang et al., arXiv 1912.00120.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from hyperprune.hypersearch import signals as search_signals
from hyperprune.hypersearch.signals import EachAlone, Records, Signal
from hyperprune.records import EpochRecord
from hyperprune.rng import derive_seed
from hyperprune.spectra import compared_vector, pca_trajectories, spectrum_distance

Part = Callable[[EpochRecord], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A signal under test.

    Attributes:
        label: for tables and pictures.
        family: "spectrum", "loss", "rival" or "none".
        signal: the function; NaN where it was not measured.
    """

    label: str
    family: str
    signal: Signal


def _measured(record: EpochRecord, name: str) -> np.ndarray:
    return np.asarray(record.probes.get(name, np.nan), dtype=np.float64)


def _hidden(record: EpochRecord) -> np.ndarray:
    return np.array([np.nan]) if record.spectrum is None else compared_vector(record.spectrum)


def _full(record: EpochRecord) -> np.ndarray:
    return _vector(_measured(record, "spectrum_full"))


def _raw_weights(record: EpochRecord) -> np.ndarray:
    """The spectrum of the raw weights, which is `spectrum` until the optimizer averages."""
    return _vector(_measured(record, "spectrum_raw")) if record.averaging else _hidden(record)


def _vector(values: np.ndarray) -> np.ndarray:
    return np.array([np.nan]) if np.isnan(values).any() else compared_vector(values)


def _pairwise(part: Part) -> Callable[[Records, Records], float]:
    def distance(reference: Records, own: Records) -> float:
        dense, candidate = [part(record) for record in reference], [part(record) for record in own]
        if any(np.isnan(vector).any() for vector in (*dense, *candidate)):
            return math.nan
        return spectrum_distance(dense, candidate)

    return distance


def _difference(part: Part) -> Callable[[Records, Records], float]:
    def distance(reference: Records, own: Records) -> float:
        return float(np.linalg.norm(part(reference[-1]) - part(own[-1])))

    return distance


def _joint(part: Part) -> Signal:
    def distances(reference: Records, candidates: Mapping[str, Records]) -> dict[str, float]:
        paths = [[part(record) for record in records] for records in (reference, *candidates.values())]
        if any(np.isnan(vector).any() for path in paths for vector in path):
            return dict.fromkeys(candidates, math.nan)
        dense, *others = pca_trajectories(paths)
        return {
            key: float(np.linalg.norm(path[-1] - dense[-1]))
            for key, path in zip(candidates, others, strict=True)
        }

    return distances


def _to_last(part: Part, last: str) -> Callable[[Records, Records], float]:
    return lambda reference, own: float(
        np.linalg.norm(_vector(_measured(reference[-1], last)) - part(own[-1]))
    )


def _largest(part: Part) -> Part:
    return lambda record: part(record).max(keepdims=True)


def _mean(part: Part) -> Part:
    return lambda record: part(record).mean(keepdims=True)


def _probe(name: str) -> Part:
    return lambda record: np.atleast_1d(_measured(record, name))


def _log(name: str) -> Part:
    return lambda record: np.log(np.maximum(np.atleast_1d(_measured(record, name)), 1e-30))


def _update_change(_: Records, own: Records) -> float:
    after, before = _vector(_measured(own[-1], "spectrum_updated_raw")), _raw_weights(own[-1])
    return float(np.linalg.norm(after - before))


def _after_update(reference: Records, own: Records) -> float:
    def part(record: EpochRecord) -> np.ndarray:
        return _vector(_measured(record, "spectrum_updated_raw"))

    return float(np.linalg.norm(part(reference[-1]) - part(own[-1])))


def _best_loss(_: Records, own: Records) -> float:
    """What judges in the end: the trained epochs' best."""
    return min((record.valid_loss for record in own[1:] if record.at_sparsity), default=math.nan)


def _turnover(_: Records, own: Records) -> float:
    """Of the updates before this epoch's measurements."""
    return float(sum(_measured(record, "turnover") for record in own[:-1]))


def _lost(_: Records, own: Records) -> float:
    full = _measured(own[-1], "spectrum_full")
    return math.nan if np.isnan(full).any() else float(np.isneginf(full).sum())


def _alone(name: str, *, sign: float = 1.0) -> Callable[[Records, Records], float]:
    return lambda _, own: sign * float(_measured(own[-1], name).sum())


def _none(reference: Records, candidates: Mapping[str, Records]) -> dict[str, float]:
    """A fixed pseudo-random number per key: which candidate has which key is chance."""
    return {key: derive_seed(0, "no signal", key) / 2**63 for key in candidates}


@dataclass(frozen=True)
class _Each(EachAlone):
    """What a function of the reference's and the candidate's records says."""

    of: Callable[[Records, Records], float]

    def value(self, reference: Records, records: Records) -> float:
        return self.of(reference, records)


def _each(name: str, label: str, family: str, of: Callable[[Records, Records], float]) -> tuple[str, Entry]:
    return name, Entry(label=label, family=family, signal=_Each(of))


def _own(name: str, label: str, family: str) -> tuple[str, Entry]:
    return name, Entry(label=label, family=family, signal=search_signals.SIGNALS[name])


_spectra = [
    _own("spectrum", "hidden spectrum, pairwise PCA (the paper's)", "spectrum"),
    _own("spectrum_joint", "hidden spectrum, joint PCA", "spectrum"),
    _own("spectrum_raw", "hidden spectrum, L2", "spectrum"),
    _each(
        "spectrum_largest", "hidden spectrum, largest exponent", "spectrum", _difference(_largest(_hidden))
    ),
    _each("spectrum_mean", "hidden spectrum, mean exponent", "spectrum", _difference(_mean(_hidden))),
    _each("full", "full-state spectrum, pairwise PCA", "spectrum", _pairwise(_full)),
    ("full_joint", Entry(label="full-state spectrum, joint PCA", family="spectrum", signal=_joint(_full))),
    _each("full_raw", "full-state spectrum, L2", "spectrum", _difference(_full)),
    _each("full_largest", "full-state spectrum, largest exponent", "spectrum", _difference(_largest(_full))),
    _each("full_mean", "full-state spectrum, mean exponent", "spectrum", _difference(_mean(_full))),
    _each(
        "last_raw",
        "hidden spectrum, L2 to the dense model's end",
        "spectrum",
        _to_last(_hidden, "last_spectrum"),
    ),
    _each(
        "last_full_raw",
        "full-state spectrum, L2 to the dense model's end",
        "spectrum",
        _to_last(_full, "last_spectrum_full"),
    ),
    _each("weights_raw", "hidden spectrum, L2, raw weights of both", "spectrum", _difference(_raw_weights)),
    _each("after_update", "hidden spectrum, L2, after the update", "spectrum", _after_update),
    _each("update_change", "hidden spectrum, change over the update", "spectrum", _update_change),
    _own("mean_exponent", "minus own mean exponent (no dense model)", "spectrum"),
    _each("lost", "directions lost, full state (no dense model)", "spectrum", _lost),
]
_losses = [
    _own("loss", "validation loss", "loss"),
    _each("best_loss", "validation loss, best so far", "loss", _best_loss),
    _own("training_losses", "training losses so far, summed", "loss"),
    _own("last_training_loss", "training loss of the last epoch", "loss"),
    _own("blend", "blend of spectrum and loss", "blend"),
]
_rivals = [
    _each("gradient_norm", "gradient norm", "rival", _alone("gradient_norm")),
    _each("gradient_distance", "gradient norm, ratio to dense", "rival", _difference(_log("gradient_norm"))),
    _each("frobenius", "Frobenius norms, distance", "rival", _difference(_probe("frobenius"))),
    _each(
        "frobenius_alone", "minus Frobenius norms (no dense model)", "rival", _alone("frobenius", sign=-1.0)
    ),
    _each(
        "radius_alone", "minus spectral radii (no dense model)", "rival", _alone("spectral_radius", sign=-1.0)
    ),
    _each("radius", "spectral radii, distance", "rival", _difference(_probe("spectral_radius"))),
    _each(
        "weights",
        "recurrent weights, distance",
        "rival",
        lambda _, own: float(np.linalg.norm(_measured(own[-1], "weight_distance"))),
    ),
    _each("live", "minus live recurrent weights", "rival", _alone("live_gates", sign=-1.0)),
    _each(
        "live_gates",
        "live weights per gate, unevenness",
        "rival",
        lambda _, own: float(_measured(own[-1], "live_gates").std()),
    ),
    _each("turnover", "mask turnover so far", "rival", _turnover),
    _each(
        "death_rate",
        "death rate (known before training)",
        "rival",
        lambda _, own: float(_measured(own[0], "death_rate").sum()),
    ),
    _each("chi", "χ, ratio to dense", "rival", _difference(_log("chi"))),
    _each("chi_alone", "minus χ (no dense model)", "rival", _alone("chi", sign=-1.0)),
]
ENTRIES: dict[str, Entry] = dict(
    [*_spectra, *_losses, *_rivals, ("none", Entry(label="none (random)", family="none", signal=_none))]
)


@contextmanager
def known_to_the_search() -> Iterator[None]:
    """Within, strategies may name every signal under test."""
    added = {name: entry.signal for name, entry in ENTRIES.items() if name not in search_signals.SIGNALS}
    search_signals.SIGNALS |= added
    try:
        yield
    finally:
        for name in added:
            del search_signals.SIGNALS[name]


def values_of(entry: Entry, reference: Records, candidates: list[Records], epoch: int) -> np.ndarray:
    """(R,) the signal of each candidate at an epoch; NaN where it cannot be said."""
    keyed = {str(index): records[: epoch + 1] for index, records in enumerate(candidates)}
    found = entry.signal(reference[: epoch + 1], keyed)
    return np.array([found[key] for key in keyed])
