"""Calibration: what is tried, and how it is told."""

from dataclasses import replace

import pytest

from hyperprune.errors import InputError
from hyperprune.experiments import calibration
from hyperprune.experiments.calibration import SCALES, Scale, Trial, calibrate, cells_of, to_markdown
from hyperprune.experiments.cells import write_records


def tried(trial, label, valid, spectrum=None, *, seed=0, failure=None):
    return {
        "trial": trial,
        "label": label,
        "seed": seed,
        "valid": valid,
        "spectrum": spectrum,
        "failure": failure,
        "metric": "perplexity",
        "baseline": ["unigram perplexity", 185.2],
    }


def test_every_trial_changes_one_thing_of_the_first():
    first, *others = SCALES["small"].trials
    assert first == Trial()
    for trial in others:
        assert sum(getattr(trial, name) != getattr(first, name) for name in vars(first)) == 1
    cells = cells_of(SCALES["small"])
    assert len(cells) == 4 * len(SCALES["small"].trials)
    for cell in cells.values():
        settings = dict(cell.configuration.settings)
        assert settings.get("update_every", cell.trial.cadence) == cell.trial.cadence


def test_a_trial_is_trained_by_its_learning_rate_and_tokens(tmp_path, monkeypatch):
    monkeypatch.setattr(calibration, "_candidates", lambda scale, trial: [])
    text = tmp_path / "text"
    text.mkdir()
    for split in ("train", "valid", "test"):
        (text / f"{split}.txt").write_text("the cat sat on the mat and the dog did not \n" * 80)
    trials = (Trial(learning_rate=1.0, train_tokens=400), Trial(learning_rate=0.5, train_tokens=400))
    scale = Scale(task=f"text:{text}", epochs=1, trials=trials)
    one, other = calibrate(scale, tmp_path / "study", say=lambda _: None)
    assert one["valid"][0] == other["valid"][0]
    assert one["valid"][1] != other["valid"][1]
    assert one["failure"] is None
    assert len(one["spectrum"]) > 0
    longer = replace(scale, epochs=2)
    with pytest.raises(
        InputError, match=r"and 2 epochs, lr 1, .* is of .* and 1; name its --epochs, or anot"
    ):
        calibrate(longer, tmp_path / "study", say=lambda _: None)
    # One that failed in its first epoch would fail there again, however many are asked for.
    failed = [
        {**record, "valid": record["valid"][:1], "failure": "the loss became nan"} for record in (one, other)
    ]
    write_records(tmp_path / "study" / "records.jsonl", failed)
    again = calibrate(longer, tmp_path / "study", say=lambda _: None)
    assert [len(record["valid"]) for record in again] == [1, 1]


def test_the_table_tells_values_and_distances_by_trial():
    records = [
        tried("lr 20", "dense", [2000.0, 160.4, 120.0], [0.0, -1.0]),
        tried("lr 20", "a", [2000.0, 274.0, 172.0], [3.0, -5.0]),
        tried("lr 5", "a", [2000.0, 192.0, 190.0], [1.0, 1.0], failure="the loss became nan"),
    ]
    lines = to_markdown(records).splitlines()
    assert lines[0] == "| trial | dense | a |"
    assert lines[2] == "| lr 20 | 160, 120 | 274, 172 (5.0, -0.50) |"
    assert lines[3] == "| lr 5 | not run | 192, 190 (failed) |"
    assert lines[-1].startswith("Validation perplexity after epochs 1 to 2; unigram perplexity 185.2.")


@pytest.mark.parametrize("seed", [0, 1])
def test_a_further_seed_has_a_row_of_its_own(seed):
    records = [tried("lr 20", "dense", [1.0, 2.0]), tried("lr 20", "dense", [1.0, 3.0], seed=1)]
    row = to_markdown(records).splitlines()[2 + seed]
    assert row == ("| lr 20 | 2 |", "| lr 20, seed 1 | 3 |")[seed]
