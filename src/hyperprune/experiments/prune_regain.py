"""Prune a trained network once and see how soon training brings its quality back.

A base model is trained for every cell and seed. From its weights after the last epoch, each point (part,
percentage) starts again: the lowest weights go by one threshold, the network is tested at once, and
it is trained for some epochs more with the pruned weights held at 0 and a fresh optimizer. The base is
tested on the test split, as are the points; nothing is chosen by it.

Besides, the Lyapunov spectrum (hidden state, see `Task.recurrent`) is measured before pruning, right after
it and after retraining.

Reference: Darji (2021), Investigating sparsity in recurrent neural networks (arXiv 2407.20601),
sections 5.2 and 6.1.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_

from hyperprune.errors import InputError, NumericsError
from hyperprune.experiments.cells import Record, in_order, run_cells
from hyperprune.experiments.pruning import PARTS, SCOPES, lowest_masks, matrices_of, prune_and_hold
from hyperprune.hypersearch.reference import dense_training
from hyperprune.spectra import LyapunovSpectrum, spectrum_distance
from hyperprune.tasks.contract import Evaluation, Split, Task
from hyperprune.tasks.registry import load_task
from hyperprune.training.candidate import Training
from hyperprune.training.isolation import isolated
from hyperprune.training.measure import recurrent_spectra
from hyperprune.training.nested import detached
from hyperprune.training.optimizer import build_optimizer
from hyperprune.training.segment import advance, model_after

PERCENTS = tuple(range(10, 101, 10))
OWN = "own"  # the cell of a task whose model is left as it is
_NUM_LEADING = 10  # exponents kept in a record


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How large a study is.

    Attributes:
        task: name of the task.
        settings: the task's tables, as a configuration file has them.
        cells: values of [model] cell, a base model for each; "own" leaves the task's model as it is.
        parts: of the recurrent layers' weights that are pruned: "both", "input", "recurrent".
        percents: of those weights that are pruned, each from the base model.
        scope: "network", one threshold over all layers, or "layer", one for each.
        base_epochs: of the base model.
        retrain_epochs: after pruning.
        seeds: everything is run once per seed.

    Raises:
        InputError: a value out of range, or an unknown part or scope.
    """

    task: str = "reber"
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    cells: tuple[str, ...] = ("rnn", "rnn_relu", "lstm", "gru")
    parts: tuple[str, ...] = ("both", "input", "recurrent")
    percents: tuple[int, ...] = PERCENTS
    scope: str = "network"
    base_epochs: int
    retrain_epochs: int = 10
    seeds: tuple[int, ...]

    def __post_init__(self) -> None:
        for name, allowed in (("parts", PARTS), ("scope", SCOPES)):
            given = getattr(self, name)
            for value in (given,) if isinstance(given, str) else given:
                if value not in allowed:
                    raise InputError(f"{name} must be of {', '.join(allowed)}, got {value!r}")
        for percent in self.percents:
            if not 1 <= percent <= 100:
                raise InputError(f"percents must lie in 1 to 100, got {percent}; 50 prunes half")
        for name in ("base_epochs", "retrain_epochs"):
            if getattr(self, name) < 1:
                raise InputError(
                    f"{name} must be at least 1, got {getattr(self, name)}; see the other scales"
                )

    def digest(self) -> str:
        """Eight letters that tell records of other settings apart; a key names the rest."""
        kept = ("task", "settings", "scope", "base_epochs", "retrain_epochs")
        text = json.dumps([asdict(self)[name] for name in kept], sort_keys=True, default=list)
        return hashlib.sha256(text.encode()).hexdigest()[:8]


SCALES = {
    "small": Scale(
        settings={"strings": {"train_strings": 4000, "valid_strings": 500, "test_strings": 1000}},
        base_epochs=25,
        seeds=(0, 1),
    ),
    "paper": Scale(base_epochs=50, seeds=(0, 1, 2)),
}


@dataclass(frozen=True, kw_only=True)
class Base:
    """A base model to train."""

    cell: str
    seed: int

    def key(self, scale: Scale) -> str:
        return f"base-{self.cell}-{self.seed}-{scale.digest()}"


@dataclass(frozen=True, kw_only=True)
class Point:
    """A base model to prune and train again."""

    base: Base
    part: str
    percent: int

    def key(self, scale: Scale) -> str:
        return f"{self.base.cell}-{self.part}-{self.percent}-{self.base.seed}-{scale.digest()}"


def run_study(
    scale: Scale,
    folder: Path,
    *,
    workers: int = 1,
    data_dir: Path | None = None,
    command: str = "",
    say: Callable[[str], None] = print,
) -> list[Record]:
    """Train every base model and point that `folder` has no record of, and return the records of `scale`.

    Killing it loses at most an epoch of a base model and the points in flight; the same call goes on.

    Args:
        scale: what is trained and for how long.
        folder: holds records.jsonl, and the base models' checkpoints.
        workers: models trained at a time.
        data_dir: where the task's data are looked for first.
        command: recorded with each record.
        say: gets a line per finished model.

    Raises:
        InputError: the task's settings or data are wrong, or its model has no such weights.
    """
    bases = [Base(cell=cell, seed=seed) for seed in scale.seeds for cell in scale.cells]
    for cell in scale.cells:  # what is wrong with the task is told before a worker starts
        task = _task(scale, data_dir, cell)
        next(iter(task.batches("valid", 0)), None)
        model = task.model(torch.Generator())
        for part in scale.parts:
            matrices_of(model, part)
    run = partial(run_cells, folder=folder, workers=workers, command=command, say=say, line=_line)
    records = run(partial(_train_base, scale, data_dir, folder), {base.key(scale): base for base in bases})
    failed = {record["key"] for record in records if record["kind"] == "base" and record["failure"]}
    points = [
        Point(base=base, part=part, percent=percent)
        for base in bases
        if base.key(scale) not in failed
        for part in scale.parts
        for percent in scale.percents
    ]
    records = run(partial(_run_point, scale, data_dir, folder), {point.key(scale): point for point in points})
    return in_order(records, [item.key(scale) for item in (*bases, *points)])


_tasks: dict[str, Task] = {}


def _task(scale: Scale, data_dir: Path | None, cell: str) -> Task:
    """The task with a cell set; made once per process, since its data may take a while."""
    text = json.dumps([scale.task, cell, scale.settings, str(data_dir)], default=dict)
    if text not in _tasks:
        settings = {table: dict(values) for table, values in scale.settings.items()}
        if cell != OWN:
            settings["model"] = {**settings.get("model", {}), "cell": cell}
        _tasks[text] = load_task(scale.task, settings=settings, data_dir=data_dir)
    return _tasks[text]


def _folder(scale: Scale, study: Path, base: Base) -> Path:
    return study / "bases" / base.key(scale)


def _training(scale: Scale, base: Base) -> Training:
    return dense_training(scale.base_epochs, seed=base.seed, measure_spectrum=False)


def _trained(scale: Scale, study: Path, task: Task, base: Base) -> nn.Module:
    return model_after(task, _training(scale, base), _folder(scale, study, base), scale.base_epochs)


def _train_base(scale: Scale, data_dir: Path | None, study: Path, base: Base) -> Record:
    task = _task(scale, data_dir, base.cell)
    result = advance(task, _training(scale, base), _folder(scale, study, base), scale.base_epochs)
    record: Record = {
        "kind": "base",
        "cell": base.cell,
        "seed": base.seed,
        "task": task.name,
        "settings": {table: dict(values) for table, values in scale.settings.items()},
        "metric": task.metric,
        "lower_is_better": task.lower_is_better,
        "failure": result.failure,
        "epochs": len(result.epochs) - 1,
        "valid": [round(epoch.metric, 5) for epoch in result.epochs],
        "seconds": round(sum(epoch.seconds for epoch in result.epochs), 1),
    }
    if result.failure is not None:
        return record
    model = _trained(scale, study, task, base)
    test = _evaluate(task, model, "test")
    num_weights = {part: sum(w.numel() for w in matrices_of(model, part).values()) for part in PARTS}
    spectrum = recurrent_spectra(task, model, seed=base.seed)
    return record | {
        "test": test.metric,
        "loss": round(test.loss, 5),
        "num_weights": num_weights,
        **_spectrum_record(spectrum, spectrum),
    }


def _run_point(scale: Scale, data_dir: Path | None, study: Path, point: Point) -> Record:
    started = time.perf_counter()
    task, seed = _task(scale, data_dir, point.base.cell), point.base.seed
    model = _trained(scale, study, task, point.base)
    before = recurrent_spectra(task, model, seed=seed)
    matrices = matrices_of(model, point.part)
    masks = lowest_masks(matrices, point.percent, scope=scale.scope)
    prune_and_hold(matrices, masks)
    pruned = _spectra(task, model, seed)
    test = _evaluate(task, model, "test")
    curve, failure = [], None
    with isolated(device="cpu", threads=1, seed=seed):
        optimizer = build_optimizer(model, task.recipe)
        for epoch in range(scale.base_epochs + 1, scale.base_epochs + scale.retrain_epochs + 1):
            failure = _train_epoch(task, model, optimizer, epoch)
            if failure is not None:
                break
            curve.append(_evaluate(task, model, "test"))
    retrained = None if failure else _spectra(task, model, seed)
    return {
        "kind": "point",
        "cell": point.base.cell,
        "seed": seed,
        "part": point.part,
        "percent": point.percent,
        "scope": scale.scope,
        "num_live": sum(int(mask.sum()) for mask in masks.values()),
        "pruned": {"test": test.metric, "loss": round(test.loss, 5), **_spectrum_record(pruned, before)},
        "retrained": {
            "test": [evaluation.metric for evaluation in curve],
            "loss": [round(evaluation.loss, 5) for evaluation in curve],
            **_spectrum_record(retrained, before),
        },
        "failure": failure,
        "seconds": round(time.perf_counter() - started, 1),
    }


def _spectra(task: Task, model: nn.Module, seed: int) -> list[LyapunovSpectrum] | None:
    """The spectra of the recurrent modules; None where they are not finite."""
    model.eval()
    try:
        return recurrent_spectra(task, model, seed=seed)
    except NumericsError:
        return None


def _train_epoch(task: Task, model: nn.Module, optimizer: torch.optim.Optimizer, epoch: int) -> str | None:
    """One pass over the training batches; what went wrong, if something did."""
    model.train()
    state = None
    for batch in task.batches("train", epoch):
        outcome = task.loss(model, batch, state)
        if not math.isfinite(outcome.loss.item()):
            return f"the training loss became {outcome.loss.item()} in epoch {epoch}"
        optimizer.zero_grad(set_to_none=True)
        outcome.loss.backward()
        if task.recipe.clip_norm is not None:
            clip_grad_norm_(model.parameters(), task.recipe.clip_norm)
        optimizer.step()
        state = detached(outcome.state)
    return None


@torch.no_grad()
def _evaluate(task: Task, model: nn.Module, split: Split) -> Evaluation:
    return task.evaluate(model.eval(), task.batches(split, 0))


def _spectrum_record(
    spectra: Sequence[LyapunovSpectrum] | None, base: Sequence[LyapunovSpectrum]
) -> dict[str, Any]:
    """What a record keeps of spectra, in nats per step; None stands for minus infinity, or for all of it."""
    if spectra is None:
        return {"spectrum": None}
    layers = [layer for spectrum in spectra for layer in spectrum.by_layer]
    exponents = np.sort(np.concatenate(layers))[::-1]
    distance = spectrum_distance(
        [np.concatenate([spectrum.concatenated for spectrum in base])],
        [np.concatenate(layers)],
        embedding="none",
    )
    return {
        "spectrum": {
            "largest_by_layer": [_finite(layer.max()) for layer in layers],
            "leading": [_finite(value) for value in exponents[:_NUM_LEADING]],
            "num_negative_infinite": int(np.isneginf(exponents).sum()),
            "distance": round(distance, 4),
        }
    }


def _finite(value: float) -> float | None:
    return round(float(value), 4) if math.isfinite(value) else None


def _line(record: Record) -> str:
    seconds = f"({record['seconds']:.0f} s)"
    if record["failure"]:
        return f"{record['key']}: {record['failure']} {seconds}"
    if record["kind"] == "base":
        return f"{record['key']}: test {record['test']:.4g} {seconds}"
    after, then = record["pruned"]["test"], record["retrained"]["test"]
    return f"{record['key']}: test {after:.4g} after pruning, {then[0]:.4g}, … {then[-1]:.4g} {seconds}"
