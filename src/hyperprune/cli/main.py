"""The command line: one parser, one file per command, exit codes.

Commands import what they need when they run, so that `--help` and `--version` stay quick.
Exit codes: 0 done, 1 the work failed, 2 wrong usage or input, 130 interrupted (the run can go on).
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

import hyperprune
from hyperprune.cli import (
    data,
    methods,
    prune_at_init,
    record,
    replay,
    report,
    reproduce,
    search,
    spectrum,
    status,
    tasks,
    train,
)
from hyperprune.errors import HyperpruneError, InputError

_EPILOG = """examples:
  hyperprune search                          the whole job on an embedded text, in minutes
  hyperprune search ptb --data-dir DATA --config examples/ptb-small.toml
  hyperprune search my_task.py:task --sparsity 0.9 --workers 4 --out runs/mine
  hyperprune status runs/mine
"""


def build_parser() -> argparse.ArgumentParser:
    """The parser of every command."""
    parser = argparse.ArgumentParser(
        prog="hyperprune",
        description="Find the best way to prune a recurrent network, guided by its Lyapunov spectrum.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"hyperprune {hyperprune.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in (
        *(search, train, spectrum, prune_at_init, report, status, record, replay, tasks, methods, data),
        reproduce,
    ):
        module.add_parser(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit code."""
    options = build_parser().parse_args(arguments)
    try:
        return options.run(options)
    except InputError as error:
        print(f"hyperprune: error: {error}", file=sys.stderr)
        return 2
    except HyperpruneError as error:
        print(f"hyperprune: failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            "hyperprune: interrupted; a run goes on where it stopped if the same command is given again",
            file=sys.stderr,
        )
        return 130
    except BrokenPipeError:  # the reader of our output has left (`| head`)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # a full disk, above all: what the journal holds is safe
        print(f"hyperprune: failed: {error}", file=sys.stderr)
        return 1
