"""Wrong use of the command line: told in one sentence, before any work, exit code 2; pipes that close."""

import argparse
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hyperprune.cli import options as shared
from hyperprune.cli.main import build_parser, main
from hyperprune.cli.studies import common
from hyperprune.hypersearch.journal import Journal

TASK = f"{Path(__file__).parents[1] / 'tiny_task.py'}:task"


def test_the_help_of_every_command_can_be_shown():
    def parsers(parser):
        yield parser
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                for choice in action.choices.values():
                    yield from parsers(choice)

    found = list(parsers(build_parser()))
    assert len(found) > 20
    for parser in found:
        assert "usage: hyperprune" in parser.format_help()


@pytest.mark.parametrize("arguments", [["tasks"], ["search", "--help"], ["reproduce", "--list"]])
def test_a_reader_who_leaves_early_is_no_error(arguments):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    process = subprocess.Popen(
        [sys.executable, "-m", "hyperprune", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
    )
    assert process.stdout is not None
    process.stdout.close()  # before anything is written
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, b"")


def test_a_reader_who_leaves_before_the_work_is_done_is_told_to_the_shell(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "hyperprune", "search", TASK, "--workers", "1", "--out", "run"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert process.stdout is not None
    process.stdout.close()  # before progress is told
    assert process.wait(timeout=60) == 141


@pytest.mark.parametrize(
    ("study", "module"),
    [
        ("methods", "methods_study"),
        ("jacobian", "jacobian_study"),
        ("jacobian-language", "jacobian_language"),
        ("prune-regain", "prune_regain"),
        ("random-structure", "random_structure"),
        ("calibrate", "calibration"),
        ("record", "recording.scales"),
    ],
)
def test_the_help_of_a_study_names_its_scales(study, module, capsys):
    with pytest.raises(SystemExit):
        main(["reproduce", study, "--help"])
    scales = importlib.import_module(f"hyperprune.experiments.{module}").SCALES
    assert f"--scale NAME of {', '.join(scales)} (small)" in " ".join(capsys.readouterr().out.split())


def test_a_list_of_studies_runs_none(capsys):
    assert main(["reproduce", "--list", "methods"]) == 2
    assert "--list prints the studies and runs none" in capsys.readouterr().err


@pytest.mark.parametrize(
    "study", ["methods", "jacobian", "jacobian-language", "prune-regain", "random-structure"]
)
def test_records_of_another_study_are_refused(study, tmp_path, capsys):
    path = tmp_path / "records.jsonl"
    path.write_text('{"key": "one", "strange": 1}\n')
    assert main(["reproduce", study, "--from", str(path)]) == 2
    assert "must hold records of this study" in capsys.readouterr().err


def test_the_evidence_names_the_packages_that_it_lacks_and_the_remedy(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(common, "find_spec", lambda name: None if name in ("matplotlib", "sklearn") else name)
    assert main(["reproduce", "evidence"]) == 2
    remedy = "matplotlib and sklearn cannot be imported; pip install -e '.[studies]' in the project's folder"
    assert remedy in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_study_refuses_a_strange_device_and_folder_of_data_before_it_begins(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for study in ("methods", "jacobian"):
        assert main(["reproduce", study, "--device", "foo"]) == 2
        assert "device must be 'cpu' or 'cuda'" in capsys.readouterr().err
    assert main(["reproduce", "methods", "--data-dir", "nowhere"]) == 2
    assert main(["search", "ptb-mini", "--plan", "--data-dir", "nowhere"]) == 2
    assert capsys.readouterr().err.count("--data-dir must be an existing folder, nowhere is none") == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "command", [["spectrum", "digits"], ["prune-at-init", "digits"], ["replay", "x.npz"]]
)
@pytest.mark.parametrize("name", ["nosuffix", "picture.foo"])
def test_a_picture_needs_a_name_that_says_its_format(command, name, capsys):
    assert main([*command, "--picture", name]) == 2
    assert f"--picture must name a picture file, as in kept.png, got {name}" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["spectrum", TASK], ["prune-at-init", TASK, "--sparsity", "0.5"]])
def test_a_measurement_is_made_on_the_device_that_is_asked_for(command, monkeypatch, capsys):
    assert main([*command, "--device", "foo"]) == 2
    assert "device must be 'cpu' or 'cuda'" in capsys.readouterr().err
    monkeypatch.setattr(
        shared, "device_of", lambda options: "meta"
    )  # a device of every machine, without data
    with pytest.raises(Exception, match="meta"):
        main([*command, "--device", "meta"])


@pytest.mark.parametrize("seconds", ["inf", "1e12", "0", "nan"])
def test_a_watch_looks_now_and_then(seconds, tmp_path, capsys):
    assert main(["status", str(tmp_path), "--watch", seconds]) == 2
    assert "watch must be above 0 seconds and at most 86400" in capsys.readouterr().err


def test_a_table_that_cannot_be_written_is_told_before_training(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    for command in (["search", "--record"], ["record", "--out"]):
        assert main([*command, str(tmp_path / "file" / "table.npz")]) == 2
        assert "must be a file that can be written" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux that is always full")
@pytest.mark.parametrize(
    ("command", "name"),
    [
        (["spectrum", TASK, "--save"], "full.npz"),
        (["spectrum", TASK, "--picture"], "full.png"),
        (["prune-at-init", TASK, "--sparsity", "0.5", "--save"], "full.npz"),
    ],
)
def test_a_full_disk_is_no_wrong_input(command, name, tmp_path, capsys):
    (tmp_path / name).symlink_to("/dev/full")
    assert main([*command, str(tmp_path / name)]) == 1
    assert "nothing is lost: make room, and the same command goes on" in capsys.readouterr().err


def test_an_option_of_another_strategy_names_those_that_know_it(tmp_path, capsys):
    assert main(["search", "--eta", "3", "--out", str(tmp_path / "run")]) == 2
    assert "use --strategy successive_halving or hyperband" in capsys.readouterr().err


def test_a_strategy_named_here_leaves_out_the_numbers_of_the_files(tmp_path, capsys):
    path = tmp_path / "lsh.toml"
    path.write_text("[search]\nstrategy = 'lsh'\ncandidates = 2\nfirst_epochs = 1\nfinal_epochs = 1\n")
    command = ["record", "digits", "--config", str(path), "--out", str(tmp_path / "t.npz"), "--plan"]
    assert main(command) == 0
    output = capsys.readouterr()
    assert "full: 2 candidates, 1 final epoch\n" in output.out
    assert "note: first_epochs in [search] means nothing to --strategy full: left out" in output.err


def test_a_damaged_journal_is_told(tmp_path, capsys):
    run = tmp_path / "run"
    assert main(["train", "digits", "--method", "dense", "--epochs", "1", "--out", str(run)]) == 0
    capsys.readouterr()
    assert main(["status", str(run)]) == 0
    assert "not whole" not in capsys.readouterr().out
    journal = run / "journal.jsonl"
    data = bytearray(journal.read_bytes())
    end = data.rindex(b"\n", 0, len(data) - 1) + 1  # of the last line but one
    data[end + 12] ^= 1
    journal.write_bytes(bytes(data))
    assert main(["status", str(run)]) == 0
    out = capsys.readouterr().out
    assert f"the journal's last {len(data) - end} bytes are not whole" in out
    assert journal.read_bytes() == bytes(data)
    journal.write_bytes(b"X" + bytes(data))  # nothing whole is left
    assert main(["status", str(run)]) == 2
    assert "has none; give the run's command again, which begins anew and sets" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("event", "message"),
    [
        ({"event": "run", "identity": {"format": 0}}, "a run folder must be of format 1, and"),
        ({"event": "run", "identity": {"format": 1}}, "has other fields (KeyError: 'strategy')"),
        ({"event": "merged"}, "its journal tells of 'merged'"),
        ({"event": "segment", "key": "dense"}, "has other fields (KeyError: 'epochs')"),
        ({"event": "candidates", "round": 0, "entries": [{"name": "a"}]}, "has other fields (TypeError"),
    ],
)
def test_a_journal_of_another_version_is_refused(tmp_path, capsys, event, message):
    header = {"event": "run", "identity": {"format": 1}}
    journal = Journal(tmp_path / "journal.jsonl")
    for record in ([] if event["event"] == "run" else [header]) + [event]:
        journal.append(record)
    journal.close()
    before = (tmp_path / "journal.jsonl").read_bytes()
    for command in (["status"], ["report"], ["train", TASK, "--method", "dense", "--epochs", "1", "--out"]):
        assert main([*command, str(tmp_path)]) == 2
        assert message in capsys.readouterr().err
    assert (tmp_path / "journal.jsonl").read_bytes() == before


def test_two_outputs_into_one_file_are_refused(tmp_path, capsys):
    run, same = tmp_path / "run", str(tmp_path / "same.png")
    assert main(["train", TASK, "--method", "set_", "--epochs", "1", "--out", str(run)]) == 0
    assert main(["report", str(run), "--html", same, "--jsonl", same]) == 2
    assert "--html and --jsonl must name different files" in capsys.readouterr().err
    assert main(["spectrum", TASK, "--picture", same, "--save", same]) == 2
    assert "--picture and --save must name different files" in capsys.readouterr().err
    assert not Path(same).exists()


def test_a_run_that_failed_for_good_is_not_told_to_go_on(tmp_path, capsys):
    run = tmp_path / "run"
    config = tmp_path / "wild.toml"
    config.write_text("[training]\nlearning_rate = 1e30\n")
    small = ["--candidates", "2", "--first-epochs", "1", "--final-epochs", "2"]
    assert main(["search", TASK, "--config", str(config), *small, "--out", str(run)]) == 1
    capsys.readouterr()
    assert main(["status", str(run)]) == 0
    shown = capsys.readouterr().out
    assert "failed: the dense reference could not be trained (" in shown
    assert "begin anew with --overwrite" in shown
    assert "dense, failed" in shown
    assert main(["report", str(run)]) == 0
    told = (run / "report.md").read_text()
    assert "This run failed: the dense reference could not be trained" in told
    assert "goes on" not in told


def test_output_that_was_closed_before_the_start_loses_nothing():
    ended = subprocess.run(
        ["sh", "-c", f'"{sys.executable}" -m hyperprune methods >&-'], capture_output=True, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, b"")


def test_what_a_run_keeps_for_itself_is_no_place_for_an_export(tmp_path, capsys):
    run = tmp_path / "run"
    assert main(["train", TASK, "--method", "set_", "--epochs", "1", "--out", str(run)]) == 0
    before = (run / "journal.jsonl").read_bytes()
    for option, name in (("--jsonl", "journal.jsonl"), ("--html", "report.md"), ("--optuna", "status.json")):
        assert main(["report", str(run), option, str(run / name)]) == 2
        assert f"{option} must not be a file that a run keeps for itself" in capsys.readouterr().err
    assert main(["record", "--from", str(run), "--out", str(run / "candidates" / "t.npz")]) == 2
    assert "--out must not be a file that a run keeps for itself" in capsys.readouterr().err
    new = tmp_path / "new"  # a run yet to be made
    for command in (
        ["search", TASK, "--out", str(new), "--record"],
        ["record", TASK, "--run", str(new), "--out"],
    ):
        assert main([*command, str(new / "journal.jsonl")]) == 2
        assert f"{command[-1]} must not be a file that a run keeps for itself" in capsys.readouterr().err
    assert not new.exists()
    best = str(run / "candidates" / "c01" / "best.pt")
    for command in (["spectrum", best, "--save"], ["prune-at-init", TASK, "--criterion", "random", "--save"]):
        assert main([*command, str(run / "candidates" / "masks.npz")]) == 2
        assert "--save must not be a file that a run keeps for itself" in capsys.readouterr().err
    assert main(["spectrum", best, "--picture", str(run / "pictures" / "metric.png")]) == 2
    assert "--picture must not be a file that a run keeps for itself" in capsys.readouterr().err
    assert (run / "journal.jsonl").read_bytes() == before
    assert main(["report", str(run), "--html", str(run / "report.html")]) == 0
    assert main(["report", str(run), "--html", str(tmp_path / "new" / "page.html")]) == 0
    assert (tmp_path / "new" / "page.html").exists()


def test_data_that_are_not_there_are_told_as_that_with_several_workers_too(tmp_path, capsys):
    command = ["search", f"text:{tmp_path / 'nope'}", "--workers", "2", "--out", str(tmp_path / "run")]
    assert main(command) == 2
    message = capsys.readouterr().err
    assert "nope" in message
    assert "picklable" not in message


def test_records_that_are_no_text_are_refused(tmp_path, capsys):
    (tmp_path / "x").write_bytes(b"\xdc\x00")
    assert main(["reproduce", "methods", "--from", str(tmp_path / "x")]) == 2
    assert "records must be lines of JSON, and byte 0 of" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("sparsity = 0.5", "sparsity is the run's and no setting of a method, got 0.5 in [method]"),
        ("method = 'rigl'", "unknown key in [method], for --method set_ 'method'"),
        ("name = 'rigl'", "unknown key in [method], for --method set_ 'name'"),
        ("cls = 'rigl'", "unknown key in [method], for --method set_ 'cls'"),
        ("death_rat = 0.5", "'death_rat'; did you mean 'death_rate'"),
    ],
)
def test_a_table_of_the_method_sets_its_settings_alone(setting, message, tmp_path, capsys):
    path = tmp_path / "run.toml"
    path.write_text(f"[method]\n{setting}\n")
    command = ["train", TASK, "--method", "set_", "--sparsity", "0.9", "--config", str(path)]
    assert main([*command, "--out", str(tmp_path / "run")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_the_table_of_the_method_and_an_option_reach_the_run(tmp_path, capsys):
    path = tmp_path / "run.toml"
    path.write_text("[method]\ndeath_rate = 0.25\n")
    command = ["train", TASK, "--method", "set_", "--at-init", "magnitude", "--epochs", "1", "--json"]
    assert main([*command, "--config", str(path), "--out", str(tmp_path / "run")]) == 0
    best = json.loads(capsys.readouterr().out.splitlines()[-1])["best"]
    assert best["configuration"] == {"method": "set_", "at_init": "magnitude", "death_rate": 0.25}


@pytest.mark.parametrize(
    "option",
    [
        ["--sparsity", "0.95"],
        ["--seed", "0"],
        ["--criterion", "snip"],
        ["--save", "m.npz"],
        ["--allow-empty"],
    ],
)
def test_a_list_of_criteria_prunes_nothing(option, capsys):
    assert main(["prune-at-init", "--list", *option]) == 2
    assert f"got {option[0]} too; leave one out" in capsys.readouterr().err


@pytest.mark.parametrize(("option", "value"), [("--workers", "2"), ("--data-dir", "."), ("--device", "cpu")])
def test_tables_alone_train_nothing(option, value, tmp_path, capsys):
    command = ["reproduce", "record", "--tables-only", "--out", str(tmp_path), option, value]
    assert main(command) == 2
    assert f"{option} is for what is trained, got it with --tables-only" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--out", "--tables"])
def test_a_folder_that_cannot_be_written_to_is_told_before_a_study_begins(
    option, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    assert main(["reproduce", "record", option, "file/deeper"]) == 2
    assert f"{option} must be a folder that can be written to" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_folder_of_data_to_look_in_must_be_there(tmp_path, capsys):
    assert main(["data", "list", "--data-dir", str(tmp_path / "none")]) == 2
    assert "--data-dir must be an existing folder" in capsys.readouterr().err


def test_a_report_that_the_run_folder_does_not_take_is_told_with_a_remedy(tmp_path, capsys):
    run = tmp_path / "run"
    assert main(["train", TASK, "--method", "set_", "--epochs", "1", "--out", str(run)]) == 0
    (run / "report.md").mkdir()  # permissions would not keep root out
    assert main(["report", str(run)]) == 2
    assert "make it writable, or copy the run and report on the copy" in capsys.readouterr().err


@pytest.mark.parametrize(("command", "folder"), [("train", "runs/TASK-METHOD"), ("search", "runs/TASK")])
def test_the_help_names_the_folder_that_is_used_where_none_is_given(command, folder, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    assert f"the run folder ({folder})" in " ".join(capsys.readouterr().out.split())
