"""Replays pick what live searches pick; tables keep every number; wrong tables are refused."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import hyperprune as hp
from hyperprune.errors import InputError
from hyperprune.hypersearch import table_of_runs
from hyperprune.hypersearch.executor import InProcess
from hyperprune.hypersearch.live_arena import LiveArena
from hyperprune.hypersearch.observer import SilentObserver
from hyperprune.hypersearch.replay import RowSpace, replay_once
from hyperprune.hypersearch.run_folder import RunFolder, read_state
from hyperprune.hypersearch.space import Configuration, Space
from hyperprune.hypersearch.spaces import get_space
from hyperprune.hypersearch.strategies import Random
from hyperprune.hypersearch.table import CandidateTable, RecordedRun, read_table
from hyperprune.hypersearch.table_of_runs import check_recordable, record_table
from hyperprune.records import EpochRecord
from hyperprune.rng import derive_seed
from tiny_task import TinyTask

FINAL = 6
ROWS = 12
LSH = hp.LSH(candidates=6, first_epochs=1, round_epochs=1, final_epochs=FINAL)
SMALL: dict[str, Any] = {"first_epochs": 1, "round_epochs": 1, "final_epochs": FINAL}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A live run that trained everything, its folder, and the table made from it."""
    folder = tmp_path_factory.mktemp("full")
    result = hp.search(TinyTask(), hp.Full(candidates=ROWS, final_epochs=FINAL), folder=folder, seed=5)
    table = record_table([folder])
    path = tmp_path_factory.mktemp("table") / "tiny.npz"
    table.save(path)
    return result, folder, read_table(path), path


class LiveOnRows(LiveArena):
    """Trains for real, and takes its candidates from a table's rows."""

    rows: RowSpace

    def _space_beside(self, known, count):
        space = self.rows.beside(known)
        np.random.default_rng(derive_seed(self.state.header["seed"], "rows")).shuffle(space.rows)
        return space


def _live(folder, strategy, configurations, seed):
    """A live search restricted to configurations, driven as `hp.search` drives its arena."""
    task = TinyTask()
    header = {
        "event": "run",
        "identity": {"device": "cpu", "threads": 1},
        "task": task.name,
        "sparsity": task.sparsity,
        "seed": seed,
        "strategy": strategy.to_json(),
        "metric": task.metric,
        "lower_is_better": True,
        "baseline": None,
        "provenance": {},
    }
    with RunFolder(folder) as run:
        run.begin(header)
        arena = LiveOnRows(
            task, Space(), run, InProcess(task), measures_spectra=True, observer=SilentObserver()
        )
        arena.rows = RowSpace.over(configurations)
        arena.record({"event": "finished", "finalists": strategy.run(arena)})
        return run.state.to_record()


def _facts(record):
    return (
        [
            *((row.key, row.label, row.outcome, dict(row.signals), row.metric) for row in record.candidates),
        ],
        [(entry.epoch, dict(entry.signals), entry.kept, entry.inserted) for entry in record.rounds],
        record.epochs_spent,
    )


@pytest.mark.long
@pytest.mark.parametrize(
    "strategy",
    [
        LSH,
        replace(LSH, signal="loss", history="all", proposer="tpe"),
        hp.LSH(candidates=ROWS, proposer="grid", signal="blend", **SMALL),
        hp.SuccessiveHalving(
            candidates=8, first_epochs=1, final_epochs=FINAL, eta=2, signal="spectrum_joint"
        ),
        hp.Hyperband(first_epochs=1, final_epochs=FINAL, eta=2, proposer="tpe", signal="spectrum_raw"),
    ],
    ids=["lsh-tpe", "lsh-all", "lsh-grid", "halving", "hyperband"],
)
def test_a_replay_is_the_live_search_on_the_same_configurations_to_the_last_bit(recorded, tmp_path, strategy):
    _, _, table, _ = recorded
    replayed = replay_once(table, strategy, seed=5)
    live = _live(tmp_path, strategy, table.runs[0].configurations, 5)
    assert _facts(replayed) == _facts(live)
    assert replayed.candidates[0].key == live.candidates[0].key


def test_the_public_search_on_a_grid_is_what_its_replay_says(tmp_path):
    branch = hp.Branch.of(
        "dynamic_sparse",
        allocation=["uniform", "er"],
        death=["set", "magnitude"],
        redistribution=["none", "nonzeros"],
        death_rate=0.8,
    )
    space = Space(branches=[branch])
    full = hp.Full(candidates=8, final_epochs=FINAL, proposer="grid")
    lsh = hp.LSH(candidates=8, proposer="grid", **SMALL)
    hp.search(TinyTask(), full, space=space, folder=tmp_path / "full", seed=0)
    live = hp.search(TinyTask(), lsh, space=space, folder=tmp_path / "lsh", seed=0)
    replayed = replay_once(record_table([tmp_path / "full"]), lsh, seed=0)
    signals = [
        {row.label: list(row.signals.values()) for row in record.candidates}
        for record in (live.record, replayed)
    ]
    assert signals[0] == signals[1]
    assert replayed.candidates[0].label == live.best.label
    assert replayed.candidates[0].metric == live.best.metric


def test_a_table_keeps_every_number_of_its_run_through_its_file(recorded):
    result, _, table, path = recorded
    by_label = {row.label: row for row in result.record.candidates}
    run = table.runs[0]
    assert run.seed == 5
    assert table.final_epochs == FINAL
    rows = [
        (result.record.reference, run.reference),
        *(
            (by_label[configuration.label], records)
            for configuration, records in zip(run.configurations, run.candidates, strict=True)
        ),
    ]
    assert len(rows) == ROWS + 1
    for row, records in rows:
        for there, here in zip(row.epochs, records, strict=True):
            assert (there.epoch, there.train_loss, there.valid_loss, there.metric, there.seconds) == (
                *(here.epoch, here.train_loss, here.valid_loss, here.metric, here.seconds),
            )
            assert np.array_equal(there.spectrum, here.spectrum)
        assert row.metric == table.final_metric(records)
    assert {"command", "python", "hyperprune"} <= set(table.provenance)
    assert {"command", "machine", "torch"} <= set(run.provenance)
    assert table.identity["task"] == json.loads(json.dumps(TinyTask().identity()))
    again = path.with_name("again.npz")
    table.save(again)
    with np.load(path) as one, np.load(again) as other:
        assert all(np.array_equal(one[name], other[name], equal_nan=name != "header") for name in one.files)


def test_regret_is_zero_for_full_training_of_all_rows_and_the_distance_to_the_best_else(recorded):
    _, _, table, _ = recorded
    full = hp.replay(table, hp.Full(candidates=ROWS, final_epochs=FINAL), repeats=3)
    assert full.regret.tolist() == [0, 0, 0]
    assert full.relative.tolist() == [0, 0, 0]
    assert full.epochs_spent.tolist() == [ROWS * FINAL] * 3
    finals = {
        configuration.label: table.final_metric(records)
        for configuration, records in zip(table.runs[0].configurations, table.runs[0].candidates, strict=True)
    }
    some = hp.replay(table, Random(candidates=3, final_epochs=FINAL), repeats=50)
    best = min(finals.values())
    assert some.regret.tolist() == [finals[pick] - best for pick in some.picks]
    assert some.relative == pytest.approx(some.regret / best)  # one division, rounded once
    assert len(set(some.picks)) > 3
    # A uniform draw of 3 of 12 holds the best with probability 1/4; 5 standard errors of 50 draws are 0.31.
    assert some.summary()["found_best"] == pytest.approx(0.25, abs=0.31)


def test_replays_depend_on_the_seed_alone_and_draw_alike_for_every_strategy(recorded):
    _, _, table, _ = recorded
    random = Random(candidates=2, final_epochs=FINAL)
    one = hp.replay(table, random, repeats=20, seed=1)
    assert one.picks == hp.replay(table, random, repeats=20, seed=1).picks
    assert one.picks != hp.replay(table, random, repeats=20, seed=2).picks
    lsh = hp.LSH(candidates=2, proposer="random", **SMALL)  # with two there is nothing to eliminate
    assert one.picks == hp.replay(table, lsh, repeats=20, seed=1).picks


def test_tpe_takes_rows_without_replacement_until_none_is_left(recorded):
    _, _, table, _ = recorded
    lsh = hp.LSH(candidates=7, **SMALL)
    assert lsh.created == 10
    record = replay_once(table, lsh, seed=0)
    labels = [row.label for row in record.candidates]
    assert len(set(labels)) == 10
    assert set(labels) <= {configuration.label for configuration in table.runs[0].configurations}


def test_the_row_nearest_to_an_answer_is_the_one_with_its_names_and_then_its_death_rate():
    def row(death, rate):
        return Configuration.of("dynamic_sparse", allocation="er", death=death, death_rate=rate)

    rows = [row("set", 0.5), row("set", 0.8), row("magnitude", 0.62), Configuration.of("static")]
    left = RowSpace.over(rows)
    assert left.nearest(row("set", 0.62)) == rows[0]
    assert left.nearest(row("set", 0.62)) == rows[1]
    assert left.nearest(row("set", 0.62)) == rows[2]
    assert left.grid() == [rows[3]]


@pytest.mark.parametrize("rates", [(0.1, 1 / 3, 0.9), (1 / 3, 0.5, 0.7), (1e-20, 0.5, 0.7)])
def test_rows_may_have_numbers_of_any_precision(rates):
    rows = [Configuration.of("rigl", death_rate=rate) for rate in rates]
    for row in rows:
        assert RowSpace.over(rows).nearest(row) == row


def _records(values):
    return tuple(
        EpochRecord(
            epoch=epoch,
            train_loss=None if epoch == 0 else value,
            valid_loss=value,
            metric=value,
            seconds=1.0,
            spectrum=np.array([value, -np.inf]),
        )
        for epoch, value in enumerate(values)
    )


def _table(rows, *, lower_is_better=True, final_epochs=2, runs=1):
    space = Space()
    random = np.random.default_rng(0)
    run = [
        RecordedRun(
            seed=seed,
            configurations=tuple(space.sample(random) for _ in rows),
            reference=_records([1.0] * (final_epochs + 1)),
            candidates=tuple(_records(row) for row in rows),
            provenance={},
        )
        for seed in range(runs)
    ]
    return CandidateTable(
        task="made",
        metric="score",
        lower_is_better=lower_is_better,
        final_epochs=final_epochs,
        identity={"sparsity": 0.5},
        runs=tuple(run),
        provenance={},
    )


def test_where_higher_is_better_the_best_row_is_the_highest_and_regret_stays_positive():
    table = _table([[0, 1, 2], [0, 9, 4], [0, 5, 6]], lower_is_better=False)
    full = hp.replay(table, hp.Full(candidates=3, final_epochs=2), repeats=2)
    assert full.regret.tolist() == [0, 0]
    pairs = hp.replay(table, hp.Full(candidates=2, final_epochs=2), repeats=40)
    assert set(pairs.regret.tolist()) == {0.0, 3.0}  # without the 9, the pick is the 6


def test_the_untrained_network_is_nobodys_best_epoch():
    full = hp.Full(candidates=2, final_epochs=2)
    assert hp.replay(_table([[0, 2, 2], [0, 1, 3]]), full, repeats=1).regret.tolist() == [0]


def test_the_eliminated_rank_by_how_far_they_came_though_brackets_begin_again():
    band = hp.Hyperband(final_epochs=8, first_epochs=1, eta=2, signal="loss")
    rows = [[9.0, *(number + epoch / 10 for epoch in range(8))] for number in range(band.created)]
    record = replay_once(_table(rows, final_epochs=8), band, seed=0)
    dropped = [len(row.epochs) - 1 for row in record.candidates if row.outcome == "eliminated"]
    assert dropped == sorted(dropped, reverse=True)
    assert {entry.number: entry.epoch for entry in record.rounds} == {1: 1, 2: 2, 3: 4, 4: 2, 5: 4, 6: 4}


def test_repeats_take_the_runs_in_turn():
    table = _table([[3, 2, 1], [3, 2, 2]], runs=3)
    outcome = hp.replay(table, hp.Full(candidates=2, final_epochs=2), repeats=6)
    assert outcome.picks == tuple(run.configurations[0].label for run in table.runs) * 2


def test_minus_infinity_is_a_value_of_a_spectrum():
    lsh = hp.LSH(candidates=3, first_epochs=1, final_epochs=2, proposer="random")
    assert hp.replay(_table([[3, 2, 1], [3, 2, 2], [9, 9, 9]]), lsh, repeats=1).regret[0] == 0


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[1, 1]] * 2, r"epochs 0 to 2 of every candidate, and .* has 2 \(missing: \[2\]\).*--strategy full"),
        (
            [[1, 1, float("nan")]] * 2,
            "must hold numbers, and valid_loss of .* in the run of seed 0 .* epoch 2",
        ),
        ([[1, 1, 1]], "at least 2 different configurations, the run of seed 0 has 1"),
    ],
)
def test_a_table_with_missing_epochs_or_nan_is_refused(rows, message):
    with pytest.raises(InputError, match=message):
        _table(rows)


def test_a_candidate_that_never_is_at_its_sparsity_is_refused():
    table = _table([[1, 1, 1]] * 2)
    early = tuple(replace(record, at_sparsity=False) for record in table.runs[0].candidates[1])
    with pytest.raises(InputError, match="an epoch at the final sparsity of every candidate"):
        replace(table, runs=(replace(table.runs[0], candidates=(table.runs[0].candidates[0], early)),))


def test_a_nan_in_a_spectrum_is_refused():
    table = _table([[1, 1, 1]] * 2)
    last = replace(table.runs[0].candidates[1][-1], spectrum=np.array([np.nan, 0.0]))
    rows = (table.runs[0].candidates[0], (*table.runs[0].candidates[1][:-1], last))
    with pytest.raises(InputError, match=r"spectrum of .* is not one at epoch 2"):
        replace(table, runs=(replace(table.runs[0], candidates=rows),))


def test_a_file_that_is_no_table_is_refused_with_the_remedy(tmp_path, recorded):
    _, _, _, path = recorded
    with pytest.raises(InputError, match=r"readable file, got .*missing\.npz: No such file"):
        read_table(tmp_path / "missing.npz")
    (tmp_path / "text.npz").write_text("no table")
    with pytest.raises(InputError, match="that 'hyperprune record' wrote"):
        read_table(tmp_path / "text.npz")
    np.savez(tmp_path / "other.npz", numbers=np.arange(3))
    with pytest.raises(InputError, match=r"that 'hyperprune record' wrote.*header"):
        read_table(tmp_path / "other.npz")
    half = path.read_bytes()
    (tmp_path / "half.npz").write_bytes(half[: len(half) // 2])
    with pytest.raises(InputError, match="that 'hyperprune record' wrote"):
        read_table(tmp_path / "half.npz")


def test_an_array_file_or_a_table_with_a_changed_byte_is_no_table(tmp_path, recorded):
    _, _, table, path = recorded
    np.save(tmp_path / "array.npy", np.arange(3))
    with pytest.raises(InputError, match="that 'hyperprune record' wrote"):
        read_table(tmp_path / "array.npy")
    whole, refused = path.read_bytes(), 0
    for position in range(0, len(whole), len(whole) // 200):
        data = bytearray(whole)
        data[position] ^= 0xFF
        (tmp_path / "changed.npz").write_bytes(data)
        try:
            assert read_table(tmp_path / "changed.npz").final_epochs == table.final_epochs
        except InputError:
            refused += 1
    assert refused > 100  # of 200; the others are bytes that nobody reads, such as dates


def test_a_search_that_can_never_be_a_table_is_refused_before_it_begins(tmp_path):
    check_recordable(LSH, Space(), tmp_path / "new")
    check_recordable(LSH, Space(), None)
    searched = Space(sparsity=[0.5, 0.9], sparsity_weight=0.1)
    with pytest.raises(InputError, match=r"a table is of one sparsity, .* leave sparsity out"):
        check_recordable(LSH, searched, tmp_path / "new")
    with pytest.raises(InputError, match=r"a table is of one network, .* leave model out"):
        check_recordable(LSH, get_space("graphs"), tmp_path / "new")


def test_a_run_that_was_trained_longer_is_no_table_to_go_on_with_and_one_with_more_candidates_is(tmp_path):
    full = hp.Full(candidates=2, final_epochs=1)
    hp.search(TinyTask(), full, folder=tmp_path)
    hp.extend(tmp_path, candidates=2, task=TinyTask())
    check_recordable(full, Space(), tmp_path)
    hp.extend(tmp_path, final_epochs=2, task=TinyTask())
    with pytest.raises(InputError, match="was extended by final epochs"):
        check_recordable(full, Space(), tmp_path)
    check_recordable(full, Space(), None)  # as for a run that is begun anew


def _rewritten(path, target, change):
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files}
    change(arrays)
    np.savez(target, allow_pickle=False, **arrays)
    return target


def test_a_damaged_table_is_refused_on_loading(tmp_path, recorded):
    _, _, _, path = recorded

    def nan(arrays):
        arrays["metric_0"][2, 3] = np.nan

    def short(arrays):
        arrays["spectrum_0"] = arrays["spectrum_0"][:, :-1]

    def old(arrays):
        arrays["header"] = np.array(json.dumps({**json.loads(arrays["header"].item()), "format": 0}))

    for change, message in (
        (nan, r"changed\.npz: a table must hold numbers, and metric of .* epoch 3"),
        (short, "a column per epoch, run 0 has not"),
        (old, "must be of format 1"),
    ):
        with pytest.raises(InputError, match=message):
            read_table(_rewritten(path, tmp_path / "changed.npz", change))


def test_a_run_that_eliminated_or_has_not_ended_or_is_another_makes_no_table(recorded, tmp_path):
    _, folder, _, _ = recorded
    hp.search(TinyTask(), replace(LSH, candidates=3), folder=tmp_path / "lsh", seed=0)
    with pytest.raises(InputError, match=r"stopped 1 \(c0.*with --record, .*search with --strategy full"):
        record_table([tmp_path / "lsh"])
    short = hp.Full(candidates=2, final_epochs=1)
    hp.search(TinyTask(), short, folder=tmp_path / "short", seed=0, sparsity=0.4)
    with pytest.raises(InputError, match=r"differ in nothing but the seed.* another sparsity, final_epochs"):
        record_table([folder, tmp_path / "short"])
    with pytest.raises(InputError, match=r"different seeds, got \[5, 5\]"):
        record_table([folder, folder])
    hp.train(TinyTask(), Configuration.of("static"), epochs=1, folder=tmp_path / "alone")
    with pytest.raises(InputError, match=r"made from searches, and .*alone holds a single training"):
        record_table([tmp_path / "alone"])
    journal = tmp_path / "short" / "journal.jsonl"
    journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[:-1]))
    with pytest.raises(InputError, match=r"made from finished runs, and .*short is not"):
        record_table([tmp_path / "short"])


def test_a_run_whose_candidates_change_the_network_makes_no_table(recorded, monkeypatch):
    state = read_state(recorded[1])
    wider = Configuration.of("static", **{"model.hidden_size": 9})
    key, first = next(iter(state.candidates.items()))
    state.candidates[key] = replace(first, configuration=wider.to_json())
    monkeypatch.setattr(table_of_runs, "read_state", lambda _: state)
    with pytest.raises(InputError, match="a table is of one network, and the candidates of"):
        record_table([recorded[1]])


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        (
            hp.LSH(candidates=12, first_epochs=1, round_epochs=1, final_epochs=20),
            "table's final_epochs, 6, .* got 20",
        ),
        (hp.Full(candidates=13, final_epochs=FINAL), "full creates 13 candidates and the table has 12 rows"),
        (
            hp.Hyperband(first_epochs=1, final_epochs=FINAL, eta=4),
            None,
        ),
        (hp.LSH(candidates=9, **SMALL), "lsh creates 14 candidates"),
    ],
)
def test_a_strategy_that_the_table_cannot_serve_is_refused_before_it_runs(recorded, strategy, message):
    _, _, table, _ = recorded
    if message is None:
        assert hp.replay(table, strategy, repeats=1).epochs_spent[0] > 0
        return
    with pytest.raises(InputError, match=message):
        hp.replay(table, strategy, repeats=1)


def test_no_repeats_are_refused(recorded):
    with pytest.raises(InputError, match="repeats must be at least 1, got 0; 1000"):
        hp.replay(recorded[2], LSH, repeats=0)


def test_every_proposer_draws_rows_of_other_methods():
    table = _table([[3, 2, 1], [3, 2, 2], [3, 3, 3], [4, 4, 4], [5, 5, 5]])
    rates = tuple(hp.Configuration.of("rigl", death_rate=rate) for rate in (0.1, 0.2, 0.3, 0.4))
    others = (*rates, hp.Configuration.of("static"))
    table = replace(table, runs=(replace(table.runs[0], configurations=others),))
    lsh = hp.LSH(candidates=4, first_epochs=1, round_epochs=1, final_epochs=2)
    for proposer in ("random", "tpe"):
        record = replay_once(table, replace(lsh, proposer=proposer), seed=1)
        drawn = [hp.Configuration.from_json(row.configuration) for row in record.candidates]
        assert len(set(drawn)) == 5
        assert set(drawn) == set(others)


def test_spectra_of_another_state_than_was_recorded_are_refused():
    table = _table([[3, 2, 1], [3, 2, 2], [3, 3, 3]])
    lsh = hp.LSH(candidates=3, first_epochs=1, final_epochs=2, proposer="random", spectrum_state="full")
    with pytest.raises(InputError, match="of the hidden state, and spectrum_state is 'full'"):
        hp.replay(table, lsh, repeats=1)
    measured = replace(table, identity={**table.identity, "spectrum_state": "full"})
    assert len(hp.replay(measured, lsh, repeats=1).picks) == 1


def test_a_spectrum_signal_on_a_table_without_spectra_is_refused():
    table = _table([[3, 2, 1], [3, 2, 2], [3, 3, 3]])
    bare = lambda records: tuple(replace(record, spectrum=None) for record in records)  # noqa: E731
    run = table.runs[0]
    run = replace(run, reference=bare(run.reference), candidates=tuple(map(bare, run.candidates)))
    lsh = hp.LSH(candidates=3, first_epochs=1, final_epochs=2, proposer="random", signal="spectrum")
    with pytest.raises(InputError, match="'spectrum' needs spectra, and the table was recorded without"):
        hp.replay(replace(table, runs=(run,)), lsh, repeats=1)
    assert hp.replay(replace(table, runs=(run,)), replace(lsh, signal="loss"), repeats=1).regret[0] == 0
