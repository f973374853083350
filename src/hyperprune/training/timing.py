"""How long an epoch takes, from a few of its batches: the basis of a plan's estimated time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from hyperprune.tasks.contract import Task
from hyperprune.training.candidate import Candidate, Training
from hyperprune.training.isolation import isolated
from hyperprune.training.measure import measured_runs, recurrent_spectra

_WARM_UP = 1  # batches that pay for the first use of everything
_FEWEST, _MOST = 2, 50  # timed batches
_STEPS = (2, 8)  # time steps of the spectra that are timed


@dataclass(frozen=True, kw_only=True)
class EpochCost:
    """Seconds of one epoch, scaled up from what was timed.

    Attributes:
        train: all training batches.
        evaluate: all validation batches.
        spectrum: one measured spectrum; 0 if there is none.
        num_timed, num_batches: training batches that were timed, and that an epoch has.
    """

    train: float
    evaluate: float
    spectrum: float
    num_timed: int
    num_batches: int

    @property
    def seconds(self) -> float:
        return self.train + self.evaluate + self.spectrum


def time_epoch(task: Task, training: Training, *, budget: float = 5.0) -> EpochCost:
    """Train and evaluate some batches of the first epoch, and measure a short spectrum; nothing is written.

    After one batch that is not timed, batches are timed until `budget` seconds have passed (at least 2, at
    most 50 of them), the same for validation, and scaled to the number of batches. The spectrum is measured
    over 2 and over 8 time steps, and the rest of its window is taken to cost as much per step.

    Args:
        task: what is trained.
        training: how; its `measure_spectrum` says whether to measure one.
        budget: seconds for each of the two.
    """
    with isolated(device=training.device, threads=training.threads, seed=training.seed):
        candidate = Candidate(task, training, Path(), {})
        num_batches = task.steps_per_epoch()
        candidate.model.train()
        trained, timed = _time(candidate.train_steps(1), budget)
        with candidate.evaluating():
            batches = candidate.batches("valid", 1)
            evaluated, _ = _time((task.evaluate(candidate.model, [batch]) for batch in batches), budget)
            num_valid = sum(1 for _ in task.batches("valid", 1))
            spectrum = _time_spectrum(task, candidate, training) if training.measure_spectrum else 0.0
    return EpochCost(
        train=trained * num_batches,
        evaluate=evaluated * num_valid,
        spectrum=spectrum,
        num_timed=timed,
        num_batches=num_batches,
    )


def _time(steps: Iterable[object], budget: float) -> tuple[float, int]:
    """Mean seconds of a step, and how many were timed. A single step is timed with its warm-up."""
    clock = time.perf_counter
    ends = [clock()]
    for number, _ in enumerate(steps):
        ends.append(clock())
        timed = number + 1 - _WARM_UP
        if timed >= _MOST or (timed >= _FEWEST and ends[-1] - ends[_WARM_UP] > budget):
            break
    first = _WARM_UP if len(ends) > _WARM_UP + 1 else 0
    num_timed = len(ends) - 1 - first
    return (ends[-1] - ends[first]) / max(1, num_timed), num_timed


def _time_spectrum(task: Task, candidate: Candidate, training: Training) -> float:
    """Seconds of a whole spectrum, by a line through two short ones."""
    total = measured_runs(task, candidate.model, candidate.device)
    length = max((len(run.inputs) for run in total), default=0)
    short, long = (min(steps, length) for steps in _STEPS)
    measured: Callable[[int], object] = lambda steps: recurrent_spectra(  # noqa: E731
        task, candidate.model, seed=training.seed, jacobian=training.spectrum_state, num_steps=steps
    )
    measured(short)
    times = []
    for steps in (short, long):
        started = time.perf_counter()
        measured(steps)
        times.append(time.perf_counter() - started)
    if long == short:
        return times[1]
    return max(times[1], times[1] + (times[1] - times[0]) / (long - short) * (length - long))
