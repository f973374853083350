"""What the study of all methods found, as Markdown: its table, and which published comparisons hold."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence

import numpy as np

from hyperprune.errors import InputError
from hyperprune.experiments.cells import Record
from hyperprune.experiments.methods_study import Cell, Scale, cells_of, published
from hyperprune.hypersearch.ranks import spearman
from hyperprune.hypersearch.space import DENSE

PUBLISHED_SPARSITY = 0.67


class Outcomes:
    """Test perplexities by method and sparsity, one per seed; infinite where training failed.

    Args:
        records: of one study; the dense network's count for every sparsity.

    Raises:
        InputError: records of several tasks or lengths of training.
    """

    def __init__(self, records: Sequence[Record]) -> None:
        worlds = sorted({f"{record['task']} with {record['epochs']} epochs" for record in records})
        if len(worlds) > 1:
            raise InputError(f"records must be of one study, got {' and '.join(worlds)}; separate them")
        self.world = worlds[0] if worlds else ""
        self.sparsities = sorted({record["sparsity"] for record in records} - {0.0})
        self._values: dict[tuple[str, float], list[float]] = {}
        for record in records:
            value = math.inf if record["test"] is None else record["test"]
            of_dense = record["method"] == DENSE.method
            for sparsity in self.sparsities if of_dense else [record["sparsity"]]:
                self._values.setdefault((record["method"], sparsity), []).append(value)
        self.names = list(dict.fromkeys(record["method"] for record in records))

    def of(self, name: str, sparsity: float) -> list[float]:
        """A method's perplexities at a sparsity; none if it was not run."""
        return self._values.get((name, sparsity), [])

    def mean(self, name: str, sparsity: float) -> float:
        """Over seeds; infinite where one failed or none was run."""
        return statistics.mean(self.of(name, sparsity) or [math.inf])

    def ranked(self, sparsity: float) -> list[str]:
        """The methods with a mean at a sparsity, best first."""
        found = [name for name in self.names if math.isfinite(self.mean(name, sparsity))]
        return sorted(found, key=lambda name: self.mean(name, sparsity))


def to_markdown(records: Sequence[Record]) -> str:
    """One row per method, sorted by the mean test perplexity at the lowest sparsity, the paper's beside it.

    A cell is the mean over seeds, the half range in brackets where there are several, and the number of
    seeds; "failed" where a seed failed.
    """
    outcomes, paper = Outcomes(records), published()
    sparsities = outcomes.sparsities
    lines = [
        "| method | " + " | ".join(f"sparsity {sparsity:g}" for sparsity in sparsities) + " | paper, 0.67 |",
        "|---|" + "---|" * (len(sparsities) + 1),
    ]
    for name in sorted(outcomes.names, key=lambda name: [outcomes.mean(name, s) for s in sparsities]):
        cells = [_cell_text(outcomes.of(name, sparsity)) for sparsity in sparsities]
        quoted = f"{paper[name][0]:.1f}" if name in paper else ""
        lines.append(f"| `{name}` | " + " | ".join(cells) + f" | {quoted} |")
    return "\n".join(lines)


def _cell_text(values: Sequence[float]) -> str:
    if not values:
        return "not run"
    if not all(math.isfinite(value) for value in values):
        return "failed"
    text = f"{statistics.mean(values):.1f}"
    if len(values) > 1:
        text += f" (±{(max(values) - min(values)) / 2:.1f})"
    return f"{text}, n = {len(values)}"


def to_page(records: Sequence[Record], scale: Scale) -> str:
    """What docs/methods.md shows of a study: what was run, what is missing, the table, the orders.

    Args:
        records: of the study, complete or not.
        scale: what a complete study would hold.

    Raises:
        InputError: records of several tasks or lengths of training, or of another scale.
    """
    outcomes = Outcomes(records)
    if not records:
        return "Not run yet."
    wanted = f"{scale.task} with {scale.epochs} epochs"
    if outcomes.world != wanted:
        raise InputError(f"records must be of the scale, {wanted}, got {outcomes.world}; see --scale")
    parts = [_what_was_run(records), _missing(records, scale), to_tables(records)]
    return "\n\n".join(part for part in parts if part)


def to_tables(records: Sequence[Record]) -> str:
    """The table of `to_markdown`, and the published comparisons where their sparsity was run."""
    outcomes = Outcomes(records)
    parts = [to_markdown(records)]
    if PUBLISHED_SPARSITY in outcomes.sparsities:
        parts.append(_beside_published(outcomes))
    return "\n\n".join(parts)


def _what_was_run(records: Sequence[Record]) -> str:
    seeds = sorted({record["seed"] for record in records})
    commands: dict[str, list[str]] = {}
    for source in (record["provenance"] for record in records):
        made = commands.setdefault(f"{source['date']}, {source['machine']}, torch {source['torch']}", [])
        if f"`{source['command']}`" not in made:
            made.append(f"`{source['command']}`")
    first = records[0]
    text = (
        f"Test perplexity on `{first['task']}` after {first['epochs']} epochs, by the weights of the best "
        f"validation epoch at the sparsity; mean over seeds ({', '.join(map(str, seeds))}), half their "
        "range in brackets. All start from the same weights and see the same data"
    )
    by_recipe: dict[tuple[float, float], list[str]] = {}
    for record in records:
        names = by_recipe.setdefault((record["learning_rate"], record["momentum"]), [])
        if record["method"] not in names:
            names.append(record["method"])
    usual, *others = sorted(by_recipe, key=lambda recipe: -len(by_recipe[recipe]))
    text += f", with learning rate {usual[0]:g}" + (f" and momentum {usual[1]:g}" if usual[1] else "")
    for rate, momentum in others:
        names = ", ".join(f"`{name}`" for name in by_recipe[rate, momentum])
        text += f"; {names} with learning rate {rate:g} and momentum {momentum:g}"
    sources = "; ".join(f"{', '.join(made)} ({where})" for where, made in commands.items())
    return f"{text}. Made by {sources}."


def _missing(records: Sequence[Record], scale: Scale) -> str:
    """The cells of the scale that have no record."""
    done, cells = {record["key"] for record in records}, cells_of(scale)
    groups: dict[tuple[int, float], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.seed, cell.sparsity), []).append(cell)
    texts = []
    for (seed, sparsity), group in groups.items():
        missing = [f"`{cell.method}`" for cell in group if cell.key not in done]
        present = [f"`{cell.method}`" for cell in group if cell.key in done]
        if missing:
            all_but = f"all but {', '.join(present)}" if present else "all"
            names = ", ".join(missing) if len(missing) <= max(1, len(present)) else all_but
            texts.append(f"seed {seed}" + (f" at {sparsity:g}" if sparsity else "") + f": {names}")
    if not texts:
        return ""
    num_missing = sum(cell.key not in done for cell in cells)
    return f"Not run yet, {num_missing} of {len(cells)} networks: {'; '.join(texts)}."


def _beside_published(outcomes: Outcomes) -> str:
    """The published order, ours, and every published comparison: met, reversed or open."""
    paper, sparsity = published(), PUBLISHED_SPARSITY
    ours = [name for name in outcomes.ranked(sparsity) if name in paper]
    theirs = sorted(ours, key=lambda name: paper[name][0])
    if len(ours) < 2:
        return "No two of the methods of the published table have been run."
    verdicts: dict[str, list[str]] = {"met": [], "reversed": [], "open": []}
    for better, worse in itertools.combinations(theirs, 2):
        verdict = _verdict(outcomes.of(better, sparsity), outcomes.of(worse, sparsity))
        verdicts[verdict].append(f"`{better}` before `{worse}`")
    rho = spearman(
        np.array([outcomes.mean(name, sparsity) for name in ours]),
        np.array([paper[name][0] for name in ours]),
    )
    correlation = "" if math.isnan(rho) else f" Rank correlation of the two: {rho:+.2f}."
    meanings = {
        "met": "every seed of the one is better than every seed of the other",
        "reversed": "every seed of the one is worse than every seed of the other",
        "open": "the seeds overlap, or one of the two has a single seed",
    }
    lines = [
        f"Published order at {sparsity:g} (stacked LSTM 2×1500 on Penn Treebank, Zheng & Shlizerman, table "
        f"1), best first: {_listed(theirs)}. Here: {_listed(ours)}.{correlation} "
        f"Of the {math.comb(len(ours), 2)} published comparisons between them:",
        "",
    ]
    for verdict, found in verdicts.items():
        which = f": {'; '.join(found)}" if found else ""
        lines.append(f"- {len(found)} {verdict} ({meanings[verdict]}){which}")
    num_seeds = max(len(outcomes.of(name, sparsity)) for name in ours)
    if num_seeds > 1:
        chance = 100 * 2 / math.comb(2 * num_seeds, num_seeds)
        lines += [
            "",
            f"Of equal methods with {num_seeds} seeds each, {chance:.0f} % would be met or reversed by "
            "chance.",
        ]
    return "\n".join(lines)


def _verdict(better: Sequence[float], worse: Sequence[float]) -> str:
    """Whether a published comparison holds for every pair of seeds, for none, or cannot be told."""
    if min(len(better), len(worse)) < 2:
        return "open"
    if max(better) < min(worse):
        return "met"
    return "reversed" if min(better) > max(worse) else "open"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
