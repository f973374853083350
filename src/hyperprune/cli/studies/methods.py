"""`hyperprune reproduce methods`."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

from hyperprune.cli.studies import common

ABOUT = "every pruning method on one language model (LSH paper, table 1)"


def add_parser(tables: Any) -> None:
    parser = common.add_study(
        tables,
        "methods",
        about=ABOUT,
        examples=("hyperprune reproduce methods --scale small --data-dir DATA --workers 2",),
    )
    parser.add_argument("--method", action="append", metavar="NAME", help="only this method (repeatable)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from hyperprune.experiments.methods_study import SCALES, run_study, to_markdown

    scale = common.scale_of(SCALES, options)
    records = run_study(
        replace(scale, seeds=common.seeds_of(options, scale.seeds)),
        names=options.method or (),
        data_dir=options.data_dir,
        **common.running(options),
    )
    print(to_markdown(records))
    return 0
