"""A task whose network is another: where a search varies the network itself, not only its pruning."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from hyperprune.errors import InputError
from hyperprune.tasks.contract import Task
from hyperprune.tasks.registry import load_task


def with_model(task: Task, settings: Mapping[str, Any]) -> Task:
    """The task with some settings of its table [model] changed; itself where there are none.

    Raises:
        InputError: a setting or value that the task does not take, or a task made by a program, of which no
            other can be made.
    """
    if not settings:
        return task
    if task.source is None:
        raise InputError(
            f"model settings {sorted(settings)} need a task that has a name, and task {task.name!r} was made "
            "by a program; leave them out"
        )
    source = dict(task.source)
    tables = source["settings"]
    source["settings"] = {**tables, "model": {**tables.get("model", {}), **settings}}
    try:
        return _loaded(json.dumps(source))
    except InputError as error:
        raise InputError(
            f"task {task.name!r} must take the [model] settings {sorted(settings)} that the space varies: "
            f"{error}"
        ) from error


@lru_cache(maxsize=32)  # the candidates of a worker come back segment after segment
def _loaded(source: str) -> Task:
    return load_task(**json.loads(source))
