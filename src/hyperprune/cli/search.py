"""`hyperprune search`: the main job."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hyperprune.cli import options as shared
from hyperprune.tasks.tables import SETTING_TABLES

if TYPE_CHECKING:
    from hyperprune.hypersearch.search import SearchResult
    from hyperprune.hypersearch.space import Space
    from hyperprune.hypersearch.strategy import Strategy
    from hyperprune.tasks.contract import Task

SIGNAL_HELP = (
    "what ranks candidates: spectrum, spectrum_joint, spectrum_raw, loss, training_losses, blend or one's "
    "own (spectrum)"
)
STRATEGY_OPTIONS = (
    *("candidates", "first_epochs", "round_epochs", "final_epochs", "eta"),
    *("proposer", "history", "signal", "spectrum_dims", "spectrum_state"),
)
RUN_OPTIONS = ("sparsity", "seed", "threads", "device", *shared.EXECUTOR_OPTIONS, "reference", "audit")


def add_parser(commands: Any) -> None:
    parser = shared.add_parser(
        commands,
        "search",
        about="Find the pruning method that loses least at a sparsity, and train it.",
        examples=(
            "hyperprune search",
            "hyperprune search ptb --config examples/ptb-small.toml --data-dir DATA",
            "hyperprune search my_task.py:task --sparsity 0.9 --candidates 12 --final-epochs 40",
            "hyperprune search --signal loss --reference runs/pydoc --out runs/by-loss",
            "hyperprune search --space wide --candidates 24 --audit 4 --out runs/wide",
            "hyperprune search ptb --executor ray --ray-address auto --device cuda --gpus-per-candidate 0.25",
            "hyperprune search --record pydoc.npz",
            "hyperprune search --plan",
        ),
    )
    add_common_options(parser)
    parser.add_argument(
        "--strategy", metavar="NAME", help="lsh, successive_halving, hyperband, full or random (lsh)"
    )
    add_strategy_options(parser, *(f"the task's; {number}" for number in (24, 3, 3, 100)))
    parser.add_argument("--signal", metavar="NAME", help=SIGNAL_HELP)
    parser.add_argument(
        "--audit",
        type=int,
        metavar="N",
        help="train N of the eliminated to the end afterwards, to judge the signal (0)",
    )
    parser.add_argument(
        "--record",
        type=Path,
        metavar="TABLE",
        help="train all of the eliminated to the end afterwards, and write a table for 'hyperprune replay'",
    )
    parser.set_defaults(run=run)


def add_common_options(parser: argparse.ArgumentParser) -> None:
    """What a search is told that eliminates nobody; `record` takes these."""
    parser.add_argument(
        "task", nargs="?", metavar="TASK", help=shared.TASK_HELP + f" ({shared.DEFAULT_TASK})"
    )
    parser.add_argument(
        "--spectrum-state", metavar="NAME", help="whose spectra are measured: hidden or full (hidden)"
    )
    parser.add_argument(
        "--space",
        metavar="NAME",
        help="paper, sparse_to_sparse, wide, graphs or one's own (paper); see docs/search.md",
    )
    parser.add_argument(
        "--reference",
        type=Path,
        metavar="RUN",
        help="take the dense model of this run instead of training it",
    )
    shared.add_executor_options(parser)
    parser.add_argument(
        "--plan", action="store_true", help="print rounds, epochs and an estimated time; write nothing"
    )
    shared.add_run_options(parser)


def add_strategy_options(parser: argparse.ArgumentParser, *defaults: str) -> None:
    """The numbers and names of a strategy, its signal apart.

    Args:
        parser: of the command.
        defaults: what the four numbers of candidates and epochs are if they are not given, in words.
    """
    numbers = {
        "--candidates": "how many to begin with",
        "--first-epochs": "epochs before the first elimination",
        "--round-epochs": "epochs between eliminations, of lsh",
        "--final-epochs": "a finalist's epochs in all",
    }
    for (option, about), default in zip(numbers.items(), defaults, strict=True):
        parser.add_argument(option, type=int, metavar="N", help=f"{about} ({default})")
    parser.add_argument("--eta", type=int, metavar="N", help="one in N is kept (halving, hyperband; 3)")
    parser.add_argument(
        "--proposer", metavar="NAME", help="grid, random, tpe or atpe (lsh: tpe, else random)"
    )
    parser.add_argument(
        "--history", metavar="NAME", help="what the proposer learns from: survivors or all (survivors)"
    )
    parser.add_argument(
        "--spectrum-dims", type=int, metavar="N", help="dimensions of the spectrum signals' PCA space (2)"
    )


def run(options: argparse.Namespace) -> int:
    config = shared.read_config(
        options.config,
        values=("task", "out", *RUN_OPTIONS),
        tables=("search", "space", *SETTING_TABLES),
    )
    values = {name: config[name] for name in ("task", "out", *RUN_OPTIONS) if name in config}
    values |= shared.given(options, ("task", "out", *RUN_OPTIONS))
    checked = shared.check_values(values)
    name, out = checked.pop("task"), checked.pop("out")
    del checked["epochs"]  # the strategy's own
    folder = Path(out) if out is not None else shared.default_folder(name)
    task = shared.load_task(name, config, options.data_dir)
    strategy = _strategy(task.search_defaults, config.get("search", {}), options)
    space = _space(config.get("space", {}), options.space)
    if options.record is not None:
        _check_record(space, checked["audit"], options.record)
        checked["audit"] = None  # all of them
    if options.plan:
        return _print_plan(task, strategy, space, checked, folder, as_json=options.json)

    from hyperprune.cli.progress import Progress
    from hyperprune.hypersearch.search import search
    from hyperprune.hypersearch.strategy import planned_epochs

    planned = planned_epochs(strategy) + _audited_epochs(strategy, checked["audit"])
    planned += strategy.final_epochs  # the dense reference's
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
    recorded, failure = options.record, None
    if options.record is not None:
        from hyperprune.hypersearch.table import record_table

        try:
            record_table([folder]).save(options.record)
        except OSError as error:  # the result is told all the same
            recorded, failure = None, error
    print_result(result, as_json=options.json, recorded=recorded)
    if failure is not None:
        raise failure
    return 0


def _audited_epochs(strategy: Strategy, audit: int | None) -> int:
    """Epochs of an audit, None is of all; of one that draws some, the mean over the draws."""
    from hyperprune.hypersearch.audit import num_eliminated
    from hyperprune.hypersearch.strategy import planned_epochs

    left = strategy.created * strategy.final_epochs - planned_epochs(strategy)
    return left if audit is None else round(left * audit / max(1, num_eliminated(strategy)))


def _check_record(space: Space, audit: int, table: Path) -> None:
    """Whether the run can make a table, asked before anything is trained."""
    from hyperprune.errors import InputError

    if audit:
        raise InputError(f"--record audits all of the eliminated, got --audit {audit} too; leave it out")
    if space.sparsity is not None:
        raise InputError(
            "a table is of one sparsity, and the space searches it; leave --record out, or sparsity out of "
            "[space]"
        )
    check_table_path(table, "--record")


def check_table_path(table: Path, option: str) -> None:
    """Whether a table can be written there, asked before anything is trained for it."""
    from hyperprune.errors import InputError

    if table.is_dir():
        raise InputError(f"{option} must be a file that can be written, and {table} is a folder")
    folder = next(parent for parent in table.absolute().parents if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(
            f"{option} must be a file that can be written, and {folder} takes none ({error.strerror})"
        ) from error


def print_result(result: SearchResult, *, as_json: bool, recorded: Path | None = None) -> None:
    """Write the report, and print the table, where everything lies, and, if asked for, the JSON object."""
    from hyperprune.report import summary_json, text_table, write_report

    files = write_report(result.record, result.folder)
    report = files.html or files.markdown
    print(text_table(result.record, shared.terminal_width()))
    print(f"weights: {result.checkpoint}")
    print(f"report:  {report}")
    if recorded is not None:
        print(f"table:   {recorded}")
    if as_json:
        summary = summary_json(result.record, folder=result.folder, report=report)
        print(json.dumps(summary if recorded is None else {**summary, "table": str(recorded)}))


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
    if options.strategy is not None:  # which goes before the file's, and its numbers with it
        for key in [key for key in chosen if key in STRATEGY_OPTIONS and key not in known]:
            print(f"note: {key} in [search] means nothing to --strategy {name}: left out", file=sys.stderr)
            del chosen[key]
    chosen |= shared.given(options, STRATEGY_OPTIONS)
    for key in chosen:
        if key in STRATEGY_OPTIONS and key not in known:
            knowing = [
                other for other, kind in STRATEGIES.items() if key in {f.name for f in fields(kind) if f.init}
            ]
            raise InputError(
                f"{key} means nothing to the strategy {name!r}; leave it out, or use --strategy "
                f"{' or '.join(knowing)}"
            )
    chosen = {key: value for key, value in defaults.items() if key in known} | chosen
    return from_mapping(kind, chosen, "[search]")


def _space(config: Mapping[str, Any], name: str | None) -> Space:
    """The space of the command line, or else of the file's [space]; its sparsity counts either way."""
    from hyperprune.hypersearch.spaces import space_from

    if name is None:
        return space_from(config)
    return space_from({key: value for key, value in config.items() if key != "branch"} | {"name": name})


def _print_plan(
    task: Task, strategy: Strategy, space: Space, values: Mapping[str, Any], folder: Path, *, as_json: bool
) -> int:
    from hyperprune.hypersearch.estimate import estimate
    from hyperprune.hypersearch.executor import Execution, num_places
    from hyperprune.hypersearch.preparation import prepare
    from hyperprune.hypersearch.strategy import Rehearsal, planned_epochs

    execution = Execution(**{name: values[name] for name in shared.EXECUTOR_OPTIONS})
    where = {"threads": values["threads"], "device": values["device"]}
    prepared = prepare(
        task,
        strategy,
        space=space,
        reference=None if values["reference"] is None else Path(values["reference"]),
        folder=folder,
        execution=execution,
        note=lambda text: print(f"note: {text}", file=sys.stderr),
        **{name: values[name] for name in ("sparsity", "audit", "seed")},
        **where,
    )
    given = 0 if prepared.reference is None else prepared.reference.num_epochs
    rounds, final = strategy.plan(), strategy.final_epochs
    total, created = planned_epochs(strategy), strategy.created
    print(f"{strategy.name}: {strategy.candidates} candidates, {final} final epochs")
    if rounds:
        print("round  to epoch  candidates  kept  inserted  epochs")
        for planned in rounds:
            print(
                f"{planned.number:5d}  {planned.epoch:8d}  {planned.entrants:10d}  {planned.kept:4d}  "
                f"{planned.inserted:8d}  {planned.epochs:6d}"
            )
    finalists = len(strategy.run(Rehearsal()))
    print(f"  end  {final:8d}  {finalists:10d}{total - sum(row.epochs for row in rounds):24d}")
    full = created * final
    print(f"{total} epochs in all, against {full} for training all {created} candidates to the end;")
    taken = f", {given} of them given" if given else ""
    print(f"the dense reference takes {final} more{taken}")
    # Of a cluster nothing is known before the search begins.
    workers = num_places(execution, values["device"]) or shared.usable_cores()
    guess = estimate(task, strategy, workers=workers, reference_epochs=given, **where)
    cost = guess.cost
    print(
        f"estimated time: {_duration(guess.seconds)} with {workers} workers, without the audit: "
        f"{guess.epochs_in_turn} epochs in turn\n"
        f"at {cost.seconds:.2g} s (training {cost.train:.2g}, evaluation {cost.evaluate:.2g}, spectrum "
        f"{cost.spectrum:.2g}), scaled up from {cost.num_timed} of {cost.num_batches}\n"
        "batches of the dense model's first epoch and a short spectrum"
    )
    if as_json:
        print(
            json.dumps(
                {
                    "rounds": [planned._asdict() for planned in rounds],
                    "epochs": total,
                    "epochs_full": full,
                    "epochs_reference": final - given,
                    "seconds": guess.seconds,
                    "seconds_per_epoch": {
                        "training": cost.train,
                        "evaluation": cost.evaluate,
                        "spectrum": cost.spectrum,
                    },
                }
            )
        )
    return 0


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.2g} seconds" if seconds < 100 else f"{seconds:.0f} seconds"
