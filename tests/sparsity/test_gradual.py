"""Methods that prune a dense network follow their schedule exactly and end where they promise."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from hyperprune.errors import InputError
from hyperprune.optim import SNTASGD
from hyperprune.sparsity import methods
from hyperprune.sparsity.counts import num_live_at
from hyperprune.sparsity.schedules import cubic_sparsity, geometric_rounds
from hyperprune.sparsity.training import SparseTraining
from sparsity.tiny_runs import STEPS_PER_EPOCH, Run, tiny, train_with_lost

TOTAL = 20


def lives(run: Run, steps: int = TOTAL) -> list[int]:
    return [run.sparse.summary().live for _ in run.steps(steps)]


def test_gmp_follows_the_cubic_schedule_at_every_pruning() -> None:
    run = Run(methods.gmp(update_every=1), sparsity=0.8)
    total = run.sparse.summary().total
    expected = [
        num_live_at(cubic_sparsity(0.8, step / (0.75 * TOTAL)), total) for step in range(1, TOTAL + 1)
    ]
    assert run.sparse.summary().live == total
    assert lives(run) == expected


def test_gmp_prunes_the_smallest_of_each_tensor_and_never_revives() -> None:
    run = Run(methods.gmp(update_every=5, begin=0.25), sparsity=0.8, optimizer="sgd")
    before = run.sparse.masks
    for step in run.steps(TOTAL):
        after = run.sparse.masks
        assert all(not bool((after[name] & ~before[name]).any()) for name in after)
        if step == 5:
            assert all(mask.all() for mask in after.values())  # the first pruning lies beyond `begin`
        before = after


@pytest.mark.parametrize(
    "method",
    [
        methods.gmp(update_every=7),
        methods.gmp(update_every="epoch"),
        methods.gmp(update_every="2 epochs"),
        methods.narang(update_every=4),
        methods.iterative_magnitude(),
        methods.iterative_magnitude(scope="network", num_rounds=3),
        methods.lottery_ticket(num_rounds=2),
        methods.iterative_magnitude(update_every="epoch"),
    ],
)
@pytest.mark.parametrize("sparsity", [0.67, 0.9])
def test_the_final_density_is_reached_by_three_quarters_of_the_steps_and_stays(
    method: Any, sparsity: float
) -> None:
    run = Run(method, sparsity=sparsity, model=tiny(hidden=8))
    total = run.sparse.summary().total
    seen = lives(run, 24)
    assert seen == sorted(seen, reverse=True)
    assert set(seen[14:]) == {num_live_at(sparsity, total)}


@pytest.mark.parametrize("update_every", [7, 10, "epoch", "3 epochs"])
@pytest.mark.parametrize("name", ["gmp", "narang", "iterative_magnitude"])
def test_a_phase_that_ends_with_training_prunes_to_the_target_at_the_last_planned_step(
    name: str, update_every: Any
) -> None:
    run = Run(methods.get(name, update_every=update_every, end=1.0)).run(TOTAL - 1)
    assert not run.sparse.at_sparsity
    assert run.run(1).sparse.at_sparsity


@pytest.mark.parametrize("how", ["skipped", "given up"])
@pytest.mark.parametrize("lost", [{0}, {TOTAL - 1}, {3, 11, TOTAL - 1}])
@pytest.mark.parametrize("update_every", [1, 7, "epoch", "3 epochs"])
@pytest.mark.parametrize("name", ["gmp", "narang", "iterative_magnitude", "lottery_ticket"])
def test_a_phase_that_ends_with_training_prunes_to_the_target_though_batches_took_no_step(
    name: str, update_every: Any, lost: set[int], how: str
) -> None:
    run = Run(methods.get(name, update_every=update_every, end=1.0), optimizer="sgd", clip=None)
    train_with_lost(run, lost, how, num_batches=TOTAL - STEPS_PER_EPOCH)
    assert not run.sparse.at_sparsity
    rest = {number - TOTAL + STEPS_PER_EPOCH for number in lost}
    assert train_with_lost(run, rest, how, num_batches=STEPS_PER_EPOCH).sparse.at_sparsity
    assert run.sparse.num_steps == TOTAL - len(lost)


def test_a_phase_that_ends_early_is_not_shortened_by_batches_that_took_no_step() -> None:
    plain = lives(Run(methods.gmp(update_every=1), optimizer="sgd", clip=None), 18)
    run = train_with_lost(Run(methods.gmp(update_every=1), optimizer="sgd", clip=None), {1, 8}, "skipped")
    history = {update.step: update for update in run.sparse.history()}
    assert max(history) == 15
    assert run.sparse.summary().live == plain[-1]


def test_gradual_pruning_spreads_by_its_allocation_and_gates() -> None:
    run = Run(methods.gmp(update_every=3, allocation="er", gates="separate", keep_dense="encoder*")).run(
        TOTAL
    )
    summary = run.sparse.summary()
    assert summary.live == num_live_at(0.6, summary.total)
    assert summary["encoder.weight"].density == 1.0
    assert all(max(row.gates) - min(row.gates) <= 1 for row in summary if row.gates)


def test_narangs_threshold_prunes_slowly_first_and_meets_the_target_exactly() -> None:
    run = Run(methods.narang(update_every=1, ramp=0.5), sparsity=0.8)
    total = run.sparse.summary().total
    seen = [total, *lives(run)]
    assert total > seen[4] > seen[8] > seen[12] > seen[15] == num_live_at(0.8, total)
    assert seen[7] > (total + seen[15]) / 2


def test_iterative_pruning_has_equally_long_rounds_that_each_keep_the_same_share() -> None:
    run = Run(methods.iterative_magnitude(num_rounds=3), sparsity=0.875)
    total = run.sparse.summary().total
    by_round = [num_live_at(1 - density, total) for density in geometric_rounds(0.125, 3)]
    assert lives(run)[:15] == [total] * 4 + [by_round[0]] * 5 + [by_round[1]] * 5 + [by_round[2]]


def test_a_list_of_densities_is_followed_down_to_the_final_one() -> None:
    run = Run(
        methods.iterative_magnitude(densities_by_round=(0.8, 0.6, 0.4, 0.2)), sparsity=0.5, total_steps=20
    )
    total = run.sparse.summary().total
    assert sorted(set(lives(run)), reverse=True) == [
        total,
        *(num_live_at(1 - d, total) for d in (0.8, 0.6, 0.5)),
    ]


def test_ranking_the_network_as_one_prunes_by_one_threshold() -> None:
    run = Run(
        methods.iterative_magnitude(scope="network", num_rounds=1, end=0.05), sparsity=0.6, optimizer="sgd"
    )
    model = tiny()
    run.optimizer.param_groups[0]["lr"] = 0.0
    run.run(1)
    kept = torch.cat(
        [dict(model.named_parameters())[name][mask].abs() for name, mask in run.sparse.masks.items()]
    )
    gone = torch.cat(
        [dict(model.named_parameters())[name][~mask].abs() for name, mask in run.sparse.masks.items()]
    )
    assert gone.max() <= kept.min()


@pytest.mark.parametrize("rewind_step", [0, 3])
def test_a_lottery_ticket_goes_back_to_the_weights_and_optimizer_state_of_its_step(rewind_step: int) -> None:
    run = Run(methods.lottery_ticket(num_rounds=2, rewind_step=rewind_step), optimizer="adam", clip=None)
    early = {}
    for step in itertools.chain([0], run.steps(7)):
        if step == rewind_step:
            early = {name: parameter.detach().clone() for name, parameter in run.model.named_parameters()}
    run.step()  # the eighth of 15 ends the first round
    assert run.sparse.summary().density < 1
    for name, parameter in run.model.named_parameters():
        mask = run.sparse.masks.get(name, torch.ones_like(parameter, dtype=torch.bool))
        assert torch.equal(parameter, early[name] * mask)
        state = run.optimizer.state.get(parameter, {})
        assert (int(state["step"]) if state else 0) == rewind_step


def test_a_rewind_goes_back_to_before_the_averaging_too() -> None:
    model = torch.nn.Linear(8, 8)
    optimizer = SNTASGD(model.parameters(), 0.1)
    method = methods.lottery_ticket(num_rounds=1, rewind_step=0, update_every=1)
    sparse = SparseTraining(
        model, optimizer, method, sparsity=0.5, total_steps=8, generator=torch.Generator()
    )
    optimizer.trigger()
    while sparse.num_rewinds == 0:
        assert optimizer.triggered
        model(torch.randn(3, 8)).sum().backward()
        sparse.step()
    assert not optimizer.triggered
    model(torch.randn(3, 8)).sum().backward()
    sparse.step()
    assert "average" not in optimizer.state[model.weight]


def test_rewinding_to_a_step_after_the_first_pruning_is_refused() -> None:
    with pytest.raises(InputError, match="rewind_step must come before the first pruning, got 9"):
        Run(methods.lottery_ticket(num_rounds=2, rewind_step=9))
    by_epoch = Run(methods.lottery_ticket(num_rounds=2, rewind_step=12, update_every="epoch"))
    with pytest.raises(InputError, match=r"got 12 and a pruning at step 10; lower rewind_step"):
        by_epoch.run(10)


@pytest.mark.parametrize(
    ("settings", "first"),
    [
        ({}, 10),  # of 15 steps in two rounds the first ends at 7.5, within the second epoch
        ({"update_every": "3 epochs"}, 15),
        ({"update_every": "3 epochs", "end": 0.5}, 10),  # the end prunes whatever the cadence
    ],
)
def test_rewinding_to_a_step_after_the_epochs_end_that_prunes_first_is_refused_at_once(
    settings: dict[str, Any], first: int
) -> None:
    def run(rewind_step: int) -> Run:
        method = methods.lottery_ticket(
            **{"num_rounds": 2, "update_every": "epoch", **settings}, rewind_step=rewind_step
        )
        return Run(method, steps_per_epoch=STEPS_PER_EPOCH)

    with pytest.raises(
        InputError, match=rf"got {first + 1} and a pruning by step {first}; lower rewind_step"
    ):
        run(first + 1)
    assert run(first).run(first).sparse.summary().density < 1


def test_rewinding_to_a_step_after_the_pruning_that_the_end_forces_is_refused() -> None:
    # The cadence alone would prune at step 20 only; the end, at step 12 of 20, prunes whatever the cadence.
    late = methods.lottery_ticket(update_every=100, num_rounds=1, end=0.6, rewind_step=15)
    with pytest.raises(InputError, match="rewind_step must come before the first pruning, got 15 and a"):
        Run(late)
    Run(methods.lottery_ticket(update_every=100, num_rounds=1, end=0.6, rewind_step=12)).run(13)


def test_no_tensor_loses_all_its_weights_on_the_way_if_it_keeps_one_in_the_end() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(32, 96, bias=False), torch.nn.Linear(96, 1, bias=False))
    method = methods.gmp(update_every=1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    settings = {"sparsity": 0.98, "total_steps": 400, "generator": torch.Generator()}
    sparse = SparseTraining(model, optimizer, method, **settings)
    for _ in range(400):
        sparse.step()
        assert all(bool(mask.any()) for mask in sparse.masks.values())
    assert sparse.at_sparsity


@pytest.mark.parametrize("rewind_step", [8, 10])
def test_rewinding_to_the_step_of_the_first_pruning_is_allowed(rewind_step: int) -> None:
    every = 1 if rewind_step == 8 else 5  # the round ends with the eighth step, prunings may come later
    run = Run(methods.lottery_ticket(num_rounds=2, rewind_step=rewind_step, update_every=every)).run(10)
    assert run.sparse.summary().density < 1


@pytest.mark.parametrize("name", ["gmp", "narang", "iterative_magnitude"])
def test_densities_at_sparsity_zero_are_refused_and_not_ignored(name: str) -> None:
    with pytest.raises(InputError, match="at sparsity 0 removes nothing, so densities below 1 do not apply"):
        Run(methods.get(name, densities={"encoder*": 0.5}, budget="free"), sparsity=0.0)


def test_a_gradual_method_with_densities_for_every_tensor_goes_its_way_to_the_end() -> None:
    run = Run(methods.gmp(update_every=1, densities={"*": 0.1}), sparsity=0.9, model=tiny(hidden=10)).run(
        TOTAL
    )
    summary = run.sparse.summary()
    assert summary.live == num_live_at(0.9, summary.total)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("gmp", {"begin": 0.8}, "begin must lie below end, got 0.8 and 0.75"),
        ("gmp", {"end": 0}, r"end must lie in \(0, 1\], got 0"),
        ("narang", {"steepening": 0.5}, r"steepening must lie in \[1, inf\)"),
        ("iterative_magnitude", {"num_rounds": 0}, "num_rounds must be a whole number of at least 1"),
        ("iterative_magnitude", {"densities_by_round": (0.2, 0.5)}, "densities_by_round must fall"),
        ("iterative_magnitude", {"densities_by_round": (0.5,), "num_rounds": 3}, "got both; remove one"),
        ("iterative_magnitude", {"scope": "net"}, "unknown scope 'net'"),
        ("iterative_magnitude", {"scope": "network", "allocation": "er"}, "do not apply; remove them"),
        ("iterative_magnitude", {"scope": "network", "gates": "separate"}, "ranks all gates together"),
        ("iterative_magnitude", {"densities_by_round": 0.5}, "densities_by_round must be a list, got 0.5"),
        ("lottery_ticket", {"rewind_step": -1}, "rewind_step must be a whole number"),
    ],
)
def test_settings_that_make_no_sense_are_refused(name: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        methods.get(name, **settings)


def test_epoch_updates_end_with_the_epoch() -> None:
    run = Run(methods.gmp(update_every="epoch"))
    assert [live for live in lives(run) if live < run.sparse.summary().total]
    assert {update.step % STEPS_PER_EPOCH for update in run.sparse.history()} == {0}
