"""Tables joined: seeds side by side, candidates together, nothing that differs passes for the same."""

from dataclasses import replace

import pytest

import hyperprune as hp
from hyperprune.errors import InputError
from hyperprune.hypersearch.joining import joined
from hyperprune.hypersearch.space import paper_branch
from hyperprune.hypersearch.table import CandidateTable, RecordedRun
from hyperprune.records import EpochRecord


def table_of(seed=0, rate=0.8, **changes):
    """Two epochs of four candidates; the dense model is the seed's."""

    def row(quality):
        return tuple(
            EpochRecord(epoch=epoch, train_loss=1.0, valid_loss=1.0, metric=quality - epoch, seconds=1.0)
            for epoch in range(3)
        )

    space = hp.Space(branches=[paper_branch(rate)])
    run = RecordedRun(
        seed=seed,
        configurations=tuple(space.grid())[:4],
        reference=row(90.0 + seed),
        candidates=tuple(row(100 * rate + number) for number in range(4)),
        provenance={"command": f"record {rate}", "machine": "one"},
        test_metrics=(88.0, *(100 * rate + number for number in range(4))),
    )
    identity = {"task": "made up", "sparsity": 0.5, "group": f"rate-{rate}", "cells": 4}
    settings = {
        "task": "made up",
        "metric": "perplexity",
        "lower_is_better": True,
        "final_epochs": 2,
        "provenance": {},
        **changes,
    }
    return CandidateTable(runs=(run,), identity=identity | settings.pop("identity", {}), **settings)


def test_seeds_stand_side_by_side_and_candidates_of_a_seed_together():
    parts = [("a", table_of(1)), ("b", table_of(0)), ("c", table_of(0, 0.5))]
    both = joined(parts)
    assert [run.seed for run in both.runs] == [0, 1]
    assert [len(run.candidates) for run in both.runs] == [8, 4]
    first = both.runs[0]
    assert first.configurations == parts[1][1].runs[0].configurations + parts[2][1].runs[0].configurations
    finals = [both.final_metric(records) for records in first.candidates]
    assert finals == [78, 79, 80, 81, 48, 49, 50, 51]
    assert first.test_metrics == (88, 80, 81, 82, 83, 50, 51, 52, 53)
    assert first.provenance == {"command": "record 0.8, record 0.5", "machine": "one"}
    assert both.identity == {"task": "made up", "sparsity": 0.5}  # of which rate, and how many, is not shared
    assert both.num_missing == 0


def test_files_are_joined_in_any_order_and_one_stays_what_it_is(tmp_path):
    for number in range(2):
        table_of(number).save(tmp_path / f"{number}.npz")
    one, other = (tmp_path / f"{number}.npz" for number in range(2))
    assert [run.seed for run in hp.load_table(other, one).runs] == [0, 1]
    assert hp.load_table(one).identity["cells"] == 4
    with pytest.raises(InputError, match=r"must be a readable file, got .*missing.npz"):
        hp.load_table(one, tmp_path / "missing.npz")


@pytest.mark.parametrize(
    ("other", "differs"),
    [
        (table_of(1, identity={"sparsity": 0.9}), "sparsity"),
        (table_of(1, identity={"task": "another", "threads": 2}), "task, threads"),
        (table_of(1, task="another", metric="accuracy"), "task, metric"),
        (table_of(1, lower_is_better=False), "lower_is_better"),
    ],
)
def test_what_differs_in_more_than_seeds_and_candidates_is_not_joined(other, differs):
    with pytest.raises(
        InputError, match=f"nothing but seeds and candidates, and b differs from a in {differs};"
    ):
        joined([("a", table_of()), ("b", other)])


def test_another_dense_model_of_a_seed_and_a_candidate_twice_are_refused():
    part = table_of(0, 0.5)
    (run,) = part.runs
    changed = replace(run, reference=(replace(run.reference[0], metric=1.0), *run.reference[1:]))
    with pytest.raises(InputError, match="the same dense model for seed 0, and b has another"):
        joined([("a", table_of()), ("b", replace(part, runs=(changed,)))])
    with pytest.raises(
        InputError, match=r"different candidates for seed 0, and b repeats 4 of an earlier one \(.*0\.8"
    ):
        joined([("a", table_of()), ("b", table_of())])
