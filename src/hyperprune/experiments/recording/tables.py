"""From finished cells to tables that are committed: one file per sparsity, group of candidates and seed.

A table may be written before all of its cells are there; later ones, of another machine perhaps, join it. One
seed's cells share a dense model to the last bit, or they are not of one table.

Axes: S exponents.
"""

from __future__ import annotations

import json
import platform
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

import hyperprune
from hyperprune.errors import InputError
from hyperprune.experiments.cells import RECORDS, Record, read_records
from hyperprune.experiments.recording.cell import CellData, cell_folder, configuration_of, read_cell
from hyperprune.experiments.recording.scales import Cell, Scale, candidate_cells, dense_cell
from hyperprune.files import write_atomically
from hyperprune.hypersearch.table import CandidateTable, RecordedRun, load_table
from hyperprune.records import EpochRecord

SAMPLED_EPOCHS = (0, 1, 3, 6, 12)  # and the last one: epochs whose spectra are kept sample by sample
_PART_SECONDS = {"probe_seconds", "spectrum_full_seconds"}


def missing_cells(scale: Scale, seed: int, destination: Path) -> list[Cell]:
    """The candidates of a seed that no table in a folder holds yet."""
    missing = []
    for name, cells in _groups(scale, seed).items():
        table = _standing(destination / name)
        there = () if table is None else _held(table)
        missing += [cell for cell in cells if cell.key not in there]
    return missing


def missing_seeds(scale: Scale, destination: Path) -> tuple[int, ...]:
    """The seeds of which a table, or the curve of a dense model recorded alone, does not stand there yet."""
    return tuple(
        seed
        for seed in scale.seeds
        if missing_cells(scale, seed, destination)
        or not (candidate_cells(scale, seed) or (destination / _curve_name(scale, seed)).exists())
    )


def table_name(scale: Scale, cell: Cell) -> str:
    """Of the file that holds a candidate's table."""
    return f"{scale.name}-sparsity-{cell.sparsity:g}-{cell.group}-seed-{cell.seed}.npz"


def _groups(scale: Scale, seed: int) -> dict[str, list[Cell]]:
    """The candidates of a seed by the name of their table's file."""
    groups: dict[str, list[Cell]] = {}
    for cell in candidate_cells(scale, seed):
        groups.setdefault(table_name(scale, cell), []).append(cell)
    return groups


def _standing(path: Path) -> CandidateTable | None:
    return load_table(path) if path.exists() else None


def _held(table: CandidateTable) -> dict[str, int]:
    """The candidates of a table by their cells' keys; -1 for one that failed and has no row."""
    run, sparsity, group = table.runs[0], table.identity["sparsity"], table.identity["group"]
    rows = {
        Cell(configuration=item, sparsity=sparsity, seed=run.seed, group=group).key: row
        for row, item in enumerate(run.configurations)
    }
    return {key: -1 for key in run.provenance["failed"].split(", ") if key} | rows


def _curve_name(scale: Scale, seed: int) -> str:
    return f"{scale.name}-seed-{seed}-curve.json"


def write_tables(scale: Scale, folder: Path, destination: Path) -> list[Path]:
    """Write the table of every group of cells of which there are two; their paths.

    It may run while the recording goes on. A group that is not complete in `folder` takes the cells that it
    lacks from the table that stands at `destination`, if there is one.

    Args:
        scale: that is recorded in `folder`.
        folder: of the recording.
        destination: gets a file NAME-sparsity-S-GROUP-seed-K.npz per table; NAME-seed-K-curve.json where the
            dense model alone was recorded.

    Raises:
        InputError: nothing was recorded there, or no group has two cells; a table to be completed has
            another dense model.
    """
    records = {entry["key"]: entry for entry in read_records(folder / RECORDS)}
    if not records:
        raise InputError(f"tables are made from a recording, and {folder} holds none; record it first")
    written = []
    for seed in scale.seeds:
        reference = dense_cell(seed)
        if reference.key not in records:
            continue
        dense = read_cell(cell_folder(folder, reference))
        cells_of_seed = candidate_cells(scale, seed)
        if not cells_of_seed:
            path = destination / _curve_name(scale, seed)
            write_atomically(path, json.dumps(records[reference.key], indent=1).encode())
            written.append(path)
            continue
        for name, wanted in _groups(scale, seed).items():
            keys = [cell.key for cell in wanted]
            there = [key for key in keys if key in records]
            cells = [read_cell(folder / "cells" / key) for key in there if not records[key]["failure"]]
            if not cells:
                continue
            failed = [key for key in there if records[key]["failure"]]
            table = _table(dense, cells, records=[records[key] for key in there], failed=failed)
            table = replace(table, identity={**table.identity, "cells": len(keys)})
            path = destination / name
            if len(there) < len(keys) and (before := _standing(path)) is not None:
                table = _completed(table, before, keys, path)
            if table.num_rows < 2:
                continue
            table.save(path, compact=True)
            written.append(path)
    if not written:
        raise InputError(
            f"a table is made of two cells or more of a group, and {folder} has no such group among its "
            f"{len(records)} recorded cells; record on"
        )
    return written


def check_same_dense(reference: Sequence[EpochRecord], path: Path, table: CandidateTable) -> None:
    """Cells of one seed must have the same dense model, bit for bit, to be read as one.

    Raises:
        InputError: that of the table at `path` is another.
    """
    if [entry.metric for entry in table.runs[0].reference] != [entry.metric for entry in reference]:
        raise InputError(
            f"tables of one seed must have the same dense model, and that of {path} differs from the one "
            "trained here: this machine computes otherwise, or the task has changed; record all of the seed "
            "here, without --missing and with other --tables"
        )


def _completed(
    own: CandidateTable, before: CandidateTable, keys: Sequence[str], path: Path
) -> CandidateTable:
    """The cells of a recording, and of an earlier table those that it lacks; in the order of `keys`."""
    check_same_dense(own.runs[0].reference, path, before)
    rows: dict[str, tuple[RecordedRun, int]] = {}
    for table in (before, own):
        rows |= {key: (table.runs[0], row) for key, row in _held(table).items()}
    chosen = [rows[key] for key in keys if key in rows and rows[key][1] >= 0]
    failed = ", ".join(key for key in keys if key in rows and rows[key][1] < 0)
    first, later = before.runs[0].provenance, own.runs[0].provenance
    provenance = {
        name: ", ".join(dict.fromkeys([first.get(name, value), value])) for name, value in later.items()
    }
    run = replace(
        own.runs[0],
        configurations=tuple(run.configurations[row] for run, row in chosen),
        candidates=tuple(run.candidates[row] for run, row in chosen),
        provenance={**provenance, "failed": failed},
        test_metrics=(own.runs[0].test_metrics[0], *(run.test_metrics[row + 1] for run, row in chosen)),
    )
    return replace(own, runs=(run,))


def _table(
    dense: CellData, cells: Sequence[CellData], *, records: Sequence[Record], failed: Sequence[str]
) -> CandidateTable:
    first = cells[0].record
    run = RecordedRun(
        seed=first["seed"],
        configurations=tuple(configuration_of(cell.record) for cell in cells),
        reference=_kept(dense.epochs),
        candidates=tuple(_kept(cell.epochs) for cell in cells),
        provenance=_provenance(records, cells[0], failed),
        test_metrics=tuple(cell.record["test"] for cell in (dense, *cells)),
    )
    return CandidateTable(
        task=first["task"],
        metric=first["metric"],
        lower_is_better=first["lower_is_better"],
        final_epochs=first["epochs"],
        identity={
            "name": first["table"],
            "task": first["task"],
            "sparsity": first["sparsity"],
            "group": first["group"],
            "threads": 1,
            "device": first["device"],
            "version": hyperprune.__version__,
            "baseline": first["baseline"],
        },
        runs=(run,),
        provenance={
            "written": time.strftime("%Y-%m-%d %H:%M:%S %z"),
            "python": platform.python_version(),
            "numpy": np.__version__,
            "hyperprune": hyperprune.__version__,
        },
    )


def _provenance(records: Sequence[Record], cell: CellData, failed: Sequence[str]) -> Mapping[str, str]:
    """Command, commit, machine, dates and versions; several where the recording was taken up elsewhere."""

    def every(*values: str) -> str:
        return ", ".join(dict.fromkeys(values))

    origins = [record["provenance"] for record in records]
    return {
        **{name: every(*(origin[name] for origin in origins)) for name in origins[0]},
        "processor": _processor(),
        "commit": every(*(record["commit"] for record in records)),
        "tensors": ", ".join(cell.tensors),
        "matrices": ", ".join(cell.matrices),
        "failed": ", ".join(failed),
    }


def _processor() -> str:
    try:
        found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found.group(1) if found else platform.processor()


def _kept(epochs: Sequence[EpochRecord]) -> tuple[EpochRecord, ...]:
    """What of each epoch goes into a table; spectra that another one tells are left out."""
    result, turnover_before = [], 0.0
    for record in epochs:
        probes = {name: values for name, values in record.probes.items() if name not in _PART_SECONDS}
        if record.epoch not in (*SAMPLED_EPOCHS, epochs[-1].epoch):
            probes.pop("spectrum_samples", None)
        if not record.averaging:  # the same as `spectrum` and `spectrum_updated_raw`
            probes.pop("spectrum_raw", None)
            probes.pop("spectrum_updated", None)
        total = float(probes.pop("turnover_so_far"))
        probes["turnover"] = np.array(total - turnover_before)
        probes["spectrum_seconds"] = np.array(record.spectrum_seconds)
        turnover_before = total
        result.append(replace(record, probes=probes))
    return tuple(result)
