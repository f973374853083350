"""`hyperprune methods`: the pruning methods."""

from __future__ import annotations

import argparse
import json
from typing import Any

from hyperprune.cli import options as shared


def add_parser(commands: Any) -> None:
    parser = shared.add_parser(commands, "methods", about="List the pruning methods and their papers.")
    parser.add_argument("--json", action="store_true", help="print them as one JSON object on one line")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from hyperprune.sparsity import methods

    kinds = {name: methods.kind(name) for name in methods.names()}
    for name, kind in kinds.items():
        print(f"{name:20} {kind.summary}" + (f" [{kind.paper}]" if kind.paper else ""))
    if options.json:
        rows = [{"name": name, "about": kind.summary, "paper": kind.paper} for name, kind in kinds.items()]
        print(json.dumps({"methods": rows}))
    return 0
