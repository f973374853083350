"""`hyperprune tasks`: the built-in tasks."""

from __future__ import annotations

import argparse
import json
from typing import Any

from hyperprune.cli import options as shared


def add_parser(commands: Any) -> None:
    parser = shared.add_parser(commands, "tasks", about="List the built-in tasks.")
    parser.add_argument("--json", action="store_true", help="print them as one JSON object on one line")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from hyperprune.tasks.built_in import BUILT_IN

    rows = {name: row.about for name, row in BUILT_IN.items()}
    rows["text:PATH"] = "a UTF-8 text file, or a folder with train.txt, valid.txt and test.txt (LSTM 2×200)"
    rows["file.py:name"] = "your own: a hyperprune.Task in a Python file (see examples/own_task.py)"
    for name, about in rows.items():
        print(f"{name:{max(map(len, rows))}}  {about}")
    if options.json:
        print(json.dumps({"tasks": [{"name": name, "about": about} for name, about in rows.items()]}))
    return 0
