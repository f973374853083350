"""Tables of the study of graph-wired networks: accuracy by family, correlations, prediction, what holds."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Mapping, Sequence

from hyperprune.experiments.cells import Record
from hyperprune.experiments.random_structure_prediction import (
    FEATURE_SETS,
    FEWEST,
    REGRESSORS,
    Prediction,
    predict,
)
from hyperprune.experiments.random_structure_results import (
    CELL_NAMES,
    FAMILY_NAMES,
    Correlations,
    Outcome,
    correlate,
    difference,
    published,
    published_correlation,
)
from hyperprune.graphs import FEATURES, TRUE_SINKS

Table = Mapping[tuple[str, str], Correlations]


def cells_of(outcomes: Sequence[Outcome]) -> list[str]:
    """The cells there are, in the thesis's order."""
    return [cell for cell in CELL_NAMES if any(outcome.cell == cell for outcome in outcomes)]


def families_of(outcomes: Sequence[Outcome]) -> list[str]:
    """The families there are, those known first."""
    found = {outcome.family for outcome in outcomes}
    return [name for name in FAMILY_NAMES if name in found] + sorted(found - set(FAMILY_NAMES))


def of_cell(outcomes: Sequence[Outcome], cell: str) -> list[Outcome]:
    return [outcome for outcome in outcomes if outcome.cell == cell]


def accuracies(outcomes: Sequence[Outcome], cell: str, family: str | None = None) -> list[float]:
    return [o.accuracy for o in outcomes if o.cell == cell and family in (None, o.family)]


def correlations(outcomes: Sequence[Outcome]) -> Table:
    """By (feature, cell); true sinks too where the outcomes have them."""
    table = {}
    for cell in cells_of(outcomes):
        own = of_cell(outcomes, cell)
        for feature in (*FEATURES, TRUE_SINKS):
            if all(feature in outcome.features for outcome in own):
                values = [outcome.features[feature] for outcome in own]
                table[feature, cell] = correlate(values, [outcome.accuracy for outcome in own])
    return table


def accuracy_table(outcomes: Sequence[Outcome]) -> str:
    """A row per cell: mean and standard deviation by family, and how far Watts–Strogatz lies above."""
    families = families_of(outcomes)
    names = [FAMILY_NAMES.get(name, name) for name in families]
    lines = [
        f"| cell | {' | '.join(names)} | all | Watts–Strogatz − Barabási–Albert | thesis, all |",
        "|---" * (len(families) + 4) + "|",
    ]
    for cell in cells_of(outcomes):
        row = [_spread(accuracies(outcomes, cell, family)) for family in (*families, None)]
        pair = [accuracies(outcomes, cell, name) for name in ("watts_strogatz", "barabasi_albert")]
        gap = _interval(*difference(*pair), digits=3) if all(pair) else "–"
        lines.append(
            f"| {CELL_NAMES[cell]} | {' | '.join(row)} | {gap} | {published()['accuracy'][cell]:.3f} |"
        )
    return "\n".join(lines)


def sources_table(outcomes: Sequence[Outcome]) -> str:
    """A row per cell and family: the mean accuracy by the number of sources, through which all input goes."""
    numbers = sorted({int(outcome.features["source_nodes"]) for outcome in outcomes})
    lines = [f"| sources | {' | '.join(map(str, numbers))} |", "|---" * (1 + len(numbers)) + "|"]
    for cell in cells_of(outcomes):
        for family in families_of(outcomes):
            own = [outcome for outcome in of_cell(outcomes, cell) if outcome.family == family]
            row = []
            for number in numbers:
                values = [outcome.accuracy for outcome in own if outcome.features["source_nodes"] == number]
                row.append(f"{statistics.fmean(values):.3f} (n = {len(values)})" if values else "–")
            lines.append(f"| {CELL_NAMES[cell]}, {FAMILY_NAMES.get(family, family)} | {' | '.join(row)} |")
    return "\n".join(lines)


def correlation_table(outcomes: Sequence[Outcome], table: Table) -> str:
    """A row per feature; per cell Pearson and Spearman with intervals, and the thesis's Pearson."""
    cells = cells_of(outcomes)
    head = " | ".join(f"{CELL_NAMES[c]}: Pearson | thesis | Spearman" for c in cells)
    lines = [f"| property | {head} |", "|---" * (1 + 3 * len(cells)) + "|"]
    for feature in (*FEATURES, TRUE_SINKS):
        if not any(key == feature for key, _ in table):
            continue
        row = []
        for cell in cells:
            quoted = published_correlation(feature, cell)
            found = table[feature, cell]
            row += [
                _interval(*found.pearson),
                "" if quoted is None else f"{quoted:.2f}",
                _interval(*found.spearman),
            ]
        lines.append(f"| {words_of(feature)} | {' | '.join(row)} |")
    return _minus("\n".join(lines))


def predictions(outcomes: Sequence[Outcome]) -> dict[tuple[str, str, str], Prediction]:
    """By (cell, regressor, set of features): every regressor on all features, the forest on every set."""
    found = {}
    for cell in cells_of(outcomes):
        own = of_cell(outcomes, cell)
        if len(own) < FEWEST:
            continue
        for regressor in REGRESSORS:
            for name, features in FEATURE_SETS.items():
                if name == "all" or regressor == "random forest":
                    found[cell, regressor, name] = predict(own, regressor, features)
    return found


def prediction_table(found: Mapping[tuple[str, str, str], Prediction]) -> str:
    """A row per cell, regressor and set of features: R² cross-validated and held out, and the thesis's."""
    lines = [
        "| cell | regressor | properties | R², cross-validated | thesis's split | 20 other splits | thesis |",
        "|---" * 7 + "|",
    ]
    for (cell, regressor, name), entry in found.items():
        low, high = entry.holdout_range
        trusted = _number(entry.cross_validated)
        if trusted != "–":
            trusted += f" ± {entry.spread:.2f}"
        others = "–" if math.isnan(low) else f"{low:.2f} to {high:.2f}"
        quoted = _published_r2(cell, regressor, name)
        lines.append(
            f"| {CELL_NAMES[cell]} | {regressor} | {name} | {trusted} | {_number(entry.holdout)} | {others} "
            f"| {'' if quoted is None else f'{quoted:.2f}'} |"
        )
    return _minus("\n".join(lines))


def _published_r2(cell: str, regressor: str, name: str) -> float | None:
    figures = published()
    if name == "all":
        return figures["prediction"][cell][REGRESSORS.index(regressor)]
    row = figures["features"].get(cell)
    return None if row is None else row[list(FEATURE_SETS).index(name)]


def importance_table(found: Mapping[tuple[str, str, str], Prediction]) -> str:
    """A row per feature: importances of forest and AdaBoost, coefficients of the ridge, by cell."""
    cells = list(dict.fromkeys(cell for cell, _, _ in found))
    columns = [(cell, regressor) for cell in cells for regressor in REGRESSORS]
    head = " | ".join(f"{CELL_NAMES[cell]}: {regressor}" for cell, regressor in columns)
    lines = [f"| property | {head} |", "|---" * (1 + len(columns)) + "|"]
    for feature in FEATURES:
        row = [_number(found[cell, regressor, "all"].importances[feature]) for cell, regressor in columns]
        lines.append(f"| {words_of(feature)} | {' | '.join(row)} |")
    return _minus("\n".join(lines))


def what_holds(outcomes: Sequence[Outcome], table: Table) -> str:
    """Which of the thesis's findings these networks share, counted."""
    lines = []
    for cell in cells_of(outcomes):
        quoted = {f: value for f in FEATURES if (value := published_correlation(f, cell)) is not None}
        ours = {f: table[f, cell].pearson for f in quoted if not math.isnan(table[f, cell].pearson.value)}
        same = [f for f, found in ours.items() if found.value * quoted[f] > 0]
        sure = [f for f, found in ours.items() if found.low * found.high > 0]
        turned = [f for f in sure if f not in same]
        text = (
            f"- {CELL_NAMES[cell]}: {len(same)} of {len(quoted)} correlations have the thesis's sign; "
            f"{len(sure)} intervals exclude 0, {len(sure) - len(turned)} of them with the thesis's sign"
        )
        if turned:
            text += f"; of the other sign: {', '.join(map(words_of, turned))}"
        pair = [accuracies(outcomes, cell, name) for name in ("watts_strogatz", "barabasi_albert")]
        if all(pair):
            gap = difference(*pair)
            above = "above" if gap.value > 0 else "not above"
            certain = "the interval excludes 0" if gap.low * gap.high > 0 else "the interval includes 0"
            text += f". Watts–Strogatz is {above} Barabási–Albert ({certain}; in the thesis above)"
        lines.append(text + ".")
    return "\n".join(lines)


def to_markdown(outcomes: Sequence[Outcome], *, source: str) -> str:
    """All tables, with what they mean.

    Args:
        outcomes: at least one.
        source: a sentence on where they come from.
    """
    table = correlations(outcomes)
    found = predictions(outcomes)
    blocks = [
        source,
        "### Accuracy",
        "Mean test accuracy ± standard deviation over networks; differences and correlations with 95 % "
        "bootstrap intervals over networks.",
        accuracy_table(outcomes),
        "The mean by the number of sources, the nodes that see the input; the last layer is read out.",
        sources_table(outcomes),
        "### Correlation of a graph's properties with test accuracy",
        correlation_table(outcomes, table),
        "### What holds of the thesis's findings",
        what_holds(outcomes, table),
    ]
    if found:
        blocks += [
            "### Accuracy predicted from the graph",
            "R² of 1 is perfect, 0 as good as the mean accuracy. Cross-validated: five folds, pooled, mean ± "
            "standard deviation over three shufflings. The thesis's split holds out one tenth; the range "
            "over 20 other tenths tells how much one such figure says.",
            prediction_table(found),
            "Importances (of forest and AdaBoost; they add up to 1) and coefficients (of the ridge, in "
            "accuracy over a property's whole range), fitted on all networks.",
            importance_table(found),
        ]
    else:
        blocks.append(f"Fewer than {FEWEST} networks of each cell: nothing is predicted.")
    return "\n\n".join(blocks)


def describe(records: Sequence[Record]) -> str:
    """Where our outcomes come from, in one sentence."""
    first = records[0]
    graphs = len({(record["family"], record["number"], record["seed"]) for record in records})
    failed = sum(record["test"] is None for record in records)
    strings = "drawn" if first["strings"] == "drawn" else "the files'"
    epochs = len(first["test_by_epoch"]) - 1
    reading = "after the batch's padding" if first["read_padding"] else "at each string's own end"
    text = (
        f"{len(records)} networks of {graphs} graphs, {epochs} epochs on {first['train_strings']:,} of "
        f"{strings} strings, tested on {first['test_strings']:,}; states are read {reading}."
    )
    return text + (f" {failed} failed to train and are left out." if failed else "")


def words_of(feature: str) -> str:
    """A property in words."""
    return {"sink_nodes": "last layer's nodes", TRUE_SINKS: "sinks"}.get(feature) or (
        feature.replace("nodes_betweenness", "node betweenness")
        .replace("_var", ", variance")
        .replace("_std", ", standard deviation")
        .replace("_mean", ", mean")
        .replace("_", " ")
    )


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "–"
    deviation = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.3f}{deviation} (n = {len(values)})"


def _interval(value: float, low: float, high: float, *, digits: int = 2) -> str:
    if math.isnan(value):
        return "–"
    if math.isnan(low):
        return f"{value:.{digits}f}"
    return f"{value:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.2f}"


def _minus(text: str) -> str:
    """A minus sign before numbers, a hyphen left in words and table rules."""
    return re.sub(r"(?<=[ (])-(?=\d)", "−", text)
