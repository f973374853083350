"""`hyperprune reproduce methods`."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from hyperprune.cli.studies import common

ABOUT = "every pruning method on one language model (LSH paper, table 1)"
_NAME = "methods"
_PAGE, _RECORDS = "methods.md", "methods.jsonl"


def add_parser(tables: Any) -> None:
    parser = common.add_study(
        tables,
        _NAME,
        about=ABOUT,
        scales=("small", "paper"),
        examples=(
            "hyperprune reproduce methods --data-dir DATA --workers 2 --docs docs",
            "hyperprune reproduce methods --from docs/records/methods.jsonl",
        ),
    )
    parser.add_argument("--method", action="append", metavar="NAME", help="only this method (repeatable)")
    parser.add_argument("--device", metavar="D", help="train on cpu or cuda (cpu)")
    parser.add_argument(
        "--from", type=Path, metavar="FILE", dest="source", help="train nothing: read such records"
    )
    parser.add_argument(
        "--docs", type=Path, metavar="DIR", help=f"write records/{_RECORDS} and the results of {_PAGE} there"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from hyperprune.experiments.cells import read_records, write_records
    from hyperprune.experiments.documents import fill_marked_part, marked_part
    from hyperprune.experiments.methods_study import SCALES, run_study
    from hyperprune.experiments.methods_tables import to_page

    scale = common.scale_of(SCALES, options)
    scale = replace(scale, seeds=common.seeds_of(options, scale.seeds))
    if options.docs is not None:
        marked_part(options.docs / _PAGE, _NAME)  # a wrong folder is told before the hours of work
    if options.source is not None:
        common.refuse_training_options(options, "source", "--from", ("scale",))
        records = read_records(common.existing(options.source))
        common.check_records(options.source, records, ("task", "method", "sparsity"))
    else:
        records = run_study(
            scale,
            names=options.method or (),
            data_dir=options.data_dir,
            device=options.device or "cpu",
            **common.running(options),
        )
    text = to_page(records, scale)
    print(text)
    if options.docs is not None:
        write_records(options.docs / "records" / _RECORDS, records)
        fill_marked_part(options.docs / _PAGE, _NAME, text)
    return 0
