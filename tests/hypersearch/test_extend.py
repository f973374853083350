"""Going on from a finished run: longer training of its finalists, or a further bracket of candidates."""

from dataclasses import replace

import pytest

import hyperprune as hp
from hyperprune.cli.extend import _planned_epochs
from hyperprune.errors import InputError
from hyperprune.hypersearch.observer import SilentObserver
from hyperprune.hypersearch.proposers import PROPOSERS
from hyperprune.hypersearch.run_folder import read_run, read_state
from hyperprune.hypersearch.strategies import STRATEGIES
from hyperprune.hypersearch.strategy import planned_epochs
from hyperprune.hypersearch.table_of_runs import record_table
from tiny_task import TinyTask

LSH = hp.LSH(candidates=4, first_epochs=1, round_epochs=1, final_epochs=4, proposer="random")


def _facts(record):
    return [
        (
            *(row.key, row.configuration, row.outcome, row.reason, row.signals, row.metric),
            *((epoch.valid_loss, tuple(epoch.spectrum)) for epoch in row.epochs),
        )
        for row in (record.reference, *record.candidates)
    ]


def _rows(record):
    return {row.key: row for row in (record.reference, *record.candidates)}


class StopsAfter(SilentObserver):
    """Interrupts after so many events."""

    def __init__(self, events):
        self.left = events

    def event(self, state, event):
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


def test_more_epochs_train_the_finalists_and_the_reference_on_and_touch_nobody_else(tmp_path):
    before = hp.search(TinyTask(), LSH, folder=tmp_path, seed=3).record
    after = hp.extend(tmp_path, final_epochs=7, task=TinyTask()).record
    then, now = _rows(before), _rows(after)
    assert after.finished
    assert after.epochs_full == 7 * len(after.candidates)
    for key, row in now.items():
        longer = row.outcome == "finalist" or key == "dense"
        assert len(row.epochs) == (8 if longer else len(then[key].epochs))
        trained = [epoch.valid_loss for epoch in then[key].epochs]
        assert [epoch.valid_loss for epoch in row.epochs[: len(trained)]] == trained
    finals = [row.metric for row in after.candidates if row.outcome == "finalist" and row.metric is not None]
    assert after.candidates[0].metric == min(finals)
    assert hp.load_model(tmp_path / str(after.candidates[0].checkpoint), TinyTask())
    # Asked for again, it has been done; so it has for the search's own command.
    journal = (tmp_path / "journal.jsonl").read_bytes()
    assert _facts(hp.extend(tmp_path, final_epochs=7, task=TinyTask()).record) == _facts(after)
    assert _facts(hp.search(TinyTask(), LSH, folder=tmp_path, seed=3).record) == _facts(after)
    assert (tmp_path / "journal.jsonl").read_bytes() == journal


def test_schedules_keep_the_span_that_they_had(tmp_path):
    # As a single training: the same checkpoints go on, whose schedules span the first final epochs.
    method = hp.Configuration.of("selfish_rnn", death_rate=0.5)
    hp.train(TinyTask(), method, epochs=2, folder=tmp_path / "short", seed=0)
    planned = _planned_epochs(read_state(tmp_path / "short"), 5, None)  # of the progress bar
    extended = hp.extend(tmp_path / "short", final_epochs=5, task=TinyTask()).record
    assert planned == extended.epochs_spent == 5
    longer = hp.train(TinyTask(), method, epochs=5, folder=tmp_path / "long", seed=0).record
    assert len(extended.candidates[0].epochs) == len(longer.candidates[0].epochs) == 6
    assert extended.reference.epochs == ()  # a model trained alone has none, extended neither
    assert _facts(extended) != _facts(longer)
    with pytest.raises(InputError, match="'hyperprune train' has one model"):
        hp.extend(tmp_path / "short", candidates=3, task=TinyTask())


def test_more_candidates_are_told_of_all_before_and_sifted_among_themselves(tmp_path, monkeypatch):
    told = []

    def listening(space, count, history, known, seed):
        told.append((count, len(history), len(known)))
        return PROPOSERS["random"](space, count, history, known, seed)

    monkeypatch.setitem(PROPOSERS, "listening", listening)
    lsh = hp.LSH(candidates=4, first_epochs=1, round_epochs=1, final_epochs=4, proposer="listening")
    before = hp.search(TinyTask(), lsh, folder=tmp_path, seed=3).record
    ranked = sum(bool(row.signals) for row in before.candidates)
    told.clear()
    after = hp.extend(tmp_path, candidates=3, task=TinyTask()).record
    assert told == [(3, ranked, len(before.candidates))]
    then, now = _rows(before), _rows(after)
    new = set(now) - set(then)
    assert len(new) == 3
    assert after.rounds[: len(before.rounds)] == before.rounds  # the extension's are not its last round's
    assert all(now[key].epochs[-1].valid_loss == row.epochs[-1].valid_loss for key, row in then.items())
    further = [entry for entry in after.rounds if entry.number > len(before.rounds)]
    assert [set(entry.signals) <= new for entry in further] == [True]
    finalists = {row.key for row in after.candidates if row.outcome == "finalist"}
    assert finalists == {row.key for row in before.candidates if row.outcome == "finalist"} | {
        *further[-1].kept
    }
    more = hp.LSH(candidates=3, first_epochs=1, round_epochs=1, final_epochs=4)
    assert after.epochs_spent == before.epochs_spent + planned_epochs(more)
    assert len({str(row.configuration) for row in after.candidates}) == len(after.candidates)


def test_a_proposer_that_is_missing_now_is_told_before_the_run_counts_as_unfinished(tmp_path, monkeypatch):
    def missing():
        raise InputError("the proposer 'atpe' needs hyperopt")

    monkeypatch.setitem(PROPOSERS, "atpe", PROPOSERS["random"])
    monkeypatch.setattr("hyperprune.hypersearch.preparation.require_hyperopt", lambda: None)
    hp.search(TinyTask(), replace(LSH, proposer="atpe"), folder=tmp_path, seed=3)
    monkeypatch.setattr("hyperprune.hypersearch.extend.require_hyperopt", missing)
    with pytest.raises(InputError, match="'atpe' needs hyperopt"):
        hp.extend(tmp_path, candidates=3, task=TinyTask())
    assert read_run(tmp_path).finished
    assert hp.extend(tmp_path, final_epochs=5, task=TinyTask()).record.finished  # which proposes nothing


def test_signals_of_brackets_that_ended_at_other_epochs_do_not_compete(tmp_path, monkeypatch):
    told = {}

    def listening(space, count, history, known, seed):
        told[count] = history
        return PROPOSERS["random"](space, count, history, known, seed)

    monkeypatch.setitem(PROPOSERS, "listening", listening)
    lsh = hp.LSH(candidates=8, first_epochs=1, round_epochs=1, final_epochs=5, proposer="listening")
    first = hp.search(TinyTask(), lsh, folder=tmp_path, seed=3).record
    hp.extend(tmp_path, candidates=4, task=TinyTask())
    hp.extend(tmp_path, candidates=4, task=TinyTask())
    # The first bracket's finalists were last ranked in epoch 4, the second's in epoch 2.
    ends = {str(row.configuration) for row in first.candidates if row.outcome == "finalist"}
    seen_at = {str(seen.configuration.to_json()): seen.dropped_at for seen in told[4]}
    assert {seen_at[text] for text in ends} == {4}
    assert list(seen_at.values()).count(None) == 2


def test_a_run_with_further_candidates_can_be_audited_whole_and_makes_a_table(tmp_path):
    hp.search(TinyTask(), LSH, folder=tmp_path, seed=3)
    hp.extend(tmp_path, candidates=4, task=TinyTask())
    some = hp.search(TinyTask(), LSH, folder=tmp_path, seed=3, audit=4).record
    assert len(some.audited) == 4  # more than the first bracket alone eliminates
    record = hp.search(TinyTask(), LSH, folder=tmp_path, seed=3, audit=None).record
    assert len(record.audited) == sum(row.outcome == "eliminated" for row in record.candidates) > 3
    assert record_table([tmp_path]).num_rows == len(record.candidates)


def test_further_candidates_of_a_longer_run_are_sifted_as_before_and_trained_as_long(tmp_path):
    full = hp.Full(candidates=2, final_epochs=2)
    hp.search(TinyTask(), full, folder=tmp_path, seed=3)
    hp.extend(tmp_path, final_epochs=4, task=TinyTask())
    record = hp.extend(tmp_path, candidates=2, task=TinyTask()).record
    assert [len(row.epochs) for row in record.candidates] == [5] * 4
    assert record.strategy["extended by"] == "training to epoch 4, then 2 candidates"
    assert record.rounds == ()


@pytest.mark.parametrize("asked", [{"final_epochs": 6}, {"candidates": 3}])
def test_an_extension_interrupted_again_and_again_ends_as_if_it_had_not_been(tmp_path, asked):
    for name in ("whole", "pieces"):
        hp.search(TinyTask(), LSH, folder=tmp_path / name, seed=3)
    whole = hp.extend(tmp_path / "whole", task=TinyTask(), **asked).record
    turn = 0
    for turn in range(20):
        try:
            # The extension's own call and the search's go on alike, once the journal knows of it.
            if turn % 2 == 0:
                hp.extend(tmp_path / "pieces", task=TinyTask(), observer=StopsAfter(2), **asked)
            else:
                hp.search(TinyTask(), LSH, folder=tmp_path / "pieces", seed=3, observer=StopsAfter(2))
        except KeyboardInterrupt:
            assert turn < 19
        if read_run(tmp_path / "pieces").finished:
            break
    assert turn > 1
    assert _facts(read_run(tmp_path / "pieces")) == _facts(whole)
    assert len(read_state(tmp_path / "pieces").extensions) == 1


def test_a_strategy_of_ones_own_that_is_not_there_any_more_extends_nothing(tmp_path, monkeypatch):
    class Mine(hp.Full):
        name = "mine"

    hp.search(TinyTask(), Mine(candidates=2, final_epochs=1), folder=tmp_path)
    journal = (tmp_path / "journal.jsonl").read_bytes()
    with pytest.raises(InputError, match="unknown strategy 'mine'"):
        hp.extend(tmp_path, final_epochs=2, task=TinyTask())
    assert (tmp_path / "journal.jsonl").read_bytes() == journal
    monkeypatch.setitem(STRATEGIES, "mine", Mine)
    assert hp.extend(tmp_path, final_epochs=2, task=TinyTask()).record.reference.epochs[-1].epoch == 2


class BreaksLate(TinyTask):
    """No loss is finite beyond the fourth epoch."""

    def batches(self, split, epoch):
        batches = super().batches(split, epoch)
        return [batch * float("nan") for batch in batches] if epoch > 4 and split == "train" else batches


def test_finalists_that_fail_on_the_way_keep_what_they_had(tmp_path):
    before = hp.search(BreaksLate(), LSH, folder=tmp_path, seed=3).record
    after = hp.extend(tmp_path, final_epochs=6, task=BreaksLate()).record
    assert after.finished
    assert [(row.key, row.metric) for row in after.candidates] == [
        (row.key, row.metric) for row in before.candidates
    ]
    assert "became nan in epoch 5" in str(after.candidates[0].reason)
    assert hp.search(BreaksLate(), LSH, folder=tmp_path, seed=3).best.key == before.candidates[0].key


@pytest.fixture(scope="module")
def band(tmp_path_factory):
    folder = tmp_path_factory.mktemp("band")
    hp.search(TinyTask(), hp.Hyperband(first_epochs=1, eta=2, final_epochs=2), folder=folder, seed=3)
    return folder


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({}, "either final_epochs or candidates"),
        ({"final_epochs": 9, "candidates": 2}, "either final_epochs or candidates"),
        ({"final_epochs": 2}, "final_epochs must be more than the run's 2, got 2"),
        ({"final_epochs": 1}, "final_epochs must be more than the run's 2, got 1"),
        ({"final_epochs": True}, "final_epochs must be a whole number of at least 1, got True"),
        ({"candidates": -3}, "how many more, at least 2, got -3"),
        ({"candidates": 3}, "candidates of hyperband follow from its epochs"),
        ({"final_epochs": 9, "executor": "dask"}, "unknown executor 'dask'"),
        ({"final_epochs": 9, "task": None}, "was made by a program; call hyperprune.extend"),
    ],
)
def test_an_extension_that_means_nothing_is_refused_and_leaves_the_run_as_it_was(band, asked, message):
    before = (band / "journal.jsonl").read_bytes()
    with pytest.raises(InputError, match=message):
        hp.extend(band, **{"task": TinyTask(), **asked})
    assert (band / "journal.jsonl").read_bytes() == before


def test_an_unfinished_audit_is_not_destroyed_by_an_extension(tmp_path):
    hp.search(TinyTask(), LSH, folder=tmp_path, seed=3)
    with pytest.raises(KeyboardInterrupt):
        hp.search(TinyTask(), LSH, folder=tmp_path, seed=3, audit=1, observer=StopsAfter(1))
    assert read_state(tmp_path).finished
    with pytest.raises(InputError, match="audit must be finished before it is extended"):
        hp.extend(tmp_path, final_epochs=6, task=TinyTask())
    hp.search(TinyTask(), LSH, folder=tmp_path, seed=3, audit=1)
    assert hp.extend(tmp_path, final_epochs=6, task=TinyTask()).record.finished


class LoadsLate(TinyTask):
    """Has an attribute, a number that is none, once its batches were asked for."""

    late = None

    def batches(self, split, epoch):
        self.late = float("nan")
        return super().batches(split, epoch)


def test_a_task_that_loads_its_data_when_first_asked_is_extended_and_gone_on_with(tmp_path):
    strategy = replace(LSH, candidates=2)
    hp.search(LoadsLate(), strategy, folder=tmp_path, seed=3)
    hp.search(LoadsLate(), strategy, folder=tmp_path, seed=3)
    assert "late" in read_state(tmp_path).identity["task"]["attributes"]
    assert hp.extend(tmp_path, final_epochs=5, task=LoadsLate()).record.finished


def test_a_run_that_is_not_finished_or_at_another_extension_is_not_extended(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        hp.search(TinyTask(), LSH, folder=tmp_path, seed=3, observer=StopsAfter(4))
    with pytest.raises(InputError, match="must be finished to be extended"):
        hp.extend(tmp_path, final_epochs=9, task=TinyTask())
    hp.search(TinyTask(), LSH, folder=tmp_path, seed=3)
    with pytest.raises(InputError, match="how many more, at least 2, got 1"):
        hp.extend(tmp_path, candidates=1, task=TinyTask())
    with pytest.raises(KeyboardInterrupt):
        hp.extend(tmp_path, final_epochs=9, task=TinyTask(), observer=StopsAfter(1))
    with pytest.raises(InputError, match="must be finished to be extended"):
        hp.extend(tmp_path, candidates=3, task=TinyTask())
