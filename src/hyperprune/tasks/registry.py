"""Tasks by name: the built-in ones, and a user's own from `file.py:name`."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from hyperprune.errors import InputError, unknown_name
from hyperprune.models import PRESETS, ModelSettings
from hyperprune.settings import from_mapping
from hyperprune.tasks.contract import Recipe, Task
from hyperprune.tasks.language import RECIPES, LanguageTask, TextSettings

T = TypeVar("T", ModelSettings, TextSettings, Recipe)
DEFAULT_TASK = "pydoc"
SETTING_TABLES = ("model", "text", "training")


@dataclass(frozen=True, kw_only=True)
class BuiltIn:
    """A named task: corpus, preset of the model, what is read, and the size of a search by default.

    `dropout`, where given, replaces the preset's three rates.
    """

    corpus: str
    model: str
    dropout: float | None = None
    text: TextSettings = field(default_factory=TextSettings)
    search: Mapping[str, int] = field(default_factory=dict)
    about: str


BUILT_IN: dict[str, BuiltIn] = {
    "pydoc": BuiltIn(
        corpus="pydoc",
        model="mini",
        text=TextSettings(vocabulary_size=2000, batch_size=10),
        search={"candidates": 8, "first_epochs": 3, "round_epochs": 1, "final_epochs": 10},
        about="Python's own reference text, in every CPython: no download (LSTM 2×128)",
    ),
    "ptb-mini": BuiltIn(
        corpus="ptb",
        model="mini",
        dropout=0.3,
        text=TextSettings(
            vocabulary_size=2000, train_tokens=186_000, valid_tokens=40_000, test_tokens=40_000
        ),
        search={"candidates": 24, "first_epochs": 3, "round_epochs": 3, "final_epochs": 40},
        about="a fifth of Penn Treebank's training text, 2,000 words, LSTM 2×128: for studies",
    ),
    "ptb": BuiltIn(corpus="ptb", model="large", about="Penn Treebank, the LSH paper's LSTM 2×1500"),
    "ptb-rhn": BuiltIn(
        corpus="ptb", model="rhn-large", about="Penn Treebank, the LSH paper's RHN 830, depth 10"
    ),
    "wikitext2": BuiltIn(corpus="wikitext2", model="large", about="WikiText-2, LSTM 2×1500"),
    "wikitext103": BuiltIn(corpus="wikitext103", model="large", about="WikiText-103, LSTM 2×1500"),
}


def load_task(
    name: str,
    *,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    data_dir: str | Path | None = None,
) -> Task:
    """The task of that name.

    Args:
        name: a key of `BUILT_IN`; "text:PATH" for a text file or folder; "file.py:name" for a user's own,
            where `name` is a `Task`, or a class or function that makes one without arguments.
        settings: the tables [model], [text] and [training] of a configuration file, by name. A user's own
            task takes [training] alone.
        data_dir: where corpora are looked for first.

    Raises:
        InputError: no such task, or a setting that does not exist.
    """
    settings = settings or {}
    path, separator, attribute = name.rpartition(":")
    if separator and path.endswith(".py"):
        task = _from_file(Path(path), attribute)
        for table in ("model", "text"):
            if settings.get(table):
                raise InputError(f"[{table}] is for built-in tasks, and {name} is your own; set it there")
        if settings.get("training"):
            task.recipe = _replaced(task.recipe, settings["training"], "[training]")
    elif name.startswith("text:"):
        task = _language(BuiltIn(corpus=name, model="small", about="your text"), settings, data_dir)
    elif name in BUILT_IN:
        task = _language(BUILT_IN[name], settings, data_dir)
        task.name, task.search_defaults = name, BUILT_IN[name].search
    else:
        raise unknown_name("task", name, [*BUILT_IN, "text:PATH", "file.py:name"])
    task.source = {
        "name": _absolute(name),
        "settings": {table: dict(values) for table, values in settings.items()},
        "data_dir": None if data_dir is None else str(Path(data_dir).absolute()),
    }
    return task


def _absolute(name: str) -> str:
    """A task's name with the path in it made absolute, so that it means the same from any folder."""
    if name.startswith("text:"):
        return f"text:{Path(name.removeprefix('text:')).expanduser().absolute()}"
    path, separator, attribute = name.rpartition(":")
    return f"{Path(path).absolute()}:{attribute}" if separator else name


def maker_of(task: Task) -> Callable[[], Task]:
    """A picklable function that gives the task in another process: by name where it has one."""
    return partial(load_task, **task.source) if task.source is not None else partial(_itself, task)


def _itself(task: Task) -> Task:
    return task


def _language(
    row: BuiltIn, settings: Mapping[str, Mapping[str, Any]], data_dir: str | Path | None
) -> LanguageTask:
    chosen = dict(settings.get("model", {}))
    preset = chosen.pop("preset", row.model)
    if preset not in PRESETS:
        raise unknown_name("preset in [model]", preset, PRESETS)
    rates = ("dropout_input", "dropout_hidden", "dropout_output")
    dropout = dict.fromkeys(rates, row.dropout) if row.dropout is not None and preset == row.model else {}
    return LanguageTask(
        row.corpus,
        model=_replaced(PRESETS[preset], dropout | chosen, "[model]"),
        text=_replaced(row.text, settings.get("text", {}), "[text]"),
        recipe=_replaced(RECIPES[preset], settings.get("training", {}), "[training]"),
        data_dir=None if data_dir is None else Path(data_dir),
    )


def _replaced(defaults: T, values: Mapping[str, Any], where: str) -> T:
    """`defaults` with some fields set; checked like a whole table."""
    current = {field.name: getattr(defaults, field.name) for field in fields(defaults)}
    return from_mapping(type(defaults), {**current, **values}, where)


def _may_make_task(item: Any, module_name: str) -> bool:
    own = getattr(item, "__module__", None) == module_name
    return (
        isinstance(item, Task)
        or (inspect.isclass(item) and issubclass(item, Task) and item is not Task)
        or (inspect.isfunction(item) and own)
    )


def _from_file(path: Path, attribute: str) -> Task:
    """The task that a user's file defines."""
    if not path.is_file():
        raise InputError(f"a task file must exist, and {path} does not; give it as path/to/file.py:name")
    path = path.resolve()
    module_name = f"hyperprune_task_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    if module_name not in sys.modules:
        spec = importlib.util.spec_from_file_location(module_name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module
        if str(path.parent) not in sys.path:  # as for a script: modules beside the file can be imported
            sys.path.insert(0, str(path.parent))
        try:
            spec.loader.exec_module(module)
        except (Exception, SystemExit) as error:
            del sys.modules[module_name]
            raise InputError(
                f"{path} must be Python that runs, and it raised {type(error).__name__}: {error}"
            ) from error
    module = sys.modules[module_name]
    value = getattr(module, attribute, None)
    if value is None:
        names = [name for name, item in vars(module).items() if _may_make_task(item, module_name)]
        raise unknown_name(f"name in {path.name}", attribute, names)
    if inspect.isclass(value) or (callable(value) and not isinstance(value, Task)):
        try:
            value = value()
        except Exception as error:
            raise InputError(
                f"{path.name}:{attribute} must make a task without arguments, and it raised "
                f"{type(error).__name__}: {error}"
            ) from error
    if not isinstance(value, Task):
        raise InputError(
            f"{path.name}:{attribute} must be a hyperprune.Task, or make one, got {type(value).__name__}; "
            "see examples/own_task.py"
        )
    return value
