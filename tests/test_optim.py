"""SNT-ASGD against a readable reference, its averages, and the trigger that starts them."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import pytest
import torch
from torch import nn

from hyperprune.errors import InputError, NumericsError
from hyperprune.optim import SNTASGD, NonMonotonic
from hyperprune.sparsity import DynamicSparse, SparseTraining, methods
from sparsity.tiny_runs import Run, loss_of, seeded, tiny


class Reference:
    """SNT-ASGD weight by weight: every value a weight has had since it was grown is kept and averaged."""

    def __init__(self, model: nn.Module, lr: float, momentum: float, weight_decay: float) -> None:
        self.parameters = dict(model.named_parameters())
        self.lr, self.momentum, self.weight_decay = lr, momentum, weight_decay
        self.velocity = {name: torch.zeros_like(p) for name, p in self.parameters.items()}
        self.values: dict[str, list[list[float]]] = {}

    def trigger(self) -> None:
        self.values = {name: [[] for _ in range(p.numel())] for name, p in self.parameters.items()}

    @torch.no_grad()
    def step(self) -> None:
        for name, parameter in self.parameters.items():
            assert parameter.grad is not None
            gradient = parameter.grad + self.weight_decay * parameter
            self.velocity[name] = self.momentum * self.velocity[name] + gradient
            parameter.sub_(self.lr * self.velocity[name])
            if self.values:
                for history, value in zip(self.values[name], parameter.flatten().tolist(), strict=True):
                    history.append(value)

    @torch.no_grad()
    def change_topology(self, before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> None:
        for name, mask in after.items():
            changed = (before[name] != mask) | ~mask
            self.parameters[name][changed] = 0
            self.velocity[name][changed] = 0
            if self.values:
                for index in changed.flatten().nonzero().flatten().tolist():
                    self.values[name][index].clear()

    def averages(self) -> dict[str, torch.Tensor]:
        return {
            name: torch.tensor([math.fsum(h) / len(h) if h else 0.0 for h in histories], dtype=torch.float64)
            for name, histories in self.values.items()
        }


@pytest.mark.parametrize("foreach", [None, True, False])
@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_it_equals_the_readable_reference_at_each_of_100_steps_with_updates_between(
    momentum: float, foreach: bool | None
) -> None:
    options: Any = {"lr": 0.3, "momentum": momentum, "weight_decay": 1e-3}
    model = tiny(dtype=torch.float64, hidden=4)
    twin = copy.deepcopy(model)
    optimizer = SNTASGD(model.parameters(), **options, foreach=foreach)
    reference = Reference(twin, **options)
    method = DynamicSparse(death_rate=0.4, decay="constant", update_every=7)
    sparse = SparseTraining(model, optimizer, method, sparsity=0.5, total_steps=100, generator=seeded(0))
    twin.load_state_dict(model.state_dict())
    before = sparse.masks
    for step in range(100):
        if step == 10:
            optimizer.trigger()
            reference.trigger()
        for net in (model, twin):
            net.zero_grad()
            loss_of(net, step).backward()
        sparse.step()
        for name, mask in before.items():
            gradient = reference.parameters[name].grad
            assert gradient is not None
            gradient[~mask] = 0
        reference.step()
        reference.change_topology(before, sparse.masks)
        before = sparse.masks
        for name, parameter in model.named_parameters():
            # The same sums in another order of additions, in float64.
            torch.testing.assert_close(parameter, reference.parameters[name], rtol=1e-11, atol=1e-13)
        if step >= 10:
            with optimizer.averaged():
                for name, average in reference.averages().items():
                    now = dict(model.named_parameters())[name].detach().flatten()
                    torch.testing.assert_close(now, average, rtol=1e-11, atol=1e-13)


def test_before_the_trigger_it_is_sgd_to_the_bit() -> None:
    options: Any = {"lr": 0.3, "momentum": 0.9, "weight_decay": 1e-2}
    model, twin = tiny(), tiny()
    ours, torchs = (
        SNTASGD(model.parameters(), **options),
        torch.optim.SGD(twin.parameters(), **options, foreach=False),
    )
    for step in range(5):
        for net, optimizer in ((model, ours), (twin, torchs)):
            optimizer.zero_grad()
            loss_of(net, step).backward()
            optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))


def test_the_fast_paths_give_the_same_bits() -> None:
    results = []
    for foreach in (True, False):
        model = tiny(hidden=8)
        optimizer = SNTASGD(model.parameters(), 0.3, momentum=0.5, weight_decay=1e-2, foreach=foreach)
        optimizer.trigger()
        for step in range(4):
            optimizer.zero_grad()
            loss_of(model, step).backward()
            optimizer.step()
        with optimizer.averaged():
            results.append([parameter.detach().clone() for parameter in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_chunks_and_strides_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    from hyperprune import optim

    values, gradient = torch.randn(7, 5, generator=seeded(0)), torch.randn(7, 5, generator=seeded(1))
    outcomes = []
    for chunk, transposed in ((1 << 16, False), (8, False), (8, True)):
        monkeypatch.setattr(optim, "_CHUNK", chunk)
        data = values.t().contiguous().t() if transposed else values.clone()
        weight = nn.Parameter(data)
        optimizer = SNTASGD([weight], 0.1, weight_decay=1e-2)
        optimizer.trigger()
        for _ in range(3):
            weight.grad = gradient.clone()
            optimizer.step()
        with optimizer.averaged():
            outcomes.append(weight.detach().clone())
    assert torch.equal(outcomes[0], outcomes[1])
    assert torch.equal(outcomes[0], outcomes[2])


def test_averages_come_and_go_in_place_and_exactly() -> None:
    run = Run(methods.selfish_rnn(), optimizer="snt_asgd", trigger_at=2).run(8)
    optimizer = run.optimizer
    assert isinstance(optimizer, SNTASGD)
    raw = copy.deepcopy(run.model.state_dict())
    addresses = [parameter.data_ptr() for parameter in run.model.parameters()]
    with optimizer.averaged():
        assert any(not torch.equal(value, raw[name]) for name, value in run.model.state_dict().items())
        for name, mask in run.sparse.masks.items():
            assert not bool(dict(run.model.named_parameters())[name][~mask].any())
        assert [parameter.data_ptr() for parameter in run.model.parameters()] == addresses
    assert all(torch.equal(value, raw[name]) for name, value in run.model.state_dict().items())


def test_averages_are_put_back_when_evaluation_fails() -> None:
    run = Run(methods.static(), optimizer="snt_asgd", trigger_at=0).run(3)
    assert isinstance(run.optimizer, SNTASGD)
    raw = copy.deepcopy(run.model.state_dict())
    with pytest.raises(RuntimeError, match="evaluation broke"), run.optimizer.averaged():
        raise RuntimeError("evaluation broke")
    assert all(torch.equal(value, raw[name]) for name, value in run.model.state_dict().items())


@pytest.mark.parametrize("triggered", [False, True])
def test_without_a_step_after_the_trigger_averaged_changes_nothing(triggered: bool) -> None:
    run = Run(methods.static(), optimizer="snt_asgd", trigger_at=None).run(3)
    assert isinstance(run.optimizer, SNTASGD)
    if triggered:
        run.optimizer.trigger()
    assert run.optimizer.triggered is triggered
    raw = copy.deepcopy(run.model.state_dict())
    with run.optimizer.averaged():
        assert all(torch.equal(value, raw[name]) for name, value in run.model.state_dict().items())


def test_nothing_may_train_or_be_saved_while_averages_are_in_place() -> None:
    run = Run(methods.selfish_rnn(), optimizer="snt_asgd", trigger_at=0).run(3)
    optimizer = run.optimizer
    assert isinstance(optimizer, SNTASGD)
    with optimizer.averaged():
        for action in (optimizer.step, optimizer.state_dict, lambda: optimizer.averaged().__enter__()):
            with pytest.raises(InputError, match=r"must not be called within averaged\(\)"):
                action()
        for action in (run.sparse.step, run.sparse.end_epoch):
            with pytest.raises(InputError, match=r"leave averaged\(\) before training goes on"):
                action()
    run.step()


def test_a_grown_weight_is_averaged_from_its_own_first_step_on() -> None:
    run = Run(DynamicSparse(death_rate=0.5, update_every=3), optimizer="snt_asgd", trigger_at=0, clip=None)
    run.run(3)
    run.run(1)
    optimizer, named = run.optimizer, dict(run.model.named_parameters())
    assert isinstance(optimizer, SNTASGD)
    starts = {name: optimizer.state[named[name]]["start"] for name in run.sparse.masks}
    seen = {float(start) for name, mask in run.sparse.masks.items() for start in starts[name][mask]}
    assert seen == {0.0, 3.0}
    assert {float(start) for name, mask in run.sparse.masks.items() for start in starts[name][~mask]} == {0.0}
    young = {name: (starts[name] == 3) for name in starts}
    values = {name: named[name][mask].detach().clone() for name, mask in young.items()}
    with optimizer.averaged():
        for name, mask in young.items():
            assert torch.equal(named[name][mask], values[name])


def test_in_half_precision_the_steps_are_still_counted_after_many_and_after_loading() -> None:
    # bfloat16 holds whole numbers up to 256 only: a count kept in it would stand still there.
    weight = nn.Parameter(torch.zeros(3, dtype=torch.bfloat16))
    optimizer = SNTASGD([weight], 1.0)
    optimizer.trigger()
    weight.grad = torch.zeros_like(weight)
    for _ in range(300):
        optimizer.step()
    optimizer.state[weight]["start"][1:] = torch.tensor([290.0, 299.0])
    twin = nn.Parameter(weight.detach().clone())
    resumed = SNTASGD([twin], 1.0)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for parameter, one in ((weight, optimizer), (twin, resumed)):
        parameter.grad = torch.full_like(parameter, -8.0)
        one.step()
        # The values before were 0 for 300, 10 and 1 steps, and now there is one 8.
        expected = torch.tensor([8 / 301, 8 / 11, 8 / 2])
        torch.testing.assert_close(one.state[parameter]["average"].float(), expected, rtol=2**-7, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_average_of_half_precision_weights_moves_on_for_ever_evaluated_or_not(dtype: torch.dtype) -> None:
    weight = nn.Parameter(torch.zeros(2, dtype=dtype))
    optimizer = SNTASGD([weight], 1.0)
    optimizer.trigger()
    for step in range(1, 4001):
        weight.grad = torch.full_like(weight, -1.0 if step == 1001 else 0.0)  # 0, then 1
        optimizer.step()
        if step % 100 == 0:
            raw = weight.detach().clone()
            with optimizer.averaged():
                assert weight.dtype == dtype
                torch.testing.assert_close(weight[0].item(), max(0, step - 1000) / step, rtol=2**-8, atol=0)
            assert torch.equal(weight, raw)
    torch.testing.assert_close(optimizer.state[weight]["average"], torch.full((2,), 0.75), rtol=1e-4, atol=0)


@pytest.mark.parametrize("how", ["deepcopy", "pickle"])
def test_copies_of_the_optimizer_average_on(how: str) -> None:
    model = tiny()
    pair = (model, SNTASGD(model.parameters(), 0.1, foreach=True))
    pair[1].trigger()
    loss_of(model, 0).backward()
    pair[1].step()
    twin: Any = copy.deepcopy(pair) if how == "deepcopy" else pickle.loads(pickle.dumps(pair))
    assert twin[1].triggered
    for net, optimizer in (pair, twin):
        net.zero_grad()
        loss_of(net, 1).backward()
        optimizer.step()
    with pair[1].averaged(), twin[1].averaged():
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin[0].parameters(), strict=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": 0.0}, "lr must be above 0 and finite, got 0.0"),
        ({"lr": math.inf}, "lr must be above 0 and finite"),
        ({"lr": 1.0, "momentum": 1.0}, r"momentum must lie in \[0, 1\), got 1.0"),
        ({"lr": 1.0, "weight_decay": -1.0}, "weight_decay must be at least 0"),
    ],
)
def test_settings_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        SNTASGD([nn.Parameter(torch.zeros(2))], **options)


def test_a_sparse_gradient_is_refused_with_a_remedy() -> None:
    with torch.random.fork_rng():
        model = nn.Embedding(4, 2, sparse=True)
    optimizer = SNTASGD(model.parameters(), 0.1)
    model(torch.tensor([1])).sum().backward()
    with pytest.raises(InputError, match=r"needs dense gradients.*sparse=False"):
        optimizer.step()


def test_a_closure_is_evaluated_with_gradients() -> None:
    weight = nn.Parameter(torch.tensor([2.0]))
    optimizer = SNTASGD([weight], 0.25)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = weight.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 4.0
    assert weight.tolist() == [1.0]


# The trigger


def fired_at(losses: list[float], patience: int) -> list[int]:
    trigger = NonMonotonic(patience=patience)
    return [index for index, loss in enumerate(losses) if trigger.should_trigger(loss)]


@pytest.mark.parametrize(
    ("losses", "patience", "when"),
    [
        ([5, 4, 3, 2, 1, 0], 2, []),
        ([5, 4, 4.5, 4.5, 4.5], 2, [4]),  # 4.5 > min(5, 4) of the losses before the last two
        ([5, 4, 4, 4, 4, 4], 2, []),  # equal is not worse
        ([1, 2, 3], 5, []),  # too few losses before the last five
        ([1, 9, 9, 9, 9, 9, 9, 9], 5, [6]),
        ([1, 2, 3], 1, [2]),
    ],
)
def test_it_fires_once_the_loss_is_worse_than_the_best_before_the_last_few(
    losses: list[float], patience: int, when: list[int]
) -> None:
    assert fired_at(losses, patience) == when


def test_the_trigger_resumes_where_it_was() -> None:
    trigger = NonMonotonic(patience=2)
    for loss in (3.0, 1.0, 2.0):
        trigger.should_trigger(loss)
    other = NonMonotonic()
    other.load_state_dict(trigger.state_dict())
    for loss in (2.0, 2.0, 0.5):
        assert other.should_trigger(loss) is trigger.should_trigger(loss)
    assert other.state_dict() == trigger.state_dict()


def test_a_loss_that_is_not_finite_is_an_error_and_not_remembered() -> None:
    trigger = NonMonotonic()
    with pytest.raises(NumericsError, match="a validation loss must be finite, got nan"):
        trigger.should_trigger(math.nan)
    assert trigger.losses == []


@pytest.mark.parametrize("patience", [0, -1])
def test_a_patience_below_one_is_refused(patience: int) -> None:
    with pytest.raises(InputError, match="patience must be a whole number of at least 1"):
        NonMonotonic(patience=patience)
