"""`hyperprune reproduce prune-regain`."""

from __future__ import annotations

import argparse
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hyperprune.cli import options as shared
from hyperprune.cli.studies import common
from hyperprune.errors import InputError
from hyperprune.tasks.tables import SETTING_TABLES

if TYPE_CHECKING:
    from hyperprune.experiments.prune_regain import Scale

ABOUT = "prune a trained network by 10 … 100 %, train on, count the epochs to regain (Darji 2021)"
_NAME = "prune-regain"
_PAGE = "prune_regain.md"


def add_parser(tables: Any) -> None:
    parser = common.add_study(
        tables,
        _NAME,
        about=ABOUT,
        scales=("small", "paper"),
        examples=(
            "hyperprune reproduce prune-regain --cell lstm --part both",
            "hyperprune reproduce prune-regain --scale paper --config strings.toml --workers 8",
            "hyperprune reproduce prune-regain --task digits --cell gru --part recurrent --base-epochs 20",
        ),
    )
    parser.add_argument("--task", metavar="TASK", help=shared.TASK_HELP + " (reber)")
    parser.add_argument(
        "--cell",
        action="append",
        metavar="NAME",
        help="rnn, rnn_relu, lstm, gru, another of the task's, or own: as it is (repeatable; the first four)",
    )
    parser.add_argument(
        "--part", action="append", metavar="NAME", help="both, input or recurrent (repeatable; all three)"
    )
    parser.add_argument(
        "--percent", action="append", type=int, metavar="P", help="(repeatable; 10, 20, … 100)"
    )
    parser.add_argument(
        "--scope", metavar="NAME", help="one threshold for the network, or for each layer (network)"
    )
    parser.add_argument("--base-epochs", type=int, metavar="N", help="of the base model (the scale's)")
    parser.add_argument("--retrain-epochs", type=int, metavar="N", help="after pruning (10)")
    parser.add_argument(
        "--tolerance", type=float, metavar="T", help="what counts as regained (0.005, relative)"
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="a TOML file with the task's tables")
    common.add_page(parser, _PAGE)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from hyperprune.experiments.documents import StudyPage
    from hyperprune.experiments.prune_regain import SCALES, run_study
    from hyperprune.experiments.prune_regain_pictures import CAPTIONS, save_pictures
    from hyperprune.experiments.prune_regain_tables import TOLERANCE, Points, to_markdown

    scale = _scale(options, common.scale_of(SCALES, options))
    tolerance = TOLERANCE if options.tolerance is None else options.tolerance
    if not 0 <= tolerance < 1:
        raise InputError(f"--tolerance must lie in [0, 1), got {tolerance}; 0.005 allows half a percent")
    if options.docs is not None and options.tolerance is not None:
        raise InputError("--docs writes the page at the tolerance that it names; leave --tolerance out")
    page = StudyPage(page=_PAGE, part=_NAME, records="prune_regain.jsonl", fields=("kind", "cell"))
    records = common.records_of(options, page, partial(run_study, scale), of_analysis=("tolerance",))
    points = Points(records, tolerance)
    common.publish(
        options,
        page,
        records,
        tables=to_markdown(records, tolerance),
        captions=CAPTIONS,
        draw=lambda folder: save_pictures(points, folder) if points.points else [],
    )
    return 0


def _scale(options: argparse.Namespace, scale: Scale) -> Scale:
    """The scale with what the options change; another task or its tables replace the scale's own."""
    from hyperprune.experiments.prune_regain import OWN

    changes: dict[str, Any] = {"seeds": common.seeds_of(options, scale.seeds)}
    if options.task is not None and options.task != scale.task:
        changes |= {"task": options.task, "settings": {}, "cells": (OWN,)}
    config = shared.read_config(options.config, values=(), tables=SETTING_TABLES)
    if config:
        settings = changes.get("settings", scale.settings)
        changes["settings"] = {**settings, **{k: {**settings.get(k, {}), **v} for k, v in config.items()}}
    for name, values in (("cells", options.cell), ("parts", options.part), ("percents", options.percent)):
        if values:
            changes[name] = tuple(dict.fromkeys(values))
    for name in ("scope", "base_epochs", "retrain_epochs"):
        if (value := getattr(options, name)) is not None:
            changes[name] = value
    return replace(scale, **changes)
