"""Tasks by name, and the same task once more in another process."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import FunctionType
from typing import Any

from torch import Tensor

from hyperprune.data.sources import DATASETS
from hyperprune.errors import InputError, unknown_name
from hyperprune.tasks.built_in import BUILT_IN, ImageRow, LanguageRow, Row, Settings, replaced
from hyperprune.tasks.contract import Task, as_json, own_attributes
from hyperprune.tasks.own_file import file_of, from_file, module_of
from hyperprune.tasks.tables import DEFAULT_TASK, SETTING_TABLES

_PATHS = (("strings", "folder"), ("model", "file"))  # settings that name a file or folder


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
    settings = _from_anywhere(settings or {})
    folder = None if data_dir is None else _absolute_path(data_dir)
    path, separator, attribute = name.rpartition(":")
    if separator and path.endswith(".py"):
        task = _copied(from_file(Path(path), attribute))  # the file's own object stays as it is
        for table, values in settings.items():
            if table not in SETTING_TABLES:
                raise unknown_name("table of settings", table, ("training",))
            if table != "training" and values:
                raise InputError(f"[{table}] is for built-in tasks, and {name} is your own; set it there")
        if settings.get("training"):
            task.recipe = replaced(task.recipe, settings["training"], "[training]")
    elif name.startswith("text:"):
        name = _absolute(name)
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
        "settings": settings,
        "data_dir": None if folder is None else str(folder),
    }
    return task


def _copied(task: Task) -> Task:
    """A copy whose attributes can be changed in place; one that shares them where they cannot be copied."""
    try:
        copied = copy.deepcopy(task)
    except Exception:  # whatever a class of the user's raises
        return copy.copy(task)
    return copied if _agree(own_attributes(copied), own_attributes(task)) else copy.copy(task)


def _dataset(name: str) -> str | None:
    """What a built-in task reads: a key of `DATASETS`, or data that need no file."""
    match BUILT_IN.get(name):
        case LanguageRow(corpus=dataset) | ImageRow(images=dataset):
            return dataset
    return None


def _made(name: str, row: Row, settings: Settings, data_dir: Path | None) -> Task:
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


def _from_anywhere(settings: Settings) -> dict[str, dict[str, Any]]:
    """The settings with the paths in them made absolute, so that they mean the same from any folder."""
    for table, values in settings.items():
        if not isinstance(values, Mapping):
            raise InputError(
                f"settings must be tables of names and values, got {values!r} for {table!r}; an example is "
                "{'training': {'learning_rate': 0.01}}"
            )
    found = {table: dict(values) for table, values in settings.items()}
    for table, key in _PATHS:
        if isinstance(path := found.get(table, {}).get(key), str):
            found[table][key] = str(_absolute_path(path))
    return found


def _absolute_path(path: str | Path) -> Path:
    return Path(path).expanduser().absolute()


def _absolute(name: str) -> str:
    """A task's name with the path in it made absolute, so that it means the same from any folder."""
    if name.startswith("text:"):
        return f"text:{_absolute_path(name.removeprefix('text:'))}"
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
    if type(made) is type(task) and _agree(own_attributes(made), own_attributes(task)):
        return task
    changed = copy.copy(task)
    changed.source = None
    return changed


def _agree(made: Mapping[str, Any], found: Mapping[str, Any]) -> bool:
    """Whether the attributes of two tasks have the same values."""
    return made.keys() == found.keys() and all(
        value is found[name] or as_json(value, _pickled) == as_json(found[name], _pickled)
        for name, value in made.items()
    )


def _pickled(value: Any) -> Any:
    """An object by value, where it can be pickled; else itself, which equals no other."""
    content = io.BytesIO()
    try:
        _ByValue(content).dump(value)
    except Exception:  # whatever a class of the user's raises
        return id(value)
    return content.getvalue()


class _ByValue(pickle.Pickler):
    """Pickles to be compared: tensors without their addresses, functions, of any place, as their code."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, Tensor):
            return str, (as_json(obj),)
        if isinstance(obj, FunctionType):
            held = tuple(cell.cell_contents for cell in obj.__closure__ or ())
            return tuple, ((id(obj.__code__), obj.__defaults__, obj.__kwdefaults__, held),)
        return NotImplemented


def maker_of(task: Task) -> Callable[[], Task]:
    """A picklable function that gives the task in another process: by name where it has one, else whole.

    It raises InputError where a name means another task by then: its file was changed.
    """
    if task.source is not None:
        return partial(_made_again, task.source, _decided(task))
    if file := file_of(task):
        return partial(_unpacked, file, type(task).__module__, pickle.dumps(task))
    return partial(_itself, task)


def _made_again(source: Mapping[str, Any], decided: Mapping[str, Any]) -> Task:
    task = load_task(**source)
    if _decided(task) != decided:
        raise _changed(source["name"])
    return task


def _changed(name: str | Path) -> InputError:
    return InputError(
        f"a task must stay as it is while a run trains it, and {name} has changed; undo the change, or begin "
        "anew with --overwrite"
    )


def _decided(task: Task) -> dict[str, Any]:
    """The task's identity but for the attributes of a user's own, some of which appear with use."""
    return {name: value for name, value in task.identity().items() if name != "attributes"}


def _unpacked(file: Path, module_name: str, data: bytes) -> Task:
    """A task whose class is a user's file's."""
    if module_of(file).__name__ != module_name:
        raise _changed(file)
    return pickle.loads(data)


def _itself(task: Task) -> Task:
    return task
