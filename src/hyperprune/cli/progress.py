"""What a user sees of a running search: a live bar on a terminal, log lines in a pipe."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Column

from hyperprune.hypersearch.run_state import REFERENCE_KEY, Event, RunState
from hyperprune.records import EpochRecord
from hyperprune.report import words

_ROOMY = 100  # columns; with fewer the numbers take the room of the bar


class Progress:
    """An observer of a search that writes to standard error.

    On a terminal: one line per round, and below it a live bar over all planned epochs (the dense
    reference's included) with the time left. Elsewhere: one line per segment and per round.
    """

    def __init__(self, planned_epochs: int, folder: Path) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._live = self._console.is_terminal
        self._folder = folder
        roomy = self._console.width >= _ROOMY
        self._bar = Bar(
            # The description alone gives way on a narrow terminal.
            TextColumn("{task.description}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")),
            *([BarColumn(bar_width=16)] if roomy else []),
            TextColumn("{task.completed:.0f}/{task.total:.0f} epochs", table_column=Column(no_wrap=True)),
            TimeElapsedColumn(table_column=Column(no_wrap=True)),
            TextColumn("left", table_column=Column(no_wrap=True)),
            TimeRemainingColumn(table_column=Column(no_wrap=True)),
            expand=not roomy,
            console=self._console,
            disable=not self._live,
        )
        self._goal = self._bar.add_task("starting", total=planned_epochs)
        self._ahead: dict[str, int] = {}
        self._started = time.monotonic()

    def __enter__(self) -> Progress:
        self._bar.start()
        self._say(f"run folder: {self._folder}")
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def event(self, state: RunState, event: Event) -> None:
        match event["event"]:
            case "candidates":
                when = f"round {event['round']}: new" if event["round"] else "initial"
                self._say(f"{when} candidates: {', '.join(entry['key'] for entry in event['entries'])}")
            case "extended":
                self._say(f"extended by {state.extensions[-1].text}")
            case "segment":
                self._segment(state, event)
            case "round":
                self._round(state, event)
            case "finished":
                best = state.ranked()[0]
                metric = words.number(best.metric)
                self._say(f"finished: {best.key} ({best.label}), {state.header['metric']} {metric}")
        self._show(state)

    def epoch(self, state: RunState, key: str, record: EpochRecord) -> None:
        self._ahead[key] = record.epoch
        self._show(state)

    def note(self, text: str) -> None:
        self._say(f"note: {text}")

    def _segment(self, state: RunState, event: Event) -> None:
        key = event["key"]
        self._ahead.pop(key, None)
        if event["failure"]:
            self._say(f"{key} failed: {event['failure']}")
        elif not self._live:
            last = state[key].epochs[-1]
            self._say(
                f"{key} ({state[key].label}) epoch {last.epoch}: {state.header['metric']} "
                f"{words.number(last.metric)}"
            )

    def _round(self, state: RunState, event: Event) -> None:
        dropped = [key for key in event["signals"] if key not in event["kept"]]
        best = event["kept"][0]
        self._say(
            f"round {event['number']} at epoch {event['epoch']}: kept {', '.join(event['kept'])}; "
            f"dropped {', '.join(dropped) or 'none'}; best {best} ({state.candidates[best].label})"
        )

    def _show(self, state: RunState) -> None:
        if not self._live:
            return
        done = state.epochs_spent + state.epochs_audit + state.epochs_trained(REFERENCE_KEY)
        done += sum(max(0, epoch - state.epochs_trained(key)) for key, epoch in self._ahead.items())
        alive = sum(candidate.outcome in ("running", "finalist") for candidate in state.candidates.values())
        self._bar.update(
            self._goal,
            completed=done,
            description=f"round {len(state.rounds) + 1}, {alive} alive{self._best(state)}",
        )

    def _best(self, state: RunState) -> str:
        """The best metric so far, and the dense reference's."""
        lower = state.header["lower_is_better"]
        metrics = [
            item.metric
            for item in state.candidates.values()
            if item.metric is not None and item.outcome != "failed"
        ]
        best = (min if lower else max)(metrics, default=None)
        dense = state.reference.metric
        text = "" if best is None else f", best {words.number(best)}"
        return text if dense is None else f"{text}, dense {words.number(dense)}"

    def _say(self, text: str) -> None:
        if self._live:
            self._bar.console.print(text, markup=False)
        else:
            elapsed = time.monotonic() - self._started
            print(f"[{elapsed:7.1f} s] {text}", file=sys.stderr, flush=True)
