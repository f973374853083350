"""Options that several commands share, and configuration files."""

from __future__ import annotations

import argparse
import os
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hyperprune.errors import InputError, unknown_name
from hyperprune.tasks.tables import SETTING_TABLES

if TYPE_CHECKING:
    from hyperprune.tasks.contract import Task

DEFAULT_TASK = "pydoc"
TASK_HELP = "a built-in task (see 'hyperprune tasks'), text:PATH, or file.py:name"


def add_parser(
    commands: Any, name: str, *, about: str, examples: Iterable[str] = ()
) -> argparse.ArgumentParser:
    """A command's parser, with its examples at the end of its help."""
    return commands.add_parser(
        name,
        help=about,
        description=about,
        epilog="\n".join(["examples:", *(f"  {example}" for example in examples)]) if examples else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """What every command that trains takes."""
    parser.add_argument("--sparsity", type=float, metavar="S", help="share of weights to remove, in [0, 1)")
    parser.add_argument("--seed", type=int, metavar="N", help="of everything random (0)")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads of each worker (1)")
    parser.add_argument("--device", metavar="D", help="cpu or cuda (cpu)")
    parser.add_argument("--out", type=Path, metavar="RUN", help="the run folder (runs/TASK)")
    parser.add_argument("--config", type=Path, metavar="FILE", help="a TOML file; options here go before it")
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="where data are looked for first")
    parser.add_argument("--overwrite", action="store_true", help="delete an earlier run in the folder first")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object on one line")


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


def given(options: argparse.Namespace, names: Iterable[str]) -> dict[str, Any]:
    """The options that were given on the command line."""
    return {name: value for name in names if (value := getattr(options, name)) is not None}


def load_task(name: str, config: Mapping[str, Any], data_dir: Path | None) -> Task:
    """The task of that name, under a configuration's tables."""
    from hyperprune.tasks.registry import load_task as load

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
    workers: int = 1
    epochs: int | None = None


def check_values(values: Mapping[str, Any], *, workers: int) -> dict[str, Any]:
    """The plain options of a run, from a file or the command line, with their types checked.

    Args:
        values: those given.
        workers: how many, where none are given.
    """
    from hyperprune.settings import from_mapping

    plain = {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}
    return asdict(from_mapping(_RunValues, {"workers": workers, **plain}, "the run's option"))


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
