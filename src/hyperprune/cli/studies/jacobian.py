"""`hyperprune reproduce jacobian`."""

from __future__ import annotations

import argparse
from dataclasses import replace
from functools import partial
from typing import Any

from hyperprune.cli.studies import common

ABOUT = "criteria at initialisation on images read row by row (Jacobian paper, tables 1 to 3, 5, 6)"
_NAME = "jacobian"
_PAGE = "at_init.md"


def add_parser(tables: Any) -> None:
    parser = common.add_study(
        tables,
        _NAME,
        about=ABOUT,
        scales=("digits", "small", "paper"),
        examples=(
            "hyperprune reproduce jacobian --scale digits",
            "hyperprune reproduce jacobian --data-dir DATA --workers 2 --docs docs",
        ),
    )
    parser.add_argument(
        "--part", action="append", metavar="NAME", help="only this part (repeatable): main, time, gamma, …"
    )
    parser.add_argument("--device", metavar="D", help="train on cpu or cuda (cpu)")
    common.add_page(parser, _PAGE)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from hyperprune.experiments.documents import StudyPage
    from hyperprune.experiments.jacobian_pictures import CAPTIONS, draw
    from hyperprune.experiments.jacobian_study import SCALES, cells_of, check_records, compact, run_study
    from hyperprune.experiments.jacobian_tables import report

    scale = common.scale_of(SCALES, options)
    scale = replace(scale, seeds=common.seeds_of(options, scale.seeds))
    parts = options.part or ()
    cells_of(scale, parts)  # an unknown part is told first
    page = StudyPage(page=_PAGE, part=_NAME, records="jacobian.jsonl", fields=("criterion", "units"))
    records = common.records_of(
        options, page, partial(run_study, scale, parts=parts, device=options.device or "cpu")
    )
    check_records(records, scale)
    common.publish(
        options,
        page,
        compact(records),
        tables=report(records, scale),
        captions=CAPTIONS,
        draw=lambda folder: draw(records, scale, folder),
    )
    return 0
