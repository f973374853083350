"""The durable truth of a search: one folder with a journal, checkpoints, a status and a lock.

journal.jsonl          every event, checksummed (see `journal`)
status.json            the run at a glance, rewritten after each event
candidates/KEY/        a candidate's checkpoints; best.pt holds the weights of its best epoch
report.md, report.html, pictures/
lock                   held (flock) by the process that writes here, with its pid inside
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hyperprune.errors import InputError
from hyperprune.files import write_atomically
from hyperprune.hypersearch.journal import Journal, read_journal
from hyperprune.hypersearch.run_state import Event, RunState
from hyperprune.records import RunRecord

FORMAT = 1
_JOURNAL = "journal.jsonl"
_WRITTEN_HERE = (
    _JOURNAL,
    _JOURNAL + ".damaged",
    "status.json",
    "candidates",
    "report.md",
    "report.html",
    "pictures",
)


def read_run(folder: Path) -> RunRecord:
    """The records of the run in `folder`, finished or not. Takes no lock and changes nothing.

    Raises:
        InputError: the folder holds no run.
    """
    return read_state(folder).to_record()


def read_state(folder: Path) -> RunState:
    """As `read_run`, as events left it."""
    events, _ = read_journal(folder / _JOURNAL)
    if not events:
        raise InputError(f"a run folder must hold {_JOURNAL} with at least one event, and {folder} does not")
    return RunState.replay(events)


class RunFolder:
    """A run folder open for writing.

    Attributes:
        path: the folder.
        state: what the journal tells, kept up to date by `record`.
        notes: what was mended on opening, for the user.
    """

    def __init__(self, path: Path, *, overwrite: bool = False) -> None:
        """Open or create the folder and take its lock.

        Args:
            path: of the folder.
            overwrite: delete what an earlier run wrote there; files of others are left.

        Raises:
            InputError: not a folder, not writable, held by a live process, or neither empty nor a run.
        """
        self.path = path
        self.notes: list[str] = []
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = (path / "lock").open("a+")
        except OSError as error:
            raise InputError(
                f"the run folder must be writable, and {path} is not ({error.strerror}); choose another --out"
            ) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.seek(0)
            pid = self._lock.read().strip() or "unknown"
            self._lock.close()
            raise InputError(
                f"a run folder serves one process at a time, and {path} is held by process {pid}; "
                "wait for it, stop it, or choose another --out"
            ) from None
        self._lock.truncate(0)
        self._lock.write(f"{os.getpid()}\n")
        self._lock.flush()
        try:
            self._open(overwrite=overwrite)
        except BaseException:
            self._lock.close()
            raise

    def _open(self, *, overwrite: bool) -> None:
        if overwrite:
            for name in _WRITTEN_HERE:
                target = self.path / name
                if target.is_dir():
                    shutil.rmtree(target)
                else:
                    target.unlink(missing_ok=True)
        elif not (self.path / _JOURNAL).exists():
            strangers = sorted(entry.name for entry in self.path.iterdir() if entry.name != "lock")
            if strangers:
                (self.path / "lock").unlink()
                raise InputError(
                    f"a run folder must be empty or hold a run, and {self.path} holds {strangers[0]!r}; "
                    "choose another --out"
                )
        self._journal = Journal(self.path / _JOURNAL)
        if self._journal.num_cut_bytes:
            self.notes.append(
                f"the journal's last {self._journal.num_cut_bytes} bytes were not whole and are set aside in "
                f"{_JOURNAL}.damaged; what they told is computed again"
            )
        self.state = RunState.replay(self._journal.records)

    def begin(self, header: Event) -> None:
        """Write a new run's first event, or check that this is the run that the folder already holds.

        Raises:
            InputError: the folder holds a run of another identity; the message lists the differences.
        """
        if not self.state.header:
            self.record(header)
            return
        differences = _differences(self.state.identity, header["identity"])
        if differences:
            raise InputError(
                f"{self.path} holds a run with another configuration and goes on only with its own; "
                "use --overwrite to begin anew, or another --out. Differences (there, here):\n"
                + "\n".join(f"  {name}: {there!r}, {here!r}" for name, there, here in differences)
            )

    def record(self, event: Event) -> None:
        """Append an event to the journal, apply it, and refresh the status."""
        self._journal.append(event)
        self.state.apply(event)
        self.write_status()

    def write_status(self, **extra: Any) -> None:
        """Rewrite status.json: phase, counts and the best so far, for other programs."""
        state = self.state
        ranked = state.ranked()
        trained = [candidate for candidate in ranked if candidate.metric is not None]
        lower = state.header.get("lower_is_better", True)
        best = min(trained, key=lambda item: (item.metric or 0.0) * (1 if lower else -1), default=None)
        status = {
            "pid": os.getpid(),
            "updated": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "finished": state.finished,
            "rounds": len(state.rounds),
            "candidates": {
                outcome: sum(candidate.outcome == outcome for candidate in ranked)
                for outcome in ("running", "eliminated", "finalist", "failed")
            },
            "epochs_spent": state.epochs_spent,
            "reference": {"epochs": state.epochs_trained("dense"), "metric": state.reference.metric},
            "best": None if best is None else {"key": best.key, "label": best.label, "metric": best.metric},
            **extra,
        }
        write_atomically(self.path / "status.json", json.dumps(status, indent=1).encode())

    def candidate_folder(self, key: str) -> Path:
        return self.path / "candidates" / key

    def close(self) -> None:
        """Release the folder."""
        self._journal.close()
        self._lock.close()

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def holder(folder: Path) -> int | None:
    """The pid of the live process that writes to a run folder, if there is one."""
    try:
        with (folder / "lock").open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                return int(lock.read().strip() or 0)
    except OSError:
        pass
    return None


def _differences(there: Any, here: Any, name: str = "") -> list[tuple[str, Any, Any]]:
    """Leaves in which two JSON values differ, as (dotted name, there, here)."""
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        missing = "(absent)"
        return [
            difference
            for key in sorted({*there, *here})
            for difference in _differences(
                there.get(key, missing), here.get(key, missing), f"{name}.{key}" if name else key
            )
        ]
    return [] if there == here else [(name, there, here)]
