"""The dense reference: how it is trained, and one of another run, checked to be what this search would train.

It depends on the task, the seed, the threads, the device and the version, not on the space, the
sparsity or the strategy, but for `final_epochs` (which its checkpoints name). What is copied is the whole
folder with its checkpoints, so that the run folder stays whole and a reference that is only partly trained
goes on from there.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hyperprune.errors import InputError
from hyperprune.files import write_atomically
from hyperprune.hypersearch.run_folder import RunFolder, differences_of, read_state
from hyperprune.hypersearch.run_state import REFERENCE_KEY, Event, RunState
from hyperprune.hypersearch.space import DENSE
from hyperprune.records import CandidateRecord
from hyperprune.training.candidate import BEST_WEIGHTS, Training

_DECIDING = ("format", "version", "task", "seed", "threads", "device")  # of a run's identity


@dataclass(frozen=True, kw_only=True)
class GivenReference:
    """The dense model of another run.

    Attributes:
        source: the folder of that run.
        key: of the model there.
        candidate: its records.
    """

    source: Path
    key: str
    candidate: CandidateRecord

    @property
    def num_epochs(self) -> int:
        """Epochs that it was trained for."""
        return self.candidate.epochs[-1].epoch

    def copy_into(self, run: RunFolder) -> Event:
        """Copy the checkpoints; the event that tells of the epochs.

        Raises:
            InputError: the other run trains it on at this moment.
        """
        target = run.candidate_folder(REFERENCE_KEY)
        target.mkdir(parents=True, exist_ok=True)
        try:
            for path in sorted((self.source / "candidates" / self.key).glob("*.pt")):
                write_atomically(target / path.name, path.read_bytes())
            moved_on = len(read_state(self.source)[self.key].epochs) != len(self.candidate.epochs)
        except FileNotFoundError:  # an older checkpoint, in whose place there is a newer one
            moved_on = True
        if moved_on:
            raise InputError(
                f"a reference must not be trained on while it is copied, and {self.source} is at it; give "
                "the same command again, once that run has finished or was stopped"
            )
        best = self.candidate.best_epoch
        path = None if best is None else str((target / BEST_WEIGHTS).relative_to(run.path))
        return {
            "event": "segment",
            "key": REFERENCE_KEY,
            "epochs": [record.to_json() for record in self.candidate.epochs],
            "best_epoch": best,
            "checkpoint": path,
            "failure": None,
        }


def dense_training(total_epochs: int, *, seed: int = 0, **others: Any) -> Training:
    """How a dense model is trained; `others` are fields of `Training`."""
    return Training(
        method=DENSE.build(), sparsity=0.0, name=DENSE.text, total_epochs=total_epochs, seed=seed, **others
    )


def read_reference(source: Path, header: Event, *, needs_spectra: bool) -> GivenReference:
    """The dense model of the run in `source`, for a run that begins with `header`.

    Args:
        source: a run folder: of a search, or of 'hyperprune train TASK --method dense'.
        header: the first event of the run that it is for.
        needs_spectra: whether that run measures spectra.

    Raises:
        InputError: no run, no dense model in it, one that failed, lacks spectra or was extended beyond the
            run's end, or one that another task, seed, length or machine setting made; the message lists the
            differences.
    """
    state = read_state(source)
    differences = differences_of(_deciding(state.header), _deciding(header))
    if differences:
        raise InputError(
            f"a reference must be the dense model that this search would train, and that of {source} is not; "
            "give the same settings, or leave --reference out. Differences (there, here):\n"
            + "\n".join(f"  {name}: {there!r}, {here!r}" for name, there, here in differences)
        )
    key, candidate = _dense(state, source)
    if candidate.outcome == "failed":
        raise InputError(f"the dense model of {source} failed ({candidate.reason}); leave --reference out")
    last, trained = header["strategy"]["final_epochs"], candidate.epochs[-1].epoch
    extended = max(trained, state.final_epochs)  # an extension is told of before its epochs are
    if extended > last:
        raise InputError(
            f"a reference must be trained for at most this search's {last} epochs, and that of {source} was "
            f"extended to {extended}; leave --reference out"
        )
    if needs_spectra and any(record.spectrum is None for record in candidate.epochs):
        raise InputError(
            f"a reference needs a spectrum at every epoch, and that of {source} was trained without; leave "
            "--reference out"
        )
    return GivenReference(source=source, key=key, candidate=candidate)


def _dense(state: RunState, source: Path) -> tuple[str, CandidateRecord]:
    for key in (REFERENCE_KEY, *state.candidates):
        if state[key].epochs and state[key].configuration == {"method": "dense"}:
            return key, state[key]
    raise InputError(
        f"a reference must be a run with a dense model, and {source} has none trained; leave --reference "
        "out, or train it with 'hyperprune train TASK --method dense'"
    )


def _deciding(header: Event) -> dict[str, Any]:
    strategy = header["strategy"]
    return {
        **{name: header["identity"][name] for name in _DECIDING},
        "final_epochs": strategy["final_epochs"],
        "spectrum_state": strategy.get("spectrum_state", "hidden"),
    }
