"""A reference from another run, an audit after the search, a searched sparsity, methods that begin dense."""

import shutil
from dataclasses import replace

import pytest
import torch

import hyperprune as hp
from hyperprune.errors import InputError
from hyperprune.files import write_atomically
from hyperprune.hypersearch import reference
from hyperprune.hypersearch.audit import chosen
from hyperprune.hypersearch.journal import Journal, read_journal
from hyperprune.hypersearch.observer import SilentObserver
from hyperprune.hypersearch.proposers import PROPOSERS
from hyperprune.hypersearch.run_folder import RunFolder, read_run, read_state
from hyperprune.hypersearch.table import read_table
from hyperprune.hypersearch.table_of_runs import record_table
from hyperprune.hypersearch.trust import trust
from hyperprune.records import weighed
from hyperprune.report import facts, summary_json, text_table, write_report
from hyperprune.training.checkpoint import load_checkpoint
from tiny_task import TinyTask

LSH = hp.LSH(candidates=5, first_epochs=1, round_epochs=1, final_epochs=4, signal="loss")
HALF = hp.LSH(candidates=3, first_epochs=1, round_epochs=1, final_epochs=4, signal="spectrum")


class Watch:
    """An observer that keeps what it is told, and may interrupt at an event."""

    def __init__(self, stop_at=None):
        self.notes, self.events, self.stop_at = [], [], stop_at

    def event(self, state, event):
        self.events.append(event)
        if self.stop_at is not None and self.stop_at(event):
            raise KeyboardInterrupt

    def epoch(self, state, key, record):
        pass

    def note(self, text):
        self.notes.append(text)


def _facts(record):
    return [
        (row.key, row.label, row.outcome, dict(row.signals), row.metric, len(row.epochs))
        for row in (record.reference, *record.candidates)
    ]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return hp.search(TinyTask(), LSH, folder=tmp_path_factory.mktemp("plain"), seed=3)


def test_a_given_reference_changes_nothing_but_is_not_trained_again(plain, tmp_path):
    watch = Watch()
    strategy = replace(LSH, signal="spectrum")
    own = hp.search(TinyTask(), strategy, folder=tmp_path / "own", seed=3)
    given = hp.search(
        TinyTask(), strategy, folder=tmp_path / "given", seed=3, reference=plain.folder, observer=watch
    )
    assert _facts(given.record) == _facts(own.record)
    segments = [event for event in watch.events if event["event"] == "segment" and event["key"] == "dense"]
    assert [len(event["epochs"]) for event in segments] == [LSH.final_epochs + 1]
    weights = [
        load_checkpoint(run.folder / str(run.record.reference.checkpoint))["model"] for run in (own, given)
    ]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert str(plain.folder) in given.record.provenance["reference"]


def test_a_reference_trained_alone_serves_too_and_a_part_of_one_goes_on(plain, tmp_path):
    alone = hp.train(
        TinyTask(), hp.Configuration.of("dense"), epochs=4, sparsity=0.0, folder=tmp_path / "dense", seed=3
    )
    given = hp.search(TinyTask(), LSH, folder=tmp_path / "given", seed=3, reference=alone.folder)
    assert _facts(given.record) == _facts(plain.record)
    with pytest.raises(KeyboardInterrupt):
        hp.search(
            TinyTask(),
            LSH,
            folder=tmp_path / "part",
            seed=3,
            observer=Watch(lambda event: event["event"] == "round"),
        )
    assert 0 < read_state(tmp_path / "part").epochs_trained("dense") < LSH.final_epochs
    watch = Watch()
    from_part = hp.search(
        TinyTask(), LSH, folder=tmp_path / "whole", seed=3, reference=tmp_path / "part", observer=watch
    )
    assert _facts(from_part.record) == _facts(plain.record)
    assert not watch.notes  # the copied checkpoint was taken, none was passed over


def test_the_dense_model_trained_alone_is_recorded_as_pruned_to_nothing(tmp_path):
    record = hp.train(TinyTask(), hp.Configuration.of("dense"), epochs=1, folder=tmp_path / "dense").record
    assert record.sparsity == 0.0
    pruned = hp.train(TinyTask(), hp.Configuration.of("static"), epochs=1, folder=tmp_path / "static").record
    assert pruned.sparsity == TinyTask.sparsity


def test_a_search_that_was_given_a_reference_goes_on_where_it_stopped(plain, tmp_path):
    arguments = {"folder": tmp_path, "seed": 3, "reference": plain.folder}
    with pytest.raises(KeyboardInterrupt):
        hp.search(TinyTask(), LSH, observer=Watch(lambda event: event["event"] == "segment"), **arguments)
    assert _facts(hp.search(TinyTask(), LSH, **arguments).record) == _facts(plain.record)


def test_a_run_that_has_its_reference_goes_on_without_the_run_that_it_came_from(plain, tmp_path):
    source = tmp_path / "source"
    shutil.copytree(plain.folder, source)
    arguments = {"folder": tmp_path / "run", "seed": 3, "reference": source}
    with pytest.raises(KeyboardInterrupt):
        hp.search(TinyTask(), LSH, observer=Watch(lambda event: event["event"] == "segment"), **arguments)
    shutil.rmtree(source)
    watch = Watch()
    assert _facts(hp.search(TinyTask(), LSH, observer=watch, **arguments).record) == _facts(plain.record)
    assert not watch.notes
    hp.search(TinyTask(), LSH, observer=watch, **arguments | {"reference": plain.folder})
    assert watch.notes == [
        f"the reference {plain.folder} is left out: {tmp_path / 'run'} has a dense model already"
    ]
    with pytest.raises(InputError, match=r"must hold journal\.jsonl"):  # what begins anew needs it
        hp.search(TinyTask(), LSH, overwrite=True, **arguments)
    assert read_run(tmp_path / "run").finished


def test_a_reference_that_is_trained_on_while_it_is_copied_is_refused_and_nothing_is_lost(
    plain, tmp_path, monkeypatch
):
    source = tmp_path / "source"
    arguments = {"folder": tmp_path / "run", "seed": 3, "reference": source}

    def checkpoint_is_replaced(path, data):
        write_atomically(path, data)
        for older in (source / "candidates" / "dense").glob("*.pt"):
            older.unlink()

    def an_epoch_is_recorded(path, data):
        write_atomically(path, data)
        shutil.copy(plain.folder / "journal.jsonl", source)

    with pytest.raises(KeyboardInterrupt):
        hp.search(
            TinyTask(), LSH, folder=source, seed=3, observer=Watch(lambda event: event["event"] == "round")
        )
    shutil.copytree(source, tmp_path / "kept")
    for meanwhile in (an_epoch_is_recorded, checkpoint_is_replaced):
        monkeypatch.setattr(reference, "write_atomically", meanwhile)
        with pytest.raises(InputError, match=r"must not be trained on while it is copied, and .*source is"):
            hp.search(TinyTask(), LSH, **arguments)
        shutil.rmtree(source)
        shutil.copytree(tmp_path / "kept", source)
    monkeypatch.undo()
    assert _facts(hp.search(TinyTask(), LSH, **arguments).record) == _facts(plain.record)


class Other(TinyTask):
    recipe = hp.Recipe(optimizer="sgd", learning_rate=0.5, clip_norm=0.25)


@pytest.mark.parametrize(
    ("task", "strategy", "arguments", "message"),
    [
        (Other, LSH, {}, r"task.recipe.optimizer: 'snt_asgd', 'sgd'"),
        (TinyTask, LSH, {"seed": 4}, "seed: 3, 4"),
        (TinyTask, replace(LSH, final_epochs=5), {}, "final_epochs: 4, 5"),
        (TinyTask, replace(LSH, spectrum_state="full"), {}, "spectrum_state: 'hidden', 'full'"),
        (TinyTask, LSH, {"threads": 2}, "threads: 1, 2"),
    ],
)
def test_a_reference_of_another_run_is_refused_with_the_differences(
    plain, tmp_path, task, strategy, arguments, message
):
    settings = {"seed": 3, "folder": tmp_path / "run", "reference": plain.folder, **arguments}
    with pytest.raises(InputError, match=rf"leave --reference out(.|\n)*{message}"):
        hp.search(task(), strategy, **settings)
    assert not (tmp_path / "run").exists()


def test_no_run_or_ones_own_folder_or_a_run_without_a_dense_model_is_no_reference(plain, tmp_path):
    with pytest.raises(InputError, match=r"must hold journal\.jsonl"):
        hp.search(TinyTask(), LSH, folder=tmp_path / "run", reference=tmp_path)
    with pytest.raises(InputError, match="must be of another run"):
        hp.search(TinyTask(), LSH, folder=plain.folder, seed=3, reference=plain.folder)
    pruned = hp.train(TinyTask(), hp.Configuration.of("static"), epochs=4, folder=tmp_path / "one", seed=3)
    with pytest.raises(InputError, match="must be a run with a dense model"):
        hp.search(TinyTask(), LSH, folder=tmp_path / "run", seed=3, reference=pruned.folder)


def test_an_audit_trains_eliminated_ones_to_the_end_and_changes_nothing_else(plain, tmp_path):
    audited = hp.search(TinyTask(), LSH, folder=tmp_path, seed=3, audit=2)
    record = audited.record
    assert len(record.audited) == 2
    rows = {row.key: row for row in record.candidates}
    for key in record.audited:
        assert rows[key].outcome == "eliminated"
        assert len(rows[key].epochs) == LSH.final_epochs + 1
    assert [row.key for row in record.candidates] == [row.key for row in plain.record.candidates]
    assert audited.best.metric == plain.best.metric
    assert audited.epochs_spent == plain.epochs_spent
    dropped_at = {entry.number: entry.epoch for entry in record.rounds}
    assert record.epochs_audit == sum(4 - dropped_at[rows[key].eliminated_in or 0] for key in record.audited)
    text = text_table(record)
    assert f"audited after the search: {', '.join(record.audited)}" in text
    assert summary_json(record)["epochs_audit"] == record.epochs_audit
    markdown = write_report(record, tmp_path).markdown.read_text()
    assert "## How far the signal can be trusted" in markdown
    assert "2 finalists and 2 of the eliminated, drawn at random" in markdown


def test_a_finished_run_is_audited_later_and_further_and_goes_on_when_interrupted(plain, tmp_path):
    at_once = hp.search(TinyTask(), LSH, folder=tmp_path / "once", seed=3, audit=3)
    hp.search(TinyTask(), LSH, folder=tmp_path / "later", seed=3)
    with pytest.raises(KeyboardInterrupt):
        hp.search(
            TinyTask(),
            LSH,
            folder=tmp_path / "later",
            seed=3,
            audit=1,
            observer=Watch(lambda event: event["event"] == "audit"),
        )
    assert read_run(tmp_path / "later").finished
    later = hp.search(TinyTask(), LSH, folder=tmp_path / "later", seed=3, audit=3)
    assert later.record.audited == at_once.record.audited
    assert _facts(later.record) == _facts(at_once.record)
    watch = Watch()
    fewer = hp.search(TinyTask(), LSH, folder=tmp_path / "later", seed=3, audit=1, observer=watch)
    assert fewer.record.audited == at_once.record.audited
    assert watch.events == []


def test_an_extension_leaves_what_the_audit_told_and_gives_no_reference_to_others(tmp_path):
    settings = {"folder": tmp_path / "run", "seed": 3}
    before = trust(hp.search(TinyTask(), LSH, audit=2, **settings).record)
    assert before is not None
    assert before.num_audited == 2
    hp.extend(tmp_path / "run", final_epochs=6, task=TinyTask())
    extended = read_run(tmp_path / "run")
    assert {row.best_epoch for row in extended.candidates if row.outcome == "finalist"} == {6}
    # By the metrics of epoch 4, to which the audited were trained, not of the finalists' longer training.
    assert trust(extended) == before
    assert facts.unfinished_audits(extended) == []
    assert facts.audited(extended) == set(extended.audited) != set()
    more = trust(hp.search(TinyTask(), LSH, audit=3, **settings).record)
    assert more is not None
    assert more.num_audited == 3
    with pytest.raises(InputError, match=r"at most this search's 4 epochs, .* was extended to 6"):
        hp.search(TinyTask(), LSH, folder=tmp_path / "other", seed=3, reference=tmp_path / "run")


def test_a_run_in_the_midst_of_its_extension_gives_no_reference(plain, tmp_path):
    """Its checkpoints may be of later epochs than its journal knows."""
    shutil.copytree(plain.folder, tmp_path / "run")

    class Interrupts(SilentObserver):
        def event(self, state, event):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        hp.extend(tmp_path / "run", final_epochs=6, task=TinyTask(), observer=Interrupts())
    with pytest.raises(InputError, match=r"at most this search's 4 epochs, .* was extended to 6"):
        hp.search(TinyTask(), LSH, folder=tmp_path / "other", seed=3, reference=tmp_path / "run")


def test_dropped_candidates_keep_their_best_weights_alone_and_finalists_can_go_on(tmp_path):
    run = hp.search(TinyTask(), LSH, folder=tmp_path / "run", seed=3, audit=1)

    def files(key: str) -> list[str]:
        return sorted(path.name for path in (tmp_path / "run" / "candidates" / key).iterdir())

    outcomes = {row.key: row.outcome for row in run.record.candidates}
    assert set(outcomes.values()) == {"eliminated", "finalist"}
    for key, outcome in {**outcomes, "dense": "finalist"}.items():
        kept = ["best.pt"] if outcome == "eliminated" else ["best.pt", "epoch-00003.pt", "epoch-00004.pt"]
        assert files(key) == kept
    again = hp.search(TinyTask(), LSH, folder=tmp_path / "run", seed=3, audit=1)
    assert _facts(again.record) == _facts(run.record)
    longer = hp.extend(tmp_path / "run", final_epochs=5, task=TinyTask())
    assert longer.best.epochs[-1].epoch == 5
    wider = hp.extend(tmp_path / "run", candidates=4, task=TinyTask())
    dropped = [row.key for row in wider.record.candidates if row.outcome == "eliminated"]
    assert len(dropped) > len([row for row in outcomes.values() if row == "eliminated"])
    assert all(files(key) == ["best.pt"] for key in dropped)


def test_who_is_audited_depends_on_the_seed_alone(plain):
    state = read_state(plain.folder)
    assert chosen(state, 1) == chosen(state, 3)[:1]
    assert len(chosen(state, 99)) == sum(row.outcome == "eliminated" for row in state.candidates.values())
    draws = set()
    for seed in range(20):
        state.header = {**state.header, "seed": seed}
        draws.add(chosen(state, 1))
    assert len(draws) > 1


class Fragile(TinyTask):
    """Once it breaks, pruned networks cannot be trained any more."""

    broken = False  # of the class, so that the task's identity stays

    def loss(self, model, batch, state):
        outcome = super().loss(model, batch, state)
        pruned = any(bool((weight == 0).any()) for weight in model.parameters() if weight.ndim == 2)
        fails = self.broken and pruned and model.training
        return outcome._replace(loss=outcome.loss * float("inf")) if fails else outcome


def test_an_audited_candidate_that_fails_is_told_and_left_out(tmp_path, monkeypatch):
    done = hp.search(Fragile(), LSH, folder=tmp_path, seed=3)
    monkeypatch.setattr(Fragile, "broken", True)
    audited = hp.search(Fragile(), LSH, folder=tmp_path, seed=3, audit=1)
    row = next(row for row in audited.record.candidates if row.key == audited.record.audited[0])
    assert row.outcome == "failed"
    assert audited.best.metric == done.best.metric
    assert "1 audited candidate failed" in write_report(audited.record, tmp_path).markdown.read_text()


def test_a_candidate_that_fails_at_the_epoch_of_the_round_that_drops_it_is_a_failed_one(plain, tmp_path):
    events, _ = read_journal(plain.folder / "journal.jsonl")
    entry = next(event for event in events if event["event"] == "round")
    dropped = next(key for key in entry["signals"] if key not in entry["kept"])
    segment = [event for event in events if event["event"] == "segment" and event["key"] == dropped][-1]
    segment["failure"] = "the topology update after epoch 1 failed"  # its record of epoch 1 stays
    run = shutil.copytree(plain.folder, tmp_path / "run")
    (run / "journal.jsonl").unlink()
    journal = Journal(run / "journal.jsonl")
    for event in events:
        journal.append(event)
    journal.close()
    row = read_state(run)[dropped]
    assert (row.outcome, row.eliminated_in) == ("failed", entry["number"])
    whole = hp.search(TinyTask(), LSH, folder=run, seed=3, audit=None).record
    assert dropped in whole.audited  # it counts among the audited that failed
    found = trust(whole)
    assert found is not None
    assert found.num_failed == 1
    table = record_table([run])  # made without it, not refused for ever
    assert len(table.runs[0].candidates) == len(whole.candidates) - 1


def test_an_audit_that_failed_changes_nothing_that_an_extension_proposes(tmp_path, monkeypatch):
    told = []

    def listening(space, count, history, known, seed):
        told.append(history)
        return PROPOSERS["random"](space, count, history, known, seed)

    monkeypatch.setitem(PROPOSERS, "listening", listening)
    lsh = replace(LSH, proposer="listening")
    hp.search(TinyTask(), lsh, folder=tmp_path, seed=3)
    state = read_state(tmp_path)
    dropped = next(key for key, item in state.candidates.items() if item.eliminated_in is not None)
    told.clear()
    with RunFolder(tmp_path) as run:
        run.record({"event": "audit", "keys": [dropped]})
        failed = {"epochs": [], "best_epoch": None, "checkpoint": None, "failure": "it diverged"}
        run.record({"event": "segment", "key": dropped, **failed})
    hp.extend(tmp_path, candidates=2, task=TinyTask())
    assert len(told[0]) == sum(bool(item.signals) for item in state.candidates.values())


@pytest.mark.parametrize(
    ("count", "message"), [(-1, "at least 0, got -1"), (99, "eliminated candidates, 5 with")]
)
def test_a_wrong_audit_is_refused_before_a_folder_is_made(tmp_path, count, message):
    with pytest.raises(InputError, match=message):
        hp.search(TinyTask(), LSH, folder=tmp_path / "run", audit=count)
    assert not (tmp_path / "run").exists()


def test_a_value_is_weighed_so_that_density_makes_it_worse():
    assert weighed(10.0, sparsity=0.9, weight=0.5) == pytest.approx(10.5)
    assert weighed(10.0, sparsity=0.9, weight=0.5, lower_is_better=False) == pytest.approx(10 / 1.05)
    assert weighed(-10.0, sparsity=0.9, weight=0.5) == pytest.approx(-10 / 1.05)
    assert weighed(-10.0, sparsity=0.9, weight=0.5, lower_is_better=False) == pytest.approx(-10.5)
    assert weighed(10.0, sparsity=None, weight=0.5) == 10.0


def _sparsity_space(weight):
    branch = hp.Branch.of("selfish_rnn", death_rate=hp.Range(0.4, 0.9))
    return hp.Space(branches=[branch], sparsity=[0.2, 0.8], sparsity_weight=weight)


def test_a_searched_sparsity_is_met_and_ranked_under_its_trade_off(tmp_path):
    strategy = replace(LSH, candidates=6, proposer="random")
    heavy = hp.search(TinyTask(), strategy, space=_sparsity_space(1000.0), folder=tmp_path / "heavy", seed=0)
    assert heavy.record.sparsity is None
    own = {row.key: row.configuration["sparsity"] for row in heavy.record.candidates}
    assert set(own.values()) == {0.2, 0.8}
    assert own[heavy.best.key] == 0.8
    # Density 0.8 counts 801, density 0.2 counts 201: no sparse one is dropped before a dense one.
    first = heavy.record.rounds[0]
    losses = {row.key: row.epochs[1].valid_loss for row in heavy.record.candidates}
    assert first.signals == {key: losses[key] * (1 + 1000 * (1 - own[key])) for key in first.signals}
    for row in heavy.record.candidates:
        live = row.epochs[-1].density
        assert sum(live.values()) / len(live) == pytest.approx(1 - own[row.key], abs=0.05)
    scores = [heavy.record.score(row) or 0.0 for row in heavy.record.candidates if row.outcome == "finalist"]
    assert scores == sorted(scores)
    board = heavy.leaderboard()
    assert [line["sparsity"] for line in board] == [own[line["key"]] for line in board]
    assert board[0]["weighed"] == scores[0]
    text = text_table(heavy.record)
    assert "80 %" in text
    assert "each made worse by 1 + 1000 · density" in " ".join(text.split())
    markdown = write_report(heavy.record, tmp_path / "heavy").markdown.read_text()
    assert "1 + 1000 · density" in markdown
    assert "| sparsity | weighed |" in markdown
    assert summary_json(heavy.record)["candidates"][0]["sparsity"] == 0.8
    with pytest.raises(InputError, match="a table is of one sparsity"):
        record_table([tmp_path / "heavy"])


def test_a_sparsity_that_is_given_and_searched_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"searches the sparsity, and sparsity 0\.5 was given too"):
        hp.search(TinyTask(), LSH, space=_sparsity_space(1.0), sparsity=0.5, folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_branch_that_the_task_cannot_train_is_left_out_only_if_it_is_optional(tmp_path):
    # Sparse momentum, and the tiny task's optimizer has none.
    mine = [
        hp.Branch.of("snfs", death_rate=hp.Range(0.1, 0.9)),
        hp.Branch.of("set_", death_rate=hp.Range(0.1, 0.9)),
    ]
    with pytest.raises(InputError, match=r"needs an optimizer with momentum"):
        hp.search(TinyTask(), LSH, space=hp.Space(branches=mine), folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    watch = Watch()
    optional = hp.Space(branches=[replace(branch, optional=True) for branch in mine])
    result = hp.search(TinyTask(), LSH, space=optional, folder=tmp_path / "run", observer=watch)
    assert {row.configuration["method"] for row in result.record.candidates} == {"set_"}
    assert any(note.startswith("snfs is left out of the space: ") for note in watch.notes)
    with pytest.raises(InputError, match="no branch of the space can be trained"):
        hp.search(TinyTask(), LSH, space=hp.Space(branches=optional.branches[:1]), folder=tmp_path / "none")


def test_a_wide_search_trains_what_it_draws(tmp_path):
    watch = Watch()
    strategy = replace(LSH, candidates=12, final_epochs=8)
    result = hp.search(TinyTask(), strategy, space="wide", folder=tmp_path, seed=1, observer=watch)
    assert len({row.configuration["method"] for row in result.record.candidates}) > 5
    assert result.best.metric is not None
    assert any("begin dense" in note for note in watch.notes)


class MoreIsBetter(TinyTask):
    """Takes the error for a score, so that the first epochs are the best ones."""

    lower_is_better = False


def test_the_best_epoch_of_a_method_that_begins_dense_is_one_at_its_sparsity(tmp_path):
    gmp = hp.Configuration.of("gmp", update_every=1)
    result = hp.train(MoreIsBetter(), gmp, epochs=8, sparsity=0.9, folder=tmp_path / "gmp")
    row = result.best
    reached = [record.epoch for record in row.epochs if record.at_sparsity]
    assert reached == [6, 7, 8]  # at three quarters
    assert row.best_epoch in reached
    assert max(row.epochs[1:], key=lambda record: record.metric).epoch == 1
    model = hp.load_model(result.checkpoint, MoreIsBetter())
    matrices = [weight for _, weight in model.named_parameters() if weight.ndim == 2]
    assert sum(int((weight != 0).sum()) for weight in matrices) <= round(
        0.1 * sum(weight.numel() for weight in matrices)
    )


def test_a_table_of_methods_that_begin_dense_has_the_live_searchs_final_metrics(tmp_path):
    space = hp.Space(branches=[hp.Branch.of("gmp", end=hp.Range(0.5, 0.8, digits=2), update_every=1)])
    full = hp.Full(candidates=3, final_epochs=4)
    result = hp.search(MoreIsBetter(), full, space=space, sparsity=0.9, folder=tmp_path / "run")
    record_table([tmp_path / "run"]).save(tmp_path / "table.npz")
    table = read_table(tmp_path / "table.npz")
    rows = table.runs[0].candidates
    assert [table.final_metric(records) for records in rows] == [
        row.metric for row in sorted(result.record.candidates, key=lambda row: row.key)
    ]


@pytest.mark.parametrize("dims", [1, 3])
def test_a_signals_dims_and_the_state_of_its_spectra_are_the_strategys(tmp_path, dims):
    strategy = replace(HALF, spectrum_dims=dims, spectrum_state="full")
    result = hp.search(TinyTask(), strategy, folder=tmp_path, seed=0)
    entry = result.record.rounds[0]
    reference = [record.spectrum for record in result.record.reference.epochs[: entry.epoch + 1]]
    assert {len(spectrum) for spectrum in reference if spectrum is not None} == {16}  # h and c of eight units
    for row in result.record.candidates:
        spectra = [record.spectrum for record in row.epochs[: entry.epoch + 1]]
        assert entry.signals[row.key] == hp.spectrum_distance(reference, spectra, dims=dims)  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match=r"strategy.spectrum_dims"):
        hp.search(TinyTask(), replace(strategy, spectrum_dims=2), folder=tmp_path, seed=0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"spectrum_dims": 2}, "spectrum_dims means nothing to the signal 'training_losses'"),
        (
            {"signal": "spectrum", "spectrum_dims": 0},
            "spectrum_dims must be a whole number of at least 1, got 0",
        ),
        ({"signal": "loss", "spectrum_dims": 2}, "spectrum_dims means nothing to the signal 'loss'"),
        ({"signal": "spectrum_raw", "spectrum_dims": 2}, "means nothing to the signal 'spectrum_raw'"),
        ({"spectrum_state": "cell"}, "unknown spectrum_state 'cell'"),
    ],
)
def test_wrong_options_of_a_signal_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        hp.LSH(**settings)
