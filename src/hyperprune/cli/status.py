"""`hyperprune status`: where a run stands, from another terminal, at any time."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from hyperprune.cli import options as shared
from hyperprune.errors import InputError

_CLEAR = "\x1b[H\x1b[2J"
_LONGEST = 86_400  # seconds between two looks
_INTERRUPTED = "interrupted; it can go on"


def add_parser(commands: Any) -> None:
    parser = shared.add_parser(
        commands,
        "status",
        about="Show where a run stands; changes nothing.",
        examples=("hyperprune status runs/pydoc", "hyperprune status runs/pydoc --watch"),
    )
    parser.add_argument("run_folder", type=Path, metavar="RUN", help="the run folder")
    parser.add_argument(
        "--watch",
        type=float,
        nargs="?",
        const=2.0,
        metavar="SECONDS",
        help="show it again whenever it has changed, until no process works on the run (every 2 s)",
    )
    shared.add_json(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    if options.watch is None:
        text, _ = _status(options.run_folder, as_json=options.json)
        print(text)
        return 0
    if not 0 < options.watch <= _LONGEST:
        raise InputError(
            f"--watch must be above 0 seconds and at most {_LONGEST}, a day, got {options.watch:g}; leave "
            "the number out for 2"
        )
    shown, runs = "", True
    try:
        while runs:
            text, runs = _status(options.run_folder, as_json=options.json)
            if text != shown:
                print(_CLEAR + text if sys.stdout.isatty() else text, flush=True)
                shown = text
            if runs:
                time.sleep(options.watch)
    except KeyboardInterrupt:  # the way to end watching; the run knows nothing of it
        return 130
    return 0


def _status(folder: Path, *, as_json: bool) -> tuple[str, bool]:
    """What is shown, and whether a process works on the run."""
    from hyperprune.folder_lock import holder
    from hyperprune.hypersearch.run_folder import epochs_in_training, num_damaged_bytes, read_run
    from hyperprune.report import facts, summary_json, text_table

    pid = holder(folder)
    try:
        record = read_run(folder)
    except InputError:
        if pid is None:
            raise
        told = json.dumps({"state": "starting", "pid": pid}) if as_json else ""
        return f"{folder}: starting\n{told}".rstrip(), True
    runs = pid is not None
    hopeless, audits = facts.hopeless(record), facts.unfinished_audits(record)
    if hopeless is not None and not runs:
        state = f"failed: {hopeless}; begin anew with --overwrite"
    elif audits and not runs:
        state = f"finished; its audit is not ({', '.join(audits)}): the same command goes on"
    elif record.finished:  # an audit goes on after that, and an extension begins there
        state = f"finished; process {pid} still works on it" if runs else "finished"
    else:
        state = _INTERRUPTED if not runs else f"running (process {pid})" if pid else "starting"
    training = epochs_in_training(folder) if runs else {}
    lines = [f"{folder}: {state}", text_table(record, shared.terminal_width())]
    if not runs and (damaged := num_damaged_bytes(folder)):
        lines.append(
            f"the journal's last {damaged} bytes are not whole: what they told is computed again by the same "
            "command"
        )
    if training:
        lines.append("in training: " + ", ".join(f"{key} past epoch {at}" for key, at in training.items()))
    if as_json:
        summary = summary_json(record, folder=folder)
        lines.append(json.dumps({"state": state, "pid": pid, "in_training": training, **summary}))
    return "\n".join(lines), runs
