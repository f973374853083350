"""`extend` as a user meets it."""

import subprocess
import sys
from pathlib import Path

import pytest

from hyperprune.cli.main import main
from hyperprune.hypersearch.run_folder import read_state

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


@pytest.mark.parametrize("arguments", [[], ["--final-epochs", "9", "--candidates", "+3"]])
def test_an_extension_is_one_of_the_two(arguments, tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        main(["extend", str(tmp_path), *arguments])
    assert end.value.code == 2
    told = capsys.readouterr().err
    assert "--final-epochs" in told
    assert "--candidates" in told
