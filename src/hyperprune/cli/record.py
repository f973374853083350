"""`hyperprune record`: train every candidate to the end, and keep all epochs as a table for replays."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from hyperprune.cli import options as shared
from hyperprune.cli import search
from hyperprune.cli.plan import print_plan
from hyperprune.errors import InputError

_SIFTING = ("first_epochs", "round_epochs", "eta", "history", "signal", "spectrum_dims", "audit")
_TRAIN_ALL = ("full", "random")  # of the strategies
_TRAINING = (
    *("task", *search.STRATEGY_OPTIONS, *search.RUN_OPTIONS),
    *("strategy", "space", "config", "data_dir", "out", "overwrite", "plan"),
)
_EPILOG = """examples:
  hyperprune record pydoc --candidates 24 --final-epochs 12 --out pydoc.npz
  hyperprune record --from runs/seed0 runs/seed1 --out pydoc.npz
"""


def add_parser(commands: Any) -> None:
    about = "Train every candidate to the end and write a table of all epochs, for replays."
    parser = commands.add_parser(
        "record",
        help=about,
        description=about,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        conflict_handler="resolve",  # the options are those of 'search', and --out means the table
    )
    search.add_common_options(parser)
    parser.add_argument("--strategy", metavar="NAME", help="full or random (full)")
    parser.add_argument("--candidates", type=int, metavar="N", help="how many (the task's; 24)")
    parser.add_argument("--final-epochs", type=int, metavar="N", help="of each (the task's; 100)")
    parser.add_argument("--proposer", metavar="NAME", help="grid or random (random)")
    parser.set_defaults(**dict.fromkeys(_SIFTING))  # which nothing here has use for
    parser.add_argument(
        "--out", dest="table", type=Path, metavar="TABLE", required=True, help="the .npz file"
    )
    parser.add_argument(
        "--run", dest="out", type=Path, metavar="RUN", help="the run folder (runs/TASK-record)"
    )
    parser.add_argument(
        "--from",
        dest="runs",
        type=Path,
        nargs="+",
        metavar="RUN",
        help="train nothing: make the table from finished runs with --strategy full, each of another seed",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    if options.runs is None:
        config = search.read_config(options.config)
        options.strategy = _strategy_name(options.strategy, config.get("search", {}).get("strategy"))
        job = search.job_of(options, config, ending="-record")
        shared.check_file(options.table, "--out", job.folder)
        search.check_recordable(job, overwrite=options.overwrite)
        if options.plan:
            return print_plan(job, as_json=options.json)
        search.print_result(search.train(job, overwrite=options.overwrite), as_json=False)
        options.runs = [job.folder]
    elif training := [name for name, value in shared.given(options, _TRAINING).items() if value is not False]:
        first = training[0]
        name = {"out": "--run", "task": "a task"}.get(first, shared.flag(first))
        raise InputError(
            f"--from takes finished runs and trains nothing, and {name} is for training; leave one out"
        )
    else:
        shared.check_file(options.table, "--out")

    from hyperprune.hypersearch.table_of_runs import record_table

    table = record_table(options.runs)
    table.save(options.table)
    rows = sum(len(run.configurations) for run in table.runs)
    print(f"table:   {options.table} ({rows} candidates × {table.final_epochs} epochs)")
    if options.json:
        print(
            json.dumps(
                {
                    "table": str(options.table),
                    "candidates": rows,
                    "final_epochs": table.final_epochs,
                    "seeds": [run.seed for run in table.runs],
                }
            )
        )
    return 0


def _strategy_name(asked: str | None, named: str | None) -> str:
    """The command line's strategy, or else the file's, if it trains every candidate; or else full."""
    if asked in _TRAIN_ALL:
        return asked
    if asked is not None:
        raise InputError(
            f"a table needs every candidate trained to the end, and --strategy {asked} eliminates some; "
            "leave it out, or use 'hyperprune search --record'"
        )
    if named in _TRAIN_ALL:
        return named
    if named is not None:
        shared.note(
            f"strategy = {named!r} in [search] is left out: a table needs every candidate trained to the end"
        )
    return "full"
