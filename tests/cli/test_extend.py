"""`extend` as a user meets it."""

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from hyperprune.cli.main import main
from hyperprune.hypersearch.run_folder import read_state

TASK = f"{Path(__file__).parents[1] / 'tiny_task.py'}:task"
OWN_PARTS = f"{Path(__file__).parents[2] / 'examples' / 'own_parts.py'}:task"


def _call(folder, *arguments):
    command = [sys.executable, "-m", "hyperprune", *arguments, "--workers", "1"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr


def test_a_run_with_parts_of_ones_own_is_extended(tmp_path):
    # In processes of their own: a part is known there only once the task's file is loaded.
    names = ["--strategy", "one_cut", "--signal", "gap", "--proposer", "ends", "--space", "gentle"]
    _call(tmp_path, "search", OWN_PARTS, *names, "--candidates", "2", "--final-epochs", "2", "--out", "run")
    _call(tmp_path, "extend", "run", "--candidates", "+2")
    state = read_state(tmp_path / "run")
    assert state.finished
    assert len(state.candidates) == 4


@pytest.mark.parametrize(
    ("stopped", "code"), [(KeyboardInterrupt(), 130), (OSError(errno.ENOSPC, "No space left on device"), 1)]
)
def test_an_extension_whose_report_is_cut_short_is_not_to_be_asked_for_again(
    stopped, code, tmp_path, monkeypatch, capsys
):
    command = ["--workers", "1", "--candidates"]
    assert main(["search", TASK, "--out", str(tmp_path), *command, "4"]) == 0
    capsys.readouterr()

    def stop(*_, **__):
        raise stopped

    with monkeypatch.context() as patched:
        patched.setattr("hyperprune.report.write_report", stop)
        assert main(["extend", str(tmp_path), *command, "+2"]) == code
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.endswith(f"; the extension is done, and 'hyperprune report {tmp_path}' writes its report")
    assert "same command" not in told
    state = read_state(tmp_path)
    assert (state.finished, len(state.candidates)) == (True, 7)  # LSH's four and the one it inserts, and two
    assert main(["report", str(tmp_path)]) == 0


@pytest.mark.parametrize("arguments", [[], ["--final-epochs", "9", "--candidates", "+3"]])
def test_an_extension_is_one_of_the_two(arguments, tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        main(["extend", str(tmp_path), *arguments])
    assert end.value.code == 2
    told = capsys.readouterr().err
    assert "--final-epochs" in told
    assert "--candidates" in told
