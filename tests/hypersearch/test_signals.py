"""What ranks a round: worked by hand, and against the distance it is made of."""

import numpy as np
import pytest

import hyperprune as hp
from hyperprune.errors import InputError
from hyperprune.hypersearch.signals import SIGNALS, Epochs, RankAverage, measure
from hyperprune.records import EpochRecord
from hyperprune.spectra import pca_trajectories


def _records(spectra, losses=None):
    losses = losses if losses is not None else [1.0] * len(spectra)
    return tuple(
        EpochRecord(
            epoch=epoch,
            train_loss=2 * loss if epoch else None,
            valid_loss=loss,
            metric=loss,
            seconds=0.0,
            spectrum=None if spectrum is None else np.array(spectrum, dtype=np.float64),
        )
        for epoch, (spectrum, loss) in enumerate(zip(spectra, losses, strict=True))
    )


def _round(seed=0, count=4, epochs=3, size=6):
    random = np.random.default_rng(seed)
    make = lambda: _records(random.normal(size=(epochs, size)), random.random(epochs))  # noqa: E731
    return make(), {f"c{number}": make() for number in range(count)}


def _spectra(records):
    return [record.spectrum for record in records if record.spectrum is not None]


@pytest.mark.parametrize("name", SIGNALS)
def test_a_signal_gives_every_candidate_a_finite_number_and_the_twin_of_the_reference_the_least(name):
    reference, candidates = _round()
    reference = _records([spectrum + 3 for spectrum in _spectra(reference)])  # contracts least, too
    twin = _records(_spectra(reference), [0.0] * 3)  # the least loss, too
    values = measure(name, reference, {**candidates, "twin": twin})
    assert list(values) == [*candidates, "twin"]
    assert all(np.isfinite(value) for value in values.values())
    assert min(values, key=lambda key: values[key]) == "twin"


def test_spectrum_is_the_papers_distance_in_the_plane_of_each_pair():
    reference, candidates = _round()
    assert measure("spectrum", reference, candidates) == {
        key: hp.spectrum_distance(_spectra(reference), _spectra(records))
        for key, records in candidates.items()
    }


def test_spectrum_raw_is_the_length_of_the_difference_at_the_last_epoch():
    reference, candidate = _records([[9, 9, 9], [1, 0, -1]]), _records([[5, 5, 5], [1, 3, -5]])
    assert measure("spectrum_raw", reference, {"c": candidate})["c"] == 5.0


def test_spectrum_joint_measures_all_in_one_plane():
    reference, candidates = _round()
    paths = pca_trajectories([_spectra(reference), *map(_spectra, candidates.values())])
    joint = measure("spectrum_joint", reference, candidates)
    for key, path in zip(candidates, paths[1:], strict=True):
        assert joint[key] == np.linalg.norm(path[-1] - paths[0][-1])
    assert joint != measure("spectrum", reference, candidates)


@pytest.mark.parametrize("name", ["spectrum", "spectrum_joint"])
def test_axes_beyond_those_of_the_data_change_nothing_and_cost_nothing(name):
    reference, candidates = _round()
    values = measure(name, reference, candidates, dims=6)
    assert measure(name, reference, candidates, dims=10**15) == values


def test_mean_exponent_is_the_own_rate_of_contraction_at_the_last_epoch():
    reference, candidate = _records([[9, 9, 9]] * 2), _records([[5, 5, 5], [1, -3, -np.inf]])
    assert measure("mean_exponent", reference, {"c": candidate})["c"] == (20 + 3 - 1) / 3  # -inf as the floor
    assert measure("mean_exponent", candidate, {"c": candidate})["c"] == (20 + 3 - 1) / 3


def test_training_losses_are_summed_over_the_epochs_trained():
    reference, candidate = _records([[0.0]] * 3), _records([None] * 3, [8.0, 0.5, 0.25])
    assert measure("training_losses", reference, {"c": candidate}) == {"c": 1.5}
    with pytest.raises(InputError, match="'training_losses' gave nan for c"):
        measure("training_losses", reference[:1], {"c": candidate[:1]})


def test_the_last_training_loss_is_of_the_rounds_epoch_alone():
    reference, candidate = _records([[0.0]] * 3), _records([None] * 3, [8.0, 0.5, 0.25])
    expected = candidate[-1].train_loss
    assert expected is not None
    assert expected != candidate[-2].train_loss
    assert measure("last_training_loss", reference, {"c": candidate}) == {"c": expected}
    with pytest.raises(InputError, match="'last_training_loss' gave nan for c"):
        measure("last_training_loss", reference[:1], {"c": candidate[:1]})


def test_the_blend_averages_the_ranks_within_the_round():
    reference = _records([[0.0, 0.0]])
    candidates = {  # ranks by spectrum 1, 2, 3 and by loss 3, 1.5, 1.5
        "near": _records([[1.0, 0.0]], [0.9]),
        "middle": _records([[2.0, 0.0]], [0.5]),
        "far": _records([[3.0, 0.0]], [0.5]),
    }
    assert measure("blend", reference, candidates) == {"near": 2.0, "middle": 1.75, "far": 2.25}
    del candidates["far"]
    assert measure("blend", reference, candidates) == {"near": 1.5, "middle": 1.5}


def test_a_recorded_candidates_signals_are_computed_once_and_are_the_same():
    reference, candidates = _round()
    kept = {key: Epochs(records) for key, records in candidates.items()}
    for name in SIGNALS:
        assert measure(name, reference, kept) == measure(name, reference, candidates)
    kept["c0"].kept[SIGNALS["loss"]] = -1.0
    assert measure("loss", reference, kept)["c0"] == -1.0


def test_a_signal_of_ones_own_ranks_by_its_name(monkeypatch):
    def gap(reference, candidates):
        return {key: records[-1].valid_loss - reference[-1].valid_loss for key, records in candidates.items()}

    monkeypatch.setitem(SIGNALS, "gap", gap)
    reference, candidates = _round()
    assert measure("gap", reference, candidates) == gap(reference, candidates)
    assert hp.LSH(candidates=4, final_epochs=10, signal="gap").signal == "gap"
    monkeypatch.setitem(SIGNALS, "mix", RankAverage((SIGNALS["loss"], gap)))
    assert min(measure("mix", reference, candidates).values()) == 1.0


@pytest.mark.parametrize("values", [{}, {"c0": float("nan")}, {"c0": None}])
def test_a_signal_without_a_number_for_a_candidate_is_refused_before_it_ranks(monkeypatch, values):
    monkeypatch.setitem(SIGNALS, "gappy", lambda reference, candidates: values)
    reference, candidates = _round(count=1)
    with pytest.raises(InputError, match=r"every candidate a number, 'gappy' gave (None|nan) for c0; mend"):
        measure("gappy", reference, candidates)


def test_a_candidate_without_a_number_in_a_part_of_an_average_has_none(monkeypatch):
    def gap(reference, candidates):
        return {key: float("nan") if key == "c1" else 0.0 for key in candidates}

    monkeypatch.setitem(SIGNALS, "mix", RankAverage((SIGNALS["loss"], gap)))
    reference, candidates = _round()
    with pytest.raises(InputError, match="'mix' gave nan for c1"):
        measure("mix", reference, candidates)


@pytest.mark.parametrize("name", ["spectrum", "spectrum_joint", "spectrum_raw", "mean_exponent", "blend"])
def test_a_spectrum_signal_without_spectra_is_refused(name):
    bare = _records([None, None])
    with pytest.raises(InputError, match=r"needs a spectrum at every epoch.*use --signal loss"):
        measure(name, bare, {"c": bare})
