"""`hyperprune extend`: go on from a finished run."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hyperprune.cli import options as shared
from hyperprune.errors import InputError

if TYPE_CHECKING:
    from hyperprune.hypersearch.run_state import RunState


def add_parser(commands: Any) -> None:
    parser = shared.add_parser(
        commands,
        "extend",
        about="Go on from a finished run: train its finalists longer, or sift more candidates.",
        examples=(
            "hyperprune extend runs/pydoc --final-epochs 200",
            "hyperprune extend runs/pydoc --candidates +10",
        ),
    )
    parser.add_argument("run_folder", type=Path, metavar="RUN", help="the folder of a finished run")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--final-epochs", type=int, metavar="N", help="train the finalists on to N epochs in all"
    )
    what.add_argument(
        "--candidates", metavar="+N", help="N more candidates, sifted among themselves by the same strategy"
    )
    shared.add_executor_options(parser)
    shared.add_json(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    candidates = None if options.candidates is None else _more(options.candidates)

    from hyperprune.cli.progress import Progress
    from hyperprune.cli.search import print_result
    from hyperprune.hypersearch.extend import extend
    from hyperprune.hypersearch.run_folder import read_state
    from hyperprune.tasks.registry import load_task

    state = read_state(options.run_folder)
    source = state.header.get("source")
    # First, since parts of the user's own are known once it is loaded.
    task = None if source is None else load_task(**source)
    checked = shared.check_values(
        {**shared.given(options, shared.EXECUTOR_OPTIONS), "device": state.identity["device"]}
    )
    # Without a task `extend` refuses.
    planned = 0 if task is None else _planned_epochs(state, options.final_epochs, candidates)
    with Progress(planned, options.run_folder) as progress:
        result = extend(
            options.run_folder,
            final_epochs=options.final_epochs,
            candidates=candidates,
            task=task,
            observer=progress,
            **{name: checked[name] for name in shared.EXECUTOR_OPTIONS},
        )
    # The same command would now begin another extension.
    options.done = f"the extension is done, and 'hyperprune report {options.run_folder}' writes its report"
    print_result(result, as_json=options.json)
    return 0


def _more(text: str) -> int:
    """How many more: +10."""
    if not text.removeprefix("+").isdecimal():
        raise InputError(f"--candidates must be how many more, as in +10, got {text!r}")
    return int(text)


def _planned_epochs(state: RunState, final_epochs: int | None, candidates: int | None) -> int:
    """Epochs of all networks when the extension is done, for the bar; its input is checked elsewhere."""
    from hyperprune.hypersearch.extend import strategy_of
    from hyperprune.hypersearch.extensions import further
    from hyperprune.hypersearch.run_state import REFERENCE_KEY
    from hyperprune.hypersearch.strategy import planned_epochs

    strategy = strategy_of(state.header["strategy"])
    done = state.epochs_spent + state.epochs_audit + state.epochs_trained(REFERENCE_KEY)
    if final_epochs is not None:
        networks = sum(candidate.outcome == "finalist" for candidate in state.candidates.values())
        networks += strategy is not None  # the reference, which a model trained alone has not
        return done + max(0, final_epochs - state.final_epochs) * networks
    if candidates is not None:
        return done + planned_epochs(further(strategy, candidates))
    return done
