"""The command that prunes at initialisation."""

import json
from pathlib import Path

import pytest

from hyperprune import at_init
from hyperprune.cli.main import main

TASK = f"{Path(__file__).parents[1] / 'tiny_task.py'}:task"


def test_it_prints_what_each_gate_keeps_and_saves_masks_and_picture(tmp_path, capsys):
    masks, picture = tmp_path / "masks.npz", tmp_path / "kept.png"
    arguments = ["--criterion", "snip", "--sparsity", "0.5", "--save", str(masks), "--picture", str(picture)]
    assert main(["prune-at-init", TASK, *arguments, "--json"]) == 0
    lines = capsys.readouterr().out.splitlines()
    result = json.loads(lines[-1])
    assert result["live"] == 168
    assert [row["gate"] for row in result["kept"]] == ["i", "f", "g", "o"] * 2 + [""]
    loaded = at_init.load_masks(masks)
    assert sum(int(mask.sum()) for mask in loaded.values()) == 168
    assert int(loaded["rnn.weight_ih_l0"][:8].sum()) == result["kept"][0]["live"]
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert any(line.startswith("all ") and "0.5000" in line for line in lines)


def test_settings_reach_the_criterion(capsys):
    arguments = ["--sparsity", "0.5", "--horizon", "2", "--gamma", "none", "--probe", "rademacher", "--json"]
    assert main(["prune-at-init", TASK, *arguments, "--allow-empty"]) == 0
    settings = json.loads(capsys.readouterr().out.splitlines()[-1])["settings"]
    assert settings == {
        "horizon": 2,
        "state": "hidden",
        "gamma": None,
        "gamma_std": 0.1,
        "probe": "rademacher",
    }


def test_the_criteria_are_listed(capsys):
    assert main(["prune-at-init", "--list"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in at_init.names())
    assert main(["prune-at-init", "--list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out.splitlines()[-1])["criteria"]
    assert [row["name"] for row in listed] == list(at_init.names())
    assert listed[0].keys() == {"name", "about", "paper"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "prune-at-init needs a task"),
        ([TASK, "--criterion", "jacobien"], "unknown criterion 'jacobien'; did you mean 'jacobian'"),
        (
            [TASK, "--criterion", "magnitude", "--horizon", "3"],
            "unknown setting of criterion magnitude 'horizon'",
        ),
        ([TASK, "--horizon", "99"], "got 10 steps and horizon 99"),
        ([TASK, "--sparsity", "1"], "sparsity must lie in"),
        ([TASK, "--sparsity", "0.99", "--criterion", "random"], "empties rnn.weight_ih_l0"),
        ([TASK, "--batches", "0"], "batches must be at least 1"),
        ([TASK, "--batches", "2", "--criterion", "synflow"], "--batches is for criteria that look at data"),
        ([TASK, "--save", "masks.txt"], "--save must name an .npz file"),
        ([TASK, "--picture", "kept.nothing", "--sparsity", "0.5"], "--picture must name a picture"),
    ],
)
def test_wrong_arguments_exit_with_2(arguments, message, capsys):
    assert main(["prune-at-init", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_training_can_begin_with_a_criterion(tmp_path, capsys):
    out = ["--out", str(tmp_path / "run"), "--epochs", "1", "--sparsity", "0.5"]
    assert main(["train", TASK, "--method", "static", "--at-init", "magnitude", *out, "--json"]) == 0
    best = json.loads(capsys.readouterr().out.splitlines()[-1])["best"]
    assert best["configuration"] == {"method": "static", "at_init": "magnitude"}
    assert main(["train", TASK, "--method", "gmp", "--at-init", "snip", *out]) == 2
    assert "gmp chooses its own masks" in capsys.readouterr().err
