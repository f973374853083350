"""The documentation's page of tasks, made from the program's own tables and docstrings."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from typing import Any

from hyperprune.data.sources import DATASETS
from hyperprune.models import (
    PRESETS,
    AWDSettings,
    ClassifierSettings,
    ModelSettings,
    StringClassifierSettings,
)
from hyperprune.tasks.built_in import BUILT_IN, ImageRow, LanguageRow, ReberRow, Row, WiredRow
from hyperprune.tasks.contract import Recipe, Task
from hyperprune.tasks.images import ImageSettings
from hyperprune.tasks.language import RECIPES, TextSettings
from hyperprune.tasks.reber import StringSettings
from hyperprune.tasks.wired import WiringSettings


def page() -> str:
    """`docs/tasks.md`."""
    return _PAGE.format(
        tasks=_tasks(),
        data=_data(),
        largest=_largest(),
        presets=_presets(),
        lstm=_settings(ModelSettings),
        awd=_settings(AWDSettings),
        classifier=_settings(ClassifierSettings),
        text=_settings(TextSettings),
        images=_settings(ImageSettings),
        string_classifier=_settings(StringClassifierSettings),
        wiring=_settings(WiringSettings),
        strings=_settings(StringSettings),
        training=_settings(Recipe),
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") or "–" for cell in row) + " |" for row in lines
    )


def _tasks() -> str:
    rows = []
    for name, row in BUILT_IN.items():
        recipe = RECIPES[row.model] if isinstance(row, LanguageRow) else row.recipe
        search: dict[str, Any] = dict(row.search)
        if isinstance(row, LanguageRow) and row.sparsity != Task.sparsity:
            search["sparsity"] = row.sparsity
        rows.append([f"`{name}`", row.about, _reading(row), _recipe(recipe), _pairs(search)])
    return _table(["task", "what it is", "read as", "trained by", "a search by default"], rows) + (
        "\n\nWhere a row says nothing else: 24 candidates, 3 first epochs, 3 round epochs, 100 final epochs, "
        f"sparsity {Task.sparsity:g}. The LSH\npaper is Zheng & Shlizerman, "
        "[Hyperpruning](https://arxiv.org/abs/2506.07975), the JSE paper Zhang & Stadie,\n[One-shot pruning "
        "by Jacobian spectrum evaluation](https://arxiv.org/abs/1912.00120); SNT-ASGD is SGD that averages\n"
        "its weights once validation stops improving. The LSH paper's grid for the RHN has the death rate "
        "0.5:\n[examples/ptb-rhn-grid.toml](../examples/ptb-rhn-grid.toml)."
    )


def _reading(row: Row) -> str:
    if isinstance(row, ReberRow | WiredRow):
        return f"characters, batches of {row.strings.batch_size}"
    if isinstance(row, ImageRow):
        return f"{row.reading.scan}, batches of {row.reading.batch_size}"
    words = f", {row.text.vocabulary_size:,} words" if row.text.vocabulary_size else ""
    return f"{row.text.batch_size} columns, windows of {row.text.bptt}{words}"


def _recipe(recipe: Recipe) -> str:
    parts = [f"{recipe.optimizer} at {recipe.learning_rate:g}"]
    if recipe.clip_norm is not None:
        parts.append(f"clip {recipe.clip_norm:g}")
    if recipe.weight_decay:
        parts.append(f"weight decay {recipe.weight_decay:g}")
    if recipe.rescale_weights:
        parts.append("sparse start rescaled")
    return ", ".join(parts)


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _data() -> str:
    rows = [
        ["`pydoc`", "in every CPython", "–", "–"],
        ["`digits`", "in this package (CC BY 4.0, Alpaydin & Kaynak 1998)", "–", "–"],
    ]
    for name, dataset in DATASETS.items():
        files = ", ".join(f"`{names[0]}`" for names in dataset.files.values())
        size = f"{_num_bytes(name) / 1e6:,.1f} MB"
        rows.append([f"`{name}`", dataset.downloads[0].urls[0], f"`{dataset.folder}/`: {files}", size])
    return _table(["data", "published at", "looked for as", "download"], rows)


def _largest() -> str:
    """The largest download."""
    name = max(DATASETS, key=_num_bytes)
    return f"`{name}` is {_num_bytes(name) / 1e9:.1f} GB"


def _num_bytes(name: str) -> int:
    """Of a data set's downloads."""
    return sum(part.num_bytes for part in DATASETS[name].downloads)


def _presets() -> str:
    rows = []
    for name, settings in PRESETS.items():
        defaults = {field.name: field.default for field in fields(settings)}
        chosen = {key: value for key, value in vars(settings).items() if value != defaults[key]}
        rows.append([f"`{name}`", f"`{_pairs(chosen)}`", _recipe(RECIPES[name])])
    return _table(["preset", "settings that are not the default", "recipe"], rows)


def _settings(kind: type) -> str:
    """A dataclass's settings with their defaults and what its docstring says of them."""
    defaults = {field.name: field.default for field in fields(kind)}
    rows = []
    entries = [entry for base in reversed(kind.__mro__) if is_dataclass(base) for entry in _described(base)]
    for names, text in entries:
        default = defaults[names[0]]
        rows.append(
            [
                ", ".join(f"`{name}`" for name in names),
                "of the preset" if default is MISSING else "–" if default is None else f"`{default}`",
                text,
            ]
        )
    missing = set(defaults) - {name for names, _ in entries for name in names}
    assert not missing, f"{kind.__name__} must describe {missing}"
    return _table(["setting", "default", "meaning"], rows)


def _described(kind: type) -> list[tuple[list[str], str]]:
    """Names and text of each entry of the docstring's section Args or Attributes."""
    doc = inspect.getdoc(kind) or ""
    section = re.search(r"^(?:Args|Attributes):\n(.*?)(?:\n\n|\Z)", doc, flags=re.MULTILINE | re.DOTALL)
    assert section is not None, kind.__name__
    entries: list[tuple[list[str], str]] = []
    for line in section.group(1).splitlines():
        start = re.match(r"    (\w+(?:, \w+)*): (.*)", line)
        if start is not None:
            entries.append((start.group(1).split(", "), start.group(2)))
        else:
            names, text = entries[-1]
            entries[-1] = names, f"{text} {line.strip()}"
    return entries


_PAGE = """# Tasks

This page is made from the code (`hyperprune.tasks.page.page()`); a test compares the two.

`hyperprune search NAME`, `train NAME`, `spectrum NAME` take a task of this table, `text:PATH` for a text of
yours, or `file.py:name` for a task of your own ([examples/own_task.py](../examples/own_task.py)).

{tasks}

The metric of a language task is the perplexity, of a task on images or strings the accuracy, a share in
[0, 1] (higher is better; the papers' error is 1 minus it). Test data plays no part in a search.

## Data

{data}

Files are looked for in `--data-dir`, then in `$HYPERPRUNE_DATA`, then in the user's cache; `hyperprune data`
shows what is there, `hyperprune data fetch NAME` downloads and checks it (SHA-256). Any command that trains,
plans or measures a task does so with what is missing, `search --plan` too, into `--data-dir` or else the
cache ({largest}). IDX files may be packed by gzip or not.

**mnist** keeps MNIST's test file for testing; the last 5,000 images of its training file validate.
**mnist10k** is no MNIST: where only its test file of 10,000 images is at hand, that is split 7,000 / 1,000 /
2,000, the images in order of class and then of position, by the last digit of their place (0-6, 7, 8-9). Its
figures compare with none that is published. **digits** is split 1,080 / 359 / 358 in the same way (0-5, 6-7,
8-9).

**one-billion-words** is streamed: training text stays in its 99 files and is read a block of a million
tokens at a time, in an order that `order_seed` and the pass decide, so memory does not grow with it. Its
words are counted in one pass, minutes long, which needs memory for the distinct words and whose result is
kept in the user's cache. An epoch is `train_tokens` long and goes on where the last one ended; a run taken up
again starts at its epoch's place and reads no file before it. The first held-out file is the test split, the
others validate. WikiText-103 is read into memory (its 103 million words take 0.8 GB as numbers).

Where `num_sampled` is set, training estimates the softmax's denominator from that many words, drawn without
replacement and log-uniformly by rank, each weighted by the inverse of its chance to be drawn. Evaluation
computes the full softmax.

**reber** draws its strings: valid ones by a walk on the Reber grammar that ends within the lengths, false
ones by a change of a valid one that is checked to be false. Files of `[strings] folder` take their place, in
the format of Darji 2021 (arXiv 2407.20601), which the settings call the thesis.

## Measured windows

A language task: 10 columns of the validation stream, 10 warm-up steps, 35 measured, from the zero state.
Images by rows: 10 validation images, a quarter of the rows as warm-up, the others measured. Images by pixels:
the image's upper part brings about the state, then one row of pixels is the warm-up and two rows in the
middle of the image are measured. Strings: the 10 longest of the validation split, cut to the shortest of
them, the first quarter as warm-up.

## Settings

A configuration file's tables, or `settings=` of `hp.load_task`:

```toml
[model]
cell = "lstm"
hidden_size = 100

[images]
scan = "pixels"

[training]
learning_rate = 5e-4
```

### `[model]` of a language task

`preset` chooses one of these; other keys change it.

{presets}

The recipe goes with the preset; `medium`, `large` and `rhn-large` are published with Selfish-RNN, `jse` with
the Jacobian-spectrum paper, `awd-mos-ptb` and `awd-mos-wikitext2` with the mixture of softmaxes. Deviations:
the AWD-LSTM's windows have one length, and its optimizer is SNT-ASGD, which is NT-ASGD for weights that do
not come and go.

Stacked LSTM and RHN:

{lstm}

AWD-LSTM with a mixture of softmaxes:

{awd}

### `[text]` of a language task

{text}

### `[model]` of a task on images

{classifier}

### `[images]`

{images}

### `[model]` of `reber`

{string_classifier}

### `[model]` of `reber-graph`

{wiring}

### `[strings]`

{strings}

### `[training]`

{training}
"""
