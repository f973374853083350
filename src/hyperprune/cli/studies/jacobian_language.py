"""`hyperprune reproduce jacobian-language`."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

from hyperprune.cli.studies import common
from hyperprune.cli.studies.jacobian import add_outputs

ABOUT = "dense, random and Jacobian masks on language models (Jacobian paper, table 4, figure 5)"
PAGE_PART = "language"


def add_parser(tables: Any) -> None:
    parser = common.add_study(
        tables,
        "jacobian-language",
        about=ABOUT,
        examples=("hyperprune reproduce jacobian-language --data-dir DATA --workers 2",),
    )
    add_outputs(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from hyperprune.experiments.cells import read_records, write_records
    from hyperprune.experiments.documents import fill_marked_part
    from hyperprune.experiments.jacobian_language import SCALES, draw, report, run_study

    scale = common.scale_of(SCALES, options)
    scale = replace(scale, seeds=common.seeds_of(options, scale.seeds))
    if options.source is not None:
        records = read_records(common.existing(options.source))
    else:
        records = run_study(scale, data_dir=options.data_dir, **common.running(options))
    text = report(records, scale)
    print(text)
    if options.keep is not None:
        write_records(options.keep, records)
    if options.docs is not None:
        fill_marked_part(options.docs, PAGE_PART, text)
    if options.pictures is not None:
        for path in draw(records, options.pictures):
            print(f"picture: {path}")
    return 0
