"""`hyperprune reproduce jacobian`."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from hyperprune.cli.studies import common

ABOUT = "criteria at initialisation on images read row by row (Jacobian paper, tables 1 to 3, 5, 6)"
PAGE_PART = "study"


def add_parser(tables: Any) -> None:
    parser = common.add_study(
        tables,
        "jacobian",
        about=ABOUT,
        examples=(
            "hyperprune reproduce jacobian --scale digits",
            "hyperprune reproduce jacobian --data-dir DATA --workers 2 --docs docs/at_init.md",
        ),
    )
    parser.add_argument(
        "--part", action="append", metavar="NAME", help="only this part (repeatable): main, time, gamma, …"
    )
    add_outputs(parser)
    parser.set_defaults(run=run)


def add_outputs(parser: argparse.ArgumentParser) -> None:
    """Where a study that has a page of the documentation puts what it found."""
    parser.add_argument("--docs", type=Path, metavar="FILE", help="fill the study's part of this page")
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="draw the figures into this folder")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="write the records, compact, to this file")
    parser.add_argument(
        "--from", type=Path, metavar="FILE", dest="source", help="read such records, run nothing"
    )


def run(options: argparse.Namespace) -> int:
    from hyperprune.experiments.cells import read_records, write_records
    from hyperprune.experiments.documents import fill_marked_part
    from hyperprune.experiments.jacobian_study import SCALES, cells_of, compact, run_study
    from hyperprune.experiments.jacobian_tables import report

    scale = common.scale_of(SCALES, options)
    scale = replace(scale, seeds=common.seeds_of(options, scale.seeds))
    cells_of(scale, options.part or ())  # an unknown part is told first
    if options.source is not None:
        records = read_records(common.existing(options.source))
    else:
        running = common.running(options)
        records = run_study(scale, parts=options.part or (), data_dir=options.data_dir, **running)
    text = report(records, scale)
    print(text)
    if options.keep is not None:
        write_records(options.keep, compact(records))
    if options.docs is not None:
        fill_marked_part(options.docs, PAGE_PART, text)
    if options.pictures is not None:
        from hyperprune.experiments.jacobian_pictures import draw

        for path in draw(records, scale, options.pictures):
            print(f"picture: {path}")
    return 0
