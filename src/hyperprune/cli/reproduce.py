"""`hyperprune reproduce`: a published table or figure, run again; one file of `studies` per study."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

from hyperprune.cli import options as shared
from hyperprune.cli.studies import (
    calibrate,
    evidence,
    jacobian,
    jacobian_language,
    methods,
    prune_regain,
    random_structure,
    record,
)
from hyperprune.errors import InputError

STUDIES = {
    "methods": methods,
    "jacobian": jacobian,
    "jacobian-language": jacobian_language,
    "prune-regain": prune_regain,
    "random-structure": random_structure,
    "calibrate": calibrate,
    "record": record,
    "evidence": evidence,
}


def add_parser(commands: Any) -> None:
    parser = shared.add_parser(
        commands,
        "reproduce",
        about="Run a published table or figure again, resumably.",
        examples=(
            "hyperprune reproduce --list",
            "hyperprune reproduce methods --scale small --data-dir DATA --workers 2",
        ),
    )
    parser.add_argument("--list", action="store_true", help="print the studies")
    parser.set_defaults(run=run)
    tables = parser.add_subparsers(title="studies", metavar="STUDY")
    for name, study in STUDIES.items():
        study.add_parser(tables)
        own = tables.choices[name]
        own.set_defaults(run=partial(_run_study, own.get_default("run")))


def _run_study(run_study: Callable[[argparse.Namespace], int], options: argparse.Namespace) -> int:
    if options.list:
        raise InputError("--list prints the studies and runs none; leave it or the study's name out")
    return run_study(options)


def run(options: argparse.Namespace) -> int:
    if not options.list:
        raise InputError("reproduce needs the name of a study; 'hyperprune reproduce --list' prints them")
    for name, study in STUDIES.items():
        print(f"{name:20} {study.ABOUT}")
        for item, about in getattr(study, "ITEMS", {}).items():  # tables and figures of a study with several
            print(f"    {item:24} {about}")
    return 0
