"""Word-level language modelling: a corpus, a stacked LSTM or a recurrent highway network, perplexity.

Recipes are the ones published with Selfish-RNN for the paper's sizes, and calibrated ones for the small
sizes (docs/evidence.md has the trials of `ptb-mini`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hyperprune.data.shards import StreamedCorpus, is_streamed, load_shards
from hyperprune.data.text import Corpus, bptt_windows, contiguous_batches, load_corpus, num_windows
from hyperprune.data.vocabulary import check_size
from hyperprune.errors import InputError, unknown_name
from hyperprune.models import PRESETS, LanguageModel, LanguageSettings, build_language_model
from hyperprune.tasks.contract import BatchLoss, Recipe, RecurrentRun, Split, Task

WARMUP = 10
WINDOW = 35  # measured time steps, after the warm-up
NUM_SAMPLES = 10  # columns of the validation stream


@dataclass(frozen=True, kw_only=True)
class TextSettings:
    """What of a corpus is read, and in what portions.

    Attributes:
        vocabulary_size: the most frequent words kept, `<unk>` and `<eos>` among them, at least 2; None keeps
            all.
        train_tokens, valid_tokens, test_tokens: how much of each split is used, from its beginning; None
            is all of it. Of a streamed corpus, `train_tokens` is what an epoch takes, and the next epoch
            goes on behind it.
        batch_size: columns of the training stream.
        bptt: time steps that gradients flow back through.
        eval_batch_size: columns of the validation and test streams.
        order_seed: of the order in which a streamed corpus's files are read; only for such (0 if None).
    """

    vocabulary_size: int | None = None
    train_tokens: int | None = None
    valid_tokens: int | None = None
    test_tokens: int | None = None
    batch_size: int = 20
    bptt: int = 35
    eval_batch_size: int = 10
    order_seed: int | None = None

    def __post_init__(self) -> None:
        check_size(self.vocabulary_size)
        for name, value in asdict(self).items():
            if name != "order_seed" and value is not None and value < 1:
                raise InputError(f"{name} must be at least 1, got {value}; leave it out for the default")
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
    "jse": Recipe(optimizer="adam", learning_rate=1e-3, rescale_weights=False),
    # SGD leaves three narrow layers on the word frequencies for epochs; this does not.
    "awd-mos-mini": Recipe(optimizer="adam", learning_rate=4e-3, clip_norm=0.25, rescale_weights=True),
    "awd-mos-ptb": replace(_LSTM_RECIPE, learning_rate=20.0),
    "awd-mos-wikitext2": replace(_LSTM_RECIPE, learning_rate=15.0),
}


class LanguageTask(Task):
    """Predict the next word of a corpus.

    Args:
        corpus: "pydoc", "ptb", "wikitext2", "wikitext103", "one-billion-words" (streamed) or "text:PATH".
        model: the name of a preset of `hyperprune.models.language`, or settings.
        text: what of the corpus is read.
        recipe: how weights are trained; the preset's own if None.
        data_dir: where data are looked for first.
    """

    metric = "perplexity"
    spectrum_warmup = WARMUP

    def __init__(
        self,
        corpus: str,
        *,
        model: str | LanguageSettings = "small",
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
        self._is_streamed = is_streamed(corpus)
        if self.text.order_seed is not None and not self._is_streamed:
            raise InputError(
                f"order_seed is for corpora that are streamed, got {self.text.order_seed} for {corpus!r}, "
                "which is read in its own order; leave it out"
            )

    @cached_property
    def corpus(self) -> Corpus | StreamedCorpus:
        """The corpus, opened when first used."""
        limits = {
            split: limit
            for split in (("valid", "test") if self._is_streamed else ("train", "valid", "test"))
            if (limit := getattr(self.text, f"{split}_tokens")) is not None
        }
        return (load_shards if self._is_streamed else load_corpus)(
            self.corpus_name,
            data_dir=self._data_dir,
            vocabulary_size=self.text.vocabulary_size,
            max_tokens=limits,
        )

    @cached_property
    def _streams(self) -> dict[str, Tensor]:
        """(T, B) per split; without the training split where that is streamed."""
        sizes = {"valid": self.text.eval_batch_size, "test": self.text.eval_batch_size}
        if not self._is_streamed:
            sizes["train"] = self.text.batch_size
        return {split: contiguous_batches(self.corpus.split(split), size) for split, size in sizes.items()}

    def model(self, generator: torch.Generator) -> nn.Module:
        return build_language_model(self.settings, len(self.corpus.vocabulary), generator)

    def batches(self, split: Split, epoch: int) -> Iterable[tuple[Tensor, Tensor]]:
        if split == "train" and isinstance(self.corpus, StreamedCorpus):
            num_steps = self.steps_per_epoch()
            return islice(
                self.corpus.train_windows(
                    self.text.batch_size,
                    self.text.bptt,
                    seed=self.text.order_seed or 0,
                    start=(epoch - 1) * num_steps,
                ),
                num_steps,
            )
        return bptt_windows(self._streams[split], self.text.bptt)

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor], state: Any) -> BatchLoss:
        inputs, targets = batch
        if isinstance(model, LanguageModel):
            loss, state = model.loss(inputs, targets, state)
        else:  # anything else that scores words, such as a compressed network
            logits, state = model(inputs, state)
            loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
        return BatchLoss(loss, targets.numel(), state)

    def prunable(self, model: nn.Module) -> Sequence[str] | None:
        assert isinstance(model, LanguageModel)
        return model.prunable()

    def metric_of_loss(self, loss: float) -> float:
        return math.exp(loss) if loss < math.log(1e30) else math.inf

    def steps_per_epoch(self) -> int:
        text = self.text
        if not isinstance(self.corpus, StreamedCorpus):
            return num_windows(self._streams["train"], text.bptt)
        if text.train_tokens is None:
            return self.corpus.num_windows(text.batch_size, text.bptt)
        return max(1, text.train_tokens // (text.batch_size * text.bptt))

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
        assert isinstance(model, LanguageModel)
        return [RecurrentRun(*run) for run in model.recurrent_runs(batch[0])]

    def baseline(self) -> tuple[str, float]:
        return "unigram perplexity", self.corpus.unigram_perplexity()

    def identity(self) -> dict[str, Any]:
        return {
            "corpus": self.corpus_name.partition(":")[0],  # a text counts, wherever its file lies
            "corpus_sha256": self.corpus.checksum(),
            "text": asdict(self.text),
            "model": asdict(self.settings),
            "recipe": asdict(self.recipe),
        }

    def __getstate__(self) -> dict[str, Any]:
        """Without the corpus: a worker reads it again, which costs less than sending it."""
        return {name: value for name, value in self.__dict__.items() if name not in ("corpus", "_streams")}
