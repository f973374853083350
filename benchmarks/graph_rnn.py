"""How long an epoch of a graph-wired network takes, in the sparse-RNN thesis's setting.

    python benchmarks/graph_rnn.py                       # what is not measured yet, then the table
    python benchmarks/graph_rnn.py --cells gru --again
    python benchmarks/graph_rnn.py --cells none --docs docs/random_structure.md   # only write the table

The setting: 18,750 Reber strings, batches of 128, Adam at 1e-3, gradients clipped at 5, 20 seeded graphs of
10 to 50 nodes (10 Barabási–Albert, 10 Watts–Strogatz, as the thesis draws them). A part of an epoch is timed
and scaled up by time steps, which say more than batches since strings of like lengths share a batch. One
thread: the operations are too small for two to pay, and two cores train two networks side by side.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional
from torch.nn.utils import clip_grad_norm_

from hyperprune.data.reber import ReberSettings, generate
from hyperprune.data.strings import PaddedBatch, padded_batches
from hyperprune.experiments.documents import fill_marked_part
from hyperprune.graphs import GraphPlan, layered
from hyperprune.models.graph_classifier import GraphClassifier
from shared import machine

THESIS_SECONDS = {"rnn": 2172 / 15, "rnn_relu": 2048 / 15, "lstm": 2867 / 15, "gru": 3253 / 15}
STRINGS, BATCH = 18_750, 128
PLANS = [
    GraphPlan.thesis_sample(family, number)
    for number in range(10)
    for family in ("barabasi_albert", "watts_strogatz")
]


def epoch_of(by_length: bool) -> list[PaddedBatch]:
    """One epoch's batches; strings and order are seeded."""
    data = generate(ReberSettings(num_strings=STRINGS), seed=0)
    order = torch.Generator().manual_seed(0)
    return list(padded_batches(data, BATCH, generator=order, by_length=by_length))


def seconds_per_epoch(
    plan: GraphPlan, cell: str, batches: list[PaddedBatch], num_timed: int
) -> dict[str, float]:
    """Wall and CPU seconds of an epoch, from its first `num_timed` batches."""
    model = GraphClassifier(layered(plan.build()), cell, generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def step(batch: PaddedBatch) -> None:
        optimizer.zero_grad()
        functional.cross_entropy(model(batch.codes, batch.lengths), batch.labels).backward()
        clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()

    step(batches[0])
    timed = batches[:num_timed]
    share = sum(len(batch.codes) for batch in timed) / sum(len(batch.codes) for batch in batches)
    wall, cpu = time.perf_counter(), time.process_time()
    for batch in timed:
        step(batch)
    return {
        "wall": (time.perf_counter() - wall) / share,
        "cpu": (time.process_time() - cpu) / share,
        "share": share,
    }


def measure(cell: str, num_timed: int) -> dict[str, Any]:
    """Every graph, on batches of like lengths and on random ones, in alternation."""
    torch.set_num_threads(1)
    batches = {by_length: epoch_of(by_length) for by_length in (True, False)}
    found: dict[str, list[dict[str, float]]] = {"by length": [], "random": []}
    for plan in PLANS:
        for name, runs in found.items():
            runs.append(seconds_per_epoch(plan, cell, batches[name == "by length"], num_timed))
    return {
        "machine": machine(),
        "batches timed": num_timed,
        "graphs": [{"family": plan.family, "nodes": plan.num_nodes} for plan in PLANS],
        **{
            name: {key: [round(run[key], 3) for run in runs] for key in ("wall", "cpu", "share")}
            for name, runs in found.items()
        },
    }


def table(figures: dict[str, Any]) -> str:
    """All that is measured, as Markdown."""
    lines = [
        f"Mean seconds of an epoch ({STRINGS:,} strings, batch {BATCH}) over {len(PLANS)} graphs, training "
        "steps only, one thread; slowest graph in brackets. Timed on a part of each epoch, scaled up by time "
        "steps. Strings of like lengths share a batch, as the study has it, or batches are random, as in the "
        "thesis. Wanted: at most a tenth of the thesis's wall time, which was taken on a GPU.",
        "",
        "| cell | like lengths: wall | CPU | random: wall | CPU | thesis | over like lengths | over random |",
        "|---" * 8 + "|",
    ]
    for cell, thesis in THESIS_SECONDS.items():
        entry = figures.get(cell)
        if entry is None:
            lines.append(f"| {cell} | not measured | | | | {thesis:.0f} | | |")
            continue
        kinds = [entry[name] for name in ("by length", "random")]
        cells = [
            f"{statistics.fmean(kind[key]):.1f} ({max(kind[key]):.1f})"
            for kind in kinds
            for key in ("wall", "cpu")
        ]
        ratios = [f"{thesis / statistics.fmean(kind['wall']):.0f}×" for kind in kinds]
        lines.append(f"| {cell} | {' | '.join(cells)} | {thesis:.0f} | {' | '.join(ratios)} |")
    for cell, entry in figures.items():
        share = statistics.fmean(entry["by length"]["share"])
        lines += ["", f"`{cell}`: {share:.0%} of each epoch timed; {entry['machine']}."]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--cells", default=",".join(THESIS_SECONDS), help="of " + ", ".join((*THESIS_SECONDS, "none"))
    )
    parser.add_argument("--batches", type=int, default=10, help="timed of each epoch's 147 (10)")
    parser.add_argument("--again", action="store_true", help="measure again what the results file has")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results" / "graph_rnn.json")
    parser.add_argument("--docs", type=Path, help="a Markdown file whose marked part gets the table")
    options = parser.parse_args()
    cells = [cell for cell in options.cells.split(",") if cell != "none"]
    if unknown := set(cells) - set(THESIS_SECONDS):
        parser.error(f"unknown cell {', '.join(sorted(unknown))}; known: {', '.join(THESIS_SECONDS)}")
    figures: dict[str, Any] = json.loads(options.results.read_text()) if options.results.exists() else {}
    for cell in cells:
        if cell in figures and not options.again:
            continue
        start = time.perf_counter()
        figures[cell] = measure(cell, options.batches)
        options.results.parent.mkdir(parents=True, exist_ok=True)
        options.results.write_text(json.dumps(figures, indent=1) + "\n")
        print(f"{cell}: {time.perf_counter() - start:.0f} s", file=sys.stderr)
    text = table(figures)
    print(text)
    if options.docs:
        fill_marked_part(options.docs, "benchmark", text.strip())


if __name__ == "__main__":
    main()
