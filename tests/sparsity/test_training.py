"""The loop: what must hold at every moment, whatever the method and the optimizer."""

from __future__ import annotations

import copy
import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from hyperprune.errors import InputError, NumericsError
from hyperprune.sparsity import DynamicSparse, SparseTraining, methods
from hyperprune.sparsity.counts import num_live_at, rounded_share
from hyperprune.sparsity.death import DEATHS
from hyperprune.sparsity.growth import GROWTHS
from hyperprune.sparsity.network import as_optimizers
from hyperprune.sparsity.redistribution import REDISTRIBUTIONS
from sparsity.tiny_runs import (
    OPTIMIZERS,
    STEPS_PER_EPOCH,
    Run,
    assert_same,
    loss_of,
    quick,
    seeded,
    sparsity_for,
    tiny,
    train_with_lost,
)

KEEPS_BACKWARD_SET = "top_kast"  # whose backward set is trained and keeps its moments


def per_weight_state(run: Run) -> dict[str, dict[str, torch.Tensor]]:
    named = dict(run.model.named_parameters())
    return {
        name: {
            key: value
            for key, value in run.optimizer.state[named[name]].items()
            if isinstance(value, torch.Tensor) and value.shape == named[name].shape
        }
        for name in run.sparse.masks
    }


def assert_dead_is_zero(run: Run, *, state: bool = True) -> None:
    named = dict(run.model.named_parameters())
    states = per_weight_state(run)
    for name, mask in run.sparse.masks.items():
        assert not bool(named[name][~mask].any()), name
        if state:
            for key, value in states[name].items():
                assert not bool(value[~mask].any()), (name, key)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", ["selfish_rnn", "rigl", "gmp"])
def test_dead_weights_and_their_state_are_exactly_zero_after_every_step(name: str, optimizer: str) -> None:
    # Weight decay, momentum, stale moments and initial accumulators would each revive a dead weight.
    run = Run(quick(name), optimizer=optimizer, model=tiny())
    for _ in run.steps(16):
        assert_dead_is_zero(run)


@pytest.mark.parametrize("name", [name for name in methods.names() if name != KEEPS_BACKWARD_SET])
def test_no_method_leaves_anything_at_a_dead_position(name: str) -> None:
    run = Run(quick(name))
    for _ in run.steps(20):
        assert_dead_is_zero(run)


def test_an_optimizer_that_moves_zeros_cannot_revive_the_dead() -> None:
    class Drift(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            super().step(closure)
            with torch.no_grad():
                for group in self.param_groups:
                    for parameter in group["params"]:
                        parameter.add_(1.0)
                        self.state[parameter]["drift"] = torch.ones_like(parameter)

    model = tiny()
    optimizer = Drift(model.parameters(), 0.1)
    sparse = SparseTraining(
        model, optimizer, methods.static(), sparsity=0.5, total_steps=3, generator=seeded(0)
    )
    loss_of(model, 0).backward()
    sparse.step()
    for name, mask in sparse.masks.items():
        parameter = dict(model.named_parameters())[name]
        assert not bool(parameter[~mask].any())
        assert not bool(optimizer.state[parameter]["drift"][~mask].any())


@pytest.mark.parametrize("name", methods.names())
@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.83])
def test_counts_are_exact_at_the_end_for_every_method(name: str, sparsity: float) -> None:
    run = Run(quick(name), sparsity=sparsity).run(20)
    summary = run.sparse.summary()
    assert summary.live == num_live_at(sparsity_for(name, sparsity), summary.total)
    assert all(row.live > 0 for row in summary)


@settings(max_examples=40, deadline=None)
@given(
    allocation=st.sampled_from(["uniform", "er"]),
    death=st.sampled_from(sorted(DEATHS)),
    growth=st.sampled_from(sorted(GROWTHS)),
    redistribution=st.sampled_from(sorted(REDISTRIBUTIONS)),
    gates=st.sampled_from(["exchange", "separate"]),
    rate=st.floats(0, 1),
    sparsity=st.floats(0, 0.9),
    regrow_killed=st.booleans(),
)
def test_every_update_of_every_combination_conserves_the_network_and_the_tensors_where_it_should(
    sparsity: float, rate: float, redistribution: str, **parts: Any
) -> None:
    method = DynamicSparse(
        redistribution=redistribution, death_rate=rate, decay="constant", update_every=2, **parts
    )
    run = Run(method, sparsity=sparsity)
    start = run.sparse.summary()
    assert start.live == num_live_at(sparsity, start.total)
    for _ in run.steps(6):
        now = run.sparse.summary()
        assert now.live == start.live
        assert all(row.live > 0 for row in now)
        if redistribution == "none":
            assert [row.live for row in now] == [row.live for row in start]
            if parts["gates"] == "separate":
                assert [row.gates for row in now] == [row.gates for row in start]
        assert_dead_is_zero(run)
    assert len(run.sparse.history()) == 3


@pytest.mark.parametrize("growth", GROWTHS)
@pytest.mark.parametrize("optimizer", ["momentum", "adam", "rmsprop", "adagrad", "snt_asgd"])
def test_grown_weights_start_at_zero_with_fresh_state_and_not_where_one_was_just_killed(
    growth: str, optimizer: str
) -> None:
    if growth == "momentum" and optimizer == "adagrad":
        pytest.skip("Adagrad has no momentum")
    # Adagrad's accumulator, and SNT-ASGD's clock: averaging, triggered after 4 steps, has run for 2.
    fresh = {"sum": 0.1, "start": 2.0}
    run = Run(DynamicSparse(growth=growth, death_rate=0.4, update_every=3), optimizer=optimizer)
    run.run(5)
    before = run.sparse.masks
    run.run(1)
    grown = {name: mask & ~before[name] for name, mask in run.sparse.masks.items()}
    killed = {name: before[name] & ~mask for name, mask in run.sparse.masks.items()}
    assert sum(int(mask.sum()) for mask in grown.values()) == run.sparse.history()[-1].num_killed
    assert all(int(grown[name].sum()) == int(killed[name].sum()) for name in grown)
    named = dict(run.model.named_parameters())
    for name, state in per_weight_state(run).items():
        assert not bool(named[name][grown[name]].any())
        for key, value in state.items():
            assert bool((value[grown[name]] == fresh.get(key, 0.0)).all()), (name, key)
    run.run(1)
    moved = sum(int((named[name][mask] != 0).sum()) for name, mask in grown.items())
    assert moved > 0


def test_gradient_growth_sees_the_true_dense_gradient_before_masking_and_clipping() -> None:
    model = tiny(dtype=torch.float64)
    run = Run(methods.rigl(update_every=1, death_rate=0.3), model=model, clip=1e-3, optimizer="sgd")
    masks = run.sparse.masks
    twin = copy.deepcopy(model)
    loss_of(twin, 0).backward()
    run.run(1)
    for name, mask in run.sparse.masks.items():
        gradient = dict(twin.named_parameters())[name].grad
        assert gradient is not None
        dead, grown = ~masks[name], mask & ~masks[name]
        expected = set(torch.topk(gradient.abs()[dead], int(grown.sum())).values.tolist())
        assert set(gradient.abs()[grown].tolist()) == expected


def test_gradients_are_averaged_over_the_asked_batches_right_before_the_update_only() -> None:
    method = methods.rigl(update_every=5, gradient_batches=2, stop=None)
    run = Run(method, model=tiny(dtype=torch.float64), optimizer="sgd")
    sums: dict[str, torch.Tensor] = {}
    for step in range(4):
        assert not run.sparse._network.gradients
        if step == 3:
            twin = copy.deepcopy(run.model)
            loss_of(twin, 3).backward()
            sums = {name: p.grad.clone() for name, p in twin.named_parameters() if p.grad is not None}
        run.run(1)
    collected = run.sparse.state_dict()["network"]["gradients"]["whole"]
    assert collected.keys() == run.sparse.masks.keys()
    for name, values in collected.items():
        assert torch.equal(values, sums[name])
    run.run(1)
    assert not run.sparse._network.gradients


@settings(max_examples=30, deadline=None)
@given(
    death=st.sampled_from(sorted(DEATHS)),
    gates=st.sampled_from(["exchange", "separate"]),
    decay=st.sampled_from(["constant", "linear", "cosine"]),
    rate=st.floats(0, 1),
    final_rate=st.floats(0, 1),
    sparsity=st.floats(0.2, 0.9),
    coarse=st.booleans(),
)
def test_candidates_choose_what_the_whole_gradients_choose(
    rate: float, final_rate: float, sparsity: float, coarse: bool, **parts: Any
) -> None:
    if parts["decay"] != "constant":
        parts["final_death_rate"] = final_rate
    method = DynamicSparse(growth="gradient", death_rate=rate, update_every=2, **parts)
    thrifty, whole = Run(method, sparsity=sparsity, clip=None), Run(method, sparsity=sparsity, clip=None)
    whole.sparse._rule.most_grown = lambda clock: None
    for step in range(6):
        for run in (thrifty, whole):
            run.optimizer.zero_grad()
            loss_of(run.model, step).backward()
            if coarse:  # many ties, most of them at 0
                for parameter in run.model.parameters():
                    assert parameter.grad is not None
                    parameter.grad.mul_(20).round_()
            run.sparse.step()
        for name, mask in thrifty.sparse.masks.items():
            assert torch.equal(mask, whole.sparse.masks[name])


def test_of_a_single_batch_only_candidates_are_held_until_the_epoch_ends() -> None:
    def held(**settings: Any) -> tuple[int, int]:
        method = DynamicSparse(growth="gradient", death_rate=0.3, decay="constant", **settings)
        run = Run(method, steps_per_epoch=STEPS_PER_EPOCH)
        for step in range(STEPS_PER_EPOCH):
            assert not run.sparse._network.gradients
            run.optimizer.zero_grad()
            loss_of(run.model, step).backward()
            run.sparse.step()
        return run.sparse._network.gradients.num_bytes // 4, run.sparse.summary().total

    most_killed, total = held()
    # Sparsity 0.6: each of 6 tensors may lose and regrow 0.3 of its live weights, rounded.
    assert most_killed == pytest.approx(0.3 * 0.4 * total, abs=6)
    assert held(death="global_magnitude")[0] == pytest.approx(0.4 * total, abs=6)
    for needs_all in ({"redistribution": "magnitude"}, {"regrow_killed": True}):
        assert held(**needs_all)[0] == total


@pytest.mark.parametrize("steps_per_epoch", [None, STEPS_PER_EPOCH])
def test_gradient_growth_once_an_epoch_ranks_the_last_batch(steps_per_epoch: int | None) -> None:
    runs = [
        Run(DynamicSparse(growth="gradient"), steps_per_epoch=length).run(STEPS_PER_EPOCH)
        for length in (STEPS_PER_EPOCH, steps_per_epoch)
    ]
    first, second = (run.sparse.masks for run in runs)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_wrong_epoch_length_is_found_out_and_not_worked_around() -> None:
    run = Run(DynamicSparse(growth="gradient"), steps_per_epoch=STEPS_PER_EPOCH + 2)
    with pytest.raises(
        InputError, match=r"needs the gradients of the last steps.*pass the true steps_per_epoch"
    ):
        run.run(STEPS_PER_EPOCH)


def test_averaging_over_batches_needs_the_epochs_length() -> None:
    with pytest.raises(InputError, match=r"gradient_batches = 3.*pass steps_per_epoch"):
        Run(DynamicSparse(growth="gradient", gradient_batches=3))


@pytest.mark.parametrize("update_every", ["epoch", "3 epochs"])
def test_averaging_over_more_batches_than_the_epoch_before_an_update_has_is_refused(
    update_every: str,
) -> None:
    settings: dict[str, Any] = {"growth": "gradient", "update_every": update_every}
    with pytest.raises(InputError, match=r"must be at most those of the epoch .* 5, got 6; lower it"):
        Run(DynamicSparse(gradient_batches=6, **settings), steps_per_epoch=5)
    Run(DynamicSparse(gradient_batches=5, **settings), steps_per_epoch=5)


def test_a_gradient_that_is_not_finite_stops_growth_by_gradients() -> None:
    run = Run(methods.rigl(update_every=1), clip=None)
    loss_of(run.model, 0).backward()
    gradient = dict(run.model.named_parameters())["decoder.weight"].grad
    assert gradient is not None
    gradient[0, 0] = math.nan
    with pytest.raises(NumericsError, match=r"gradient of decoder.weight must be finite.*step 1"):
        run.sparse.step()


def give_up(run: Run, *, set_to_none: bool, factor: float = math.nan) -> None:
    """A batch that is masked and clipped, and then given up for its norm."""
    run.optimizer.zero_grad(set_to_none=set_to_none)
    (loss_of(run.model, 50) * factor).backward()
    run.sparse.mask_gradients()
    torch.nn.utils.clip_grad_norm_(run.model.parameters(), 0.25)
    run.optimizer.zero_grad(set_to_none=set_to_none)


@pytest.mark.parametrize("set_to_none", [True, False])
@pytest.mark.parametrize("mask_first", [True, False])
@pytest.mark.parametrize("factor", [math.nan, 1e3])
@pytest.mark.parametrize(
    "parts",
    [{"growth": "random"}, {"growth": "gradient"}, {"growth": "gradient", "redistribution": "nonzeros"}],
)
def test_a_batch_that_is_given_up_after_masking_leaves_no_trace(
    parts: dict[str, Any], factor: float, mask_first: bool, set_to_none: bool
) -> None:
    method = DynamicSparse(decay="constant", update_every=2, **parts)
    plain, run = (Run(method, optimizer="adam", clip=None) for _ in range(2))
    for step in range(4):
        give_up(run, set_to_none=set_to_none, factor=factor)
        for one in (plain, run):
            one.optimizer.zero_grad(set_to_none=one is plain or set_to_none)
            loss_of(one.model, step).backward()
            if mask_first:
                one.sparse.mask_gradients()
            one.sparse.step()
            assert_dead_is_zero(one)
    expected = plain.state()
    expected["sparse"]["clock"]["num_lost"] = 4  # counted, and that is all
    assert_same(run.state(), expected)


def two_epochs(
    lost: set[int], how: str, *, steps_per_epoch: int | None = 4, gradient_batches: int = 1
) -> tuple[list[int], list[int]]:
    """After which steps masks were updated, and by which batches, of two epochs of four with some lost."""
    method = methods.rigl(update_every="epoch", gradient_batches=gradient_batches)
    run = Run(method, clip=None, steps_per_epoch=steps_per_epoch)
    scaler = torch.amp.GradScaler("cpu", init_scale=1.0, enabled=how == "skipped")
    held: list[int] = []
    number, add = 0, run.sparse._network.gradients.add

    def take(decay: float, most: Any = None) -> str | None:
        held.append(number)
        return add(decay, most)

    run.sparse._network.gradients.add = take
    for number in range(8):
        run.optimizer.zero_grad()
        loss = loss_of(run.model, number)
        scaler.scale(loss * math.inf if number in lost else loss).backward()
        if how == "given up" and number in lost:
            run.sparse.mask_gradients()
            run.optimizer.zero_grad()
        else:
            run.sparse.step(scaler)
            scaler.update()
        if number in (3, 7):
            run.sparse.end_epoch()
    return [update.step for update in run.sparse.history()], [one for one in held if one not in lost]


@pytest.mark.parametrize("how", ["skipped", "given up"])
@pytest.mark.parametrize(
    ("lost", "updated_after", "ranked_by"),
    [
        (set(), [4, 8], [3, 7]),
        ({0}, [3, 7], [3, 7]),
        ({1, 2, 5}, [2, 5], [3, 7]),
        ({3}, [7], [7]),
        ({3, 7}, [], []),
    ],
)
def test_lost_batches_do_not_keep_an_update_from_the_last_one_which_is_left_out_if_that_was_lost(
    lost: set[int], updated_after: list[int], ranked_by: list[int], how: str
) -> None:
    assert two_epochs(lost, how) == (updated_after, ranked_by)


@pytest.mark.parametrize("how", ["skipped", "given up"])
@pytest.mark.parametrize(
    ("lost", "ranked_by"), [({0}, [2, 3, 6, 7]), ({2, 4}, [3, 6, 7]), ({2, 3}, [6, 7]), ({7}, [2, 3, 6])]
)
def test_gradients_are_averaged_over_the_epochs_last_batches_however_many_were_lost_before(
    lost: set[int], ranked_by: list[int], how: str
) -> None:
    assert two_epochs(lost, how, gradient_batches=2)[1] == ranked_by


@pytest.mark.parametrize("decay", ["linear", "cosine"])
def test_an_update_finds_enough_to_grow_though_the_batch_that_it_ranks_by_took_no_step(decay: str) -> None:
    # The death rate falls with every step: after two it is higher than after the third, which was due.
    method = DynamicSparse(growth="gradient", death_rate=0.9, decay=decay, update_every="epoch")
    run = Run(method, clip=None, steps_per_epoch=3, total_steps=6, sparsity=0.8).run(2)
    give_up(run, set_to_none=True, factor=1.0)
    before, rate = run.sparse.summary(), run.sparse.death_rate
    run.sparse.end_epoch()
    assert [row.live for row in run.sparse.summary()] == [row.live for row in before]
    expected = sum(rounded_share(rate, row.live) for row in before)
    assert run.sparse.history()[-1].num_killed == run.sparse.history()[-1].num_grown == expected


def test_in_an_epoch_of_unknown_length_the_newest_batch_that_was_not_lost_is_ranked_by() -> None:
    assert two_epochs({3}, "skipped", steps_per_epoch=None)[0] == [3, 7]
    assert two_epochs({0, 1, 2, 3}, "skipped", steps_per_epoch=None)[0] == [4]


def test_a_lost_batch_does_not_hide_a_wrong_epoch_length() -> None:
    with pytest.raises(InputError, match=r"got none at step 3; pass the true steps_per_epoch"):
        two_epochs({0}, "skipped", steps_per_epoch=6)


@pytest.mark.parametrize("again", [False, True])
def test_masking_the_same_gradients_twice_ranks_the_dense_ones(again: bool) -> None:
    run = Run(methods.rigl(update_every=1), clip=None)
    plain = Run(methods.rigl(update_every=1), clip=None).run(1)
    loss_of(run.model, 0).backward()
    run.sparse.mask_gradients()
    if again:
        run.sparse.mask_gradients()
    run.sparse.step()
    assert_same(run.sparse.masks, plain.sparse.masks)


def test_an_epoch_cannot_end_between_masking_and_the_step_but_after_giving_up() -> None:
    run = Run(methods.set_())
    loss_of(run.model, 0).backward()
    run.sparse.mask_gradients()
    with pytest.raises(InputError, match=r"end_epoch\(\) belongs between steps.*give the batch up with"):
        run.sparse.end_epoch()
    run.optimizer.zero_grad()
    run.sparse.end_epoch()
    assert run.sparse.num_updates == 1


def test_clipping_sees_live_weights_only() -> None:
    run = Run(methods.static(), sparsity=0.8)
    loss_of(run.model, 0).backward()
    named = dict(run.model.named_parameters())
    expected = {name: named[name].grad.clone() * mask for name, mask in run.sparse.masks.items()}  # pyright: ignore[reportOptionalMemberAccess]
    run.sparse.mask_gradients()
    for name, gradient in expected.items():
        assert torch.equal(named[name].grad, gradient)  # pyright: ignore[reportArgumentType]


def test_masking_gradients_beforehand_changes_nothing_but_clipping() -> None:
    with_masking, without = (
        Run(methods.rigl(update_every=2), clip=1e9),
        Run(methods.rigl(update_every=2), clip=None),
    )
    with_masking.run(6)
    without.run(6)
    for one, other in zip(with_masking.model.parameters(), without.model.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", methods.names())
def test_everything_happens_in_place(name: str) -> None:
    run = Run(quick(name))
    addresses = [parameter.data_ptr() for parameter in run.model.parameters()]
    identities = [id(parameter) for parameter in run.model.parameters()]
    run.run(20)
    run.sparse.finalize()
    assert [parameter.data_ptr() for parameter in run.model.parameters()] == addresses
    assert [id(parameter) for parameter in run.model.parameters()] == identities


def test_random_numbers_come_from_the_generator_alone() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    run = Run(methods.deep_r(temperature=1e-4)).run(3)
    other = Run(methods.selfish_rnn()).run(10)
    assert torch.equal(torch.get_rng_state(), before)
    again = Run(methods.selfish_rnn()).run(10)
    assert all(torch.equal(mask, again.sparse.masks[name]) for name, mask in other.sparse.masks.items())
    assert run.sparse.num_steps == 3


def test_dense_is_ordinary_training() -> None:
    run = Run(methods.dense(), clip=None).run(10)
    model = tiny()
    optimizer = OPTIMIZERS["momentum"](model.parameters())
    for step in range(10):
        optimizer.zero_grad()
        loss_of(model, step).backward()
        optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(run.model.parameters(), model.parameters(), strict=True))
    assert run.sparse.summary().density == 1.0


def test_rescaling_keeps_the_variance_of_the_live_fan_in() -> None:
    plain, scaled = Run(methods.static()), Run(methods.static(), rescale_weights=True)
    for row in plain.sparse.summary():
        one, other = (dict(run.model.named_parameters())[row.name] for run in (plain, scaled))
        # One product and one square root in float32.
        assert torch.allclose(other, one / math.sqrt(row.density), rtol=1e-6)


def test_tied_weights_have_one_mask_and_are_counted_once() -> None:
    model = tiny(tied=True)
    run = Run(methods.selfish_rnn(), model=model).run(5)
    summary = run.sparse.summary()
    assert [row.name for row in summary].count("encoder.weight") == 1
    assert "decoder.weight" not in run.sparse.masks
    assert summary.total == sum(p.numel() for p in model.parameters() if p.ndim == 2)
    assert torch.equal(
        model.decoder.weight != 0, run.sparse.masks["encoder.weight"] & (model.encoder.weight != 0)
    )


def test_given_masks_are_kept_and_say_which_tensors_are_pruned() -> None:
    masks = {"rnn.weight_hh_l0": torch.rand(24, 6, generator=seeded(3)) < 0.3}
    model = tiny()
    sparse = SparseTraining(
        model,
        OPTIMIZERS["sgd"](model.parameters()),
        methods.static(),
        masks=masks,
        total_steps=5,
        generator=seeded(0),
    )
    assert list(sparse.masks) == ["rnn.weight_hh_l0"]
    assert torch.equal(sparse.masks["rnn.weight_hh_l0"], masks["rnn.weight_hh_l0"])
    assert sparse.sparsity == pytest.approx(1 - masks["rnn.weight_hh_l0"].double().mean().item())


def with_masks(masks: dict[str, torch.Tensor], **options: Any) -> SparseTraining:
    model = tiny()
    method = options.pop("method", methods.static())
    return SparseTraining(
        model,
        OPTIMIZERS["sgd"](model.parameters()),
        method,
        masks=masks,
        total_steps=5,
        generator=seeded(0),
        **options,
    )


@pytest.mark.parametrize(
    ("masks", "options", "message"),
    [
        ({"encoder.weight": torch.ones(11, 5, dtype=torch.bool)}, {}, r"encoder.weight needs bool \(11, 6\)"),
        ({"encoder.weight": torch.ones(11, 6)}, {}, "encoder.weight needs bool.*got torch.float32"),
        ({"encoder.weight": torch.zeros(11, 6, dtype=torch.bool)}, {}, "encoder.weight keeps no live weight"),
        (
            {"encoder.weight": torch.ones(11, 6, dtype=torch.bool)},
            {"parameters": ["encoder.weight", "decoder.weight"]},
            "decoder.weight has no mask",
        ),
        (
            {"encoder.weight": torch.ones(11, 6, dtype=torch.bool)},
            {"sparsity": 0.5},
            "sparsity must agree with the masks",
        ),
        (
            {"encoder.weight": torch.ones(11, 6, dtype=torch.bool)},
            {"method": methods.gmp()},
            "method gmp chooses its own masks",
        ),
        (
            {"encoder.weight": torch.ones(11, 6, dtype=torch.bool)},
            {"method": methods.static(keep_dense="encoder.weight")},
            "masks decide how dense each tensor is, so allocation, densities and keep_dense do not apply",
        ),
    ],
)
def test_masks_that_do_not_fit_are_refused(
    masks: dict[str, torch.Tensor], options: Any, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        with_masks(masks, **options)


def test_masks_that_no_allocation_would_give_are_at_their_sparsity() -> None:
    model = nn.Sequential(nn.Linear(2, 1), nn.Linear(100, 100))
    # At this sparsity the allocation would leave the first tensor nothing, which is an error.
    masks = {"0.weight": torch.tensor([[True, False]]), "1.weight": torch.eye(100).bool()}
    sparse = SparseTraining(
        model,
        OPTIMIZERS["sgd"](model.parameters()),
        methods.static(),
        masks=masks,
        total_steps=5,
        generator=seeded(0),
    )
    assert sparse.at_sparsity


@pytest.mark.parametrize("growth", ["random", "gradient"])
def test_a_gate_without_a_weight_in_the_masks_stays_empty(growth: str) -> None:
    masks = {"rnn.weight_hh_l0": torch.rand(24, 6, generator=seeded(3)) < 0.5}
    masks["rnn.weight_hh_l0"][6:12] = False
    model = tiny()
    method = DynamicSparse(growth=growth, gates="separate", update_every=1)
    sparse = SparseTraining(
        model, OPTIMIZERS["sgd"](model.parameters()), method, masks=masks, total_steps=9, generator=seeded(0)
    )
    gates = sparse.summary()["rnn.weight_hh_l0"].gates
    for step in range(3):
        model.zero_grad()
        loss_of(model, step).backward()
        sparse.step()
    assert sparse.summary()["rnn.weight_hh_l0"].gates == gates
    assert sparse.history()[-1].num_killed > 0


@pytest.mark.parametrize("name", ["set_", "gmp", "top_kast", "iterative_magnitude"])
def test_a_sparsity_that_empties_a_tensor_is_refused_at_the_start(name: str) -> None:
    model = nn.Sequential(nn.Linear(2, 1), nn.Linear(100, 100))
    with pytest.raises(InputError, match=r"every tensor must keep a live weight, but 0.weight"):
        SparseTraining(
            model,
            OPTIMIZERS["momentum"](model.parameters()),
            methods.get(name, allocation="uniform"),
            sparsity=0.9,
            total_steps=5,
            generator=seeded(0),
        )


def test_a_sparsity_out_of_range_is_refused() -> None:
    with pytest.raises(
        InputError, match=r"sparsity must lie in \[0, 1\), got 1.2; 0.67 keeps a third of the weights"
    ):
        Run(methods.static(), sparsity=1.2)


def test_dense_with_a_sparsity_is_refused() -> None:
    model = tiny()
    with pytest.raises(InputError, match=r"method dense removes nothing, so sparsity must be 0, got 0.5"):
        SparseTraining(
            model,
            OPTIMIZERS["sgd"](model.parameters()),
            methods.dense(),
            sparsity=0.5,
            total_steps=1,
            generator=seeded(0),
        )


@pytest.mark.parametrize("part", ["growth", "redistribution"])
@pytest.mark.parametrize("optimizer", ["sgd", "adagrad"])
def test_momentum_without_momentum_is_refused_with_what_to_use(part: str, optimizer: str) -> None:
    with pytest.raises(
        InputError, match=rf'{part}="momentum" needs an optimizer with momentum.*use SGD\(momentum'
    ):
        Run(methods.get("dynamic_sparse", **{part: "momentum"}), optimizer=optimizer)


def test_a_tensor_that_no_optimizer_trains_is_refused_by_name() -> None:
    model = tiny()
    optimizer = torch.optim.SGD(model.rnn.parameters(), 0.1)
    with pytest.raises(InputError, match=r"encoder.weight is in none of its parameter groups"):
        SparseTraining(model, optimizer, methods.static(), sparsity=0.5, total_steps=1, generator=seeded(0))


def test_a_tensor_in_two_optimizers_is_refused() -> None:
    model = tiny()
    optimizers = [torch.optim.SGD(part.parameters(), 0.1) for part in (model, model.rnn)]
    with pytest.raises(InputError, match=r"trained by one optimizer, but rnn.weight_ih_l0 is in those of 2"):
        SparseTraining(model, optimizers, methods.static(), sparsity=0.5, total_steps=1, generator=seeded(0))


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        (torch.optim.SGD, "optimizer must be an optimizer or a list of them, got <class"),
        ([None], r"optimizer must be an optimizer or a list of them, got \[None\]"),
        (torch.optim.LBFGS(nn.Linear(2, 2).parameters()), "must step without a closure, got LBFGS"),
    ],
)
def test_what_cannot_be_stepped_is_refused(optimizer: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        as_optimizers(optimizer)


@pytest.mark.parametrize(
    "method", [DynamicSparse(death="global_magnitude"), methods.iterative_magnitude(scope="network")]
)
def test_float64_is_not_ranked_together_with_float32(method: Any) -> None:
    model = tiny()
    model.decoder.double()
    with pytest.raises(InputError, match=r"must all be float64 or none, got decoder.weight of float64"):
        Run(method, model=model)


def test_a_summary_names_the_tensors_that_it_has() -> None:
    with pytest.raises(InputError, match=r"unknown pruned tensor 'decoder'; did you mean 'decoder.weight'"):
        Run(methods.static()).sparse.summary()["decoder"]


def test_the_death_rate_never_rises_again_when_training_goes_on_past_its_plan() -> None:
    run = Run(methods.selfish_rnn(update_every=2), total_steps=10)
    rates = [run.sparse.death_rate for _ in run.steps(25)]
    assert all(late <= early for early, late in itertools.pairwise(rates))
    assert set(rates[9:]) == {0.0}


@pytest.mark.parametrize(
    ("settings", "updated_after"),
    [
        ({"update_every": 3, "first_step": 6, "last_step": 13}, [6, 9, 12]),
        ({"update_every": 4, "stop": 0.5}, [4, 8]),  # 12 of 24 steps is the first one beyond
        ({"update_every": "2 epochs", "first_step": 15}, [20]),
        ({"update_every": "epoch", "stop": 0.75}, [5, 10, 15]),
    ],
)
@pytest.mark.parametrize("growth", ["random", "gradient"])
def test_updates_happen_when_the_settings_say(
    settings: dict[str, Any], updated_after: list[int], growth: str
) -> None:
    run = Run(DynamicSparse(growth=growth, **settings), steps_per_epoch=STEPS_PER_EPOCH, total_steps=24)
    for _ in run.steps(24):
        step = run.sparse.num_steps
        if step not in updated_after and step + 1 not in updated_after and growth == "gradient":
            assert not run.sparse._network.gradients  # nothing is taken that no update will use
    assert [update.step for update in run.sparse.history()] == updated_after


def test_history_of_many_updates_is_summed_up_without_losing_any() -> None:
    run = Run(methods.deep_r(l1=0.1), total_steps=4000, optimizer="sgd").run(18)
    history = run.sparse.history()
    assert [update.step for update in history] == [
        1,
        5,
        9,
        13,
        17,
    ]  # a thousand records at most: every fourth
    assert run.sparse.num_updates == 18
    before_last = Run(methods.deep_r(l1=0.1), total_steps=4000, optimizer="sgd").run(17).sparse.turnover
    assert sum(update.turnover for update in history) == pytest.approx(before_last)
    every_step = Run(methods.deep_r(l1=0.1), total_steps=20, optimizer="sgd").run(17).sparse.history()
    assert sum(update.num_killed for update in history) == sum(update.num_killed for update in every_step) > 0


def test_with_given_masks_nothing_else_has_ever_been_live() -> None:
    model = nn.Linear(10, 10, bias=False)
    live = torch.arange(100).view(10, 10) < 30
    sparse = SparseTraining(
        model,
        torch.optim.SGD(model.parameters(), lr=0.1),
        methods.static(),
        total_steps=1,
        generator=torch.Generator(),
        masks={"weight": live},
    )
    assert sparse.explored == 0.3


def test_history_tells_density_turnover_and_what_was_ever_live() -> None:
    run = Run(methods.set_(death_rate=0.4))
    ever = run.sparse.masks
    for _ in run.steps(20):
        ever = {name: mask | run.sparse.masks[name] for name, mask in ever.items()}
    history, summary = run.sparse.history(), run.sparse.summary()
    assert [update.step for update in history] == [5, 10, 15]  # the 20th is the last step planned
    assert [update.epoch for update in history] == [1, 2, 3]
    last = history[-1]
    assert last.explored == sum(int(mask.sum()) for mask in ever.values()) / summary.total
    assert last.density == {row.name: row.density for row in summary}
    assert last.gate_density["rnn.weight_hh_l1"] == summary["rnn.weight_hh_l1"].gate_densities
    assert last.num_killed == last.num_grown > 0
    assert last.turnover == pytest.approx(last.num_grown / summary.live)


def test_the_summary_is_a_table_of_live_weights_and_densities() -> None:
    run = Run(methods.static(), sparsity=0.5)
    lines = str(run.sparse.summary()).splitlines()
    assert lines[0].split() == ["tensor", "shape", "live", "total", "density", "by", "gate"]
    assert lines[1].split() == ["encoder.weight", "11x6", "33", "66", "0.5000"]
    assert lines[-1].split()[:1] == ["all"]
    assert len({len(line.rstrip()) for line in lines[2:6]}) == 1


@pytest.mark.parametrize("growth", ["random", "gradient"])
@pytest.mark.parametrize("update_every", [5, "epoch"])
def test_no_update_follows_the_last_planned_step_whose_new_weights_nothing_would_train(
    growth: str, update_every: Any
) -> None:
    method = DynamicSparse(decay="constant", update_every=update_every, growth=growth)
    run = Run(method, steps_per_epoch=STEPS_PER_EPOCH, total_steps=20).run(20)
    assert [update.step for update in run.sparse.history()] == [5, 10, 15]
    assert not run.sparse._network.gradients
    assert run.sparse.finalize() is run.model
    for name, mask in zip(run.sparse.masks, run.sparse.masks.values(), strict=True):
        assert int((dict(run.model.named_parameters())[name][mask] != 0).sum()) > 0.99 * int(mask.sum())
    longer = Run(method, steps_per_epoch=STEPS_PER_EPOCH, total_steps=20).run(25)
    assert [update.step for update in longer.sparse.history()] == [5, 10, 15, 25]


@pytest.mark.parametrize("how", ["skipped", "given up"])
@pytest.mark.parametrize("growth", ["random", "gradient"])
@pytest.mark.parametrize(
    ("update_every", "updated_after"), [(3, [3, 6, 9, 12, 15]), (9, [9]), ("epoch", [4, 9, 13])]
)
def test_nothing_grows_with_the_last_planned_batch_though_others_took_no_step(
    update_every: Any, updated_after: list[int], growth: str, how: str
) -> None:
    method = DynamicSparse(decay="constant", update_every=update_every, growth=growth)
    run = Run(method, steps_per_epoch=STEPS_PER_EPOCH, total_steps=20, clip=None)
    train_with_lost(run, {0, 12}, how)  # the 18th step comes with the last batch
    assert run.sparse.num_steps == 18
    assert [update.step for update in run.sparse.history()] == updated_after
    assert not run.sparse._network.gradients


def test_finalize_leaves_a_plain_sparse_module_and_ends_training() -> None:
    run = Run(methods.selfish_rnn()).run(10)
    masks = run.sparse.masks
    model = run.sparse.finalize()
    assert model is run.model
    for name, mask in masks.items():
        assert not bool(dict(model.named_parameters())[name][~mask].any())
    assert not model._forward_pre_hooks
    with pytest.raises(InputError, match="finalize\\(\\) has ended"):
        run.sparse.step()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"total_steps": 0}, "total_steps must be a whole number of at least 1, got 0"),
        ({"steps_per_epoch": 0}, "steps_per_epoch must be a whole number"),
    ],
)
def test_lengths_that_mean_nothing_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Run(methods.static(), **options)


def test_sparsity_must_be_given_without_masks() -> None:
    model = tiny()
    with pytest.raises(InputError, match="sparsity must be given unless masks are"):
        SparseTraining(
            model, OPTIMIZERS["sgd"](model.parameters()), methods.static(), total_steps=1, generator=seeded(0)
        )
