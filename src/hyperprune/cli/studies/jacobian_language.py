"""`hyperprune reproduce jacobian-language`."""

from __future__ import annotations

import argparse
from dataclasses import replace
from functools import partial
from typing import Any

from hyperprune.cli.studies import common

ABOUT = "dense, random and Jacobian masks on language models (Jacobian paper, table 4, figure 5)"
_NAME = "jacobian-language"
_PAGE = "at_init.md"


def add_parser(tables: Any) -> None:
    parser = common.add_study(
        tables,
        _NAME,
        about=ABOUT,
        scales=("tiny", "small", "paper"),
        examples=("hyperprune reproduce jacobian-language --data-dir DATA --workers 2",),
    )
    parser.add_argument("--device", metavar="D", help="train on cpu or cuda (cpu)")
    common.add_page(parser, _PAGE)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from hyperprune.experiments.documents import StudyPage
    from hyperprune.experiments.jacobian_language import (
        SCALES,
        captions,
        check_records,
        draw,
        report,
        run_study,
    )

    scale = common.scale_of(SCALES, options)
    scale = replace(scale, seeds=common.seeds_of(options, scale.seeds))
    page = StudyPage(page=_PAGE, part=_NAME, records="jacobian_language.jsonl", fields=("corpus", "epochs"))
    records = common.records_of(options, page, partial(run_study, scale, device=options.device or "cpu"))
    check_records(records, scale)
    common.publish(
        options,
        page,
        records,
        tables=report(records, scale),
        captions=captions(scale),
        draw=lambda folder: draw(records, folder),
    )
    return 0
