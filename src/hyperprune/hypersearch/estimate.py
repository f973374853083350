"""What a search will take, before anything is trained: epochs from the strategy, time from a timed epoch."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hyperprune.hypersearch.reference import dense_training
from hyperprune.hypersearch.strategy import Strategy
from hyperprune.tasks.contract import Task
from hyperprune.training.checks import check_trainable
from hyperprune.training.timing import EpochCost, time_epoch


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """How long a search will take.

    Attributes:
        cost: of one epoch of the dense model.
        epochs: of all candidates and of the dense reference.
        epochs_in_turn: epochs that the workers take one after the other, each round waiting for its last one.
    """

    cost: EpochCost
    epochs: int
    epochs_in_turn: int

    @property
    def seconds(self) -> float:
        return self.cost.seconds * self.epochs_in_turn


def estimate(
    task: Task, strategy: Strategy, *, workers: int, threads: int, device: str, reference_epochs: int = 0
) -> Estimate:
    """Time an epoch of the dense model and scale it to the search; nothing is written.

    The dense reference is trained for `reference_epochs` already.

    A pruned candidate is taken to cost as much as the dense model, which it does where zeros are multiplied,
    and workers not to slow each other down, which they do a little.
    """
    training = dense_training(
        strategy.final_epochs, device=device, threads=threads, spectrum_state=strategy.spectrum_state
    )
    measures = check_trainable(task, training, needs_spectrum=False)
    stages = strategy.rehearse(reference_epochs=reference_epochs).stages
    return Estimate(
        cost=time_epoch(task, replace(training, measure_spectrum=measures)),
        epochs=sum(map(sum, stages)),
        epochs_in_turn=sum(_in_turn(stage, workers) for stage in stages),
    )


def _in_turn(jobs: list[int], workers: int) -> int:
    """The longest worker's epochs when each takes the longest job that is left."""
    loads = [0] * workers
    for job in sorted(jobs, reverse=True):
        loads[loads.index(min(loads))] += job
    return max(loads)
