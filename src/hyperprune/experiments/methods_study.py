"""Every pruning method on one small language model: the order of the published table, put to the test.

Each cell (method, sparsity, seed) trains the task from the same initial weights on the same data and is
judged on the test split with the weights of its best validation epoch, of those at its sparsity (a method
that begins dense gets there late). The published table: Zheng & Shlizerman, Hyperpruning, table 1 (stacked
LSTM 2×1500 on Penn Treebank); `scale="small"` is a world of minutes per cell, so orders can be compared,
numbers cannot.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch

from hyperprune.experiments.cells import RECORDS, Record, check_world, read_records, run_cells, workspace
from hyperprune.hypersearch.space import DENSE, Configuration
from hyperprune.sparsity import methods
from hyperprune.tasks.contract import Task
from hyperprune.tasks.registry import load_task
from hyperprune.training.candidate import BEST_WEIGHTS, Training
from hyperprune.training.load import load_model
from hyperprune.training.segment import advance

_MOMENTUM = 0.9  # for methods that look at momentum; the learning rate is divided by 1/(1 - momentum)


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How large a study is.

    Attributes:
        task: name of the task.
        epochs: of every cell.
        sparsities: tried for every method but dense.
        seeds: every cell is run once per seed.
    """

    task: str
    epochs: int
    sparsities: tuple[float, ...]
    seeds: tuple[int, ...]


SCALES = {
    "small": Scale(task="ptb-mini", epochs=20, sparsities=(0.67, 0.9), seeds=(0, 1)),
    "paper": Scale(task="ptb", epochs=100, sparsities=(0.67,), seeds=(0, 1, 2)),
}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One model to train."""

    method: str
    sparsity: float
    seed: int

    @property
    def key(self) -> str:
        return f"{self.method}-{self.sparsity:g}-{self.seed}"


def cells_of(scale: Scale, names: Sequence[str] = ()) -> list[Cell]:
    """All cells, one seed complete before the next, the table's first sparsity before the others.

    Args:
        scale: of the study.
        names: the methods; none means all presets.

    Raises:
        InputError: an unknown method.
    """
    chosen = list(names) or [name for name in methods.names() if name != "dynamic_sparse"]
    for name in chosen:
        methods.kind(name)
    cells = []
    for seed in scale.seeds:
        for sparsity in scale.sparsities:
            for name in chosen:
                cell = Cell(method=name, sparsity=0.0 if name == DENSE.method else sparsity, seed=seed)
                if cell not in cells:
                    cells.append(cell)
    return cells


def run_study(
    scale: Scale,
    folder: Path,
    *,
    names: Sequence[str] = (),
    workers: int = 1,
    data_dir: Path | None = None,
    device: str = "cpu",
    command: str = "",
    say: Callable[[str], None] = print,
) -> list[Record]:
    """Train every cell that `folder` has no record of, and return all records.

    Killing it loses at most an epoch of each cell in flight; the same call goes on.

    Args:
        scale: what is trained and for how long.
        folder: holds records.jsonl, and checkpoints while a cell trains.
        names: the methods; none means all presets.
        workers: cells trained at a time.
        data_dir: where corpora are looked for first.
        device: trained on "cpu" or "cuda"; tested on the CPU.
        command: recorded with each record.
        say: gets a line per finished cell.

    Raises:
        InputError: an unknown method, or `folder` has records of another scale.
    """
    cells = {cell.key: cell for cell in cells_of(scale, names)}
    task = _task(
        scale, data_dir, momentum=False
    )  # what is wrong with the data is told before a worker starts
    check_world(read_records(folder / RECORDS), task.name, scale.epochs)
    work = partial(_train, scale, data_dir, folder, device)
    return run_cells(work, cells, folder, workers=workers, command=command, say=say, line=_line)


def _task(scale: Scale, data_dir: Path | None, *, momentum: bool) -> Task:
    task = load_task(scale.task, data_dir=data_dir)
    if momentum:
        rate = task.recipe.learning_rate * (1 - _MOMENTUM)
        task = load_task(
            scale.task,
            settings={"training": {"momentum": _MOMENTUM, "learning_rate": rate}},
            data_dir=data_dir,
        )
    return task


def _needs_momentum(name: str) -> bool:
    settings = methods.get(name).settings()
    return "momentum" in (settings.get("growth"), settings.get("redistribution"))


def _train(scale: Scale, data_dir: Path | None, study: Path, device: str, cell: Cell) -> Record:
    task = _task(scale, data_dir, momentum=_needs_momentum(cell.method))
    configuration = Configuration.of(cell.method)
    training = Training(
        method=configuration.build(),
        sparsity=cell.sparsity,
        total_epochs=scale.epochs,
        seed=cell.seed,
        name=configuration.text,
        device=device,
        measure_spectrum=False,
    )
    folder = workspace(study, cell.key)
    result = advance(task, training, folder, scale.epochs)
    test = None
    if result.best_epoch is not None and result.failure is None:
        model = load_model(folder / BEST_WEIGHTS, task)
        with torch.no_grad():
            test = task.evaluate(model, task.batches("test", 0)).metric
    return {
        "task": task.name,
        "method": cell.method,
        "sparsity": cell.sparsity,
        "seed": cell.seed,
        "epochs": scale.epochs,
        "learning_rate": task.recipe.learning_rate,
        "momentum": task.recipe.momentum,
        "best_epoch": result.best_epoch,
        "test": test,
        "valid": [round(record.metric, 4) for record in result.epochs],
        "averaging_from": next((record.epoch for record in result.epochs if record.averaging), None),
        "failure": result.failure,
        "seconds": round(sum(record.seconds for record in result.epochs), 1),
    }


def _line(record: Record) -> str:
    outcome = record["failure"] or (
        f"test {record['test']:.2f}, validation {record['valid'][record['best_epoch']]:.2f}"
    )
    return f"{record['key']}: {outcome} ({record['seconds']:.0f} s)"


def published() -> dict[str, tuple[float, float]]:
    """Test and validation perplexity of the published table, by method."""
    return {name: (test, valid) for name, (test, valid) in published_figures("stacked_lstm_067").items()}


def published_figures(table: str) -> dict[str, Any]:
    """A table of published.toml, by name."""
    return tomllib.loads((files("hyperprune.experiments") / "published.toml").read_text())[table]
