"""Tables of one task joined: seeds side by side, the candidates of a seed together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hyperprune.errors import InputError
from hyperprune.hypersearch.table import CandidateTable, RecordedRun, read_table

_OF_ONE_FILE = ("group", "cells")  # of the identity: which candidates were recorded into it, and how many
_TOLD_TOGETHER = ("failed", "command", "commit", "date", "processor")  # of the provenance


def load_table(path: str | Path, *others: str | Path) -> CandidateTable:
    """Read a table that `hyperprune record` or `CandidateTable.save` wrote, or join several.

    Args:
        path: of the file.
        others: more files of the same task, network and epochs: of other seeds, or with other candidates.

    Raises:
        InputError: no such file, not a table, of another version, epochs missing, or a NaN; tables that
            differ in more than the seeds and the candidates, or share some.
    """
    return joined([(str(name), read_table(name)) for name in (path, *others)])


def joined(members: Sequence[tuple[str, CandidateTable]]) -> CandidateTable:
    """One table from several, named for messages; the identity keeps what they share.

    Raises:
        InputError: as `load_table`.
    """
    (first_name, first), *others = members
    if not others:
        return first
    by_seed: dict[int, RecordedRun] = {}
    for name, table in members:
        if differing := _differences(first, table):
            raise InputError(
                "tables that are joined must differ in nothing but seeds and candidates, and "
                f"{name} differs from {first_name} in {', '.join(differing)}; leave it out"
            )
        for run in table.runs:
            by_seed[run.seed] = run if run.seed not in by_seed else _together(by_seed[run.seed], run, name)
    return replace(
        first,
        runs=tuple(by_seed[seed] for seed in sorted(by_seed)),
        identity={key: value for key, value in first.identity.items() if key not in _OF_ONE_FILE},
    )


def _differences(one: CandidateTable, other: CandidateTable) -> list[str]:
    names = ("task", "metric", "lower_is_better", "final_epochs")
    differing = [name for name in names if getattr(one, name) != getattr(other, name)]
    keys = sorted({*one.identity, *other.identity} - {*_OF_ONE_FILE})
    differing += [key for key in keys if one.identity.get(key) != other.identity.get(key)]
    return list(dict.fromkeys(differing))


def _together(one: RecordedRun, other: RecordedRun, name: str) -> RecordedRun:
    seed = f"seed {one.seed}"
    if [record.metric for record in one.reference] != [record.metric for record in other.reference]:
        raise InputError(
            f"tables that are joined must have the same dense model for {seed}, and {name} has another; "
            "leave it out"
        )
    if twice := set(one.configurations) & set(other.configurations):
        raise InputError(
            f"tables that are joined must have different candidates for {seed}, and {name} repeats "
            f"{len(twice)} of an earlier one ({min(item.label for item in twice)}, …); leave it out"
        )
    tests = one.test_metrics + other.test_metrics[1:] if one.test_metrics and other.test_metrics else ()
    return replace(
        one,
        provenance={
            **one.provenance,
            **{key: text for key in _TOLD_TOGETHER if (text := _both(one, other, key))},
        },
        configurations=one.configurations + other.configurations,
        candidates=one.candidates + other.candidates,
        test_metrics=tests,
    )


def _both(one: RecordedRun, other: RecordedRun, key: str) -> str:
    """What the provenance of either tells, once."""
    told = [run.provenance.get(key, "") for run in (one, other)]
    return ", ".join(dict.fromkeys(part for text in told for part in text.split(", ") if part))
