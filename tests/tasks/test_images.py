"""Tasks on images, and a search whose metric goes up."""

import json
import pickle

import pytest
import torch
from torch.nn import functional

import hyperprune as hp
from hyperprune.cli.main import main
from hyperprune.errors import InputError
from hyperprune.rng import generator
from hyperprune.tasks.images import ImageTask
from hyperprune.tasks.registry import load_task, maker_of
from hyperprune.training.measure import recurrent_spectra

SMALL = {"model": {"hidden_size": 8}, "images": {"train_images": 320, "valid_images": 100}}


def _digits(**tables) -> ImageTask:
    task = load_task("digits", settings={**SMALL, **tables})
    assert isinstance(task, ImageTask)
    return task


def test_an_epoch_shows_every_image_once_in_an_order_of_its_own():
    task = _digits(images={"batch_size": 50})
    shown = {}
    for epoch in (1, 1, 2):
        batches = list(task.batches("train", epoch))
        assert len(batches) == task.steps_per_epoch() == 22
        assert batches[0][0].shape == (8, 50, 8)
        images = torch.cat([inputs for inputs, _ in batches], dim=1).transpose(0, 1)
        labels = torch.cat([labels for _, labels in batches])
        shown.setdefault(epoch, []).append((images, labels))
    (first, again), (second,) = shown[1], shown[2]
    assert torch.equal(first[0], again[0])
    assert not torch.equal(first[0], second[0])
    everything, classes = task.images.sequences("train", torch.arange(1080), "rows")
    total = everything.sum(dim=(0, 2)) * 100 + classes
    for images, labels in (first, second):
        found = images.sum(dim=(1, 2)) * 100 + labels
        assert torch.equal(found.sort().values, total.sort().values)


def test_accuracy_is_the_share_named_right_and_the_loss_is_the_mean_over_images():
    task = _digits(images={"eval_batch_size": 64, "valid_images": 100})
    _, labels = task.images.sequences("valid", torch.arange(100), "rows")
    answers = (labels + (torch.arange(100) % 4 == 0)) % 10  # every fourth is wrong
    logits = 3.0 * functional.one_hot(answers, 10)

    class Recited(torch.nn.Module):
        read = 0

        def forward(self, inputs):
            self.read += inputs.shape[1]
            return logits[self.read - inputs.shape[1] : self.read]

    outcome = task.evaluate(Recited(), task.batches("valid", 0))
    assert outcome.metric == 0.75
    # Batches of 64 and 36: a mean of their means would be another number.
    assert outcome.loss == pytest.approx(functional.cross_entropy(logits, labels).item(), rel=1e-5)


def test_the_baseline_is_what_naming_one_class_reaches():
    task = load_task("digits", settings={"images": {"valid_images": 12}})
    assert isinstance(task, ImageTask)
    name, value = task.baseline()
    assert name == "share of the largest class"
    most_frequent = torch.bincount(task.images.labels["train"]).argmax()

    class OneClass(torch.nn.Module):
        def forward(self, inputs):
            return functional.one_hot(most_frequent.expand(inputs.shape[1]), 10).float()

    assert task.evaluate(OneClass(), task.batches("valid", 0)).metric == value


def test_the_measured_window_of_pixels_is_the_middle_of_the_image():
    task = _digits(images={"scan": "pixels"})
    assert task.spectrum_warmup == 8
    model = task.model(generator(0, "weights")).eval()
    batch = task.spectrum_batch()
    assert batch[0].shape == (64, 10, 1)
    (run,) = task.recurrent(model, batch)
    assert torch.equal(run.inputs, batch[0][16:40])  # warm-up: the third row; then the fourth and fifth
    torch.testing.assert_close(run.state, model.rnn(batch[0][:16])[1])
    (spectrum,) = recurrent_spectra(task, model, seed=0)
    assert spectrum.exponents.shape == (8,)


def test_the_measured_window_of_rows_is_the_image():
    task = _digits()
    assert task.spectrum_warmup == 2
    model = task.model(generator(0, "weights"))
    (run,) = task.recurrent(model, task.spectrum_batch())
    assert run.inputs.shape == (8, 10, 8)
    assert run.state is None


def test_a_search_keeps_the_highest_accuracy(tmp_path):
    strategy = hp.LSH(
        candidates=3, first_epochs=1, round_epochs=1, final_epochs=4, proposer="random", signal="loss"
    )
    result = hp.search(_digits(), strategy, sparsity=0.5, folder=tmp_path / "run", seed=0)
    finalists = [row for row in result.record.candidates if row.outcome == "finalist"]
    assert len(finalists) == 2
    assert result.best.metric == max(row.metric for row in finalists if row.metric is not None)
    for row in (*finalists, result.record.reference):
        assert row.metric == max(record.metric for record in row.epochs if record.epoch > 0)
        assert row.best_epoch is not None
        assert row.epochs[row.best_epoch].metric == row.metric
    assert result.record.lower_is_better is False
    assert result.record.baseline == ("share of the largest class", pytest.approx(0.1, abs=0.02))
    # Four epochs of ten steps are enough to leave the baseline; else the test could not tell up from down.
    assert result.best.metric is not None
    assert result.best.metric > min(record.metric for record in result.best.epochs)
    model = hp.load_model(result.checkpoint)
    task = load_task("digits", settings=SMALL)
    with torch.no_grad():
        assert task.evaluate(model, task.batches("valid", 0)).metric == result.best.metric


def test_settings_reach_cell_reading_and_recipe():
    task = _digits(
        model={"cell": "peephole_lstm", "hidden_size": 5, "num_layers": 2},
        images={"scan": "pixels", "batch_size": 7},
        training={"learning_rate": 0.5},
    )
    model = task.model(generator(0, "weights"))
    assert model.rnn.get_parameter("weight_peephole_l1").shape == (20, 5)
    assert next(iter(task.batches("train", 1)))[0].shape == (64, 7, 1)
    assert task.recipe.learning_rate == 0.5
    assert task.prunable(model)[:3] == ["rnn.weight_ih_l0", "rnn.weight_hh_l0", "rnn.weight_peephole_l0"]


def test_a_task_made_again_is_the_same_and_travels_light():
    task = _digits()
    again = pickle.loads(pickle.dumps(maker_of(task)))()
    assert again.identity() == task.identity()
    assert len(pickle.dumps(task)) < 2000
    assert _digits(images={"scan": "pixels"}).identity() != task.identity()


def test_the_jse_papers_recipe_is_the_default(data_dir):
    task = load_task("mnist10k", data_dir=data_dir)
    assert isinstance(task, ImageTask)
    assert (task.recipe.optimizer, task.recipe.learning_rate) == ("adam", 1e-3)
    assert next(iter(task.batches("train", 1)))[0].shape == (28, 64, 28)
    assert task.spectrum_warmup == 7
    assert (task.settings.init, task.settings.init_scale) == ("normal", None)


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        (
            {"text": {"bptt": 3}},
            r"\[text\] means nothing to the task 'digits'; it takes \[model\], \[images\]",
        ),
        ({"image": {"scan": "rows"}}, "unknown table of settings 'image'; did you mean 'images'"),
        ({"images": {"scan": "columns"}}, r"\[images\] scan must be one of 'rows', 'pixels', got 'columns'"),
        ({"images": {"batch_size": 0}}, "batch_size must be at least 1, got 0"),
        ({"model": {"cell": "gur"}}, r"\[model\] cell must be one of .*'gru'.*, got 'gur'"),
    ],
)
def test_wrong_settings_are_refused(tables, message):
    with pytest.raises(InputError, match=message):
        load_task("digits", settings=tables)


def test_too_few_images_for_a_spectrum_are_refused():
    with pytest.raises(InputError, match="valid_images must be at least 10"):
        _digits(images={"valid_images": 9}).spectrum_batch()


def test_images_mean_nothing_to_a_language_task():
    with pytest.raises(InputError, match=r"\[images\] means nothing to the task 'pydoc'"):
        load_task("pydoc", settings={"images": {"scan": "rows"}})


def test_the_command_line_takes_image_tasks_and_their_tables(tmp_path, capsys):
    config = tmp_path / "small.toml"
    config.write_text('[model]\ncell = "peephole_lstm"\nhidden_size = 6\n[images]\ntrain_images = 64\n')
    assert main(["spectrum", "digits", "--config", str(config), "--json"]) == 0
    (module,) = json.loads(capsys.readouterr().out.splitlines()[-1])["modules"]
    assert len(module["exponents"]) == 6
    arguments = ["train", "digits", "--method", "static", "--sparsity", "0.5", "--epochs", "1", "--json"]
    assert main([*arguments, "--config", str(config), "--out", str(tmp_path / "run")]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert 0 < result["best"]["metric"] < 1
    assert main(["tasks"]) == 0
    assert "\ndigits " in capsys.readouterr().out
    config.write_text("[text]\nbptt = 3\n")
    assert main(["search", "digits", "--plan", "--config", str(config)]) == 2
    assert "[text] means nothing to the task 'digits'" in capsys.readouterr().err
