"""`hyperprune reproduce random-structure`."""

from __future__ import annotations

import argparse
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hyperprune.cli.studies import common
from hyperprune.errors import InputError

if TYPE_CHECKING:
    from hyperprune.experiments.random_structure import Scale

ABOUT = (
    "recurrent networks wired by random graphs; what of a graph tells accuracy (sparse-RNN thesis, 6.3-6.4)"
)
_NAME = "random-structure"
_PAGE = "random_structure.md"


def add_parser(tables: Any) -> None:
    parser = common.add_study(
        tables,
        _NAME,
        about=ABOUT,
        scales=("tiny", "small", "paper"),
        examples=(
            "hyperprune reproduce random-structure --scale tiny",
            "hyperprune reproduce random-structure --cell gru --family watts_strogatz --workers 2",
            "hyperprune reproduce random-structure --results gru.csv",
        ),
    )
    parser.add_argument(
        "--cell", action="append", metavar="NAME", help="rnn, rnn_relu, lstm or gru (repeatable; the scale's)"
    )
    parser.add_argument(
        "--family", action="append", metavar="NAME", help="of random graphs (repeatable; the scale's two)"
    )
    parser.add_argument("--graphs", type=int, metavar="N", help="of each family (the scale's)")
    parser.add_argument("--epochs", type=int, metavar="N", help="of each network (the scale's)")
    parser.add_argument(
        "--read-padding",
        action="store_true",
        help="judge strings by the state after the padding, batches in random order, as the thesis does",
    )
    parser.add_argument(
        "--results", type=Path, metavar="FILE", help="train nothing: a CSV file with the thesis's columns"
    )
    common.add_page(parser, _PAGE)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from hyperprune.experiments.documents import StudyPage
    from hyperprune.experiments.random_structure import SCALES, run_study, trained
    from hyperprune.experiments.random_structure_pictures import CAPTIONS, save_pictures
    from hyperprune.experiments.random_structure_prediction import require_sklearn
    from hyperprune.experiments.random_structure_results import from_records, read_results
    from hyperprune.experiments.random_structure_tables import describe, to_markdown

    require_sklearn()  # told before the hours of work
    if options.results is not None:
        if options.source is not None:
            raise InputError("--results and --from both name what is analysed; leave one out")
        common.refuse_training_options(options, "results", "--results", ())
        if options.docs is not None:
            raise InputError("--docs shows this study's own records, got it with --results; leave one out")
        outcomes = read_results(options.results)
        print(to_markdown(outcomes, source=f"{len(outcomes)} networks of {options.results.name}."))
        return 0
    scale = _scale(options, common.scale_of(SCALES, options))
    page = StudyPage(page=_PAGE, part=_NAME, records="random_structure.jsonl", fields=("family", "features"))
    records = common.records_of(options, page, partial(run_study, scale))
    if not trained(records):
        raise InputError(f"no network could be trained: {records[0]['failure']}")
    outcomes = from_records(records)
    common.publish(
        options,
        page,
        records,
        tables=to_markdown(outcomes, source=describe(records)),
        captions=CAPTIONS,
        draw=lambda folder: save_pictures(outcomes, folder),
    )
    return 0


def _scale(options: argparse.Namespace, scale: Scale) -> Scale:
    """The scale with what the options change."""
    changes: dict[str, Any] = {"seeds": common.seeds_of(options, scale.seeds)}
    for name, values in (("cells", options.cell), ("families", options.family)):
        if values:
            changes[name] = tuple(dict.fromkeys(values))
    for name in ("graphs", "epochs"):
        if (value := getattr(options, name)) is not None:
            changes[name] = value
    if options.read_padding:
        changes["read_padding"] = True
    return replace(scale, **changes)
