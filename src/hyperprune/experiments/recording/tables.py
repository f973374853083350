"""From finished cells to tables that are committed: one file per sparsity, group of candidates and seed.

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
from hyperprune.hypersearch.table import CandidateTable, RecordedRun
from hyperprune.records import EpochRecord

SAMPLED_EPOCHS = (0, 1, 3, 6, 12)  # and the last one: epochs whose spectra are kept sample by sample
_PART_SECONDS = {"probe_seconds", "spectrum_full_seconds"}


def missing_cells(scale: Scale, seed: int, destination: Path) -> list[Cell]:
    """The candidates of a seed whose table does not stand in a folder yet."""
    return [
        cell for cell in candidate_cells(scale, seed) if not (destination / table_name(scale, cell)).exists()
    ]


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


def _curve_name(scale: Scale, seed: int) -> str:
    return f"{scale.name}-seed-{seed}-curve.json"


def write_tables(scale: Scale, folder: Path, destination: Path) -> list[Path]:
    """Write the table of every group of cells that is complete; their paths.

    It reads `folder` only, so that it may run while the recording goes on.

    Args:
        scale: that is recorded in `folder`.
        folder: of the recording.
        destination: gets a file NAME-sparsity-S-GROUP-seed-K.npz per table; NAME-seed-K-curve.json where the
            dense model alone was recorded.

    Raises:
        InputError: nothing was recorded there, or no group is complete.
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
        groups: dict[str, list[str]] = {}
        for cell in cells_of_seed:
            groups.setdefault(table_name(scale, cell), []).append(cell.key)
        for name, keys in groups.items():
            if not all(key in records for key in keys):
                continue
            cells = [read_cell(folder / "cells" / key) for key in keys if not records[key]["failure"]]
            if len(cells) < 2:
                continue
            failed = [key for key in keys if records[key]["failure"]]
            table = _table(dense, cells, records=[records[key] for key in keys], failed=failed)
            path = destination / name
            table.save(path, compact=True)
            written.append(path)
    if not written:
        raise InputError(
            f"a table is made of a complete group of cells, and {folder} has none among its {len(records)} "
            "recorded cells; record on"
        )
    return written


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
