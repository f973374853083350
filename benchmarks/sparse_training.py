"""What sparse training costs beside dense training: ratios, measured alternately in one process.

    python benchmarks/sparse_training.py [--device cuda] [--repeats 7] [--quick]

Prints a Markdown table with machine, date and versions. Targets: a training step of the stacked LSTM 2x650
at most 1.05 times the dense one; an SNT-ASGD step at most 1.5 times `torch.optim.ASGD(foreach=True)`; an
update of the 2x1500 network at most 2 s on two cores (50 ms on a GPU), memory at rest at most 1 byte per
weight, and during an update at most twice the largest tensor more.

`sparselab` (PyPI) is not in the table: it stores linear layers as padded CSR on the CPU and knows no
recurrent layer, no embedding and no tied weight, so it cannot take a step of these networks.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from hyperprune import __version__
from hyperprune.optim import SNTASGD
from hyperprune.sparsity import DynamicSparse, SparseTraining, methods
from hyperprune.sparsity.death import DEATHS
from hyperprune.sparsity.growth import GROWTHS

VOCABULARY, BATCH, STEPS = 10_000, 20, 35
MEGA = 1e6


class StackedLSTM(nn.Module):
    """Embedding, two layers, untied decoder: the language model of the published comparisons."""

    def __init__(self, hidden: int, vocabulary: int) -> None:
        super().__init__()
        self.encoder = nn.Embedding(vocabulary, hidden)
        self.rnn = nn.LSTM(hidden, hidden, 2)
        self.decoder = nn.Linear(hidden, vocabulary)

    def loss(self, tokens: Tensor) -> Tensor:
        logits = self.decoder(self.rnn(self.encoder(tokens[:-1]))[0])
        return nn.functional.cross_entropy(logits.flatten(0, 1), tokens[1:].flatten())


def timed(action: Callable[[], Any], device: torch.device) -> float:
    """Seconds of wall time, with the device's queue empty before and after."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    action()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def alternate(
    actions: dict[str, Callable[[], Any]], repeats: int, device: torch.device
) -> dict[str, list[float]]:
    """Times of several actions taken in turn, so that a change in the machine's load meets all of them."""
    for action in actions.values():
        action()
    times: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(repeats):
        for name, action in actions.items():
            times[name].append(timed(action, device))
    return times


def ratio(times: dict[str, list[float]], ours: str, theirs: str) -> float:
    """Median over the rounds of the ratio within each round."""
    return statistics.median(a / b for a, b in zip(times[ours], times[theirs], strict=True))


def step_rows(hidden: int, vocabulary: int, repeats: int, device: torch.device) -> list[tuple[str, str, str]]:
    rows = []
    tokens = torch.randint(vocabulary, (STEPS + 1, BATCH), device=device)
    makers: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
        "SGD": lambda p: torch.optim.SGD(p, 1.0),
        "SGD, momentum": lambda p: torch.optim.SGD(p, 1.0, momentum=0.9),
        "Adam": lambda p: torch.optim.Adam(p, 1e-3),
        "SNT-ASGD, averaging": lambda p: triggered(SNTASGD(p, 1.0)),
    }
    for name, make in makers.items():
        dense, pruned = (StackedLSTM(hidden, vocabulary).to(device) for _ in range(2))
        dense_optimizer, optimizer = make(dense.parameters()), make(pruned.parameters())
        sparse = SparseTraining(
            pruned,
            optimizer,
            methods.selfish_rnn(),
            sparsity=0.67,
            total_steps=1000,
            generator=torch.Generator().manual_seed(0),
        )

        def dense_step(
            model: StackedLSTM = dense, optimizer: torch.optim.Optimizer = dense_optimizer
        ) -> None:
            optimizer.zero_grad()
            model.loss(tokens).backward()
            clip_grad_norm_(model.parameters(), 0.25)
            optimizer.step()

        def sparse_step(
            model: StackedLSTM = pruned,
            optimizer: torch.optim.Optimizer = optimizer,
            sparse: SparseTraining = sparse,
        ) -> None:
            optimizer.zero_grad()
            model.loss(tokens).backward()
            sparse.mask_gradients()
            clip_grad_norm_(model.parameters(), 0.25)
            sparse.step()

        times = alternate({"dense": dense_step, "sparse": sparse_step}, repeats, device)
        measured = ratio(times, "sparse", "dense")
        detail = f"{1e3 * statistics.median(times['dense']):.0f} ms dense"
        rows.append(
            (f"training step, 2x{hidden}, {name}: sparse / dense", f"{measured:.3f} ({detail})", "≤ 1.05")
        )
    return rows


def triggered(optimizer: SNTASGD) -> SNTASGD:
    optimizer.trigger()
    return optimizer


def optimizer_row(hidden: int, vocabulary: int, repeats: int, device: torch.device) -> tuple[str, str, str]:
    def parameters() -> list[nn.Parameter]:
        model = StackedLSTM(hidden, vocabulary).to(device)
        for parameter in model.parameters():
            parameter.grad = 1e-3 * torch.randn_like(parameter)
        return list(model.parameters())

    ours = triggered(SNTASGD(parameters(), 1.0, weight_decay=1.2e-6))
    theirs = torch.optim.ASGD(parameters(), 1.0, t0=0, weight_decay=1.2e-6, foreach=True)
    times = alternate({"snt": ours.step, "asgd": theirs.step}, 5 * repeats, device)
    detail = f"{1e3 * statistics.median(times['asgd']):.0f} ms ASGD"
    return (
        f"SNT-ASGD / ASGD (foreach), both averaging, 2x{hidden}",
        f"{ratio(times, 'snt', 'asgd'):.2f} ({detail})",
        "≤ 1.5",
    )


class Peak:
    """Memory above what is in use at the start, at its highest."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        if self._cuda:
            torch.cuda.reset_peak_memory_stats()
            self._start = torch.cuda.memory_allocated()
        else:
            Path("/proc/self/clear_refs").write_text("5")  # resets the peak (Linux)
            self._start = _status("VmRSS")

    def above_start(self) -> int:
        return (
            torch.cuda.max_memory_allocated() - self._start if self._cuda else _status("VmHWM") - self._start
        )


def _status(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key):
            return 1024 * int(line.split()[1])
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def update_rows(
    hidden: int, vocabulary: int, repeats: int, device: torch.device
) -> list[tuple[str, str, str]]:
    """An update in the middle of training: the step that brings it against a step that does not."""
    model = StackedLSTM(hidden, vocabulary).to(device)
    largest = max(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    limit = "≤ 50 ms" if device.type == "cuda" else "≤ 2 s"
    rows = []
    for death, growth in itertools.product(DEATHS, GROWTHS):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(std=0.05)
        optimizer = torch.optim.SGD(model.parameters(), 1e-3, momentum=0.9)
        extra: dict[str, Any] = {"threshold_at_once": True} if death == "threshold" else {}
        method = DynamicSparse(
            death=death, growth=growth, death_rate=0.5, decay="constant", update_every="epoch", **extra
        )
        sparse = SparseTraining(
            model,
            optimizer,
            method,
            sparsity=0.67,
            total_steps=1000,
            generator=torch.Generator().manual_seed(0),
            steps_per_epoch=1,
        )
        times, peaks, held = [], [], 0
        for _ in range(repeats):
            for parameter in model.parameters():
                parameter.grad = torch.randn_like(parameter)
            with_gradients = Peak(device)
            sparse.mask_gradients()
            sparse.step()
            held = sum(t.numel() * t.element_size() for t in sparse._network.collected.values())
            times.append(timed(sparse.end_epoch, device))
            peaks.append(with_gradients.above_start())
        time_text = f"{1e3 * min(times):.0f} … {1e3 * max(times):.0f} ms"
        rows.append((f"update, 2x{hidden}, {death} × {growth}", time_text, limit))
        peak = f"{(max(peaks[1:] or peaks)) / MEGA:.0f} MB, of it {held / MEGA:.0f} MB dense gradients"
        rows.append(("— memory above the start of the step", peak, f"≤ {2 * largest / MEGA:.0f} MB"))
    return rows


def rest_rows(hidden: int, vocabulary: int, device: torch.device) -> list[tuple[str, str, str]]:
    model = StackedLSTM(hidden, vocabulary).to(device)
    sparse = SparseTraining(
        model,
        torch.optim.SGD(model.parameters(), 1.0),
        methods.rigl(),
        sparsity=0.67,
        total_steps=1000,
        generator=torch.Generator().manual_seed(0),
    )
    total = sparse.summary().total
    masks = sum(tensor.status.untyped_storage().nbytes() for tensor in sparse._network.tensors)
    saved = sparse.state_dict()["network"]["tensors"].values()
    bits = 8 * sum(entry["live"].numel() for entry in saved) / total
    return [
        (f"weights pruned, 2x{hidden}", f"{total / MEGA:.1f} M", ""),
        ("bytes per weight at rest", f"{masks / total:.3f}", "≤ 1"),
        ("bits per weight of the masks in a checkpoint", f"{bits:.3f}", "1"),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="small networks, to see that the script runs")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    device = torch.device(options.device)
    middle, large, vocabulary = (32, 48, 200) if options.quick else (650, 1500, VOCABULARY)
    rows = step_rows(middle, vocabulary, options.repeats, device)
    rows.append(optimizer_row(middle, vocabulary, options.repeats, device))
    rows += rest_rows(large, vocabulary, device)
    rows += update_rows(large, vocabulary, max(2, options.repeats // 2), device)
    where = (
        torch.cuda.get_device_name()
        if device.type == "cuda"
        else f"{_processor()}, {options.threads} threads"
    )
    print(f"{where}; {datetime.date.today()}; hyperprune {__version__}, torch {torch.__version__}, ", end="")
    print(f"Python {platform.python_version()}; load {_load()}; `{' '.join(['python', *sys.argv])}`\n")
    print("| what | measured | target |\n|---|---|---|")
    for row in rows:
        print("| " + " | ".join(row) + " |")


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _load() -> str:
    return f"{Path('/proc/loadavg').read_text().split()[0]}" if Path("/proc/loadavg").exists() else "unknown"


if __name__ == "__main__":
    main()
