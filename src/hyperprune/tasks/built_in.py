"""The built-in tasks: what each reads, its model, and the size of a search by default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from hyperprune.errors import unknown_name
from hyperprune.models import PRESETS, ClassifierSettings, LanguageSettings
from hyperprune.models.strings import StringClassifierSettings
from hyperprune.settings import from_mapping
from hyperprune.tasks.contract import Recipe
from hyperprune.tasks.images import RECIPE as IMAGE_RECIPE
from hyperprune.tasks.images import ImageSettings, ImageTask
from hyperprune.tasks.language import RECIPES, LanguageTask, TextSettings
from hyperprune.tasks.reber import RECIPE as REBER_RECIPE
from hyperprune.tasks.reber import ReberTask, StringSettings
from hyperprune.tasks.wired import WiredReberTask, WiringSettings

T = TypeVar(
    "T",
    bound=LanguageSettings
    | TextSettings
    | ClassifierSettings
    | ImageSettings
    | StringSettings
    | WiringSettings
    | Recipe,
)
Settings = Mapping[str, Mapping[str, Any]]
"""The tables of a configuration file, by name."""


def replaced(defaults: T, values: Mapping[str, Any], where: str) -> T:
    """`defaults` with some fields set; checked like a whole table."""
    current = {field.name: getattr(defaults, field.name) for field in fields(defaults)}
    return from_mapping(type(defaults), {**current, **values}, where)


@dataclass(frozen=True, kw_only=True)
class LanguageRow:
    """A language model on a corpus: preset of the model, what is read, and the size of a search by default.

    `changes` replaces settings of that preset; it goes when another one is chosen.
    """

    tables = ("model", "text", "training")

    corpus: str
    model: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    text: TextSettings = field(default_factory=TextSettings)
    search: Mapping[str, int] = field(default_factory=dict)
    sparsity: float = LanguageTask.sparsity
    about: str

    def make(self, settings: Settings, data_dir: Path | None) -> LanguageTask:
        chosen = dict(settings.get("model", {}))
        preset = chosen.pop("preset", self.model)
        if not isinstance(preset, str) or preset not in PRESETS:
            raise unknown_name("preset in [model]", preset, PRESETS)
        changes = self.changes if preset == self.model else {}
        task = LanguageTask(
            self.corpus,
            model=replaced(PRESETS[preset], {**changes, **chosen}, "[model]"),
            text=replaced(self.text, settings.get("text", {}), "[text]"),
            recipe=replaced(RECIPES[preset], settings.get("training", {}), "[training]"),
            data_dir=data_dir,
        )
        task.sparsity = self.sparsity
        return task


@dataclass(frozen=True, kw_only=True)
class ImageRow:
    """A classifier of images read as sequences, and the size of a search by default."""

    tables = ("model", "images", "training")

    images: str
    model: ClassifierSettings
    reading: ImageSettings = field(default_factory=ImageSettings)
    recipe: Recipe = IMAGE_RECIPE
    search: Mapping[str, int] = field(default_factory=dict)
    about: str

    def make(self, settings: Settings, data_dir: Path | None) -> ImageTask:
        return ImageTask(
            self.images,
            model=replaced(self.model, settings.get("model", {}), "[model]"),
            reading=replaced(self.reading, settings.get("images", {}), "[images]"),
            recipe=replaced(self.recipe, settings.get("training", {}), "[training]"),
            data_dir=data_dir,
        )


@dataclass(frozen=True, kw_only=True)
class ReberRow:
    """A classifier of strings, and the size of a search by default."""

    tables = ("model", "strings", "training")

    model: StringClassifierSettings = field(default_factory=StringClassifierSettings)
    strings: StringSettings = field(default_factory=StringSettings)
    recipe: Recipe = REBER_RECIPE
    search: Mapping[str, int] = field(default_factory=dict)
    about: str

    def make(self, settings: Settings, data_dir: Path | None) -> ReberTask:
        return ReberTask(
            model=replaced(self.model, settings.get("model", {}), "[model]"),
            strings=replaced(self.strings, settings.get("strings", {}), "[strings]"),
            recipe=replaced(self.recipe, settings.get("training", {}), "[training]"),
        )


@dataclass(frozen=True, kw_only=True)
class WiredRow:
    """A graph-wired classifier of strings, and the size of a search by default."""

    tables = ("model", "strings", "training")

    model: WiringSettings = field(default_factory=WiringSettings)
    strings: StringSettings = field(default_factory=lambda: StringSettings(batch_size=128, by_length=True))
    recipe: Recipe = REBER_RECIPE
    search: Mapping[str, int] = field(default_factory=dict)
    about: str

    def make(self, settings: Settings, data_dir: Path | None) -> WiredReberTask:
        return WiredReberTask(
            model=replaced(self.model, settings.get("model", {}), "[model]"),
            strings=replaced(self.strings, settings.get("strings", {}), "[strings]"),
            recipe=replaced(self.recipe, settings.get("training", {}), "[training]"),
        )


Row = LanguageRow | ImageRow | ReberRow | WiredRow
BUILT_IN: dict[str, Row] = {
    "pydoc": LanguageRow(
        corpus="pydoc",
        model="mini",
        text=TextSettings(vocabulary_size=2000, batch_size=10),
        search={"candidates": 8, "first_epochs": 3, "round_epochs": 1, "final_epochs": 10},
        about="Python's own reference text, in every CPython: no download (LSTM 2×128)",
    ),
    "ptb-mini": LanguageRow(
        corpus="ptb",
        model="mini",
        changes={"dropout_input": 0.3, "dropout_hidden": 0.3, "dropout_output": 0.3},
        text=TextSettings(
            vocabulary_size=2000, train_tokens=186_000, valid_tokens=40_000, test_tokens=40_000
        ),
        search={"candidates": 24, "first_epochs": 3, "round_epochs": 3, "final_epochs": 40},
        about="a fifth of Penn Treebank's training text, 2,000 words, LSTM 2×128: for studies",
    ),
    "ptb": LanguageRow(corpus="ptb", model="large", about="Penn Treebank, the LSH paper's LSTM 2×1500"),
    "ptb-rhn": LanguageRow(
        corpus="ptb",
        model="rhn-large",
        search={"first_epochs": 6, "round_epochs": 3, "final_epochs": 500},
        sparsity=0.53,
        about="Penn Treebank, the LSH paper's RHN 830, depth 10",
    ),
    "wikitext2": LanguageRow(corpus="wikitext2", model="large", about="WikiText-2, LSTM 2×1500"),
    "wikitext103": LanguageRow(corpus="wikitext103", model="large", about="WikiText-103, LSTM 2×1500"),
    "one-billion-words": LanguageRow(
        corpus="one-billion-words",
        model="jse",
        changes={"num_sampled": 1000},
        text=TextSettings(
            vocabulary_size=100_000,
            train_tokens=2_240_000,
            valid_tokens=160_000,
            test_tokens=160_000,
            batch_size=64,
        ),
        search={"candidates": 8, "first_epochs": 3, "round_epochs": 3, "final_epochs": 30},
        about="One Billion Words, streamed, 100,000 words, the JSE paper's LSTM 2000; epochs of 1,000 steps",
    ),
    "wikitext2-jse": LanguageRow(
        corpus="wikitext2",
        model="jse",
        text=TextSettings(batch_size=64),
        about="WikiText-2, the JSE paper's LSTM 2000",
    ),
    "wikitext103-jse": LanguageRow(
        corpus="wikitext103",
        model="jse",
        changes={"num_sampled": 1000},
        text=TextSettings(batch_size=64),
        about="WikiText-103, the JSE paper's LSTM 2000, softmax of 1,000 sampled words",
    ),
    "ptb-awd": LanguageRow(
        corpus="ptb",
        model="awd-mos-ptb",
        text=TextSettings(batch_size=12, bptt=70),
        about="Penn Treebank, AWD-LSTM-MoS of Yang et al.: 960, 960, 620, 15 experts",
    ),
    "wikitext2-awd": LanguageRow(
        corpus="wikitext2",
        model="awd-mos-wikitext2",
        text=TextSettings(batch_size=15, bptt=70),
        about="WikiText-2, the later LSH paper's AWD-LSTM-MoS: 1150, 1150, 650, 15 experts",
    ),
    "digits": ImageRow(
        images="digits",
        model=ClassifierSettings(hidden_size=64),
        reading=ImageSettings(batch_size=32),
        search={"candidates": 8, "first_epochs": 3, "round_epochs": 2, "final_epochs": 20},
        about="1,797 digits of 8×8 pixels, row by row, in this package: no download (GRU 64)",
    ),
    "mnist10k": ImageRow(
        images="mnist10k",
        model=ClassifierSettings(hidden_size=100),
        search={"candidates": 24, "first_epochs": 3, "round_epochs": 3, "final_epochs": 50},
        about="MNIST's test file alone, split 7,000/1,000/2,000, row by row (GRU 100): no MNIST",
    ),
    "mnist": ImageRow(
        images="mnist",
        model=ClassifierSettings(hidden_size=400),
        search={"candidates": 24, "first_epochs": 3, "round_epochs": 3, "final_epochs": 50},
        about="MNIST row by row, the JSE paper's GRU 400",
    ),
    "reber": ReberRow(
        search={"candidates": 8, "first_epochs": 3, "round_epochs": 1, "final_epochs": 20},
        about="is a string of the Reber grammar? 18,750 drawn on the spot: no download (LSTM 3×50)",
    ),
    "reber-graph": WiredRow(
        search={"candidates": 8, "first_epochs": 3, "round_epochs": 1, "final_epochs": 15},
        about="the same strings, judged by a network wired by a graph: dense, random or of a file (GRU)",
    ),
}
