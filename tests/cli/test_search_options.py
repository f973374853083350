"""The command line's plan, spaces, references and parts of one's own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hyperprune.cli.main import main
from hyperprune.hypersearch.estimate import estimate
from hyperprune.hypersearch.executor import Execution, num_places
from hyperprune.hypersearch.observer import SilentObserver
from hyperprune.hypersearch.proposers import PROPOSERS
from hyperprune.hypersearch.run_folder import RunFolder, read_state
from hyperprune.hypersearch.search import search
from hyperprune.hypersearch.signals import SIGNALS
from hyperprune.hypersearch.spaces import SPACES, space_from
from hyperprune.hypersearch.strategies import LSH, STRATEGIES, Full
from hyperprune.training.timing import EpochCost, _time
from tiny_task import TinyTask

ROOT = Path(__file__).parents[2]
TASK = str(ROOT / "tests" / "tiny_task.py") + ":task"


def test_a_plan_says_what_each_round_takes_and_how_its_time_was_estimated(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    command = [
        "search",
        TASK,
        "--candidates",
        "8",
        "--final-epochs",
        "20",
        "--workers",
        "2",
        "--plan",
        "--json",
    ]
    assert main(command) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["round", "to", "epoch", "candidates", "kept", "inserted", "epochs"]
    assert lines[2].split() == ["1", "1", "8", "4", "2", "8"]
    end = next(line for line in lines if line.strip().startswith("end"))
    assert end.split()[:3] == ["end", "20", "2"]
    plan = json.loads(last)
    assert int(end.split()[3]) + sum(row["epochs"] for row in plan["rounds"]) == plan["epochs"]
    text = " ".join(" ".join(lines).split())
    assert "scaled up from 3 of 4 batches of the dense model's first epoch and a short spectrum" in text
    parts = plan["seconds_per_epoch"]
    assert all(parts[name] > 0 for name in ("training", "evaluation", "spectrum"))
    in_turn = int(text.split(" epochs in turn")[0].split()[-1])
    assert plan["seconds"] == pytest.approx(in_turn * sum(parts.values()))
    assert plan["epochs"] / 2 <= in_turn <= plan["epochs"] + 20  # two workers, and the reference's epochs
    assert list(tmp_path.iterdir()) == []


def test_a_plan_names_the_random_search_of_as_many_epochs(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["search", TASK, "--candidates", "8", "--final-epochs", "20", "--plan", "--json"]) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    rival = next(line for line in lines if "drawn at random" in line).split("(")[1].split(")")[0]
    assert main(["search", TASK, *rival.split(), "--final-epochs", "20", "--plan", "--json"]) == 0
    *lines, of_rival = capsys.readouterr().out.splitlines()
    plan, random = json.loads(last), json.loads(of_rival)
    assert plan["epochs"] - 20 < random["epochs"] == random["epochs_full"] <= plan["epochs"]
    assert not any("drawn at random" in line for line in lines)


def test_the_seconds_of_a_long_epoch_are_told_in_full(monkeypatch, capsys):
    cost = EpochCost(train=1234.5, evaluate=99.96, spectrum=0.123, num_timed=3, num_batches=9)
    monkeypatch.setattr("hyperprune.hypersearch.estimate.time_epoch", lambda *_, **__: cost)
    assert main(["search", TASK, "--plan"]) == 0
    assert "at 1335 s (training 1234, evaluation 100, spectrum 0.12)" in capsys.readouterr().out


def test_epochs_in_turn_are_those_of_the_busiest_worker_round_by_round():
    # Round 1: five and the reference, an epoch each; then 2 old + 1 new, 1 and 2, reference 1; …
    lsh = LSH(candidates=5, first_epochs=1, round_epochs=1, final_epochs=4, signal="loss")
    full = Full(candidates=3, final_epochs=4)
    task = TinyTask()
    places = {"threads": 1, "device": "cpu"}
    assert estimate(task, full, workers=1, **places).epochs_in_turn == 16
    assert estimate(task, full, workers=2, **places).epochs_in_turn == 8
    assert estimate(task, full, workers=9, **places).epochs_in_turn == 4
    one, two = (estimate(task, lsh, workers=workers, **places) for workers in (1, 2))
    assert one.epochs_in_turn == one.epochs
    assert one.epochs / 2 <= two.epochs_in_turn < one.epochs
    given = estimate(task, lsh, workers=1, reference_epochs=3, **places)
    assert one.epochs - given.epochs == 3


def test_a_plan_counts_the_workers_that_the_search_will_have(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert num_places(Execution(gpus_per_candidate=0.25), "cuda") == 8
    assert num_places(Execution(), "cuda:1") == 1
    assert num_places(Execution(workers=3), "cpu") == 3
    assert num_places(Execution(executor="ray"), "cpu") is None


def test_a_plan_for_a_clusters_gpus_needs_none_here(monkeypatch, capsys):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert main(["search", TASK, "--plan", "--executor", "ray", "--device", "cuda", "--workers", "2"]) == 0
    told = capsys.readouterr()
    assert "estimated time" in told.out
    assert "note: the time is for the cpu of this machine, which has no cuda" in told.err


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (
            ["--record", "t.npz"],
            "the audit for the table takes 11 more",
        ),  # 5 candidates of 5 epochs, 14 spent
        (["--audit", "1"], "the audit takes about 4 more"),  # one of the three eliminated
    ],
)
def test_a_plan_tells_what_an_audit_takes(options, told, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["search", TASK, "--plan", "--json", *options]) == 0
    out = capsys.readouterr().out
    assert told in out
    assert json.loads(out.splitlines()[-1])["epochs_audit"] == int(told.split()[-2])
    assert list(tmp_path.iterdir()) == []


def test_a_plan_tells_that_the_search_will_not_take_its_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    plan = ["search", TASK, "--workers", "1", "--out", "run", "--plan"]
    Path("run").mkdir()
    Path("run/notes.txt").write_text("")
    assert main(plan) == 0
    out, err = capsys.readouterr()
    assert "with 1 worker, without the audit" in out
    assert "will be refused: a run folder must be empty or hold a run, and run holds 'notes.txt'" in err
    assert [path.name for path in Path("run").iterdir()] == ["notes.txt"]
    Path("run/notes.txt").unlink()
    assert main(plan[:-1]) == 0
    capsys.readouterr()
    assert main(plan) == 0
    assert capsys.readouterr().err == ""
    journal = Path("run/journal.jsonl").read_bytes()
    assert main([*plan, "--seed", "1"]) == 0
    told = capsys.readouterr().err
    assert "note: the search itself will be refused: run holds a run with another configuration" in told
    assert told.endswith("  seed: 0, 1\n")
    assert Path("run/journal.jsonl").read_bytes() == journal


@pytest.mark.parametrize(
    ("options", "noted"),
    [
        (["--strategy", "full", "--proposer", "tpe"], True),
        (["--strategy", "full", "--proposer", "random"], False),
        (["--strategy", "successive_halving", "--proposer", "atpe"], True),
        (["--strategy", "hyperband", "--proposer", "tpe"], False),
        (["--proposer", "tpe"], False),
        (["--proposer", "tpe", "--candidates", "3"], True),  # of which a quarter is none
        (["--candidates", "3"], False),  # nobody asked for it
    ],
)
def test_a_proposer_that_can_learn_nothing_is_told_of(options, noted, capsys):
    assert main(["search", TASK, "--plan", *options]) == 0
    assert ("draws like random here" in capsys.readouterr().err) == noted


def test_a_space_named_here_leaves_out_the_branches_of_the_file(tmp_path, capsys):
    path = tmp_path / "run.toml"
    path.write_text("[[space.branch]]\nmethod = 'rigl'\ndeath_rate = [0.3, 0.4]\n")
    assert main(["search", TASK, "--plan", "--config", str(path), "--space", "paper"]) == 0
    assert "note: [[space.branch]] means nothing to --space paper: left out" in capsys.readouterr().err
    path.write_text("[search]\neta = 3\n")
    assert main(["search", TASK, "--plan", "--config", str(path)]) == 2
    assert "eta in [search] means nothing to the strategy 'lsh'" in capsys.readouterr().err


def test_batches_are_timed_without_the_first_and_until_the_budget_is_spent(monkeypatch):
    now = iter([0.0, 100.0, 101.0, 103.0, 109.0, 110.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(now))
    assert _time(range(99), 2.5) == (1.5, 2)  # 101 - 100 and 103 - 101; the first took 100
    now = iter([0.0, 4.0])
    assert _time(range(1), 5.0) == (4.0, 1)  # there is no other


def test_the_status_of_a_run_that_has_only_been_begun_is_that_it_starts(tmp_path, capsys):
    with RunFolder(tmp_path / "run"):  # its process is still looking at data, say
        assert main(["status", str(tmp_path / "run"), "--json"]) == 0
        assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {
            "state": "starting",
            "pid": os.getpid(),
        }
    assert main(["status", str(tmp_path / "run")]) == 2


def test_the_status_of_a_finished_run_that_is_audited_is_that_somebody_works_on_it(tmp_path, capsys):
    class Looks(SilentObserver):
        def epoch(self, state, key, record):
            if state.finished and not state.audited:
                raise AssertionError("trained after the end without an audit")
            if state.finished and record.epoch == 3:
                assert main(["status", str(tmp_path), "--json"]) == 0

    lsh = LSH(candidates=3, first_epochs=1, round_epochs=1, final_epochs=3, signal="loss")
    search(TinyTask(), lsh, folder=tmp_path, audit=1, observer=Looks())
    first, *_, last = capsys.readouterr().out.splitlines()
    assert json.loads(last)["pid"] == os.getpid()
    assert first == f"{tmp_path}: finished; process {os.getpid()} still works on it"
    assert main(["status", str(tmp_path)]) == 0
    assert capsys.readouterr().out.startswith(f"{tmp_path}: finished\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--plan", "--overwrite"], "--plan writes nothing, and --overwrite deletes an earlier run"),
        (["--plan", "--sparsity", "1.5"], r"sparsity must lie in [0, 1), got 1.5"),
        (["--plan", "--gpus-per-candidate", "0.5"], "gpus_per_candidate needs a GPU"),
        (["--plan", "--audit", "9"], "audit must be at most the number of eliminated candidates, 3"),
        (["--plan", "--executor", "rey"], "unknown executor 'rey'; did you mean 'ray'"),
        (["--space", "wyde"], "unknown space 'wyde'; did you mean 'wide'"),
        (["--spectrum-dims", "3"], "spectrum_dims means nothing to the signal 'training_losses'"),
        (
            ["--signal", "spectrum", "--spectrum-dims", "0"],
            "spectrum_dims must be a whole number of at least",
        ),
        (["--signal", "loss", "--spectrum-dims", "2"], "spectrum_dims means nothing to the signal 'loss'"),
        (["--spectrum-state", "cell"], "unknown spectrum_state 'cell'"),
        (["--audit", "9"], "audit must be at most the number of eliminated candidates, 3"),
        (
            ["--strategy", "full", "--audit", "1"],
            "audit must be at most the number of eliminated candidates, 0",
        ),
        (["--reference", "nowhere"], "must hold journal.jsonl"),
        (["--plan", "--reference", "nowhere"], "must hold journal.jsonl"),
        (["--plan", "--proposer", "grid", "--candidates", "25", "--final-epochs", "90"], "grid holds 24"),
        (["--strategy", "successive_halving", "--final-epochs", "1"], "must eliminate somebody"),
        (["--final-epochs", "1"], "final_epochs must be at least the 2 epochs of the selection"),
    ],
)
def test_wrong_options_exit_with_2_and_write_nothing(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert main(["search", TASK, "--workers", "1", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[search]\nspectrum_dims = 'two'", "spectrum_dims must be a whole number or left out, got 'two'"),
        ("audit = 'all'", "audit must be a whole number, got 'all'"),
        ("reference = 5", "reference must be a text or left out, got 5"),
        ("sparsity = 0.5\n[space]\nsparsity = [0.1, 0.9]\nsparsity_weight = 1", "sparsity 0.5 was given too"),
    ],
)
def test_a_wrong_configuration_file_exits_with_2(tmp_path, monkeypatch, capsys, text, message):
    monkeypatch.chdir(tmp_path)
    Path("run.toml").write_text(text)
    assert main(["search", TASK, "--workers", "1", "--config", "run.toml"]) == 2
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["run.toml"]


def test_options_and_file_reach_the_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("run.toml").write_text(
        "audit = 1\n[search]\nspectrum_dims = 3\nsignal = 'spectrum_joint'\nfinal_epochs = 3\n"
        "[space]\nname = 'wide'\n"
    )
    command = ["search", TASK, "--workers", "1", "--config", "run.toml", "--spectrum-state", "full"]
    assert main([*command, "--space", "sparse_to_sparse", "--out", "one", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    identity = read_state(Path("one")).identity
    assert identity["strategy"]["spectrum_dims"] == 3
    assert identity["strategy"]["spectrum_state"] == "full"
    assert identity["strategy"]["signal"] == "spectrum_joint"
    drawn = {branch.method for branch in space_from(identity["space"]).branches}
    # Without the one that the task's optimizer cannot serve.
    assert drawn == {branch.method for branch in SPACES["sparse_to_sparse"]().branches} - {"snfs"}
    assert sum(row["audited"] for row in summary["candidates"]) == 1
    assert summary["epochs_audit"] > 0
    capsys.readouterr()
    assert main([*command, "--reference", "one", "--out", "two", "--plan", "--json"]) == 0
    planned, notes = capsys.readouterr()
    assert json.loads(planned.splitlines()[-1])["epochs_reference"] == 0
    assert "the dense reference takes 3 more, 3 of them given" in planned
    assert "note: snfs is left out of the space" in notes
    assert main([*command, "--reference", "one", "--out", "one", "--plan"]) == 2
    assert main([*command, "--reference", "one", "--out", "two"]) == 0
    assert read_state(Path("two")).header["provenance"]["reference"] == "copied from one"


@pytest.mark.long
def test_the_example_of_an_own_space_runs(tmp_path, capsys):
    config = str(ROOT / "examples" / "own-space.toml")
    assert main(["search", "--config", config, "--out", str(tmp_path), "--workers", "1", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert {row["configuration"]["method"] for row in summary["candidates"]} == {"selfish_rnn", "rigl"}
    weighed = [row["weighed"] for row in summary["candidates"] if row["outcome"] == "finalist"]
    assert weighed == sorted(weighed)
    first = summary["candidates"][0]
    assert first["weighed"] == pytest.approx(first["metric"] * (1 + 0.1 * (1 - first["sparsity"])))


def test_the_example_of_own_parts_runs_by_their_names(tmp_path, monkeypatch, capsys):
    # In a process of its own, since the example adds to the tables; here only what it prints is looked at.
    config = tmp_path / "run.toml"
    config.write_text("[search]\nkeep = 1\ncut_epoch = 2\n")
    task = str(ROOT / "examples" / "own_parts.py") + ":task"
    names = ["--strategy", "one_cut", "--signal", "gap", "--proposer", "ends", "--space", "gentle"]
    command = [sys.executable, "-m", "hyperprune", "search", task, *names, "--config", str(config)]
    done = subprocess.run(
        [*command, "--candidates", "3", "--final-epochs", "3", "--workers", "1", "--out", "run", "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    rates = sorted(row["configuration"]["death_rate"] for row in summary["candidates"])
    assert rates == [0.05, 0.17, 0.3]  # low, middle to two digits, high
    assert [row["epochs"] for row in summary["candidates"]] == [3, 2, 2]
    state = read_state(tmp_path / "run")
    assert state.identity["strategy"]["name"] == "one_cut"
    entry = state.rounds[0]
    for key, value in entry.signals.items():
        record = state[key].epochs[2]
        assert value == record.valid_loss - (record.train_loss or 0.0)
    for table, name in ((SIGNALS, "gap"), (PROPOSERS, "ends"), (STRATEGIES, "one_cut"), (SPACES, "gentle")):
        assert name not in table


class Endless(LSH):
    name = "endless"

    def run(self, arena):
        keys = arena.admit(self.proposer, self.candidates, round_number=0)
        while True:
            keys = arena.advance(keys, 1)


class Nobody(LSH):
    name = "nobody"

    def run(self, arena):
        arena.advance(arena.admit(self.proposer, self.candidates, round_number=0), 1)
        return []


class Short(LSH):
    name = "short"

    def run(self, arena):
        return arena.advance(arena.admit(self.proposer, self.candidates, round_number=0), 1)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Endless, "must come to its end"),
        (Nobody, "must end with finalists .* 'nobody' ends with 0"),
        (Short, "'short' ends with 4, 4 of them trained to another epoch"),
    ],
)
def test_a_strategy_of_ones_own_that_does_not_end_with_trained_finalists_is_refused(kind, message):
    from hyperprune.errors import InputError

    with pytest.raises(InputError, match=message):
        kind(candidates=4, final_epochs=9)
