"""The page on pruning at initialisation says what the code says."""

import re
from pathlib import Path
from typing import Any

import torch

from hyperprune import at_init
from hyperprune.cli.main import build_parser
from hyperprune.experiments.documents import marked_part

PAGE = Path(__file__).parents[2] / "docs" / "at_init.md"


def test_the_table_of_criteria_is_the_codes():
    assert marked_part(PAGE, "criteria") == at_init.table()


def test_the_pages_python_runs():
    (block,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    names: dict[str, Any] = {"__name__": "at_init"}
    exec(compile(block, "at_init.md", "exec"), names)
    masks = torch.cat([mask.flatten() for mask in names["masks"].values()])
    assert int(masks.sum()) == round(0.1 * masks.numel())


def test_the_pages_commands_exist():
    text = PAGE.read_text().replace("\\\n", " ")
    commands = re.findall(r"^hyperprune ([^#\n]*)", text, flags=re.MULTILINE)
    assert len(commands) >= 6
    for command in commands:
        build_parser().parse_args(command.split())
