"""A synthetic search: decaying metrics, drifting spectra, LSH's schedule of elimination and insertion."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from hyperprune.records import CandidateRecord, EpochRecord, RoundRecord, RunRecord, Topology

BASELINE = 612.0
SPECTRUM_SIZE = 48  # per layer
_TENSORS = {"encoder.weight": 1.2, "rnn.weight_ih_l0": 0.8, "rnn.weight_hh_l0": 1.0, "decoder.weight": 0.9}
_DEATHS = ("magnitude", "set", "threshold", "global_magnitude")


def _density_and_topology(epoch: int, speed: float) -> tuple[dict[str, float], Topology]:
    """Tensors that drift apart, and one update an epoch that moves less each time."""
    moved = 1 - math.exp(-speed * epoch / 5)
    density = {name: 0.33 * (1 + (target - 1) * moved) for name, target in _TENSORS.items()}
    gates = {
        name: tuple(share * (1 + 0.3 * moved * tilt) for tilt in (-1, 0.2, 0.5, 0.3))
        for name, share in density.items()
        if name.startswith("rnn")
    }
    turnover = sum(0.5 * speed * math.cos(math.pi * update / 200) for update in range(epoch))
    explored = 1 - 0.67 * math.exp(-0.2 * turnover)
    return density, Topology(gate_density=gates, num_updates=epoch, turnover=turnover, explored=explored)


def _epochs(
    rng: np.random.Generator, count: int, floor: float, drift: float, *, spectra: bool, pruned: bool = True
) -> list[EpochRecord]:
    start = np.sort(rng.normal(-1.0, 0.02, SPECTRUM_SIZE))[::-1]
    # One shape for all networks: a slope that every epoch of training spreads further.
    slope = np.linspace(0.9, -1.5, SPECTRUM_SIZE)
    bend = np.cos(np.linspace(0, math.pi, SPECTRUM_SIZE)) ** 3 + 0.3
    taste = rng.normal(
        0.5 * (1 - drift), 0.15
    )  # what one configuration does to the spectrum and another does not
    records = []
    for epoch in range(count + 1):
        metric = floor + (5000 - floor) * math.exp(-1.6 * epoch**0.6) * (1 + 0.02 * rng.random())
        learned = 1 - math.exp(-0.25 * epoch)
        layers = [start * (1 + 0.3 * layer) + slope * drift * learned * (1 + 0.4 * layer) for layer in (0, 1)]
        layers = [np.sort(values + bend * taste * min(epoch / 6, 1.0))[::-1] for values in layers]
        density, topology = _density_and_topology(epoch, drift)
        records.append(
            EpochRecord(
                epoch=epoch,
                train_loss=None if epoch == 0 else math.log(metric) - 0.05,
                valid_loss=math.log(metric),
                metric=metric,
                seconds=1.5,
                spectrum=np.concatenate(layers) if spectra else None,
                density=density if pruned else dict.fromkeys(density, 1.0),
                topology=topology if pruned else None,
            )
        )
    return records


def synthetic_run(
    *,
    candidates: int = 12,
    final_epochs: int = 20,
    first: int = 3,
    every: int = 3,
    seed: int = 0,
    spectra: bool = True,
    finished: bool = True,
    stuck: int = 1,
    failed: int = 1,
    stop_after: int | None = None,
) -> RunRecord:
    """A run by LSH's rules: keep half, insert a quarter, until two remain or for `stop_after` rounds."""
    rng = np.random.default_rng(seed)
    born: dict[str, int] = {}
    gone: dict[str, int] = {}
    trained: dict[str, int] = {}
    signals: dict[str, dict[int, float]] = {}
    quality: dict[str, float] = {}

    def create(count: int, number: int) -> list[str]:
        keys = [f"c{len(born) + index + 1:02d}" for index in range(count)]
        for key in keys:
            born[key], signals[key], trained[key] = number, {}, 0
            quality[key] = float(rng.uniform(0.05, 1.0)) * (0.7 if number else 1.0)
        return keys

    alive = create(candidates, 0)
    broken = set(alive[1 : 1 + failed])
    alive = [key for key in alive if key not in broken]
    for key in broken:
        trained[key] = 1
    rounds: list[RoundRecord] = []
    epoch = first
    while len(alive) > 2 and (stop_after is None or len(rounds) < stop_after):
        number = len(rounds) + 1
        for key in alive:
            trained[key] = epoch
            signals[key][number] = quality[key] * 2 + float(rng.normal(0, 0.02))
        ranked = sorted(alive, key=lambda key: signals[key][number])
        kept = ranked[: math.ceil(len(ranked) / 2)]
        for key in ranked[len(kept) :]:
            gone[key] = number
        inserted = create(len(ranked) // 4, number) if len(kept) > 2 else []
        rounds.append(
            RoundRecord(
                number=number,
                epoch=epoch,
                signals={key: signals[key][number] for key in ranked},
                kept=tuple(kept),
                inserted=tuple(inserted),
            )
        )
        alive = [*kept, *inserted]
        epoch += every
    slowest = sorted(gone, key=lambda key: quality[key])[len(gone) - stuck :] if stuck else []
    records = {}
    for key, birth in born.items():
        if finished and key in alive:
            trained[key] = final_epochs
        floor = BASELINE * 0.985 if key in slowest else 92 + 60 * quality[key]
        drift = 1 - 0.55 * quality[key]
        epochs = _epochs(
            np.random.default_rng([seed, int(key[1:])]), trained[key], floor, drift, spectra=spectra
        )
        best = min(epochs[1:], key=lambda record: record.metric, default=None)
        outcome = (
            "failed"
            if key in broken
            else "eliminated"
            if key in gone
            else "finalist"
            if finished
            else "running"
        )
        configuration = {
            "method": "dynamic_sparse",
            "allocation": ("uniform", "er")[len(records) % 2],
            "death": _DEATHS[len(records) % 4],
            "redistribution": ("none", "magnitude", "nonzeros")[len(records) % 3],
            "death_rate": round(0.4 + 0.5 * quality[key], 2),
        }
        records[key] = CandidateRecord(
            key=key,
            label=" · ".join(str(value) for name, value in configuration.items() if name != "method"),
            configuration=configuration,
            born_in=birth,
            outcome=outcome,
            eliminated_in=gone.get(key),
            reason="the loss is not finite in epoch 2" if key in broken else None,
            epochs=tuple(epochs),
            signals=signals[key],
            best_epoch=None if best is None else best.epoch,
            metric=None if best is None else best.metric,
            checkpoint=f"checkpoints/{key}.pt" if key in alive else None,
        )
    order = sorted(
        records,
        key=lambda key: (
            key in broken,
            key in gone,
            -gone.get(key, 0),
            signals[key].get(gone.get(key, 0), records[key].metric or math.inf),
        ),
    )
    dense = _epochs(
        np.random.default_rng([seed, 999]),
        final_epochs if finished else epoch,
        88,
        1.0,
        spectra=spectra,
        pruned=False,
    )
    return RunRecord(
        task="pydoc",
        sparsity=0.67,
        seed=seed,
        strategy={
            "name": "lsh",
            "candidates": candidates,
            "first_epochs": first,
            "round_epochs": every,
            "final_epochs": final_epochs,
            "proposer": "tpe",
            "signal": "spectrum" if spectra else "loss",
        },
        metric="perplexity",
        lower_is_better=True,
        baseline=("unigram perplexity", BASELINE),
        reference=CandidateRecord(
            key="dense",
            label="dense reference",
            configuration={"method": "dense"},
            outcome="running",
            epochs=tuple(dense),
            best_epoch=dense[-1].epoch,
            metric=dense[-1].metric,
        ),
        candidates=tuple(records[key] for key in order),
        rounds=tuple(rounds),
        epochs_spent=sum(trained.values()),
        epochs_full=final_epochs * len(born),
        finished=finished,
        provenance={
            "command": "hyperprune search pydoc --sparsity 0.67 --seed 0",
            "hyperprune": "0.1.0",
            "python": "3.11.2",
            "torch": "2.13.0",
            "machine": "2 cores, x86_64, Linux",
            "started": "2030-01-02 03:04:05 UTC",
        },
    )


@pytest.fixture(scope="session")
def make_run() -> Callable[..., RunRecord]:
    """The generator of synthetic runs, as a fixture because test files do not import each other."""
    return synthetic_run


@pytest.fixture(scope="session")
def run() -> RunRecord:
    """A finished run with eliminated, inserted, failed and stuck candidates."""
    return synthetic_run()
