"""`hyperprune reproduce evidence`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from hyperprune.cli import options as shared
from hyperprune.cli.studies import common

ABOUT = "docs/evidence.md: every table and picture again, from the committed records (minutes)"
ITEMS = {
    "answer": "use the spectrum? from which epoch? what does it buy? a table, and verdicts by rule",
    "records, world": "what was recorded, and how the candidates end",
    "calibration": "learning rate, cadence and size tried beforehand (from the records of 'calibrate')",
    "correlation": "which early signal tells the final metric: tables, two pictures (question 1)",
    "sensitivity": "the main signals with something changed that the answer might hang on",
    "across-methods": "the main signals with kinds of pruning as units, other methods among them",
    "regret": "regret against epochs of every search and signal: tables, picture (question 2)",
    "death-rates": "the main signals at each death rate, searches among all: tables, picture",
    "other-worlds": "the same in every recorded world: ends, signals, regret, picture",
    "later": "the signals over the whole training, searches that cut once: tables, picture",
    "methods": "LSH paper, table 1: the order of methods (from the records of 'methods')",
    "budgets": "LSH paper, table 2: number of candidates",
    "ratios": "LSH paper, figure 3: pruning ratios: table, picture",
    "schedules": "LSH paper, table 3: epochs of the selection by schedule",
    "samples": "LSH paper, table 4: samples of a spectrum",
    "first-round": "the published first round beside ours",
    "curve": "the dense model's published perplexities beside ours",
    "kinds, switch, updates": "what tells spectra apart, what moves them: tables, two pictures (question 4)",
    "prediction": "the final metric regressed on early features, cross-validated",
}


def add_parser(tables: Any) -> None:
    parser = shared.add_parser(
        tables,
        "evidence",
        about=ABOUT,
        examples=(
            "hyperprune reproduce evidence",
            "hyperprune reproduce evidence --records DIR --repeats 100",
        ),
    )
    parser.add_argument(
        "--records",
        type=Path,
        default=Path("docs/records"),
        metavar="DIR",
        help="of the tables (docs/records)",
    )
    parser.add_argument(
        "--page",
        type=Path,
        default=Path("docs/evidence.md"),
        metavar="FILE",
        help="gets the tables; pictures go beside it (docs/evidence.md)",
    )
    parser.add_argument("--repeats", type=int, default=1000, metavar="N", help="replays of each (1000)")
    parser.add_argument("--workers", type=int, metavar="N", help="processes for the replays (the cores)")
    parser.add_argument(
        "--cache",
        type=Path,
        default=Path("runs/evidence"),
        metavar="DIR",
        help="keeps the replays (runs/evidence)",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    import sys

    from hyperprune.errors import InputError

    common.require_packages()
    from hyperprune.experiments.evidence.build import build

    workers = shared.usable_cores() if options.workers is None else options.workers
    for name, value in (("workers", workers), ("repeats", options.repeats)):
        if value < 1:
            raise InputError(f"--{name} must be at least 1, got {value}; leave it out for the default")
    written = build(
        options.records,
        options.page,
        repeats=options.repeats,
        cache=options.cache,
        workers=workers,
        say=lambda text: print(text, file=sys.stderr, flush=True),
    )
    for path in written:
        print(path)
    return 0
