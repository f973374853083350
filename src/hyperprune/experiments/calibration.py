"""Learning rate, cadence and size of the recorded world, chosen before it is recorded.

A world in which every candidate stays on the unigram perplexity for the first epochs says nothing about the
loss as a signal. Wanted: candidates clearly below it after 3 to 4 epochs, the dense model ahead of them, and
the shape of the published first rounds (LSTM 2×1500 on Penn Treebank after 3 epochs: dense 148.6, candidates
168 to 183).

The recipe of the task is one trial; each other trial changes one thing of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from hyperprune.experiments.cells import RECORDS, Record, check_world, read_records, run_cells
from hyperprune.hypersearch.space import DENSE, Configuration
from hyperprune.spectra import spectrum_distance
from hyperprune.tasks.registry import load_task
from hyperprune.training.candidate import Training
from hyperprune.training.segment import advance

_DIGITS = 3  # of a recorded spectrum


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One way to make the world.

    Attributes:
        learning_rate: of the recipe.
        cadence: epochs or steps between topology updates.
        train_tokens: read of the corpus.
        rescaled: whether sparse initial weights are scaled to the live fan-in.
    """

    learning_rate: float = 20.0
    cadence: str = "epoch"
    train_tokens: int = 186_000
    rescaled: bool = True

    @property
    def text(self) -> str:
        start = "" if self.rescaled else ", start not rescaled"
        return (
            f"lr {self.learning_rate:g}, update every {self.cadence}, {self.train_tokens // 1000},000 tokens"
            f"{start}"
        )


@dataclass(frozen=True, kw_only=True)
class Scale:
    """What is tried.

    Attributes:
        epochs: trained of each model.
        total_epochs: that the death rate's cosine spans, as in the world to be recorded.
        trials: in the order in which they are run.
        seeds: every trial is run once per seed.
    """

    task: str = "ptb-mini"
    epochs: int = 4
    total_epochs: int = 36
    sparsity: float = 0.67
    death_rate: float = 0.8
    trials: tuple[Trial, ...] = (
        Trial(),
        Trial(learning_rate=10.0),
        Trial(train_tokens=93_000),
        Trial(learning_rate=5.0),
        Trial(cadence="3 epochs"),
        Trial(rescaled=False),
    )
    seeds: tuple[int, ...] = (0,)


SCALES = {"small": Scale()}
_CANDIDATES = (
    ("uniform", "threshold", "none"),
    ("uniform", "magnitude", "none"),
    ("er", "global_magnitude", "nonzeros"),
)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One model of a trial, trained for a few epochs."""

    trial: Trial
    configuration: Configuration
    seed: int


def cells_of(scale: Scale) -> dict[str, Cell]:
    """By name: the dense model and three candidates of every trial."""
    return {
        f"{trial.text}, seed {seed}, {configuration.label}": Cell(
            trial=trial, configuration=configuration, seed=seed
        )
        for seed in scale.seeds
        for trial in scale.trials
        for configuration in (DENSE, *_candidates(scale, trial))
    }


def _candidates(scale: Scale, trial: Trial) -> list[Configuration]:
    return [
        Configuration.of(
            "dynamic_sparse",
            allocation=allocation,
            death=death,
            growth="random",
            redistribution=redistribution,
            death_rate=scale.death_rate,
            update_every=trial.cadence,
        )
        for allocation, death, redistribution in _CANDIDATES
    ]


def calibrate(
    scale: Scale,
    folder: Path,
    *,
    workers: int = 1,
    data_dir: Path | None = None,
    command: str = "",
    say: Callable[[str], None] = print,
) -> list[Record]:
    """Train every cell that `folder` has no record of; all records. The same call goes on after a kill.

    Args:
        scale: what is tried.
        folder: holds records.jsonl, and a folder per cell.
        workers: cells trained at a time.
        data_dir: where corpora are looked for first.
        command: recorded with each record.
        say: gets a line per finished cell.

    Raises:
        InputError: `folder` has records of another task or of other epochs.
    """
    task = load_task(scale.task, data_dir=data_dir)
    task.baseline()  # what is wrong with the data is told at once
    found = [_with_epochs(record, scale.epochs) for record in read_records(folder / RECORDS)]
    check_world(found, task.name, scale.epochs, option="--epochs")
    work = partial(_train, scale, data_dir, folder)
    return run_cells(work, cells_of(scale), folder, workers=workers, command=command, say=say, line=_line)


def _with_epochs(record: Record, wanted: int) -> Record:
    """A record with its epochs, which it has as the length of its curve; one that failed would fail again."""
    trained = len(record.get("valid", ())) - 1
    return {**record, "epochs": wanted if record.get("failure") and trained < wanted else trained}


def _train(scale: Scale, data_dir: Path | None, study: Path, cell: Cell) -> Record:
    trial, configuration = cell.trial, cell.configuration
    settings = {
        "training": {"learning_rate": trial.learning_rate, "rescale_weights": trial.rescaled},
        "text": {"train_tokens": trial.train_tokens},
    }
    task = load_task(scale.task, settings=settings, data_dir=data_dir)
    training = Training(
        method=configuration.build(),
        sparsity=0.0 if configuration == DENSE else scale.sparsity,
        total_epochs=scale.total_epochs,
        seed=cell.seed,
        name=configuration.text,
    )
    name = f"{trial.text} {configuration.label} seed {cell.seed}"
    for mark in (" · ", ", ", " "):
        name = name.replace(mark, "-")
    result = advance(task, training, study / "cells" / name, scale.epochs)
    spectrum = result.epochs[-1].spectrum
    return {
        "task": task.name,
        "trial": trial.text,
        "configuration": configuration.to_json(),
        "label": configuration.label,
        "sparsity": training.sparsity,
        "seed": cell.seed,
        "metric": task.metric,
        "baseline": task.baseline(),
        "valid": [round(record.metric, 2) for record in result.epochs],
        "spectrum": None if spectrum is None else np.round(spectrum, _DIGITS).tolist(),
        "failure": result.failure,
        "seconds": round(sum(record.seconds for record in result.epochs), 1),
    }


def _line(record: Record) -> str:
    return f"{record['trial']}: {record['label']}, seed {record['seed']}: {_values(record)}"


def _values(record: Record) -> str:
    values = ", ".join(f"{value:.0f}" for value in record["valid"][1:]) or "none"
    return f"{values}{' (failed)' if record['failure'] else ''}"


def to_markdown(records: Sequence[Record]) -> str:
    """One row per trial, one column per model: the metric after each epoch, the last spectrum's distance."""
    labels = list(dict.fromkeys(record["label"] for record in records))
    trials = list(dict.fromkeys((record["trial"], record["seed"]) for record in records))
    found = {(record["trial"], record["seed"], record["label"]): record for record in records}
    lines = [
        "| trial | " + " | ".join(labels) + " |",
        "|---|" + "---|" * len(labels),
    ]
    for trial, seed in trials:
        dense = found.get((trial, seed, DENSE.label))
        cells = [_cell(found.get((trial, seed, label)), dense) for label in labels]
        lines.append(f"| {trial}{f', seed {seed}' if seed else ''} | " + " | ".join(cells) + " |")
    first = records[0]
    name, _ = first["baseline"] or ("baseline", float("nan"))
    baselines = dict.fromkeys(f"{record['baseline'][1]:.1f}" for record in records if record["baseline"])
    baseline = " or ".join(baselines) + (", by the text" if len(baselines) > 1 else "")
    epochs = max(len(record["valid"]) for record in records) - 1
    lines += [
        "",
        f"Validation {first['metric']} after epochs 1 to {epochs}; {name} {baseline}. In brackets the L2 "
        f"distance of the spectrum from the dense model's after epoch {epochs}, and the mean exponent minus "
        "the dense model's.",
    ]
    return "\n".join(lines)


def _cell(record: dict[str, Any] | None, dense: dict[str, Any] | None) -> str:
    if record is None:
        return "not run"
    if record is dense or dense is None or record["spectrum"] is None or dense["spectrum"] is None:
        return _values(record)
    spectra = [np.array(item["spectrum"]) for item in (dense, record)]
    distance = spectrum_distance([spectra[0]], [spectra[1]], embedding="none")
    return f"{_values(record)} ({distance:.1f}, {spectra[1].mean() - spectra[0].mean():+.2f})"
