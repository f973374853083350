"""The recording: probes that change nothing, cells that go on after a kill, tables that replay."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import hyperprune as hp
from hyperprune.cli.main import main
from hyperprune.errors import HyperpruneError, InputError
from hyperprune.experiments.cells import read_records
from hyperprune.experiments.evidence.worlds import load_worlds, unfinished
from hyperprune.experiments.recording import cell as cells
from hyperprune.experiments.recording import study as study_module
from hyperprune.experiments.recording import tables as tables_module
from hyperprune.experiments.recording.probe import (
    DENSE_WEIGHTS,
    EpochProbe,
    epoch_file,
    mean_squared_singular_values,
)
from hyperprune.experiments.recording.scales import SCALES, Scale, candidate_cells, dense_cell
from hyperprune.experiments.recording.study import record
from hyperprune.experiments.recording.tables import missing_cells, missing_seeds, write_tables
from hyperprune.rng import generator
from hyperprune.training.candidate import Training
from hyperprune.training.checkpoint import load_checkpoint
from hyperprune.training.segment import Advance, advance
from tiny_task import TinyTask

TASK = f"{Path(__file__).parents[1] / 'tiny_task.py'}:task"
TINY = Scale(name="tiny", task=TASK, epochs=4, sparsities=(0.5,))
SECONDS = {"probe_seconds", "spectrum_seconds", "spectrum_full_seconds"}


def silent(text):
    pass


def _task(rate=4.0):
    task = TinyTask()
    task.recipe = hp.Recipe(optimizer="snt_asgd", learning_rate=rate, patience=1)
    return task  # overshoots at 4, so that SNT-ASGD averages


def _training(**changes):
    settings = {
        "method": hp.DynamicSparse(death="magnitude", death_rate=0.5),
        "sparsity": 0.5,
        "total_epochs": 6,
        "seed": 0,
        "name": "candidate",
    }
    return Training(**{**settings, **changes})


def _probe(task, folder, dense=None):
    return EpochProbe(task, folder, seed=0, dense_weights=dense, full_state=range(9))


def _measured(folder, epoch):
    with np.load(epoch_file(folder, epoch)) as file:
        return {name: file[name] for name in file.files if name not in SECONDS}


def _assert_same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


@pytest.fixture(scope="module")
def probed(tmp_path_factory):
    """A tiny candidate trained with a probe for five epochs, averaging at the end."""
    folder = tmp_path_factory.mktemp("probed")
    task = _task()
    return task, folder, advance(task, _training(), folder, 5, probe=_probe(task, folder))


def test_training_is_the_same_to_the_bit_with_and_without_a_probe(tmp_path, probed):
    task, folder, result = probed
    plain = advance(task, _training(), tmp_path, 5)
    assert result.epochs[-1].averaging  # so that probes looked at averages and at raw weights
    assert [r.valid_loss for r in plain.epochs] == [r.valid_loss for r in result.epochs]
    one, other = (load_checkpoint(place / "epoch-00005.pt") for place in (tmp_path, folder))
    assert torch.equal(one["random"]["cpu"], other["random"]["cpu"])
    assert all(torch.equal(one["model"][name], other["model"][name]) for name in one["model"])
    for state in (one, other):
        assert state["optimizer"]["param_groups"][0]["triggered"]
    slots = zip(one["optimizer"]["state"].values(), other["optimizer"]["state"].values(), strict=True)
    for mine, theirs in slots:
        assert all(torch.equal(torch.as_tensor(mine[k]), torch.as_tensor(theirs[k])) for k in mine)


def test_epochs_measured_again_after_a_kill_are_the_same(tmp_path, probed):
    task, folder, _ = probed
    for to_epoch in (2, 3):
        advance(task, _training(), tmp_path, to_epoch, probe=_probe(task, tmp_path))
    (tmp_path / "epoch-00003.pt").unlink()  # killed before the checkpoint, after the probe's file
    advance(task, _training(), tmp_path, 5, probe=_probe(task, tmp_path))
    for epoch in range(6):
        _assert_same(_measured(tmp_path, epoch), _measured(folder, epoch))


def test_the_probes_spectrum_is_the_one_of_a_search(tmp_path, probed):
    task, folder, _ = probed
    search = advance(task, _training(), tmp_path, 5)
    for epoch, item in enumerate(search.epochs):
        found = _measured(folder, epoch)
        assert item.spectrum is not None
        np.testing.assert_array_equal(found["spectrum"], item.spectrum.astype(np.float32))
        # float32, and the mean of sums is not the sum of means to the last bit
        np.testing.assert_allclose(found["spectrum_samples"].mean(axis=0), found["spectrum"], atol=1e-5)


def test_before_and_after_the_update_and_raw_and_averaged_weights_are_told_apart(probed):
    _, folder, result = probed
    first, last = _measured(folder, 1), _measured(folder, 5)
    assert not result.epochs[1].averaging
    np.testing.assert_array_equal(first["spectrum_raw"], first["spectrum"])
    np.testing.assert_array_equal(first["spectrum_updated"], first["spectrum_updated_raw"])
    assert not np.allclose(first["spectrum_updated_raw"], first["spectrum_raw"])  # the topology moved
    assert not np.allclose(last["spectrum_raw"], last["spectrum"])  # averages are not the raw weights
    assert not np.allclose(last["spectrum_updated_raw"], last["spectrum_updated"])
    assert first["turnover_so_far"] > 0
    assert _measured(folder, 0)["turnover_so_far"] == 0


def test_norms_radii_and_counts_are_those_of_the_weights(tmp_path):
    task, training = _task(), _training(method=hp.methods.static())
    advance(task, training, tmp_path, 1, probe=_probe(task, tmp_path))
    weights = load_checkpoint(tmp_path / "epoch-00001.pt")["model"]
    found = _measured(tmp_path, 1)
    names = ("rnn.weight_ih_l0", "rnn.weight_hh_l0")
    np.testing.assert_allclose(found["frobenius"], [weights[n].norm() for n in names], rtol=1e-6)
    blocks = weights[names[1]].double().split(8)
    radii = [torch.linalg.eigvals(block).abs().max().item() for block in blocks]
    np.testing.assert_allclose(found["spectral_radius"], radii, rtol=1e-6)
    live = [int(gate.count_nonzero()) for name in names for gate in weights[name].split(8)]
    assert found["live_gates"].tolist() == live


def test_the_gradient_norm_is_the_mean_before_clipping_over_live_weights(tmp_path):
    norms = []

    def watch(moment):
        if moment.kind == "gradients":
            flat = torch.cat([p.grad.flatten() for p in moment.model.parameters()])
            norms.append(flat.norm().item())
        probe(moment)

    task = _task()
    probe = _probe(task, tmp_path)
    advance(task, _training(), tmp_path, 1, probe=watch)
    assert len(norms) == 4
    assert np.isnan(_measured(tmp_path, 0)["gradient_norm"])
    assert _measured(tmp_path, 1)["gradient_norm"] == pytest.approx(np.mean(norms), rel=1e-5)


def test_the_distance_to_the_dense_weights_is_taken_at_the_same_epoch(tmp_path):
    task = _task(rate=0.5)
    dense, own = tmp_path / "dense", tmp_path / "own"
    training = _training(method=hp.methods.dense(), sparsity=0.0)
    advance(task, training, dense, 2, probe=_probe(task, dense))
    saved = {str(epoch): _measured(dense, epoch)["weights"] for epoch in range(3)}
    np.savez(dense / DENSE_WEIGHTS, **saved)
    advance(task, _training(), own, 2, probe=_probe(task, own, dense / DENSE_WEIGHTS))
    one, other = (load_checkpoint(place / "epoch-00002.pt")["model"] for place in (dense, own))
    # The checkpoint is written after the epoch's update, and the probe looks before it: so compare the
    # dense weights, which no update changes, and a candidate without updates.
    still = _training(method=hp.methods.static(), name="static")
    advance(task, still, tmp_path / "still", 2, probe=_probe(task, tmp_path / "still", dense / DENSE_WEIGHTS))
    static = load_checkpoint(tmp_path / "still" / "epoch-00002.pt")["model"]
    names = ("rnn.weight_ih_l0", "rnn.weight_hh_l0")
    expected = [(static[name] - one[name]).norm().item() for name in names]
    np.testing.assert_allclose(_measured(tmp_path / "still", 2)["weight_distance"], expected, rtol=1e-5)
    assert (_measured(own, 2)["weight_distance"] > 0).all()
    assert not _measured(dense, 2)["weight_distance"].any()
    assert not torch.equal(one[names[0]], other[names[0]])


@pytest.mark.parametrize("kind", ["lstm", "gru", "rhn"])
def test_chi_is_the_mean_squared_singular_value_of_the_jacobian(kind):
    source = generator(0, "weights")
    modules = {
        "lstm": torch.nn.LSTM(3, 5, num_layers=2),
        "gru": torch.nn.GRU(3, 5, num_layers=2),
        "rhn": hp.models.RHN(3, 5, depth=2, generator=source),
    }
    module = modules[kind].double()
    inputs = torch.randn(13, 2, 3, dtype=torch.float64, generator=source)
    found = mean_squared_singular_values(hp.RecurrentRun(module, inputs), warmup=10)
    # The first layer by autodiff: one step as a function of h alone, a cell's state held fixed.
    first = module
    if kind != "rhn":
        first = type(module)(3, 5).double()
        first.load_state_dict({k: v for k, v in module.state_dict().items() if k.endswith("l0")})
    total, state = [], None
    for step in range(13):
        for sample in range(2):
            h, c = _parts(kind, state, sample)

            def step_of(h, c=c, step=step, sample=sample):
                x = inputs[step : step + 1, sample : sample + 1]
                if kind == "lstm":
                    return first(x, (h.view(1, 1, -1), c.view(1, 1, -1)))[1][0].view(-1)
                return first(x, h.view(1, 1, -1) if kind == "gru" else h.view(1, -1))[1].view(-1)

            jacobian = torch.autograd.functional.jacobian(step_of, h)
            if step >= 10:
                total.append(torch.linalg.svdvals(jacobian).square().mean().item())
        _, state = first(inputs[step : step + 1], state)
    assert found[0] == pytest.approx(np.mean(total), rel=1e-5)
    assert len(found) == (1 if kind == "rhn" else 2)


def _parts(kind, state, sample):
    zero = torch.zeros(5, dtype=torch.float64)
    if state is None:
        return zero, zero
    if kind == "lstm":
        return state[0][0, sample].detach(), state[1][0, sample].detach()
    return (state[0, sample] if kind == "gru" else state[sample]).detach(), zero


def _trained_in_name_only(monkeypatch):
    """The cells that a recording begins, in order; none is trained."""
    begun = []

    def work(*arguments):
        begun.append(arguments[-1])
        return {"failure": None}

    monkeypatch.setattr(study_module, "train_cell", work)
    monkeypatch.setattr(study_module, "_line", str)
    return begun


def test_a_seed_is_complete_before_the_next_and_the_first_death_rate_before_the_others(tmp_path, monkeypatch):
    begun = _trained_in_name_only(monkeypatch)
    record(replace(SCALES["small"], task=TASK), tmp_path, say=silent)
    assert len(begun) == len({cell.key for cell in begun}) == 3 * (1 + 72 + 4)
    assert [cell.seed for cell in begun] == sorted(cell.seed for cell in begun)
    groups = list(dict.fromkeys(cell.group for cell in begun[:77]))
    assert groups == ["dense", "rate-0.8", "controls", "rate-0.5", "rate-0.65"]


def test_the_methods_scale_has_every_method_and_adds_to_the_folder_of_the_papers_space(tmp_path, monkeypatch):
    scale = SCALES["methods"]
    found = candidate_cells(scale, 0)
    names = {cell.configuration.build().name for cell in found}
    assert set(hp.methods.names()) - names == {"dense", "selfish_rnn", "snfs"}  # selfish_rnn is in the space
    space = candidate_cells(SCALES["small"], 0)
    assert len({cell.key for cell in [*found, *space]}) == len(found) + len(space)
    begun = _trained_in_name_only(monkeypatch)
    for name in ("small", "methods"):
        record(replace(SCALES[name], task=TASK, seeds=(0,)), tmp_path, say=silent)
    assert [cell.group for cell in begun].count("dense") == 1
    assert [cell.key for cell in begun[-len(found) :]] == [cell.key for cell in found]


def test_controls_are_the_same_whatever_death_rates_are_asked_for():
    whole, one = (
        {cell.key for cell in candidate_cells(scale, 0) if cell.group == "controls"}
        for scale in (SCALES["small"], replace(SCALES["small"], death_rates=(0.65,)))
    )
    assert whole == one


def test_a_worker_that_would_wait_for_a_dense_model_trains_the_next_seeds(tmp_path, monkeypatch):
    begun = []

    def run_cells(work, cells, folder, *, workers, **_):
        begun.append([cell.key for cell in cells.values()])
        return [{"key": key, "failure": None} for keys in begun for key in keys]

    monkeypatch.setattr(study_module, "run_cells", run_cells)
    record(replace(TINY, seeds=(0, 1, 2)), tmp_path, workers=2, say=silent)
    assert [keys[:2] for keys in begun if keys[0].startswith("dense")] == [
        ["dense-seed-0", "dense-seed-1"],
        ["dense-seed-2"],
    ]
    assert [len(keys) for keys in begun] == [2, 24, 24, 1, 24]


def test_a_cell_goes_on_from_its_checkpoint_and_is_not_trained_twice(tmp_path, monkeypatch):
    dense, candidate = dense_cell(0), candidate_cells(TINY, 0)[1]
    for place in ("whole", "pieces"):
        cells.train_cell(TINY, None, tmp_path / place, "cpu", "abc", dense)
    cells.train_cell(TINY, None, tmp_path / "whole", "cpu", "abc", candidate)
    folder = cells.cell_folder(tmp_path / "pieces", candidate)
    real = cells.advance
    monkeypatch.setattr(
        cells, "advance", lambda task, training, folder, _, **k: real(task, training, folder, 2, **k)
    )
    monkeypatch.setattr(cells, "_finish", lambda *a: {})
    cells.train_cell(TINY, None, tmp_path / "pieces", "cpu", "abc", candidate)  # killed after epoch 2
    monkeypatch.undo()
    record_ = cells.train_cell(TINY, None, tmp_path / "pieces", "cpu", "abc", candidate)
    one = cells.read_cell(folder)
    other = cells.read_cell(cells.cell_folder(tmp_path / "whole", candidate))
    assert [item.valid_loss for item in one.epochs] == [item.valid_loss for item in other.epochs]
    for mine, theirs in zip(one.epochs, other.epochs, strict=True):
        _assert_same(*({k: v for k, v in e.probes.items() if k not in SECONDS} for e in (mine, theirs)))
    assert not list(folder.glob("epoch-*.pt"))
    monkeypatch.setattr(cells, "advance", None)
    assert cells.train_cell(TINY, None, tmp_path / "pieces", "cpu", "abc", candidate) == record_


def test_a_model_that_fails_before_training_is_recorded_as_failed(tmp_path, monkeypatch):
    failed = Advance(epochs=(), best_epoch=None, failure="validation gave the loss nan in epoch 0")
    monkeypatch.setattr(cells, "advance", lambda *_, **__: failed)
    cell = candidate_cells(TINY, 0)[0]
    found = cells.train_cell(TINY, None, tmp_path, "cpu", "abc", cell)
    assert found["failure"] == failed.failure
    assert cells.read_cell(cells.cell_folder(tmp_path, cell)).epochs == ()


def _few(scale, seed):
    """Six candidates and two controls instead of all."""
    found = candidate_cells(scale, seed)
    return [*found[:24:4], *found[24:26]] if scale.controls else found[:24:4]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A tiny recording with its controls, and its tables."""
    folder, tables = tmp_path_factory.mktemp("study"), tmp_path_factory.mktemp("tables")
    scale = replace(TINY, controls=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study_module, "candidate_cells", _few)
        record(scale, folder, say=silent, command="a command")
        patch.setattr(tables_module, "candidate_cells", _few)
        return scale, folder, tables, write_tables(scale, folder, tables)


@pytest.fixture
def few(monkeypatch):
    """The same cells for the tables of a test."""
    monkeypatch.setattr(tables_module, "candidate_cells", _few)


def test_a_table_holds_what_was_recorded_and_searches_replay_on_it(recorded):
    scale, folder, _, paths = recorded
    assert [path.name for path in paths] == [
        "tiny-sparsity-0.5-rate-0.8-seed-0.npz",
        "tiny-sparsity-0.5-controls-seed-0.npz",
    ]
    table = hp.load_table(paths[0])
    run = table.runs[0]
    assert len(run.configurations) == 6
    assert run.provenance["command"] == "a command"
    assert {"commit", "processor", "torch", "date"} <= run.provenance.keys()
    index = 5
    cell = next(c for c in candidate_cells(scale, 0) if c.configuration == run.configurations[index])
    own = cells.read_cell(cells.cell_folder(folder, cell))
    assert [r.metric for r in run.candidates[index]] == [r.metric for r in own.epochs]
    assert run.test_metrics[index + 1] == own.record["test"]
    for kept, whole in zip(run.candidates[index], own.epochs, strict=True):
        assert kept.spectrum is not None
        assert whole.spectrum is not None
        np.testing.assert_allclose(kept.spectrum, whole.spectrum, rtol=1e-3)  # half precision
        assert kept.probes["spectrum_seconds"] == np.float32(whole.spectrum_seconds) > 0
        np.testing.assert_allclose(kept.probes["spectrum_full"], whole.probes["spectrum_full"], rtol=1e-3)
    totals = np.cumsum([float(r.probes["turnover"]) for r in run.candidates[index]])
    np.testing.assert_allclose(totals, [float(r.probes["turnover_so_far"]) for r in own.epochs], rtol=1e-5)
    lsh = hp.LSH(candidates=4, first_epochs=1, round_epochs=1, final_epochs=4, signal="spectrum")
    outcome = hp.replay(table, lsh, repeats=3)
    assert (outcome.epochs_spent >= 8).all()


def test_a_group_of_which_nothing_is_recorded_has_no_table_yet(recorded, few, tmp_path, monkeypatch):
    scale, folder, _, _ = recorded
    own = _few(scale, 0)
    others = [replace(cell, seed=1) for cell in own] + [replace(own[0], group="rate-0.5", sparsity=0.9)]
    monkeypatch.setattr(tables_module, "candidate_cells", lambda scale, seed: others if seed else own)
    more = replace(scale, seeds=(0, 1))
    names = [path.name for path in write_tables(more, folder, tmp_path)]
    assert names == ["tiny-sparsity-0.5-rate-0.8-seed-0.npz", "tiny-sparsity-0.5-controls-seed-0.npz"]


def test_a_table_begun_here_is_completed_there(recorded, few, tmp_path, monkeypatch):
    scale, folder, _, (whole, _) = recorded
    records = read_records(folder / "records.jsonl")
    cells_ = [cell.key for cell in _few(scale, 0) if cell.group == "rate-0.8"]

    def keep(kept):
        some = [entry for entry in records if entry["key"] in ("dense-seed-0", *kept)]
        monkeypatch.setattr(tables_module, "read_records", lambda _: some)

    keep(cells_[3:5])
    (path,) = write_tables(scale, folder, tmp_path)
    assert unfinished(tmp_path) == {whole.name: 4}
    assert load_worlds(tmp_path) == []
    assert [cell.key for cell in missing_cells(scale, 0, tmp_path)][:4] == [*cells_[:3], cells_[5]]
    keep([cells_[0]])  # a single one joins too
    write_tables(scale, folder, tmp_path)
    assert unfinished(tmp_path) == {whole.name: 3}
    keep([*cells_[1:3], cells_[5]])
    for _ in range(2):
        write_tables(scale, folder, tmp_path)
    assert unfinished(tmp_path) == {}
    own, other = hp.load_table(path).runs[0], hp.load_table(whole).runs[0]
    assert own.configurations == other.configurations
    assert own.test_metrics == other.test_metrics
    assert own.provenance == other.provenance
    for mine, theirs in zip(own.candidates, other.candidates, strict=True):
        assert [r.metric for r in mine] == [r.metric for r in theirs]
        _assert_same(mine[-1].probes, theirs[-1].probes)


def test_a_table_loses_no_row_to_another_recording_and_a_failed_cell_is_not_missing(
    recorded, few, tmp_path, monkeypatch
):
    scale, folder, _, (whole, _) = recorded
    records = read_records(folder / "records.jsonl")
    write_tables(scale, folder, tmp_path)
    cells_ = [cell for cell in _few(scale, 0) if cell.group == "rate-0.8"]
    monkeypatch.setattr(tables_module, "candidate_cells", lambda scale, seed: cells_[:2])
    failed = [{**entry, "failure": "failed here"} for entry in records if entry["key"] == cells_[0].key]
    others = [entry for entry in records if entry["key"] in ("dense-seed-0", cells_[1].key)]
    monkeypatch.setattr(tables_module, "read_records", lambda _: [*others, *failed])
    write_tables(scale, folder, tmp_path)
    assert hp.load_table(tmp_path / whole.name).num_rows == 6
    (tmp_path / whole.name).unlink()
    monkeypatch.setattr(tables_module, "candidate_cells", lambda scale, seed: cells_[:3])
    third = next(entry for entry in records if entry["key"] == cells_[2].key)
    monkeypatch.setattr(tables_module, "read_records", lambda _: [*others, *failed, third])
    write_tables(scale, folder, tmp_path)
    assert missing_cells(scale, 0, tmp_path) == []
    assert unfinished(tmp_path) == {}


def test_a_failed_candidate_is_left_out_and_named(recorded, few, tmp_path, monkeypatch):
    scale, folder, _, _ = recorded
    records = read_records(folder / "records.jsonl")
    bad = next(entry for entry in records if entry["group"] == "rate-0.8")
    bad["failure"] = "the training loss became nan in epoch 2"
    monkeypatch.setattr("hyperprune.experiments.recording.tables.read_records", lambda _: records)
    table = hp.load_table(write_tables(scale, folder, tmp_path)[0])
    assert len(table.runs[0].configurations) == 5
    assert table.runs[0].provenance["failed"] == bad["key"]


def test_only_what_no_table_holds_is_recorded_again(recorded, few, tmp_path):
    scale, _, _, (rate, controls) = recorded
    tables = tmp_path / "tables"
    tables.mkdir()
    (tables / rate.name).write_bytes(rate.read_bytes())
    records = record(replace(scale, seeds=(0,)), tmp_path / "study", tables=tables, say=silent)
    assert [entry["group"] for entry in records] == ["dense", "controls", "controls"]
    (written,) = write_tables(scale, tmp_path / "study", tables)
    own, other = (hp.load_table(path).runs[0] for path in (written, controls))
    assert [r.metric for r in own.candidates[1]] == [r.metric for r in other.candidates[1]]
    assert record(scale, tmp_path / "another", tables=tables, say=silent) == []


def test_a_dense_model_that_differs_from_the_tables_is_told_before_candidates_train(recorded, few, tmp_path):
    scale, folder, _, (rate, _) = recorded
    table = hp.load_table(rate)
    run = table.runs[0]
    first, second, *others = run.reference
    changed = (first, replace(second, metric=np.nextafter(second.metric, 1.0)), *others)
    replace(table, runs=(replace(run, reference=changed),)).save(tmp_path / rate.name)
    with pytest.raises(InputError, match="tables of one seed must have the same dense model, and that of"):
        record(scale, folder, tables=tmp_path, say=silent)


def test_a_clone_that_has_every_table_records_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    tables = Path(__file__).parents[2] / "docs" / "records"
    arguments = ["reproduce", "record", "--missing", "--scale", "sparsities", "--sparsities", "0.67"]
    assert main([*arguments, "--tables", str(tables)]) == 0
    assert capsys.readouterr().out == f"{tables} has every table of this recording: nothing is missing\n"
    assert list(tmp_path.iterdir()) == []


def test_a_folder_holds_one_recording(recorded):
    scale, folder, _, _ = recorded
    with pytest.raises(InputError, match="a folder holds one recording"):
        record(replace(scale, epochs=5), folder, say=silent)


def test_a_dense_model_that_fails_ends_the_recording(tmp_path, monkeypatch):
    failed = {"failure": "the training loss became inf in epoch 1"}
    monkeypatch.setattr(study_module, "train_cell", lambda *_: failed)
    with pytest.raises(HyperpruneError, match="the dense model must train to the end, and dense-seed-0 fail"):
        record(TINY, tmp_path, say=silent)


def test_the_dense_curve_alone_is_a_table_too(tmp_path):
    scale = replace(TINY, death_rates=())
    record(scale, tmp_path / "study", say=silent)
    assert missing_seeds(scale, tmp_path / "tables") == (0,)
    (path,) = write_tables(scale, tmp_path / "study", tmp_path / "tables")
    assert path.name == "tiny-seed-0-curve.json"
    assert missing_seeds(scale, tmp_path / "tables") == ()


def test_tables_of_a_recording_without_a_complete_group_are_refused(tmp_path):
    (tmp_path / "records.jsonl").write_text('{"key": "elsewhere"}\n')
    with pytest.raises(InputError, match="has no such group among its 1 recorded cells"):
        write_tables(TINY, tmp_path, tmp_path / "tables")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["record", "--scale", "huge"], "unknown scale 'huge'"),
        (["record", "--death-rates", "1.5"], "death rates must lie in (0, 1), got 1.5"),
        (["record", "--sparsities", "90"], "sparsities must lie in (0, 1), got 90"),
        (["record", "--tables-only"], "tables are made from a recording"),
        (["record", "--tables-only", "--missing"], "--tables-only"),
        (["calibrate", "--epochs", "0"], "epochs must be at least 1, got 0"),
        (["evidence", "--workers", "0"], "workers must be at least 1, got 0"),
        (["evidence", "--repeats", "0"], "repeats must be at least 1, got 0"),
        (["evidence"], "evidence is made from recorded tables"),
    ],
)
def test_wrong_arguments_exit_with_2(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert main(["reproduce", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
