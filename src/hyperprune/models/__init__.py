"""Recurrent cells, language models and sequence classifiers."""

from hyperprune.models.cells import RHN, PeepholeLSTM
from hyperprune.models.classifier import ClassifierSettings, SequenceClassifier
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
    "ClassifierSettings",
    "LanguageModel",
    "ModelSettings",
    "PeepholeLSTM",
    "RHNLanguageModel",
    "SequenceClassifier",
    "StackedLSTM",
    "build_language_model",
    "detach_state",
    "preset",
]
