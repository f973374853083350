"""`hyperprune report`: write a run's report again."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

from hyperprune.cli import options as shared
from hyperprune.errors import InputError


def add_parser(commands: Any) -> None:
    parser = shared.add_parser(
        commands,
        "report",
        about="Write the report of a run, finished or not.",
        examples=("hyperprune report runs/pydoc", "hyperprune report runs/pydoc --html report.html"),
    )
    parser.add_argument("run_folder", type=Path, metavar="RUN", help="the run folder")
    parser.add_argument("--html", type=Path, metavar="FILE", help="copy the page to this file too")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from hyperprune.hypersearch.run_folder import read_run
    from hyperprune.report import write_report

    files = write_report(read_run(options.run_folder), options.run_folder)
    if options.html is not None:
        if files.html is None:
            raise InputError("a page needs matplotlib and jinja2; pip install 'hyperprune[report]'")
        try:
            if options.html.resolve() != files.html.resolve():
                shutil.copyfile(files.html, options.html)
        except OSError as error:
            raise InputError(
                f"--html must be a file that can be written, got {options.html}: {error}"
            ) from error
    print(options.html or files.html or files.markdown)
    return 0
