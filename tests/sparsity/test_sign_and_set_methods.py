"""Deep-R keeps signs; Top-KAST uses the largest weights, trains some more, forgets none."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from hyperprune.errors import InputError
from hyperprune.sparsity import SparseTraining, methods
from hyperprune.sparsity.counts import num_live_at, rounded_share
from hyperprune.sparsity.masks import BACKWARD, NEGATIVE
from sparsity.tiny_runs import OPTIMIZERS, Run, assert_same, loss_of, seeded, tiny


def one_row(
    values: list[float], method: Any, sparsity: float = 0.5, lr: float = 1.0
) -> tuple[nn.Linear, Any]:
    with torch.random.fork_rng():
        model = nn.Linear(len(values), 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([values]))
    optimizer = torch.optim.SGD(model.parameters(), lr)
    sparse = SparseTraining(model, optimizer, method, sparsity=sparsity, total_steps=10, generator=seeded(0))
    return model, sparse


def test_a_weight_that_would_change_its_sign_dies_and_another_starts_at_zero() -> None:
    model, sparse = one_row([1.0, -1.0, 1.0, -1.0], methods.deep_r(l1=0.0), sparsity=0.5)
    before = sparse.masks["weight"].clone()
    crossing = int(before.flatten().nonzero()[0])
    gradient = torch.zeros(1, 4)
    gradient[0, crossing] = 3.0 * torch.sign(model.weight.detach()[0, crossing])
    model.weight.grad = gradient
    sparse.step()
    after = sparse.masks["weight"]
    assert not bool(after[0, crossing])
    assert int(after.sum()) == 2
    new = after & ~before
    assert int(new.sum()) == 1
    assert float(model.weight[new].detach()) == 0.0


def test_a_weight_that_keeps_its_sign_lives_on_and_zero_is_no_change_of_sign() -> None:
    model, sparse = one_row([1.0, -1.0, 2.0, -2.0], methods.deep_r(l1=0.0), sparsity=0.0)
    model.weight.grad = torch.tensor([[1.0, -1.0, 1.0, -1.0]])
    sparse.step()
    assert bool(sparse.masks["weight"].all())
    assert model.weight.tolist() == [[0.0, 0.0, 1.0, -1.0]]


def test_l1_pulls_towards_zero_by_the_learning_rate_and_by_the_kept_sign() -> None:
    model, sparse = one_row([1.0, -1.0], methods.deep_r(l1=0.25), sparsity=0.0, lr=0.5)
    model.weight.grad = torch.zeros(1, 2)
    sparse.step()
    assert model.weight.tolist() == [[0.875, -0.875]]


def signs(run: Run) -> dict[str, torch.Tensor]:
    """True where a weight is negative whenever it is live."""
    return {tensor.name: tensor.status.bitwise_and(NEGATIVE) != 0 for tensor in run.sparse._network.tensors}


def test_every_connection_keeps_its_sign_live_or_dead_and_counts_stay_per_tensor() -> None:
    method = methods.deep_r(l1=0.05, temperature=1e-3)
    run = Run(method, model=tiny(hidden=12), optimizer="sgd", total_steps=25)
    start, first = [row.live for row in run.sparse.summary()], signs(run)
    for _ in run.steps(20):
        assert [row.live for row in run.sparse.summary()] == start
        assert_same(signs(run), first)
    assert run.sparse.turnover > 0.5
    named = dict(run.model.named_parameters())
    for tensor in run.sparse._network.tensors:
        weight, flag = named[tensor.name].detach(), tensor.status.bitwise_and(NEGATIVE) != 0
        assert not bool((weight[flag] > 0).any())
        assert not bool((weight[~flag] < 0).any())


@pytest.mark.parametrize("method", [methods.deep_r(l1=0.05), methods.top_kast(update_every=2, backward=0.3)])
def test_the_last_planned_step_changes_no_mask(method: Any) -> None:
    run = Run(method, optimizer="sgd", total_steps=12).run(11)
    masks = run.sparse.masks
    run.run(1)
    assert_same(run.sparse.masks, masks)
    assert run.sparse.summary().live == num_live_at(0.6, run.sparse.summary().total)
    before = run.sparse.num_updates
    run.run(2)
    assert run.sparse.num_updates > before  # training beyond the plan goes on as before it


def test_signs_begin_as_those_of_live_weights_and_are_drawn_evenly_for_dead_ones() -> None:
    model = tiny(hidden=12)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.abs_()
    run = Run(methods.deep_r(), model=model, optimizer="sgd")
    live, negative = run.sparse.masks, signs(run)
    assert not any(bool(negative[name][mask].any()) for name, mask in live.items())
    dead = torch.cat([negative[name][~mask] for name, mask in live.items()]).double()
    # Five standard deviations of a fair coin.
    assert abs(dead.mean().item() - 0.5) < 2.5 / len(dead) ** 0.5


def test_top_kast_uses_exactly_the_largest_and_trains_exactly_the_next() -> None:
    run = Run(methods.top_kast(backward=0.2, update_every=2), optimizer="sgd", sparsity=0.6)
    for step in run.steps(6):
        for tensor in run.sparse._network.tensors:
            hidden = run.sparse.state_dict()["rule"]["hidden"][tensor.name]
            weight = dict(run.model.named_parameters())[tensor.name].detach()
            backward = tensor.status.bitwise_and(BACKWARD) != 0
            assert int(backward.sum()) == tensor.num_live() + rounded_share(0.2, tensor.total)
            assert bool(backward[tensor.live()].all())
            assert not bool((weight * hidden).any())  # each weight is held in one place
            if step % 2 == 0:
                everything = (weight + hidden).abs()
                assert everything[~tensor.live()].max() <= everything[tensor.live()].min()
                assert everything[~backward].max() <= everything[backward].min()


def test_top_kast_trains_the_backward_set_by_the_gradient_of_the_forward_weights() -> None:
    model = tiny(dtype=torch.float64)
    run = Run(
        methods.top_kast(backward=0.2, update_every=100, penalty=0.0), model=model, optimizer="sgd", clip=None
    )
    run.optimizer.param_groups[0]["weight_decay"] = 0.0
    twin = copy.deepcopy(model)
    loss_of(twin, 0).backward()
    before = run.sparse.state_dict()["rule"]["hidden"]
    run.run(1)
    after = run.sparse.state_dict()["rule"]["hidden"]
    for tensor in run.sparse._network.tensors:
        gradient = dict(twin.named_parameters())[tensor.name].grad
        backward = tensor.status.bitwise_and(BACKWARD) != 0
        beyond = backward & ~tensor.live()
        moved = after[tensor.name] - before[tensor.name]
        assert not bool(moved[~beyond].any())
        # One rounding of w - lr·g and one of the difference.
        torch.testing.assert_close(moved[beyond], -0.5 * gradient[beyond], rtol=1e-9, atol=1e-15)  # pyright: ignore[reportOptionalSubscript]


def test_top_kasts_penalty_is_stronger_beyond_the_forward_set() -> None:
    model, sparse = one_row([4.0, 3.0, 2.0, 1.0], methods.top_kast(backward=0.25, penalty=0.1), sparsity=0.5)
    model.weight.grad = torch.zeros(1, 4)
    sparse.step()
    # Forward: w - 0.1·w; beyond: w - (0.1/0.5)·w; outside both: unchanged.
    assert model.weight.tolist()[0] == pytest.approx([3.6, 2.7, 0, 0])
    assert sparse.state_dict()["rule"]["hidden"]["weight"].tolist()[0] == pytest.approx([0, 0, 1.6, 1.0])


def test_averages_under_top_kast_stay_within_the_forward_set() -> None:
    run = Run(methods.top_kast(backward=0.3, update_every=3), optimizer="snt_asgd", trigger_at=1).run(8)
    with run.optimizer.averaged():  # pyright: ignore[reportAttributeAccessIssue]
        for tensor in run.sparse._network.tensors:
            assert not bool(tensor.parameter[~tensor.live()].any())


def test_right_after_an_update_averages_under_top_kast_are_those_of_the_new_forward_set() -> None:
    run = Run(methods.top_kast(backward=0.3, update_every=3), optimizer="snt_asgd", trigger_at=1).run(5)
    before = run.sparse.masks
    run.run(1)
    changed = 0
    used = {name: mask & ~before[name] for name, mask in run.sparse.masks.items()}
    raw = {name: value.detach().clone() for name, value in run.model.named_parameters()}
    with run.optimizer.averaged():  # pyright: ignore[reportAttributeAccessIssue]
        for tensor in run.sparse._network.tensors:
            live = tensor.live()
            assert not bool(tensor.parameter[~live].any())
            grown = used[tensor.name]
            assert torch.equal(tensor.parameter[grown], raw[tensor.name][grown])
            assert bool(tensor.parameter[live].all())
            changed += int(grown.sum())
    assert changed > 0
    run.run(1)
    raw = {name: value.detach().clone() for name, value in run.model.named_parameters()}
    with run.optimizer.averaged():  # pyright: ignore[reportAttributeAccessIssue]
        for tensor in run.sparse._network.tensors:  # averaging began with the step just taken
            grown = used[tensor.name]
            torch.testing.assert_close(tensor.parameter[grown], raw[tensor.name][grown])


@pytest.mark.parametrize(
    ("optimizer", "key", "fresh"),
    [("adagrad", "sum", 0.1), ("rprop", "step_size", 0.3), ("adam", "exp_avg", 0)],
)
def test_top_kast_keeps_the_state_of_what_is_still_trained_and_begins_that_of_what_is_trained_anew(
    optimizer: str, key: str, fresh: float
) -> None:
    # Both have taken the same three steps; after them one has chosen its sets anew.
    kept, run = (Run(methods.top_kast(backward=0.2, update_every=n), optimizer=optimizer) for n in (100, 3))
    for one in (kept, run):
        one.optimizer.param_groups[0]["lr"] = 0.3
        one.run(3)
    num_used = num_begun = 0
    for before, after in zip(kept.sparse._network.tensors, run.sparse._network.tensors, strict=True):
        old = kept.optimizer.state[before.parameter][key]
        new = run.optimizer.state[after.parameter][key]
        still, begun = before.trained() & after.trained(), after.trained() & ~before.trained()
        assert torch.equal(new[still], old[still])
        assert bool((new[begun] == torch.tensor(fresh)).all())
        assert not bool(new[~after.trained()].any())
        num_used += int((after.live() & ~before.live() & still).sum())
        num_begun += int(begun.sum())
    assert min(num_used, num_begun) > 0


@pytest.mark.parametrize("penalty", [0.0, 0.1])
def test_top_kast_takes_sparse_gradients_of_an_embedding(penalty: float) -> None:
    outcomes = []
    for is_sparse in (True, False):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = nn.Embedding(12, 4, sparse=is_sparse)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        method = methods.top_kast(update_every=2, penalty=penalty)
        sparse = SparseTraining(model, optimizer, method, sparsity=0.5, total_steps=4, generator=seeded(0))
        for _ in range(4):
            optimizer.zero_grad()
            model(torch.tensor([1, 3, 3, 7])).square().sum().backward()
            sparse.step()
        outcomes.append(model.weight.detach().clone())
    torch.testing.assert_close(outcomes[0], outcomes[1])  # sums of the sparse gradient are ordered otherwise


def test_what_top_kast_keeps_aside_follows_a_model_that_moves() -> None:
    run = Run(methods.top_kast())
    for tensor in run.sparse._network.tensors:
        tensor.parameter = nn.Parameter(tensor.parameter.detach().to("meta"))
    run.sparse._follow_device()
    hidden = run.sparse._rule.state_dict()["hidden"]
    assert {values.device.type for values in hidden.values()} == {"meta"}


def test_top_kast_refuses_masks_and_wrong_shares() -> None:
    with pytest.raises(InputError, match=r"backward must lie in \[0, 1\], got 1.5"):
        methods.top_kast(backward=1.5)
    model = tiny()
    with pytest.raises(InputError, match="top_kast chooses its own masks"):
        SparseTraining(
            model,
            OPTIMIZERS["sgd"](model.parameters()),
            methods.top_kast(),
            masks={"decoder.weight": torch.ones(11, 6, dtype=torch.bool)},
            total_steps=3,
            generator=seeded(0),
        )
