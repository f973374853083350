"""`hyperprune data`: which data are here, and fetching them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from hyperprune.cli import options as shared


def add_parser(commands: Any) -> None:
    parser = shared.add_parser(
        commands,
        "data",
        about="List corpora and sets of images, or fetch one.",
        examples=("hyperprune data", "hyperprune data fetch ptb"),
    )
    parser.add_argument("action", nargs="?", choices=("list", "fetch"), default="list", help="(list)")
    parser.add_argument("name", nargs="?", metavar="NAME", help="what to fetch")
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="where data are looked for first")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from hyperprune.data.store import fetch, list_datasets
    from hyperprune.errors import InputError

    if options.action == "fetch":
        if options.name is None:
            raise InputError("data fetch needs the name of a data set; 'hyperprune data' lists them")
        print(fetch(options.name, data_dir=options.data_dir))
        return 0
    if options.name is not None:
        raise InputError(f"data list takes no name, got {options.name!r}; use 'data fetch {options.name}'")
    for row in list_datasets(data_dir=options.data_dir):
        place = row.path or f"not here: hyperprune data fetch {row.name}"
        print(f"{row.name:18} {row.num_bytes / 1e6:8.1f} MB  {place}")
    return 0
