"""From the weights that a run saved back to a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hyperprune.errors import InputError
from hyperprune.tasks.contract import Task
from hyperprune.tasks.registry import load_task
from hyperprune.training.checkpoint import load_checkpoint
from hyperprune.training.variants import with_model


def describe_checkpoint(path: str | Path) -> dict[str, Any]:
    """What a file of weights says of itself: task, metric, epoch, sparsity, method, seed."""
    return json.loads(_weights(Path(path))["described"])


def load_model(path: str | Path, task: Task | None = None) -> nn.Module:
    """A pruned network as the search evaluated it, in evaluation mode; dead weights are exactly zero.

    The file itself runs no code; the task that it names is a Python file of yours, which is imported.

    Args:
        path: a `best.pt` of a run.
        task: needed only where the run's task was made by a program; else the file names it.

    Raises:
        InputError: no such file, a damaged one, or a task that cannot be made again.
    """
    content = _weights(Path(path))
    return _build(content, _varied(content, task or _task_of(content, Path(path))))


def load_task_and_model(path: str | Path) -> tuple[Task, nn.Module]:
    """The task that a file of weights names, and the model."""
    content = _weights(Path(path))
    task = _varied(content, _task_of(content, Path(path)))
    return task, _build(content, task)


def _varied(content: dict[str, Any], task: Task) -> Task:
    """The task with the network that these weights belong to."""
    return with_model(task, json.loads(content["described"]).get("model_settings", {}))


def _build(content: dict[str, Any], task: Task) -> nn.Module:
    with torch.random.fork_rng(devices=[]):  # a module of torch's draws its first weights globally
        model = task.model(torch.Generator())
    try:
        model.load_state_dict(content["model"])
    except RuntimeError as error:
        raise InputError(f"the weights must fit the model of task {task.name!r}: {error}") from error
    return model.eval()


def _weights(path: Path) -> dict[str, Any]:
    content = load_checkpoint(path)
    if content.get("kind") != "weights":
        raise InputError(f"{path} is a training checkpoint; give the candidate's best.pt")
    return content


def _task_of(content: dict[str, Any], path: Path) -> Task:
    described = json.loads(content["described"])
    source = described.get("task_source")
    if source is None:
        raise InputError(
            f"{path} was trained on task {described['task']!r}, which a program made; pass task= to load it"
        )
    return load_task(**source)
