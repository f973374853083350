"""The record: order, units, error bars, derived figures, files, pictures."""

import dataclasses
import json
import math

import numpy as np
import pytest

from hyperprune.errors import InputError
from hyperprune.spectra import LyapunovSpectrum
from hyperprune.spectra.figures import entropy_rate, kaplan_yorke_dimension, standard_error


def record(*layers: np.ndarray, **settings) -> LyapunovSpectrum:
    """A spectrum of layers given as growth by block, sample and direction, each block one step."""
    settings.setdefault("state_sizes", tuple(layer.shape[2] for layer in layers))
    settings.setdefault("num_exponents", sum(settings["state_sizes"]))
    settings.setdefault("block_steps", np.ones(layers[0].shape[0], dtype=np.int64))
    return LyapunovSpectrum(log_growth=layers, **settings)


def growth(steps: int, batch: int, size: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(-1.0, 0.5, (steps, batch, size))


def constant(*rates: float) -> np.ndarray:
    return np.tile(np.array(rates), (3, 2, 1))


def test_exponents_are_sorted_over_the_network_and_within_each_layer():
    spectrum = record(constant(-1.0, -3.0, 0.5), constant(-2.0, 0.7))
    np.testing.assert_allclose(spectrum.exponents, [0.7, 0.5, -1.0, -2.0, -3.0])
    np.testing.assert_allclose(spectrum.by_layer[0], [0.5, -1.0, -3.0])
    np.testing.assert_allclose(spectrum.by_layer[1], [0.7, -2.0])
    np.testing.assert_allclose(spectrum.concatenated, [0.5, -1.0, -3.0, 0.7, -2.0])


def test_the_columns_of_the_samples_follow_the_exponents():
    spectrum = record(growth(6, 4, 3), growth(6, 4, 5, seed=1))
    np.testing.assert_allclose(spectrum.per_sample.mean(0), spectrum.exponents)
    np.testing.assert_allclose(spectrum.running[-1], spectrum.exponents)
    assert spectrum.running.shape == (6, 8)
    assert spectrum.running_steps.tolist() == [1, 2, 3, 4, 5, 6]


def test_blocks_of_different_length_weigh_by_their_steps():
    blocks = np.array([[[-2.0]], [[-6.0]]])
    spectrum = record(blocks, block_steps=np.array([1, 3]))
    assert spectrum.exponents.tolist() == [-2.0]
    assert spectrum.running[:, 0].tolist() == [-2.0, -2.0]
    assert spectrum.num_steps == 4


def test_leading_exponents_are_chosen_over_all_layers():
    spectrum = record(constant(-1.0, -3.0), constant(-2.0, -0.5), num_exponents=2, state_sizes=(9, 9))
    assert spectrum.exponents.tolist() == [-0.5, -1.0]
    assert [layer.tolist() for layer in spectrum.by_layer] == [[-1.0, -3.0], [-0.5, -2.0]]


def test_the_published_convention_keeps_the_order_and_counts_in_bits():
    spectrum = record(constant(-1.0, 0.0), constant(-2.0, -1.5), convention="lsh")
    np.testing.assert_allclose(spectrum.exponents, np.array([-1.0, 0.0, -2.0, -1.5]) / math.log(2))
    assert spectrum.unit == "bits per step"
    assert spectrum.largest == 0.0


def test_infinite_exponents_are_counted_and_left_out_of_mean_and_variance():
    spectrum = record(constant(-1.0, -np.inf, -3.0))
    assert spectrum.num_negative_infinite == 1
    assert (spectrum.mean, spectrum.variance) == (-2.0, 1.0)
    assert spectrum.exponents[-1] == -np.inf
    assert np.isnan(spectrum.standard_error[-1])
    assert spectrum.summary()["num_negative_infinite"] == 1


@pytest.mark.parametrize(
    ("exponents", "dimension"),
    [
        ([0.41922, -1.62319], 1 + 0.41922 / 1.62319),  # Hénon: 1.258
        ([0.906, 0.0, -14.57], 2 + 0.906 / 14.57),  # Lorenz: 2.062
        ([-0.1, -0.2], 0.0),
        ([0.3, -0.3], 2.0),
        ([0.5, 0.1], 2.0),
        ([1.0, -np.inf], 1.0),
        ([-14.57, 0.0, 0.906], 2 + 0.906 / 14.57),
    ],
)
def test_kaplan_yorke_dimension(exponents, dimension):
    assert kaplan_yorke_dimension(np.array(exponents)) == pytest.approx(dimension, rel=1e-14)


def test_entropy_rate_is_the_sum_of_the_positive_exponents():
    assert entropy_rate(np.array([0.5, 0.25, 0.0, -3.0, -np.inf])) == 0.75


def test_standard_error_by_hand():
    # Two draws, 1 and 3: deviation sqrt(2), over sqrt(2) draws.
    assert standard_error(np.array([[[1.0], [3.0]]]), np.array([1]))[0] == pytest.approx(1.0)
    # Four steps in two batches, 1 + 2 and 5 + 4 nats: rates 1.5 and 4.5, deviation 3/sqrt(2).
    blocks = np.array([1.0, 2.0, 5.0, 4.0]).reshape(4, 1, 1)
    assert standard_error(blocks, np.ones(4, dtype=np.int64))[0] == pytest.approx(1.5)


def test_standard_error_of_independent_draws():
    draws = growth(400, 50, 4)
    error = standard_error(draws, np.ones(400, dtype=np.int64))
    # 1000 batch means: the estimate itself is good to 1/sqrt(2000) = 2.2 %, here four times that.
    np.testing.assert_allclose(error, 0.5 / math.sqrt(400 * 50), rtol=0.09)


def test_standard_error_sees_correlation_in_time():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(10_000, 8))
    series = np.zeros_like(noise)
    for step in range(1, len(noise)):
        series[step] = 0.9 * series[step - 1] + noise[step]
    error = standard_error(series[:, :, None], np.ones(10_000, dtype=np.int64))
    # The variance of the mean of an AR(1) series is 1/(1 − 0.9)² over T; batches of 100 steps see 90 % of
    # it, and 800 batch means are good to 2.5 %.
    assert error[0] == pytest.approx(10 / math.sqrt(80_000), rel=0.12)


def test_standard_error_of_a_single_batch_is_unknown():
    assert np.isnan(standard_error(growth(1, 1, 3), np.array([1]))).all()
    assert np.isfinite(standard_error(growth(1, 2, 3), np.array([1]))).all()
    assert np.isfinite(standard_error(growth(4, 1, 3), np.ones(4, dtype=np.int64))).all()


def test_a_record_cannot_be_changed():
    spectrum = record(constant(-1.0))
    with pytest.raises(dataclasses.FrozenInstanceError, match="warmup"):
        spectrum.warmup = 3  # type: ignore[misc]


def test_a_saved_record_comes_back_the_same(tmp_path):
    spectrum = record(
        growth(5, 2, 3),
        constant(-1.0, -np.inf)[[0, 1, 2, 0, 1]],
        warmup=4,
        qr_interval=2,
        dtype="float32",
        jacobian="hidden",
        logdet_residual=1e-7,
        notes=("a note — with a dash",),
    )
    path = spectrum.save(tmp_path / "spectrum.of.epoch3")
    assert path == tmp_path / "spectrum.of.epoch3"
    loaded = LyapunovSpectrum.load(path)
    for field in dataclasses.fields(LyapunovSpectrum):
        ours, theirs = getattr(spectrum, field.name), getattr(loaded, field.name)
        np.testing.assert_equal(theirs, ours)
    np.testing.assert_array_equal(loaded.exponents, spectrum.exponents)


def test_a_record_that_cannot_be_saved_leaves_the_file_as_it_was(tmp_path):
    path = record(constant(-1.0)).save(tmp_path / "kept.npz")
    saved = path.read_bytes()
    wrong = record(constant(-2.0))
    object.__setattr__(wrong, "warmup", np.int64(3))
    with pytest.raises(TypeError, match="int64 is not JSON serializable"):
        wrong.save(path)
    assert path.read_bytes() == saved


def test_what_is_not_a_saved_record_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"save wrote, .*missing\.npz is not"):
        LyapunovSpectrum.load(tmp_path / "missing.npz")
    damaged = tmp_path / "damaged.npz"
    damaged.write_bytes(record(constant(-1.0)).save(tmp_path / "whole.npz").read_bytes()[:-200])
    with pytest.raises(InputError, match=r"damaged\.npz is not"):
        LyapunovSpectrum.load(damaged)
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    with pytest.raises(InputError, match=r"other\.npz is not"):
        LyapunovSpectrum.load(tmp_path / "other.npz")
    np.save(tmp_path / "array.npy", np.zeros(3))
    with pytest.raises(InputError, match=r"array\.npy is not"):
        LyapunovSpectrum.load(tmp_path / "array.npy")


def test_a_saved_record_that_cannot_be_decompressed_is_refused(tmp_path):
    path = record(growth(5, 2, 3)).save(tmp_path / "damaged.npz")
    saved = path.read_bytes()
    path.write_bytes(saved[:100] + b"\xff" * 100 + saved[200:])  # in the middle of the settings
    with pytest.raises(InputError, match=r"damaged\.npz is not \(Error -3 while decompressing"):
        LyapunovSpectrum.load(path)


def test_a_saved_record_without_one_of_its_settings_is_refused(tmp_path):
    path = record(constant(-1.0)).save(tmp_path / "older.npz")
    with np.load(path) as saved:
        arrays = dict(saved)
    settings = json.loads(str(arrays["settings"]))
    del settings["warmup"]
    arrays["settings"] = np.array(json.dumps(settings))
    np.savez(path, **arrays)  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match=r"older\.npz is not \('warmup'\); measure"):
        LyapunovSpectrum.load(path)


def test_a_picture_shows_layers_and_convergence(tmp_path):
    pytest.importorskip("matplotlib")
    spectrum = record(growth(20, 2, 6), constant(-1.0, -np.inf)[[0] * 20])
    figure = spectrum.plot()
    curve, running = figure.axes
    assert "1 exponents are −∞" in curve.get_title()
    assert curve.get_legend_handles_labels()[1][-2:] == ["layer 0", "layer 1"]
    assert running.get_xlabel() == "steps"
    figure.savefig(tmp_path / "spectrum.png")
    assert (tmp_path / "spectrum.png").stat().st_size > 1000
