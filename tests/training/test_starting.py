"""A candidate whose starting masks a criterion chooses."""

from pathlib import Path

import pytest
import torch

import hyperprune as hp
from hyperprune.errors import InputError
from hyperprune.hypersearch.space import Configuration
from hyperprune.tasks.registry import load_task
from hyperprune.training.candidate import Training
from hyperprune.training.checkpoint import load_checkpoint
from hyperprune.training.checks import check_trainable
from hyperprune.training.segment import advance
from hyperprune.training.starting import starting_masks, task_masks

TASK = f"{Path(__file__).parents[1] / 'tiny_task.py'}:task"


def training(method: str = "rigl", **settings) -> Training:
    configuration = Configuration.of(method, at_init="jacobian", **settings)
    return Training(
        method=configuration.build(), sparsity=0.5, total_epochs=4, seed=3, name=configuration.text
    )


def weights(folder: Path, epoch: int) -> dict[str, torch.Tensor]:
    return load_checkpoint(folder / f"epoch-{epoch:05d}.pt")["model"]


@pytest.mark.parametrize("method", ["static", "rigl"])
def test_a_candidate_pruned_at_initialisation_resumes_bit_for_bit(tmp_path, method):
    task = load_task(TASK)
    settings = {"update_every": 3} if method == "rigl" else {}
    advance(task, training(method, **settings), tmp_path / "whole", 3)
    for epoch in range(4):
        advance(task, training(method, **settings), tmp_path / "parts", epoch)
    whole, parts = weights(tmp_path / "whole", 3), weights(tmp_path / "parts", 3)
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    start = task.model(hp_generator(3))
    masks = task_masks(task, start, "jacobian", sparsity=0.5, seed=3)
    live = whole["rnn.weight_hh_l0"] != 0
    assert torch.equal(live, masks["rnn.weight_hh_l0"]) == (method == "static")
    assert sum(int((whole[name] != 0).sum()) for name in masks) == sum(
        int(mask.sum()) for mask in masks.values()
    )


def hp_generator(seed: int) -> torch.Generator:
    from hyperprune.rng import generator

    return generator(seed, "weights")


def test_what_the_criterion_cannot_score_keeps_its_share_at_random():
    task = load_task(TASK)
    model = task.model(hp_generator(0))
    masks = task_masks(task, model, "jacobian", sparsity=0.5, seed=0)
    assert int(masks["output.weight"].sum()) == 8


def test_padding_has_no_part_in_the_choice():
    strings = {"train_strings": 40, "valid_strings": 10, "test_strings": 10, "batch_size": 8}
    task = load_task("reber", settings={"model": {"hidden_size": 6}, "strings": strings})
    model = task.model(hp_generator(0))
    masks = task_masks(task, model, "jacobian", sparsity=0.5, seed=0)
    with torch.no_grad():
        model.get_parameter("embedding.weight")[0] = 9.0  # of code 0, which pads
    again = task_masks(task, model, "jacobian", sparsity=0.5, seed=0)
    assert all(torch.equal(masks[name], again[name]) for name in masks)
    batch = next(iter(task.batches("train", 1)))
    (run,) = task.recurrent(model, batch)
    assert run.inputs.shape[0] == int(batch.lengths.min()) < int(batch.lengths.max())


def test_a_network_wired_by_a_graph_is_told_which_criteria_score_it():
    strings = {"train_strings": 40, "valid_strings": 10, "test_strings": 10}
    task = load_task("reber-graph", settings={"model": {"num_nodes": 6}, "strings": strings})
    model = task.model(hp_generator(0))
    with pytest.raises(InputError, match=r"GraphRNN is taken for one.* snip, grasp, magnitude and random"):
        task_masks(task, model, "jacobian", sparsity=0.5, seed=0)
    masks = task_masks(task, model, "snip", sparsity=0.5, seed=0, allow_empty=True)
    assert sum(int(mask.sum()) for mask in masks.values()) == sum(m.numel() for m in masks.values()) // 2


def test_an_unknown_criterion_is_refused_before_training():
    method = hp.methods.static(at_init="jacobien")
    wrong = Training(method=method, sparsity=0.5, total_epochs=1, seed=0, name="wrong")
    with pytest.raises(InputError, match="unknown criterion 'jacobien'; did you mean 'jacobian'"):
        check_trainable(load_task(TASK), wrong, needs_spectrum=False)


def test_a_search_goes_through_configurations_with_a_criterion(tmp_path):
    result = hp.train(
        load_task(TASK),
        Configuration.of("static", at_init="snip"),
        sparsity=0.5,
        epochs=1,
        folder=tmp_path / "run",
        seed=0,
    )
    assert "at_init=snip" in result.best.label


def test_batches_are_counted_from_one():
    task = load_task(TASK)
    with pytest.raises(InputError, match="batches must be at least 1, got 0"):
        task_masks(task, task.model(hp_generator(0)), "snip", sparsity=0.5, seed=0, num_batches=0)


def test_a_criterion_that_empties_a_tensor_is_told_with_a_remedy_that_a_method_has():
    task = load_task(TASK)
    model = task.model(hp_generator(0))
    with torch.no_grad():
        model.get_parameter("rnn.weight_hh_l0").mul_(1e-6)
    message = r"rigl needs a weight in every tensor .* empties rnn\.weight_hh_l0; .* take another criterion"
    with pytest.raises(InputError, match=message):
        starting_masks(task, model, hp.methods.rigl(at_init="magnitude"), 0.9, 0)
    allowed = hp.methods.static(at_init="magnitude", allow_empty=True)
    masks = starting_masks(task, model, allowed, 0.9, 0)
    assert masks is not None
    assert not bool(masks["rnn.weight_hh_l0"].any())


def test_more_batches_than_an_epoch_has_are_refused():
    task = load_task(TASK)
    with pytest.raises(InputError, match=r"batches must be at most an epoch's, .* got 10000"):
        task_masks(task, task.model(hp_generator(0)), "snip", sparsity=0.5, seed=0, num_batches=10_000)
