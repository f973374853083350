"""The durable truth of a search: one folder with a journal, checkpoints, a status and a lock.

journal.jsonl          every event, checksummed (see `journal`)
journal.jsonl.damaged  what was cut off its end when it was opened after a crash
status.json            the run at a glance, rewritten at most once a second while segments run
candidates/KEY/        a candidate's checkpoints; best.pt holds the weights of its best epoch, and is all that
                       stays of a candidate that was dropped once the search is over
report.md, report.html, pictures/
.hyperprune.lock       see `folder_lock`
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hyperprune.errors import InputError, writing
from hyperprune.files import remove_leftovers, write_atomically
from hyperprune.folder_lock import LOCK, FolderLock
from hyperprune.hypersearch.journal import Journal, read_journal
from hyperprune.hypersearch.run_state import Event, RunState
from hyperprune.records import RunRecord

FORMAT = 1
_JOURNAL = "journal.jsonl"
_STATUS = "status.json"
_SECONDS_BETWEEN_STATUS = 1.0  # while nothing but epochs and segments end
_WRITTEN_HERE = (  # the journal last: while it is there, the folder is known as a run
    _STATUS,
    "candidates",
    "report.md",
    "report.html",
    "pictures",
    _JOURNAL + ".damaged",
    _JOURNAL,
)


def is_own_file(path: Path, planned: Path | None = None) -> bool:
    """Whether a run keeps this file, or something of this name, for itself; nobody else may write it.

    Args:
        path: of the file.
        planned: a folder that will be a run's.
    """
    names = (LOCK, *_WRITTEN_HERE)
    folder = None if planned is None else planned.resolve()
    places = (path.resolve(), *path.resolve().parents)
    return any(
        place.name in names and (place.parent == folder or (place.parent / _JOURNAL).exists())
        for place in places
    )


def read_run(folder: Path) -> RunRecord:
    """The records of the run in `folder`, finished or not. Takes no lock and changes nothing.

    Raises:
        InputError: the folder holds no run.
    """
    return read_state(folder).to_record()


def read_state(folder: Path) -> RunState:
    """As `read_run`, as events left it."""
    state = found_state(folder)
    journal = folder / _JOURNAL
    if state is None and journal.exists() and journal.stat().st_size:
        raise InputError(
            f"a run folder must hold a {_JOURNAL} with at least one whole event, and that of {folder} has "
            "none; give the run's command again, which begins anew and sets aside what is there"
        )
    if state is None:
        raise InputError(
            f"a run folder must hold {_JOURNAL} with at least one event, and {folder} does not; "
            "name a folder that 'hyperprune search' made"
        )
    return state


def found_state(folder: Path) -> RunState | None:
    """As `read_state`, but None where there is no run."""
    events, _ = read_journal(folder / _JOURNAL)
    return _replay(events, folder) if events else None


def _replay(events: list[dict[str, Any]], folder: Path) -> RunState:
    """The state that events tell, if they are of this version's format."""
    if events and events[0].get("identity", {}).get("format") != FORMAT:
        raise InputError(
            f"a run folder must be of format {FORMAT}, and {folder} is not; use the version of hyperprune "
            "that wrote it, or another --out"
        )
    try:
        state = RunState.replay(events)
        if events:
            state.to_record()  # all of it can be told, too
        return state
    except (KeyError, TypeError, ValueError) as error:  # whole lines that do not tell what they should
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"a run folder's journal must be of this version, and that of {folder} has other fields "
            f"({type(error).__name__}: {error}); use the version that wrote it, or another folder"
        ) from error


class RunFolder:
    """A run folder open for writing.

    Attributes:
        path: the folder.
        state: what the journal tells, kept up to date by `record`.
        notes: what was mended on opening, for the user.
        in_training: the last epoch that ended of each segment that runs, by key.
    """

    def __init__(self, path: Path, *, overwrite: bool = False) -> None:
        """Open or create the folder and take its lock.

        Args:
            path: of the folder.
            overwrite: delete what an earlier run wrote there; other files in a run's folder are left.

        Raises:
            InputError: not a folder, not writable, held by a live process, or neither empty nor a run.
            OSError: the disk is full.
        """
        self.path = path
        self.notes: list[str] = []
        self.in_training: dict[str, int] = {}
        self._status_due, self._status_is_old = 0.0, False
        with writing(f"the run folder must be writable, and {path} is not", remedy="choose another --out"):
            path.mkdir(parents=True, exist_ok=True)
            _refuse_strangers(path)
            self._lock = FolderLock(path, "run folder")
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
        for folder in (self.path, self.path / "pictures", *self.path.glob("candidates/*")):
            remove_leftovers(folder)
        self._journal = Journal(self.path / _JOURNAL)
        if self._journal.num_cut_bytes:
            self.notes.append(
                f"the journal's last {self._journal.num_cut_bytes} bytes were not whole and are set aside in "
                f"{_JOURNAL}.damaged; what they told is computed again"
            )
        try:
            self.state = _replay(self._journal.records, self.path)
        except InputError:
            self._journal.close()
            raise

    def begin(self, header: Event) -> None:
        """Write a new run's first event, or check that this is the run that the folder already holds.

        Raises:
            InputError: the folder holds a run of another identity; the message lists the differences.
        """
        if not self.state.header:
            self.record(header)
            return
        _refuse_another(self.path, self.state, header)

    def record(self, event: Event) -> None:
        """Append an event to the journal, apply it, and refresh the status.

        With hundreds of workers segments end faster than a status could be ranked and written: it tells of
        them now and then, and at the latest when the folder is closed.
        """
        self._journal.append(event)
        self.state.apply(event)
        if event["event"] == "segment":
            self.in_training.pop(event["key"], None)
            self._refresh_status()
        else:
            self._write_status()

    def note_epoch(self, key: str, epoch: int) -> None:
        """Let the status tell, now and then, how far a running segment is."""
        self.in_training[key] = epoch
        self._refresh_status()

    def _refresh_status(self) -> None:
        self._status_is_old = True
        if time.monotonic() >= self._status_due:
            self._write_status()

    def _write_status(self) -> None:
        """Rewrite status.json: phase, counts and the best so far, for other programs."""
        state = self.state
        ranked = state.ranked()
        trained = [row for row in ranked if row.metric is not None and row.outcome != "failed"]
        lower = state.header.get("lower_is_better", True)
        best = min(
            trained,
            key=lambda item: (
                state.weighed(item.metric or 0.0, item, lower_is_better=lower) * (1 if lower else -1)
            ),
            default=None,
        )
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
            "in_training": self.in_training,
            "reference": {"epochs": state.epochs_trained("dense"), "metric": state.reference.metric},
            "best": None if best is None else {"key": best.key, "label": best.label, "metric": best.metric},
        }
        self._status_due, self._status_is_old = time.monotonic() + _SECONDS_BETWEEN_STATUS, False
        write_atomically(self.path / _STATUS, json.dumps(status, indent=1).encode())

    def candidate_folder(self, key: str) -> Path:
        return self.path / "candidates" / key

    def close(self) -> None:
        """Release the folder."""
        self._journal.close()
        try:
            if self._status_is_old or self.in_training:
                self.in_training.clear()
                self._write_status()
        finally:
            self._lock.close()

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def check_folder(path: Path, header: Event) -> None:
    """Whether a folder, if it is there, can take the run of a first event; writes nothing and asks no lock.

    Raises:
        InputError: it holds a run of another identity, or something else.
    """
    if path.exists() and not path.is_dir():
        raise InputError(f"a run needs a folder, and {path} is a file; choose another --out")
    try:
        if path.is_dir():
            _refuse_strangers(path)
        state = found_state(path)
    except OSError as error:
        raise InputError(f"the run folder {path} cannot be read: {error}; choose another --out") from error
    if state is not None:
        _refuse_another(path, state, header)


def _refuse_strangers(path: Path) -> None:
    """A folder with other things in it and no run is somebody else's, overwriting or not."""
    strangers = sorted(entry.name for entry in path.iterdir() if entry.name != LOCK)
    if strangers and not (path / _JOURNAL).exists():
        raise InputError(
            f"a run folder must be empty or hold a run, and {path} holds {strangers[0]!r}; "
            "choose another --out"
        )


def _refuse_another(path: Path, state: RunState, header: Event) -> None:
    """A run goes on with its own identity alone."""
    differences = differences_of(state.identity, header["identity"])
    if differences:
        raise InputError(
            f"{path} holds a run with another configuration and goes on only with its own; "
            "use --overwrite to begin anew, or another --out. Differences (there, here):\n"
            + "\n".join(f"  {name}: {there!r}, {here!r}" for name, there, here in differences)
        )


def num_damaged_bytes(folder: Path) -> int:
    """How much at the journal's end is not whole, in a folder that no process works on; going on mends it."""
    path = folder / _JOURNAL
    _, length = read_journal(path)
    return path.stat().st_size - length


def epochs_in_training(folder: Path) -> dict[str, int]:
    """The last epoch that ended of each segment that runs, as the status tells; none if it cannot be read."""
    try:
        return dict(json.loads((folder / _STATUS).read_text())["in_training"])
    except (OSError, ValueError, KeyError):
        return {}


def differences_of(there: Any, here: Any, name: str = "") -> list[tuple[str, Any, Any]]:
    """Leaves in which two JSON values differ, as (dotted name, there, here)."""
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        missing = "(absent)"
        return [
            difference
            for key in sorted({*there, *here})
            for difference in differences_of(
                there.get(key, missing), here.get(key, missing), f"{name}.{key}" if name else key
            )
        ]
    same = there == here or repr(there) == repr(here)  # NaN equals nothing
    return [] if same else [(name, there, here)]
