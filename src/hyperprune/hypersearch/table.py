"""Finished candidates as a table, so that searches can be replayed on them without training.

A table holds one or more recorded runs (seeds): in each, every candidate and the dense reference were
trained to the same last epoch, and every epoch's loss, metric and spectrum are kept, with whatever else was
measured (`EpochRecord.probes`). The file is one compressed `.npz`, described in docs/replay.md.

Axes: R rows (row 0 is the dense reference, then the candidates), E epochs (0 … final), C exponents.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from hyperprune.errors import InputError
from hyperprune.files import write_atomically
from hyperprune.hypersearch.space import Configuration
from hyperprune.records import EpochRecord

FORMAT = 1
_MEASURES = ("train_loss", "valid_loss", "metric", "seconds")
_LARGE = 32  # probes with at least so many numbers per epoch are stored in half precision where asked


@dataclass(frozen=True, kw_only=True)
class RecordedRun:
    """What one run of a table recorded.

    Attributes:
        seed: of the run: initial weights, order of the data, topology draws.
        configurations: one per candidate, all different.
        reference: the dense model's epochs 0 … final.
        candidates: each configuration's epochs 0 … final.
        provenance: command, versions, machine and start of the run.
        test_metrics: of the best epoch's weights, the reference's first; empty where test data was not used.
    """

    seed: int
    configurations: tuple[Configuration, ...]
    reference: tuple[EpochRecord, ...]
    candidates: tuple[tuple[EpochRecord, ...], ...]
    provenance: Mapping[str, str]
    test_metrics: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class CandidateTable:
    """Finished candidates of one task at one sparsity.

    Attributes:
        task: its name.
        metric: what the metric is called; a candidate's final metric is the best of its trained epochs.
        lower_is_better: the metric's direction.
        final_epochs: the last epoch of every row. A candidate's schedules span it, so that a replay has to
            have the same.
        identity: what the runs have in common and what decided their results: the task, sparsity, threads.
        runs: at least one.
        provenance: how the table was written.
    """

    task: str
    metric: str
    lower_is_better: bool
    final_epochs: int
    identity: Mapping[str, Any]
    runs: tuple[RecordedRun, ...]
    provenance: Mapping[str, str]

    def __post_init__(self) -> None:
        if not self.runs:
            raise InputError(
                "a table must hold at least one run, got none; record a search with --strategy full"
            )
        for run in self.runs:
            where = f"the run of seed {run.seed}"
            if len(run.configurations) < 2 or len(set(run.configurations)) < len(run.configurations):
                raise InputError(
                    f"a table must hold at least 2 different configurations, {where} has "
                    f"{len(set(run.configurations))} among {len(run.configurations)}; record more candidates"
                )
            names = ["the dense reference", *(configuration.label for configuration in run.configurations)]
            for name, records in zip(names, (run.reference, *run.candidates), strict=True):
                self._check_row(records, f"{name} in {where}")
            sizes = {
                None if record.spectrum is None else record.spectrum.shape
                for records in (run.reference, *run.candidates)
                for record in records
            }
            if len(sizes) > 1:
                raise InputError(
                    "a table must hold the same number of exponents for every epoch of every candidate, or "
                    f"none at all; {where} has the shapes {sizes}; record it again"
                )

    def _check_row(self, records: Sequence[EpochRecord], where: str) -> None:
        epochs = [record.epoch for record in records]
        if epochs != list(range(self.final_epochs + 1)):
            missing = sorted(set(range(self.final_epochs + 1)) - set(epochs))
            raise InputError(
                f"a table must hold the epochs 0 to {self.final_epochs} of every candidate, and {where} has "
                f"{len(epochs)} (missing: {missing}); train all to the end with --strategy full"
            )
        if not any(record.at_sparsity for record in records[1:]):
            raise InputError(
                f"a table must hold an epoch at the final sparsity of every candidate, and {where} has none; "
                "leave that candidate out, or record it again"
            )
        for record in records:
            values = {"valid_loss": record.valid_loss, "metric": record.metric}
            bad = [name for name, value in values.items() if not np.isfinite(value)]
            if (
                record.spectrum is not None and not (record.spectrum < np.inf).all()
            ):  # -inf is a value, NaN not
                bad.append("spectrum")
            if bad:
                raise InputError(
                    f"a table must hold numbers, and {bad[0]} of {where} is not one at epoch {record.epoch}; "
                    "leave that candidate out, or record it again"
                )

    @property
    def num_rows(self) -> int:
        """Configurations that every run has at least."""
        return min(len(run.configurations) for run in self.runs)

    @property
    def num_missing(self) -> int:
        """Candidates of its recording that are neither here nor failed; 0 of a table that names no more."""
        run = self.runs[0]
        num_failed = len([key for key in run.provenance.get("failed", "").split(", ") if key])
        return max(0, self.identity.get("cells", 0) - len(run.configurations) - num_failed)

    @property
    def has_spectra(self) -> bool:
        return self.runs[0].reference[0].spectrum is not None

    def final_metric(self, records: Sequence[EpochRecord]) -> float:
        """The best metric of the trained epochs at the run's sparsity, as in a live search."""
        best = min if self.lower_is_better else max
        return best(record.metric for record in records[1:] if record.at_sparsity)

    def save(self, path: str | Path, *, compact: bool = False) -> None:
        """Write the table to one `.npz` file, whole or not at all.

        Args:
            path: of the file.
            compact: store spectra and other long vectors in half precision, about three digits.
        """
        arrays: dict[str, np.ndarray] = {}
        precise, short = (np.float32, np.float16) if compact else (np.float64, np.float64)
        for number, run in enumerate(self.runs):
            rows = (run.reference, *run.candidates)
            for name in _MEASURES:
                values = [[getattr(record, name) for record in records] for records in rows]
                arrays[f"{name}_{number}"] = np.array(values, dtype=np.float64)  # None becomes NaN
            arrays[f"at_sparsity_{number}"] = np.array(
                [[record.at_sparsity for record in records] for records in rows]
            )
            if self.has_spectra:
                spectra = [[record.spectrum for record in records] for records in rows]
                arrays[f"spectrum_{number}"] = np.array(spectra, dtype=short)
            averaging = [[record.averaging for record in records] for records in rows]
            arrays[f"averaging_{number}"] = np.array(averaging)
            for name, shape in _probe_shapes(rows).items():
                blank = np.full(shape, np.nan)
                values = [[record.probes.get(name, blank) for record in records] for records in rows]
                kind = short if blank.size >= _LARGE else precise
                arrays[f"probe_{name}_{number}"] = np.array(values, dtype=kind)
        header = {
            "format": FORMAT,
            **{
                name: getattr(self, name)
                for name in ("task", "metric", "lower_is_better", "final_epochs", "identity", "provenance")
            },
            "runs": [
                {
                    "seed": run.seed,
                    "configurations": [configuration.to_json() for configuration in run.configurations],
                    "provenance": dict(run.provenance),
                    "test_metrics": list(run.test_metrics),
                }
                for run in self.runs
            ],
        }
        buffer = BytesIO()
        np.savez_compressed(buffer, allow_pickle=False, header=np.array(json.dumps(header)), **arrays)
        write_atomically(Path(path), buffer.getvalue())


def read_table(path: str | Path) -> CandidateTable:
    """The table in a file.

    Raises:
        InputError: no such file, not a table, of another version, epochs missing, or a NaN.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"a table must be a readable file, got {path}: {error.strerror or error}") from error
    try:
        with np.load(BytesIO(data), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except Exception as error:  # a changed byte makes numpy, zipfile and zlib raise what no page lists
        raise _no_table(path, error) from error
    try:
        header = json.loads(arrays["header"].item())
        if header.pop("format") != FORMAT:
            raise InputError(
                f"a table must be of format {FORMAT}, and {path} is of another; "
                "record it again with this version"
            )
        runs = tuple(_run_from(arrays, number, entry) for number, entry in enumerate(header.pop("runs")))
        return CandidateTable(runs=runs, **header)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
        raise _no_table(path, error) from error


def _probe_shapes(rows: Sequence[Sequence[EpochRecord]]) -> dict[str, tuple[int, ...]]:
    """By name, the shape of what was measured besides at an epoch."""
    shapes: dict[str, tuple[int, ...]] = {}
    for records in rows:
        for record in records:
            for name, values in record.probes.items():
                if shapes.setdefault(name, np.shape(values)) != np.shape(values):
                    raise InputError(
                        f"a table must hold the same of {name} for every epoch, got the shapes "
                        f"{shapes[name]} and {np.shape(values)}; record it again"
                    )
    return shapes


def _no_table(path: Path, error: Exception) -> InputError:
    return InputError(
        f"a table must be a file that 'hyperprune record' wrote, and {path} is not ({error!r}); "
        "record it again"
    )


def _run_from(arrays: Mapping[str, np.ndarray], number: int, entry: Mapping[str, Any]) -> RecordedRun:
    measures = {name: arrays[f"{name}_{number}"] for name in _MEASURES}
    spectra_REC = arrays.get(f"spectrum_{number}")
    at_sparsity_RE = arrays[f"at_sparsity_{number}"]
    if spectra_REC is not None:
        spectra_REC = spectra_REC.astype(np.float64)
    averaging_RE = arrays[f"averaging_{number}"]
    prefix, suffix = "probe_", f"_{number}"
    probes = {
        name.removeprefix(prefix).removesuffix(suffix): values
        for name, values in arrays.items()
        if name.startswith(prefix) and name.endswith(suffix)
    }
    configurations = tuple(Configuration.from_json(item) for item in entry["configurations"])
    num_rows, num_epochs = measures["metric"].shape
    if num_rows != len(configurations) + 1 or any(
        array.shape[:2] != (num_rows, num_epochs)
        for array in (
            *measures.values(),
            averaging_RE,
            at_sparsity_RE,
            *probes.values(),
            *([] if spectra_REC is None else [spectra_REC]),
        )
    ):
        raise InputError(
            f"a table's arrays must have a row for the reference and each of {len(configurations)} "
            f"configurations and a column per epoch, run {number} has not; record it again"
        )
    rows = tuple(
        tuple(
            EpochRecord(
                epoch=epoch,
                train_loss=None if epoch == 0 else float(measures["train_loss"][row, epoch]),
                valid_loss=float(measures["valid_loss"][row, epoch]),
                metric=float(measures["metric"][row, epoch]),
                seconds=float(measures["seconds"][row, epoch]),
                spectrum=None if spectra_REC is None else spectra_REC[row, epoch],
                at_sparsity=bool(at_sparsity_RE[row, epoch]),
                averaging=bool(averaging_RE[row, epoch]),
                probes={
                    name: np.asarray(values[row, epoch])
                    for name, values in probes.items()
                    if not np.isnan(values[row, epoch]).all()
                },
            )
            for epoch in range(num_epochs)
        )
        for row in range(num_rows)
    )
    return RecordedRun(
        seed=entry["seed"],
        configurations=configurations,
        reference=rows[0],
        candidates=rows[1:],
        provenance=entry["provenance"],
        test_metrics=tuple(entry["test_metrics"]),
    )
