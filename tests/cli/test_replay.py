"""`record` and `replay` as a user meets them."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from hyperprune.cli.main import main
from hyperprune.errors import InputError
from hyperprune.hypersearch.run_folder import read_state
from hyperprune.hypersearch.table import read_table

TASK = f"{Path(__file__).parents[1] / 'tiny_task.py'}:task"


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A table of eight candidates, made by the command, and the folder it was made in."""
    folder = tmp_path_factory.mktemp("record")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["record", TASK, "--candidates", "8", "--out", "tiny.npz", "--workers", "1"]) == 0
    return folder / "tiny.npz"


def _last_line(capsys):
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_record_trains_all_to_the_end_and_again_from_its_run_without_training(table, monkeypatch, capsys):
    monkeypatch.chdir(table.parent)
    command = ["record", "--from", "runs/tiny_task-record", "--out", "again.npz", "--json"]
    assert main(command) == 0
    told = _last_line(capsys)
    assert told == {"table": "again.npz", "candidates": 8, "final_epochs": 5, "seeds": [0]}
    replayed = []
    for name in ("tiny.npz", "again.npz"):
        assert main(["replay", name, "--repeats", "5", "--proposer", "random", "--json"]) == 0
        replayed.append(_last_line(capsys)["results"])
    assert replayed[0] == replayed[1]


def test_a_table_with_the_full_states_spectra_is_replayed_as_it_was_recorded(table, tmp_path, capsys):
    full = read_table(table)
    path = tmp_path / "full.npz"
    replace(full, identity={**full.identity, "spectrum_state": "full"}).save(path)
    assert main(["replay", str(path), "--repeats", "3", "--strategy", "lsh", "--proposer", "random"]) == 0
    assert "left out" not in capsys.readouterr().out


def test_a_replay_of_an_unfinished_recording_says_what_is_missing(table, tmp_path, capsys):
    whole = read_table(table)
    run = replace(whole.runs[0], provenance={"failed": "one, another"})
    path = tmp_path / "part.npz"
    for cells, missing in ((8 + 2, 0), (24, 14)):
        replace(whole, runs=(run,), identity={**whole.identity, "cells": cells}).save(path)
        assert read_table(path).num_missing == missing
        assert main(["replay", str(path), "--repeats", "1", "--strategy", "full"]) == 0
        note = f"note: {missing} candidates of {path} are not recorded yet; regrets are against the best"
        assert (note in capsys.readouterr().err) == (missing > 0)


def test_several_tables_are_replayed_as_one(table, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    whole = read_table(table)
    replace(whole, runs=(replace(whole.runs[0], seed=1),)).save("next.npz")
    names = [str(table), "next.npz"]
    assert main(["replay", *names, "--strategy", "random", "--repeats", "4", "--json"]) == 0
    output = capsys.readouterr().out
    assert output.startswith("tiny: 8 candidates × 5 epochs, seed 0, 1; 4 searches each")
    assert json.loads(output.splitlines()[-1])["tables"] == names
    run = whole.runs[0]
    half = replace(run, seed=1, configurations=run.configurations[:4], candidates=run.candidates[:4])
    replace(whole, runs=(half,)).save("next.npz")
    assert main(["replay", *names, "--strategy", "random", "--repeats", "4"]) == 0
    assert capsys.readouterr().out.startswith("tiny: 4 to 8 candidates × 5 epochs, seed 0, 1;")
    assert main(["replay", str(table), str(table)]) == 2
    assert "must have different candidates for seed 0" in capsys.readouterr().err


def test_replay_shows_each_strategy_with_each_signal_and_draws_them(table, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    command = [
        *("replay", str(table), "--strategy", "lsh", "--strategy", "successive_halving", "--eta", "2"),
        *("--strategy", "random", "--signal", "loss", "--signal", "blend", "--proposer", "random"),
        *("--repeats", "20", "--picture", "regret.png", "--json"),
    ]
    assert main(command) == 0
    output = capsys.readouterr().out
    told = json.loads(output.splitlines()[-1])
    assert [(row["strategy"], row["signal"]) for row in told["results"]] == [
        *(("lsh", "loss"), ("lsh", "blend")),
        *(("successive_halving", "loss"), ("successive_halving", "blend")),
        ("random", None),
    ]
    assert told["metric"] == "squared error"
    assert told["rows"] == 8
    for row in told["results"]:
        assert row["regret_90"] >= row["regret_median"] >= 0
        assert row["repeats"] == 20
        assert row["settings"]["candidates"] == 4
    assert told["results"][-1]["epochs"] == 4 * 5
    assert (tmp_path / "regret.png").read_bytes().startswith(b"\x89PNG")
    assert all(len(line) <= 100 for line in output.splitlines()[:-1])


def test_a_search_records_a_table_by_training_the_eliminated_on_and_its_result_stays(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    command = ["search", TASK, "--workers", "1", "--json", "--out"]
    assert main([*command, "plain"]) == 0
    plain = _last_line(capsys)
    assert main([*command, "recorded", "--record", "tiny.npz"]) == 0
    recorded = _last_line(capsys)
    assert recorded["table"] == "tiny.npz"
    assert (recorded["best"]["metric"], recorded["epochs_spent"]) == (
        plain["best"]["metric"],
        plain["epochs_spent"],
    )
    rows = read_table("tiny.npz").runs[0]
    assert len(rows.configurations) == len(plain["candidates"]) > 4  # inserted ones too
    assert {len(epochs) for epochs in rows.candidates} == {1 + 5}


def test_without_names_a_replay_takes_every_strategy_that_the_table_serves(table, capsys):
    assert main(["replay", str(table), "--proposer", "random", "--repeats", "3", "--json"]) == 0
    told = _last_line(capsys)
    signals = ("training_losses", "loss", "spectrum", "mean_exponent")
    assert [(row["strategy"], row["signal"]) for row in told["results"]] == [
        *(("lsh", signal) for signal in signals),
        *(("successive_halving", signal) for signal in signals),
        *(("hyperband", signal) for signal in signals),
        ("full", None),
    ]
    # Of 5 epochs; hyperband is left with less than eta times as many.
    assert main(["replay", str(table), "--first-epochs", "3", "--repeats", "3", "--json"]) == 0
    output = capsys.readouterr().out
    assert "hyperband is left out: final_epochs must be at least" in output
    assert {row["strategy"] for row in json.loads(output.splitlines()[-1])["results"]} == {
        *("lsh", "successive_halving", "full")
    }


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--first-epochs", "5", "final_epochs must be at least"),
        ("--history", "nonsense", "unknown history 'nonsense'"),
    ],
)
def test_without_names_a_value_that_serves_no_strategy_is_refused(table, option, value, message, capsys):
    assert main(["replay", str(table), option, value, "--repeats", "3"]) == 2
    output = capsys.readouterr()
    assert message in output.err
    assert "left out" not in output.out


def test_a_search_takes_every_strategy_of_the_list(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for strategy, created in (("successive_halving", 4), ("hyperband", 5), ("full", 4), ("random", 4)):
        command = ["search", TASK, "--strategy", strategy, "--plan", "--json"]
        assert main(command) == 0
        plan = _last_line(capsys)
        assert plan["epochs_full"] == 5 * created
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["search", "--strategy", "hyperband", "--candidates", "9"],
            "candidates means nothing to the strategy",
        ),
        (["search", "--strategy", "random", "--proposer", "tpe"], "proposer means nothing to the strategy"),
        (["search", "--eta", "2"], "eta means nothing to the strategy 'lsh'"),
        (["search", TASK, "--history", "none"], "unknown history 'none'"),
        (["record", TASK, "--strategy", "lsh", "--out", "t.npz"], "--strategy lsh eliminates some"),
        (
            ["record", TASK, "--from", "runs/x", "--out", "t.npz"],
            "trains nothing, and a task is for training",
        ),
        (["record", "--from", "runs/x", "--seed", "1", "--out", "t.npz"], "and --seed is for training"),
        (["record", "--from", "runs/x", "--space", "wide", "--out", "t.npz"], "and --space is for training"),
        (["record", "--from", "runs/x", "--overwrite", "--out", "t.npz"], "and --overwrite is for training"),
        (["record", "--from", "runs/x", "--plan", "--out", "t.npz"], "and --plan is for training"),
        (["record", TASK, "--out", "."], "--out must be a file"),
        (["record", "--from", "nowhere", "--out", "t.npz"], "must hold journal.jsonl"),
        (["replay", "missing.npz"], "a table must be a readable file, got missing.npz"),
        (["replay", "TABLE", "--strategy", "lhs"], "unknown strategy 'lhs'; did you mean 'lsh'"),
        (["replay", "TABLE", "--signal", "spectre"], "unknown signal 'spectre'; did you mean 'spectrum'"),
        (["replay", "TABLE", "--repeats", "0"], "repeats must be at least 1, got 0"),
        (
            ["replay", "TABLE", "--strategy", "lsh", "--strategy", "full", "--eta", "3"],
            "eta means nothing to the strategies lsh, full",
        ),
        (["search", TASK, "--record", "t.npz", "--audit", "1"], "--record audits all of the eliminated"),
        (["search", TASK, "--record", "."], "--record must be a file"),
        (["replay", "TABLE", "--strategy", "full", "--eta", "3"], "eta means nothing to the strategy full"),
        (["replay", "TABLE", "--strategy", "full", "--candidates", "20"], "table has 8 rows"),
        (
            ["replay", "TABLE", "--spectrum-dims", "0"],
            "spectrum_dims must be a whole number of at least 1, got 0",
        ),
        (
            ["replay", "TABLE", "--spectrum-dims", "3", "--signal", "loss"],
            "--spectrum-dims is for a signal with a PCA space, got loss",
        ),
        (
            ["replay", "TABLE", "--spectrum-dims", "3", "--strategy", "full"],
            "--spectrum-dims means nothing to the strategy full",
        ),
        (["record", TASK, "--plan", "--overwrite", "--out", "t.npz"], "--plan writes nothing"),
        (["record", "reber-graph", "--space", "graphs", "--out", "t.npz"], "a table is of one network"),
        (["search", "reber-graph", "--space", "graphs", "--record", "t.npz"], "a table is of one network"),
        (["replay", "TABLE", "--final-epochs", "4"], "must have the table's final_epochs, 5"),
    ],
)
def test_wrong_input_exits_with_2_says_what_to_do_and_writes_nothing(
    table, tmp_path, monkeypatch, capsys, arguments, message
):
    monkeypatch.chdir(tmp_path)
    assert main([str(table) if word == "TABLE" else word for word in arguments]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", [["record", "--out"], ["search", "--record"]])
def test_a_searched_sparsity_makes_no_table_and_is_told_before_training(
    command, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    Path("run.toml").write_text("[space]\nsparsity = [0.5, 0.9]\nsparsity_weight = 0.1\n")
    assert main([*command, "t.npz", TASK, "--config", "run.toml", "--workers", "1"]) == 2
    assert "a table is of one sparsity" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["run.toml"]


def test_a_run_that_was_extended_by_epochs_makes_no_table_unless_it_begins_anew(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    search = ["search", TASK, "--workers", "1", "--candidates", "3", "--final-epochs", "2", "--out", "run"]
    assert main(search) == 0
    assert main(["extend", "run", "--final-epochs", "3", "--workers", "1"]) == 0
    journal = Path("run/journal.jsonl").read_bytes()
    assert main([*search, "--record", "t.npz"]) == 2
    assert "was extended by final epochs" in capsys.readouterr().err
    assert Path("run/journal.jsonl").read_bytes() == journal
    assert main([*search, "--record", "t.npz", "--overwrite"]) == 0
    assert read_table("t.npz").num_rows == 3


def test_a_table_that_cannot_be_made_after_all_is_told_after_result_and_report(tmp_path, monkeypatch, capsys):
    def refuse(folders):
        raise InputError("no table")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("hyperprune.hypersearch.table_of_runs.record_table", refuse)
    command = ["search", TASK, "--workers", "1", "--candidates", "2", "--final-epochs", "1", "--out", "run"]
    assert main([*command, "--record", "t.npz"]) == 2
    told = capsys.readouterr()
    assert "report:  run/report.html" in told.out
    assert "table:" not in told.out
    assert told.err.endswith("hyperprune: error: no table\n")


def test_a_records_file_names_task_and_run_folder_and_its_strategy_is_left_out_with_a_note(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    Path("run.toml").write_text(
        f"task = '{TASK}'\nout = 'mine'\n[search]\nstrategy = 'lsh'\ncandidates = 2\nfinal_epochs = 1\n"
    )
    assert main(["record", "--config", "run.toml", "--workers", "1", "--out", "t.npz"]) == 0
    assert "note: strategy = 'lsh' in [search] is left out" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "run.toml", "t.npz"]
    Path("run.toml").write_text(f"task = '{TASK}'\n[search]\nstrategy = 'random'\ncandidates = 2\n")
    assert main(["record", "--config", "run.toml", "--workers", "1", "--out", "u.npz"]) == 0
    assert read_state(Path("runs/tiny_task-record")).identity["strategy"]["name"] == "random"
    assert "note: strategy" not in capsys.readouterr().err


def test_dimensions_are_for_the_signals_that_have_them(table, capsys):
    command = ["replay", str(table), "--strategy", "lsh", "--repeats", "3", "--spectrum-dims", "3", "--json"]
    assert main(command) == 0
    dims = {row["signal"]: row["settings"]["spectrum_dims"] for row in _last_line(capsys)["results"]}
    assert dims == {"training_losses": None, "loss": None, "spectrum": 3, "mean_exponent": None}
