"""`hyperprune report`: write a run's report again."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from hyperprune.cli import options as shared
from hyperprune.errors import InputError, install, writing
from hyperprune.files import write_atomically, writing_output


def add_parser(commands: Any) -> None:
    parser = shared.add_parser(
        commands,
        "report",
        about="Write the report of a run, finished or not.",
        examples=(
            "hyperprune report runs/pydoc",
            "hyperprune report runs/pydoc --html report.html",
            "hyperprune report runs/pydoc --jsonl epochs.jsonl --optuna study.db",
        ),
    )
    parser.add_argument("run_folder", type=Path, metavar="RUN", help="the run folder")
    parser.add_argument("--html", type=Path, metavar="FILE", help="copy the page to this file too")
    parser.add_argument("--jsonl", type=Path, metavar="FILE", help="write every epoch's record, one per line")
    parser.add_argument(
        "--optuna", type=Path, metavar="FILE", help="write an Optuna study (SQLite) for optuna-dashboard"
    )
    shared.add_json(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from hyperprune.hypersearch.run_folder import read_run
    from hyperprune.report import summary_json, write_epochs, write_report, write_study

    record = read_run(options.run_folder)
    page = options.run_folder / "report.html"
    for option in ("html", "jsonl", "optuna"):
        path = getattr(options, option)
        if path is not None and not (option == "html" and path.resolve() == page.resolve()):
            shared.check_file(path, f"--{option}")
    shared.check_different(html=options.html, jsonl=options.jsonl, optuna=options.optuna)
    with writing(
        f"a report is written into the run folder, and {options.run_folder} does not take it",
        remedy="make it writable, or copy the run and report on the copy",
    ):
        files = write_report(record, options.run_folder)
    if options.html is not None:
        if files.html is None:
            raise InputError(f"a page needs matplotlib and jinja2; {install('report')}")
        if options.html.resolve() != files.html.resolve():
            with writing_output(options.html, "--html"):
                write_atomically(options.html, files.html.read_bytes())
    report = options.html or files.html or files.markdown
    print(report)
    if options.jsonl is not None:
        write_epochs(record, options.jsonl)
        print(options.jsonl)
    if options.optuna is not None:
        options.optuna.parent.mkdir(parents=True, exist_ok=True)
        write_study(record, options.optuna, name=options.run_folder.resolve().name)
        print(options.optuna)
    if options.json:
        written = {"jsonl": options.jsonl, "optuna": options.optuna}
        print(
            json.dumps(
                summary_json(record, folder=options.run_folder, report=report)
                | {name: None if path is None else str(path) for name, path in written.items()}
            )
        )
    return 0
