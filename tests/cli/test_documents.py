"""What the documents tell of the command line: every option, and the keys of what is printed for programs."""

import argparse
import json
import re
from pathlib import Path

import pytest

from hyperprune.cli.main import build_parser, main
from hyperprune.graphs.families import FAMILIES

ROOT = Path(__file__).parents[2]
TASK = f"{Path(__file__).parents[1] / 'tiny_task.py'}:task"
SEARCH = ["search", TASK, "--candidates", "2", "--first-epochs", "1", "--final-epochs", "1", "--workers", "1"]


def _options(parser):
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _options(command)
        else:
            yield from (name for name in action.option_strings if name.startswith("--"))


def test_every_option_is_told_in_a_document():
    text = "".join(path.read_text() for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")))
    told = set(re.findall(r"--[a-z-]+", text))
    assert set(_options(build_parser())) - told == {"--help", "--version"}


def test_every_parameter_of_a_family_of_graphs_is_told():
    page = (ROOT / "docs" / "random_structure.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", page, flags=re.MULTILINE))
    for name, family in FAMILIES.items():
        assert re.findall(r"`(\w+)`[ ,:]", rows[name].replace("`watts_strogatz`", "")) == list(
            family.defaults
        )


def _keys():
    """The documented keys, by what is before the bar."""
    part = (ROOT / "docs" / "search.md").read_text().partition("| `--json` of | keys |")[2]
    rows = re.findall(r"^\| (.*?) \| (.*) \|$", part, flags=re.MULTILINE)
    return {name: re.findall(r"`(\w+)`", keys) for name, keys in rows}


def _printed(capsys, *command):
    assert main([*command, "--json"]) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])


@pytest.mark.long
def test_the_keys_of_what_is_printed_for_programs_are_told(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    keys = _keys()
    run = keys["`search`, `extend`, `train`, `report`, `status`"]
    found = _printed(capsys, *SEARCH, "--out", "run", "--record", "table.npz")
    assert list(found) == run + keys["`search --record`"]
    assert list(found["candidates"][0]) == keys["an entry of `candidates`"]
    best_and_reference = keys["`best`, `reference`"]
    assert [*found["best"], *found["reference"]] == best_and_reference
    assert set(_printed(capsys, "status", "run")) == {*run, "state", "pid", "in_training"}
    assert keys["`status`"] == ["state", "pid", "in_training", "state", "pid"]
    assert list(_printed(capsys, "report", "run")) == run + keys["`report`"]
    trained = _printed(capsys, "train", TASK, "--method", "set_", "--epochs", "1", "--out", "one")
    assert list(trained) == run
    others = {
        "`search --plan`, `record --plan`": [*SEARCH, "--plan"],
        "`replay`": ["replay", "table.npz", "--repeats", "1", "--proposer", "random"],
        "`spectrum`": ["spectrum", TASK],
        "`prune-at-init`": ["prune-at-init", TASK, "--sparsity", "0.5"],
        "`record`": ["record", "--from", "run", "--out", "other.npz"],
    }
    for name, command in others.items():
        assert list(_printed(capsys, *command)) == keys[name]
    lists = [["prune-at-init", "--list"], ["tasks"], ["methods"], ["data"]]
    first_keys = [key for command in lists for key in _printed(capsys, *command)]
    assert first_keys == keys["`prune-at-init --list`, `tasks`, `methods`, `data`"]
    assert len(keys) == 13
