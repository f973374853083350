"""`hyperprune methods`: the pruning methods."""

from __future__ import annotations

import argparse
from typing import Any

from hyperprune.cli import options as shared


def add_parser(commands: Any) -> None:
    parser = shared.add_parser(commands, "methods", about="List the pruning methods and their papers.")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from hyperprune.sparsity import methods

    for name in methods.names():
        kind = methods.kind(name)
        print(f"{name:20} {kind.summary}" + (f" [{kind.paper}]" if kind.paper else ""))
    return 0
