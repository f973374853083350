"""Tasks of a user's own, from `file.py:name`."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from hyperprune.errors import InputError, unknown_name
from hyperprune.tasks.contract import SOURCE_CHECKSUM, Task

_FILES: dict[str, Path] = {}  # the files of users' tasks, by the name of the module that each became


def from_file(path: Path, attribute: str) -> Task:
    """The task that a user's file defines."""
    if not path.is_file():
        raise InputError(f"a task file must exist, and {path} does not; give it as path/to/file.py:name")
    module = module_of(path)
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


def _may_make_task(item: Any, module_name: str) -> bool:
    own = getattr(item, "__module__", None) == module_name
    return (
        isinstance(item, Task)
        or (inspect.isclass(item) and issubclass(item, Task) and item is not Task)
        or (inspect.isfunction(item) and own)
    )


def module_of(path: Path) -> ModuleType:
    """A user's file as it is now, imported once; a changed one is another module."""
    path = path.resolve()
    source = path.read_bytes()
    checksum = hashlib.sha256(source).hexdigest()
    module_name = f"hyperprune_task_{hashlib.sha256(os.fsencode(path) + source).hexdigest()[:12]}"
    if module_name not in sys.modules:
        spec = importlib.util.spec_from_file_location(module_name, path)
        assert spec is not None
        module = importlib.util.module_from_spec(spec)
        vars(module)[SOURCE_CHECKSUM] = checksum
        sys.modules[module_name] = module
        if str(path.parent) not in sys.path:  # as for a script: modules beside the file can be imported
            sys.path.insert(0, str(path.parent))
        try:
            exec(compile(source, path, "exec", dont_inherit=True), vars(module))  # no bytecode of before
        except (Exception, SystemExit) as error:
            del sys.modules[module_name]
            raise InputError(
                f"{path} must be Python that runs, and it raised {type(error).__name__}: {error}"
            ) from error
        _FILES[module_name] = path
    return sys.modules[module_name]


def file_of(task: Task) -> Path | None:
    """The user's file that defines the class of a task, if one does."""
    return _FILES.get(type(task).__module__)
