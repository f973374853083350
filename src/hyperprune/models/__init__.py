"""Recurrent cells, language models, sequence classifiers and graph-wired networks."""

from hyperprune.models.awd_lstm import AWDLSTM
from hyperprune.models.awd_settings import AWDSettings
from hyperprune.models.build import build_language_model
from hyperprune.models.cells import RHN, PeepholeLSTM
from hyperprune.models.classifier import ClassifierSettings, SequenceClassifier
from hyperprune.models.graph_classifier import GraphClassifier, load_network, save_network
from hyperprune.models.graph_rnn import GraphRNN
from hyperprune.models.language import (
    LanguageModel,
    RHNLanguageModel,
    SoftmaxLanguageModel,
    StackedGRU,
    StackedLSTM,
    detach_state,
)
from hyperprune.models.presets import PRESETS, LanguageSettings, ModelSettings, preset
from hyperprune.models.strings import StringClassifier, StringClassifierSettings

__all__ = [
    "AWDLSTM",
    "PRESETS",
    "RHN",
    "AWDSettings",
    "ClassifierSettings",
    "GraphClassifier",
    "GraphRNN",
    "LanguageModel",
    "LanguageSettings",
    "ModelSettings",
    "PeepholeLSTM",
    "RHNLanguageModel",
    "SequenceClassifier",
    "SoftmaxLanguageModel",
    "StackedGRU",
    "StackedLSTM",
    "StringClassifier",
    "StringClassifierSettings",
    "build_language_model",
    "detach_state",
    "load_network",
    "preset",
    "save_network",
]
