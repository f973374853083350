"""`hyperprune reproduce record`."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from hyperprune.cli import options as shared
from hyperprune.cli.studies import common

ABOUT = "the tables behind the evidence: candidates trained to the end, everything recorded (hours)"


def add_parser(tables: Any) -> None:
    parser = common.add_study(
        tables,
        "record",
        about=ABOUT,
        scales=("small", "methods", "sparsities", "unscaled", "gru", "rhn", "medium", "large"),
        examples=(
            "hyperprune reproduce record --data-dir DATA --workers 2",
            "hyperprune reproduce record --seeds 2 --death-rates 0.8     # the same folder takes more later",
            "hyperprune reproduce record --missing --scale sparsities --sparsities 0.9     # of one sparsity",
            "hyperprune reproduce record --missing --seeds 3 --death-rates 0.8     # a seed more, in a clone",
            "hyperprune reproduce record --tables-only     # of what is there, while it goes on",
        ),
    )
    parser.add_argument(
        "--death-rates", type=float, nargs="+", metavar="RATE", help="24 candidates at each (the scale's)"
    )
    parser.add_argument(
        "--sparsities", type=float, nargs="+", metavar="S", help="and at each of these (the scale's)"
    )
    parser.add_argument("--device", metavar="D", help="cpu or cuda (cpu)")
    parser.add_argument(
        "--tables",
        type=Path,
        default=Path("docs/records"),
        metavar="DIR",
        help="gets the tables (docs/records)",
    )
    parser.add_argument(
        "--missing", action="store_true", help="only what --tables lacks, with its dense models"
    )
    parser.add_argument(
        "--tables-only", action="store_true", help="train nothing, write tables of what is there"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from hyperprune.experiments.recording.scales import SCALES
    from hyperprune.experiments.recording.study import record
    from hyperprune.experiments.recording.tables import missing_seeds, write_tables

    scale = common.scale_of(SCALES, options)
    scale = replace(scale, seeds=common.seeds_of(options, scale.seeds))
    if options.death_rates is not None:
        scale = replace(scale, death_rates=tuple(options.death_rates))
    if options.sparsities is not None:
        scale = replace(scale, sparsities=tuple(options.sparsities))
    if options.tables_only:
        of_tables = ("scale", "seeds", "death_rates", "sparsities", "out", "tables")
        common.refuse_training_options(options, "tables_only", "--tables-only", of_tables)
    shared.check_folder(options.tables, "--tables")
    if options.missing and not missing_seeds(scale, options.tables):
        print(f"{options.tables} has every table of this recording: nothing is missing")
        return 0
    if not options.tables_only:
        record(
            scale,
            data_dir=options.data_dir,
            device=options.device or "cpu",
            tables=options.tables if options.missing else None,
            **common.running(options),
        )
    for path in write_tables(scale, common.folder_of(options), options.tables):
        print(f"{path} ({path.stat().st_size / 1e6:.1f} MB)")
    return 0
