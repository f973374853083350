"""Outcomes of graph-wired networks, of our records or of a CSV file with the thesis's columns; correlations.

References: Pearson 1895; Spearman 1904; percentile bootstrap of Efron 1979.

Axes: N networks, D draws of the bootstrap.
"""

from __future__ import annotations

import csv
import math
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64

from hyperprune.errors import InputError, unknown_name
from hyperprune.experiments.cells import Record
from hyperprune.graphs import FEATURES
from hyperprune.hypersearch.ranks import mean_ranks
from hyperprune.rng import derive_seed

CELL_NAMES = {"rnn": "RNN tanh", "rnn_relu": "RNN ReLU", "lstm": "LSTM", "gru": "GRU"}
FAMILY_NAMES = {
    "barabasi_albert": "Barabási–Albert",
    "watts_strogatz": "Watts–Strogatz",
    "erdos_renyi": "Erdős–Rényi",
    "kleinberg": "Kleinberg",
}
_MODES = {"RNN_TANH": "rnn", "RNN_RELU": "rnn_relu", "LSTM": "lstm", "GRU": "gru"}
COLUMNS = ("mode", "graph", *FEATURES, "test_acc")
"""What a CSV file must have; the thesis's files have graph_nr, test_loss and time besides."""
_DRAWS = 2000
_FEWEST = 3  # two points always correlate perfectly


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A trained network: its cell, its graph's family and properties, its test accuracy in [0, 1]."""

    cell: str
    family: str
    features: Mapping[str, float]
    accuracy: float


def from_records(records: Sequence[Record]) -> list[Outcome]:
    """The outcomes of records of `random_structure`, failures left out."""
    return [
        Outcome(
            cell=record["cell"],
            family=record["family"],
            features=record["features"],
            accuracy=record["test"],
        )
        for record in records
        if record["test"] is not None
    ]


def read_results(path: str | Path) -> list[Outcome]:
    """Read a CSV file with a header and the columns of `COLUMNS`; others are ignored.

    `mode` is RNN_TANH, RNN_RELU, LSTM or GRU; `graph` a family of random graphs; the rest are numbers.

    Raises:
        InputError: no such file, a missing column, an unknown mode, a value that is no finite number, an
            accuracy outside [0, 1], a row of another width, or no row; the message names file, line and
            column.
    """
    path = Path(path)
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.reader(file, strict=True)
            try:
                return _read(path, reader)
            except csv.Error as error:
                raise InputError(f"{path}, line {reader.line_num}: not CSV: {error}; repair it") from error
    except OSError as error:
        raise InputError(f"results must be a readable CSV file, got {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} must be UTF-8, and byte {error.start} is not; save it as UTF-8") from error


def _read(path: Path, reader: Iterator[list[str]]) -> list[Outcome]:
    header = next(reader, [])
    missing = [name for name in COLUMNS if name not in header]
    if missing:
        raise InputError(
            f"{path}, line 1: the header must have the columns of the thesis's results, and lacks "
            f"{', '.join(map(repr, missing))}; add them"
        )
    outcomes = []
    for row in reader:
        line: int = reader.line_num  # pyright: ignore[reportAttributeAccessIssue]
        if not row:
            continue
        if len(row) != len(header):
            raise InputError(
                f"{path}, line {line}: a row must have {len(header)} columns as the header has, got "
                f"{len(row)}"
            )
        outcomes.append(_outcome(dict(zip(header, row, strict=True)), f"{path}, line {line}"))
    if not outcomes:
        raise InputError(f"{path} must hold at least one network, got a header alone; add rows")
    return outcomes


def _outcome(row: dict[str, str], place: str) -> Outcome:
    mode = row["mode"].upper()
    if mode not in _MODES:
        raise InputError(f"{place}, column 'mode': {unknown_name('mode', row['mode'], _MODES)}")
    numbers = {name: _number(row[name], f"{place}, column {name!r}") for name in (*FEATURES, "test_acc")}
    accuracy = numbers.pop("test_acc")
    if not 0 <= accuracy <= 1:
        raise InputError(f"{place}, column 'test_acc': an accuracy must lie in [0, 1], got {accuracy:g}")
    return Outcome(cell=_MODES[mode], family=row["graph"], features=numbers, accuracy=accuracy)


def _number(text: str, place: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{place}: must be a finite number, got {text!r}")
    return value


@cache
def published() -> Mapping[str, Any]:
    """The thesis's figures; see the file."""
    return tomllib.loads((files("hyperprune.experiments") / "random_structure.toml").read_text())


def published_correlation(feature: str, cell: str) -> float | None:
    """The thesis's Pearson correlation of a feature with the accuracy of a cell, where it gives one."""
    row = published()["correlation"].get(feature)
    return None if row is None else row[list(CELL_NAMES).index(cell)]


class Correlation(NamedTuple):
    """A coefficient with its 95 % bootstrap interval; NaN where it cannot be said."""

    value: float
    low: float
    high: float


class Correlations(NamedTuple):
    """A feature's correlation with accuracy: linear, and of ranks."""

    pearson: Correlation
    spearman: Correlation


def correlate(x_N: Sequence[float], y_N: Sequence[float], *, seed: int = 0) -> Correlations:
    """Pearson's and Spearman's coefficient with percentile bootstrap intervals over networks.

    NaN for fewer than three networks, or where one of the two does not vary.
    """
    x, y = np.asarray(x_N, dtype=np.float64), np.asarray(y_N, dtype=np.float64)
    if len(x) < _FEWEST:
        nothing = Correlation(math.nan, math.nan, math.nan)
        return Correlations(nothing, nothing)
    random = np.random.default_rng(derive_seed(seed, "correlation"))
    # How often each network is drawn: a resample's sums and ranks follow from its counts alone.
    counts_DN = random.multinomial(len(x), np.full(len(x), 1 / len(x)), size=_DRAWS).astype(np.float64)
    whole_1N = np.ones((1, len(x)))
    pearson = _interval(_weighted(x[None], y[None], whole_1N)[0], _weighted(x[None], y[None], counts_DN))
    spearman = _interval(
        _weighted(mean_ranks(x)[None], mean_ranks(y)[None], whole_1N)[0],
        _weighted(_ranks(x, counts_DN), _ranks(y, counts_DN), counts_DN),
    )
    return Correlations(pearson, spearman)


def _ranks(x_N: Float64[np.ndarray, " N"], counts_DN: np.ndarray) -> Float64[np.ndarray, "D N"]:
    """Mean ranks of the values among those drawn, each as often as it was drawn."""
    below_NN = (x_N[None, :] < x_N[:, None]).astype(np.float64)
    level_NN = (x_N[None, :] == x_N[:, None]).astype(np.float64)
    return counts_DN @ below_NN.T + (counts_DN @ level_NN.T + 1) / 2


def _weighted(
    x_DN: np.ndarray, y_DN: np.ndarray, weights_DN: Float64[np.ndarray, "D N"]
) -> Float64[np.ndarray, " D"]:
    """Pearson's coefficient of weighted points, NaN where one side does not vary."""
    total_D1 = weights_DN.sum(1, keepdims=True)
    dx_DN = x_DN - (weights_DN * x_DN).sum(1, keepdims=True) / total_D1
    dy_DN = y_DN - (weights_DN * y_DN).sum(1, keepdims=True) / total_D1
    xx_D, yy_D = (weights_DN * dx_DN**2).sum(1), (weights_DN * dy_DN**2).sum(1)
    # What is left of equal values is round-off.
    floor_D = (1e-24 * (weights_DN * v_DN**2).sum(1) for v_DN in (x_DN, y_DN))
    varies_D = np.logical_and(*(s_D > f_D for s_D, f_D in zip((xx_D, yy_D), floor_D, strict=True)))
    norm_D = np.sqrt(np.where(varies_D, xx_D * yy_D, 1.0))
    return np.where(varies_D, (weights_DN * dx_DN * dy_DN).sum(1) / norm_D, np.nan)


def _interval(value: float, draws_D: np.ndarray) -> Correlation:
    if math.isnan(value) or np.isnan(draws_D).all():
        return Correlation(float(value), math.nan, math.nan)
    low, high = np.nanpercentile(draws_D, [2.5, 97.5])
    return Correlation(float(value), float(low), float(high))


class Difference(NamedTuple):
    """Mean accuracy of one group above another's, with a 95 % bootstrap interval."""

    value: float
    low: float
    high: float


def difference(a_N: Sequence[float], b_N: Sequence[float], *, seed: int = 0) -> Difference:
    """Mean of `a` minus mean of `b`, each group resampled by itself; at least one network in each."""
    random = np.random.default_rng(derive_seed(seed, "difference"))
    means = [
        random.choice(np.asarray(group, dtype=np.float64), size=(_DRAWS, len(group))).mean(1)
        for group in (a_N, b_N)
    ]
    low, high = np.percentile(means[0] - means[1], [2.5, 97.5])
    return Difference(float(np.mean(a_N) - np.mean(b_N)), float(low), float(high))
