"""A whole search on a task of milliseconds."""

import json
import multiprocessing
import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch

import hyperprune as hp
from hyperprune.errors import HyperpruneError, InputError, NumericsError, WorkerError
from hyperprune.hypersearch import preparation
from hyperprune.hypersearch.run_folder import read_run
from hyperprune.hypersearch.strategy import planned_epochs
from hyperprune.tasks.contract import Evaluation
from hyperprune.training.checkpoint import load_checkpoint, save_checkpoint
from tiny_task import TinyTask

LSH = hp.LSH(candidates=5, first_epochs=1, round_epochs=1, final_epochs=6)


def _weights(result):
    return load_checkpoint(result.checkpoint)["model"]


def _same_weights(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def _facts(record):
    """All of a run but the times."""
    return [
        (
            *(candidate.key, candidate.label, candidate.outcome, candidate.signals, candidate.metric),
            *((epoch.valid_loss, tuple(epoch.spectrum), epoch.averaging) for epoch in candidate.epochs),
        )
        for candidate in (record.reference, *record.candidates)
    ]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return hp.search(TinyTask(), LSH, folder=tmp_path_factory.mktemp("run"), seed=3)


def test_the_winner_is_the_finalist_with_the_best_metric(finished):
    finalists = [row for row in finished.record.candidates if row.outcome == "finalist"]
    assert len(finalists) == 2
    assert finished.best.metric == min(row.metric for row in finalists)
    assert all(len(row.epochs) == LSH.final_epochs + 1 for row in (*finalists, finished.record.reference))


def test_epochs_spent_are_those_planned_and_full_cost_counts_every_candidate_created(finished):
    assert finished.epochs_spent == planned_epochs(LSH)
    assert finished.record.epochs_full == LSH.final_epochs * len(finished.record.candidates)


def test_eliminations_follow_the_spectrum_distance(finished):
    for entry in finished.record.rounds:
        dropped = [value for key, value in entry.signals.items() if key not in entry.kept]
        assert max(entry.signals[key] for key in entry.kept) <= min(dropped)


def test_the_signal_is_recomputable_from_the_records(finished):
    candidates = {row.key: row for row in finished.record.candidates}
    entry = finished.record.rounds[0]
    for key, value in entry.signals.items():
        losses = [epoch.train_loss for epoch in candidates[key].epochs[1 : entry.epoch + 1]]
        assert value == sum(loss for loss in losses if loss is not None)


def test_the_papers_signal_is_the_distance_of_the_recorded_spectra(finished, tmp_path):
    by_spectrum = replace(LSH, signal="spectrum")
    record = hp.search(TinyTask(), by_spectrum, folder=tmp_path, seed=3).record
    candidates, entry = {row.key: row for row in record.candidates}, record.rounds[0]
    reference = [epoch.spectrum for epoch in record.reference.epochs[: entry.epoch + 1]]
    for key, value in entry.signals.items():
        spectra = [epoch.spectrum for epoch in candidates[key].epochs[: entry.epoch + 1]]
        assert value == hp.spectrum_distance(reference, spectra)  # pyright: ignore[reportArgumentType]
    # Spectra are measured whatever ranks.
    assert all(epoch.spectrum is not None for epoch in finished.record.reference.epochs)


def test_the_winners_weights_are_pruned_to_the_exact_count_and_load_again(finished):
    before = torch.get_rng_state()
    model = hp.load_model(finished.checkpoint, TinyTask())
    assert torch.equal(before, torch.get_rng_state())
    matrices = [weight for name, weight in model.named_parameters() if weight.ndim == 2]
    total = sum(weight.numel() for weight in matrices)
    live = sum(int((weight != 0).sum()) for weight in matrices)
    # A live weight can be exactly zero only right after growth, before its first step.
    assert live <= round(total * 0.5)
    assert live >= round(total * 0.5) * 0.9


def test_workers_give_what_one_process_gives_bit_for_bit(finished, tmp_path):
    parallel = hp.search(TinyTask(), LSH, folder=tmp_path, seed=3, workers=2)
    assert _facts(parallel.record) == _facts(finished.record)
    assert _same_weights(_weights(parallel), _weights(finished))


def test_a_built_in_task_that_the_program_changed_trains_as_changed_in_workers_too(tmp_path):
    small = {"images": {"train_images": 32, "valid_images": 32}, "model": {"hidden_size": 4}}
    task = hp.load_task("digits", settings=small)
    task.recipe = replace(task.recipe, learning_rate=0.5)
    short = hp.Full(candidates=2, final_epochs=1)
    here = hp.search(task, short, folder=tmp_path / "here")
    there = hp.search(task, short, folder=tmp_path / "there", workers=2)
    assert _facts(there.record) == _facts(here.record)
    with pytest.raises(InputError, match="pass task= to load it"):
        hp.load_model(here.checkpoint)


def test_another_seed_gives_other_candidates(finished, tmp_path):
    other = hp.search(
        TinyTask(), hp.LSH(candidates=3, first_epochs=1, final_epochs=1), folder=tmp_path, seed=4
    )
    labels = {row.label for row in finished.record.candidates}
    assert labels.isdisjoint(row.label for row in other.record.candidates)


class StopsAfter:
    """An observer that interrupts a search after so many events."""

    def __init__(self, events, notes=None):
        self.left = events
        self.notes = notes if notes is not None else []

    def event(self, state, event):
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt

    def epoch(self, state, key, record):
        pass

    def note(self, text):
        self.notes.append(text)


def test_a_search_interrupted_again_and_again_ends_as_if_it_had_not_been(finished, tmp_path):
    interruptions = 0
    while True:
        try:
            result = hp.search(TinyTask(), LSH, folder=tmp_path, seed=3, observer=StopsAfter(2))
            break
        except KeyboardInterrupt:
            interruptions += 1
    assert interruptions > 5
    assert _facts(result.record) == _facts(finished.record)
    assert _same_weights(_weights(result), _weights(finished))


def test_a_finished_search_returns_at_once_and_writes_nothing(finished):
    journal = finished.folder / "journal.jsonl"
    before = journal.read_bytes()
    again = hp.search(TinyTask(), LSH, folder=finished.folder, seed=3)
    assert journal.read_bytes() == before
    assert _facts(again.record) == _facts(finished.record)


def test_a_damaged_checkpoint_is_trained_again_and_told(tmp_path):
    short = hp.LSH(candidates=2, first_epochs=1, round_epochs=1, final_epochs=3)
    whole = hp.search(TinyTask(), short, folder=tmp_path / "whole", seed=1)
    with pytest.raises(KeyboardInterrupt):
        hp.search(TinyTask(), short, folder=tmp_path / "cut", seed=1, observer=StopsAfter(4))
    (tmp_path / "cut" / "journal.jsonl").write_bytes(
        b"".join((tmp_path / "cut" / "journal.jsonl").read_bytes().splitlines(keepends=True)[:2])
    )  # the journal forgets the segments; their checkpoints stay
    newest = sorted((tmp_path / "cut" / "candidates" / "dense").glob("epoch-*.pt"))[-1]
    data = bytearray(newest.read_bytes())
    data[-10] ^= 0xFF
    newest.write_bytes(data)
    notes = []
    watcher = StopsAfter(-1, notes)
    again = hp.search(TinyTask(), short, folder=tmp_path / "cut", seed=1, observer=watcher)
    assert any("damaged checkpoint" in note for note in notes)
    assert _facts(again.record) == _facts(whole.record)


def test_another_configuration_in_the_same_folder_is_refused_with_the_differences(finished):
    with pytest.raises(InputError, match=r"--overwrite(.|\n)*seed: 3, 5"):
        hp.search(TinyTask(), LSH, folder=finished.folder, seed=5)
    with pytest.raises(InputError, match=r"strategy.final_epochs: 6, 7"):
        hp.search(TinyTask(), replace(LSH, final_epochs=7), folder=finished.folder, seed=3)
    assert read_run(finished.folder).finished


def test_overwrite_begins_anew_and_leaves_strangers_files(tmp_path):
    short = hp.LSH(candidates=2, first_epochs=1, final_epochs=1)
    hp.search(TinyTask(), short, folder=tmp_path, seed=0)
    (tmp_path / "notes.txt").write_text("mine")
    hp.search(TinyTask(), short, folder=tmp_path, seed=1, overwrite=True)
    assert read_run(tmp_path).seed == 1
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_folder_that_is_no_run_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match=r"empty or hold a run.*thesis\.tex"):
        hp.search(TinyTask(), LSH, folder=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


class Exploding(TinyTask):
    """Every candidate's loss becomes infinite in the second epoch; the dense one's does not."""

    def loss(self, model, batch, state):
        outcome = super().loss(model, batch, state)
        sparse = any(bool((weight == 0).any()) for weight in model.parameters() if weight.ndim == 2)
        return outcome._replace(loss=outcome.loss * float("inf")) if sparse and model.training else outcome


def test_when_every_candidate_fails_the_search_fails_with_the_reasons(tmp_path):
    with pytest.raises(
        HyperpruneError, match=r"every candidate failed(.|\n)*c01: the training loss became inf"
    ):
        hp.search(Exploding(), LSH, folder=tmp_path)
    record = read_run(tmp_path)
    assert all(row.outcome == "failed" and row.signals == {} for row in record.candidates)


def _masks_fail_where(unfit, monkeypatch):
    """Starting masks cannot be found for the methods that `unfit` names."""

    def masks(task, model, method, sparsity, seed):
        if unfit(method):
            raise NumericsError("a score must be finite, got nan")

    monkeypatch.setattr("hyperprune.training.candidate.starting_masks", masks)


def test_a_candidate_that_cannot_be_built_fails_alone_and_so_it_does_again(tmp_path, monkeypatch):
    # The ends of the range, on which the space is tried, can be built.
    _masks_fail_where(lambda method: 0.6 < getattr(method, "death_rate", 0.0) < 0.9, monkeypatch)
    result = hp.search(TinyTask(), LSH, folder=tmp_path, seed=3)
    failed = [row for row in result.record.candidates if row.outcome == "failed"]
    assert 0 < len(failed) < len(result.record.candidates)
    assert {row.reason for row in failed} == {"it cannot be built: a score must be finite, got nan"}
    assert result.best.outcome == "finalist"
    assert _facts(hp.search(TinyTask(), LSH, folder=tmp_path, seed=3).record) == _facts(result.record)


def test_what_no_network_can_be_built_with_is_no_candidates_fault(tmp_path, monkeypatch):
    class BreaksAtARound(StopsAfter):
        def event(self, state, event):
            if event["event"] == "round":
                _masks_fail_where(lambda method: True, monkeypatch)

    with pytest.raises(NumericsError, match="a score must be finite"):
        hp.search(TinyTask(), LSH, folder=tmp_path, seed=3, observer=BreaksAtARound(-1))
    assert all(row.outcome != "failed" for row in read_run(tmp_path).candidates)


def test_an_optional_branch_whose_masks_cannot_be_found_is_left_out(tmp_path, monkeypatch):
    _masks_fail_where(lambda method: method.name == "rigl", monkeypatch)
    mine = [
        hp.Branch.of("rigl", optional=True, death_rate=hp.Range(0.1, 0.9)),
        hp.Branch.of("set_", death_rate=hp.Range(0.1, 0.9)),
    ]
    notes = []
    watcher = StopsAfter(-1, notes)
    hp.search(TinyTask(), SHORT, space=hp.Space(branches=mine), folder=tmp_path, observer=watcher)
    assert notes == ["rigl is left out of the space: a score must be finite, got nan"]


class Structureless(TinyTask):
    def recurrent(self, model, batch):
        return []


def test_a_task_without_recurrence_is_refused_for_the_spectrum_and_taken_for_the_loss(tmp_path):
    with pytest.raises(InputError, match="must name at least one recurrent module"):
        hp.search(Structureless(), replace(LSH, signal="spectrum"), folder=tmp_path / "spectrum")
    assert not (tmp_path / "spectrum").exists()
    result = hp.search(Structureless(), replace(LSH, signal="loss"), folder=tmp_path / "loss")
    assert result.best.metric is not None
    rounds = result.record.rounds[0]
    candidates = {row.key: row for row in result.record.candidates}
    assert all(
        value == candidates[key].epochs[rounds.epoch].valid_loss for key, value in rounds.signals.items()
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sparsity": 1.2}, r"sparsity must lie in \[0, 1\), got 1.2"),
        ({"sparsity": 0.999}, "every tensor must keep a live weight, but rnn.weight_ih_l0"),
        ({"workers": 0}, "workers must be a whole number of at least 1, got 0"),
        ({"device": "abacus"}, "device must be 'cpu' or 'cuda'"),
        (
            {"space": hp.Space(branches=[hp.Branch.of("static", allocation=["uniform", "er"])])},
            "space holds 2 configurations",
        ),
    ],
)
def test_wrong_arguments_are_refused_before_a_folder_is_made(tmp_path, arguments, message):
    with pytest.raises(InputError, match=message):
        hp.search(TinyTask(), hp.LSH(candidates=8, final_epochs=50), folder=tmp_path / "run", **arguments)
    assert not (tmp_path / "run").exists()


SHORT = hp.LSH(candidates=2, first_epochs=1, round_epochs=1, final_epochs=2)


def test_overwriting_is_for_runs_only_and_spares_everything_else(tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "me.jpg").write_text("mine")
    with pytest.raises(InputError, match="must be empty or hold a run"):
        hp.search(TinyTask(), SHORT, folder=tmp_path, overwrite=True)
    assert (tmp_path / "pictures" / "me.jpg").read_text() == "mine"


def test_checkpoints_of_another_run_in_the_folder_are_never_used(tmp_path):
    other = TinyTask()
    other.recipe = hp.Recipe(optimizer="sgd", learning_rate=0.05)
    clean = hp.search(other, SHORT, folder=tmp_path / "clean")
    hp.search(TinyTask(), SHORT, folder=tmp_path / "mixed")
    (tmp_path / "mixed" / "journal.jsonl").write_bytes(b"damaged from the first byte on\n")
    notes = []
    mixed = hp.search(other, SHORT, folder=tmp_path / "mixed", observer=StopsAfter(-1, notes))
    assert any("belongs to another run" in note for note in notes)
    assert _facts(mixed.record) == _facts(clean.record)


class DenseExplodes(TinyTask):
    """Only the dense reference's loss is not finite."""

    def loss(self, model, batch, state):
        outcome = super().loss(model, batch, state)
        sparse = any(bool((weight == 0).any()) for weight in model.parameters() if weight.ndim == 2)
        return outcome if sparse or not model.training else outcome._replace(loss=outcome.loss * float("nan"))


@pytest.mark.parametrize("by", ["spectrum", "loss"])
def test_a_reference_that_failed_fails_the_search_the_second_time_too(tmp_path, by):
    for _ in range(2):
        with pytest.raises(HyperpruneError, match="dense reference could not be trained: the training loss"):
            hp.search(DenseExplodes(), replace(SHORT, signal=by), folder=tmp_path)


class Parametrised(TinyTask):
    def __init__(self, scale):
        self.scale = scale


def test_a_task_with_another_attribute_is_another_run(tmp_path):
    hp.search(Parametrised(1.0), SHORT, folder=tmp_path)
    with pytest.raises(InputError, match=r"task.attributes.scale: 1.0, 2.0"):
        hp.search(Parametrised(2.0), SHORT, folder=tmp_path)


def test_damaged_weights_of_a_finished_run_are_made_again(tmp_path):
    first = hp.search(TinyTask(), SHORT, folder=tmp_path)
    whole = first.checkpoint.read_bytes()
    first.checkpoint.write_bytes(whole[:-7])
    notes = []
    again = hp.search(TinyTask(), SHORT, folder=tmp_path, observer=StopsAfter(-1, notes))
    assert any("is trained again" in note for note in notes)
    assert _same_weights(_weights(again), load_checkpoint(first.checkpoint)["model"])
    assert len(hp.load_model(again.checkpoint, TinyTask()).state_dict()) > 0


def test_a_finalists_weights_of_another_epoch_than_its_best_are_made_again(tmp_path):
    first = hp.search(TinyTask(), SHORT, folder=tmp_path)
    whole = load_checkpoint(first.checkpoint)
    described = {**json.loads(whole["described"]), "epoch": 1}
    save_checkpoint(first.checkpoint, {**whole, "described": json.dumps(described)})
    assert first.best.best_epoch != 1
    notes = []
    again = hp.search(TinyTask(), SHORT, folder=tmp_path, observer=StopsAfter(-1, notes))
    assert any("is trained again: its best weights must be of epoch" in note for note in notes)
    assert load_checkpoint(again.checkpoint)["described"] == whole["described"]


class DiesInWorkers(TinyTask):
    """Kills the process that trains its second epoch, as an out-of-memory killer would."""

    def batches(self, split, epoch):
        if split == "train" and epoch == 2 and multiprocessing.parent_process() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().batches(split, epoch)


def test_a_worker_that_dies_again_and_again_is_an_error_and_no_outcome(tmp_path):
    with pytest.raises(WorkerError, match="worker died 3 times, the last time killed by SIGKILL"):
        hp.search(DiesInWorkers(), SHORT, folder=tmp_path, workers=2)
    record = read_run(tmp_path)
    assert all(row.outcome == "running" for row in record.candidates)
    here = hp.search(DiesInWorkers(), SHORT, folder=tmp_path)  # in this process it lives
    assert here.record.finished


class StopsAtAnEpoch(StopsAfter):
    def epoch(self, state, key, record):
        raise KeyboardInterrupt


def test_workers_let_go_of_in_mid_segment_leave_without_a_word(tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("TINY_TASK_SECONDS", "0.01")  # so that each tells of a next epoch before it is killed
    long = hp.LSH(candidates=2, first_epochs=9, round_epochs=1, final_epochs=10)
    with pytest.raises(KeyboardInterrupt):
        hp.search(TinyTask(), long, folder=tmp_path, workers=2, observer=StopsAtAnEpoch(-1))
    assert capfd.readouterr().err == ""


def test_a_task_that_cannot_be_sent_to_workers_is_refused_before_a_folder_is_made(tmp_path):
    task = TinyTask()
    task.hook = lambda: None  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(InputError, match="must be picklable"):
        hp.search(task, SHORT, folder=tmp_path / "run", workers=2)
    assert not (tmp_path / "run").exists()


class VectorLoss(TinyTask):
    def loss(self, model, batch, state):
        outcome = super().loss(model, batch, state)
        return outcome._replace(loss=outcome.loss.repeat(2))


class BareLoss(TinyTask):
    def loss(self, model, batch, state):  # pyright: ignore[reportIncompatibleMethodOverride]
        return super().loss(model, batch, state).loss


class BareModules(TinyTask):
    def recurrent(self, model, batch):  # pyright: ignore[reportIncompatibleMethodOverride]
        return [model.rnn]


class BareModule(TinyTask):
    def recurrent(self, model, batch):  # pyright: ignore[reportIncompatibleMethodOverride]
        return model.rnn


class EmptySplit(TinyTask):
    def batches(self, split, epoch):
        return [] if split == "valid" else super().batches(split, epoch)


class WrongName(TinyTask):
    def prunable(self, model):
        return ["rnn.weight_hh"]


class LongWarmup(TinyTask):
    spectrum_warmup = 11


class Buggy(TinyTask):
    def loss(self, model, batch, state):
        return super().loss(model, batch.nonsense, state)  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (VectorLoss, "must be a tensor without axes"),
        (BareLoss, "must return a hyperprune.BatchLoss, got Tensor"),
        (
            BareModules,
            r"must return a list of hyperprune.RecurrentRun, or .*, got a list with LSTM; return \[",
        ),
        (BareModule, "must return a list of hyperprune.RecurrentRun, or .*, got LSTM; return "),
        (EmptySplit, "valid split must hold at least one batch"),
        (WrongName, "rnn.weight_hh"),
        (LongWarmup, "warmup"),
        (Buggy, r"loss raised AttributeError: .*nonsense.* \(test_search.py, line \d+\)"),
    ],
)
def test_a_task_that_breaks_its_contract_is_refused_before_a_folder_is_made(tmp_path, kind, message):
    with pytest.raises(InputError, match=message):
        hp.search(kind(), SHORT, folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_defaults_of_a_task_that_no_strategy_knows_are_refused(tmp_path):
    task = TinyTask()
    task.search_defaults = {"candidate": 3}
    with pytest.raises(InputError, match=r"unknown key in Task\.search_defaults 'candidate'; did you mean"):
        hp.search(task, folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_proposer_that_is_not_installed_is_told_before_a_folder_is_made(tmp_path, monkeypatch):
    def missing():
        raise InputError("the proposer 'atpe' needs hyperopt")

    monkeypatch.setattr(preparation, "require_hyperopt", missing)
    with pytest.raises(InputError, match="the proposer 'atpe' needs hyperopt"):
        hp.search(TinyTask(), replace(SHORT, proposer="atpe"), folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["rigl", "dense"])
def test_a_sparsity_beside_a_configuration_that_has_its_own_is_refused(tmp_path, name):
    own = hp.Configuration.of(name, **({} if name == "dense" else {"sparsity": 0.5}))
    with pytest.raises(InputError, match=r"is of sparsity 0(\.5)?, got sparsity 0.9 beside it; leave it out"):
        hp.train(TinyTask(), own, sparsity=0.9, epochs=1, folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()


class Arrays(TinyTask):
    """Gives its metric as numpy does."""

    def evaluate(self, model, batches):
        return Evaluation(*np.array(super().evaluate(model, batches), dtype=np.float32))


def test_a_metric_of_numpys_is_a_number_too(tmp_path):
    record = hp.train(Arrays(), hp.Configuration.of("static"), epochs=1, folder=tmp_path).record
    assert type(record.candidates[0].metric) is float
