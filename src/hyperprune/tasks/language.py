"""Word-level language modelling: a corpus, a stacked LSTM or a recurrent highway network, perplexity.

Recipes are the ones published with Selfish-RNN for the paper's sizes, and calibrated ones for the small
sizes (docs/architecture.md says how).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hyperprune.data.text import Corpus, bptt_windows, contiguous_batches, load_corpus, num_windows
from hyperprune.errors import InputError, unknown_name
from hyperprune.models import PRESETS, ModelSettings, build_language_model
from hyperprune.tasks.contract import BatchLoss, Recipe, RecurrentRun, Split, Task

WARMUP = 10
WINDOW = 35  # measured time steps, after the warm-up
NUM_SAMPLES = 10  # columns of the validation stream


@dataclass(frozen=True, kw_only=True)
class TextSettings:
    """What of a corpus is read, and in what portions.

    Attributes:
        vocabulary_size: the most frequent words kept, `<unk>` and `<eos>` among them; None keeps all.
        train_tokens, valid_tokens, test_tokens: how much of each split is used, from its beginning; None
            is all of it.
        batch_size: columns of the training stream.
        bptt: time steps that gradients flow back through.
        eval_batch_size: columns of the validation and test streams.
    """

    vocabulary_size: int | None = None
    train_tokens: int | None = None
    valid_tokens: int | None = None
    test_tokens: int | None = None
    batch_size: int = 20
    bptt: int = 35
    eval_batch_size: int = 10

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value is not None and value < 1:
                raise InputError(f"{name} must be at least 1, got {value}")
        if self.eval_batch_size < NUM_SAMPLES:
            raise InputError(
                f"eval_batch_size must be at least {NUM_SAMPLES}, the columns on which spectra are measured, "
                f"got {self.eval_batch_size}"
            )


_LSTM_RECIPE = Recipe(
    optimizer="snt_asgd", learning_rate=40.0, clip_norm=0.25, weight_decay=1.2e-6, rescale_weights=False
)
_SMALL_RECIPE = Recipe(optimizer="snt_asgd", learning_rate=20.0, clip_norm=0.25, rescale_weights=True)
RECIPES: dict[str, Recipe] = {
    "mini": _SMALL_RECIPE,
    "gru-mini": replace(_SMALL_RECIPE, learning_rate=10.0),
    "small": _SMALL_RECIPE,
    "medium": replace(_LSTM_RECIPE, learning_rate=20.0),
    "large": _LSTM_RECIPE,
    "rhn-mini": replace(_SMALL_RECIPE, learning_rate=10.0),
    "rhn-large": replace(_LSTM_RECIPE, learning_rate=15.0),
}


class LanguageTask(Task):
    """Predict the next word of a corpus.

    Args:
        corpus: "pydoc", "ptb", "wikitext2", "wikitext103" or "text:PATH".
        model: the name of a preset of `hyperprune.models.language`, or settings.
        text: what of the corpus is read.
        recipe: how weights are trained; the preset's own if None.
        data_dir: where corpora are looked for first.
    """

    metric = "perplexity"
    spectrum_warmup = WARMUP

    def __init__(
        self,
        corpus: str,
        *,
        model: str | ModelSettings = "small",
        text: TextSettings | None = None,
        recipe: Recipe | None = None,
        data_dir: Path | None = None,
    ) -> None:
        self.name = self.corpus_name = corpus
        self.text = text or TextSettings()
        if isinstance(model, str):
            if model not in PRESETS:
                raise unknown_name("model preset", model, PRESETS)
            recipe = recipe or RECIPES[model]
            model = PRESETS[model]
        self.settings = model
        self.recipe = recipe or _SMALL_RECIPE
        self._data_dir = data_dir

    @cached_property
    def corpus(self) -> Corpus:
        """The corpus, read when first used."""
        limits = {
            split: limit
            for split in ("train", "valid", "test")
            if (limit := getattr(self.text, f"{split}_tokens")) is not None
        }
        return load_corpus(
            self.corpus_name,
            data_dir=self._data_dir,
            vocabulary_size=self.text.vocabulary_size,
            max_tokens=limits,
        )

    @cached_property
    def _streams(self) -> dict[str, Tensor]:
        """(T, B) per split."""
        return {
            split: contiguous_batches(
                self.corpus.split(split),
                self.text.batch_size if split == "train" else self.text.eval_batch_size,
            )
            for split in ("train", "valid", "test")
        }

    def model(self, generator: torch.Generator) -> nn.Module:
        return build_language_model(self.settings, len(self.corpus.vocabulary), generator)

    def batches(self, split: Split, epoch: int) -> Iterable[tuple[Tensor, Tensor]]:
        return bptt_windows(self._streams[split], self.text.bptt)

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor], state: Any) -> BatchLoss:
        inputs, targets = batch
        logits, state = model(inputs, state)
        return BatchLoss(F.cross_entropy(logits.flatten(0, 1), targets.flatten()), targets.numel(), state)

    def metric_of_loss(self, loss: float) -> float:
        return math.exp(loss) if loss < math.log(1e30) else math.inf

    def steps_per_epoch(self) -> int:
        return num_windows(self._streams["train"], self.text.bptt)

    def spectrum_batch(self) -> tuple[Tensor, Tensor]:
        """The first steps of the first columns of the validation stream, warm-up included."""
        stream = self._streams["valid"]
        length = WARMUP + WINDOW
        if len(stream) <= length:
            raise InputError(
                f"the validation split must hold more than {length} steps of {self.text.eval_batch_size} "
                f"columns to measure spectra on, {self.name!r} has {len(stream)}; give more text or a "
                "smaller eval_batch_size"
            )
        return stream[:length, :NUM_SAMPLES], stream[1 : length + 1, :NUM_SAMPLES]

    def recurrent(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Sequence[RecurrentRun]:
        return [RecurrentRun(*run) for run in model.recurrent_runs(batch[0])]  # pyright: ignore[reportCallIssue]

    def baseline(self) -> tuple[str, float]:
        return "unigram perplexity", self.corpus.unigram_perplexity()

    def identity(self) -> dict[str, Any]:
        return {
            "corpus": self.corpus_name,
            "corpus_sha256": self.corpus.checksum(),
            "text": asdict(self.text),
            "model": asdict(self.settings),
            "recipe": asdict(self.recipe),
        }

    def __getstate__(self) -> dict[str, Any]:
        """Without the corpus: a worker reads it again, which costs less than sending it."""
        return {name: value for name, value in self.__dict__.items() if name not in ("corpus", "_streams")}
