"""`hyperprune data`: which data are here, and fetching them."""

from __future__ import annotations

import argparse
import json
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
    shared.add_json(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from hyperprune.data.store import fetch, list_datasets
    from hyperprune.errors import InputError

    if options.action == "fetch":
        if options.name is None:
            raise InputError("data fetch needs the name of a data set; 'hyperprune data' lists them")
        path = fetch(options.name, data_dir=options.data_dir)
        if options.data_dir is not None and not path.is_relative_to(options.data_dir.expanduser()):
            shared.note(f"{options.name} was found elsewhere, and not fetched into {options.data_dir}")
        print(path)
        if options.json:
            print(json.dumps({"name": options.name, "path": str(path)}))
        return 0
    if options.name is not None:
        raise InputError(f"data list takes no name, got {options.name!r}; use 'data fetch {options.name}'")
    shared.check_data_dir(options.data_dir)
    rows = list_datasets(data_dir=options.data_dir)
    for row in rows:
        place = row.path or f"not here: hyperprune data fetch {row.name}"
        print(f"{row.name:18} {row.num_bytes / 1e6:8.1f} MB  {place}")
    if options.json:
        described = [
            {"name": row.name, "bytes": row.num_bytes, "path": None if row.path is None else str(row.path)}
            for row in rows
        ]
        print(json.dumps({"data": described}))
    return 0
