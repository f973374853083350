"""How fast, how exact and how frugal the Lyapunov engine is, against the published way and the GEMM peak.

    python benchmarks/lyapunov.py                      # everything that is not measured yet, then the table
    python benchmarks/lyapunov.py --parts speed --sizes 100,200 --again
    python benchmarks/lyapunov.py --parts none --docs docs/lyapunov.md     # only write the table

Every figure is written to the results file as soon as it is measured, so a run can be cut off at any time
and goes on where it was. One thread is timed in CPU seconds, which other work on the machine disturbs
least; several threads in wall time. Times are the best of several runs in alternation.

Axes: B batch, H hidden, L layers, S = L·H.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hyperprune.experiments.documents import fill_marked_part, marked_part
from hyperprune.lyapunov import LyapunovIteration, lyapunov_spectrum
from shared import machine

LAYERS, BATCH, WARMUP, STEPS = 2, 2, 10, 35
SIZES = (100, 200, 400, 800, 1500)
DTYPES = ("float32", "float64")
PARTS = ("speed", "error", "generic", "memory", "scaling", "gpu")
PLAIN_STEPS = {100: 20, 200: 10, 400: 3, 800: 2, 1500: 1}


def network(hidden: int, dtype: torch.dtype, layers: int = LAYERS, device: str = "cpu") -> nn.LSTM:
    torch.manual_seed(0)
    return nn.LSTM(hidden, hidden, layers).to(device, dtype).requires_grad_(False)


def drive(hidden: int, dtype: torch.dtype, batch: int = BATCH, steps: int = WARMUP + STEPS) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(steps, batch, hidden, generator=generator, dtype=torch.float64).to(dtype)


def plain_spectrum(module: nn.LSTM, inputs: Tensor) -> Tensor:
    """The published way: whole-stack Jacobians by products of diagonal matrices, `linalg.qr` at each step.

    Hidden state, Jᵀ in forward time, from the identity, log2; without a warm-up.
    """
    num_layers, hidden, batch = module.num_layers, module.hidden_size, inputs.shape[1]
    h = [inputs.new_zeros(batch, hidden) for _ in range(num_layers)]
    c = [inputs.new_zeros(batch, hidden) for _ in range(num_layers)]
    size = num_layers * hidden
    q_BSS = torch.eye(size, dtype=inputs.dtype, device=inputs.device).expand(batch, -1, -1)
    logs_BS = torch.zeros(batch, size, dtype=inputs.dtype, device=inputs.device)
    gates = [slice(gate * hidden, (gate + 1) * hidden) for gate in range(4)]
    for x_BI in inputs:
        jacobian_BSS = inputs.new_zeros(batch, size, size)
        below = x_BI
        for layer in range(num_layers):
            weight_ih, weight_hh, bias_ih, bias_hh = module.all_weights[layer]
            y = below @ weight_ih.T + h[layer] @ weight_hh.T + bias_ih + bias_hh
            gate = torch.sigmoid(y)
            # Diagonal matrices of all four gates at once, of which blocks are cut out, as published.
            sigmoid, slope = torch.diag_embed(gate), torch.diag_embed(gate * (1 - gate))
            tanh, tanh_slope = torch.diag_embed(torch.tanh(y)), torch.diag_embed(1 - torch.tanh(y) ** 2)
            (i, f, g, o) = ((slice(None), part, part) for part in gates)
            new_c = gate[:, gates[1]] * c[layer] + gate[:, gates[0]] * torch.tanh(y[:, gates[2]])
            out = torch.diag_embed(torch.tanh(new_c))
            through = sigmoid[o] @ torch.diag_embed(1 - torch.tanh(new_c) ** 2)
            before = torch.diag_embed(c[layer])

            def block(
                weight: Tensor,
                *,
                sigmoid=sigmoid,
                slope=slope,
                tanh=tanh,
                tanh_slope=tanh_slope,
                before=before,
                through=through,
                out=out,
                i=i,
                f=f,
                g=g,
                o=o,
            ) -> Tensor:
                w_i, w_f, w_g, w_o = weight.chunk(4)
                cell = (
                    (slope[f] @ before) @ w_f
                    + (slope[i] * tanh[g]) @ w_i
                    + (sigmoid[i] * tanh_slope[g]) @ w_g
                )
                return through @ cell + (slope[o] * out) @ w_o

            rows = slice(layer * hidden, (layer + 1) * hidden)
            jacobian_BSS[:, rows, rows] = block(weight_hh)
            if layer:
                above = slice((layer - 1) * hidden, layer * hidden)
                columns = slice(0, layer * hidden)
                jacobian_BSS[:, rows, columns] = block(weight_ih) @ jacobian_BSS[:, above, columns]
            h[layer], c[layer] = gate[:, gates[3]] * torch.tanh(new_c), new_c
            below = h[layer]
        q_BSS, r_BSS = torch.linalg.qr(jacobian_BSS.mT @ q_BSS)
        logs_BS += torch.log2(r_BSS.diagonal(dim1=-2, dim2=-1).abs())
    return logs_BS / inputs.shape[0]


def best(run: Callable[[], Any], clock: Callable[[], float], repeats: int) -> float:
    """Shortest time of several runs."""
    times = []
    for _ in range(repeats):
        start = clock()
        run()
        times.append(clock() - start)
    return min(times)


def gemm_peak(dtype: torch.dtype, clock: Callable[[], float]) -> float:
    """Flops per second of the best matrix product, over a few sizes."""
    rates = []
    for size in (400, 800, 1200):
        a, b = torch.rand(size, size, dtype=dtype), torch.rand(size, size, dtype=dtype)
        out = torch.empty_like(a)
        number = max(1, int(2e9 / size**3))

        def products(a=a, b=b, out=out, number=number) -> None:
            for _ in range(number):
                torch.mm(a, b, out=out)

        products()
        rates.append(2 * size**3 * number / best(products, clock, 5))
    return max(rates)


class Results:
    """Figures by name in a JSON file, written after each."""

    def __init__(self, path: Path, *, again: bool) -> None:
        self._path, self._again = path, again
        self._fresh: set[str] = set()
        self.figures: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}

    def measure(self, name: str, compute: Callable[[], Any]) -> Any:
        if name not in self.figures or (self._again and name not in self._fresh):
            start = time.perf_counter()
            self.figures[name] = compute()
            self._fresh.add(name)
            self.figures["machine"] = machine()
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.write_text(json.dumps(self.figures, indent=1, sort_keys=True) + "\n")
            print(f"{name}: {self.figures[name]} ({time.perf_counter() - start:.0f} s)", file=sys.stderr)
        return self.figures[name]


def measure_speed(results: Results, sizes: tuple[int, ...], dtypes: tuple[str, ...]) -> None:
    for name in dtypes:
        dtype = getattr(torch, name)
        for hidden in sizes:
            module, inputs = network(hidden, dtype), drive(hidden, dtype)

            def ours(module=module, inputs=inputs) -> None:
                lyapunov_spectrum(module, inputs, jacobian="hidden", warmup=WARMUP)

            def one_thread(ours=ours, hidden=hidden, dtype=dtype) -> dict[str, float]:
                torch.set_num_threads(1)
                repeats = 5 if hidden <= 400 else 1
                if hidden <= 400:
                    ours()
                peaks, times = [], []
                for _ in range(repeats):  # in alternation, so that both see the same machine
                    peaks.append(gemm_peak(dtype, time.process_time))
                    times.append(best(ours, time.process_time, 2 if hidden <= 400 else 1))
                return {"seconds": min(times), "peak": max(peaks)}

            def plain(module=module, inputs=inputs, hidden=hidden) -> float:
                torch.set_num_threads(1)
                steps = PLAIN_STEPS[hidden]
                plain_spectrum(module, inputs[:1])
                repeats = 3 if hidden <= 400 else 1
                run = best(lambda: plain_spectrum(module, inputs[:steps]), time.process_time, repeats)
                return run / steps * (WARMUP + STEPS)

            def two_threads(ours=ours, hidden=hidden) -> dict[str, float]:
                repeats = 7 if hidden <= 400 else 1
                times: dict[int, list[float]] = {1: [], 2: []}
                for _ in range(repeats):
                    for threads, seen in times.items():
                        torch.set_num_threads(threads)
                        seen.append(best(ours, time.perf_counter, 1))
                torch.set_num_threads(1)
                return {"one": min(times[1]), "two": min(times[2])}

            results.measure(f"speed/{name}/{hidden}/ours", one_thread)
            results.measure(f"speed/{name}/{hidden}/plain", plain)
            results.measure(f"speed/{name}/{hidden}/threads", two_threads)


def measure_error(results: Results, sizes: tuple[int, ...]) -> None:
    for hidden in sizes:

        def error(hidden=hidden) -> dict[str, float]:
            module = network(hidden, torch.float32)
            inputs = drive(hidden, torch.float32)
            single, double = (
                lyapunov_spectrum(module, inputs, jacobian="hidden", warmup=WARMUP, dtype=dtype)
                for dtype in (torch.float32, torch.float64)
            )
            difference = np.abs(single.concatenated - double.concatenated)
            return {"max": float(difference.max()), "mean": float(difference.mean())}

        results.measure(f"error/{hidden}", error)


def measure_generic(results: Results) -> None:
    def ratio() -> float:
        torch.set_num_threads(1)
        hidden = 200
        module = network(hidden, torch.float32, layers=1)
        cell = nn.LSTMCell(hidden, hidden).requires_grad_(False)
        for name, parameter in cell.named_parameters():
            parameter.copy_(module.get_parameter(f"{name}_l0"))
        inputs, zeros = drive(hidden, torch.float32), torch.zeros(BATCH, hidden)
        times: dict[str, list[float]] = {"analytic": [], "generic": []}
        settings: dict[str, Any] = {"jacobian": "hidden", "warmup": WARMUP}
        for _ in range(4):
            analytic = best(lambda: lyapunov_spectrum(module, inputs, **settings), time.process_time, 1)
            generic = best(
                lambda: lyapunov_spectrum(cell, inputs, (zeros, zeros), **settings), time.process_time, 1
            )
            times["analytic"].append(analytic)
            times["generic"].append(generic)
        return min(times["generic"]) / min(times["analytic"])

    results.measure("generic/200", ratio)


def measure_memory(results: Results) -> None:
    def above_the_model() -> dict[str, float]:
        return json.loads(
            subprocess.run(
                [sys.executable, __file__, "--memory-child", "1500"],
                capture_output=True,
                check=True,
                text=True,
            ).stdout
        )

    results.measure("memory/1500", above_the_model)


def memory_child(hidden: int) -> None:
    """Peak memory of this process before and after a spectrum, in MiB; one step is like another."""
    module, inputs = network(hidden, torch.float32), drive(hidden, torch.float32, steps=3)
    module(inputs)
    before = _peak_memory()
    lyapunov_spectrum(module, inputs, jacobian="hidden", warmup=1)
    print(json.dumps({"before": before, "above": _peak_memory() - before}))


def _peak_memory() -> float:
    """MiB; from /proc, since getrusage's figure is inherited from the parent process."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def measure_scaling(results: Results) -> None:
    """Cost against layers, samples and steps, one at a time, at hidden 200."""
    base = {"layers": 1, "batch": 1, "steps": 20}
    for axis, one in base.items():
        for factor in (1, 2, 4):
            chosen = base | {axis: one * factor}

            def seconds(chosen=chosen) -> float:
                torch.set_num_threads(1)
                module = network(200, torch.float32, layers=chosen["layers"])
                inputs = drive(200, torch.float32, batch=chosen["batch"], steps=chosen["steps"])
                return best(
                    lambda: lyapunov_spectrum(module, inputs, jacobian="hidden"), time.process_time, 7
                )

            results.measure(f"scaling/{axis}/{factor}", seconds)


def measure_gpu(results: Results) -> None:
    """Hidden 1500, 2 layers, 10 samples, 35 steps on the card, where there is one."""
    if not torch.cuda.is_available():
        return
    module = network(1500, torch.float32, device="cuda")
    inputs = drive(1500, torch.float32, batch=10, steps=STEPS).cuda()

    def timed(run: Callable[[], Any]) -> Callable[[], None]:
        def synchronised() -> None:
            run()
            torch.cuda.synchronize()

        return synchronised

    def figures() -> dict[str, Any]:
        seconds = {}
        for fast in (True, False):

            def ours(fast=fast) -> None:
                iteration = LyapunovIteration(module, batch_size=10, jacobian="hidden", fast=fast)
                iteration.advance(inputs).spectrum()

            timed(ours)()
            seconds["gram-schmidt" if fast else "householder"] = best(timed(ours), time.perf_counter, 3)
        plain = best(timed(lambda: plain_spectrum(module, inputs[:3])), time.perf_counter, 2) / 3 * STEPS
        return {"card": torch.cuda.get_device_name(), "plain": plain} | seconds

    results.measure("gpu/1500", figures)


def tables(figures: dict[str, Any]) -> str:
    """All that is measured, as Markdown."""
    lines = [f"Measured on: {figures.get('machine', 'nothing yet')}.", ""]
    lines += [
        f"LSTM, {LAYERS} layers, {BATCH} samples, {WARMUP} + {STEPS} steps, hidden-state Jacobian, whole",
        "spectrum. One thread in CPU seconds. *Peak*: useful flops (10/3·H³ per layer, sample and step) as a",
        "share of the best matrix product in the same process. *Published way*: whole-stack Jacobians by",
        "diagonal matrices and `linalg.qr`; its time is that of a few steps, extrapolated. *Two threads*:",
        "wall time of one thread over that of two.",
        "",
        "| type | hidden | seconds | GFlop/s of peak | share | published way, s | faster | two threads |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in DTYPES:
        for hidden in SIZES:
            ours = figures.get(f"speed/{name}/{hidden}/ours")
            if ours is None:
                lines.append(f"| {name} | {hidden} | not measured | | | | | |")
                continue
            seconds = ours["seconds"]
            useful = 10 / 3 * hidden**3 * LAYERS * BATCH * (WARMUP + STEPS)
            rate, peak = useful / seconds / 1e9, ours["peak"] / 1e9
            plain = figures.get(f"speed/{name}/{hidden}/plain")
            threads = figures.get(f"speed/{name}/{hidden}/threads")
            faster = f"{plain:.3g} | {plain / seconds:.1f}×" if plain else "not measured | "
            gain = f"{threads['one'] / threads['two']:.2f}×" if threads else "not measured"
            lines.append(
                f"| {name} | {hidden} | {seconds:.3g} | {rate:.0f} of {peak:.0f} | {rate / peak:.0%} | "
                f"{faster} | {gain} |"
            )
    lines += ["", "float32 against float64, same frames, in nats per step:", ""]
    lines += ["| hidden | largest difference | mean difference |", "|---|---|---|"]
    for hidden in SIZES:
        error = figures.get(f"error/{hidden}")
        if error:
            lines.append(f"| {hidden} | {error['max']:.1e} | {error['mean']:.1e} |")
    generic, memory = figures.get("generic/200"), figures.get("memory/1500")
    lines += [""]
    if generic:
        lines.append(
            f"- Any step function through `torch.func`, hidden 200: {generic:.1f}× the analytic LSTM."
        )
    if memory:
        lines.append(
            f"- Memory at hidden 1500, {LAYERS} layers, {BATCH} samples, float32: {memory['above']:.0f} MiB "
            "above the process with its model."
        )
    for axis in ("layers", "batch", "steps"):
        seconds = [figures.get(f"scaling/{axis}/{factor}") for factor in (1, 2, 4)]
        if all(seconds):
            times = ", ".join(f"{value / seconds[0]:.2f}" for value in seconds)  # type: ignore[operator]
            lines.append(f"- Cost with 1, 2, 4 times the {axis}, hidden 200: {times}.")
    gpu = figures.get("gpu/1500")
    if gpu:
        lines.append(
            f"- {gpu['card']}, hidden 1500, 2 layers, 10 samples, {STEPS} steps: {gpu['gram-schmidt']:.2f} s "
            f"(Householder {gpu['householder']:.2f} s, published way {gpu['plain']:.1f} s)."
        )
    else:
        lines.append("- GPU: not measured.")
    return "\n".join(lines) + "\n"


def plot(figures: dict[str, Any], path: Path) -> None:
    """Seconds against hidden size, with the cubic through the largest."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for name in DTYPES:
        seen = [(h, figures[key]) for h in SIZES if (key := f"speed/{name}/{h}/ours") in figures]
        if seen:
            sizes = np.array([hidden for hidden, _ in seen])
            seconds = np.array([entry["seconds"] for _, entry in seen])
            (line,) = axes.loglog(sizes, seconds, "o-", label=name)
            axes.loglog(sizes, seconds[-1] * (sizes / sizes[-1]) ** 3, ":", color=line.get_color())
    axes.set(xlabel="hidden size H", ylabel="CPU seconds, one thread", title="dotted: proportional to H³")
    axes.legend()
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", default=",".join(PARTS), help="of " + ", ".join((*PARTS, "none")))
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)))
    parser.add_argument("--dtypes", default=",".join(DTYPES))
    parser.add_argument("--again", action="store_true", help="measure again what the results file has")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results" / "lyapunov.json")
    parser.add_argument("--docs", type=Path, help="a Markdown file whose marked part gets the table")
    parser.add_argument("--plot", type=Path, help="a picture of the cost against the hidden size")
    parser.add_argument("--memory-child", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.docs:
        marked_part(options.docs, "benchmark")  # a wrong page is told before the measuring
    if options.memory_child:
        memory_child(options.memory_child)
        return
    parts = set(options.parts.split(",")) - {"none"}
    if unknown := parts - set(PARTS):
        parser.error(f"unknown part {', '.join(sorted(unknown))}; known: {', '.join(PARTS)}")
    sizes = tuple(int(size) for size in options.sizes.split(","))
    results = Results(options.results, again=options.again)
    if "error" in parts:
        measure_error(results, sizes)
    if "generic" in parts:
        measure_generic(results)
    if "memory" in parts:
        measure_memory(results)
    if "scaling" in parts:
        measure_scaling(results)
    if "speed" in parts:
        measure_speed(results, sizes, tuple(options.dtypes.split(",")))
    if "gpu" in parts:
        measure_gpu(results)
    table = tables(results.figures)
    print(table)
    if options.docs:
        fill_marked_part(options.docs, "benchmark", table.strip())
    if options.plot:
        plot(results.figures, options.plot)


if __name__ == "__main__":
    main()
