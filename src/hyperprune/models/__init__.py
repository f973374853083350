"""Recurrent cells and language models."""

from hyperprune.models.cells import RHN, PeepholeLSTM
from hyperprune.models.language import (
    LanguageModel,
    RHNLanguageModel,
    StackedLSTM,
    build_language_model,
    detach_state,
)
from hyperprune.models.presets import PRESETS, ModelSettings, preset

__all__ = [
    "PRESETS",
    "RHN",
    "LanguageModel",
    "ModelSettings",
    "PeepholeLSTM",
    "RHNLanguageModel",
    "StackedLSTM",
    "build_language_model",
    "detach_state",
    "preset",
]
