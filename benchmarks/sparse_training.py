"""What sparse training costs beside dense training: ratios, measured alternately in one process.

    python benchmarks/sparse_training.py                          # what is not measured yet, then the table
    python benchmarks/sparse_training.py --again --docs docs/sparse_training.md
    python benchmarks/sparse_training.py --parts step --device cuda
    python benchmarks/sparse_training.py --quick                  # small networks, to see that it runs

Every figure is written to the results file as soon as it is measured. One thread is timed in CPU seconds,
which other work on the machine disturbs least; several threads and GPUs in wall time.

Parts: `step`, a training step of the stacked LSTM 2x650 with `SparseTraining` and without; `optimizer`,
SNT-ASGD beside torch's ASGD; `rest`, bytes per weight; `update`, one topology update of the 2x1500 network in
time and in memory, and one of the small 2x128; `sparselab`, if that package is installed.
"""

from __future__ import annotations

import argparse
import ctypes
import datetime
import itertools
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from hyperprune import __version__
from hyperprune.experiments.documents import fill_marked_part, marked_part
from hyperprune.optim import SNTASGD
from hyperprune.sparsity import DynamicSparse, Method, SparseTraining, methods
from hyperprune.sparsity.death import DEATHS
from hyperprune.sparsity.growth import GROWTHS
from shared import processor

PARTS = ("step", "optimizer", "rest", "update", "sparselab")
BATCH, STEPS = 20, 35
SPARSITY = 0.67
MEGA = 1e6

OPTIMIZERS: Mapping[str, Callable[[Any], torch.optim.Optimizer]] = {
    "SGD": lambda p: torch.optim.SGD(p, 1.0),
    "SGD, momentum": lambda p: torch.optim.SGD(p, 1.0, momentum=0.9),
    "Adam": lambda p: torch.optim.Adam(p, 1e-3),
    "Adam, fused": lambda p: torch.optim.Adam(p, 1e-3, fused=True),
    "SNT-ASGD, averaging": lambda p: triggered(SNTASGD(p, 1.0)),
}


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


class Results:
    """Figures by name in a JSON file, written after each; with them what they were measured on."""

    def __init__(self, path: Path, *, again: bool, where: str) -> None:
        self._path, self._again, self._where = path, again, where
        self.figures: dict[str, Any] = json.loads(path.read_text() or "{}") if path.exists() else {}

    def measure(self, name: str, compute: Callable[[], Any]) -> None:
        if name in self.figures and not self._again:
            return
        value = {**compute(), "where": self._where}
        self.figures[name] = value
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_text(json.dumps(self.figures, indent=1, sort_keys=True) + "\n")
        print(f"{name}: {value}", file=sys.stderr)


class Bench:
    """Device, clock and sizes."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.device = torch.device(options.device)
        self.repeats = options.repeats
        self.middle, self.large, self.vocabulary = (32, 48, 200) if options.quick else (650, 1500, 10_000)
        one = options.threads == 1 and self.device.type == "cpu"
        self._clock = time.thread_time if one else time.perf_counter

    def seconds(self, action: Callable[[], Any]) -> float:
        """Time of an action, with the device's queue empty before and after."""
        self._synchronize()
        started = self._clock()
        action()
        self._synchronize()
        return self._clock() - started

    def _synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def alternate(self, actions: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
        """Times of actions taken in turn, so that a change in the machine's load meets all of them."""
        for _ in range(2):
            for action in actions.values():
                action()
        times: dict[str, list[float]] = {name: [] for name in actions}
        for _ in range(repeats):
            for name, action in actions.items():
                times[name].append(self.seconds(action))
        return times

    def model(self, hidden: int, vocabulary: int | None = None) -> StackedLSTM:
        return StackedLSTM(hidden, vocabulary or self.vocabulary).to(self.device)


def compared(times: dict[str, list[float]], ours: str, theirs: str) -> dict[str, float]:
    """The median over the rounds of the ratio within each round, and the other's time."""
    ratio = statistics.median(a / b for a, b in zip(times[ours], times[theirs], strict=True))
    return {"ratio": ratio, "theirs_ms": 1e3 * statistics.median(times[theirs])}


def triggered(optimizer: SNTASGD) -> SNTASGD:
    optimizer.trigger()
    return optimizer


def sparse_training(
    model: nn.Module, optimizer: torch.optim.Optimizer, method: Method, **options: Any
) -> SparseTraining:
    options = {"sparsity": SPARSITY, "total_steps": 1000, **options}
    return SparseTraining(model, optimizer, method, generator=torch.Generator().manual_seed(0), **options)


def measure_steps(bench: Bench, results: Results, prefix: str) -> None:
    """A training step of the middle network: forward, backward, clipping, optimizer; and with masks."""

    def figures(make: Callable[[Any], torch.optim.Optimizer]) -> dict[str, float]:
        torch.manual_seed(0)
        dense, pruned = bench.model(bench.middle), bench.model(bench.middle)
        dense_optimizer, optimizer = make(dense.parameters()), make(pruned.parameters())
        sparse = sparse_training(pruned, optimizer, methods.selfish_rnn())
        tokens = torch.randint(bench.vocabulary, (STEPS + 1, BATCH), device=bench.device)

        def dense_step() -> None:
            dense_optimizer.zero_grad()
            dense.loss(tokens).backward()
            clip_grad_norm_(dense.parameters(), 0.25)
            dense_optimizer.step()

        def sparse_step() -> None:
            optimizer.zero_grad()
            pruned.loss(tokens).backward()
            sparse.mask_gradients()
            clip_grad_norm_(pruned.parameters(), 0.25)
            sparse.step()

        times = bench.alternate({"dense": dense_step, "sparse": sparse_step}, bench.repeats)
        return compared(times, "sparse", "dense")

    for name, make in OPTIMIZERS.items():
        results.measure(f"{prefix}step/{name}", lambda make=make: figures(make))


def measure_optimizer(bench: Bench, results: Results, prefix: str) -> None:
    """Steps of the two optimizers alone, both averaging, on the same gradients."""

    def parameters() -> list[nn.Parameter]:
        model = bench.model(bench.middle)
        for parameter in model.parameters():
            parameter.grad = 1e-3 * torch.randn_like(parameter)
        return list(model.parameters())

    def figures() -> dict[str, float]:
        torch.manual_seed(0)
        ours = triggered(SNTASGD(parameters(), 1.0, weight_decay=1.2e-6))
        theirs = torch.optim.ASGD(parameters(), 1.0, t0=0, weight_decay=1.2e-6, foreach=True)
        times = bench.alternate({"snt": ours.step, "asgd": theirs.step}, 3 * bench.repeats)
        return compared(times, "snt", "asgd")

    results.measure(f"{prefix}optimizer", figures)


def measure_rest(bench: Bench, results: Results, prefix: str) -> None:
    """What masks take beside model and optimizer."""

    def figures() -> dict[str, float]:
        model = bench.model(bench.large)
        sparse = sparse_training(model, torch.optim.SGD(model.parameters(), 1.0), methods.rigl())
        total = sparse.summary().total
        masks = sum(tensor.status.untyped_storage().nbytes() for tensor in sparse._network.tensors)
        saved = sparse.state_dict()["network"]["tensors"].values()
        bits = 8 * sum(entry["live"].numel() for entry in saved) / total
        return {"weights": total, "bytes": masks / total, "bits_saved": bits}

    results.measure(f"{prefix}rest", figures)


class Peak:
    """Memory above what is in use at the start, at its highest."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        if self._cuda:
            torch.cuda.reset_peak_memory_stats()
            self._start = torch.cuda.memory_allocated()
        else:
            # Whatever large is freed must leave the process at once, or it would be counted as in use.
            ctypes.CDLL(None).mallopt(-3, 1 << 23)  # M_MMAP_THRESHOLD
            ctypes.CDLL(None).malloc_trim(0)
            Path("/proc/self/clear_refs").write_text("5")  # resets the peak (Linux)
            self._start = _status("VmRSS")

    def above_start(self) -> int:
        if self._cuda:
            return torch.cuda.max_memory_allocated() - self._start
        return _status("VmHWM") - self._start


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(key))


def update_methods() -> dict[str, DynamicSparse]:
    """Every death × growth, at a death rate of 0.5; and one with a redistribution."""
    found = {}
    for death, growth in itertools.product(DEATHS, GROWTHS):
        extra: dict[str, Any] = {"threshold_at_once": True} if death == "threshold" else {}
        found[f"{death} × {growth}"] = DynamicSparse(death=death, growth=growth, decay="constant", **extra)
    for growth in ("gradient", "momentum"):
        found[f"magnitude × {growth}, redistribution by magnitude"] = DynamicSparse(
            growth=growth, redistribution="magnitude", decay="constant"
        )
    return found


class Updated:
    """A network in the middle of training, brought to a topology update again and again."""

    def __init__(self, bench: Bench, method: Method, hidden: int, vocabulary: int) -> None:
        torch.manual_seed(0)
        self.model = bench.model(hidden, vocabulary)
        optimizer = torch.optim.SGD(self.model.parameters(), 1e-3, momentum=0.9)
        self.sparse = sparse_training(self.model, optimizer, method, steps_per_epoch=1)
        with torch.no_grad():
            for parameter in self.model.parameters():
                parameter.normal_(std=0.05)
        self._bench = bench

    def seconds(self) -> float:
        """Of taking the gradients that growth needs, and of the update."""
        sparse = self.sparse
        self._draw_gradients()
        taking = self._bench.seconds(sparse.mask_gradients)
        masking = self._bench.seconds(sparse._network.mask_gradients)
        sparse.step()
        return max(0.0, taking - masking) + self._bench.seconds(sparse.end_epoch)

    def bytes(self) -> tuple[int, int]:
        """Highest memory from before gradients are masked to after the update; of it, gradients held."""
        self._draw_gradients()
        peak = Peak(self._bench.device)
        self.sparse.mask_gradients()
        self.sparse.step()
        held = self.sparse._network.gradients.num_bytes
        self.sparse.end_epoch()
        return peak.above_start(), held

    def _draw_gradients(self) -> None:
        for parameter in self.model.parameters():
            parameter.grad = torch.randn_like(parameter)


def measure_updates(bench: Bench, results: Results, prefix: str) -> None:
    """Times of all first: measuring memory makes the process return what it frees, which is slower."""

    def milliseconds(method: Method, hidden: int, vocabulary: int) -> dict[str, float]:
        updated = Updated(bench, method, hidden, vocabulary)
        updated.seconds()
        times = [updated.seconds() for _ in range(max(2, bench.repeats // 3))]
        return {"ms_least": 1e3 * min(times), "ms_most": 1e3 * max(times)}

    def megabytes(method: Method) -> dict[str, float]:
        updated = Updated(bench, method, bench.large, bench.vocabulary)
        updated.bytes()
        peak, held = updated.bytes()
        largest = max(p.numel() * p.element_size() for p in updated.model.parameters())
        return {"mb": peak / MEGA, "gradients_mb": held / MEGA, "largest_mb": largest / MEGA}

    for name, method in update_methods().items():
        results.measure(
            f"{prefix}update/{name}",
            lambda method=method: milliseconds(method, bench.large, bench.vocabulary),
        )
    small = DynamicSparse(decay="constant")
    results.measure(f"{prefix}small update", lambda: milliseconds(small, 128, 2000))
    for name, method in update_methods().items():
        results.measure(f"{prefix}memory/{name}", lambda method=method: megabytes(method))


def measure_sparselab(bench: Bench, results: Results) -> None:
    """The one thing both do: a linear layer of the decoder's size, on a CPU."""
    if find_spec("sparselab") is None or bench.device.type != "cpu":
        print("sparselab is not installed, or not on a CPU: left out", file=sys.stderr)
        return
    import sparselab  # pyright: ignore[reportMissingImports]

    def figures(sparsity: float) -> dict[str, float]:
        torch.manual_seed(0)
        inputs = torch.randn(STEPS * BATCH, bench.middle, requires_grad=True)
        theirs = sparselab.SparseLinear(bench.middle, bench.vocabulary, sparsity=sparsity)
        their_optimizer = torch.optim.SGD(theirs.parameters(), 0.1)
        their_method = sparselab.SET(sparsity=sparsity, drop_fraction=0.3, update_freq=10**9)
        theirs.apply(their_method)
        ours = nn.Linear(bench.middle, bench.vocabulary)
        optimizer = torch.optim.SGD(ours.parameters(), 0.1)
        method = methods.set_(death="magnitude")
        sparse = sparse_training(ours, optimizer, method, sparsity=sparsity, rescale_weights=True)

        def their_step() -> None:
            their_optimizer.zero_grad()
            theirs(inputs).square().mean().backward()
            their_optimizer.step()

        def our_step() -> None:
            optimizer.zero_grad()
            ours(inputs).square().mean().backward()
            sparse.step()

        step = compared(
            bench.alternate({"ours": our_step, "theirs": their_step}, bench.repeats), "ours", "theirs"
        )
        actions = {"ours": sparse.end_epoch, "theirs": their_method.update}
        update = compared(bench.alternate(actions, 3), "ours", "theirs")
        return {**step, "update_ratio": update["ratio"], "update_theirs_ms": update["theirs_ms"]}

    for sparsity in (0.67, 0.9):
        results.measure(f"sparselab/{sparsity}", lambda sparsity=sparsity: figures(sparsity))


def rows(figures: Mapping[str, Any], prefix: str) -> list[tuple[str, str, str]]:
    """What was measured on one device, its figure, the target."""
    found: list[tuple[str, str, str]] = []
    limit = "≤ 50 ms" if prefix else "≤ 2 s"
    for name in OPTIMIZERS:
        if entry := figures.get(f"{prefix}step/{name}"):
            text = f"{entry['ratio']:.3f} of {entry['theirs_ms']:.0f} ms"
            found.append((f"training step, 2x650, {name}: sparse / dense", text, "≤ 1.05"))
    if entry := figures.get(f"{prefix}optimizer"):
        text = f"{entry['ratio']:.2f} of {entry['theirs_ms']:.0f} ms"
        found.append(("SNT-ASGD / ASGD (foreach), both averaging, 2x650", text, "≤ 1.5"))
    if entry := figures.get(f"{prefix}rest"):
        found.append(("weights pruned, 2x1500", f"{entry['weights'] / MEGA:.1f} M", ""))
        found.append(("bytes per weight at rest", f"{entry['bytes']:.3f}", "≤ 1"))
        found.append(("bits per weight of the masks in a checkpoint", f"{entry['bits_saved']:.3f}", "1"))
    for name in update_methods():
        if entry := figures.get(f"{prefix}update/{name}"):
            text = f"{entry['ms_least']:.0f} … {entry['ms_most']:.0f} ms"
            found.append((f"update, 2x1500, {name}", text, limit))
        if entry := figures.get(f"{prefix}memory/{name}"):
            text = f"{entry['mb']:.0f} MB, of it {entry['gradients_mb']:.0f} MB gradients"
            found.append(
                ("— memory above the start of the step", text, f"≤ {2 * entry['largest_mb']:.0f} MB")
            )
    if entry := figures.get(f"{prefix}small update"):
        text = f"{entry['ms_least']:.0f} … {entry['ms_most']:.0f} ms"
        found.append(("update, 2x128, vocabulary 2,000, magnitude × random", text, ""))
    return found


def tables(figures: Mapping[str, Any]) -> str:
    """All that is measured, as Markdown."""
    lines = []
    for title, prefix in (("CPU", ""), ("GPU", "cuda/")):
        found = rows(figures, prefix)
        own = [entry["where"] for name, entry in figures.items() if name.startswith("cuda/") == bool(prefix)]
        if not found:
            lines += [f"{title}: not measured.", ""]
            continue
        lines += [f"{title}: {'; and '.join(sorted(set(own)))}", ""]
        lines += ["| what | measured | target |", "|---|---|---|"]
        lines += ["| " + " | ".join(row) + " |" for row in found]
        lines.append("")
    compared_with = {name: entry for name, entry in figures.items() if name.startswith("sparselab/")}
    if compared_with:
        lines += [
            "Beside `sparselab` (padded CSR on the CPU; of these networks it has the linear layer alone): a",
            "layer 650 → 10,000 on 700 rows, forward, backward and SGD step, and one SET update.",
            "",
            "| sparsity | step, ours / theirs | update, ours / theirs |",
            "|---|---|---|",
        ]
        lines += [
            f"| {name.removeprefix('sparselab/')} | {entry['ratio']:.2f} of {entry['theirs_ms']:.0f} ms | "
            f"{entry['update_ratio']:.2f} of {entry['update_theirs_ms']:.0f} ms |"
            for name, entry in compared_with.items()
        ]
    else:
        lines.append("`sparselab`: not measured; `pip install sparselab` first.")
    return "\n".join(lines) + "\n"


def where_measured(options: argparse.Namespace) -> str:
    """Hardware, load, date, versions and command in one line."""
    if options.device != "cpu":
        hardware = torch.cuda.get_device_name(options.device)
    else:
        threads = f"{options.threads} thread" + ("s" if options.threads > 1 else "")
        load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
        hardware = f"{processor()}, {os.cpu_count()} cores, {threads}, load {load}"
    return (
        f"{hardware}; {datetime.date.today()}; hyperprune {__version__}, torch {torch.__version__}, Python "
        f"{platform.python_version()}; `{' '.join(['python', *sys.argv])}`"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", default=",".join(PARTS), help="of " + ", ".join((*PARTS, "none")))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--quick", action="store_true", help="small networks; nothing is kept")
    parser.add_argument("--again", action="store_true", help="measure again what the results file has")
    parser.add_argument(
        "--results", type=Path, default=Path(__file__).parent / "results" / "sparse_training.json"
    )
    parser.add_argument("--docs", type=Path, help="a Markdown file whose marked part gets the table")
    options = parser.parse_args()
    if options.docs:
        marked_part(options.docs, "benchmark")  # a wrong page is told before the measuring
    parts = set(options.parts.split(",")) - {"none"}
    if unknown := parts - set(PARTS):
        parser.error(f"unknown part {', '.join(sorted(unknown))}; known: {', '.join(PARTS)}")
    if options.quick and options.docs:
        parser.error("--quick measures networks that are not those of the table; leave out --docs")
    torch.set_num_threads(options.threads)
    bench = Bench(options)
    path = Path(os.devnull) if options.quick else options.results
    where = where_measured(options) if parts else ""
    results = Results(path, again=options.again or options.quick, where=where)
    prefix = "" if bench.device.type == "cpu" else "cuda/"
    if "step" in parts:
        measure_steps(bench, results, prefix)
    if "optimizer" in parts:
        measure_optimizer(bench, results, prefix)
    if "sparselab" in parts:
        measure_sparselab(bench, results)
    if "rest" in parts:
        measure_rest(bench, results, prefix)
    if "update" in parts:
        measure_updates(bench, results, prefix)
    table = tables(results.figures)
    print(table)
    if options.docs:
        fill_marked_part(options.docs, "benchmark", table.strip())


if __name__ == "__main__":
    main()
