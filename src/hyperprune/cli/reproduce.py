"""`hyperprune reproduce`: a published table, run again."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any

from hyperprune.cli import options as shared
from hyperprune.errors import InputError, unknown_name

TABLES = {"methods": "every pruning method on one language model (LSH paper, table 1)"}


def add_parser(commands: Any) -> None:
    parser = shared.add_parser(
        commands,
        "reproduce",
        about="Run a published table again, resumably.",
        examples=(
            "hyperprune reproduce --list",
            "hyperprune reproduce methods --scale small --data-dir DATA --workers 2",
        ),
    )
    parser.add_argument("table", nargs="?", metavar="TABLE", help="one of those that --list prints")
    parser.add_argument("--list", action="store_true", help="print the tables")
    parser.add_argument("--scale", default="small", metavar="NAME", help="small or paper (small)")
    parser.add_argument("--method", action="append", metavar="NAME", help="only this method (repeatable)")
    parser.add_argument("--seeds", type=int, metavar="N", help="seeds 0 to N-1 (the scale's)")
    parser.add_argument("--workers", type=int, metavar="N", help="models trained at a time (the cores)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="the study's folder (runs/TABLE-SCALE)")
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="where corpora are looked for first")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    if options.list:
        for name, about in TABLES.items():
            print(f"{name:10} {about}")
        return 0
    if options.table is None:
        raise InputError("reproduce needs the name of a table; 'hyperprune reproduce --list' prints them")
    if options.table not in TABLES:
        raise unknown_name("table", options.table, TABLES)

    from hyperprune.experiments.methods_study import SCALES, run_study, to_markdown, with_seeds

    if options.scale not in SCALES:
        raise unknown_name("scale", options.scale, SCALES)
    scale = SCALES[options.scale]
    if options.seeds is not None:
        scale = with_seeds(scale, options.seeds)
    workers = shared.usable_cores() if options.workers is None else options.workers
    if workers < 1:
        raise InputError(f"workers must be at least 1, got {workers}")
    records = run_study(
        scale,
        options.out or Path("runs") / f"{options.table}-{options.scale}",
        names=options.method or (),
        workers=workers,
        data_dir=options.data_dir,
        command=shlex.join(["hyperprune", *sys.argv[1:]]),
        say=lambda text: print(text, file=sys.stderr, flush=True),
    )
    print(to_markdown(records))
    return 0
