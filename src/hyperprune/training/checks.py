"""Whether a candidate could be trained, told before anything is written."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from hyperprune.errors import HyperpruneError, InputError
from hyperprune.tasks.contract import BatchLoss, Task
from hyperprune.training.candidate import Candidate, Training
from hyperprune.training.isolation import isolated
from hyperprune.training.measure import recurrent_spectra
from hyperprune.training.nested import to_device


def check_trainable(task: Task, training: Training, *, needs_spectrum: bool) -> bool:
    """Build all that `advance` builds and try one batch; nothing is written.

    Args:
        task: what would be trained.
        training: how.
        needs_spectrum: whether it is an error if the task names no recurrent module.

    Returns:
        Whether spectra can be measured.

    Raises:
        InputError: the sparsity leaves a tensor no weight, a prunable name does not exist, the task breaks
            its contract, or its code fails.
    """
    with isolated(device=training.device, threads=training.threads, seed=training.seed):
        with _blaming(task, "model"):
            candidate = Candidate(task, training, Path(), {})
        with _blaming(task, "batches or loss"):
            for split in ("valid", "train"):
                batch = next(iter(candidate.batches(split, 1)), None)
                if batch is None:
                    raise InputError(
                        f"the {split} split must hold at least one batch, got none; check Task.batches"
                    )
                outcome = task.loss(candidate.model, batch, None)
            _check_loss(task, outcome)
            outcome.loss.backward()
        with candidate.evaluating(), _blaming(task, "recurrent"):
            if not needs_spectrum and not _has_recurrence(task, candidate):
                return False
            state = training.spectrum_state
            recurrent_spectra(task, candidate.model, seed=training.seed, jacobian=state, quick=True)
            return True


def check_buildable(task: Task, training: Training) -> None:
    """Build the model, the optimizer and the masks that `advance` builds, and nothing more.

    Raises:
        InputError: the method cannot prune this model with this optimizer to this sparsity.
    """
    with (
        isolated(device=training.device, threads=training.threads, seed=training.seed),
        _blaming(task, "model"),
    ):
        Candidate(task, training, Path(), {})


def _has_recurrence(task: Task, candidate: Candidate) -> bool:
    try:
        return bool(task.recurrent(candidate.model, to_device(task.spectrum_batch(), candidate.device)))
    except InputError:  # a text too short for the measured window
        return False


def _check_loss(task: Task, outcome: object) -> None:
    if not isinstance(outcome, BatchLoss):
        raise InputError(f"Task.loss must return a hyperprune.BatchLoss, got {type(outcome).__name__}")
    if not isinstance(outcome.loss, torch.Tensor) or outcome.loss.ndim != 0:
        raise InputError("BatchLoss.loss must be a tensor without axes; take the mean over the batch")
    if not isinstance(outcome.num_items, int) or outcome.num_items < 1:
        raise InputError(f"BatchLoss.num_items must be a whole number from 1 up, got {outcome.num_items!r}")


@contextmanager
def _blaming(task: Task, part: str) -> Iterator[None]:
    """Turn what a task's own code raises into an error that says where."""
    try:
        yield
    except HyperpruneError:
        raise
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        raise InputError(
            f"task {task.name!r} must train, and its {part} raised {type(error).__name__}: {error} "
            f"({Path(place.filename).name}, line {place.lineno})"
        ) from error
