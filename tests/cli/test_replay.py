"""`record` and `replay` as a user meets them."""

import json
from pathlib import Path

import pytest

from hyperprune.cli.main import main
from hyperprune.hypersearch.table import load_table

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
    rows = load_table("tiny.npz").runs[0]
    assert len(rows.configurations) == len(plain["candidates"]) > 4  # inserted ones too
    assert {len(epochs) for epochs in rows.candidates} == {1 + 5}


def test_without_names_a_replay_takes_every_strategy_that_the_table_serves(table, capsys):
    assert main(["replay", str(table), "--proposer", "random", "--repeats", "3", "--json"]) == 0
    told = _last_line(capsys)
    signals = ("spectrum", "loss", "blend")
    assert [(row["strategy"], row["signal"]) for row in told["results"]] == [
        *(("lsh", signal) for signal in signals),
        *(("successive_halving", signal) for signal in signals),
        *(("hyperband", signal) for signal in signals),
        ("full", None),
    ]
    assert main(["replay", str(table), "--first-epochs", "5", "--repeats", "3", "--json"]) == 0
    output = capsys.readouterr().out
    assert "lsh is left out: final_epochs must be at least" in output
    assert [row["strategy"] for row in json.loads(output.splitlines()[-1])["results"]] == ["full"]


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
