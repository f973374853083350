"""Learning rate and cadence of the recorded world, chosen before it is recorded.

A world in which every candidate stays on the unigram perplexity for the first epochs says nothing about the
loss as a signal. Wanted: candidates clearly below it after 3 to 4 epochs, the dense model best at the end,
and the shape of the published first rounds (LSTM 2×1500 on Penn Treebank after 3 epochs: dense 148.6,
candidates 168 to 183).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from hyperprune.experiments.cells import Record, run_cells
from hyperprune.hypersearch.space import DENSE, Configuration
from hyperprune.tasks.registry import load_task
from hyperprune.training.segment import Training, advance


@dataclass(frozen=True, kw_only=True)
class Scale:
    """What is tried.

    Attributes:
        epochs: trained of each cell.
        total_epochs: that the death rate's cosine spans, as in the world to be recorded.
        learning_rates: of the recipe.
        cadences: epochs or steps between topology updates.
        seeds: every cell is run once per seed.
    """

    task: str = "ptb-mini"
    epochs: int = 5
    total_epochs: int = 36
    sparsity: float = 0.67
    death_rate: float = 0.8
    learning_rates: tuple[float, ...] = (5.0, 10.0, 20.0)
    cadences: tuple[int | str, ...] = ("epoch", "3 epochs")
    seeds: tuple[int, ...] = (0,)


SCALES = {"small": Scale()}
_CANDIDATES = (
    ("uniform", "threshold", "none"),
    ("uniform", "magnitude", "none"),
    ("er", "global_magnitude", "nonzeros"),
)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One model, trained for a few epochs."""

    configuration: Configuration
    learning_rate: float
    seed: int

    @property
    def cadence(self) -> Any:
        return dict(self.configuration.settings).get("update_every")


def cells_of(scale: Scale) -> dict[str, Cell]:
    """By name: dense, static and three candidates at every learning rate, the candidates at every cadence."""
    configurations = [DENSE, Configuration.of("static")]
    for cadence in scale.cadences:
        configurations += [
            Configuration.of(
                "dynamic_sparse",
                allocation=allocation,
                death=death,
                growth="random",
                redistribution=redistribution,
                death_rate=scale.death_rate,
                update_every=cadence,
            )
            for allocation, death, redistribution in _CANDIDATES
        ]
    return {
        f"{configuration.text} lr {rate:g} seed {seed}": Cell(
            configuration=configuration, learning_rate=rate, seed=seed
        )
        for seed in scale.seeds
        for rate in scale.learning_rates
        for configuration in configurations
    }


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
    """
    load_task(scale.task, data_dir=data_dir).baseline()  # what is wrong with the data is told at once
    work = partial(_train, scale, data_dir, folder)
    return run_cells(work, cells_of(scale), folder, workers=workers, command=command, say=say, line=_line)


def _train(scale: Scale, data_dir: Path | None, study: Path, cell: Cell) -> Record:
    rate = {"training": {"learning_rate": cell.learning_rate}}
    task = load_task(scale.task, settings=rate, data_dir=data_dir)
    training = Training(
        method=cell.configuration.build(),
        sparsity=0.0 if cell.configuration == DENSE else scale.sparsity,
        total_epochs=scale.total_epochs,
        seed=cell.seed,
        name=cell.configuration.text,
        measure_spectrum=False,
    )
    name = f"{cell.configuration.label}-{cell.cadence}-{cell.learning_rate:g}-{cell.seed}".replace(" ", "")
    result = advance(task, training, study / "cells" / name, scale.epochs)
    return {
        "task": task.name,
        "configuration": cell.configuration.to_json(),
        "label": cell.configuration.label,
        "cadence": cell.cadence,
        "learning_rate": cell.learning_rate,
        "seed": cell.seed,
        "metric": task.metric,
        "baseline": task.baseline(),
        "valid": [round(record.metric, 2) for record in result.epochs],
        "failure": result.failure,
    }


def _line(record: Record) -> str:
    values = " ".join(f"{value:.1f}" for value in record["valid"][1:])
    return f"{record['label']}, lr {record['learning_rate']:g}, {record['cadence']}: {values}"


def to_markdown(records: Sequence[Record]) -> str:
    """One row per model and cadence, one column per learning rate; values after each epoch from 1."""
    rates = sorted({record["learning_rate"] for record in records})
    rows: dict[tuple[str, str], dict[float, str]] = {}
    for record in records:
        values = ", ".join(f"{value:.0f}" for value in record["valid"][1:]) or "none"
        text = f"{values}{' (failed)' if record['failure'] else ''}"
        cells = rows.setdefault((record["label"], record["cadence"] or ""), {})
        earlier = cells.get(record["learning_rate"])
        cells[record["learning_rate"]] = text if earlier is None else f"{earlier}; {text}"
    lines = [
        "| model | topology update every | " + " | ".join(f"lr {rate:g}" for rate in rates) + " |",
        "|---|---|" + "---|" * len(rates),
    ]
    for (label, cadence), cells in rows.items():
        lines.append(
            f"| {label} | {cadence} | " + " | ".join(cells.get(rate, "not run") for rate in rates) + " |"
        )
    first = records[0]
    name, value = first["baseline"] or ("baseline", float("nan"))
    lines += [
        "",
        f"Validation {first['metric']} after epochs 1 to {max(len(r['valid']) for r in records) - 1}; "
        f"{name} {value:.1f}; one seed after another, divided by semicolons.",
    ]
    return "\n".join(lines)
