"""What a criterion at initialisation costs: time against SNIP on the same batch, and memory.

    python benchmarks/at_init.py                                  # everything, then the table
    python benchmarks/at_init.py --parts time --docs docs/at_init.md

The paper's setting: a GRU of 400 units on 28 steps of 28 features, batch 64, one step of the horizon. One
thread, CPU seconds, all criteria in alternation in one process, so that a busy machine disturbs all alike;
of each the best. Memory is the peak of a process of its own: LSTM 2000, 400 inputs, 35 steps, batch 64.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hyperprune import at_init
from hyperprune.experiments.documents import fill_marked_part
from shared import machine

CRITERIA: dict[str, at_init.Criterion] = {
    "SNIP": at_init.snip(),
    "Jacobian, plain, 1 step": at_init.jacobian_plain(horizon=1),
    "GraSP": at_init.grasp(),
    "SNIP by γ": at_init.snip_gamma(),
    "Jacobian by γ, 1 step": at_init.jacobian(horizon=1),
    "GraSP by γ": at_init.grasp_gamma(),
    "Jacobian by γ, 4 steps": at_init.jacobian(),
    "experimental_lyapunov": at_init.experimental_lyapunov(),
    "SynFlow, 1 round": at_init.synflow(),
    "magnitude": at_init.magnitude(),
}
PAPER = {"SNIP": 4.718, "GraSP": 16.406, "Jacobian, plain, 1 step": 4.876}


class Classifier(nn.Module):
    """A recurrent layer and a readout of its last output."""

    def __init__(self, rnn: nn.RNNBase, num_classes: int) -> None:
        super().__init__()
        self.rnn = rnn
        self.readout = nn.Linear(rnn.hidden_size, num_classes)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.readout(self.rnn(inputs)[0][-1])


def problem(rnn: nn.RNNBase, steps: int, batch: int) -> tuple[Classifier, tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    model = Classifier(rnn, 10)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.1, generator=generator)
    inputs = torch.rand(steps, batch, rnn.input_size, generator=generator)
    return model, (inputs, torch.randint(10, (batch,), generator=generator))


def loss_of(model: nn.Module, pair: tuple[Tensor, Tensor]) -> Tensor:
    return nn.functional.cross_entropy(model(pair[0]), pair[1])


def measure_time(repeats: int) -> dict[str, Any]:
    """Best CPU seconds of every criterion over rounds, and their ratio to SNIP's best."""
    torch.set_num_threads(1)
    model, pair = problem(nn.GRU(28, 400), 28, 64)
    seconds: dict[str, list[float]] = {name: [] for name in CRITERIA}
    for number in range(repeats + 1):
        for name, criterion in CRITERIA.items():
            start = time.process_time()
            at_init.scores(model, loss_of, [pair], criterion=criterion)
            if number:  # the first round warms up
                seconds[name].append(time.process_time() - start)
    best = {name: min(times) for name, times in seconds.items()}
    return {"seconds": best, "of_snip": {name: value / best["SNIP"] for name, value in best.items()}}


def measure_memory() -> dict[str, Any]:
    """Peak memory, MiB, of a process that computes one criterion's masks."""
    peaks = {}
    for name in ("snip", "jacobian", "grasp"):
        done = subprocess.run(
            [sys.executable, __file__, "--memory-child", name], capture_output=True, check=True, text=True
        )
        peaks[name] = json.loads(done.stdout)
    return peaks


def memory_child(name: str) -> None:
    model, pair = problem(nn.LSTM(400, 2000), 35, 64)
    before = _peak_memory()
    masks = at_init.prune_at_init(model, loss_of, [pair], criterion=name, sparsity=0.95, allow_empty=True)
    kept = sum(int(mask.count_nonzero()) for mask in masks.values())
    print(json.dumps({"before": before, "peak": _peak_memory(), "kept": kept}))


def _peak_memory() -> float:
    """MiB; from /proc, since getrusage's figure is inherited from the parent process."""
    status = Path("/proc/self/status").read_text()
    return round(int(status.split("VmHWM:")[1].split()[0]) / 1024, 1)


def tables(figures: dict[str, Any]) -> str:
    lines = []
    timed = figures.get("time")
    if timed:
        lines += [
            f"Measured on: {timed['machine']}.",
            "",
            "GRU 400, 28 steps of 28 features, batch 64, one thread, best CPU time, in alternation in one",
            "process, so that other programs disturb the seconds more than the ratios.",
            "",
            "| criterion | seconds | of SNIP | the paper's seconds | of SNIP |",
            "|---|---|---|---|---|",
        ]
        for name, seconds in timed["seconds"].items():
            paper = PAPER.get(name)
            quoted = f"{paper:.3f} | {paper / PAPER['SNIP']:.2f}" if paper else " | "
            lines.append(f"| {name} | {seconds:.3f} | {timed['of_snip'][name]:.2f} | {quoted} |")
        ratio = timed["seconds"]["Jacobian by γ, 1 step"] / timed["seconds"]["SNIP by γ"]
        lines += ["", f"With γ on both sides the Jacobian takes {ratio:.2f} of SNIP's time."]
    memory = figures.get("memory")
    if memory:
        lines += [
            "",
            "Peak memory of a process, MiB: LSTM 2000 (19.2 M recurrent weights), 35 steps, batch 64.",
            "",
            "| criterion | with the model, before | peak |",
            "|---|---|---|",
        ]
        lines += [
            f"| {name} | {row['before']:.0f} | {row['peak']:.0f} |"
            for name, row in memory.items()
            if name != "machine"
        ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", default="time,memory", help="of time, memory, none")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results" / "at_init.json")
    parser.add_argument("--docs", type=Path, help="a Markdown file whose marked part gets the table")
    parser.add_argument("--memory-child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory_child:
        memory_child(options.memory_child)
        return
    parts = set(options.parts.split(",")) - {"none"}
    if unknown := parts - {"time", "memory"}:
        parser.error(f"unknown part {', '.join(sorted(unknown))}; known: time, memory, none")
    figures = json.loads(options.results.read_text()) if options.results.exists() else {}
    if "time" in parts:
        figures["time"] = measure_time(options.repeats) | {"machine": machine()}
    if "memory" in parts:
        figures["memory"] = measure_memory() | {"machine": machine()}
    options.results.parent.mkdir(parents=True, exist_ok=True)
    options.results.write_text(json.dumps(figures, indent=1) + "\n")
    table = tables(figures)
    print(table)
    if options.docs:
        fill_marked_part(options.docs, "benchmark", table.strip())


if __name__ == "__main__":
    main()
