"""How far apart two networks' spectra are, and the low-dimensional pictures of their training.

Reference: the LSH paper, section 3 ("LS space"): PCA of the spectra of the dense model and of a candidate
over the epochs 0…E; the distance is between the two points of epoch E. Where the paper is silent, our
definitions: the compared vector is `LyapunovSpectrum.concatenated`; exponents below `FLOOR`, `-inf` among
them, count as `FLOOR` on both sides; the PCA is exact and centred, not whitened.

Axes: E epochs, C compared exponents, D dimensions of the space, P points.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Float64

from hyperprune.errors import InputError, NumericsError, unknown_name
from hyperprune.spectra.record import LyapunovSpectrum

FLOOR = -20.0
"""Exponents below this many nats per step (as many in bits where those are the record's unit) are set to it
before spectra are compared. A direction that shrinks by e^-20 in one step is gone to single precision within
that step."""

Spectrum = LyapunovSpectrum | np.ndarray


def compared_vector(spectrum: Spectrum) -> Float64[np.ndarray, " C"]:
    """The vector that a spectrum is compared by, with `FLOOR` applied.

    Args:
        spectrum: a record, or its `concatenated` exponents, in nats, as a plain array.

    Raises:
        NumericsError: an exponent is NaN or +inf.
    """
    values_C, floor = np.asarray(spectrum), FLOOR
    if isinstance(spectrum, LyapunovSpectrum):
        values_C, floor = spectrum.concatenated, FLOOR * spectrum.scale
    if values_C.ndim != 1 or values_C.size == 0:
        raise InputError(
            f"a spectrum must be a record or a one-dimensional array of exponents, got shape "
            f"{values_C.shape}; pass `spectrum.concatenated`"
        )
    values_C = values_C.astype(np.float64)
    bad_C = np.isnan(values_C) | np.isposinf(values_C)
    if bad_C.any():
        raise NumericsError(
            f"exponents must be finite or -inf, number {int(bad_C.argmax())} is {values_C[bad_C.argmax()]}; "
            "leave this network out of the comparison"
        )
    return np.maximum(values_C, floor)


def resized(spectrum: Spectrum, size: int) -> Float64[np.ndarray, " {size}"]:
    """A spectrum as so many quantiles, largest first, so that networks of different sizes can be compared.

    All exponents are sorted, layers together, and read at evenly spaced places, between them linearly; as
    many quantiles as there are exponents are the sorted exponents themselves.

    Args:
        spectrum: as `compared_vector` takes it.
        size: at least 1.
    """
    values_C = -np.sort(-compared_vector(spectrum))
    middles_C, middles = ((np.arange(count) + 0.5) / count for count in (len(values_C), size))
    return np.interp(middles, middles_C, values_C)


def spectrum_distance(
    reference: Sequence[Spectrum], candidate: Sequence[Spectrum], *, embedding: str = "pca", dims: int = 2
) -> float:
    """Distance of a candidate from the reference at the last epoch, in the space of their spectra.

    Args:
        reference: spectra of the dense model after the epochs 0…E (0: before training).
        candidate: spectra of the candidate after the same epochs.
        embedding: "pca" for the paper's space, "none" for the plain L2 norm of the spectra's difference.
        dims: dimensions of the PCA space.

    Returns:
        In the records' unit (nats per step, bits for "lsh"), ≥ 0.

    Raises:
        InputError: lists of different length, spectra of different size, layers, convention or Jacobian,
            unknown embedding, dims < 1.
        NumericsError: an exponent is NaN or +inf.
    """
    if embedding not in ("pca", "none"):
        raise unknown_name("embedding", embedding, ("pca", "none"))
    if dims < 1:
        raise InputError(f"dims must be at least 1, got {dims}; 2 is the paper's")
    if len(reference) != len(candidate):
        raise InputError(
            f"reference and candidate must have a spectrum for the same epochs, got {len(reference)} and "
            f"{len(candidate)}; cut the longer list"
        )
    first_ED, second_ED = _trajectories([reference, candidate], dims if embedding == "pca" else None)
    return float(np.linalg.norm(first_ED[-1] - second_ED[-1]))


def pca_trajectories(
    trajectories: Sequence[Sequence[Spectrum]], *, dims: int = 2
) -> list[Float64[np.ndarray, "_ dims"]]:
    """Several networks' spectra over their epochs as paths in one joint PCA space, for pictures.

    The sign of each axis is fixed so that its largest loading is positive: the same spectra give the same
    picture everywhere.

    Args:
        trajectories: per network, its spectra in the order of the epochs; lengths may differ.
        dims: dimensions of the space; axes beyond the rank of the data are zero.

    Returns:
        Per network, one point per epoch.
    """
    if dims < 1:
        raise InputError(f"dims must be at least 1, got {dims}; 2 makes a picture")
    paths = _trajectories(trajectories, dims)
    return [np.pad(points_ED, ((0, 0), (0, dims - points_ED.shape[1]))) for points_ED in paths]


def _trajectories(
    trajectories: Sequence[Sequence[Spectrum]], dims: int | None
) -> list[Float64[np.ndarray, "_ _"]]:
    if len(trajectories) == 0 or any(len(trajectory) == 0 for trajectory in trajectories):
        raise InputError("a trajectory must hold at least one spectrum, got none; measure epoch 0 first")
    _refuse_different_kinds(spectrum for trajectory in trajectories for spectrum in trajectory)
    vectors = [[compared_vector(spectrum) for spectrum in trajectory] for trajectory in trajectories]
    sizes = {len(vector_C) for trajectory in vectors for vector_C in trajectory}
    if len(sizes) > 1:
        raise InputError(
            f"compared spectra must have the same number of exponents, got {sorted(sizes)}; measure all with "
            "the same `jacobian` and `num_exponents`"
        )
    points_PC = np.concatenate([np.stack(trajectory) for trajectory in vectors])
    if dims is not None:
        points_PC = _pca(points_PC, dims)
    ends = np.cumsum([len(trajectory) for trajectory in vectors])[:-1]
    return np.split(points_PC, ends)


def _refuse_different_kinds(spectra: Iterable[Spectrum]) -> None:
    """Records must be of one convention (and unit), one Jacobian and equal layers; arrays do not tell."""
    records = [spectrum for spectrum in spectra if isinstance(spectrum, LyapunovSpectrum)]
    kinds = sorted({(record.convention, record.jacobian) for record in records})
    if len(kinds) > 1:
        found = " and ".join(f"{convention}/{jacobian}" for convention, jacobian in kinds)
        raise InputError(
            f"compared spectra must be of one convention and one Jacobian, got {found}; measure all with the "
            "same `convention` and `jacobian`"
        )
    layers = sorted({tuple(growth_NBK.shape[2] for growth_NBK in record.log_growth) for record in records})
    if len(layers) > 1:
        raise InputError(
            "compared spectra must have as many exponents in each layer, got "
            f"{' and '.join(map(str, layers))}; compare hyperprune.spectra.resized(spectrum, size) of each, "
            "which no layer matters to"
        )


def _pca(points_PC: Float64[np.ndarray, "P C"], dims: int) -> Float64[np.ndarray, "P _"]:
    """Scores of centred points on their first principal axes, at most `dims`, by a singular value
    decomposition."""
    centred_PC = points_PC - points_PC.mean(axis=0)
    _, _, axes_RC = np.linalg.svd(centred_PC, full_matrices=False)
    axes_RC = axes_RC[:dims]
    largest_R = np.abs(axes_RC).argmax(axis=1)
    signs_R = np.where(axes_RC[np.arange(len(axes_RC)), largest_R] < 0, -1.0, 1.0)
    return centred_PC @ (axes_RC * signs_R[:, None]).T
