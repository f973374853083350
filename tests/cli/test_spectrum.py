"""The command that measures spectra."""

import json
from pathlib import Path

import pytest

from hyperprune.cli.main import main
from hyperprune.hypersearch.run_folder import read_state

TASK = f"{Path(__file__).parents[1] / 'tiny_task.py'}:task"


def test_a_checkpoints_spectrum_is_the_one_that_its_run_recorded(tmp_path, capsys):
    # The tangent frame is drawn from the seed, which over so few steps shows in the second digit.
    run = tmp_path / "run"
    assert main(["train", TASK, "--method", "set_", "--seed", "3", "--epochs", "1", "--out", str(run)]) == 0
    capsys.readouterr()
    assert main(["spectrum", str(run / "candidates" / "c01" / "best.pt"), "--json"]) == 0
    measured = json.loads(capsys.readouterr().out.splitlines()[-1])["modules"][0]["exponents"]
    recorded = read_state(run).candidates["c01"].epochs[1].spectrum
    assert recorded is not None
    assert measured == pytest.approx(recorded.tolist(), rel=1e-6)  # the same sums on the same machine
