"""`hyperprune status`: where a run stands, from another terminal, at any time."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from hyperprune.cli import options as shared


def add_parser(commands: Any) -> None:
    parser = shared.add_parser(
        commands,
        "status",
        about="Show where a run stands; changes nothing.",
        examples=("hyperprune status runs/pydoc",),
    )
    parser.add_argument("run_folder", type=Path, metavar="RUN", help="the run folder")
    parser.add_argument("--json", action="store_true", help="print it as one JSON object on one line")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from hyperprune.hypersearch.run_folder import holder, read_run
    from hyperprune.report import summary_json, text_table

    record = read_run(options.run_folder)
    pid = holder(options.run_folder)
    state = (
        "finished" if record.finished else f"running (process {pid})" if pid else "interrupted; it can go on"
    )
    print(f"{options.run_folder}: {state}")
    print(text_table(record))
    if options.json:
        print(json.dumps({"state": state, "pid": pid, **summary_json(record, folder=options.run_folder)}))
    return 0
