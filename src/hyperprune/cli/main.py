"""The command line: one parser, one file per command, exit codes.

Commands import what they need when they run, so that `--help` and `--version` stay quick.
Exit codes: 0 done, 1 the work failed, 2 wrong usage or input, 130 interrupted (the run can go on), 141 the
reader of the output left (`| head`) before the work was done.
Ctrl-C lets go of workers and folders first; a second one ends the process at once.
"""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import hyperprune
from hyperprune.cli import (
    data,
    extend,
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
from hyperprune.errors import DISK_FULL, HyperpruneError, InputError

_EPILOG = """examples:
  hyperprune search                          the whole job on an embedded text, in minutes
  hyperprune search ptb --data-dir DATA --config examples/ptb-small.toml
  hyperprune search my_task.py:task --sparsity 0.9 --workers 4 --out runs/mine
  hyperprune status runs/mine
"""


_READER_LEFT = 141  # 128 + SIGPIPE, as a shell tells of it


def build_parser() -> argparse.ArgumentParser:
    """The parser of every command."""
    parser = argparse.ArgumentParser(
        prog="hyperprune",
        description=(
            "Find the best way to prune a recurrent network, with the Lyapunov spectrum of every candidate."
        ),
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"hyperprune {hyperprune.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in (
        *(search, extend, status, report, train, prune_at_init, spectrum, record, replay),
        *(tasks, methods, data, reproduce),
    ):
        module.add_parser(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit code."""
    code, options = _READER_LEFT, argparse.Namespace()
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed before the program began, as some daemons start them
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="replace")  # one that is not UTF-8 must not lose the work's result
    try:
        try:
            build_parser().parse_args(arguments, options)
            with _second_interrupt_kills():
                code = options.run(options)
        except SystemExit as end:  # of argparse, which has printed its help or what is wrong
            code = int(end.code or 0)
            raise
        finally:
            sys.stdout.flush()  # told here what would else be told, badly, as Python ends
    except InputError as error:
        print(f"hyperprune: error: {error}", file=sys.stderr)
        return 2
    except HyperpruneError as error:
        print(f"hyperprune: failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        goes_on = "a run goes on where it stopped if the same command is given again"
        print(f"hyperprune: interrupted; {_done(options) or goes_on}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        _forget_output()
    except OSError as error:
        is_full = error.errno in DISK_FULL
        goes_on = "nothing is lost: make room, and the same command goes on" if is_full else None
        remedy = _done(options) or goes_on
        print(f"hyperprune: failed: {error}{f'; {remedy}' if remedy else ''}", file=sys.stderr)
        try:
            sys.stdout.flush()
        except OSError:
            _forget_output()
        return 1
    return code


def _done(options: argparse.Namespace) -> str | None:
    """What to do after a command that has done its work and would do it once more; None of all others."""
    return getattr(options, "done", None)


def _forget_output() -> None:
    """What is left to be printed goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def _second_interrupt_kills() -> Iterator[None]:
    """In the block the first Ctrl-C raises KeyboardInterrupt, as ever, and the next one ends the process.

    A process that was told to ignore Ctrl-C, as a script's background jobs are, goes on ignoring it.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        raise KeyboardInterrupt

    # The main thread alone has signal handlers.
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        yield
        return
    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
