"""What the command of every study shares."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from hyperprune.cli import options as shared
from hyperprune.errors import InputError, install, unknown_name

if TYPE_CHECKING:
    from hyperprune.experiments.cells import Record
    from hyperprune.experiments.documents import StudyPage

Scale = TypeVar("Scale")
_PACKAGES = ("matplotlib", "sklearn")


def add_study(
    tables: Any, name: str, *, about: str, scales: Sequence[str], examples: Iterable[str] = ()
) -> argparse.ArgumentParser:
    """A study's parser with the options that all studies have; `scales` are the names of its sizes."""
    parser = shared.add_parser(tables, name, about=about, examples=examples)
    parser.add_argument("--scale", metavar="NAME", help=f"of {', '.join(scales)} (small)")
    parser.add_argument("--seeds", type=int, metavar="N", help="seeds 0 to N-1 (the scale's)")
    parser.add_argument("--workers", type=int, metavar="N", help="models trained at a time (the cores)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="the study's folder (runs/TABLE-SCALE)")
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="where data is looked for first")
    parser.set_defaults(study=name)
    return parser


def require_packages() -> None:
    """Refuse a study that needs all of the extra "studies" where a package is missing, before hours of work.

    Raises:
        InputError: a package cannot be imported.
    """
    if missing := [name for name in _PACKAGES if find_spec(name) is None]:
        raise InputError(
            f"the study needs {', '.join(_PACKAGES)}, and {' and '.join(missing)} cannot be imported; "
            f"{install('studies')}"
        )


def scale_of(scales: Mapping[str, Scale], options: argparse.Namespace) -> Scale:
    """The scale asked for, "small" if none was, which is then noted in the options.

    Raises:
        InputError: a scale that the study does not have, or fewer than one seed.
    """
    options.scale = options.scale or "small"
    if options.scale not in scales:
        raise unknown_name("scale", options.scale, scales)
    if options.seeds is not None and options.seeds < 1:
        raise InputError(f"--seeds must be at least 1, got {options.seeds}; leave it out for the scale's")
    return scales[options.scale]


def seeds_of(options: argparse.Namespace, default: tuple[int, ...]) -> tuple[int, ...]:
    """The seeds asked for, else the scale's."""
    return default if options.seeds is None else tuple(range(options.seeds))


def add_page(parser: argparse.ArgumentParser, page: str) -> None:
    """The options of a study that fills a part of a page of the documentation."""
    parser.add_argument("--docs", type=Path, metavar="DIR", help=f"write records, pictures and {page} there")
    parser.add_argument(
        "--from", type=Path, metavar="FILE", dest="source", help="train nothing: records that --docs wrote"
    )


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
        InputError: fewer than one worker, no such device or folder of data, or a folder that takes no files.
    """
    workers = shared.usable_cores() if options.workers is None else options.workers
    if workers < 1:
        raise InputError(f"--workers must be at least 1, got {workers}; leave it out for the cores")
    shared.check_data_dir(options.data_dir)
    shared.check_folder(folder_of(options), "--out")
    if "device" in options:
        shared.device_of(options)
    return {
        "folder": folder_of(options),
        "workers": workers,
        "command": shlex.join(["hyperprune", *sys.argv[1:]]),
        "say": lambda text: print(text, file=sys.stderr, flush=True),
    }


def folder_of(options: argparse.Namespace) -> Path:
    """The study's folder."""
    return options.out or Path("runs") / f"{options.study}-{options.scale}"


def records_of(
    options: argparse.Namespace,
    page: StudyPage,
    run: Callable[..., list[Record]],
    *,
    of_analysis: Sequence[str] = (),
) -> list[Record]:
    """The records of a study with a page: those of --from, else of `run`, called with what `running` gives.

    Options `of_analysis` go with --from.

    Raises:
        InputError: the page of --docs cannot be filled, told before anything is trained; --from is no file
            of records, or comes with options for what is trained.
    """
    from hyperprune.experiments.cells import read_records

    if options.docs is not None:
        page.check(options.docs)
    if options.source is None:
        return run(data_dir=options.data_dir, **running(options))
    refuse_training_options(options, "source", "--from", ("scale", *of_analysis))
    records = read_records(existing(options.source))
    check_records(options.source, records, page.fields)
    return records


def check_records(source: Path, records: Sequence[Record], fields: Sequence[str]) -> None:
    """Refuse a file without records, and records of another study.

    Raises:
        InputError: no record, or one without these fields.
    """
    if not records:
        raise InputError(f"{source} must hold records, it is empty; run the study first")
    for record in records:
        if missing := [name for name in fields if name not in record]:
            raise InputError(
                f"{source} must hold records of this study, which have {', '.join(map(repr, fields))}; "
                f"{record.get('key', 'one')} lacks {missing[0]!r}"
            )


def refuse_training_options(
    options: argparse.Namespace, name: str, flag: str, also_allowed: Sequence[str]
) -> None:
    """Refuse every option given that has no meaning beside `flag`, with which nothing is trained."""
    if others := shared.set_options(options, besides=(name, "docs", "study", "command", *also_allowed)):
        raise InputError(f"{others[0]} is for what is trained, got it with {flag}; leave one out")


def publish(
    options: argparse.Namespace,
    page: StudyPage,
    records: Sequence[Record],
    *,
    tables: str,
    captions: Mapping[str, str],
    draw: Callable[[Path], Sequence[Path]],
) -> None:
    """Print a study's tables; fill its page with them (--docs), or draw the pictures into its folder."""
    from hyperprune.experiments.documents import has_pictures

    print(tables)
    if options.docs is not None:
        page.write(options.docs, records, tables, captions, draw)
    elif has_pictures():
        for path in draw(folder_of(options) / "pictures"):
            print(f"picture: {path}")
