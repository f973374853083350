"""One cell: a model trained to the end with a probe, and everything about it in one file.

While it trains its folder holds checkpoints and one probe file per epoch, so that killing it loses at most an
epoch. At the end `cell.npz` takes their place, beside the weights of the best epoch.

Axes: E epochs (0 … final).
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hyperprune.experiments.cells import Record
from hyperprune.experiments.recording.probe import (
    DENSE_WEIGHTS,
    Arrays,
    EpochProbe,
    epoch_file,
    recurrent_matrices,
)
from hyperprune.experiments.recording.scales import Cell, Scale, dense_cell, full_state_epochs
from hyperprune.files import write_atomically
from hyperprune.hypersearch.space import DENSE, Configuration
from hyperprune.records import EpochRecord
from hyperprune.rng import generator
from hyperprune.tasks.contract import Task
from hyperprune.tasks.registry import load_task
from hyperprune.training.candidate import BEST_WEIGHTS, Training
from hyperprune.training.load import load_model
from hyperprune.training.segment import Advance, advance

CELL_FILE = "cell.npz"
_OWN_TO_TRAINING = {"weights"}  # of the dense model, kept in a file of their own


@dataclass(frozen=True, kw_only=True)
class CellData:
    """What a finished cell recorded.

    Attributes:
        record: the line of records.jsonl.
        epochs: the records of all epochs, everything measured by the probe among them.
        tensors, matrices: names of the pruned tensors and of the recurrent matrices, in the probes' order.
    """

    record: Record
    epochs: tuple[EpochRecord, ...]
    tensors: tuple[str, ...]
    matrices: tuple[str, ...]


def cell_folder(study: Path, cell: Cell) -> Path:
    return study / "cells" / cell.key


def train_cell(
    scale: Scale, data_dir: Path | None, study: Path, device: str, commit: str, cell: Cell
) -> Record:
    """Train a cell, or take it up where it was left; its line for records.jsonl."""
    folder = cell_folder(study, cell)
    if (folder / CELL_FILE).exists():  # killed after the file was written and before its record was
        return read_cell(folder).record
    task = load_task(scale.task, settings=scale.settings, data_dir=data_dir)
    is_dense = cell.configuration == DENSE
    training = Training(
        method=cell.configuration.build(),
        sparsity=cell.sparsity,
        total_epochs=scale.epochs,
        seed=cell.seed,
        name=cell.configuration.text,
        device=device,
        measure_spectrum=False,  # the probe does, each sample's with it
    )
    probe = EpochProbe(
        task,
        folder,
        seed=cell.seed,
        dense_weights=None if is_dense else cell_folder(study, dense_cell(cell.seed)) / DENSE_WEIGHTS,
        full_state=full_state_epochs(scale),
    )
    result = advance(task, training, folder, scale.epochs, probe=probe)
    return _finish(scale, cell, task, folder, result, {"device": device, "commit": commit})


def _finish(
    scale: Scale, cell: Cell, task: Task, folder: Path, result: Advance, circumstances: Record
) -> Record:
    """Put the cell's files together, and delete those that only training needs."""
    measured = [_load(epoch_file(folder, record.epoch)) for record in result.epochs]
    if cell.configuration == DENSE:
        weights = {str(epoch): found["weights"] for epoch, found in enumerate(measured)}
        _save(folder / DENSE_WEIGHTS, weights)
    arrays = _stacked([{k: v for k, v in found.items() if k not in _OWN_TO_TRAINING} for found in measured])
    model = task.model(generator(cell.seed, "weights"))
    matrices = [name for name, _ in recurrent_matrices(task, model, task.spectrum_batch())]
    record: Record = {
        "table": scale.name,
        "task": task.name,
        "configuration": cell.configuration.to_json(),
        "sparsity": cell.sparsity,
        "seed": cell.seed,
        "group": cell.group,
        "epochs": scale.epochs,
        "metric": task.metric,
        "lower_is_better": task.lower_is_better,
        "baseline": task.baseline(),
        "best_epoch": result.best_epoch,
        "test": _test_metric(task, folder, result),
        "valid": [round(item.metric, 4) for item in result.epochs],
        "averaging_from": next((item.epoch for item in result.epochs if item.averaging), None),
        "failure": result.failure or _unmeasured(measured),
        "seconds": round(sum(item.seconds for item in result.epochs), 1),
        "probe_seconds": round(sum(float(found["probe_seconds"]) for found in measured), 1),
        **circumstances,
    }
    header = {
        "record": record,
        "epochs": [item.to_json() for item in result.epochs],
        "tensors": list(result.epochs[0].density) if result.epochs else [],
        "matrices": matrices,
    }
    _save(folder / CELL_FILE, {"header": np.array(json.dumps(header)), **arrays}, compressed=True)
    for path in (*folder.glob("epoch-*.pt"), *folder.glob("probe-*.npz")):
        path.unlink()
    return record


def _test_metric(task: Task, folder: Path, result: Advance) -> float | None:
    if result.best_epoch is None or result.failure is not None:
        return None
    model = load_model(folder / BEST_WEIGHTS, task)
    with torch.no_grad():
        return task.evaluate(model, task.batches("test", 0)).metric


def _unmeasured(measured: Sequence[Arrays]) -> str | None:
    bad = next((epoch for epoch, found in enumerate(measured) if np.isnan(found["spectrum"]).any()), None)
    return None if bad is None else f"the spectrum of epoch {bad} cannot be measured"


def _stacked(measured: Sequence[Arrays]) -> Arrays:
    """By name (E, …) over the epochs, NaN where one was not measured."""
    shapes: dict[str, tuple[int, ...]] = {}
    for found in measured:
        for name, values in found.items():
            shapes[name] = max(shapes.get(name, ()), values.shape)  # a failed spectrum is a single NaN
    arrays = {}
    for name, shape in shapes.items():
        column = np.full((len(measured), *shape), np.nan, dtype=np.float32)
        for epoch, found in enumerate(measured):
            if name in found and found[name].shape == shape:
                column[epoch] = found[name]
        arrays[name] = column
    return arrays


def read_cell(folder: Path) -> CellData:
    """What `train_cell` wrote into a cell's folder."""
    arrays = _load(folder / CELL_FILE)
    header = json.loads(arrays.pop("header").item())
    epochs = []
    for number, entry in enumerate(header["epochs"]):
        found = {name: np.asarray(column[number]) for name, column in arrays.items()}
        probes = {name: value for name, value in found.items() if not np.isnan(value).all()}
        spectrum = probes.pop("spectrum", None)
        seconds = float(probes.pop("spectrum_seconds", math.nan))
        record = EpochRecord.from_json({**entry, "spectrum_seconds": seconds, "probes": probes})
        epochs.append(replace(record, spectrum=None if spectrum is None else spectrum.astype(np.float64)))
    return CellData(
        record=header["record"],
        epochs=tuple(epochs),
        tensors=tuple(header["tensors"]),
        matrices=tuple(header["matrices"]),
    )


def configuration_of(record: Mapping[str, Any]) -> Configuration:
    return Configuration.from_json(record["configuration"])


def _load(path: Path) -> Arrays:
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _save(path: Path, arrays: Mapping[str, np.ndarray], *, compressed: bool = False) -> None:
    buffer = io.BytesIO()
    write = np.savez_compressed if compressed else np.savez
    write(buffer, allow_pickle=False, **arrays)  # pyright: ignore[reportArgumentType]
    write_atomically(path, buffer.getvalue())
