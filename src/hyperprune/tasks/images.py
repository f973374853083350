"""Images read step by step, row by row or pixel by pixel, and named at the end; the metric is the accuracy.

Recipe and sizes are the JSE paper's (section 6): one recurrent layer, N(0, 0.1) weights, Adam at 1e-3, batch
64, 50 epochs, the last step's output; weights are not rescaled, since the start is part of what it studies.

Axes: T time, B batch, F features.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from hyperprune.data.images import NUM_CLASSES, SCANS, ImageSet, load_images
from hyperprune.errors import InputError, unknown_name
from hyperprune.models.classifier import ClassifierSettings, SequenceClassifier
from hyperprune.rng import generator as named_generator
from hyperprune.tasks.contract import BatchLoss, Evaluation, Recipe, RecurrentRun, Split, Task

NUM_SAMPLES = 10  # validation images on which spectra are measured
RECIPE = Recipe(optimizer="adam", learning_rate=1e-3, rescale_weights=False)
_Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True, kw_only=True)
class ImageSettings:
    """How images are read, and how many.

    Attributes:
        scan: "rows", one row of pixels at each time step, or "pixels", one pixel.
        train_images, valid_images, test_images: how many of each split are used, from its beginning; None
            is all of them.
        batch_size: images of a training batch, drawn in a new order in each epoch.
        eval_batch_size: images of a validation or test batch.
    """

    scan: Literal["rows", "pixels"] = "rows"
    train_images: int | None = None
    valid_images: int | None = None
    test_images: int | None = None
    batch_size: int = 64
    eval_batch_size: int = 500

    def __post_init__(self) -> None:
        if self.scan not in SCANS:
            raise unknown_name("scan", self.scan, SCANS)
        for name, value in asdict(self).items():
            if name != "scan" and value is not None and value < 1:
                raise InputError(f"{name} must be at least 1, got {value}; leave it out for the default")


class ImageTask(Task):
    """Name the digit on an image that is read as a sequence.

    Args:
        images: "digits", "mnist" or "mnist10k".
        model: cell and sizes.
        reading: how images are read.
        recipe: how weights are trained.
        data_dir: where data are looked for first.
    """

    metric = "accuracy"  # a share in [0, 1]
    lower_is_better = False

    def __init__(
        self,
        images: str,
        *,
        model: ClassifierSettings | None = None,
        reading: ImageSettings | None = None,
        recipe: Recipe = RECIPE,
        data_dir: Path | None = None,
    ) -> None:
        self.name = self.images_name = images
        self.settings = model or ClassifierSettings()
        self.reading = reading or ImageSettings()
        self.recipe = recipe
        self._data_dir = data_dir

    @cached_property
    def images(self) -> ImageSet:
        """The images, read when first used."""
        return load_images(self.images_name, data_dir=self._data_dir)

    def model(self, generator: torch.Generator) -> SequenceClassifier:
        num_features = self.images.shape[1] if self.reading.scan == "rows" else 1
        return SequenceClassifier(self.settings, num_features, NUM_CLASSES, generator)

    def batches(self, split: Split, epoch: int) -> Iterator[_Batch]:
        """Inputs (T, B, F) and classes (B); the last batch of an epoch may be smaller."""
        num_images = self._num_images(split)
        if split == "train":
            random = named_generator(epoch, "order of the images")
            order, size = torch.randperm(num_images, generator=random), self.reading.batch_size
        else:
            order, size = torch.arange(num_images), self.reading.eval_batch_size
        return (self.images.sequences(split, chosen, self.reading.scan) for chosen in order.split(size))

    def loss(self, model: nn.Module, batch: _Batch, state: Any) -> BatchLoss:
        inputs, labels = batch
        return BatchLoss(functional.cross_entropy(model(inputs), labels), len(labels))

    def evaluate(self, model: nn.Module, batches: Iterable[_Batch]) -> Evaluation:
        loss, num_right, num_images = 0.0, 0, 0
        for inputs, labels in batches:
            logits_BC = model(inputs)
            loss += functional.cross_entropy(logits_BC, labels, reduction="sum").item()
            num_right += int((logits_BC.argmax(1) == labels).sum())
            num_images += len(labels)
        if num_images == 0:
            raise InputError("a split must hold at least one image, got none; give the task more images")
        return Evaluation(loss / num_images, num_right / num_images)

    def steps_per_epoch(self) -> int:
        return math.ceil(self._num_images("train") / self.reading.batch_size)

    def prunable(self, model: nn.Module) -> Sequence[str]:
        assert isinstance(model, SequenceClassifier)
        return model.prunable()

    @property
    def spectrum_warmup(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The first quarter of an image's rows; of one read pixel by pixel, one row of pixels."""
        rows, columns = self.images.shape
        return rows // 4 if self.reading.scan == "rows" else columns

    def spectrum_batch(self) -> _Batch:
        """The first images of the validation split."""
        if self._num_images("valid") < NUM_SAMPLES:
            raise InputError(
                f"valid_images must be at least {NUM_SAMPLES}, the images on which spectra are measured, got "
                f"{self._num_images('valid')}"
            )
        return self.images.sequences("valid", torch.arange(NUM_SAMPLES), self.reading.scan)

    def recurrent(self, model: nn.Module, batch: _Batch) -> list[RecurrentRun]:
        """The whole sequence of rows; of pixels, the warm-up and the two rows in the middle of the image.

        All of the 28·28 steps would take as many Jacobians. The state before the window is the one that the
        image's upper half brings about.
        """
        assert isinstance(model, SequenceClassifier)
        inputs = batch[0]
        if self.reading.scan == "rows":
            return [RecurrentRun(*run) for run in model.recurrent_runs(inputs)]
        rows, columns = self.images.shape
        first = (rows // 2 - 2) * columns  # the warm-up's row, then those above and below the middle
        return [RecurrentRun(*run) for run in model.recurrent_runs(inputs[: first + 3 * columns], first)]

    def baseline(self) -> tuple[str, float]:
        num_train, num_valid = self._num_images("train"), self._num_images("valid")
        return "share of the largest class", self.images.largest_class_share(num_train, num_valid)

    def identity(self) -> dict[str, Any]:
        return {
            "images": self.images_name,
            "images_sha256": self.images.checksum(),
            "reading": asdict(self.reading),
            "model": asdict(self.settings),
            "recipe": asdict(self.recipe),
        }

    def _num_images(self, split: Split) -> int:
        limit = getattr(self.reading, f"{split}_images", None)
        num_images = self.images.num_images(split)
        return num_images if limit is None else min(limit, num_images)

    def __getstate__(self) -> dict[str, Any]:
        """Without the images: a worker reads them again, which costs less than sending them."""
        return {name: value for name, value in self.__dict__.items() if name != "images"}
