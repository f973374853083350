"""A candidate: model, data, optimizer, sparsity and spectrum wired together, and the loop over its epochs.

What it needs to go on lies in its folder, one checkpoint per epoch (the two newest are kept) and the
weights of the best epoch.

Order of one epoch, as hyperpruning defines it: train, evaluate and measure the spectrum on the weights
that evaluation uses, then let the method change the topology.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_

from hyperprune.errors import HyperpruneError, InputError, NumericsError
from hyperprune.optim import SNTASGD, NonMonotonic
from hyperprune.records import EpochRecord, Topology
from hyperprune.rng import generator
from hyperprune.sparsity.gradual import GradualMethod
from hyperprune.sparsity.method import Method
from hyperprune.sparsity.training import SparseTraining
from hyperprune.tasks.contract import Evaluation, Task
from hyperprune.training.checkpoint import DamagedCheckpointError, load_checkpoint, save_checkpoint
from hyperprune.training.isolation import begin_dropout_anew, random_state, restore_random_state
from hyperprune.training.measure import recurrent_spectra
from hyperprune.training.nested import detached, to_device
from hyperprune.training.optimizer import build_optimizer
from hyperprune.training.starting import starting_masks
from hyperprune.training.variants import with_model

BEST_WEIGHTS = "best.pt"
CHECKPOINTS = "epoch-*.pt"
_KEPT_CHECKPOINTS = 2  # the second one is the fallback for a damaged newest one


@dataclass(frozen=True, kw_only=True)
class Training:
    """All that decides a candidate's weights, besides the task.

    Attributes:
        method: the pruning method.
        sparsity: share of the prunable weights to remove, in [0, 1).
        total_epochs: the length that schedules (the death rate's cosine) span.
        seed: of the run. Every candidate of a run starts from the same weights and sees the same data.
        name: tells the candidate's random draws from those of the run's other candidates.
        device: "cpu", "cuda", "cuda:1", …
        threads: of the CPU; part of the identity, since sums depend on it.
        measure_spectrum: whether to measure the Lyapunov spectrum at every epoch.
        spectrum_state: of which state, "hidden" (an LSTM's cell state held) or "full".
        model: (name, value) pairs of the task's table [model] that this candidate changes.
    """

    method: Method
    sparsity: float
    total_epochs: int
    seed: int
    name: str
    device: str = "cpu"
    threads: int = 1
    measure_spectrum: bool = True
    spectrum_state: Literal["hidden", "full"] = "hidden"
    model: tuple[tuple[str, Any], ...] = field(default=(), repr=False)  # the task's identity tells it


class Moment(NamedTuple):
    """What a probe is shown: the live objects, to look at and not to change.

    Attributes:
        kind: "gradients" of a training step, dead weights' are 0, before clipping; "before_update" and
            "after_update" of the topology at an epoch's end (also of epoch 0, where nothing is updated), in
            evaluation mode, the raw weights in place and not their averages.
        epoch: 0 is before training.
        record: the epoch's, once it has ended.
    """

    kind: Literal["gradients", "before_update", "after_update"]
    epoch: int
    model: nn.Module
    optimizer: torch.optim.Optimizer
    sparse: SparseTraining
    record: EpochRecord | None


Probe = Callable[[Moment], None]


class UnfitError(HyperpruneError):
    """The method cannot go on with this network: the candidate fails, and no other with it."""


def identity_of(task: Task, training: Training) -> str:
    """A checksum of all that decides a candidate's weights; a checkpoint of another one is never used."""
    text = json.dumps([task.identity(), repr(training)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def epoch_of_best(folder: Path) -> int:
    """The epoch whose weights a candidate's `best.pt` holds.

    Raises:
        InputError: there are none, or they are damaged.
    """
    return json.loads(load_checkpoint(folder / BEST_WEIGHTS)["described"])["epoch"]


def _refuse_unjudged_pruning(training: Training) -> None:
    """An epoch's network is judged before the pruning at its end, so that the last epoch must have none."""
    method, epochs = training.method, training.total_epochs
    if not isinstance(method, GradualMethod) or training.sparsity == 0:
        return
    if (last := method.last_epoch(epochs)) is not None and last >= epochs:
        raise InputError(
            f"the last pruning must come before the last of {epochs} epochs, so that its network is trained "
            f"and judged, and {method.name} with end {method.end:g} and update_every {method.update_every!r} "
            "prunes after it; lower end, train longer, or prune every so many steps"
        )


def _epoch_of(checkpoint: Path) -> int:
    return int(checkpoint.stem.removeprefix("epoch-"))


class Candidate:
    """The live objects of one candidate, and the loop over them."""

    def __init__(
        self,
        task: Task,
        training: Training,
        folder: Path,
        extra: dict[str, Any],
        probe: Probe | None = None,
    ) -> None:
        _refuse_unjudged_pruning(training)
        task = with_model(task, dict(training.model))
        self.task, self.training, self.folder, self.extra = task, training, folder, extra
        self.probe = probe
        self.device = torch.device(training.device)
        self.model = task.model(generator(training.seed, "weights")).to(self.device)
        self.optimizer = build_optimizer(self.model, task.recipe)
        steps_per_epoch = task.steps_per_epoch()
        self.sparse = SparseTraining(
            self.model,
            self.optimizer,
            training.method,
            sparsity=training.sparsity,
            total_steps=max(1, steps_per_epoch * training.total_epochs),
            steps_per_epoch=steps_per_epoch,
            generator=generator(training.seed, "topology", training.name),
            parameters=task.prunable(self.model),
            masks=starting_masks(task, self.model, training.method, training.sparsity, training.seed),
            rescale_weights=task.recipe.rescale_weights,
        )
        self.identity = identity_of(task, training)
        self.trigger = NonMonotonic(patience=task.recipe.patience)
        self._num_rewinds = 0
        self.records: list[EpochRecord] = []
        self.best_epoch: int | None = None
        self.failure: str | None = None
        self.notes: list[str] = []

    @property
    def next_epoch(self) -> int:
        return len(self.records)

    def run_epoch(self, epoch: int) -> EpochRecord | None:
        """Train (unless epoch is 0), evaluate, measure, record, save. None if the candidate failed."""
        started = time.perf_counter()
        train_loss = None
        if epoch > 0:
            try:
                train_loss = self._train(epoch)
            except (NumericsError, UnfitError) as error:  # of a topology update between steps
                self.failure = f"training failed in epoch {epoch}: {error}"
                return None
            if not math.isfinite(train_loss):
                self.failure = f"the training loss became {train_loss} in epoch {epoch}"
                return None
            self._watch_anew_if_rewound()
        with self.evaluating():
            outcome = Evaluation(*map(float, self.task.evaluate(self.model, self.batches("valid", epoch))))
            seconds = time.perf_counter() - started
            if not (math.isfinite(outcome.loss) and math.isfinite(outcome.metric)):
                self.failure = (
                    f"validation gave the loss {outcome.loss} and the {self.task.metric} {outcome.metric} in "
                    f"epoch {epoch}"
                )
                return None
            try:
                spectrum = self._spectrum() if self.training.measure_spectrum else None
            except NumericsError as error:
                self.failure = f"the spectrum of epoch {epoch} cannot be measured: {error}"
                return None
            record = EpochRecord(
                epoch=epoch,
                train_loss=train_loss,
                valid_loss=outcome.loss,
                metric=outcome.metric,
                seconds=seconds,
                spectrum=spectrum,
                spectrum_seconds=time.perf_counter() - started - seconds,
                **self._sparsity(),
                averaging=isinstance(self.optimizer, SNTASGD) and self.optimizer.triggered,
                # At the end a network is what its method left, even if that missed the target.
                at_sparsity=self.sparse.at_sparsity or epoch >= self.training.total_epochs,
            )
            self.records.append(record)
            if epoch > 0 and record.at_sparsity and self._is_best(record):
                self.best_epoch = epoch
                self._save_best(record)
        self._show("before_update", epoch, record)
        if epoch > 0:
            try:
                self._prune(self.sparse.end_epoch)
            except UnfitError as error:
                self.failure = f"the topology update after epoch {epoch} failed: {error}"
                return None
        self._show("after_update", epoch, record)
        is_judged = epoch > 0 and not self._watch_anew_if_rewound()
        if is_judged and isinstance(self.optimizer, SNTASGD) and self.trigger.should_trigger(outcome.loss):
            self.optimizer.trigger()
        self._save()
        return record

    def _watch_anew_if_rewound(self) -> bool:
        """Forget the losses so far if the method went back to earlier weights since the last call."""
        is_rewound = self.sparse.num_rewinds > self._num_rewinds
        if is_rewound:
            self._num_rewinds = self.sparse.num_rewinds
            self.trigger = NonMonotonic(patience=self.task.recipe.patience)
        return is_rewound

    def _train(self, epoch: int) -> float:
        """One pass over the training batches; the mean loss per item, or the first that is not finite."""
        self.model.train()
        total, num_items = 0.0, 0
        for value, count in self.train_steps(epoch):
            if not math.isfinite(value):
                return value
            total += value * count
            num_items += count
        if num_items == 0:
            raise InputError("the training split must hold at least one batch, got none; check Task.batches")
        return total / num_items

    def train_steps(self, epoch: int) -> Iterator[tuple[float, int]]:
        """Train on one batch after the other; the loss and number of items of each.

        A loss that is not finite is given without a step, and is the last one.
        """
        state, clip_norm = None, self.task.recipe.clip_norm
        begin_dropout_anew(self.device)  # checkpoints lie between epochs: a resumed one begins as any does
        for batch in self.batches("train", epoch):
            outcome = self.task.loss(self.model, batch, state)
            value = outcome.loss.item()
            if not math.isfinite(value):
                yield value, outcome.num_items
                return
            self.optimizer.zero_grad(set_to_none=True)
            outcome.loss.backward()
            self.sparse.mask_gradients()
            self._show("gradients", epoch)
            if clip_norm is not None:
                clip_grad_norm_(self.model.parameters(), clip_norm)
            self._prune(self.sparse.step)
            state = detached(outcome.state)
            yield value, outcome.num_items

    def _prune(self, change: Callable[[], None]) -> None:
        """Let the method do its part; what it refuses is of this candidate, not of the run's input."""
        try:
            change()
        except (InputError, NumericsError) as error:
            raise UnfitError(str(error)) from error

    def _show(
        self,
        kind: Literal["gradients", "before_update", "after_update"],
        epoch: int,
        record: EpochRecord | None = None,
    ) -> None:
        if self.probe is None:
            return
        moment = Moment(kind, epoch, self.model, self.optimizer, self.sparse, record)
        before = random_state(self.device)
        with torch.no_grad():
            self.probe(moment)
        restore_random_state(before, self.device)

    def batches(self, split: Any, epoch: int) -> Iterator[Any]:
        """A split's batches on the candidate's device."""
        return (to_device(batch, self.device) for batch in self.task.batches(split, epoch))

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        averages: AbstractContextManager[Any] = (
            self.optimizer.averaged() if isinstance(self.optimizer, SNTASGD) else nullcontext()
        )
        self.model.eval()
        with torch.no_grad(), averages:
            yield

    def _spectrum(self) -> np.ndarray:
        """The compared vector: per layer sorted, layers and modules concatenated."""
        spectra = recurrent_spectra(
            self.task, self.model, seed=self.training.seed, jacobian=self.training.spectrum_state
        )
        return np.concatenate([spectrum.concatenated for spectrum in spectra])

    def _sparsity(self) -> dict[str, Any]:
        """What the record says of the live weights."""
        summary = self.sparse.summary()
        density = {row.name: row.density for row in summary}
        if self.training.method.name == "dense":
            return {"density": density}
        topology = Topology(
            gate_density={row.name: row.gate_densities for row in summary if row.gates},
            num_updates=self.sparse.num_updates,
            turnover=self.sparse.turnover,
            explored=self.sparse.explored,
        )
        return {"density": density, "topology": topology}

    def _is_best(self, record: EpochRecord) -> bool:
        if self.best_epoch is None:
            return True
        best = self.records[self.best_epoch].metric
        return record.metric < best if self.task.lower_is_better else record.metric > best

    def _save_best(self, record: EpochRecord) -> None:
        described = {
            "task": self.task.name,
            "metric": {self.task.metric: record.metric},
            "epoch": record.epoch,
            "seed": self.training.seed,
            "sparsity": self.training.sparsity,
            "method": self.training.name,
            "model_settings": dict(self.training.model),
            **self.extra,
        }
        content = {"kind": "weights", "model": self.model.state_dict(), "described": json.dumps(described)}
        save_checkpoint(self.folder / BEST_WEIGHTS, content)

    def _save(self) -> None:
        content = {
            "kind": "training",
            "identity": self.identity,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "sparse": self.sparse.state_dict(),
            "trigger": self.trigger.state_dict(),
            "random": random_state(self.device),
            "records": json.dumps([record.to_json() for record in self.records]),
            "best_epoch": self.best_epoch,
        }
        now = self.records[-1].epoch
        save_checkpoint(self.folder / f"epoch-{now:05d}.pt", content)
        for path in self._checkpoints():  # one beyond this epoch was passed over, or is damaged
            if not now - _KEPT_CHECKPOINTS < _epoch_of(path) <= now:
                path.unlink(missing_ok=True)

    def _checkpoints(self) -> list[Path]:
        """The candidate's checkpoints, newest first."""
        return sorted(self.folder.glob(CHECKPOINTS), reverse=True)

    def restore(self, to_epoch: int) -> None:
        """Go back to the newest whole checkpoint not beyond `to_epoch`; a damaged one is passed over."""
        for path in self._checkpoints():
            epoch = _epoch_of(path)
            if epoch > to_epoch:
                continue
            try:
                content = load_checkpoint(path)
                if content.get("identity") != self.identity:
                    raise InputError(f"{path} belongs to another run")
                if content["best_epoch"] is not None:
                    saved = epoch_of_best(self.folder)
                    # Those of an epoch that is still to be trained will be saved again.
                    if saved != content["best_epoch"] and not epoch < saved <= to_epoch:
                        raise InputError(
                            f"{self.folder / BEST_WEIGHTS} must hold the weights of epoch "
                            f"{content['best_epoch']}, got those of epoch {saved}"
                        )
            except InputError as error:
                kind = "damaged" if isinstance(error, DamagedCheckpointError) else "unreadable"
                self.notes.append(f"left a {kind} checkpoint aside and train again from before it: {error}")
                continue
            self.model.load_state_dict(content["model"])
            self.optimizer.load_state_dict(content["optimizer"])
            self.sparse.load_state_dict(content["sparse"])
            self.trigger.load_state_dict(content["trigger"])
            self._num_rewinds = self.sparse.num_rewinds
            restore_random_state(content["random"], self.device)
            self.records = [EpochRecord.from_json(entry) for entry in json.loads(content["records"])]
            self.best_epoch = content["best_epoch"]
            return
