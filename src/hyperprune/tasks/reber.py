"""Is a string valid? Reber strings drawn on the spot, or strings of files; the metric is the accuracy.

Recipe and sizes are those of Darji (2021, arXiv 2407.20601), called the thesis here, section 5.1: three
recurrent layers of 50, Adam at 1e-3, gradients clipped at 5, batch 32, 50 epochs.

Axes: T time (characters), B batch, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional

from hyperprune.data.reber import ReberSettings, generate
from hyperprune.data.strings import (
    NUM_CODES,
    LabelledStrings,
    PaddedBatch,
    load_strings,
    padded_batch,
    padded_batches,
)
from hyperprune.errors import InputError
from hyperprune.models.strings import StringClassifier, StringClassifierSettings
from hyperprune.rng import generator as named_generator
from hyperprune.tasks.contract import BatchLoss, Evaluation, Recipe, RecurrentRun, Split, Task

NUM_SAMPLES = 10  # validation strings on which spectra are measured
RECIPE = Recipe(optimizer="adam", learning_rate=1e-3, clip_norm=5.0)
FILES = {"train": "train_data.csv", "test": "test_data.csv"}


@dataclass(frozen=True, kw_only=True)
class StringSettings:
    """Which strings, how many, in what portions.

    Attributes:
        folder: with `train_data.csv` and `test_data.csv` (the thesis's format) in place of strings drawn;
            None draws them.
        train_strings: how many; of a file the first ones, or all there are.
        valid_strings: how many; of files the last ones of the training file.
        test_strings: as `train_strings`.
        embedded: draw strings of the embedded grammar.
        min_length: letters of the shortest string drawn.
        max_length: letters of the longest one, at most 2000.
        lengths: those of a random walk on the grammar ("walk"), or each equally likely ("uniform").
        valid_share: of the strings drawn, in [0, 1].
        changes: what makes a false string of a valid one, names of `hyperprune.data.reber.CHANGES`; () is all
            that fit the grammar.
        distinct: no string is drawn twice, across splits too.
        seed: of the strings drawn; the same for every candidate and every run.
        batch_size: strings of a training batch, drawn in a new order in each epoch.
        by_length: batches of strings of like lengths, which train faster for having little padding.
        eval_batch_size: strings of a validation or test batch.
    """

    folder: str | None = None
    train_strings: int = 18_750
    valid_strings: int = 2_000
    test_strings: int = 6_250
    embedded: bool = False
    min_length: int = 11
    max_length: int = 53
    lengths: Literal["walk", "uniform"] = "walk"
    valid_share: float = 0.5
    changes: tuple[str, ...] = ()
    distinct: bool = True
    seed: int = 0
    batch_size: int = 32
    by_length: bool = False
    eval_batch_size: int = 500

    def __post_init__(self) -> None:
        for name in ("train_strings", "valid_strings", "test_strings", "batch_size", "eval_batch_size"):
            if getattr(self, name) < 1:
                raise InputError(
                    f"{name} must be at least 1, got {getattr(self, name)}; leave it out for its default"
                )
        if self.valid_strings < NUM_SAMPLES:
            raise InputError(
                f"valid_strings must be at least {NUM_SAMPLES}, on which spectra are measured, got "
                f"{self.valid_strings}"
            )
        for field in fields(self):
            drawn = field.name in _DRAWN or field.name == "seed"
            if self.folder is not None and drawn and getattr(self, field.name) != field.default:
                raise InputError(
                    f"{field.name} is for strings drawn from the grammar, got it with folder "
                    f"{self.folder!r}; leave one of the two out"
                )
        if self.folder is None:
            self.drawn()

    def drawn(self) -> ReberSettings:
        """What is drawn where there is no folder."""
        num_strings = self.train_strings + self.valid_strings + self.test_strings
        return ReberSettings(num_strings=num_strings, **{name: getattr(self, name) for name in _DRAWN})


_DRAWN = [field.name for field in fields(ReberSettings) if field.name != "num_strings"]


class ReberTask(Task):
    """Tell valid strings from false ones.

    Args:
        model: cell and sizes.
        strings: which, and how many.
        recipe: how weights are trained.
    """

    name = "reber"
    metric = "accuracy"  # a share in [0, 1]
    lower_is_better = False
    padded = True

    def __init__(
        self,
        *,
        model: StringClassifierSettings | None = None,
        strings: StringSettings | None = None,
        recipe: Recipe = RECIPE,
    ) -> None:
        self.settings = model or StringClassifierSettings()
        self.strings = strings or StringSettings()
        self.recipe = recipe

    @cached_property
    def data(self) -> dict[Split, LabelledStrings]:
        """The strings of each split, drawn or read when first used.

        Raises:
            InputError: a file is missing, broken, or too short for the strings asked for.
        """
        chosen = self.strings
        if chosen.folder is not None:
            return _from_folder(Path(chosen.folder), chosen)
        everything = generate(chosen.drawn(), chosen.seed)
        first, second = chosen.train_strings, chosen.train_strings + chosen.valid_strings
        return {
            "train": everything.part(0, first),
            "valid": everything.part(first, second),
            "test": everything.part(second, len(everything)),
        }

    def model(self, generator: torch.Generator) -> nn.Module:
        return StringClassifier(self.settings, NUM_CODES, 2, generator)

    def batches(self, split: Split, epoch: int) -> Iterator[PaddedBatch]:
        if split != "train":
            return padded_batches(self.data[split], self.strings.eval_batch_size)
        order = named_generator(epoch, "order of the strings")
        return padded_batches(
            self.data[split], self.strings.batch_size, generator=order, by_length=self.strings.by_length
        )

    def loss(self, model: nn.Module, batch: PaddedBatch, state: Any) -> BatchLoss:
        logits_BC = model(batch.codes, batch.lengths)
        return BatchLoss(functional.cross_entropy(logits_BC, batch.labels), len(batch.labels))

    def evaluate(self, model: nn.Module, batches: Iterable[PaddedBatch]) -> Evaluation:
        loss, num_right, num_strings = 0.0, 0, 0
        for batch in batches:
            logits_BC = model(batch.codes, batch.lengths)
            loss += functional.cross_entropy(logits_BC, batch.labels, reduction="sum").item()
            num_right += int((logits_BC.argmax(1) == batch.labels).sum())
            num_strings += len(batch.labels)
        if num_strings == 0:
            raise InputError("a split must hold at least one string, got none; give the task more strings")
        return Evaluation(loss / num_strings, num_right / num_strings)

    def steps_per_epoch(self) -> int:
        return math.ceil(len(self.data["train"]) / self.strings.batch_size)

    def prunable(self, model: nn.Module) -> Sequence[str]:
        return model.prunable()  # pyright: ignore[reportCallIssue]

    @cached_property
    def _measured(self) -> tuple[str, ...]:
        """The longest validation strings, the first ones among equals, cut to the shortest of them."""
        strings = sorted(self.data["valid"].strings, key=len, reverse=True)[:NUM_SAMPLES]
        return tuple(string[: len(strings[-1])] for string in strings)

    @property
    def spectrum_warmup(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The first quarter of the measured strings."""
        return len(self._measured[0]) // 4

    def spectrum_batch(self) -> PaddedBatch:
        """The beginnings of the longest validation strings: no padding is measured."""
        return padded_batch(self._measured, [False] * NUM_SAMPLES)

    def recurrent(self, model: nn.Module, batch: PaddedBatch) -> list[RecurrentRun]:
        """The strings' beginnings, cut to the shortest of the batch: no padding."""
        codes = batch.codes[: int(batch.lengths.min())]
        return [RecurrentRun(*run) for run in model.recurrent_runs(codes)]  # pyright: ignore[reportCallIssue]

    def baseline(self) -> tuple[str, float]:
        share = sum(self.data["valid"].valid) / len(self.data["valid"])
        return "share of the larger class", max(share, 1 - share)

    def identity(self) -> dict[str, Any]:
        return {
            "strings_sha256": {split: strings.checksum() for split, strings in self.data.items()},
            "batch_size": self.strings.batch_size,
            "by_length": self.strings.by_length,
            "eval_batch_size": self.strings.eval_batch_size,
            "model": asdict(self.settings),
            "recipe": asdict(self.recipe),
        }

    def __getstate__(self) -> dict[str, Any]:
        """Without the strings: a worker draws or reads them again."""
        return {name: value for name, value in self.__dict__.items() if name not in ("data", "_measured")}


def _from_folder(folder: Path, chosen: StringSettings) -> dict[Split, LabelledStrings]:
    train, test = (load_strings(folder / FILES[split]) for split in ("train", "test"))
    if len(train) <= chosen.valid_strings:
        raise InputError(
            f"{folder / FILES['train']} must hold more strings than the {chosen.valid_strings} kept for "
            f"validation, got {len(train)}; lower valid_strings"
        )
    cut = len(train) - chosen.valid_strings
    return {
        "train": train.part(0, min(cut, chosen.train_strings)),
        "valid": train.part(cut, len(train)),
        "test": test.part(0, min(len(test), chosen.test_strings)),
    }
