"""The task of telling valid strings from false ones, drawn or read from files."""

import json
import pickle
from pathlib import Path

import networkx as nx
import pytest
import torch
from torch import nn

from hyperprune.cli.main import main
from hyperprune.data.reber import is_valid
from hyperprune.errors import InputError
from hyperprune.models.strings import StringClassifier
from hyperprune.rng import generator
from hyperprune.tasks.reber import ReberTask, StringSettings
from hyperprune.tasks.registry import load_task, maker_of
from hyperprune.tasks.wired import WiringSettings
from hyperprune.training.measure import recurrent_spectra

FEW = {"train_strings": 200, "valid_strings": 40, "test_strings": 30}
SMALL = {"model": {"hidden_size": 6, "embedding_size": 5}, "strings": FEW}


def _reber(**tables) -> ReberTask:
    task = load_task("reber", settings={**SMALL, **tables})
    assert isinstance(task, ReberTask)
    return task


def _model(task) -> StringClassifier:
    model = task.model(generator(0, "weights")).eval()
    assert isinstance(model, StringClassifier)
    return model


def test_the_defaults_are_the_thesiss_sizes_and_recipe():
    task = load_task("reber")
    assert isinstance(task, ReberTask)
    rnn = _model(task).classifier.rnn
    assert isinstance(rnn, nn.LSTM)
    assert (rnn.hidden_size, rnn.num_layers) == (50, 3)
    assert (task.recipe.optimizer, task.recipe.learning_rate, task.recipe.clip_norm) == ("adam", 1e-3, 5.0)
    assert (task.strings.train_strings, task.strings.test_strings, task.strings.batch_size) == (
        18_750,
        6_250,
        32,
    )


def test_splits_are_disjoint_of_the_sizes_asked_for_and_labelled_rightly():
    data = _reber().data
    assert [len(data[split]) for split in ("train", "valid", "test")] == [200, 40, 30]
    assert len({string for split in data.values() for string in split.strings}) == 270
    for split in data.values():
        assert all(is_valid(s) == v for s, v in zip(split.strings, split.valid, strict=True))


def test_an_epoch_shows_every_string_once_in_an_order_of_its_own():
    task = _reber()
    sums = {epoch: [int(batch.codes.sum()) for batch in task.batches("train", epoch)] for epoch in (1, 2)}
    assert len(sums[1]) == task.steps_per_epoch() == 7
    assert sums[1] == [int(batch.codes.sum()) for batch in task.batches("train", 1)]
    assert sums[1] != sums[2]
    assert sum(sums[1]) == sum(sums[2]) == sum(sum(map(ord, s)) for s in task.data["train"].strings)


@pytest.mark.parametrize("cell", ["rnn", "rnn_relu", "lstm", "gru"])
def test_padding_decides_nothing_unless_it_is_asked_to(cell):
    task = _reber(model={"cell": cell, **SMALL["model"]})
    model = _model(task)
    (batch,) = task.batches("test", 0)
    alone = [
        model(batch.codes[:length, [i]], batch.lengths[[i]])
        for i, length in enumerate(batch.lengths.tolist())
    ]
    # Sums of another shape round differently.
    torch.testing.assert_close(model(batch.codes, batch.lengths), torch.cat(alone), atol=1e-5, rtol=0)
    padded = _model(_reber(model={"cell": cell, "read_padding": True, **SMALL["model"]}))
    short = int(batch.lengths.argmin())
    longest = int(batch.lengths.argmax())
    logits = padded(batch.codes, batch.lengths)
    assert torch.allclose(logits[longest], model(batch.codes, batch.lengths)[longest])
    assert not torch.allclose(logits[short], alone[short][0], atol=1e-4)
    # It is the state after the padding, as reading the padded column to its end gives it.
    whole = torch.full_like(batch.lengths, len(batch.codes))
    assert torch.equal(logits, model(batch.codes, whole))


def test_accuracy_is_the_share_judged_rightly_and_the_loss_the_mean_over_strings():
    task = _reber(strings={**FEW, "eval_batch_size": 16})

    class Confident(nn.Module):
        def forward(self, codes, lengths):
            return torch.tensor([0.0, 2.0]).expand(len(lengths), 2)  # everything is valid

    valid = sum(task.data["test"].valid)
    outcome = task.evaluate(Confident(), task.batches("test", 0))
    assert outcome.metric == valid / 30
    right = torch.tensor(1 + 2.718281828**-2).log().item()
    assert outcome.loss == pytest.approx((valid * right + (30 - valid) * (right + 2)) / 30, rel=1e-5)


def test_spectra_are_measured_on_the_longest_strings_without_padding():
    task = _reber()
    batch = task.spectrum_batch()
    lengths = sorted(map(len, task.data["valid"].strings), reverse=True)
    assert batch.codes.shape == (lengths[9], 10)
    assert bool((batch.codes > 0).all())
    (spectrum,) = recurrent_spectra(task, _model(task), seed=0)
    assert [len(layer) for layer in spectrum.by_layer] == [6, 6, 6]
    assert spectrum.num_steps == lengths[9] - lengths[9] // 4


def test_recurrent_matrices_are_pruned_and_all_of_them_if_asked():
    task = _reber()
    names = [f"classifier.rnn.weight_{part}_l{layer}" for layer in range(3) for part in ("ih", "hh")]
    assert list(task.prunable(_model(task))) == names
    everything = _reber(model={"pruned": "all", **SMALL["model"]})
    more = {"embedding.weight", "classifier.readout.weight"}
    assert set(everything.prunable(_model(everything))) == {*names, *more}


def test_a_task_made_again_is_the_same_and_other_strings_are_another_identity():
    task = _reber()
    again = pickle.loads(pickle.dumps(maker_of(task)))()
    assert again.identity() == task.identity() == pickle.loads(pickle.dumps(task)).identity()
    assert _reber(strings={**FEW, "seed": 1}).identity() != task.identity()


def _folder(tmp_path: Path, train: int) -> str:
    rows = "".join(f"{i},{'BTXSE' * (i + 1)},{i % 2}\n" for i in range(train))
    (tmp_path / "train_data.csv").write_text(f",string,valid\n{rows}")
    (tmp_path / "test_data.csv").write_text(",string,valid\n0,BPVVE,1\n1,BqVVE,0\n")
    return str(tmp_path)


def test_files_take_the_place_of_drawn_strings(tmp_path):
    task = _reber(strings={"folder": _folder(tmp_path, 25), "valid_strings": 10})
    assert task.data["train"].strings == tuple("BTXSE" * (i + 1) for i in range(15))
    assert task.data["valid"].strings == tuple("BTXSE" * (i + 1) for i in range(15, 25))
    assert task.data["test"].strings == ("BPVVE", "BqVVE")
    (batch,) = task.batches("test", 0)
    assert _model(task)(batch.codes, batch.lengths).shape == (2, 2)


def test_files_may_hold_more_strings_than_the_grammar_has():
    many = 10**12
    assert StringSettings(folder="x", train_strings=many).train_strings == many
    with pytest.raises(InputError, match=r"letters, got \d+ valid ones"):
        StringSettings(train_strings=many)


def test_what_files_lack_is_said(tmp_path):
    with pytest.raises(InputError, match=r"train_data.csv must hold more strings than the 10 .* got 10"):
        _ = _reber(strings={"folder": _folder(tmp_path, 10), "valid_strings": 10}).data
    with pytest.raises(InputError, match=r"nowhere/train_data.csv: No such file"):
        _ = _reber(strings={"folder": "nowhere"}).data


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"valid_strings": 9}, "valid_strings must be at least 10"),
        ({"folder": "x", "embedded": True}, "embedded is for strings drawn from the grammar"),
        ({"folder": "x", "seed": 3}, "seed is for strings drawn from the grammar"),
        ({"changes": ("forget",)}, "'forget' is of the embedded grammar"),
        ({"max_length": 12}, "has 60 strings of 11 to 12 letters, got 13500 valid ones"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        StringSettings(**settings)


def test_the_commands_know_the_task(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    model = "[model]\ncell = 'gru'\nhidden_size = 6\nnum_layers = 1\n"
    Path("few.toml").write_text(model + "[strings]\n" + "\n".join(f"{k} = {v}" for k, v in FEW.items()))
    assert main(["tasks"]) == 0
    assert "\nreber " in capsys.readouterr().out
    train = ["train", "reber", "--method", "rigl", "--epochs", "1", "--sparsity", "0.5", "--json"]
    assert main([*train, "--config", "few.toml", "--out", "one"]) == 0
    weights = json.loads(capsys.readouterr().out.splitlines()[-1])["best"]["checkpoint"]
    assert main(["spectrum", weights, "--json"]) == 0
    exponents = json.loads(capsys.readouterr().out.splitlines()[-1])["modules"][0]["exponents"]
    assert len(exponents) == 6
    search = ["search", "reber", "--config", "few.toml", "--candidates", "3", "--workers", "1", "--json"]
    assert main([*search, "--first-epochs", "1", "--final-epochs", "2", "--out", "search"]) == 0
    best = json.loads(capsys.readouterr().out.splitlines()[-1])["best"]
    assert 0 <= best["metric"] <= 1


def test_a_wrong_table_of_the_file_exits_with_2(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for text, message in (
        ("[strings]\ntrain_string = 5", "unknown key in [strings] 'train_string'; did you mean"),
        ("[strings]\nlengths = 'even'", "[strings] lengths must be one of 'walk', 'uniform'"),
        ("[text]\nbptt = 5", "[text] means nothing to the task 'reber'"),
        ("[strings]\nfolder = 'none'", "none/train_data.csv: No such file"),
    ):
        Path("wrong.toml").write_text(text)
        assert main(["spectrum", "reber", "--config", "wrong.toml"]) == 2
        assert message in capsys.readouterr().err


def test_what_is_wrong_with_the_graph_of_a_file_names_the_file(tmp_path):
    path = tmp_path / "alone.graphml"
    nx.write_graphml(nx.empty_graph(2), path)
    with pytest.raises(InputError, match=r"alone\.graphml: a graph must have an edge"):
        WiringSettings(file=str(path)).graph()
