"""One candidate, brought to a given epoch.

`advance` is a pure function of (task, method, sparsity, seed, epochs): the same in the caller's process
and in a worker, after a crash and without one, bit for bit on the same kind of machine.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from hyperprune.errors import InputError
from hyperprune.records import EpochRecord
from hyperprune.tasks.contract import Task
from hyperprune.training.candidate import CHECKPOINTS, Candidate, Probe, Training
from hyperprune.training.isolation import isolated


@dataclass(frozen=True, kw_only=True)
class Advance:
    """How far a candidate came.

    Attributes:
        epochs: the records of epochs 0 … the last one trained.
        best_epoch: the one whose weights `best.pt` holds; None if only epoch 0 was reached.
        failure: why training stopped early (a loss that is not finite); None if it did not.
        notes: what a user should be told (a damaged checkpoint was left aside).
    """

    epochs: tuple[EpochRecord, ...]
    best_epoch: int | None
    failure: str | None = None
    notes: tuple[str, ...] = ()


def advance(
    task: Task,
    training: Training,
    folder: Path,
    to_epoch: int,
    *,
    on_epoch: Callable[[EpochRecord], None] | None = None,
    best_weights_extra: dict[str, Any] | None = None,
    probe: Probe | None = None,
) -> Advance:
    """Train a candidate up to `to_epoch` epochs in all, from its newest whole checkpoint in `folder`.

    Args:
        task: what is trained.
        training: how it is pruned and trained.
        folder: the candidate's own; created if missing.
        to_epoch: total epochs to reach; 0 evaluates and measures the untrained network.
        on_epoch: called with the record of each epoch as it ends, epochs found in the checkpoint excluded.
        best_weights_extra: JSON values stored beside the best weights (how to rebuild the model).
        probe: called at the moments of each epoch trained; training is the same, bit for bit, without it (on
            a GPU with dropout between recurrent layers only if it draws nothing from the GPU's generator). An
            epoch's moments are over before its checkpoint is written, so that what a probe writes of an
            epoch is there for every epoch of a checkpoint, and is written again if the epoch is.

    Raises:
        InputError: the task or the settings break a rule (no recurrent module, no CUDA device, …).
    """
    with isolated(device=training.device, threads=training.threads, seed=training.seed):
        candidate = Candidate(task, training, folder, best_weights_extra or {}, probe)
        candidate.restore(to_epoch)
        while candidate.failure is None and candidate.next_epoch <= to_epoch:
            record = candidate.run_epoch(candidate.next_epoch)
            if record is not None and on_epoch is not None:
                on_epoch(record)
        return Advance(
            epochs=tuple(candidate.records),
            best_epoch=candidate.best_epoch,
            failure=candidate.failure,
            notes=tuple(candidate.notes),
        )


def model_after(task: Task, training: Training, folder: Path, epoch: int) -> nn.Module:
    """The network after an epoch that `advance` left a checkpoint of, on the CPU, in evaluation mode.

    With averaged weights where the optimizer averages; a topology update at the epoch's end is included.
    `best.pt` holds the best validation epoch's in its place.

    Args:
        task, training, folder: as `advance` was called with.
        epoch: the last one trained; its checkpoint goes with the `best.pt` that it left.

    Raises:
        InputError: `folder` has no whole checkpoint of it.
    """
    with isolated(device=training.device, threads=training.threads, seed=training.seed):
        candidate = Candidate(task, training, folder, {})
        candidate.restore(epoch)
        if candidate.next_epoch != epoch + 1:
            raise InputError(f"{folder} must hold a whole checkpoint of epoch {epoch}; train again")
        with candidate.evaluating():
            return copy.deepcopy(candidate.model).to("cpu")


def end(folder: Path) -> None:
    """Remove what training goes on from; the weights of the best epoch stay."""
    for path in folder.glob(CHECKPOINTS):
        path.unlink(missing_ok=True)
