"""A resumed run equals the uninterrupted one, bit for bit."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch

from hyperprune.errors import InputError
from hyperprune.sparsity import DynamicSparse, methods
from sparsity.tiny_runs import STEPS_PER_EPOCH, Run, assert_same, loss_of, quick, tiny, train_with_lost

NEEDS_MOMENTUM = ("snfs",)


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    """As a checkpoint would come back, with nothing but plain data in it."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def restore(run: Run, state: dict[str, Any]) -> None:
    run.model.load_state_dict(state["model"])
    run.optimizer.load_state_dict(state["optimizer"])
    run.sparse.load_state_dict(state["sparse"])


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "snt_asgd"])
@pytest.mark.parametrize("name", methods.names())
@pytest.mark.parametrize("at", [4, 11])
def test_every_preset_resumes_bit_for_bit(name: str, optimizer: str, at: int) -> None:
    # 4 lies within the gradients collected for an update and before the averaging is triggered.
    if optimizer == "sgd" and name in NEEDS_MOMENTUM:
        optimizer = "momentum"
    options: dict[str, Any] = {"optimizer": optimizer, "rescale_weights": True, "trigger_at": 6}
    method = quick(name, gradient_batches=2) if name == "rigl" else quick(name)
    straight = Run(method, **options).run(at)
    saved = through_a_file(straight.state())
    straight.run(18 - at)
    resumed = Run(method, **options)
    restore(resumed, saved)
    resumed.run(18 - at)
    assert_same(resumed.state(), straight.state())
    assert resumed.sparse.history() == straight.sparse.history()


@pytest.mark.parametrize(
    "parts",
    [
        {"death": "threshold", "redistribution": "nonzeros"},
        {"death": "threshold", "threshold_at_once": True},
        {"death": "global_magnitude", "growth": "gradient", "redistribution": "magnitude"},
        {"growth": "momentum", "redistribution": "momentum", "gates": "separate"},
    ],
)
def test_combinations_resume_bit_for_bit(parts: dict[str, Any]) -> None:
    method = DynamicSparse(**parts)
    straight = Run(method).run(8)
    saved = through_a_file(straight.state())
    resumed = Run(method)
    restore(resumed, saved)
    assert_same(resumed.run(10).state(), straight.run(10).state())


@pytest.mark.parametrize("redistribution", ["none", "magnitude"])
def test_gradients_that_wait_for_the_epochs_end_are_saved(redistribution: str) -> None:
    # Without redistribution only candidates wait, otherwise whole gradients.
    method = DynamicSparse(growth="gradient", redistribution=redistribution)
    straight, resumed = (Run(method, steps_per_epoch=STEPS_PER_EPOCH) for _ in range(2))
    for step in range(STEPS_PER_EPOCH):
        straight.optimizer.zero_grad()
        loss_of(straight.model, step).backward()
        straight.sparse.step()
    assert straight.sparse._network.gradients
    restore(resumed, through_a_file(straight.state()))
    for run in (straight, resumed):
        run.sparse.end_epoch()
        run.run(STEPS_PER_EPOCH)
    assert_same(resumed.state(), straight.state())


def test_a_batch_that_was_given_up_is_counted_after_a_resumption_too() -> None:
    straight, resumed = (Run(methods.rigl(update_every="epoch"), steps_per_epoch=3) for _ in range(2))
    loss_of(straight.model, 0).backward()
    straight.sparse.mask_gradients()
    straight.optimizer.zero_grad()
    restore(resumed, through_a_file(straight.state()))
    for run in (straight, resumed):
        for step in (1, 2):
            run.optimizer.zero_grad()
            loss_of(run.model, step).backward()
            run.sparse.step()
        run.sparse.end_epoch()
        assert run.sparse.num_updates == 1
    assert_same(resumed.state(), straight.state())


def test_batches_that_earlier_epochs_lost_are_counted_after_a_resumption_too() -> None:
    method = methods.set_(update_every=18)
    straight, resumed = (Run(method, optimizer="sgd", total_steps=20) for _ in range(2))
    train_with_lost(straight, {0, 7}, "skipped", num_batches=10)
    restore(resumed, through_a_file(straight.state()))
    for run in (straight, resumed):
        train_with_lost(run, set(), "skipped", num_batches=10)
        assert run.sparse.num_steps == 18
        assert run.sparse.num_updates == 0  # the 18th is the last one planned
    assert_same(resumed.state(), straight.state())


@pytest.mark.parametrize("redistribution", ["none", "magnitude"])
def test_gradients_that_wait_follow_a_model_that_moves(redistribution: str) -> None:
    run = Run(DynamicSparse(growth="gradient", redistribution=redistribution), steps_per_epoch=1)
    loss_of(run.model, 0).backward()
    run.sparse.step()
    for tensor in run.sparse._network.tensors:
        tensor.parameter = torch.nn.Parameter(tensor.parameter.detach().to("meta"))
    run.sparse._follow_device()
    held = run.sparse._network.gradients.state_dict()
    devices = {values.device.type for part in held.values() for values in part.values()}
    assert devices == {"meta"}


def test_masks_take_one_bit_per_weight_in_a_checkpoint() -> None:
    run = Run(methods.static())
    for name, entry in run.sparse.state_dict()["network"]["tensors"].items():
        total = run.sparse.summary()[name].total
        assert entry["live"].numel() == (total + 7) // 8


def test_loading_leaves_the_saved_state_untouched() -> None:
    run = Run(methods.rigl(update_every=4, gradient_batches=2)).run(3)
    saved, kept = run.sparse.state_dict(), through_a_file(run.sparse.state_dict())
    other = Run(methods.rigl(update_every=4, gradient_batches=2))
    other.sparse.load_state_dict(saved)
    other.run(5)
    assert_same(saved, kept)


def test_a_state_of_other_tensors_is_refused_with_a_list_and_changes_nothing() -> None:
    saved = Run(methods.static(), model=tiny(hidden=8)).sparse.state_dict()
    saved["network"]["tensors"]["stranger"] = saved["network"]["tensors"].pop("decoder.weight")
    run = Run(methods.static())
    before = run.sparse.state_dict()
    with pytest.raises(InputError) as error:
        run.sparse.load_state_dict(saved)
    message = str(error.value)
    assert "decoder.weight is missing from the state" in message
    assert "stranger is not a pruned tensor here" in message
    assert "encoder.weight has shape (11, 8) there, (11, 6) here" in message
    assert_same(run.sparse.state_dict(), before)


def test_a_state_of_another_method_or_sparsity_is_refused() -> None:
    saved = Run(methods.static()).sparse.state_dict()
    with pytest.raises(InputError, match=r"method is .Static\(.* there, .SET\("):
        Run(methods.set_()).sparse.load_state_dict(saved)
    with pytest.raises(InputError, match=r"sparsity is 0.6 there, 0.5 here"):
        Run(methods.static(), sparsity=0.5).sparse.load_state_dict(saved)


def test_a_state_cannot_be_saved_in_the_middle_of_a_step() -> None:
    run = Run(methods.static())
    loss_of(run.model, 0).backward()
    run.sparse.mask_gradients()
    with pytest.raises(InputError, match=r"state_dict\(\) belongs between steps.*call step\(\) first"):
        run.sparse.state_dict()


def test_a_state_of_another_length_is_refused_with_the_way_to_train_longer() -> None:
    saved = Run(methods.set_(), total_steps=20).run(3).sparse.state_dict()
    run = Run(methods.set_(), total_steps=40)
    with pytest.raises(InputError, match=r"total_steps is 20 there, 40 here.*may go on beyond total_steps"):
        run.sparse.load_state_dict(saved)
    assert run.sparse.num_steps == 0
