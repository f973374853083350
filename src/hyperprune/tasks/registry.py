"""Tasks by name: the built-in ones, and a user's own from `file.py:name`."""

from __future__ import annotations

import copy
import hashlib
import importlib.util
import inspect
import pickle
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property, partial
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from hyperprune.data.sources import DATASETS
from hyperprune.errors import InputError, unknown_name
from hyperprune.models import PRESETS, ClassifierSettings, LanguageSettings
from hyperprune.models.strings import StringClassifierSettings
from hyperprune.settings import from_mapping
from hyperprune.tasks.contract import Recipe, Task, as_json
from hyperprune.tasks.images import RECIPE as IMAGE_RECIPE
from hyperprune.tasks.images import ImageSettings, ImageTask
from hyperprune.tasks.language import RECIPES, LanguageTask, TextSettings
from hyperprune.tasks.reber import RECIPE as REBER_RECIPE
from hyperprune.tasks.reber import ReberTask, StringSettings
from hyperprune.tasks.tables import DEFAULT_TASK, SETTING_TABLES
from hyperprune.tasks.wired import WiredReberTask, WiringSettings

T = TypeVar(
    "T",
    bound=LanguageSettings
    | TextSettings
    | ClassifierSettings
    | ImageSettings
    | StringSettings
    | WiringSettings
    | Recipe,
)
_Settings = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class LanguageRow:
    """A language model on a corpus: preset of the model, what is read, and the size of a search by default.

    `changes` replaces settings of that preset; it goes when another one is chosen.
    """

    tables = ("model", "text", "training")

    corpus: str
    model: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    text: TextSettings = field(default_factory=TextSettings)
    search: Mapping[str, int] = field(default_factory=dict)
    about: str

    def make(self, settings: _Settings, data_dir: Path | None) -> LanguageTask:
        chosen = dict(settings.get("model", {}))
        preset = chosen.pop("preset", self.model)
        if preset not in PRESETS:
            raise unknown_name("preset in [model]", preset, PRESETS)
        changes = self.changes if preset == self.model else {}
        return LanguageTask(
            self.corpus,
            model=_replaced(PRESETS[preset], {**changes, **chosen}, "[model]"),
            text=_replaced(self.text, settings.get("text", {}), "[text]"),
            recipe=_replaced(RECIPES[preset], settings.get("training", {}), "[training]"),
            data_dir=data_dir,
        )


@dataclass(frozen=True, kw_only=True)
class ImageRow:
    """A classifier of images read as sequences, and the size of a search by default."""

    tables = ("model", "images", "training")

    images: str
    model: ClassifierSettings
    reading: ImageSettings = field(default_factory=ImageSettings)
    recipe: Recipe = IMAGE_RECIPE
    search: Mapping[str, int] = field(default_factory=dict)
    about: str

    def make(self, settings: _Settings, data_dir: Path | None) -> ImageTask:
        return ImageTask(
            self.images,
            model=_replaced(self.model, settings.get("model", {}), "[model]"),
            reading=_replaced(self.reading, settings.get("images", {}), "[images]"),
            recipe=_replaced(self.recipe, settings.get("training", {}), "[training]"),
            data_dir=data_dir,
        )


@dataclass(frozen=True, kw_only=True)
class ReberRow:
    """A classifier of strings, and the size of a search by default."""

    tables = ("model", "strings", "training")

    model: StringClassifierSettings = field(default_factory=StringClassifierSettings)
    strings: StringSettings = field(default_factory=StringSettings)
    recipe: Recipe = REBER_RECIPE
    search: Mapping[str, int] = field(default_factory=dict)
    about: str

    def make(self, settings: _Settings, data_dir: Path | None) -> ReberTask:
        return ReberTask(
            model=_replaced(self.model, settings.get("model", {}), "[model]"),
            strings=_replaced(self.strings, settings.get("strings", {}), "[strings]"),
            recipe=_replaced(self.recipe, settings.get("training", {}), "[training]"),
        )


@dataclass(frozen=True, kw_only=True)
class WiredRow:
    """A graph-wired classifier of strings, and the size of a search by default."""

    tables = ("model", "strings", "training")

    model: WiringSettings = field(default_factory=WiringSettings)
    strings: StringSettings = field(default_factory=lambda: StringSettings(batch_size=128, by_length=True))
    recipe: Recipe = REBER_RECIPE
    search: Mapping[str, int] = field(default_factory=dict)
    about: str

    def make(self, settings: _Settings, data_dir: Path | None) -> WiredReberTask:
        return WiredReberTask(
            model=_replaced(self.model, settings.get("model", {}), "[model]"),
            strings=_replaced(self.strings, settings.get("strings", {}), "[strings]"),
            recipe=_replaced(self.recipe, settings.get("training", {}), "[training]"),
        )


Row = LanguageRow | ImageRow | ReberRow | WiredRow
BUILT_IN: dict[str, Row] = {
    "pydoc": LanguageRow(
        corpus="pydoc",
        model="mini",
        text=TextSettings(vocabulary_size=2000, batch_size=10),
        search={"candidates": 8, "first_epochs": 3, "round_epochs": 1, "final_epochs": 10},
        about="Python's own reference text, in every CPython: no download (LSTM 2×128)",
    ),
    "ptb-mini": LanguageRow(
        corpus="ptb",
        model="mini",
        changes={"dropout_input": 0.3, "dropout_hidden": 0.3, "dropout_output": 0.3},
        text=TextSettings(
            vocabulary_size=2000, train_tokens=186_000, valid_tokens=40_000, test_tokens=40_000
        ),
        search={"candidates": 24, "first_epochs": 3, "round_epochs": 3, "final_epochs": 40},
        about="a fifth of Penn Treebank's training text, 2,000 words, LSTM 2×128: for studies",
    ),
    "ptb": LanguageRow(corpus="ptb", model="large", about="Penn Treebank, the LSH paper's LSTM 2×1500"),
    "ptb-rhn": LanguageRow(
        corpus="ptb", model="rhn-large", about="Penn Treebank, the LSH paper's RHN 830, depth 10"
    ),
    "wikitext2": LanguageRow(corpus="wikitext2", model="large", about="WikiText-2, LSTM 2×1500"),
    "wikitext103": LanguageRow(corpus="wikitext103", model="large", about="WikiText-103, LSTM 2×1500"),
    "one-billion-words": LanguageRow(
        corpus="one-billion-words",
        model="jse",
        changes={"num_sampled": 1000},
        text=TextSettings(
            vocabulary_size=100_000,
            train_tokens=2_240_000,
            valid_tokens=160_000,
            test_tokens=160_000,
            batch_size=64,
        ),
        search={"candidates": 8, "first_epochs": 3, "round_epochs": 3, "final_epochs": 30},
        about="One Billion Words, streamed, 100,000 words, the JSE paper's LSTM 2000; epochs of 1,000 steps",
    ),
    "wikitext2-jse": LanguageRow(
        corpus="wikitext2",
        model="jse",
        text=TextSettings(batch_size=64),
        about="WikiText-2, the JSE paper's LSTM 2000",
    ),
    "wikitext103-jse": LanguageRow(
        corpus="wikitext103",
        model="jse",
        changes={"num_sampled": 1000},
        text=TextSettings(batch_size=64),
        about="WikiText-103, the JSE paper's LSTM 2000, softmax of 1,000 sampled words",
    ),
    "ptb-awd": LanguageRow(
        corpus="ptb",
        model="awd-mos-ptb",
        text=TextSettings(batch_size=12, bptt=70),
        about="Penn Treebank, AWD-LSTM-MoS of Yang et al.: 960, 960, 620, 15 experts",
    ),
    "wikitext2-awd": LanguageRow(
        corpus="wikitext2",
        model="awd-mos-wikitext2",
        text=TextSettings(batch_size=15, bptt=70),
        about="WikiText-2, the later LSH paper's AWD-LSTM-MoS: 1150, 1150, 650, 15 experts",
    ),
    "digits": ImageRow(
        images="digits",
        model=ClassifierSettings(hidden_size=64),
        reading=ImageSettings(batch_size=32),
        search={"candidates": 8, "first_epochs": 3, "round_epochs": 2, "final_epochs": 20},
        about="1,797 digits of 8×8 pixels, row by row, in this package: no download (GRU 64)",
    ),
    "mnist10k": ImageRow(
        images="mnist10k",
        model=ClassifierSettings(hidden_size=100),
        search={"candidates": 24, "first_epochs": 3, "round_epochs": 3, "final_epochs": 50},
        about="MNIST's test file alone, split 7,000/1,000/2,000, row by row (GRU 100): no MNIST",
    ),
    "mnist": ImageRow(
        images="mnist",
        model=ClassifierSettings(hidden_size=400),
        search={"candidates": 24, "first_epochs": 3, "round_epochs": 3, "final_epochs": 50},
        about="MNIST row by row, the JSE paper's GRU 400",
    ),
    "reber": ReberRow(
        search={"candidates": 8, "first_epochs": 3, "round_epochs": 1, "final_epochs": 20},
        about="is a string of the Reber grammar? 18,750 drawn on the spot: no download (LSTM 3×50)",
    ),
    "reber-graph": WiredRow(
        search={"candidates": 8, "first_epochs": 3, "round_epochs": 1, "final_epochs": 15},
        about="the same strings, judged by a network wired by a graph: dense, random or of a file (GRU)",
    ),
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
        settings: the tables of a configuration file that describe a task, by name: [model] and [training],
            [text] of a language task, [images] of one on images, [strings] of one on strings. A user's own
            task takes [training] alone.
        data_dir: where the files of named data are looked for first; an error for a task that reads none.

    Raises:
        InputError: no such task, or a setting that does not exist.
    """
    settings = settings or {}
    folder = None if data_dir is None else Path(data_dir)
    path, separator, attribute = name.rpartition(":")
    if separator and path.endswith(".py"):
        task = copy.copy(_from_file(Path(path), attribute))  # the file's own object stays as it is
        for table in SETTING_TABLES:
            if table != "training" and settings.get(table):
                raise InputError(f"[{table}] is for built-in tasks, and {name} is your own; set it there")
        if settings.get("training"):
            task.recipe = _replaced(task.recipe, settings["training"], "[training]")
    elif name.startswith("text:"):
        task = _made(name, LanguageRow(corpus=name, model="small", about="your text"), settings, folder)
    elif name in BUILT_IN:
        task = _made(name, BUILT_IN[name], settings, folder)
    else:
        raise unknown_name("task", name, [*BUILT_IN, "text:PATH", "file.py:name"])
    if folder is not None and _dataset(name) not in DATASETS:
        raise InputError(
            f"a data folder is where named data are looked for, and the task {name!r} reads none of them; "
            f"leave {folder} out"
        )
    task.source = {
        "name": _absolute(name),
        "settings": {table: dict(values) for table, values in settings.items()},
        "data_dir": None if data_dir is None else str(Path(data_dir).absolute()),
    }
    return task


def _dataset(name: str) -> str | None:
    """What a built-in task reads: a key of `DATASETS`, or data that need no file."""
    match BUILT_IN.get(name):
        case LanguageRow(corpus=dataset) | ImageRow(images=dataset):
            return dataset
    return None


def _made(name: str, row: Row, settings: _Settings, data_dir: Path | None) -> Task:
    """The task of a row of the table; a table of settings that it does not read is an error."""
    for table, values in settings.items():
        if table not in SETTING_TABLES:
            raise unknown_name("table of settings", table, row.tables)
        if values and table not in row.tables:
            known = ", ".join(f"[{known}]" for known in row.tables)
            raise InputError(f"[{table}] means nothing to the task {name!r}; it takes {known}")
    task = row.make(settings, data_dir)
    task.name, task.search_defaults = name, row.search
    return task


def _absolute(name: str) -> str:
    """A task's name with the path in it made absolute, so that it means the same from any folder."""
    if name.startswith("text:"):
        return f"text:{Path(name.removeprefix('text:')).expanduser().absolute()}"
    path, separator, attribute = name.rpartition(":")
    return f"{Path(path).absolute()}:{attribute}" if separator else name


def as_found(task: Task) -> Task:
    """The task; without its `source` where a program changed it since, for what that makes is another.

    Raises:
        InputError: it is no task.
    """
    if not isinstance(task, Task):
        raise InputError(
            f"task must be a hyperprune.Task, got {task!r}; hyperprune.load_task({DEFAULT_TASK!r}) makes "
            "one, and so of any other name that 'hyperprune tasks' lists"
        )
    if task.source is None:
        return task
    made = load_task(**task.source)
    if type(made) is type(task) and _settings_of(made) == _settings_of(task):
        return task
    changed = copy.copy(task)
    changed.source = None
    return changed


def _settings_of(task: Task) -> dict[str, Any]:
    """The task's own attributes as JSON, but for those that are computed from the others."""
    kept = {
        name: value
        for name, value in vars(task).items()
        if name not in ("source", "search_defaults")
        and not isinstance(getattr(type(task), name, None), cached_property)
    }
    return as_json(kept)


def maker_of(task: Task) -> Callable[[], Task]:
    """A picklable function that gives the task in another process: by name where it has one, else whole.

    It raises InputError where a name means another task by then: its file was changed.
    """
    if task.source is not None:
        return partial(_made_again, task.source, _decided(task))
    if file := _FILES.get(type(task).__module__):
        return partial(_unpacked, file, pickle.dumps(task))
    return partial(_itself, task)


def _made_again(source: Mapping[str, Any], decided: Mapping[str, Any]) -> Task:
    task = load_task(**source)
    if _decided(task) != decided:
        raise InputError(
            f"a task must stay as it is while a run trains it, and {source['name']} has changed; undo the "
            "change, or begin anew with --overwrite"
        )
    return task


def _decided(task: Task) -> dict[str, Any]:
    """The task's identity but for the attributes of a user's own, some of which appear with use."""
    return {name: value for name, value in task.identity().items() if name != "attributes"}


def _unpacked(file: Path, data: bytes) -> Task:
    """A task whose class is a user's file's."""
    _module_of(file)
    return pickle.loads(data)


def _itself(task: Task) -> Task:
    return task


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


_FILES: dict[str, Path] = {}  # the files of users' tasks, by the name of the module that each became


def _module_of(path: Path) -> ModuleType:
    """A user's file, imported once."""
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
        _FILES[module_name] = path
    return sys.modules[module_name]


def _from_file(path: Path, attribute: str) -> Task:
    """The task that a user's file defines."""
    if not path.is_file():
        raise InputError(f"a task file must exist, and {path} does not; give it as path/to/file.py:name")
    module = _module_of(path)
    value = getattr(module, attribute, None)
    if value is None:
        names = [name for name, item in vars(module).items() if _may_make_task(item, module.__name__)]
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
