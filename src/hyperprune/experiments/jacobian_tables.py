"""The Jacobian paper's study as Markdown tables, beside the paper's numbers, from its records alone."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from hyperprune.experiments.cells import Record
from hyperprune.experiments.jacobian_study import L2, MAIN, WELL_SCALED, Scale, published
from hyperprune.hypersearch.ranks import spearman

NAMES = {
    "dense": "dense",
    "snip": "SNIP, unnormalised",
    "snip_gamma": "SNIP, γ and Glorot",
    "grasp": "GraSP (Foresight), unnormalised",
    "grasp_gamma": "GraSP (Foresight), γ and Glorot",
    "random": "random",
    "jacobian": "Jacobian spectrum (the paper's)",
    L2: "L2: iterative magnitude",
}
_COMPARED = (
    ("jacobian", "random"),
    ("jacobian", "snip_gamma"),
    ("jacobian", "grasp_gamma"),
    ("snip_gamma", "snip"),
    ("grasp_gamma", "grasp"),
)
_CONCENTRATED = 0.9  # share of the kept weights in one of three gates
_EMPTIED = 0.005  # share of the recurrent weights kept, a tenth of what even pruning keeps
_PREDICTORS: dict[str, tuple[str, Callable[[Mapping[str, Any]], float]]] = {
    # Larger predicts a smaller error.
    "norm": ("‖J 1‖² of the pruned network", lambda start: start["norm"]),
    "score": ("share of the Jacobian scores kept", lambda start: start["score"]),
    "mean": ("mean singular value of J, pruned", lambda start: start["mean"]),
    "distance": ("Lyapunov spectrum near the dense one's", lambda start: -start["distance"]),
}


class Errors:
    """Test errors by cell."""

    def __init__(self, records: Iterable[Record]) -> None:
        self.records = [record for record in records if record["criterion"] != "time"]

    def cells(self, criterion: str, **wanted: Any) -> list[Record]:
        """The records of a criterion whose other settings are those wanted, by seed."""
        if criterion == "dense":
            wanted = {**wanted, "sparsity": 0.0}
        found = [
            record
            for record in self.records
            if record["criterion"] == criterion and all(record[key] == value for key, value in wanted.items())
        ]
        return sorted(found, key=lambda record: record["seed"])

    def by_seed(self, criterion: str, **wanted: Any) -> dict[int, float]:
        """Test error in percent by seed; infinite where training failed."""
        return {
            record["seed"]: math.inf if record["test_error"] is None else record["test_error"]
            for record in self.cells(criterion, **wanted)
        }

    def text(self, criterion: str, **wanted: Any) -> str:
        """Mean and standard deviation over seeds."""
        return spread_text(list(self.by_seed(criterion, **wanted).values()))


def spread_text(values: Sequence[float]) -> str:
    """Mean ± standard deviation; the number of values where it is not three."""
    if not values:
        return "not run"
    if not all(math.isfinite(value) for value in values):
        return "failed"
    text = f"{statistics.mean(values):.2f}"
    if len(values) > 1:
        text += f" ± {statistics.stdev(values):.2f}"
    return text if len(values) == 3 else f"{text} (n = {len(values)})"


def paper_text(values: Sequence[float] | None) -> str:
    return "–" if values is None else " ± ".join(f"{value:.2f}" for value in values)


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def main_table(records: Sequence[Record], scale: Scale) -> str:
    """Table 2, and the dense network."""
    errors, paper = Errors(records), published()["main"]
    heads = ["GRU, 95 % sparse"]
    for units in scale.units:
        heads += [f"{units} units", f"paper, {_paper_units(scale, units)}"]
    rows = []
    for criterion, start in MAIN:
        row = [NAMES[criterion]]
        for units in scale.units:
            row.append(errors.text(criterion, units=units, start=start, sparsity=0.95, cell="gru"))
            row.append(paper_text(paper.get(criterion, {}).get(str(_paper_units(scale, units)))))
        rows.append(row)
    return table(heads, rows)


def _paper_units(scale: Scale, units: int) -> int:
    """The paper's column that a size stands for: the same place among the sizes."""
    return (100, 400, 1600)[scale.units.index(units)]


def gates_table(records: Sequence[Record], scale: Scale) -> str:
    """Figure 1 in numbers: the density of each gate, and kept input weights over kept recurrent ones."""
    errors, rows, heads = Errors(records), list[list[str]](), ["criterion"]
    for criterion, start in MAIN:
        cells = errors.cells(criterion, units=scale.figure_units, start=start, sparsity=0.95, cell="gru")
        found = [record["kept"]["gates"] for record in cells if record.get("kept")]
        if not found:
            continue
        live = np.mean([[row[2] for row in gates] for gates in found], axis=0)
        labels = [("input " if "_ih" in tensor else "recurrent ") + gate for tensor, gate, _, _ in found[0]]
        heads = ["criterion", *labels, "input : recurrent"]
        is_input = np.array(["_ih" in row[0] for row in found[0]])
        totals = np.array([row[3] for row in found[0]])
        for name, counts in ((NAMES["dense"], totals), (NAMES[criterion], live))[bool(rows) :]:
            ratio = counts[is_input].sum() / max(counts[~is_input].sum(), 1)
            rows.append([name, *(f"{value:.3f}" for value in counts / totals), f"{ratio:.3f}"])
    return table(heads, rows) if rows else "Not run yet."


def cells_table(records: Sequence[Record], scale: Scale) -> str:
    """Table 1."""
    errors, paper = Errors(records), published()["cells"]
    rows = []
    for cell, quoted in paper.items():
        row = [cell.replace("_", " ")]
        for criterion in ("random", "jacobian", "dense"):
            row.append(
                errors.text(criterion, units=scale.side_units, cell=cell, sparsity=0.95, start="normal")
            )
            row.append(paper_text(quoted[criterion]))
        rows.append(row)
    heads = ["random", "paper", "Jacobian", "paper", "dense", "paper"]
    return table([f"{scale.side_units} units (paper: 400), 95 %", *heads], rows)


def sparsity_table(records: Sequence[Record], scale: Scale) -> str:
    """Table 3."""
    errors, paper, rows = Errors(records), published()["sparsity"], []
    for percent in ("90", "95", "98"):
        row = [f"{percent} %"]
        for criterion in ("random", "jacobian", "dense"):
            wanted = {"units": scale.side_units, "cell": "gru", "start": "normal"}
            row.append(errors.text(criterion, sparsity=int(percent) / 100, **wanted))
            row.append(paper_text(paper[criterion][percent]))
        rows.append(row)
    heads = ["random", "paper", "Jacobian", "paper", "dense", "paper"]
    return table([f"GRU {scale.side_units} (paper: 400), sparsity", *heads], rows)


def init_table(records: Sequence[Record], scale: Scale) -> str:
    """Table 5."""
    errors, paper, rows = Errors(records), published()["init"], []
    shown = {"glorot": "Glorot", "wide": "N(0, 1)", "uniform": "uniform(0, 0.1)", "normal": "N(0, 0.1)"}
    main = published()["main"]
    for start, label in shown.items():
        row = [label]
        for criterion in ("jacobian", "random"):
            row.append(errors.text(criterion, units=scale.side_units, cell="gru", sparsity=0.95, start=start))
            quoted = main[criterion]["400"] if start == "normal" else paper[start][criterion]
            row.append(paper_text(quoted))
        rows.append(row)
    heads = ["Jacobian", "paper", "random", "paper"]
    return table([f"GRU {scale.side_units} (paper: 400), start", *heads], rows)


def time_table(records: Sequence[Record]) -> str:
    """Table 6."""
    timed = next((record for record in records if record["criterion"] == "time"), None)
    if timed is None:
        return "Not run yet."
    paper, rows = published()["time"], []
    for name in ("snip", "jacobian", "grasp"):
        plain, normalized = timed["seconds"][name], timed["seconds"][f"{name}_gamma"]
        rows.append(
            [
                name,
                f"{plain:.3f} ({plain / timed['seconds']['snip']:.2f})",
                f"{normalized:.3f} ({normalized / timed['seconds']['snip_gamma']:.2f})",
                f"{paper[name]:.3f} ({paper[name] / paper['snip']:.2f})",
            ]
        )
    heads = ["CPU seconds (of SNIP's), one batch, one step", "plain", "by γ", "paper"]
    return table(heads, rows)


def singular_table(records: Sequence[Record], scale: Scale) -> str:
    """Figure 2 in numbers."""
    errors, rows = Errors(records), []
    quoted = published()["figures"]["mean_singular_value"]
    for criterion, start in MAIN:
        cells = [
            record
            for record in errors.cells(
                criterion, units=scale.figure_units, start=start, sparsity=0.95, cell="gru"
            )
            if record.get("after")
        ]
        if not cells:
            continue
        row = [NAMES[criterion]]
        for when in ("before", "after"):
            row.append(f"{statistics.mean(record[when]['mean'] for record in cells):.3f}")
            row.append(f"{statistics.mean(record[when]['small'] for record in cells):.1%}")
        unsaid = " (it does not say which SNIP)" if criterion == "snip" else ""
        rows.append([*row, f"{quoted[criterion]:.2f}{unsaid}" if criterion in quoted else "–"])
    heads = [
        "singular values of J",
        "mean before",
        "below 0.01",
        "mean after",
        "below 0.01",
        "paper, mean after",
    ]
    return table(heads, rows) if rows else "Not run yet."


def gamma_table(records: Sequence[Record], scale: Scale) -> str:
    """Does γ help on well-scaled starts?"""
    errors, rows = Errors(records), []
    names = ("random", "jacobian", "jacobian_plain", "snip_gamma", "snip")
    shown = {"normal": "N(0, 0.1)", "glorot": "Glorot", "he": "He", "torch": "torch: ±1/√H"}
    for start in WELL_SCALED:
        texts = (
            errors.text(name, units=scale.side_units, cell="gru", sparsity=0.95, start=start)
            for name in names
        )
        rows.append([shown[start], *texts])
    heads = ["start", "random", "Jacobian by γ", "Jacobian plain", "SNIP by γ", "SNIP plain"]
    return table(heads, rows)


def prediction_table(records: Sequence[Record], scale: Scale) -> str:
    """Which figure of the pruned, untrained network ranks the trained ones: Spearman's rho.

    Ranked are the masks of one start and seed, which share their initial weights; the mean over those.
    Fewer than three masks have no rho and do not count.
    """
    groups: dict[str, dict[tuple[str, int], list[Record]]] = {}
    for record in Errors(records).records:
        static = record["criterion"] not in ("dense", L2)
        if static and record["sparsity"] == 0.95 and record["cell"] == "gru" and record.get("before"):
            usable = record["before"].get("score") is not None and record["test_error"] is not None
            label = None
            if record["start"] == "normal":
                label = f"GRU {record['units']}, N(0, 0.1)"
            elif record["units"] == scale.side_units and record["start"] in WELL_SCALED:
                label = f"GRU {record['units']}, other well-scaled starts"
            if usable and label:
                ranked = groups.setdefault(label, {}).setdefault((record["start"], record["seed"]), [])
                ranked.append(record)
    rows = []
    for label, rankings in sorted(groups.items()):
        found = [(len(ranked), _rank_correlations(ranked)) for ranked in rankings.values()]
        found = [(size, rhos) for size, rhos in found if not all(map(math.isnan, rhos))]
        if not found:
            continue
        sizes = " to ".join(map(str, sorted({min(found)[0], max(found)[0]})))
        rows.append([f"{label} ({len(found)} ranking{'s' * (len(found) > 1)} of {sizes} masks)"])
        for column in zip(*(rhos for _, rhos in found), strict=True):
            known = [rho for rho in column if not math.isnan(rho)]
            fewer = f" (n = {len(known)})" if len(known) < len(found) else ""
            rows[-1].append(f"{statistics.mean(known):+.2f}{fewer}" if known else "–")
    return table(["masks", *(label for label, _ in _PREDICTORS.values())], rows) if rows else "Not run yet."


def _rank_correlations(ranked: Sequence[Record]) -> list[float]:
    """Spearman's rho of every predictor with the accuracy."""
    accuracies = np.array([-record["test_error"] for record in ranked])
    return [
        spearman(np.array([value(record["before"]) for record in ranked]), accuracies)
        for _, value in _PREDICTORS.values()
    ]


def findings(records: Sequence[Record], scale: Scale) -> str:
    """What the paper's table 2 and figure 1 say, and whether it holds here in all seeds.

    Who is ahead in the paper is read from its numbers, size by size: at 100 units random masks are.
    """
    errors, paper, rows = Errors(records), published()["main"], []
    starts = dict(MAIN)
    for units in scale.units:
        column = str(_paper_units(scale, units))
        for pair in _COMPARED:
            better, worse = sorted(pair, key=lambda criterion: paper[criterion][column][0])
            ours = [
                errors.by_seed(criterion, units=units, start=starts[criterion], cell="gru", sparsity=0.95)
                for criterion in (better, worse)
            ]
            quoted = " against ".join(f"{paper[criterion][column][0]:.2f}" for criterion in (better, worse))
            claim = f"{NAMES[better]} ahead of {NAMES[worse]}"
            rows.append([f"GRU {units}", claim, f"{quoted} ({column} units)", *verdict(*ours)])
    for criterion in ("snip", "grasp"):
        cells = errors.cells(criterion, units=scale.figure_units, start="normal", sparsity=0.95, cell="gru")
        kept = [record for record in cells if record.get("kept")]
        if not kept:
            continue
        gates, recurrent = ([share(record) for record in kept] for share in (_largest_gate, _recurrent))
        network = f"GRU {scale.figure_units}"
        rows += [
            [
                network,
                f"{NAMES[criterion]}: more than {_CONCENTRATED:.0%} of the kept weights lie in one gate",
                "said in the text",
                f"{statistics.mean(gates):.0%} (even: 33%)",
                _word(sum(value > _CONCENTRATED for value in gates), len(kept)),
            ],
            [
                network,
                f"{NAMES[criterion]}: less than {_EMPTIED:.1%} of the recurrent matrix is kept",
                "seen in figure 1",
                f"{statistics.mean(recurrent):.1%} (even: 5%)",
                _word(sum(value < _EMPTIED for value in recurrent), len(kept)),
            ],
        ]
    return table(["network", "the paper's finding", "paper, error in %", "here", "does it hold?"], rows)


def verdict(first: Mapping[int, float], second: Mapping[int, float]) -> tuple[str, str]:
    """Both mean errors, and whether the first are smaller: for every seed, for some, or for none."""
    seeds = sorted(first.keys() & second.keys())
    if not seeds:
        return "not run", "–"
    numbers = (f"{statistics.mean(errors[seed] for seed in seeds):.2f}" for errors in (first, second))
    return " against ".join(numbers), _word(sum(first[seed] < second[seed] for seed in seeds), len(seeds))


def _word(agreeing: int, seeds: int) -> str:
    word = "holds" if agreeing == seeds else "does not hold" if agreeing == 0 else "undecided"
    return f"**{word}** ({agreeing} of {seeds} seeds)"


def _largest_gate(record: Record) -> float:
    """The largest share of all kept weights that one gate holds, input and recurrent weights together."""
    gates: dict[str, int] = {}
    for _, gate, live, _ in record["kept"]["gates"]:
        gates[gate] = gates.get(gate, 0) + live
    return max(gates.values()) / max(1, sum(gates.values()))


def _recurrent(record: Record) -> float:
    """The share of the recurrent weights that is kept."""
    rows = [(live, total) for tensor, _, live, total in record["kept"]["gates"] if "_ih" not in tensor]
    return sum(live for live, _ in rows) / sum(total for _, total in rows)


def report(records: Sequence[Record], scale: Scale) -> str:
    """All tables with their headings."""
    seeds = sorted({record["seed"] for record in Errors(records).records})
    intro = (
        "Test error in percent, mean ± standard deviation over seeds "
        f"{', '.join(map(str, seeds))}; task `{scale.task}`, {scale.epochs} epochs "
        "(the paper: MNIST, 50 epochs, validation error)."
    )
    parts = [
        ("Criteria (table 2)", main_table(records, scale)),
        ("Which of the paper's findings hold", findings(records, scale)),
        ("Kept weights by gate (figure 1)", gates_table(records, scale)),
        ("Singular values of the Jacobian (figure 2)", singular_table(records, scale)),
        ("Cells (table 1)", cells_table(records, scale)),
        ("Sparsity (table 3)", sparsity_table(records, scale)),
        ("Initialisations (table 5)", init_table(records, scale)),
        ("Run times (table 6)", time_table(records)),
        ("Does γ help on well-scaled starts?", gamma_table(records, scale)),
        ("What predicts the trained ranking?", _PREDICTION + prediction_table(records, scale)),
    ]
    return "\n\n".join([intro, *(f"### {title}\n\n{text}" for title, text in parts)]) + "\n"


_PREDICTION = (
    "Spearman's rank correlation of a figure of the pruned, untrained network with its accuracy after "
    "training, among the masks of one start and seed; the mean over these. +1 would be a perfect "
    "prediction.\n\n"
)
