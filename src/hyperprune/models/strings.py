"""Classifiers of strings: character codes, an embedding, recurrent layers, and a readout at the string's end.

Reference: Darji (2021), Investigating sparsity in recurrent neural networks (arXiv 2407.20601), called
the thesis here, section 5.1 (three recurrent layers of 50 units).

Axes: T time (characters), B batch, V codes, E embedding, C classes.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from hyperprune.errors import InputError
from hyperprune.models.classifier import Cell, ClassifierSettings, SequenceClassifier
from hyperprune.models.start import Scheme


@dataclass(frozen=True, kw_only=True)
class StringClassifierSettings(ClassifierSettings):
    """A sequence classifier's settings with the defaults of the thesis, and those of reading characters.

    Attributes:
        embedding_size: features E of a character (the thesis does not say how many).
        read_padding: read out the state after a batch's padding, as the thesis does, so that a string's
            class depends on the longest string beside it; by default the state at the string's own end.
    """

    cell: Cell = "lstm"
    hidden_size: int = 50
    num_layers: int = 3
    init: Scheme = "torch"
    embedding_size: int = 50
    read_padding: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.embedding_size < 1:
            raise InputError(f"embedding_size must be at least 1, got {self.embedding_size}; try 50")


class StringClassifier(nn.Module):
    """An embedding of character codes, and a `SequenceClassifier` of what it gives.

    Parameters: `embedding.weight` (V, E), N(0, 1) at first, and the classifier's own as `classifier.*`.

    Args:
        settings: cell, sizes, start values.
        num_codes: V.
        num_classes: C, at least 2.
        generator: source of the initial weights.
    """

    def __init__(
        self,
        settings: StringClassifierSettings,
        num_codes: int,
        num_classes: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.settings = settings
        # torch.nn draws start values from the global generator; they are overwritten below.
        with torch.random.fork_rng(devices=[]):
            self.embedding = nn.Embedding(num_codes, settings.embedding_size)
        self.classifier = SequenceClassifier(settings, settings.embedding_size, num_classes, generator)
        nn.init.normal_(self.embedding.weight, generator=generator)

    def forward(self, codes: Int64[Tensor, "T B"], lengths: Int64[Tensor, " B"]) -> Float[Tensor, "B C"]:
        """Score the classes of padded strings.

        Args:
            codes: (T, B) in 0 … V - 1.
            lengths: (B,) characters of each string, 1 … T.

        Returns:
            Logits (B, C).
        """
        return self.classifier(self.embedding(codes), None if self.settings.read_padding else lengths)

    def recurrent_runs(self, codes: Int64[Tensor, "T B"]) -> list[tuple[nn.Module, Tensor, Any]]:
        """What drives the recurrent module on `codes`: [(module, inputs (T, B, E), state)], one entry."""
        return self.classifier.recurrent_runs(self.embedding(codes))

    def prunable(self) -> list[str]:
        """Names of the matrices that `settings.pruned` stands for."""
        names = [f"classifier.{name}" for name in self.classifier.prunable()]
        return names if self.settings.pruned == "recurrent" else ["embedding.weight", *names]
