"""`hyperprune search`: the main job."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hyperprune.cli import options as shared
from hyperprune.tasks.tables import SETTING_TABLES

if TYPE_CHECKING:
    from hyperprune.hypersearch.strategies import Strategy

SIGNAL_HELP = (
    "what ranks candidates: spectrum, spectrum_joint, spectrum_raw, loss, blend or one's own (spectrum)"
)
STRATEGY_OPTIONS = (
    *("candidates", "first_epochs", "round_epochs", "final_epochs", "eta"),
    *("proposer", "history", "signal"),
)
RUN_OPTIONS = ("sparsity", "seed", "threads", "device", "workers")


def add_parser(commands: Any) -> None:
    parser = shared.add_parser(
        commands,
        "search",
        about="Find the pruning method that loses least at a sparsity, and train it.",
        examples=(
            "hyperprune search",
            "hyperprune search ptb --config examples/ptb-small.toml --data-dir DATA",
            "hyperprune search my_task.py:task --sparsity 0.9 --candidates 12 --final-epochs 40",
            "hyperprune search --signal loss --out runs/by-loss",
            "hyperprune search --plan",
        ),
    )
    add_options(parser)
    parser.set_defaults(run=run)


def add_options(parser: argparse.ArgumentParser) -> None:
    """What a search is told; `record` takes the same."""
    parser.add_argument(
        "task", nargs="?", metavar="TASK", help=shared.TASK_HELP + f" ({shared.DEFAULT_TASK})"
    )
    parser.add_argument(
        "--strategy", metavar="NAME", help="lsh, successive_halving, hyperband, full or random (lsh)"
    )
    add_strategy_options(parser)
    parser.add_argument("--signal", metavar="NAME", help=SIGNAL_HELP)
    parser.add_argument("--workers", type=int, metavar="N", help="candidates trained at a time (the cores)")
    parser.add_argument("--plan", action="store_true", help="print rounds and epochs, train nothing")
    shared.add_run_options(parser)


def add_strategy_options(parser: argparse.ArgumentParser) -> None:
    """The numbers and names of a strategy, its signal apart."""
    parser.add_argument("--candidates", type=int, metavar="N", help="how many to begin with")
    parser.add_argument("--first-epochs", type=int, metavar="N", help="epochs before the first elimination")
    parser.add_argument("--round-epochs", type=int, metavar="N", help="epochs between eliminations (lsh)")
    parser.add_argument("--final-epochs", type=int, metavar="N", help="a finalist's epochs in all")
    parser.add_argument("--eta", type=int, metavar="N", help="one in N is kept (halving, hyperband; 3)")
    parser.add_argument("--proposer", metavar="NAME", help="grid, random or tpe (lsh: tpe, else random)")
    parser.add_argument(
        "--history", metavar="NAME", help="what the proposer learns from: survivors or all (survivors)"
    )


def run(options: argparse.Namespace) -> int:
    config = shared.read_config(
        options.config,
        values=("task", "out", *RUN_OPTIONS),
        tables=("search", "space", *SETTING_TABLES),
    )
    values = {name: config[name] for name in ("task", "out", *RUN_OPTIONS) if name in config}
    values |= shared.given(options, ("task", "out", *RUN_OPTIONS))
    checked = shared.check_values(values, workers=shared.usable_cores())
    name, out = checked.pop("task"), checked.pop("out")
    del checked["epochs"]  # the strategy's own
    folder = Path(out) if out is not None else shared.default_folder(name)
    task = shared.load_task(name, config, options.data_dir)
    strategy = _strategy(task.search_defaults, config.get("search", {}), options)
    if options.plan:
        return _print_plan(strategy, as_json=options.json)

    from hyperprune.cli.progress import Progress
    from hyperprune.hypersearch.search import search
    from hyperprune.hypersearch.space import Space
    from hyperprune.hypersearch.strategies import planned_epochs
    from hyperprune.report import summary_json, text_table, write_report
    from hyperprune.settings import from_mapping

    space = from_mapping(Space, config.get("space", {}), "[space]")
    planned = planned_epochs(strategy) + strategy.final_epochs  # the dense reference's are the last ones
    with Progress(planned, folder) as progress:
        result = search(
            task,
            strategy,
            folder=folder,
            space=space,
            overwrite=options.overwrite,
            observer=progress,
            **checked,
        )
    report = write_report(result.record, folder)
    print(text_table(result.record))
    print(f"weights: {result.checkpoint}")
    print(f"report:  {report.html or report.markdown}")
    if options.json:
        print(json.dumps(summary_json(result.record, folder=folder, report=report.html or report.markdown)))
    return 0


def _strategy(
    defaults: Mapping[str, Any], config: Mapping[str, Any], options: argparse.Namespace
) -> Strategy:
    """The strategy: the task's defaults, then the file's [search], then the command line."""
    from dataclasses import fields

    from hyperprune.errors import InputError, unknown_name
    from hyperprune.hypersearch.strategies import STRATEGIES
    from hyperprune.settings import from_mapping

    chosen = dict(config)
    name = options.strategy or chosen.pop("strategy", "lsh")
    chosen.pop("strategy", None)
    if name not in STRATEGIES:
        raise unknown_name("strategy", name, STRATEGIES)
    kind = STRATEGIES[name]
    known = {field.name for field in fields(kind) if field.init}
    chosen |= shared.given(options, STRATEGY_OPTIONS)
    for key in chosen:
        if key in STRATEGY_OPTIONS and key not in known:
            raise InputError(
                f"{key} means nothing to the strategy {name!r}; leave it out or use --strategy lsh"
            )
    chosen = {key: value for key, value in defaults.items() if key in known} | chosen
    return from_mapping(kind, chosen, "[search]")


def _print_plan(strategy: Strategy, *, as_json: bool) -> int:
    from hyperprune.hypersearch.strategies import planned_epochs

    rounds = strategy.plan()
    total = planned_epochs(strategy)
    print(f"{strategy.name}: {strategy.candidates} candidates, {strategy.final_epochs} final epochs")
    if rounds:
        print("round  to epoch  candidates  kept  inserted  epochs")
        for planned in rounds:
            print(
                f"{planned.number:5d}  {planned.epoch:8d}  {planned.entrants:10d}  {planned.kept:4d}  "
                f"{planned.inserted:8d}  {planned.epochs:6d}"
            )
    created = strategy.candidates + sum(planned.inserted for planned in rounds)
    full = created * strategy.final_epochs
    print(f"{total} epochs in all, against {full} for training all {created} candidates to the end;")
    print(f"the dense reference takes {strategy.final_epochs} more")
    if as_json:
        print(
            json.dumps(
                {
                    "rounds": [planned._asdict() for planned in rounds],
                    "epochs": total,
                    "epochs_full": full,
                    "epochs_reference": strategy.final_epochs,
                }
            )
        )
    return 0
