"""Tables of the prune-and-regain study: quality after pruning, epochs to regain it, exponents, prediction.

Definition: a network has regained its quality after the first number of retraining epochs, 0 being right
after pruning, with a test metric no worse than the base model's by more than `TOLERANCE` of its value: an
accuracy of 1.000 is regained at 0.995, a perplexity of 100 at 100.5.

References:
    Darji (2021), Investigating sparsity in recurrent neural networks (arXiv 2407.20601),
    called the thesis here, chapter 6.
    Spearman 1904; bootstrap over clusters: Davison & Hinkley 1997, section 3.8.

Axes: N points.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

import numpy as np

from hyperprune.experiments.cells import Record
from hyperprune.hypersearch.ranks import spearman
from hyperprune.rng import derive_seed

TOLERANCE = 0.005
FEWEST_BASES = 5  # for an interval: of fewer clusters a bootstrap knows too little
_DRAWS = 1000
PART_NAMES = {
    "both": "input and recurrent weights",
    "input": "input weights",
    "recurrent": "recurrent weights",
}
CELL_NAMES = {"rnn": "RNN tanh", "rnn_relu": "RNN ReLU", "lstm": "LSTM", "gru": "GRU", "own": "model"}


def _is_thesis(base: Record) -> bool:
    """Whether a base model has the thesis's network and grammar, whatever the number of strings."""
    model, strings = (base["settings"].get(table, {}) for table in ("model", "strings"))
    return base["task"] == "reber" and set(model) <= {"read_padding"} and not strings.get("embedded", False)


class Points:
    """The records of a study, with each point beside its base model.

    Attributes:
        bases: base records by (cell, seed), those that failed left out.
        points: the other records, by part, then in the order of cells, percentages and seeds.
        tolerance: see the module.
        is_thesis: whether the thesis's figures can stand beside them.
    """

    def __init__(self, records: Sequence[Record], tolerance: float = TOLERANCE) -> None:
        bases = [record for record in records if record["kind"] == "base"]
        self.failed = [record for record in bases if record["failure"]]
        self.bases = {(record["cell"], record["seed"]): record for record in bases if not record["failure"]}
        self.points = [record for record in records if record["kind"] == "point"]
        self.tolerance = tolerance
        self.cells = [name for name in CELL_NAMES if any(base["cell"] == name for base in bases)]
        self.cells += sorted({base["cell"] for base in bases} - set(self.cells))
        self.parts = [part for part in PART_NAMES if any(point["part"] == part for point in self.points)]
        self.percents = sorted({point["percent"] for point in self.points})
        self.task = bases[0]["task"] if bases else ""
        self.is_thesis = bool(bases) and _is_thesis(bases[0])
        self.metric = bases[0]["metric"] if bases else "metric"
        self.num_epochs = max((len(point["retrained"]["test"]) for point in self.points), default=0)

    def base_of(self, point: Record) -> Record:
        return self.bases[point["cell"], point["seed"]]

    def select(self, *, cell: str, part: str, percent: int) -> list[Record]:
        """A point's records, one per seed."""
        return [
            point
            for point in self.points
            if (point["cell"], point["part"], point["percent"]) == (cell, part, percent)
        ]

    def epochs_to_regain(self, point: Record) -> int | None:
        """See the module; None where no epoch brought it back."""
        base = self.base_of(point)
        sign = 1 if base["lower_is_better"] else -1
        limit = sign * base["test"] + self.tolerance * abs(base["test"])
        for epoch, value in enumerate([point["pruned"]["test"], *point["retrained"]["test"]]):
            if sign * value <= limit:
                return epoch
        return None

    def largest(self, record: Record) -> float:
        """The largest exponent in nats per step, NaN where it was not measured."""
        if record["spectrum"] is None:
            return math.nan
        value = record["spectrum"]["leading"][0]
        return -math.inf if value is None else value


@cache
def published() -> Mapping[str, Any]:
    """The thesis's figures: `base`, `pruned` and `regained`; see the file."""
    return tomllib.loads((files("hyperprune.experiments") / "prune_regain.toml").read_text())


def quality_table(points: Points, part: str) -> str:
    """Rows: percentages; per cell the test metric right after pruning and the epochs to regain it.

    Of seeds that differ the lowest and the highest; the thesis's figures in brackets, where it gives them.
    """
    head = [f"{CELL_NAMES.get(cell, cell)}: {points.metric} | epochs" for cell in points.cells]
    lines = [f"| pruned | {' | '.join(head)} |", "|---" + "|---|---" * len(points.cells) + "|"]
    base_cells = []
    for cell in points.cells:
        values = [base["test"] for (name, _), base in points.bases.items() if name == cell]
        quoted = published()["base"].get(cell) if points.is_thesis else None
        base_cells.append(f"{_range(values)}{_quoted(quoted)} | ")
    lines.append(f"| base | {' | '.join(base_cells)} |")
    for percent in points.percents:
        row = []
        for cell in points.cells:
            chosen = points.select(cell=cell, part=part, percent=percent)
            quality, epochs = _thesis(points, part, cell, percent)
            row.append(
                f"{_range([point['pruned']['test'] for point in chosen])}{quality} | "
                f"{_regained([points.epochs_to_regain(point) for point in chosen])}{epochs}"
            )
        lines.append(f"| {percent} % | {' | '.join(row)} |")
    return "\n".join(lines)


def _thesis(points: Points, part: str, cell: str, percent: int) -> tuple[str, str]:
    if not points.is_thesis:
        return "", ""
    quality = published()["pruned"].get(part, {}).get(cell, {}).get(str(percent))
    epochs = published()["regained"].get(part, {}).get(str(percent), {}).get(cell)
    return _quoted(quality), "" if epochs is None else f" [{epochs or 'never'}]"


def _quoted(value: float | None) -> str:
    return "" if value is None else f" [{value:.3f}]"


def _range(values: Sequence[float]) -> str:
    texts = [f"{value:.3f}" for value in sorted(values)]
    return " … ".join(dict.fromkeys((texts[0], texts[-1]))) if texts else "–"


def _regained(epochs: Sequence[int | None]) -> str:
    """One number per seed where they differ, lowest first."""
    texts = sorted({"never" if value is None else f"{value}" for value in epochs}, key=lambda t: (len(t), t))
    return " … ".join((texts[0], texts[-1]) if len(texts) > 1 else texts) if texts else "–"


def exponent_table(points: Points, part: str) -> str:
    """Rows: percentages; per cell the largest exponent right after pruning, and after retraining."""
    head = [f"{CELL_NAMES.get(cell, cell)}: pruned | retrained" for cell in points.cells]
    lines = [f"| pruned | {' | '.join(head)} |", "|---" + "|---|---" * len(points.cells) + "|"]
    row = [
        f"{_exponent([points.largest(base) for (name, _), base in points.bases.items() if name == cell])} | "
        for cell in points.cells
    ]
    lines.append(f"| base | {' | '.join(row)} |")
    for percent in points.percents:
        row = []
        for cell in points.cells:
            chosen = points.select(cell=cell, part=part, percent=percent)
            row += [
                _exponent([points.largest(point[stage]) for point in chosen])
                for stage in ("pruned", "retrained")
            ]
        lines.append(f"| {percent} % | {' | '.join(row)} |")
    return "\n".join(lines)


def _exponent(values: Sequence[float]) -> str:
    if not values:
        return "–"
    mean = float(np.mean(values))
    return (
        "−∞" if mean == -math.inf else "not finite" if math.isnan(mean) else f"{mean:.2f}".replace("-", "−")
    )


class Prediction(NamedTuple):
    """How well a figure known right after pruning tells the epochs to regain.

    Attributes:
        rho: Spearman's, over all points; NaN where one side does not vary.
        low, high: 95 % percentile bootstrap over base models, each with all of its parts and percentages,
            which share its weights; NaN for fewer than `FEWEST_BASES`.
        within: Spearman's rho among the points of one percentage, averaged over percentages by their number
            of points; NaN where there is no percentage with any difference.
        num_points, num_bases: what it rests on.
    """

    rho: float
    low: float
    high: float
    within: float
    num_points: int
    num_bases: int


def _distance(points: Points, point: Record) -> float:
    spectrum = point["pruned"]["spectrum"]
    return math.nan if spectrum is None else spectrum["distance"]


def _moved(points: Points, point: Record) -> float:
    return abs(points.largest(points.base_of(point)) - points.largest(point["pruned"]))


def _lost(points: Points, point: Record) -> float:
    lost = points.base_of(point)["test"] - point["pruned"]["test"]
    return -lost if points.base_of(point)["lower_is_better"] else lost


PREDICTORS: dict[str, Callable[[Points, Record], float]] = {
    "distance of the spectra": _distance,
    "change of the largest exponent": _moved,
    "quality lost by pruning": _lost,
    "percentage pruned": lambda _, point: point["percent"],
}


def predict(points: Points, predictor: str, *, cell: str | None = None) -> Prediction:
    """Rank correlation of a predictor with the epochs to regain; "never" ranks above every number of epochs.

    Args:
        points: of a study.
        predictor: a key of `PREDICTORS`.
        cell: only its points; None takes all.
    """
    clusters: dict[tuple[str, int], list[tuple[float, float, int]]] = {}
    for point in points.points:
        if cell is not None and point["cell"] != cell:
            continue
        epochs = points.epochs_to_regain(point)
        value = PREDICTORS[predictor](points, point)
        if not math.isnan(value):
            entry = (value, math.inf if epochs is None else float(epochs), point["percent"])
            clusters.setdefault((point["cell"], point["seed"]), []).append(entry)
    by_base = list(clusters.values())
    flat = [entry for cluster in by_base for entry in cluster]
    rho, low, high = _spearman(flat), math.nan, math.nan
    if len(by_base) >= FEWEST_BASES and not math.isnan(rho):
        random = np.random.default_rng(derive_seed(0, "prune-regain", predictor))
        draws = []
        for _ in range(_DRAWS):
            chosen = random.integers(len(by_base), size=len(by_base))
            draws.append(_spearman([entry for index in chosen for entry in by_base[index]]))
        low, high = map(float, np.nanpercentile(draws, [2.5, 97.5]))
    return Prediction(rho, low, high, _within(flat), len(flat), len(by_base))


def _spearman(entries: Sequence[tuple[float, float, int]]) -> float:
    values_N, epochs_N = (np.array([entry[place] for entry in entries]) for place in (0, 1))
    return spearman(values_N, epochs_N)


def _within(entries: Sequence[tuple[float, float, int]]) -> float:
    groups: dict[int, list[tuple[float, float, int]]] = {}
    for entry in entries:
        groups.setdefault(entry[2], []).append(entry)
    rhos = [(_spearman(group), len(group)) for group in groups.values()]
    rhos = [(rho, count) for rho, count in rhos if not math.isnan(rho)]
    return float(np.average([rho for rho, _ in rhos], weights=[n for _, n in rhos])) if rhos else math.nan


def prediction_table(points: Points) -> str:
    """Rows: predictors; columns: over all points, at equal percentage, and per cell."""
    lines = [
        "| known right after pruning | all points | at equal percentage | "
        + " | ".join(CELL_NAMES.get(cell, cell) for cell in points.cells)
        + " |",
        "|---|---|---" + "|---" * len(points.cells) + "|",
    ]
    for predictor in PREDICTORS:
        overall = predict(points, predictor)
        interval = "" if math.isnan(overall.low) else f" ({overall.low:.2f} to {overall.high:.2f})"
        row = [f"{_number(overall.rho)}{interval}", _number(overall.within)]
        row += [_number(predict(points, predictor, cell=cell).rho) for cell in points.cells]
        lines.append(f"| {predictor} | {' | '.join(row)} |")
    return "\n".join(lines).replace("-0.", "−0.").replace("-1.", "−1.")


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.2f}"


def to_markdown(records: Sequence[Record], tolerance: float = TOLERANCE) -> str:
    """All tables, with what they mean."""
    points = Points(records, tolerance)
    quoted = (
        " The thesis's figures stand in square brackets; it says that nearly all recover within one epoch."
        if points.is_thesis
        else ""
    )
    blocks = []
    for part in points.parts:
        blocks += [
            f"### Pruned: {PART_NAMES[part]}",
            f"Test {points.metric} right after pruning, and epochs of retraining until it is back within "
            f'{tolerance:.1%} of the base model\'s ("never": not within {points.num_epochs}). '
            f"Where seeds differ: the lowest … the highest.{quoted}",
            quality_table(points, part),
            "Largest Lyapunov exponent (nats per step, mean over seeds), right after pruning and after "
            "retraining.",
            exponent_table(points, part),
        ]
    if points.points:
        told = predict(points, "percentage pruned")
        blocks += [
            "### What tells the epochs to regain",
            f"Spearman's rank correlation with the epochs to regain, over {told.num_points} points of "
            f"{told.num_bases} base models; in brackets a 95 % bootstrap interval over base models"
            + (f", left out below {FEWEST_BASES} of them" if told.num_bases < FEWEST_BASES else "")
            + '. "At equal percentage" compares only networks with the same share of weights pruned.',
            prediction_table(points),
        ]
    for base in points.failed:
        blocks.append(f"The base model {base['cell']}, seed {base['seed']}, failed: {base['failure']}.")
    for point in points.points:
        if point["failure"]:
            blocks.append(
                f"{CELL_NAMES.get(point['cell'], point['cell'])}, {PART_NAMES[point['part']]}, "
                f"{point['percent']} %, seed {point['seed']}: {point['failure']}"
                + ("; it counts as never." if points.epochs_to_regain(point) is None else ".")
            )
    return "\n\n".join(blocks)
