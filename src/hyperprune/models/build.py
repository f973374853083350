"""From settings to a language model."""

from typing import Any, overload

import torch

from hyperprune.models.awd_lstm import AWDLSTM
from hyperprune.models.language import (
    LanguageModel,
    RHNLanguageModel,
    SoftmaxLanguageModel,
    StackedGRU,
    StackedLSTM,
)
from hyperprune.models.presets import LanguageSettings, ModelSettings

_CLASSES: dict[str, type] = {kind.kind: kind for kind in (StackedLSTM, StackedGRU, RHNLanguageModel, AWDLSTM)}


@overload
def build_language_model(
    settings: ModelSettings, vocabulary_size: int, generator: torch.Generator
) -> SoftmaxLanguageModel[Any]: ...
@overload
def build_language_model(
    settings: LanguageSettings, vocabulary_size: int, generator: torch.Generator
) -> LanguageModel: ...
def build_language_model(
    settings: LanguageSettings, vocabulary_size: int, generator: torch.Generator
) -> LanguageModel:
    """The language model that `settings` describe, on the CPU, with weights drawn from `generator`.

    Raises:
        InputError: a vocabulary below two words.
    """
    return _CLASSES[settings.kind](settings, vocabulary_size, generator)
