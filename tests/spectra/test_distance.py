"""Distances between spectra and the space they are measured in."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hyperprune.errors import InputError, NumericsError
from hyperprune.spectra import (
    FLOOR,
    LyapunovSpectrum,
    compared_vector,
    pca_trajectories,
    resized,
    spectrum_distance,
)

rates = st.floats(-15, 3, allow_nan=False)
trajectories = st.integers(2, 5).flatmap(
    lambda epochs: st.tuples(arrays(np.float64, (epochs, 6), elements=rates), st.just(epochs)).flatmap(
        lambda pair: st.tuples(st.just(pair[0]), arrays(np.float64, (pair[1], 6), elements=rates))
    )
)


def random_spectra(epochs: int, size: int, seed: int) -> list[np.ndarray]:
    return list(np.random.default_rng(seed).normal(-2, 1, (epochs, size)))


@given(trajectories)
def test_distance_is_that_of_the_leading_principal_scores(pair):
    reference, candidate = pair
    # By eigenvectors of the covariance, an independent way to the same scores.
    points = np.concatenate([reference, candidate])
    centred = points - points.mean(0)
    values, vectors = np.linalg.eigh(centred.T @ centred)
    difference = reference[-1] - candidate[-1]
    expected = np.linalg.norm(difference @ vectors[:, -2:])
    distance = spectrum_distance(list(reference), list(candidate))
    gap_is_clear = values[-2] - values[-3] > 1e-6 * max(values[-1], 1e-300)
    if gap_is_clear:
        assert distance == pytest.approx(expected, rel=1e-6, abs=1e-9)  # eigh squares the condition
    assert distance <= np.linalg.norm(difference) * (1 + 1e-12) + 1e-12


@given(trajectories)
def test_distance_is_symmetric_and_zero_for_the_same_network(pair):
    reference, candidate = (list(part) for part in pair)
    there, back = spectrum_distance(reference, candidate), spectrum_distance(candidate, reference)
    # Where the second and third axis are equally strong, either may be chosen; the first two with all
    # dimensions are free of that.
    full = [spectrum_distance(*pair, dims=12) for pair in ((reference, candidate), (candidate, reference))]
    assert full[0] == pytest.approx(full[1], rel=1e-9, abs=1e-9)
    assert full[0] == pytest.approx(np.linalg.norm(reference[-1] - candidate[-1]), rel=1e-9, abs=1e-9)
    assert min(there, back) >= 0
    assert spectrum_distance(reference, reference) == 0


def test_without_embedding_it_is_the_plain_norm():
    distance = spectrum_distance([np.array([0.0, 0.0])], [np.array([3.0, -4.0])], embedding="none")
    assert distance == 5.0
    # Two points always lie on one principal axis.
    assert spectrum_distance([np.array([0.0, 0.0])], [np.array([3.0, -4.0])]) == pytest.approx(5.0)


def test_only_the_last_epoch_counts_and_the_space_is_fitted_on_all():
    reference, candidate = random_spectra(4, 8, 0), random_spectra(4, 8, 1)
    changed = [*random_spectra(3, 8, 2), candidate[3]]
    plain = [spectrum_distance(reference, c, embedding="none") for c in (candidate, changed)]
    assert plain[0] == plain[1]
    assert spectrum_distance(reference, candidate) != spectrum_distance(reference, changed)


def test_exponents_below_the_floor_count_as_the_floor_on_both_sides():
    low = np.array([-1.0, -np.inf, -25.0, FLOOR])
    assert compared_vector(low).tolist() == [-1.0, -20.0, -20.0, -20.0]
    assert spectrum_distance([low], [np.array([-1.0, -21.0, -np.inf, -np.inf])], embedding="none") == 0.0
    assert low[1] == -np.inf  # the caller's array is left alone


def test_records_are_compared_by_layer_first_layer_first():
    def record(first, second):
        return LyapunovSpectrum(
            log_growth=(np.array([[first]]), np.array([[second]])),
            block_steps=np.array([1]),
            state_sizes=(2, 2),
            num_exponents=4,
        )

    one, other = record([-1.0, -2.0], [-3.0, -4.0]), record([-3.0, -4.0], [-1.0, -2.0])
    np.testing.assert_array_equal(one.exponents, other.exponents)
    assert spectrum_distance([one], [other], embedding="none") == 4.0
    assert spectrum_distance([one], [other.concatenated], embedding="none") == 4.0


def test_records_of_different_conventions_or_jacobians_are_not_compared():
    def record(**kind):
        return LyapunovSpectrum(
            log_growth=(np.array([[[-1.0, -2.0]]]),),
            block_steps=np.array([1]),
            state_sizes=(2,),
            num_exponents=2,
            **kind,
        )

    for kind in ({"convention": "lsh"}, {"jacobian": "hidden"}):
        with pytest.raises(InputError, match="of one convention and one Jacobian, got forward/"):
            spectrum_distance([record()], [record(**kind)])


def test_networks_of_other_layers_are_not_compared_place_by_place():
    def record(*sizes):
        return LyapunovSpectrum(
            log_growth=tuple(np.full((1, 1, size), -1.0) for size in sizes),
            block_steps=np.array([1]),
            state_sizes=sizes,
            num_exponents=sum(sizes),
        )

    with pytest.raises(
        InputError, match=r"as many exponents in each layer, got \(2, 2\) and \(4,\); compare"
    ):
        spectrum_distance([record(2, 2)], [record(4)])
    quantiles = ([resized(spectrum, 4)] for spectrum in (record(2, 2), record(4)))
    assert spectrum_distance(*quantiles) == 0.0


def test_the_floor_is_as_deep_in_bits():
    settings = {"block_steps": np.array([1]), "state_sizes": (3,), "num_exponents": 3, "convention": "lsh"}
    record = LyapunovSpectrum(log_growth=(np.array([[[-1.0, -19.0, -21.0]]]),), **settings)
    np.testing.assert_allclose(compared_vector(record), np.array([-1, -19, FLOOR]) / np.log(2), rtol=1e-15)


def test_pictures_share_one_space_with_fixed_signs():
    networks = [random_spectra(epochs, 10, seed) for seed, epochs in enumerate((5, 3, 4))]
    paths = pca_trajectories(networks)
    assert [path.shape for path in paths] == [(5, 2), (3, 2), (4, 2)]
    np.testing.assert_allclose(np.concatenate(paths).mean(0), 0, atol=1e-12)  # centred, to round-off
    again = pca_trajectories([[2 - spectrum for spectrum in network] for network in networks])
    for path, mirrored in zip(paths, again, strict=True):
        # Mirrored data have mirrored scores on the same axes, because the loadings fix the signs.
        np.testing.assert_allclose(mirrored, -path, atol=1e-10)


def test_axes_beyond_the_rank_are_zero():
    (path,) = pca_trajectories([[np.array([0.0, 1.0]), np.array([1.0, 1.0])]], dims=3)
    assert path.shape == (2, 3)
    np.testing.assert_allclose(path[:, 1:], 0, atol=1e-15)
    np.testing.assert_allclose(path[:, 0], [-0.5, 0.5])


@pytest.mark.parametrize(
    ("arguments", "settings", "message"),
    [
        (([np.zeros(3)], [np.zeros(3)]), {"embedding": "tsne"}, "unknown embedding 'tsne'; .*none, pca"),
        (([np.zeros(3)], [np.zeros(3)]), {"dims": 0}, "dims must be at least 1, got 0"),
        (([np.zeros(3)] * 2, [np.zeros(3)]), {}, "the same epochs, got 2 and 1; cut the longer"),
        (([], []), {}, "at least one spectrum, got none"),
        (([np.zeros(3)], [np.zeros(4)]), {}, r"same number of exponents, got \[3, 4\]"),
        (([np.zeros((2, 3))], [np.zeros(3)]), {}, r"one-dimensional array of exponents, got shape \(2, 3\)"),
        (([np.zeros(0)], [np.zeros(0)]), {}, r"got shape \(0,\)"),
    ],
)
def test_arguments_that_cannot_be_compared(arguments, settings, message):
    with pytest.raises(InputError, match=message):
        spectrum_distance(*arguments, **settings)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_exponents_never_reach_a_ranking(value):
    with pytest.raises(NumericsError, match=f"finite or -inf, number 1 is {value}"):
        spectrum_distance([np.zeros(2)], [np.array([0.0, value])])


def test_no_dimension_is_no_picture():
    with pytest.raises(InputError, match="dims must be at least 1, got 0; 2 makes a picture"):
        pca_trajectories([[np.zeros(2)]], dims=0)


def test_spectra_do_not_need_torch_or_matplotlib():
    code = "import sys, hyperprune.spectra; sys.exit('torch' in sys.modules or 'matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
