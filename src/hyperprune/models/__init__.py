"""Recurrent cells, language models and sequence classifiers."""

from hyperprune.models.awd_lstm import AWDLSTM
from hyperprune.models.awd_settings import AWDSettings
from hyperprune.models.build import build_language_model
from hyperprune.models.cells import RHN, PeepholeLSTM
from hyperprune.models.classifier import ClassifierSettings, SequenceClassifier
from hyperprune.models.language import (
    LanguageModel,
    RHNLanguageModel,
    SoftmaxLanguageModel,
    StackedLSTM,
    detach_state,
)
from hyperprune.models.presets import PRESETS, LanguageSettings, ModelSettings, preset

__all__ = [
    "AWDLSTM",
    "PRESETS",
    "RHN",
    "AWDSettings",
    "ClassifierSettings",
    "LanguageModel",
    "LanguageSettings",
    "ModelSettings",
    "PeepholeLSTM",
    "RHNLanguageModel",
    "SequenceClassifier",
    "SoftmaxLanguageModel",
    "StackedLSTM",
    "build_language_model",
    "detach_state",
    "preset",
]
