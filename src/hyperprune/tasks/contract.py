"""What a task is: data, model, loss, metric and its direction, and where the recurrence sits.

A user's task is a subclass of `Task` with four methods. A search calls them in worker processes, so a
task must be importable there (`hyperprune search my_task.py:task` sees to it) or picklable. Workers may
start no processes of their own: with `workers` above 1, a DataLoader must have `num_workers=0`.
"""

from __future__ import annotations

import hashlib
import inspect
import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass
from functools import cached_property
from pathlib import Path, PurePath
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from hyperprune.errors import InputError, unknown_name

Split = Literal["train", "valid", "test"]
OPTIMIZERS = ("sgd", "snt_asgd", "adam", "adamw", "rmsprop")


class BatchLoss(NamedTuple):
    """What `Task.loss` returns.

    Attributes:
        loss: scalar, the mean over the batch's items (words, sequences), to call `backward` on.
        num_items: over how many items the mean goes; an epoch's mean is weighted by it.
        state: what the next batch of the same epoch starts from (truncated backpropagation through time);
            None if batches are independent. It is detached before it is handed back: a tensor, or tuples,
            lists, dicts, dataclasses of them.
    """

    loss: Tensor
    num_items: int
    state: Any = None


class RecurrentRun(NamedTuple):
    """One recurrent module and a sequence that drives it, for its Lyapunov spectrum.

    Attributes:
        module: anything `hyperprune.lyapunov_spectrum` takes.
        inputs: (T, B, features); the first `Task.spectrum_warmup` steps are the warm-up.
        state: the initial state; None is zero.
    """

    module: Any
    inputs: Tensor
    state: Any = None


class Evaluation(NamedTuple):
    """Mean loss per item and the task's metric on a split."""

    loss: float
    metric: float


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How weights are trained, whatever the pruning method.

    Attributes:
        optimizer: one of "sgd", "snt_asgd" (Liu et al. 2021), "adam", "adamw", "rmsprop".
        learning_rate: above 0.
        momentum: for "sgd", "snt_asgd" and "rmsprop", in [0, 1).
        weight_decay: 0 or more.
        clip_norm: largest gradient norm, live weights only; None does not clip.
        patience: "snt_asgd" starts to average when the validation loss is worse than the best one before
            the last `patience` epochs (non-monotonic trigger, Merity et al. 2018). For it alone.
        rescale_weights: scale a sparse tensor's initial weights by 1/sqrt(density), which keeps the
            variance of its live fan-in. Without it small sparse networks linger on the baseline.
    """

    optimizer: str = "adam"
    learning_rate: float = 1e-3
    momentum: float = 0.0
    weight_decay: float = 0.0
    clip_norm: float | None = None
    patience: int = 5
    rescale_weights: bool = True

    def __post_init__(self) -> None:
        if self.optimizer not in OPTIMIZERS:
            raise unknown_name("optimizer", self.optimizer, OPTIMIZERS)
        if not (self.learning_rate > 0 and math.isfinite(self.learning_rate)):
            raise InputError(f"learning_rate must be above 0, got {self.learning_rate}; try 1e-3 with adam")
        if not 0 <= self.momentum < 1:
            raise InputError(f"momentum must lie in [0, 1), got {self.momentum}; 0 switches it off")
        if self.momentum and self.optimizer not in ("sgd", "snt_asgd", "rmsprop"):
            raise InputError(
                f"momentum is for sgd, snt_asgd and rmsprop, got it with {self.optimizer}; remove it or "
                "choose sgd"
            )
        if not (self.weight_decay >= 0 and math.isfinite(self.weight_decay)):
            raise InputError(f"weight_decay must be 0 or more, got {self.weight_decay}; 0 is none")
        if self.clip_norm is not None and not (self.clip_norm > 0 and math.isfinite(self.clip_norm)):
            raise InputError(f"clip_norm must be above 0, got {self.clip_norm}; leave it out to not clip")
        if self.patience < 1:
            raise InputError(f"patience must be at least 1 epoch, got {self.patience}; 5 is usual")
        if self.patience != type(self).patience and self.optimizer != "snt_asgd":
            raise InputError(
                f"patience is for snt_asgd, got {self.patience} with {self.optimizer}; leave it at "
                f"{type(self).patience} or choose snt_asgd"
            )


class Task(ABC):
    """A model to prune and all it takes to train, judge and measure it.

    Subclasses must give `model`, `batches`, `loss` and `recurrent`; the rest has defaults.

    Attributes:
        name: for the report.
        metric: what the metric is called; the default `evaluate` reports the mean loss.
        lower_is_better: the metric's direction.
        sparsity: the share of prunable weights removed unless the search says otherwise.
        recipe: how weights are trained.
        spectrum_warmup: steps of `recurrent`'s inputs that only align the tangent frame.
        padded: batches are padded behind their sequences' ends, and `recurrent` leaves the padding out.
        search_defaults: settings of `LSH` for a search of this task that names none.
        source: how `hyperprune.tasks.registry` can make this task again, as JSON; stored beside weights.
            None for a task that a program made, or changed, itself.
    """

    name: str = "task"
    metric: str = "loss"
    lower_is_better: bool = True
    sparsity: float = 0.67
    recipe: Recipe = Recipe()
    spectrum_warmup: int = 10
    padded: bool = False
    search_defaults: Mapping[str, int] = MappingProxyType({})
    source: Mapping[str, Any] | None = None

    @abstractmethod
    def model(self, generator: torch.Generator) -> nn.Module:
        """A fresh model on the CPU; every random number of its weights comes from `generator`."""

    @abstractmethod
    def batches(self, split: Split, epoch: int) -> Iterable[Any]:
        """A split's batches in order, on the CPU: tensors, or tuples, lists, dicts, dataclasses of them.

        The same (split, epoch) must always give the same batches; shuffle by `epoch`, from 1.
        """

    @abstractmethod
    def loss(self, model: nn.Module, batch: Any, state: Any) -> BatchLoss:
        """The loss of one batch; `state` is None at the start of an epoch, then what the last call gave."""

    @abstractmethod
    def recurrent(self, model: nn.Module, batch: Any) -> Sequence[RecurrentRun]:
        """The recurrent modules of `model` and the inputs they see on `batch`, in evaluation mode.

        Plain tuples (module, inputs, state) will do.
        """

    def spectrum_batch(self) -> Any:
        """The batch on which spectra are measured; by default the first one of the validation split."""
        return next(iter(self.batches("valid", 0)))

    def evaluate(self, model: nn.Module, batches: Iterable[Any]) -> Evaluation:
        """Mean loss and metric of `model`, in evaluation mode, over a split's batches on its device."""
        total, num_items, state = 0.0, 0, None
        for batch in batches:
            outcome = self.loss(model, batch, state)
            total += outcome.loss.item() * outcome.num_items
            num_items += outcome.num_items
            state = outcome.state
        if num_items == 0:
            raise InputError("a split must hold at least one batch, got none; check Task.batches")
        mean = total / num_items
        return Evaluation(mean, self.metric_of_loss(mean))

    def metric_of_loss(self, loss: float) -> float:
        """The metric as a function of the mean loss, where it is one (perplexity); used by `evaluate`."""
        return loss

    def prunable(self, model: nn.Module) -> Sequence[str] | None:
        """Names of the parameters that may be pruned; None is every weight matrix, embeddings included."""
        return None

    def steps_per_epoch(self) -> int:
        """Training batches per epoch; the default counts them."""
        return sum(1 for _ in self.batches("train", 1))

    def baseline(self) -> tuple[str, float] | None:
        """Name and value of the metric that needs no learning, to tell candidates that learn nothing."""
        return None

    def identity(self) -> dict[str, Any]:
        """All that decides this task's results, as JSON; a run goes on only under the same identity.

        The default takes the class and its bases with the checksums of their source files, the recipe, and
        the task's own attributes: numbers, texts, paths, arrays, tensors and containers of them by value,
        others by their type, and none that a `cached_property` computes. What else a task keeps from its work
        (a dictionary that fills) would change it. Override it there, and where such an attribute, or a file
        that the task reads, decides the results.
        """
        own = [
            kind
            for kind in type(self).__mro__
            if kind.__module__ != "abc" and not kind.__module__.startswith("hyperprune.")
        ]
        return {
            "name": self.name,
            "classes": {kind.__qualname__: _source_checksum(kind) for kind in own if kind is not object},
            "metric": self.metric,
            "lower_is_better": self.lower_is_better,
            "spectrum_warmup": self.spectrum_warmup,
            "recipe": asdict(self.recipe),
            "attributes": {
                name: as_json(value)
                for name, value in sorted(own_attributes(self).items())
                if name not in ("name", "recipe")
            },
        }


def own_attributes(task: Task) -> dict[str, Any]:
    """The attributes that make a task what it is, not those that are computed from the others."""
    return {
        name: value
        for name, value in vars(task).items()
        if name not in ("source", "search_defaults")
        and not isinstance(getattr(type(task), name, None), cached_property)
    }


SOURCE_CHECKSUM = "__hyperprune_source_checksum__"
"""In the module that a user's file became: the checksum of what was executed, for the file may change."""


def _source_checksum(kind: type) -> str:
    executed = getattr(sys.modules.get(kind.__module__), SOURCE_CHECKSUM, None)
    if executed is not None:
        return executed
    try:
        return hashlib.sha256(Path(inspect.getfile(kind)).read_bytes()).hexdigest()
    except (OSError, TypeError):
        return "no source file"


def _type_name(value: Any) -> str:
    return type(value).__qualname__


def as_json(value: Any, other: Callable[[Any], Any] = _type_name) -> Any:
    """A value as JSON can hold it, arrays and bytes by checksum; what it cannot is what `other` gives."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool | int | float | str) or value is None:
        return value
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, bytes | bytearray):
        return hashlib.sha256(value).hexdigest()
    if isinstance(value, Mapping):
        return {str(key): as_json(item, other) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(item, other) for item in value]
    if isinstance(value, set | frozenset):
        return sorted((as_json(item, other) for item in value), key=repr)
    if is_dataclass(value) and not isinstance(value, type):
        return as_json({field.name: getattr(value, field.name) for field in fields(value)}, other)
    if isinstance(value, Tensor):
        flat = value.detach().cpu().resolve_conj().resolve_neg().contiguous().flatten()
        return _checksum(value.dtype, value.shape, flat.view(torch.uint8).numpy())
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return _checksum(value.dtype, value.shape, value)
    if isinstance(value, np.ndarray):
        return as_json(value.tolist(), other)
    return other(value)


def _checksum(dtype: Any, shape: Sequence[int], content: np.ndarray) -> str:
    return hashlib.sha256(f"{dtype} {tuple(shape)} ".encode() + content.tobytes()).hexdigest()
