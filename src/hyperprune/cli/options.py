"""Options that several commands share, and configuration files."""

from __future__ import annotations

import argparse
import io
import os
import shutil
import sys
import tempfile
import textwrap
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hyperprune.errors import InputError, unknown_name, writing
from hyperprune.files import write_atomically, writing_output
from hyperprune.tasks.tables import DEFAULT_TASK, SETTING_TABLES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from hyperprune.tasks.contract import Task

EXECUTOR_OPTIONS = ("workers", "executor", "ray_address", "gpus_per_candidate")
TASK_HELP = "a built-in task (see 'hyperprune tasks'), text:PATH, or file.py:name"


_HELP_WIDTH = 79
_PICTURES = (".png", ".pdf", ".svg", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".eps", ".ps")


def add_parser(
    commands: Any, name: str, *, about: str, examples: Iterable[str] = ()
) -> argparse.ArgumentParser:
    """A command's parser, with its examples at the end of its help."""
    return commands.add_parser(
        name,
        help=about.replace("%", "%%"),  # argparse puts values in place of %(…)
        description=textwrap.fill(about, _HELP_WIDTH),
        epilog="\n".join(["examples:", *(f"  {example}" for example in examples)]) if examples else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_run_options(parser: argparse.ArgumentParser, *, folder: str = "runs/TASK") -> None:
    """What every command that trains takes; `folder` is the run's where none is given."""
    parser.add_argument(
        "--sparsity", type=float, metavar="S", help="share of weights to remove, in [0, 1) (the task's; 0.67)"
    )
    parser.add_argument("--seed", type=int, metavar="N", help="of everything random (0)")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads of each worker (1)")
    parser.add_argument("--device", metavar="D", help="cpu or cuda (cpu)")
    parser.add_argument("--out", type=Path, metavar="RUN", help=f"the run folder ({folder})")
    parser.add_argument("--config", type=Path, metavar="FILE", help="a TOML file; options here go before it")
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="where data are looked for first")
    parser.add_argument("--overwrite", action="store_true", help="delete an earlier run in the folder first")
    add_json(parser)


def add_json(parser: argparse.ArgumentParser) -> None:
    """What every command with a result for other programs takes."""
    parser.add_argument(
        "--json", action="store_true", help="end with the result, one JSON object on one line"
    )


def check_picture(path: Path | None) -> None:
    """Refuse a name that says no format, to which matplotlib would add one.

    Raises:
        InputError: no suffix of a format of pictures, or as `check_file`.
    """
    if path is not None and (path.suffix.lower() not in _PICTURES or path.is_dir()):
        raise InputError(
            f"--picture must name a picture file, as in kept.png, got {path}; it may end with "
            f"{', '.join(_PICTURES)}"
        )
    if path is not None:
        check_file(path, "--picture")


def save_picture(figure: Figure, path: Path) -> None:
    """Draw a figure into a file, and say so.

    Raises:
        InputError: no file that can be written.
        OSError: the disk is full.
    """
    picture = io.BytesIO()
    figure.savefig(picture, format=path.suffix[1:].lower(), dpi=150)
    with writing_output(path, "--picture"):
        write_atomically(path, picture.getvalue())
    print(f"picture: {path}")


def check_file(path: Path, option: str, run: Path | None = None) -> None:
    """Refuse a file that cannot be written, before anything is trained for it.

    Args:
        path: of the file.
        option: that named it.
        run: the folder of the run that is made first.

    Raises:
        InputError: a folder of that name, a file that a run keeps for itself, or a place that takes no files.
    """
    from hyperprune.hypersearch.run_folder import is_own_file

    if is_own_file(path, run):
        raise InputError(f"{option} must not be a file that a run keeps for itself, got {path}; rename it")
    if path.is_dir():
        raise InputError(f"{option} must be a file that can be written, and {path} is a folder; add a name")
    _check_takes_files(path.absolute().parent, f"{option} must be a file that can be written")


def check_different(**files: Path | None) -> None:
    """Refuse two outputs into one file; files by the names of their options.

    Raises:
        InputError: two have the same path.
    """
    seen: dict[Path, str] = {}
    for option, path in files.items():
        if path is None:
            continue
        other = seen.setdefault(path.resolve(), option)
        if other != option:
            raise InputError(f"--{other} and --{option} must name different files, got {path} for both")


def check_folder(path: Path, option: str) -> None:
    """Refuse a folder that cannot be written to, before anything is trained for it.

    Raises:
        InputError: it takes no files, or cannot be made.
    """
    _check_takes_files(path.absolute(), f"{option} must be a folder that can be written to")


def _check_takes_files(folder: Path, rule: str) -> None:
    place = next(place for place in (folder, *folder.parents) if place.exists())
    with writing(f"{rule}, and {place} takes no files", remedy="choose another"):
        tempfile.TemporaryFile(dir=place).close()


def check_data_dir(path: Path | None) -> None:
    """Refuse a folder that is not there: data would be taken from elsewhere without a word.

    Raises:
        InputError: no such folder.
    """
    if path is not None and not path.is_dir():
        raise InputError(f"--data-dir must be an existing folder, {path} is none")


def device_of(options: argparse.Namespace) -> str:
    """The device asked for with --device, else the CPU.

    Raises:
        InputError: no such device on this machine.
    """
    if options.device is None:
        return "cpu"
    from hyperprune.hypersearch.executor import check_device

    check_device(options.device)
    return options.device


def terminal_width() -> int:
    """Columns of the terminal that is printed to, 80 where there is none; at most 120."""
    return min(shutil.get_terminal_size().columns, 120) if sys.stdout.isatty() else 80


def add_executor_options(parser: argparse.ArgumentParser) -> None:
    """Where candidates are trained."""
    parser.add_argument("--workers", type=int, metavar="N", help="candidates trained at a time (the cores)")
    parser.add_argument("--executor", metavar="NAME", help="local or ray (local)")
    parser.add_argument(
        "--ray-address", metavar="A", help="auto or host:port of a Ray cluster (starts Ray here)"
    )
    parser.add_argument(
        "--gpus-per-candidate", type=float, metavar="G", help="share of a GPU, with --device cuda (1)"
    )


def read_config(path: Path | None, *, values: Iterable[str], tables: Iterable[str]) -> dict[str, Any]:
    """A configuration file's content, its keys checked.

    Args:
        path: of the TOML file; None gives an empty configuration.
        values: names of the plain keys that the command knows.
        tables: names of the tables that the command knows.

    Raises:
        InputError: no such file, no TOML, an unknown key or table.
    """
    if path is None:
        return {}
    try:
        with path.open("rb") as file:
            config = tomllib.load(file)
    except OSError as error:
        raise InputError(f"a configuration must be a readable file, got {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"a configuration must be TOML, and {path} is not: {error}") from error
    known_values, known_tables = set(values), set(tables)
    for key, value in config.items():
        if key not in known_values | known_tables:
            raise unknown_name(f"key in {path}", key, known_values | known_tables)
        if isinstance(value, Mapping) != (key in known_tables):
            shape = f"a table, [{key}]" if key in known_tables else f"a value, {key} = …"
            raise InputError(f"{key!r} in {path} must be {shape}")
    return config


def flag(name: str) -> str:
    """An option as it is written on the command line."""
    return f"--{name.replace('_', '-')}"


def set_options(options: argparse.Namespace, *, besides: Iterable[str]) -> list[str]:
    """What was asked for on the command line besides these, as it is written there; a task is "a task"."""
    left_out = {"run", *besides}
    return [
        "a task" if name == "task" else flag(name)
        for name, value in vars(options).items()
        if name not in left_out and value is not None and value is not False
    ]


def note(text: str) -> None:
    """Tell what was not done quite as asked, on standard error."""
    print(f"note: {text}", file=sys.stderr)


def given(options: argparse.Namespace, names: Iterable[str]) -> dict[str, Any]:
    """The options that were given on the command line."""
    return {name: value for name in names if (value := getattr(options, name)) is not None}


def load_task(name: str, config: Mapping[str, Any], data_dir: Path | None) -> Task:
    """The task of that name, under a configuration's tables."""
    from hyperprune.tasks.registry import load_task as load

    check_data_dir(data_dir)
    settings = {table: config[table] for table in SETTING_TABLES if table in config}
    return load(name, settings=settings, data_dir=data_dir)


def default_folder(task_name: str) -> Path:
    """runs/NAME, with what is no letter or digit of the name replaced."""
    name = Path(task_name.partition(":")[2] or task_name).stem if ":" in task_name else task_name
    if task_name.partition(":")[0].endswith(".py"):
        name = Path(task_name.partition(":")[0]).stem
    return Path("runs") / (
        "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in name) or "run"
    )


@dataclass(kw_only=True)
class _RunValues:
    task: str = DEFAULT_TASK
    out: str | None = None
    sparsity: float | None = None
    seed: int = 0
    threads: int = 1
    device: str = "cpu"
    workers: int | None = None
    executor: str = "local"
    ray_address: str | None = None
    gpus_per_candidate: float | None = None
    epochs: int | None = None
    reference: str | None = None
    audit: int = 0


def check_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """The plain options of a run, from a file or the command line, with their types checked.

    Local workers on the CPU are as many as the cores, where none are asked for.
    """
    from hyperprune.settings import from_mapping

    plain = {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}
    checked = asdict(from_mapping(_RunValues, plain, "the run's option"))
    if checked["workers"] is None and checked["executor"] == "local" and checked["device"] == "cpu":
        checked["workers"] = usable_cores()
    return checked


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
