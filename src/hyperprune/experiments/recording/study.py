"""The recording as a whole: dense models first, then the candidates seed by seed, then the tables."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from hyperprune.errors import HyperpruneError, InputError
from hyperprune.experiments.cells import RECORDS, Record, commit_of_source, read_records, run_cells
from hyperprune.experiments.recording.cell import cell_folder, read_cell, train_cell
from hyperprune.experiments.recording.scales import Scale, candidate_cells, dense_cell
from hyperprune.experiments.recording.tables import check_same_dense, missing_cells, missing_seeds
from hyperprune.files import write_atomically
from hyperprune.hypersearch.table import read_table
from hyperprune.tasks.registry import load_task

_SCALE_FILE = "scale.json"


def record(
    scale: Scale,
    folder: Path,
    *,
    workers: int = 1,
    data_dir: Path | None = None,
    device: str = "cpu",
    tables: Path | None = None,
    command: str = "",
    say: Callable[[str], None] = print,
) -> list[Record]:
    """Train every cell of a scale that `folder` has no record of; all records.

    Killing it loses at most an epoch of each cell in flight; the same call goes on. A seed's dense model
    comes before its candidates, whose weights are compared with it; workers that would wait for it train
    those of the next seeds.

    Args:
        scale: what is recorded.
        folder: holds records.jsonl, and a folder per cell.
        workers: cells trained at a time, with one thread each.
        data_dir: where corpora are looked for first.
        device: "cpu" or "cuda".
        tables: where it is given, candidates that a table in this folder holds are left out, and seeds of
            which nothing is missing; a dense model that is trained again must be the tables' one.
        command: recorded with each record.
        say: gets a line per finished cell.

    Raises:
        InputError: the folder holds a recording of another scale, the task cannot be made, or the dense model
            is another than that of the tables.
        HyperpruneError: a dense model failed.
    """
    if tables is not None:
        scale = replace(scale, seeds=missing_seeds(scale, tables))
    task = load_task(scale.task, settings=scale.settings, data_dir=data_dir)
    _claim(folder, {"scale": _lasting(scale), "task": task.identity(), "device": device})
    work = partial(train_cell, scale, data_dir, folder, device, commit_of_source())
    settings = {"workers": workers, "command": command, "say": say, "line": _line}
    records = read_records(folder / RECORDS)
    for number, seed in enumerate(scale.seeds):
        if all(entry["key"] != dense_cell(seed).key for entry in records):
            dense = [dense_cell(item) for item in scale.seeds[number : number + workers]]
            records = run_cells(work, {cell.key: cell for cell in dense}, folder, **settings)
        _refuse_failed_dense(records, seed, folder)
        if tables is None:
            cells = candidate_cells(scale, seed)
        else:
            _refuse_other_dense(scale, seed, folder, tables)
            cells = missing_cells(scale, seed, tables)
        records = run_cells(work, {cell.key: cell for cell in cells}, folder, **settings)
    return records


def _refuse_failed_dense(records: Sequence[Record], seed: int, folder: Path) -> None:
    entry = next(entry for entry in records if entry["key"] == dense_cell(seed).key)
    if entry["failure"]:
        raise HyperpruneError(
            f"the dense model must train to the end, and {entry['key']} failed: {entry['failure']}; "
            f"mend the task, and record into another folder than {folder}"
        )


def _refuse_other_dense(scale: Scale, seed: int, folder: Path, tables: Path) -> None:
    """Before candidates are trained whose tables could not be read beside those that stand."""
    trained = read_cell(cell_folder(folder, dense_cell(seed))).epochs
    for path in sorted(tables.glob(f"{scale.name}-sparsity-*-seed-{seed}.npz")):
        check_same_dense(trained, path, read_table(path))


def _lasting(scale: Scale) -> Record:
    """What of a scale decides its cells' results; seeds and candidates may be added to."""
    added = ("seeds", "sparsities", "death_rates", "controls", "methods")
    return {name: value for name, value in asdict(scale).items() if name not in added}


def _claim(folder: Path, identity: Mapping[str, object]) -> None:
    """Refuse a folder with another recording in it; else make it this one's."""
    path = folder / _SCALE_FILE
    text = json.dumps(identity, sort_keys=True)
    if not path.exists():
        write_atomically(path, text.encode())
    elif path.read_text() != text:
        raise InputError(
            f"a folder holds one recording, and {folder} holds another (of another task, length or device); "
            "give another --out"
        )


def _line(entry: Record) -> str:
    if entry["failure"]:
        return f"{entry['key']}: failed, {entry['failure']}"
    best = (min if entry["lower_is_better"] else max)(entry["valid"][1:])
    seconds = f"{entry['seconds']:.0f} s, probes {entry['probe_seconds']:.0f} s"
    return f"{entry['key']}: {entry['metric']} {best:.4g} (test {entry['test']:.4g}; {seconds})"
