"""Recurrent cells, language models, sequence classifiers and graph-wired networks."""

from hyperprune.models.cells import RHN, PeepholeLSTM
from hyperprune.models.classifier import ClassifierSettings, SequenceClassifier
from hyperprune.models.graph_classifier import GraphClassifier, load_network, save_network
from hyperprune.models.graph_rnn import GraphRNN
from hyperprune.models.language import (
    LanguageModel,
    RHNLanguageModel,
    StackedLSTM,
    build_language_model,
    detach_state,
)
from hyperprune.models.presets import PRESETS, ModelSettings, preset
from hyperprune.models.strings import StringClassifier, StringClassifierSettings

__all__ = [
    "PRESETS",
    "RHN",
    "ClassifierSettings",
    "GraphClassifier",
    "GraphRNN",
    "LanguageModel",
    "ModelSettings",
    "PeepholeLSTM",
    "RHNLanguageModel",
    "SequenceClassifier",
    "StackedLSTM",
    "StringClassifier",
    "StringClassifierSettings",
    "build_language_model",
    "detach_state",
    "load_network",
    "preset",
    "save_network",
]
