"""What the command of every study shares."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from hyperprune.cli import options as shared
from hyperprune.errors import InputError, unknown_name

Scale = TypeVar("Scale")


def add_study(tables: Any, name: str, *, about: str, examples: Iterable[str] = ()) -> argparse.ArgumentParser:
    """A study's parser with the options that all studies have."""
    parser = shared.add_parser(tables, name, about=about, examples=examples)
    parser.add_argument("--scale", default="small", metavar="NAME", help="small or paper (small)")
    parser.add_argument("--seeds", type=int, metavar="N", help="seeds 0 to N-1 (the scale's)")
    parser.add_argument("--workers", type=int, metavar="N", help="models trained at a time (the cores)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="the study's folder (runs/TABLE-SCALE)")
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="where data is looked for first")
    parser.set_defaults(study=name)
    return parser


def scale_of(scales: Mapping[str, Scale], options: argparse.Namespace) -> Scale:
    """The scale asked for.

    Raises:
        InputError: a scale that the study does not have, or fewer than one seed.
    """
    if options.scale not in scales:
        raise unknown_name("scale", options.scale, scales)
    if options.seeds is not None and options.seeds < 1:
        raise InputError(f"seeds must be at least 1, got {options.seeds}")
    return scales[options.scale]


def seeds_of(options: argparse.Namespace, default: tuple[int, ...]) -> tuple[int, ...]:
    """The seeds asked for, else the scale's."""
    return default if options.seeds is None else tuple(range(options.seeds))


def existing(path: Path) -> Path:
    """A file to read records from.

    Raises:
        InputError: there is none.
    """
    if not path.is_file():
        raise InputError(f"records must be in an existing file, {path} is none; run the study first")
    return path


def running(options: argparse.Namespace) -> dict[str, Any]:
    """Folder, workers, the command for the records, and where progress is told: what a study's run takes.

    Raises:
        InputError: fewer than one worker.
    """
    workers = shared.usable_cores() if options.workers is None else options.workers
    if workers < 1:
        raise InputError(f"workers must be at least 1, got {workers}")
    return {
        "folder": options.out or Path("runs") / f"{options.study}-{options.scale}",
        "workers": workers,
        "command": shlex.join(["hyperprune", *sys.argv[1:]]),
        "say": lambda text: print(text, file=sys.stderr, flush=True),
    }
