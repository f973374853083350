"""`hyperprune reproduce calibrate`."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from hyperprune.cli.studies import common

ABOUT = "learning rate, cadence and size of the recorded world, before it is recorded (minutes)"


def add_parser(tables: Any) -> None:
    parser = common.add_study(
        tables,
        "calibrate",
        about=ABOUT,
        scales=("small",),
        examples=("hyperprune reproduce calibrate --data-dir DATA --workers 2",),
    )
    parser.add_argument("--epochs", type=int, metavar="N", help="trained of each model (4)")
    parser.add_argument(
        "--records",
        type=Path,
        default=Path("docs/records"),
        metavar="DIR",
        help="gets calibration.jsonl, which 'reproduce evidence' reads (docs/records)",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from hyperprune.errors import InputError
    from hyperprune.experiments.calibration import SCALES, calibrate, to_markdown
    from hyperprune.experiments.cells import write_records
    from hyperprune.experiments.evidence.page import CALIBRATION

    scale = common.scale_of(SCALES, options)
    scale = replace(scale, seeds=common.seeds_of(options, scale.seeds))
    if options.epochs is not None:
        if options.epochs < 1:
            raise InputError(f"--epochs must be at least 1, got {options.epochs}; leave it out for 4")
        scale = replace(scale, epochs=options.epochs)
    records = calibrate(scale, data_dir=options.data_dir, **common.running(options))
    write_records(options.records / CALIBRATION, records)
    print(to_markdown(records))
    return 0
