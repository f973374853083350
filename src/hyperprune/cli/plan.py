"""What a search will do, printed before anything is trained: `--plan`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from hyperprune.cli import options as shared
from hyperprune.errors import InputError

if TYPE_CHECKING:
    from hyperprune.cli.search import Job


def print_plan(job: Job, *, as_json: bool) -> int:
    """Rounds, epochs and an estimated time; nothing is written."""
    from hyperprune.hypersearch.estimate import estimate
    from hyperprune.hypersearch.executor import Execution, num_places
    from hyperprune.hypersearch.preparation import build_device, prepare
    from hyperprune.hypersearch.run_folder import check_folder
    from hyperprune.hypersearch.strategy import Rehearsal, planned_epochs
    from hyperprune.report.words import plural

    task, strategy, values = job.task, job.strategy, job.values
    execution = Execution(**{name: values[name] for name in shared.EXECUTOR_OPTIONS})
    prepared = prepare(
        task,
        strategy,
        space=job.space,
        reference=None if values["reference"] is None else Path(values["reference"]),
        folder=job.folder,
        execution=execution,
        note=shared.note,
        **{name: values[name] for name in ("sparsity", "audit", "seed", "threads", "device")},
    )
    try:
        check_folder(job.folder, prepared.header)
    except InputError as error:  # no word against the plan
        shared.note(f"the search itself will be refused: {error}")
    given = 0 if prepared.reference is None else prepared.reference.num_epochs
    rounds, final = strategy.plan(), strategy.final_epochs
    total, created = planned_epochs(strategy), strategy.created
    print(f"{strategy.name}: {strategy.candidates} candidates, {plural(final, 'final epoch')}")
    if rounds:
        print("round  to epoch  candidates  kept  inserted  epochs")
        for planned in rounds:
            print(
                f"{planned.number:5d}  {planned.epoch:8d}  {planned.entrants:10d}  {planned.kept:4d}  "
                f"{planned.inserted:8d}  {planned.epochs:6d}"
            )
    finalists = len(strategy.run(Rehearsal()))
    print(f"  end  {final:8d}  {finalists:10d}{total - sum(row.epochs for row in rounds):24d}")
    full, rivals = created * final, total // final
    if total == full:
        print(f"{total} epochs in all;")
    else:
        print(f"{total} epochs in all, against {full} for training all {created} candidates to the end;")
        if rivals > 1:
            rival = f"--strategy random --candidates {rivals}"
            print(
                f"enough for {rivals} drawn at random, to the end ({rival});\n"
                f"it does without what is an option of {strategy.name} alone;"
            )
    taken = f", {given} of them given" if given else ""
    print(f"the dense reference takes {final} more{taken}")
    if job.audited_epochs:
        about = "for the table takes" if values["audit"] is None else "takes about"
        print(f"the audit {about} {job.audited_epochs} more")
    # Of a cluster nothing is known before the search begins.
    workers = num_places(execution, values["device"]) or shared.usable_cores()
    device = build_device(values["device"])
    if device != values["device"]:
        shared.note(f"the time is for the {device} of this machine, which has no {values['device']}")
    guess = estimate(
        task,
        strategy,
        workers=workers,
        threads=values["threads"],
        device=device,
        reference_epochs=given,
    )
    cost = guess.cost
    print(
        f"estimated time: {_duration(guess.seconds)} with {plural(workers, 'worker')}, without the audit: "
        f"{plural(guess.epochs_in_turn, 'epoch')} in turn\n"
        f"at {_number(cost.seconds)} s (training {_number(cost.train)}, evaluation "
        f"{_number(cost.evaluate)}, spectrum {_number(cost.spectrum)}), scaled up from\n"
        f"{cost.num_timed} of {cost.num_batches} batches of the dense model's first epoch and a short "
        "spectrum"
    )
    if as_json:
        print(
            json.dumps(
                {
                    "rounds": [planned._asdict() for planned in rounds],
                    "epochs": total,
                    "epochs_full": full,
                    "random_candidates": rivals,
                    "epochs_reference": final - given,
                    "epochs_audit": job.audited_epochs,
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
    return f"{_number(seconds)} seconds"


def _number(seconds: float) -> str:
    return f"{seconds:.2g}" if seconds < 10 else f"{seconds:.0f}"
