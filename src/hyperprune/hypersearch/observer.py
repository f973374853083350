"""What may watch a search."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from hyperprune.hypersearch.run_state import Event, RunState
from hyperprune.records import EpochRecord


@runtime_checkable
class Observer(Protocol):
    """What may watch a search: the command line's progress display, a notebook, a test."""

    def event(self, state: RunState, event: Event) -> None:
        """After each event that entered the journal."""
        ...

    def epoch(self, state: RunState, key: str, record: EpochRecord) -> None:
        """After each epoch of a candidate, before it enters the journal."""
        ...

    def note(self, text: str) -> None:
        """Something the user should know (a damaged checkpoint was passed over)."""
        ...


class SilentObserver:
    """Watches without a word."""

    def event(self, state: RunState, event: Event) -> None: ...

    def epoch(self, state: RunState, key: str, record: EpochRecord) -> None: ...

    def note(self, text: str) -> None: ...
