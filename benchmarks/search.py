"""What a search costs beside training: workers, scheduler, proposers, spectra; and how it scales, simulated.

    python benchmarks/search.py                                  # what is not measured yet, then the table
    python benchmarks/search.py --again --docs docs/scaling.md --picture docs/pictures/scaling.png
    python benchmarks/search.py --parts workers --tokens 60900 --epochs 8 --again

Parts: `workers`, a search with one worker and with two, one thread each, in turn; `spectrum`, a spectrum
beside an epoch's training; `proposers`, batches as searches of 24, 40 and 1,000 candidates ask for them;
`segments`, how long segments take, recorded for the next; `simulation`, whole searches on a simulated clock
(see `simulated`). What one thread computes is timed in CPU seconds, which other work on the machine disturbs
least. Two workers against one can only be told by wall time, and on a machine that is free; on a busy one the
time that workers were ready and waited for a core tells what they would have done on free ones.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

import hyperprune as hp
from hyperprune.errors import InputError
from hyperprune.experiments.documents import fill_marked_part
from hyperprune.hypersearch.estimate import estimate
from hyperprune.hypersearch.executor import InProcess, Job, Lost
from hyperprune.hypersearch.executor.contract import OnEpoch
from hyperprune.hypersearch.live_arena import LiveArena
from hyperprune.hypersearch.observer import SilentObserver
from hyperprune.hypersearch.proposers import PROPOSERS, Seen
from hyperprune.hypersearch.run_folder import RunFolder
from hyperprune.hypersearch.run_state import Event, RunState
from hyperprune.hypersearch.space import Space
from hyperprune.hypersearch.spaces import wide
from hyperprune.hypersearch.strategy import Strategy
from hyperprune.records import EpochRecord
from hyperprune.training.segment import Advance
from shared import Results
from simulated import SegmentTimes, header_of, simulate

PARTS = ("workers", "spectrum", "proposers", "segments", "simulation")
PLACES = (1, 8, 64, 512)
SIZES = (40, 1000)
STRATEGIES: Mapping[str, type[Strategy]] = {"lsh": hp.LSH, "successive_halving": hp.SuccessiveHalving}


def small_task(tokens: int) -> hp.Task:
    """The embedded default on a part of its text."""
    return hp.load_task("pydoc", settings={"text": {"train_tokens": tokens, "valid_tokens": tokens // 6}})


class Moment(NamedTuple):
    """When an epoch ended.

    Attributes:
        wall: seconds.
        cpu: CPU seconds of this process and its workers so far.
        waited: seconds that each of those who train, on average, was ready and waited for a core.
    """

    wall: float
    cpu: float
    waited: float


class Clock(SilentObserver):
    """Keeps when each epoch ended (Linux: what workers waited for is read from /proc)."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self.started: list[Moment] = []
        self.trained: list[Moment] = []
        self.begun: float | None = None  # CPU seconds of this thread when candidates were there

    def event(self, state: RunState, event: Event) -> None:
        if self.begun is None and event["event"] == "candidates":
            self.begun = time.thread_time()

    def epoch(self, state: RunState, key: str, record: EpochRecord) -> None:
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        trainers = ["self"] if self._workers == 1 else children
        schedules = [Path(f"/proc/{pid}/schedstat").read_text().split() for pid in trainers]
        moment = Moment(
            wall=time.perf_counter(),
            cpu=sum(int(ran) for ran, _, _ in schedules) / 1e9,
            waited=sum(int(waited) for _, waited, _ in schedules) / 1e9 / self._workers,
        )
        (self.trained if record.epoch else self.started).append(moment)


def measure_workers(results: Results, tokens: int, epochs: int) -> None:
    """Candidates of one length, so that no worker is without work before the last epochs."""

    def search(workers: int) -> dict[str, float]:
        clock, task = Clock(workers), small_task(tokens)
        strategy = hp.Full(candidates=5, final_epochs=epochs)
        with tempfile.TemporaryDirectory() as folder:
            start = time.thread_time()
            hp.search(task, strategy, folder=folder, workers=workers, observer=clock)
            end = time.thread_time()
        assert clock.begun is not None
        # From the moment that all are at work: starting a process and importing torch is no scaling.
        begin, last = clock.started[workers - 1], clock.trained[-1]
        told = [moment for moment in clock.trained if moment.wall > begin.wall]
        seconds = last.wall - begin.wall
        return {
            "epochs_per_second": len(told) / seconds,
            "on_free_cores": len(told) / (seconds - (last.waited - begin.waited)),
            "cpu_per_epoch": (last.cpu - told[0].cpu) / (len(told) - 1),
            "start": clock.begun - start,
            "scheduler": end - clock.begun,
        }

    def figures() -> dict[str, Any]:
        runs: dict[int, list[dict[str, float]]] = defaultdict(list)
        for _ in range(2):
            for workers in (1, 2):
                runs[workers].append(search(workers))
        two = runs[2]

        def ratios(name: str) -> list[float]:
            return [b[name] / a[name] for a, b in zip(runs[1], two, strict=True)]

        busy = [run["cpu_per_epoch"] * 6 * epochs / 2 for run in two]  # of each of two workers, at the least
        shares = [run["scheduler"] / seconds for run, seconds in zip(two, busy, strict=True)]
        return {
            "ratios": ratios("epochs_per_second"),
            "ratios_on_free_cores": ratios("on_free_cores"),
            "cpu_ratio": statistics.mean(ratios("cpu_per_epoch")),
            "start_seconds": statistics.mean(run["start"] for run in two),
            "scheduler_seconds": statistics.mean(run["scheduler"] for run in two),
            "scheduler_share": statistics.mean(shares),
            "seconds": statistics.mean(busy),
            "tokens": tokens,
            "epochs": epochs,
        }

    results.measure("workers", figures)


def measure_spectrum(results: Results, data_dir: str | None) -> None:
    """The dense model's epoch and its spectrum, as `hyperprune search --plan` times them; the middle of 3."""

    def figures(task: hp.Task) -> dict[str, Any]:
        torch.set_num_threads(1)
        strategy = hp.LSH(candidates=4, first_epochs=1, round_epochs=1, final_epochs=4)
        costs = [estimate(task, strategy, workers=1, threads=1, device="cpu").cost for _ in range(3)]
        cost = sorted(costs, key=lambda cost: cost.spectrum / cost.train)[1]
        return {
            "share": cost.spectrum / cost.train,
            "spectrum_seconds": cost.spectrum,
            "train_seconds": cost.train,
        }

    results.measure("spectrum/pydoc", lambda: figures(hp.load_task("pydoc")))
    try:
        task = hp.load_task("ptb", settings={"model": {"preset": "small"}}, data_dir=data_dir)
    except InputError as error:
        print(f"ptb, small: left out ({error})")
        return
    results.measure("spectrum/ptb, small", lambda: figures(task))


def measure_proposers(results: Results) -> None:
    """The batch after the first round: half of the candidates as history, a quarter as many proposed.

    The grid, which inserts nothing, is asked for its first batch.
    """

    def figures(name: str, space: Space, candidates: int) -> dict[str, Any]:
        propose = PROPOSERS[name]
        known = PROPOSERS["random"](space, candidates, (), (), 0)
        signals = np.random.default_rng(0).uniform(size=candidates)
        kept = sorted(zip(known, signals.tolist(), strict=True), key=lambda pair: pair[1])[: candidates // 2]
        history = [Seen(configuration, signal, None) for configuration, signal in kept]
        propose(space, 1, history, known[:1], 0)  # what it imports is imported once a search
        times = []
        for seed in range(1 if candidates >= 1000 else 3):
            started = time.process_time()
            if name == "grid":
                propose(space, candidates, (), (), seed)
            else:
                propose(space, candidates // 4, history, known, seed)
            times.append(time.process_time() - started)
        return {"seconds": statistics.median(times)}

    names = [name for name in ("grid", "random", "tpe", "atpe") if name != "atpe" or find_spec("hyperopt")]
    for label, space in (("paper", Space()), ("wide", wide())):
        for name in names:
            for candidates in (24, 40, 1000):
                most = {"grid": len(space.grid()), "atpe": 40}.get(name, candidates)
                if candidates <= most:
                    results.measure(
                        f"proposer/{label}/{name}/{candidates}",
                        lambda name=name, space=space, number=candidates: figures(name, space, number),
                    )


class Recording(InProcess):
    """Trains in this process and keeps how long everything took, in CPU seconds of its one thread."""

    def __init__(self, task: hp.Task) -> None:
        super().__init__(task)
        self.fresh: list[float] = []
        self.resumed: list[float] = []
        self.epochs: dict[str, list[float]] = defaultdict(list)

    def wait(self, on_epoch: OnEpoch) -> tuple[Job, Advance | Lost]:
        from_epoch, key = self._waiting[0].from_epoch, self._waiting[0].key
        ends = []

        def timed(key: str, record: EpochRecord) -> None:
            ends.append(time.thread_time())
            on_epoch(key, record)

        began = time.thread_time()
        done = super().wait(timed)
        total, trained = time.thread_time() - began, np.diff(ends).tolist()
        if from_epoch == 0:  # the first that was told is epoch 0
            self.epochs[key] = trained
            self.fresh.append(total - sum(trained))
        else:
            middle = statistics.median(self.epochs[key])
            self.resumed.append(max(0.0, total - sum(trained) - middle))
            self.epochs[key] += [middle, *trained]
        return done


def measure_segments(results: Results, tokens: int, epochs: int) -> None:
    """A short real search of 6 candidates."""

    def figures() -> dict[str, Any]:
        task = small_task(tokens)
        strategy = hp.LSH(
            candidates=6, first_epochs=2, round_epochs=1, final_epochs=epochs + 2, proposer="random"
        )
        executor = Recording(task)
        with tempfile.TemporaryDirectory() as folder, RunFolder(Path(folder)) as run:
            run.begin(header_of(task, strategy))
            observer = SilentObserver()
            arena = LiveArena(task, Space(), run, executor, measures_spectra=True, observer=observer)
            strategy.run(arena)
        epochs_of = [values for values in executor.epochs.values() if values]
        return {"fresh": executor.fresh, "resumed": executor.resumed, "epochs": epochs_of, "tokens": tokens}

    results.measure("segments", figures)


def measure_simulation(results: Results) -> None:
    """The paper's epochs: 3 to the first elimination, 3 between, 100 in all."""
    recorded = results.figures["segments"]
    times = SegmentTimes(**{name: recorded[name] for name in ("fresh", "resumed", "epochs")})
    task = small_task(2000)
    for name, kind in STRATEGIES.items():
        for candidates in SIZES:
            strategy = kind(candidates=candidates, final_epochs=100, proposer="random", signal="loss")
            for places in PLACES:
                for barriers in (True, False):

                    def figures(
                        strategy: Strategy = strategy, places: int = places, barriers: bool = barriers
                    ) -> dict[str, Any]:
                        started = time.process_time()
                        told = simulate(task, strategy, places=places, seconds=times.of, barriers=barriers)
                        return {**told, "scheduler_seconds": time.process_time() - started}

                    way = "barriers" if barriers else "free"
                    results.measure(f"simulation/{name}/{candidates}/{places}/{way}", figures)


def tables(figures: Mapping[str, Any]) -> str:
    """All that is measured, as Markdown."""
    lines = ["| what | measured | target |", "|---|---|---|"]
    if entry := figures.get("workers"):
        wall, free = (
            ", ".join(f"{ratio:.2f}" for ratio in entry[name]) for name in ("ratios", "ratios_on_free_cores")
        )
        lines += [
            f"| epochs per second, two workers / one, by wall time | {wall} | ≥ 1.7 |",
            f"| the same without the time in which other programs had the cores | {free} | ≥ 1.7 |",
            f"| CPU seconds per epoch, two workers / one | {entry['cpu_ratio']:.2f} | |",
            f"| scheduler's CPU seconds in a search of {entry['seconds']:.0f} s with two workers | "
            f"{entry['scheduler_seconds']:.3f} ({entry['scheduler_share']:.2%}) | ≤ 1 % |",
            f"| CPU seconds before it (checks, candidates) | {entry['start_seconds']:.2f} | |",
        ]
    for name, entry in figures.items():
        if name.startswith("spectrum/"):
            target = "≤ 5 %" if "small" in name else ""
            lines.append(
                f"| one spectrum / one epoch's training, {name.partition('/')[2]} | {entry['share']:.1%} "
                f"({entry['spectrum_seconds']:.1f} s of {entry['train_seconds']:.0f} s) | {target} |"
            )
    for name, entry in figures.items():
        if name.startswith("proposer/"):
            _, space, proposer, candidates = name.split("/")
            batch = int(candidates) if proposer == "grid" else int(candidates) // 4
            lines.append(
                f"| batch of {batch}, {proposer}, {space} space | {entry['seconds']:.2g} s | "
                f"{'≤ 0.5 s' if int(candidates) <= 40 else ''} |"
            )
    where = figures["workers"]["where"] if "workers" in figures else "not measured"
    lines += ["", f"Workers were measured on: {where}. Each figure's own place is in the results file."]
    lines += ["", *_simulated(figures)]
    return "\n".join(lines) + "\n"


def _simulated(figures: Mapping[str, Any]) -> list[str]:
    found = {name: entry for name, entry in figures.items() if name.startswith("simulation/")}
    if not found:
        return ["Not simulated yet."]
    slowest = max(entry["scheduler_seconds"] for entry in found.values())
    header = "| strategy | candidates | " + " | ".join(f"{n} worker{'s' * (n > 1)}" for n in PLACES) + " |"
    lines = [
        "Simulated: share of the workers' time that trains, with rounds as barriers / working ahead; how",
        "many times as fast as one worker. The scheduler itself (arena, journal, ranking, on one core) took",
        f"at most {slowest:.1f} s of CPU for a whole search.",
        "",
        header,
        "|---|---|" + "---|" * len(PLACES),
    ]
    for name in STRATEGIES:
        for candidates in SIZES:
            cells = []
            for places in PLACES:
                stem = f"simulation/{name}/{candidates}/{places}"
                with_, free = (found[f"{stem}/{way}"] for way in ("barriers", "free"))
                faster = found[f"simulation/{name}/{candidates}/1/free"]["seconds"] / free["seconds"]
                cells.append(f"{with_['efficiency']:.1%} / {free['efficiency']:.1%}, {faster:.1f}×")
            lines.append(f"| {name} | {candidates} | " + " | ".join(cells) + " |")
    return lines


def draw(figures: Mapping[str, Any], path: Path) -> None:
    """Efficiency against workers, a panel per strategy."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, 3.6), layout="constrained")
    panels = figure.subplots(1, len(STRATEGIES), sharey=True)
    for axes, name in zip(panels, STRATEGIES, strict=True):
        for candidates, colour in zip(SIZES, ("#0072b2", "#d55e00"), strict=True):
            for way, style, fill_style in (("barriers", "--", "none"), ("free", "-", "full")):
                values = [
                    100 * figures[f"simulation/{name}/{candidates}/{places}/{way}"]["efficiency"]
                    for places in PLACES
                ]
                label = (
                    f"n = {candidates:,}, {'rounds as barriers' if way == 'barriers' else 'working ahead'}"
                )
                axes.plot(
                    *(PLACES, values, style), color=colour, marker="o", fillstyle=fill_style, label=label
                )
        axes.set(title=name, xlabel="workers", ylim=(0, 105))
        axes.set_xscale("log", base=2)
        axes.set_xticks(PLACES, [str(places) for places in PLACES])
        axes.grid(color="#dcdfe3", linewidth=0.8)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("share of the workers' time that trains, %")
    panels[0].legend(frameon=False, fontsize=8.5)
    figure.savefig(path, dpi=130)


def chosen(text: str) -> Sequence[str]:
    return [part for part in text.split(",") if part != "none"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", default=",".join(PARTS), help="of " + ", ".join((*PARTS, "none")))
    parser.add_argument("--tokens", type=int, default=20_000, help="training words of an epoch")
    parser.add_argument("--epochs", type=int, default=4, help="of each candidate")
    parser.add_argument("--data-dir", help="where the Penn Treebank lies")
    parser.add_argument("--again", action="store_true", help="measure what is measured already too")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results" / "search.json")
    parser.add_argument("--docs", type=Path, help="write the table into this document")
    parser.add_argument("--picture", type=Path, help="draw the simulation into this file")
    options = parser.parse_args()
    parts = chosen(options.parts)
    if unknown := set(parts) - set(PARTS):
        parser.error(f"unknown part {', '.join(sorted(unknown))}; known: {', '.join(PARTS)}")
    results = Results(options.results, again=options.again)
    if "workers" in parts:
        measure_workers(results, options.tokens, options.epochs)
    if "spectrum" in parts:
        measure_spectrum(results, options.data_dir)
    if "proposers" in parts:
        measure_proposers(results)
    if "segments" in parts:
        measure_segments(results, options.tokens, options.epochs)
    if "simulation" in parts:
        measure_simulation(results)
    table = tables(results.figures)
    print(table)
    if options.docs:
        fill_marked_part(options.docs, "benchmark", table.strip())
    if options.picture:
        draw(results.figures, options.picture)


if __name__ == "__main__":
    main()
