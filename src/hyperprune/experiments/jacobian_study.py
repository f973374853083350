"""The Jacobian paper's study: criteria at initialisation on images read row by row, and what they leave.

Each cell (network, start, criterion, sparsity, seed) trains from the same initial weights on the same data
and is judged by the test error of its last epoch: not of its best one, since iterative magnitude is denser
then. Beside it stand the figures of the masks and of the Jacobian.

Reference:
    JSE, tables 1, 2, 3, 5, 6, figures 1 to 4, section 6.1. Parts "gamma" and "prediction" are questions that
    the paper leaves.
"""

from __future__ import annotations

import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hyperprune import at_init
from hyperprune.at_init.picture import coarse
from hyperprune.errors import InputError, unknown_name
from hyperprune.experiments.cells import RECORDS, Record, check_world, read_records, run_cells, workspace
from hyperprune.experiments.jacobian_figures import network_figures, start_figures
from hyperprune.hypersearch.space import DENSE, Configuration
from hyperprune.rng import generator
from hyperprune.sparsity.parameters import num_gates
from hyperprune.tasks.contract import Task
from hyperprune.tasks.registry import load_task
from hyperprune.training.candidate import Training
from hyperprune.training.segment import advance, model_after
from hyperprune.training.starting import task_masks

L2 = "iterative_magnitude"
L2_DENSITIES = (0.8, 0.6, 0.4, 0.2, 0.1, 0.05, 0.02, 0.01)
SPARSITY = 0.95
STARTS: dict[str, dict[str, Any]] = {
    "normal": {"init": "normal", "init_scale": 0.1},
    "glorot": {"init": "glorot"},
    "wide": {"init": "normal", "init_scale": 1.0},
    "uniform": {"init": "uniform", "init_scale": 0.1},
    "he": {"init": "he"},
    "torch": {"init": "torch"},
}
"""The initialisations; "normal" is the paper's N(0, 0.1), "wide" its N(0, 1)."""
# Criterion and start of table 2: the paper normalises SNIP and Foresight by γ and by Glorot's start together.
MAIN = (
    ("dense", "normal"),
    ("snip", "normal"),
    ("snip_gamma", "glorot"),
    ("grasp", "normal"),
    ("grasp_gamma", "glorot"),
    ("random", "normal"),
    ("jacobian", "normal"),
    (L2, "normal"),
)
WELL_SCALED = ("normal", "glorot", "he", "torch")
PREDICTED = ("magnitude", "synflow", "grasp", "grasp_gamma", "snip", "snip_gamma", "experimental_lyapunov")


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How large a study is.

    Attributes:
        task: name of the task.
        units: of table 2; the figures are of the second last, 400 in the paper.
        side_units: of the other tables.
        epochs: of every cell.
        seeds: every cell is run once per seed.
        predicted: criteria of the part "prediction", beside random and the Jacobian's.
        parts: of `PARTS`, in this order.
    """

    task: str
    units: tuple[int, ...]
    side_units: int
    epochs: int
    seeds: tuple[int, ...] = (0, 1, 2)
    predicted: tuple[str, ...] = PREDICTED
    parts: tuple[str, ...] = ("main", "time", "gamma", "prediction", "cells", "sparsity", "init")

    @property
    def figure_units(self) -> int:
        return min(400, self.units[-1])


SCALES = {
    # Eight rows are fewer steps than the exponents' horizon.
    "digits": Scale(task="digits", units=(32, 64), side_units=32, epochs=20, predicted=PREDICTED[:-1]),
    # After 20 epochs of so few images (2,200 steps; the paper takes 47,000) all sparse networks were still
    # far from their end.
    "small": Scale(task="mnist10k", units=(100, 400), side_units=100, epochs=40),
    "paper": Scale(task="mnist", units=(100, 400, 1600), side_units=400, epochs=50),
}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One network to train, or ("time") the criteria's run times."""

    criterion: str
    units: int
    start: str = "normal"
    cell: str = "gru"
    sparsity: float = SPARSITY
    seed: int = 0

    @property
    def key(self) -> str:
        if self.criterion == "time":
            return f"time-{self.cell}{self.units}"
        return f"{self.cell}{self.units}-{self.criterion}-{self.start}-{self.sparsity:g}-{self.seed}"


def _main(scale: Scale, seed: int) -> list[Cell]:
    return [
        Cell(criterion=criterion, units=units, start=start, seed=seed)
        for units in scale.units
        for criterion, start in MAIN
    ]


def _time(scale: Scale, seed: int) -> list[Cell]:
    return [Cell(criterion="time", units=scale.figure_units)] if seed == scale.seeds[0] else []


def _cells(scale: Scale, seed: int) -> list[Cell]:
    return [
        Cell(criterion=criterion, units=scale.side_units, cell=cell, seed=seed)
        for cell in ("rnn", "lstm", "peephole_lstm", "gru")
        for criterion in ("random", "jacobian", "dense")
    ]


def _sparsity(scale: Scale, seed: int) -> list[Cell]:
    cells = [Cell(criterion="dense", units=scale.side_units, seed=seed)]
    return cells + [
        Cell(criterion=criterion, units=scale.side_units, sparsity=sparsity, seed=seed)
        for sparsity in (0.9, 0.95, 0.98)
        for criterion in ("random", "jacobian")
    ]


def _init(scale: Scale, seed: int) -> list[Cell]:
    return [
        Cell(criterion=criterion, units=scale.side_units, start=start, seed=seed)
        for start in ("normal", "glorot", "wide", "uniform")
        for criterion in ("jacobian", "random")
    ]


def _gamma(scale: Scale, seed: int) -> list[Cell]:
    return [
        Cell(criterion=criterion, units=scale.side_units, start=start, seed=seed)
        for start in WELL_SCALED
        for criterion in ("random", "jacobian", "jacobian_plain", "snip", "snip_gamma")
    ]


def _prediction(scale: Scale, seed: int) -> list[Cell]:
    return [
        Cell(criterion=criterion, units=scale.side_units, seed=seed)
        for criterion in ("random", "jacobian", "jacobian_plain", *scale.predicted)
    ]


PARTS: dict[str, Callable[[Scale, int], list[Cell]]] = {
    "main": _main,  # table 2, figures 1 to 4
    "time": _time,  # table 6
    "gamma": _gamma,
    "prediction": _prediction,
    "cells": _cells,  # table 1
    "sparsity": _sparsity,  # table 3
    "init": _init,  # table 5
}


def cells_of(scale: Scale, parts: Sequence[str] = ()) -> list[Cell]:
    """All cells without repetition: part by part, within it one seed complete before the next.

    Raises:
        InputError: an unknown part.
    """
    found: dict[str, Cell] = {}
    for part in parts or scale.parts:
        if part not in PARTS:
            raise unknown_name("part of the study", part, PARTS)
        for seed in scale.seeds:
            for cell in PARTS[part](scale, seed):
                # No sparsity tells dense networks apart.
                one = replace(cell, sparsity=0.0) if cell.criterion == "dense" else cell
                found.setdefault(one.key, one)
    return list(found.values())


def run_study(
    scale: Scale,
    folder: Path,
    *,
    parts: Sequence[str] = (),
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
        parts: of the study; none means the scale's.
        workers: cells trained at a time.
        data_dir: where data are looked for first.
        device: trained on "cpu" or "cuda"; judged on the CPU.
        command: recorded with each record.
        say: gets a line per finished cell.
    """
    check_records(read_records(folder / RECORDS), scale)  # keys do not name the task and the epochs
    cells = {cell.key: cell for cell in cells_of(scale, parts)}
    _check_data(load_task(scale.task, data_dir=data_dir))  # told before a worker starts
    work = partial(_run, scale, data_dir, folder, device)
    return run_cells(work, cells, folder, workers=workers, command=command, say=say, line=_line)


def check_records(records: Sequence[Record], scale: Scale) -> None:
    """Refuse records of another scale, which would pass for this one's.

    Raises:
        InputError: a record of another task or of other epochs.
    """
    check_world(records, load_task(scale.task).name, scale.epochs)


def _check_data(task: Task) -> None:
    if next(iter(task.batches("valid", 0)), None) is None:
        raise InputError(f"task {task.name!r} must have validation data, it has none")


def task_of(scale: Scale, cell: Cell, data_dir: Path | None) -> Task:
    """The task with the cell's network and start; weights are never rescaled, as in the paper."""
    model = {"cell": cell.cell, "hidden_size": cell.units, **STARTS[cell.start]}
    settings = {"model": model, "training": {"rescale_weights": False}}
    return load_task(scale.task, settings=settings, data_dir=data_dir)


def configuration_of(cell: Cell) -> Configuration:
    """The pruning method that the cell's criterion stands for."""
    if cell.criterion == "dense":
        return DENSE
    if cell.criterion == L2:  # ranked over the network, as the criteria rank
        return Configuration.of(L2, densities_by_round=L2_DENSITIES, scope="network")
    return Configuration.of("static", at_init=cell.criterion, allow_empty=True)


def _run(scale: Scale, data_dir: Path | None, study: Path, device: str, cell: Cell) -> Record:
    task = task_of(scale, cell, data_dir)
    if cell.criterion == "time":
        return {"task": task.name, **vars(cell), "seconds": _run_times(task)}
    configuration = configuration_of(cell)
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
    record = {
        "task": task.name,
        **vars(cell),
        "epochs": scale.epochs,
        "test_error": None,
        "valid_error": [round(100 * (1 - epoch.metric), 3) for epoch in result.epochs],
        "train_loss": [float(f"{epoch.train_loss:.4g}") for epoch in result.epochs if epoch.train_loss],
        "failure": result.failure,
        "train_seconds": round(sum(epoch.seconds for epoch in result.epochs), 1),
    }
    if result.failure is None:
        record |= _judged(task, cell, model_after(task, training, folder, scale.epochs))
    return record


@torch.no_grad()
def _judged(task: Task, cell: Cell, trained: nn.Module) -> Record:
    """The last epoch's test error, and the figures of the network before and after training."""
    model = task.model(generator(cell.seed, "weights")).eval()
    masks = None
    if cell.criterion != "dense":  # dead weights are exactly 0, and no live one is
        names = task.prunable(trained)
        assert names is not None
        masks = {name: trained.get_parameter(name) != 0 for name in names}
    start = start_figures(task, model, None if cell.criterion == L2 else masks, seed=cell.seed)
    accuracy = task.evaluate(trained, task.batches("test", 0)).metric
    with_map = cell.seed == 0 and cell.start in ("normal", "glorot")
    return {
        "test_error": round(100 * (1 - accuracy), 3),
        "before": start,
        "after": network_figures(task, trained),
        "kept": _kept(trained, masks, with_map=with_map),
    }


def _kept(model: nn.Module, masks: Mapping[str, torch.Tensor] | None, *, with_map: bool) -> Any:
    if masks is None:
        return None
    rows = [[row.tensor, row.gate, row.live, row.total] for row in at_init.kept_by_gate(model, masks)]
    maps = {}
    if with_map:
        maps = {
            name: (coarse(mask, 36, gates=num_gates(model, name)) * 100).round().astype(int).tolist()
            for name, mask in masks.items()
        }
    return {"gates": rows, "map": maps}


def _run_times(task: Task, repeats: int = 5) -> dict[str, float]:
    """Best CPU seconds on one training batch, in alternation; the Jacobian with one step, as in table 6."""
    model = task.model(generator(0, "weights"))
    criteria = {
        "snip": at_init.snip(),
        "grasp": at_init.grasp(),
        "jacobian": at_init.jacobian_plain(horizon=1),
        "snip_gamma": at_init.snip_gamma(),
        "grasp_gamma": at_init.grasp_gamma(),
        "jacobian_gamma": at_init.jacobian(horizon=1),
    }
    seconds: dict[str, list[float]] = {name: [] for name in criteria}
    for number in range(repeats + 1):
        for name, criterion in criteria.items():
            begin = time.process_time()
            task_masks(task, model, criterion, sparsity=SPARSITY, seed=0, allow_empty=True)
            if number:  # the first round warms up
                seconds[name].append(time.process_time() - begin)
    return {name: round(min(values), 5) for name, values in seconds.items()}


def _line(record: Record) -> str:
    if record["criterion"] == "time":
        return f"{record['key']}: SNIP {record['seconds']['snip']:.3f} s"
    outcome = record["failure"] or f"test error {record['test_error']:.2f} %"
    return f"{record['key']}: {outcome} ({record['train_seconds']:.0f} s)"


def published() -> dict[str, Any]:
    """The paper's figures, by table."""
    text = (files("hyperprune.experiments") / "published.toml").read_text()
    return tomllib.loads(text)["jacobian"]


def compact(records: Sequence[Record]) -> list[Record]:
    """The records as they are committed: by key, without what no table or picture reads."""
    ordered = sorted(records, key=lambda record: record["key"])
    return [{name: value for name, value in record.items() if name != "valid_error"} for record in ordered]
