"""`hyperprune search`: the main job."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hyperprune.cli import options as shared
from hyperprune.cli.plan import print_plan
from hyperprune.errors import HyperpruneError, InputError, unknown_name
from hyperprune.tasks.tables import DEFAULT_TASK, SETTING_TABLES

if TYPE_CHECKING:
    from hyperprune.hypersearch.search import SearchResult
    from hyperprune.hypersearch.space import Space
    from hyperprune.hypersearch.strategy import Strategy
    from hyperprune.tasks.contract import Task

SIGNAL_HELP = (
    "what ranks candidates: training_losses, last_training_loss, loss, spectrum, spectrum_joint, "
    "spectrum_raw, mean_exponent, blend or one's own (training_losses)"
)
STRATEGY_OPTIONS = (
    *("candidates", "first_epochs", "round_epochs", "final_epochs", "eta"),
    *("proposer", "history", "signal", "spectrum_dims", "spectrum_state"),
)
_LEARNING = ("tpe", "atpe")  # of the proposers
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
    parser.add_argument("task", nargs="?", metavar="TASK", help=shared.TASK_HELP + f" ({DEFAULT_TASK})")
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


@dataclass(frozen=True, kw_only=True)
class Job:
    """A search that was asked for.

    Attributes:
        task, strategy, space, folder: as `hyperprune.search` takes them.
        values: its other arguments, by name.
    """

    task: Task
    strategy: Strategy
    space: Space
    folder: Path
    values: Mapping[str, Any]

    @property
    def audited_epochs(self) -> int:
        """Epochs of the audit; of one that draws some of the eliminated, the mean over the draws."""
        from hyperprune.hypersearch.audit import num_eliminated
        from hyperprune.hypersearch.strategy import planned_epochs

        count = self.values["audit"]
        left = self.strategy.created * self.strategy.final_epochs - planned_epochs(self.strategy)
        return left if count is None else round(left * count / max(1, num_eliminated(self.strategy)))


def run(options: argparse.Namespace) -> int:
    job = job_of(options, read_config(options.config))
    if options.record is not None:
        job = _recorded(job, options)
    if options.plan:
        return print_plan(job, as_json=options.json)
    result = train(job, overwrite=options.overwrite)
    recorded, failure = None, None
    if options.record is not None:
        from hyperprune.hypersearch.table_of_runs import record_table

        try:
            record_table([job.folder]).save(options.record)
            recorded = options.record
        except (HyperpruneError, OSError) as error:  # the result is told all the same
            failure = error
    print_result(result, as_json=options.json, recorded=recorded)
    if failure is not None:
        raise failure
    return 0


def read_config(path: Path | None) -> dict[str, Any]:
    """The configuration file of a search; an empty one if there is none."""
    return shared.read_config(
        path, values=("task", "out", *RUN_OPTIONS), tables=("search", "space", *SETTING_TABLES)
    )


def job_of(options: argparse.Namespace, config: Mapping[str, Any], *, ending: str = "") -> Job:
    """The search that a command line and a configuration file ask for.

    Args:
        options: which go before the file's.
        config: the file's content.
        ending: of the run folder's name where neither names one.

    Raises:
        InputError: a value breaks a rule.
    """
    from hyperprune.hypersearch.strategies import check_search_defaults

    if options.plan and options.overwrite:
        raise InputError("--plan writes nothing, and --overwrite deletes an earlier run; leave one out")
    values = {name: config[name] for name in ("task", "out", *RUN_OPTIONS) if name in config}
    values |= shared.given(options, ("task", "out", *RUN_OPTIONS))
    checked = shared.check_values(values)
    name, out = checked.pop("task"), checked.pop("out")
    del checked["epochs"]  # the strategy's own
    task = shared.load_task(name, config, options.data_dir)
    check_search_defaults(task)
    return Job(
        task=task,
        strategy=_strategy(task.search_defaults, config.get("search", {}), options),
        space=_space(config.get("space", {}), options.space),
        folder=Path(f"{shared.default_folder(name)}{ending}" if out is None else out),
        values=checked,
    )


def train(job: Job, *, overwrite: bool) -> SearchResult:
    """Do the job, with its progress told."""
    from hyperprune.cli.progress import Progress
    from hyperprune.hypersearch.search import search
    from hyperprune.hypersearch.strategy import planned_epochs

    planned = planned_epochs(job.strategy) + job.audited_epochs
    planned += job.strategy.final_epochs  # the dense reference's
    with Progress(planned, job.folder) as progress:
        return search(
            job.task,
            job.strategy,
            folder=job.folder,
            space=job.space,
            overwrite=overwrite,
            observer=progress,
            **job.values,
        )


def _recorded(job: Job, options: argparse.Namespace) -> Job:
    """The job with all of the eliminated audited, if that can make the table."""
    if audit := job.values["audit"]:
        raise InputError(f"--record audits all of the eliminated, got --audit {audit} too; leave it out")
    check_recordable(job, overwrite=options.overwrite)
    shared.check_file(options.record, "--record", job.folder)
    return replace(job, values={**job.values, "audit": None})


def check_recordable(job: Job, *, overwrite: bool) -> None:
    """Whether the run can become a table, asked before anything is trained."""
    from hyperprune.hypersearch import table_of_runs

    table_of_runs.check_recordable(job.strategy, job.space, None if overwrite else job.folder)


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
    from hyperprune.hypersearch.strategies import STRATEGIES
    from hyperprune.settings import from_mapping

    chosen = dict(config)
    name = chosen.pop("strategy", "lsh") if options.strategy is None else options.strategy
    chosen.pop("strategy", None)
    if not isinstance(name, str) or name not in STRATEGIES:
        raise unknown_name("strategy", name, STRATEGIES)
    kind = STRATEGIES[name]
    known = settings_of(kind)
    if options.strategy is not None:  # which goes before the file's, and its numbers with it
        for key in [key for key in chosen if key in STRATEGY_OPTIONS and key not in known]:
            shared.note(f"{key} in [search] means nothing to --strategy {name}: left out")
            del chosen[key]
    given = shared.given(options, STRATEGY_OPTIONS)
    chosen |= given
    for key in chosen:
        if key in STRATEGY_OPTIONS and key not in known:
            knowing = [other for other, kind in STRATEGIES.items() if key in settings_of(kind)]
            raise InputError(
                f"{shared.flag(key) if key in given else f'{key} in [search]'} means nothing to the strategy "
                f"{name!r}; leave it out, or use --strategy {' or '.join(knowing)}"
            )
    strategy = from_mapping(
        kind, {key: value for key, value in defaults.items() if key in known} | chosen, "[search]"
    )
    if chosen.get("proposer") in _LEARNING and not any(planned.inserted for planned in strategy.plan()):
        shared.note(
            f"the proposer {strategy.proposer} draws like random here: with {strategy.candidates} candidates "
            f"the strategy {name} proposes nothing after it has ranked"
        )
    return strategy


def settings_of(kind: type[Strategy]) -> set[str]:
    """What a strategy of that kind can be given, by name."""
    return {field.name for field in fields(kind) if field.init}


def _space(config: Mapping[str, Any], name: str | None) -> Space:
    """The space of the command line, or else of the file's [space]; its sparsity counts either way."""
    from hyperprune.hypersearch.spaces import space_from

    if name is None:
        return space_from(config)
    if "branch" in config:
        shared.note(f"[[space.branch]] means nothing to --space {name}: left out")
    return space_from({key: value for key, value in config.items() if key != "branch"} | {"name": name})
