"""Built-in tasks, tasks from files, and what a task must promise."""

import math
import pickle
import sys
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import torch

import hyperprune as hp
from hyperprune.data.text import Corpus
from hyperprune.errors import InputError
from hyperprune.hypersearch.strategies import default_strategy
from hyperprune.rng import generator
from hyperprune.tasks.contract import Recipe
from hyperprune.tasks.language import LanguageTask
from hyperprune.tasks.registry import as_found, load_task, maker_of
from tiny_task import TinyTask

SMALL = {"model": {"embedding_size": 12, "hidden_size": 12}}


def _language(name, **options):
    task = load_task(name, **options)
    assert isinstance(task, LanguageTask)
    return task


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    words = " ".join(f"word{index * index % 7}" for index in range(12_000))
    path = tmp_path_factory.mktemp("text") / "corpus.txt"
    path.write_text(words)
    return path


def test_the_default_needs_no_download_and_its_unigram_perplexity_is_the_baseline():
    task = _language("pydoc")
    name, value = task.baseline()
    assert name == "unigram perplexity"
    # A model that puts out log unigram frequencies whatever it reads must score the baseline.
    assert isinstance(task.corpus, Corpus)
    counts = torch.bincount(task.corpus.train, minlength=len(task.corpus.vocabulary)).double() + 1
    logits = torch.log(counts / counts.sum()).float()

    class Frequencies(torch.nn.Module):
        def forward(self, tokens, state):
            return logits.expand(*tokens.shape, -1), None

    outcome = task.evaluate(Frequencies(), task.batches("valid", 0))
    # The first token of each column is no target, and float32 sums over 7,600 tokens.
    assert outcome.metric == pytest.approx(value, rel=2e-3)


def test_the_measured_window_is_the_first_columns_of_the_validation_stream(text):
    task = _language(f"text:{text}", settings=SMALL)
    inputs, _ = task.spectrum_batch()
    assert inputs.shape == (45, 10)
    columns = task.corpus.valid[: len(task.corpus.valid) // 10 * 10].view(10, -1)
    assert torch.equal(inputs.t(), columns[:, :45])
    model = task.model(generator(0, "weights")).eval()
    ((module, driven, state),) = task.recurrent(model, task.spectrum_batch())
    assert isinstance(module, torch.nn.LSTM)
    assert driven.shape == (45, 10, 12)
    assert state is None


def test_perplexity_is_the_exponential_of_the_mean_loss_and_never_overflows():
    task = _language("pydoc")
    assert task.metric_of_loss(math.log(7)) == pytest.approx(7)
    assert task.metric_of_loss(1000.0) == math.inf


def test_settings_reach_model_text_and_recipe(text):
    task = load_task(
        f"text:{text}",
        settings={**SMALL, "text": {"batch_size": 5, "bptt": 7}, "training": {"learning_rate": 3}},
    )
    model = task.model(generator(0, "weights"))
    assert model.get_submodule("rnn").hidden_size == 12
    inputs, targets = next(iter(task.batches("train", 1)))
    assert inputs.shape == targets.shape == (7, 5)
    assert task.recipe.learning_rate == 3
    assert task.steps_per_epoch() == sum(1 for _ in task.batches("train", 1))


def test_the_papers_networks_are_searched_as_in_the_paper():
    # REFERENCE: e0, ei = 3, 3 and 100 epochs at .67 (LSTM), 6, 3 and 500 at .53 (RHN).
    numbers = {"ptb": (0.67, 3, 3, 100), "ptb-rhn": (0.53, 6, 3, 500)}
    for name, expected in numbers.items():
        task = load_task(name)
        lsh = default_strategy(task)
        assert (task.sparsity, lsh.first_epochs, lsh.round_epochs, lsh.final_epochs) == expected


def test_a_task_made_again_from_its_name_is_the_same(text):
    task = load_task(f"text:{text}", settings=SMALL)
    again = pickle.loads(pickle.dumps(maker_of(task)))()
    assert again.identity() == task.identity()


def test_another_text_is_another_identity(text, tmp_path):
    other = tmp_path / "corpus.txt"
    other.write_text(text.read_text().replace("word1", "word9", 1))
    one, two = (load_task(f"text:{path}", settings=SMALL) for path in (text, other))
    assert one.identity()["corpus_sha256"] != two.identity()["corpus_sha256"]


def test_a_text_of_a_relative_path_is_the_same_from_any_folder_and_wherever_it_lies(
    text, tmp_path, monkeypatch
):
    monkeypatch.chdir(text.parent)
    task = load_task(f"text:{text.name}", settings=SMALL)
    assert as_found(task) is task
    monkeypatch.chdir(tmp_path)
    assert as_found(task) is task
    assert task.source is not None
    assert load_task(**task.source).identity() == task.identity()
    copied = tmp_path / "copied.txt"
    copied.write_text(text.read_text())
    assert load_task(f"text:{copied}", settings=SMALL).identity() == task.identity()


def test_rhn_presets_train_too(text):
    task = load_task(f"text:{text}", settings={"model": {"preset": "rhn-mini", **SMALL["model"]}})
    model = task.model(generator(0, "weights"))
    outcome = task.loss(model, next(iter(task.batches("train", 1))), None)
    outcome.loss.backward()
    assert all(weight.grad is not None for weight in model.parameters())


def test_a_search_prunes_an_awd_lstm_with_a_mixture_of_softmaxes(text, tmp_path):
    sizes = {"embedding_size": 6, "hidden_size": 8, "last_hidden_size": 7, "num_layers": 2, "num_experts": 2}
    settings = {
        "model": {"preset": "awd-mos-mini", **sizes},
        "text": {"train_tokens": 900, "valid_tokens": 700},
    }
    task = load_task(f"text:{text}", settings=settings)
    strategy = hp.LSH(candidates=3, first_epochs=1, round_epochs=1, final_epochs=3, proposer="random")
    result = hp.search(task, strategy, sparsity=0.5, folder=tmp_path / "run", seed=0)
    spectrum = result.best.epochs[0].spectrum
    assert spectrum is not None
    assert spectrum.shape == (8 + 7,)  # the layers' hidden states, one after the other
    model = hp.load_model(result.checkpoint)
    assert isinstance(model, hp.models.AWDLSTM)
    matrices = [weight for weight in model.parameters() if weight.ndim == 2]
    dead = sum(int((weight == 0).sum()) for weight in matrices)
    # A live weight may be 0 too: one that was just grown and that no word of the batch has reached.
    assert 0.5 <= dead / sum(weight.numel() for weight in matrices) < 0.52
    assert all(0 < record.valid_loss < 5 for record in result.best.epochs)


def test_the_jacobian_papers_network_prunes_its_recurrent_layer_alone(text):
    settings = {"model": {"preset": "jse", "hidden_size": 20, "embedding_size": 8, "num_sampled": 4}}
    task = load_task(f"text:{text}", settings=settings)
    model = task.model(generator(0, "weights"))
    assert task.prunable(model) == ["rnn.weight_ih_l0", "rnn.weight_hh_l0"]
    assert not model.get_parameter("embedding.weight").requires_grad
    batch = next(iter(task.batches("train", 1)))
    with torch.random.fork_rng(devices=[]):
        task.loss(model.train(), batch, None).loss.backward()
    assert task.recipe.optimizer == "adam"
    # table 4: 19.2 M recurrent weights
    preset = hp.models.preset("jse")
    assert 4 * preset.hidden_size * (preset.hidden_size + preset.embedding_size) == 19_200_000


def test_penn_treebank_has_its_published_size(data_dir):
    task = _language("ptb", data_dir=data_dir)
    assert len(task.corpus.vocabulary) == 10_000
    assert [len(task.corpus.split(split)) for split in ("train", "valid", "test")] == [
        929_589,
        73_760,
        82_430,
    ]


@pytest.mark.parametrize("name", ["pydoc", "digits", "reber", "text"])
def test_a_data_folder_is_refused_where_nothing_is_looked_for(name, text, tmp_path):
    with pytest.raises(InputError, match="reads none of them"):
        load_task(f"text:{text}" if name == "text" else name, data_dir=tmp_path)


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        ("task = 5", "task", "must be a hyperprune.Task, or make one, got int"),
        ("import nothing_of_that_name", "task", "raised ModuleNotFoundError"),
        ("def make():\n    return 5", "mak", "unknown name in own.py 'mak'; did you mean 'make'"),
    ],
)
def test_a_wrong_task_file_says_what_is_wrong(tmp_path, content, name, message):
    path = tmp_path / "own.py"
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        load_task(f"{path}:{name}")


def test_settings_of_one_loading_do_not_reach_the_next():
    name = f"{Path(__file__).parents[1] / 'tiny_task.py'}:task"
    before = load_task(name).recipe
    changed = load_task(name, settings={"training": {"learning_rate": 0.125}})
    again = load_task(name)
    assert changed.recipe.learning_rate == 0.125
    assert again.recipe == before
    assert again.source == {**(changed.source or {}), "settings": {}}


OWN_TASK = "import tiny_task\nclass Own(tiny_task.TinyTask):\n    scale = 1.0\ntask = Own()\n"


def _in_another_process(task):
    """What a worker gets, where no file of a user's was imported before."""
    sent = pickle.dumps(maker_of(task))
    sys.modules.pop(type(task).__module__)
    return pickle.loads(sent)()


def test_a_task_that_a_program_changed_travels_as_it_is():
    task = load_task("digits", settings={"model": {"hidden_size": 4}})
    assert as_found(task) is task
    task.baseline()  # what is computed with use is no change
    assert as_found(task) is task
    task.recipe = replace(task.recipe, learning_rate=0.5)
    found = as_found(task)
    assert found.source is None
    assert pickle.loads(pickle.dumps(maker_of(found)))().identity() == task.identity()
    assert task.source is not None  # the caller's own stays as it was


def test_a_task_of_a_file_travels_by_name_and_a_changed_one_whole(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(OWN_TASK)
    task = load_task(f"{path}:task")
    assert _in_another_process(as_found(task)).identity() == task.identity()
    task = load_task(f"{path}:task")
    task.scale = 2.0  # pyright: ignore[reportAttributeAccessIssue]
    assert vars(_in_another_process(as_found(task)))["scale"] == 2.0


HOLDING = """
import threading
from pathlib import Path
import numpy as np
import torch
import tiny_task

def scaled(factor):
    return lambda x: factor * x


class Holder:
    def __init__(self, kept):
        self.kept = kept

class Own(tiny_task.TinyTask):
    def __init__(self):
        self.held = MADE

task = Own()
other = OTHER
"""


def _holding(folder, made, other, name="Own") -> tuple[Any, Any]:
    """A task whose `held` is `made`, and what else to put there."""
    path = folder / "own.py"
    path.write_text(HOLDING.replace("MADE", made).replace("OTHER", other))
    task = load_task(f"{path}:{name}")
    return task, vars(sys.modules[type(task).__module__])["other"]


def test_a_task_of_a_file_that_a_program_changed_in_place_travels_whole(tmp_path):
    task, _ = _holding(tmp_path, "{'scale': 1.0}", "None", name="task")
    assert as_found(task) is task
    task.held["scale"] = 7.0
    assert load_task(f"{tmp_path / 'own.py'}:task").held == {"scale": 1.0}  # pyright: ignore[reportAttributeAccessIssue]
    assert vars(_in_another_process(as_found(task)))["held"] == {"scale": 7.0}


@pytest.mark.parametrize(
    ("made", "other"),
    [
        ("np.int64(16)", "np.int64(32)"),
        ("np.zeros(3)", "np.array([0.0, 0.0, 1.0])"),
        ("np.zeros(3)", "np.zeros(3, dtype=np.float32)"),
        ("np.array(['a', None])", "np.array(['a', 1], dtype=object)"),
        ("torch.zeros(3)", "torch.zeros(3, dtype=torch.float64)"),
        ("torch.zeros(2, 3)", "torch.zeros(3, 2)"),
        ("{'a', 'b', 'c'}", "{'a', 'b', 'd'}"),
        ("Path('a')", "Path('b')"),
        ("b'a'", "b'b'"),
        ("[{'rate': np.float32(0.5)}]", "[{'rate': np.float32(0.25)}]"),
    ],
)
def test_a_changed_attribute_is_noticed_by_a_program_and_by_a_run_that_goes_on(tmp_path, made, other):
    task, held = _holding(tmp_path, made, other)
    before = task.identity()
    assert as_found(task) is task
    task.held = held
    assert as_found(task).source is None
    assert task.identity() != before


@pytest.mark.parametrize(
    ("made", "other"),
    [
        ("torch.nn.Dropout(0.1)", "torch.nn.Dropout(0.2)"),
        ("Holder(torch.zeros(3))", "Holder(torch.ones(3))"),
        ("[Holder(lambda x: x)]", "[Holder(lambda x: 2 * x)]"),
        ("lambda x: x", "lambda x: 2 * x"),
        ("scaled(1)", "scaled(2)"),
    ],
)
def test_an_object_of_any_kind_is_compared_by_what_it_holds(tmp_path, made, other):
    task, held = _holding(tmp_path, made, other)
    assert as_found(task) is task
    task.held = held
    assert as_found(task).source is None


def test_an_object_that_cannot_be_pickled_counts_as_changed_unless_it_is_the_same(tmp_path):
    task, held = _holding(tmp_path, "threading.Lock()", "threading.Lock()", name="task")
    assert as_found(task) is task
    task.held = held
    assert as_found(task).source is None


def test_a_module_of_ones_own_counts_whatever_its_name_begins_with(tmp_path):
    (tmp_path / "abcnet.py").write_text("import tiny_task\nclass Net(tiny_task.TinyTask):\n    pass\n")
    path = tmp_path / "own.py"
    path.write_text("import abcnet\nclass Own(abcnet.Net):\n    pass\n")
    classes = load_task(f"{path}:Own").identity()["classes"]
    assert set(classes) == {"Own", "Net", "TinyTask"}


@pytest.mark.parametrize(
    ("made", "told"),
    [(lambda task: task, r"own\.py:task"), (lambda task: type(task)(), r"own\.py")],
    ids=["loaded", "made by a program"],
)
def test_a_task_file_edited_in_the_middle_of_a_run_is_refused_by_a_new_worker(tmp_path, made, told):
    path = tmp_path / "own.py"
    path.write_text(OWN_TASK)
    sent = pickle.dumps(maker_of(made(load_task(f"{path}:task"))))
    path.write_text(OWN_TASK.replace("1.0", "2.0"))
    with pytest.raises(InputError, match=rf"must stay as it is while a run trains it, .*{told} has"):
        pickle.loads(sent)()


def test_an_edited_task_file_is_executed_anew_and_an_older_task_stays_what_it_is(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(OWN_TASK)
    older = load_task(f"{path}:task")
    before = older.identity()
    path.write_text(OWN_TASK.replace("1.0", "2.0"))
    newer = load_task(f"{path}:task")
    assert older.identity() == before
    assert newer.identity()["classes"] != before["classes"]
    assert type(newer) is not type(older)


def test_attributes_that_appear_with_use_keep_a_worker_from_nothing(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(OWN_TASK)
    task = load_task(f"{path}:task")
    task.cache = [1]  # pyright: ignore[reportAttributeAccessIssue]
    assert isinstance(_in_another_process(task), TinyTask)


class Remembering(TinyTask):
    """Keeps what it has computed once."""

    @cached_property
    def computed(self):
        return 3.0


def test_what_a_task_has_computed_from_itself_does_not_change_its_identity():
    task = Remembering()
    before = task.identity()
    assert task.computed == 3.0
    assert task.identity() == before
    task.scale = 2.0  # pyright: ignore[reportAttributeAccessIssue]
    assert task.identity() != before


def test_paths_in_settings_mean_the_same_from_any_folder(tmp_path, monkeypatch):
    (tmp_path / "strings").mkdir()
    for name in ("train", "test"):
        lines = "\n".join(f"BTXSE{'A' * number},{number % 2}" for number in range(30))
        (tmp_path / "strings" / f"{name}_data.csv").write_text(f"string,valid\n{lines}\n")
    monkeypatch.chdir(tmp_path)
    task = load_task("reber", settings={"strings": {"folder": "strings", "valid_strings": 10}})
    monkeypatch.chdir(tmp_path.parent)
    assert task.source is not None
    again = load_task(**task.source)
    assert again.identity() == task.identity()
    assert as_found(task) is task
    monkeypatch.setenv("HOME", str(tmp_path))
    home = load_task("reber", settings={"strings": {"folder": "~/strings", "valid_strings": 10}})
    assert home.identity() == task.identity()


def test_settings_that_are_no_tables_are_refused():
    # A second one, because the tests' own type checks look at the first.
    with pytest.raises(InputError, match="settings must be tables of names and values, got 3 for 'model'"):
        load_task("pydoc", settings={"training": {}, "model": 3})  # pyright: ignore[reportArgumentType]


def test_settings_of_built_in_tasks_are_refused_for_ones_own(tmp_path):
    path = tmp_path / "own.py"
    path.write_text("import tiny_task\ntask = tiny_task.TinyTask()")
    with pytest.raises(InputError, match="unknown table of settings 'trainng'; did you mean 'training'"):
        load_task(f"{path}:task", settings={"trainng": {"patience": 9}})
    with pytest.raises(InputError, match=r"\[model\] is for built-in tasks"):
        load_task(f"{path}:task", settings={"model": {"preset": "mini"}})
    assert load_task(f"{path}:task", settings={"training": {"patience": 9}}).recipe.patience == 9


def test_a_vocabulary_without_room_for_a_word_is_refused_before_the_text_is_read():
    with pytest.raises(InputError, match="vocabulary_size must be at least 2"):
        load_task("one-billion-words", settings={"text": {"vocabulary_size": 1}})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optimizer": "sdg"}, "unknown optimizer 'sdg'; did you mean 'sgd'"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0, got 0.0"),
        (
            {"optimizer": "adam", "momentum": 0.9},
            "momentum is for sgd, snt_asgd and rmsprop, got it with adam",
        ),
        ({"optimizer": "adam", "patience": 3}, "patience is for snt_asgd, got 3 with adam; leave it at 5"),
        ({"clip_norm": 0.0}, "clip_norm must be above 0"),
    ],
)
def test_a_wrong_recipe_is_refused(settings, message):
    with pytest.raises(InputError, match=message):
        Recipe(**settings)
