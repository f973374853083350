"""From finished cells to tables that are committed: one file per sparsity, group of candidates and seed.

A table may be written before all of its cells are there; later ones, of another machine perhaps, join it. One
seed's cells share a dense model to the last bit, or they are not of one table.

Axes: S exponents.
"""

from __future__ import annotations

import json
import math
import platform
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

import hyperprune
from hyperprune.errors import InputError
from hyperprune.experiments.cells import RECORDS, Record, read_records
from hyperprune.experiments.recording.cell import CellData, cell_folder, configuration_of, read_cell
from hyperprune.experiments.recording.scales import Cell, Scale, candidate_cells, dense_cell
from hyperprune.files import write_atomically
from hyperprune.hypersearch.space import Configuration
from hyperprune.hypersearch.table import CandidateTable, RecordedRun, read_table
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
    return read_table(path) if path.exists() else None


class _Row(NamedTuple):
    """A candidate of a table."""

    configuration: Configuration
    epochs: tuple[EpochRecord, ...]
    test: float


_Rows = dict[str, _Row | None]  # by the cells' keys; None of one that failed


def _held(table: CandidateTable) -> _Rows:
    run, sparsity, group = table.runs[0], table.identity["sparsity"], table.identity["group"]
    rows: _Rows = dict.fromkeys(_listed(run.provenance.get("failed", "")))
    tests = run.test_metrics[1:] or (math.nan,) * len(run.configurations)
    for row in map(_Row, run.configurations, run.candidates, tests):
        cell = Cell(configuration=row.configuration, sparsity=sparsity, seed=run.seed, group=group)
        rows[cell.key] = row
    return rows


def _listed(text: str) -> list[str]:
    return [item for item in text.split(", ") if item]


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
            there = {cell.key: records[cell.key] for cell in wanted if cell.key in records}
            if not there:
                continue
            rows: _Rows = {
                key: None if record["failure"] else _row(read_cell(folder / "cells" / key))
                for key, record in there.items()
            }
            provenance = _provenance(list(there.values()), dense)
            path = destination / name
            before = _standing(path)
            if before is not None and (len(there) < len(wanted) or _same_dense(dense.epochs, before)):
                check_same_dense(dense.epochs, path, before)
                rows, provenance = _together(before, rows, provenance)
            order = [*(cell.key for cell in wanted if cell.key in rows), *rows]
            if sum(row is not None for row in rows.values()) < 2:
                continue
            lacking = sum(cell.key not in rows for cell in wanted)
            table = _table(dense, {key: rows[key] for key in order}, provenance, wanted[0], lacking)
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
    if not _same_dense(reference, table):
        raise InputError(
            f"tables of one seed must have the same dense model, and that of {path} differs from the one "
            "trained here: this machine computes otherwise, or the task has changed; record all of the seed "
            "here, without --missing and with other --tables"
        )


def _same_dense(reference: Sequence[EpochRecord], table: CandidateTable) -> bool:
    return [entry.metric for entry in table.runs[0].reference] == [entry.metric for entry in reference]


def _row(cell: CellData) -> _Row:
    return _Row(configuration_of(cell.record), _kept(cell.epochs), cell.record["test"])


def _together(
    before: CandidateTable, rows: _Rows, provenance: dict[str, str]
) -> tuple[_Rows, dict[str, str]]:
    """Rows of a recording and of an earlier table, none of which is lost; the newer of two goes first."""
    held = _held(before)
    joined = held | {key: row for key, row in rows.items() if row is not None or key not in held}
    if all(joined[key] is rows.get(key) for key in joined):
        return rows, provenance  # nothing of the earlier table is left
    first = before.runs[0].provenance
    names = {name: [*_listed(first.get(name, "")), *_listed(provenance.get(name, ""))] for name in first}
    return joined, {**provenance, **{name: _every(values) for name, values in names.items()}}


def _table(
    dense: CellData, rows: _Rows, provenance: Mapping[str, str], cell: Cell, lacking: int
) -> CandidateTable:
    """The table of some rows, in their order; `cell` is one of its group, `lacking` how many are to come."""
    found = [row for row in rows.values() if row is not None]
    failed = ", ".join(key for key, row in rows.items() if row is None)
    about = dense.record
    run = RecordedRun(
        seed=cell.seed,
        configurations=tuple(row.configuration for row in found),
        reference=_kept(dense.epochs),
        candidates=tuple(row.epochs for row in found),
        provenance={**provenance, "failed": failed},
        test_metrics=(about["test"], *(row.test for row in found)),
    )
    return CandidateTable(
        task=about["task"],
        metric=about["metric"],
        lower_is_better=about["lower_is_better"],
        final_epochs=about["epochs"],
        identity={
            "name": about["table"],
            "task": about["task"],
            "sparsity": cell.sparsity,
            "group": cell.group,
            "cells": len(rows) + lacking,
            "threads": 1,
            "device": about["device"],
            "version": hyperprune.__version__,
            "baseline": about["baseline"],
        },
        runs=(run,),
        provenance={
            "written": time.strftime("%Y-%m-%d %H:%M:%S %z"),
            "python": platform.python_version(),
            "numpy": np.__version__,
            "hyperprune": hyperprune.__version__,
        },
    )


def _provenance(records: Sequence[Record], dense: CellData) -> dict[str, str]:
    """Command, commit, machine, dates and versions; several where the recording was taken up elsewhere."""
    origins = [record["provenance"] for record in records]
    return {
        **{name: _every([origin[name] for origin in origins]) for name in origins[0]},
        "processor": _processor(),
        "commit": _every([record["commit"] for record in records]),
        "tensors": ", ".join(dense.tensors),
        "matrices": ", ".join(dense.matrices),
    }


def _every(values: Iterable[str]) -> str:
    """Each different one once."""
    return ", ".join(dict.fromkeys(values))


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
