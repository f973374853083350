"""The records in other programs' forms: every value read back is the record's."""

import json
import sqlite3
from dataclasses import replace

import numpy as np
import optuna
import pytest

from hyperprune.errors import InputError
from hyperprune.records import CandidateRecord, EpochRecord, RunRecord, epoch_rows
from hyperprune.report import write_epochs, write_study

SPECTRUM = np.array([0.1, -0.5, -np.inf])


def _epochs(*metrics):
    return tuple(
        EpochRecord(
            epoch=number,
            train_loss=None if number == 0 else metric,
            valid_loss=metric,
            metric=metric,
            seconds=1.0,
            spectrum=SPECTRUM,
        )
        for number, metric in enumerate(metrics)
    )


def _candidate(key, outcome, *metrics, **settings):
    return CandidateRecord(
        key=key,
        label=key,
        configuration={"method": "dynamic_sparse", **settings},
        outcome=outcome,
        epochs=_epochs(*metrics),
        signals={1: 0.25},
        best_epoch=int(np.argmin(metrics)),
        metric=min(metrics),
        reason="too high" if outcome == "failed" else None,
    )


@pytest.fixture
def run():
    return RunRecord(
        task="tiny",
        sparsity=0.5,
        seed=0,
        strategy={"name": "lsh", "final_epochs": 2},
        metric="perplexity",
        lower_is_better=True,
        baseline=None,
        reference=_candidate("dense", "running", 9.0, 5.0),
        candidates=(
            _candidate("c02", "finalist", 9.0, 8.0, 6.0, death="set", death_rate=0.5),
            _candidate("c10", "eliminated", 9.0, 7.0, death="magnitude", death_rate=0.75, blocks=[1, 2]),
            _candidate("c01", "failed", 9.0, 8.5, death_rate=0.6),
            _candidate("c03", "running", 9.0),
        ),
        rounds=(),
        epochs_spent=4,
        epochs_full=8,
        finished=False,
        provenance={"hyperprune": "0"},
    )


def test_jsonl_has_a_strict_line_for_every_epoch(run, tmp_path):
    write_epochs(run, tmp_path / "epochs.jsonl")
    rows = [
        json.loads(line, parse_constant=pytest.fail)
        for line in (tmp_path / "epochs.jsonl").read_text().splitlines()
    ]
    assert rows == list(epoch_rows(run))
    assert [row["key"] for row in rows] == [*["dense"] * 2, *["c02"] * 3, *["c10"] * 2, *["c01"] * 2, "c03"]
    assert rows[0]["outcome"] == "reference"
    assert rows[0]["train_loss"] is None
    assert rows[4]["perplexity"] == 6.0
    assert rows[4]["spectrum"] == [0.1, -0.5, None]
    with pytest.raises(InputError, match="--jsonl must be a file that can be written"):
        write_epochs(run, tmp_path)


def test_an_optuna_study_holds_every_candidate_as_a_trial(run, tmp_path):
    path = tmp_path / "study.db"
    write_study(run, path, name="first")
    study = optuna.load_study(study_name="first", storage=f"sqlite:///{path}")
    states = optuna.trial.TrialState
    trials = {trial.user_attrs["key"]: trial for trial in study.get_trials()}
    assert list(trials) == ["c01", "c02", "c03", "c10"]
    assert [trial.state for trial in trials.values()] == [
        *(states.FAIL, states.COMPLETE, states.RUNNING, states.PRUNED),
    ]
    assert trials["c02"].value == 6.0
    assert trials["c02"].intermediate_values == {0: 9.0, 1: 8.0, 2: 6.0}
    assert trials["c02"].params == {"method": "dynamic_sparse", "death": "set", "death_rate": 0.5}
    assert trials["c10"].params["blocks"] == "[1, 2]"
    assert trials["c01"].user_attrs["reason"] == "too high"
    assert study.best_trial.user_attrs["key"] == "c02"
    assert study.direction is optuna.study.StudyDirection.MINIMIZE
    assert study.user_attrs["dense perplexity"] == 5.0


def test_a_study_is_replaced_by_itself_and_strangers_are_left_alone(run, tmp_path):
    path = tmp_path / "study.db"
    storage = optuna.storages.RDBStorage(f"sqlite:///{path}")
    optuna.create_study(storage=storage, study_name="mine")
    storage.engine.dispose()
    write_study(run, path, name="first")
    write_study(run, path, name="first")
    with pytest.raises(InputError, match="holds a study 'mine' that was not written of this run"):
        write_study(run, path, name="mine")
    with pytest.raises(InputError, match="holds a study 'first' that was not written of this run"):
        write_study(replace(run, provenance={"started": "later"}), path, name="first")
    assert sorted(optuna.get_all_study_names(f"sqlite:///{path}")) == ["first", "mine"]
    assert len(optuna.load_study(study_name="first", storage=f"sqlite:///{path}").trials) == 4


def test_a_studys_file_may_have_a_name_that_urls_would_cut_off(run, tmp_path):
    write_study(run, tmp_path / "odd?name.db", name="first")
    assert [path.name for path in tmp_path.iterdir()] == ["odd?name.db"]


def test_a_file_that_is_no_database_is_refused_and_left_alone(run, tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("years of work " * 50)
    with pytest.raises(InputError, match=r"must be an SQLite file that can be written, got [^\n]*$"):
        write_study(run, path, name="first")
    assert path.read_text() == "years of work " * 50
    with pytest.raises(InputError, match="must be an SQLite file that can be written"):
        write_study(run, tmp_path / "missing" / "study.db", name="first")


def test_the_file_is_what_optuna_dashboard_reads(run, tmp_path):
    write_study(run, tmp_path / "study.db", name="first")
    with sqlite3.connect(tmp_path / "study.db") as database:
        assert database.execute("select study_name from studies").fetchall() == [("first",)]
