"""`hyperprune train`: one pruned model."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hyperprune.cli import options as shared
from hyperprune.errors import InputError, unknown_name
from hyperprune.tasks.tables import SETTING_TABLES

_VALUES = ("sparsity", "seed", "threads", "device")


def add_parser(commands: Any) -> None:
    parser = shared.add_parser(
        commands,
        "train",
        about="Train one model with one pruning method.",
        examples=(
            "hyperprune train pydoc --method selfish_rnn --sparsity 0.67 --epochs 12",
            "hyperprune train pydoc --method dense --epochs 12 --out runs/dense",
            "hyperprune train digits --method static --at-init jacobian --sparsity 0.95",
        ),
    )
    parser.add_argument("task", metavar="TASK", help=shared.TASK_HELP)
    parser.add_argument("--method", required=True, metavar="NAME", help="see 'hyperprune methods'")
    parser.add_argument("--at-init", metavar="NAME", help="criterion that chooses the first masks")
    parser.add_argument("--epochs", type=int, metavar="N", help="training epochs (the task's final epochs)")
    shared.add_run_options(parser, folder="runs/TASK-METHOD")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    config = shared.read_config(
        options.config, values=("out", "epochs", *_VALUES), tables=("method", *SETTING_TABLES)
    )
    values = {name: config[name] for name in ("epochs", *_VALUES) if name in config}
    values |= shared.given(options, ("epochs", *_VALUES))
    task = shared.load_task(options.task, config, options.data_dir)

    from hyperprune.cli.progress import Progress
    from hyperprune.hypersearch.search import train
    from hyperprune.hypersearch.space import DENSE, Configuration
    from hyperprune.report import summary_json, text_table

    settings = _settings(options.method, config.get("method", {}))
    configuration = Configuration.of(options.method, **settings | shared.given(options, ("at_init",)))
    if "out" in config:
        values["out"] = config["out"]
    checked = shared.check_values(values)
    for other in ("task", "reference", "audit", *shared.EXECUTOR_OPTIONS):  # of a search
        del checked[other]
    epochs, out = checked.pop("epochs"), checked.pop("out")
    if epochs is None:
        epochs = task.search_defaults.get("final_epochs", 100)
    if configuration == DENSE:
        if checked["sparsity"]:
            raise InputError(
                f"the method 'dense' prunes nothing, got sparsity {checked['sparsity']}; drop it"
            )
        checked["sparsity"] = 0.0
    folder = Path(options.out or out or f"{shared.default_folder(options.task)}-{options.method}")
    with Progress(epochs, folder) as progress:
        result = train(
            task,
            configuration,
            epochs=epochs,
            folder=folder,
            overwrite=options.overwrite,
            observer=progress,
            **checked,
        )
    print(text_table(result.record, shared.terminal_width()))
    print(f"weights: {result.checkpoint}")
    if options.json:
        print(json.dumps(summary_json(result.record, folder=folder)))
    return 0


def _settings(method: str, table: Mapping[str, Any]) -> dict[str, Any]:
    """What the file's [method] sets of the method that --method names."""
    from dataclasses import fields

    from hyperprune.records import MODEL
    from hyperprune.sparsity import methods

    known = [field.name for field in fields(methods.kind(method))]
    for key in table:
        if key == "sparsity":
            raise InputError(
                f"sparsity is the run's and no setting of a method, got {table[key]!r} in [method]; give it "
                "above the tables, or as --sparsity"
            )
        if key not in known and not key.startswith(MODEL):
            raise unknown_name(f"key in [method], for --method {method}", key, known)
    return dict(table)
