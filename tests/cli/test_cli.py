"""The command line as a user meets it: real processes, exit codes, no torch where none is needed."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hyperprune.cli.main import main

TASK = f"{Path(__file__).parents[1] / 'tiny_task.py'}:task"


def _call(*arguments, cwd, **environment):
    return subprocess.run(
        [sys.executable, "-m", "hyperprune", *arguments],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_help_names_every_command_and_loads_no_torch(tmp_path):
    code = (
        "import sys; from hyperprune.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'optuna', 'rich', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for command in ("search", "train", "spectrum", "report", "status", "tasks", "methods", "data"):
        assert f"    {command} " in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["search", "pydok"], "unknown task 'pydok'; did you mean 'pydoc'"),
        (["search", "--proposer", "tpe2"], "unknown proposer 'tpe2'; did you mean 'tpe'"),
        (["search", "--signal", "los"], "unknown signal 'los'; did you mean 'loss'"),
        (["search", "--strategy", "hlsh"], "unknown strategy 'hlsh'; did you mean 'lsh'"),
        (
            ["search", "--strategy", "full", "--round-epochs", "2"],
            "--round-epochs means nothing to the strategy",
        ),
        (["search", TASK, "--sparsity", "1"], r"sparsity must lie in [0, 1), got 1.0"),
        (["search", TASK, "--candidates", "1"], "candidates must be a whole number of at least 2, got 1"),
        (["search", TASK, "--final-epochs", "1"], "final_epochs must be at least the"),
        (["search", TASK, "--device", "cuda"], "needs a CUDA GPU"),
        (["search", "text:missing.txt"], "missing.txt"),
        (["search", "missing.py:task"], "a task file must exist, and missing.py does not"),
        (
            ["search", TASK.replace(":task", ":taks")],
            "unknown name in tiny_task.py 'taks'; did you mean 'task'",
        ),
        (["search", "--config", "missing.toml"], "missing.toml: No such file"),
        (["train", TASK, "--method", "magic"], "unknown method 'magic'"),
        (["status", "nowhere"], "must hold journal.jsonl"),
        (["report", "nowhere"], "must hold journal.jsonl"),
        (["spectrum", "nowhere.pt"], "nowhere.pt: No such file"),
        (["data", "fetch"], "needs the name of a data set"),
        (["data", "list", "ptb"], "data list takes no name, got 'ptb'"),
        (["train", TASK, "--method", "dense", "--sparsity", "0.5"], "the method 'dense' prunes nothing"),
        (
            ["train", TASK, "--method", "static", "--epochs", "0"],
            "epochs must be a whole number of at least 1, got 0",
        ),
        (["search", TASK, "--device", "meta"], "device must be 'cpu' or 'cuda'"),
        (
            ["search", TASK, "--proposer", "grid", "--candidates", "30", "--final-epochs", "90"],
            "grid holds 24",
        ),
        (["data", "fetch", "ptb2"], "ptb2"),
    ],
)
def test_wrong_input_exits_with_2_says_what_to_do_and_writes_nothing(
    tmp_path, monkeypatch, capsys, arguments, message
):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sparsty = 0.5", "unknown key in run.toml 'sparsty'; did you mean 'sparsity'"),
        ("[search]\ncandidate = 5", "unknown key in [search] 'candidate'; did you mean 'candidates'"),
        ("[search]\ncandidates = 'five'", "[search] candidates must be a whole number, got 'five'"),
        ("[[space.branch]]\nmethod = 'dynamic_sparse'\ndeath = ['magic']", "magic"),
        ("[model]\npreset = 'gigantic'", "unknown preset in [model] 'gigantic'"),
        ("[model]\npreset = ['mini']", "unknown preset in [model]"),
        ("[training]\nlearning_rate = -1", "learning_rate must be above 0, got -1"),
        ("[text]\nbatch_size = 0", "batch_size must be at least 1, got 0"),
        ("sparsity = [0.5]", "sparsity must be a number or left out, got [0.5]"),
        ("search = 5", "'search' in run.toml must be a table, [search]"),
        ("[search]\nstrategy = ['lsh']", "unknown strategy ['lsh']; did you mean 'lsh'"),
        ("task = 5", "task must be a text, got 5"),
        ("out = 5", "out must be a text or left out, got 5"),
        ("[training]\nclip_norm = nan", "clip_norm must be above 0, got nan"),
        (
            "[[space.branch]]\nmethod = 'rigl'\ndeath_rate = {low = 0.45678, high = 0.5}",
            "at most 3 digits after the point, got 0.45678",
        ),
        ("= 5", "must be TOML, and run.toml is not"),
    ],
)
def test_a_wrong_configuration_file_exits_with_2(tmp_path, monkeypatch, capsys, text, message):
    monkeypatch.chdir(tmp_path)
    Path("run.toml").write_text(text)
    assert main(["search", "--config", "run.toml"]) == 2
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["run.toml"]


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "empty"), (b"word \xff\xfe word", "UTF-8"), (b"two words", "")],
)
def test_a_text_that_cannot_be_read_or_is_too_short_exits_with_2(
    tmp_path, monkeypatch, capsys, content, message
):
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_bytes(content)
    assert main(["search", "text:text.txt"]) == 2
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["text.txt"]


@pytest.mark.long
def test_a_search_in_a_pipe_prints_table_report_and_json_and_the_other_commands_read_it(tmp_path):
    done = _call("search", TASK, "--out", "run", "--workers", "1", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    assert set(summary) == {
        *("best", "reference", "candidates", "epochs_spent", "epochs_full", "run", "report"),
        *("epochs_audit", "trust"),
    }
    assert set(summary["best"]) == {"configuration", "metric", "epochs", "checkpoint"}
    assert summary["best"]["metric"] == summary["candidates"][0]["metric"]
    assert (tmp_path / summary["report"]).is_file()
    assert (tmp_path / summary["best"]["checkpoint"]).is_file()
    assert "\x1b" not in done.stderr
    assert all(
        len(line) <= 80
        for line in done.stdout.splitlines()[:-1]
        if not line.startswith(("weights", "report"))
    )

    status = _call("status", "run", cwd=tmp_path)
    assert status.returncode == 0
    assert "run: finished" in status.stdout

    spectrum = _call("spectrum", summary["best"]["checkpoint"], "--json", cwd=tmp_path)
    assert spectrum.returncode == 0, spectrum.stderr
    exponents = json.loads(spectrum.stdout.splitlines()[-1])["modules"][0]["exponents"]
    assert len(exponents) == 8
    assert exponents == sorted(exponents, reverse=True)

    report = _call("report", "run", "--html", "copy.html", cwd=tmp_path)
    assert report.returncode == 0, report.stderr
    assert (tmp_path / "copy.html").read_text() == (tmp_path / "run" / "report.html").read_text()


def test_the_plan_trains_nothing_and_adds_up(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["search", TASK, "--candidates", "24", "--final-epochs", "100", "--plan", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [row["entrants"] for row in plan["rounds"]] == [24, 18, 13, 10, 7, 5, 4, 3]
    last = plan["rounds"][-1]["epoch"]
    assert plan["epochs"] == sum(row["epochs"] for row in plan["rounds"]) + 2 * (100 - last)
    assert plan["random_candidates"] * 100 <= plan["epochs"] < (plan["random_candidates"] + 1) * 100
    assert list(tmp_path.iterdir()) == []


def test_train_makes_one_pruned_model_and_goes_on_where_it_was(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    command = ["train", TASK, "--method", "set_", "--epochs", "2", "--out", "one", "--json"]
    assert main(command) == 0
    first = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert first["best"]["configuration"]["method"] == "set_"
    assert first["best"]["epochs"] == 2
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == first
    assert main([*command[:4], "--sparsity", "0.9", *command[4:]]) == 2
    assert "sparsity: 0.5, 0.9" in capsys.readouterr().err


def test_lists_are_printed(capsys):
    for command, expected in (("tasks", "pydoc"), ("methods", "selfish_rnn"), ("data", "wikitext2")):
        assert main([command]) == 0
        assert expected in capsys.readouterr().out


def test_output_that_is_not_utf_8_loses_signs_and_not_the_result(tmp_path):
    done = _call("tasks", cwd=tmp_path, PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert "LSTM 2?128" in done.stdout  # 2×128


def _with_interrupt(handler):
    """Options of a process that begins with this handler of Ctrl-C, whatever the tests were started with."""
    return {"start_new_session": True, "preexec_fn": lambda: signal.signal(signal.SIGINT, handler)}


def test_a_background_job_of_a_script_goes_on_ignoring_ctrl_c(tmp_path):
    command = [sys.executable, "-m", "hyperprune", "search", TASK, "--out", "run", "--workers", "2"]
    with subprocess.Popen(
        command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, **_with_interrupt(signal.SIG_IGN)
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "epoch 1" in line:
                break
        process.send_signal(signal.SIGINT)
        process.stderr.read()
        assert process.wait(timeout=60) == 0


def test_ctrl_c_exits_with_130_leaves_no_worker_behind_and_the_run_goes_on(tmp_path):
    environment = {**os.environ, "TINY_TASK_SECONDS": "0.2"}
    command = [sys.executable, "-m", "hyperprune", "search", TASK, "--out", "run", "--workers", "2"]
    options = {"cwd": tmp_path, "env": environment, **_with_interrupt(signal.SIG_DFL)}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **options) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "epoch 1" in line:
                break
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the whole group
        rest = process.stderr.read()  # ends when the last process of the group has let go of it
        assert process.wait(timeout=60) == 130
    assert rest.splitlines()[-1].startswith("hyperprune: interrupted; a run goes on where it stopped")
    assert "Traceback" not in rest
    done = _call("search", TASK, "--out", "run", "--workers", "2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
