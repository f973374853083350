"""Sparse training works with what users have."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_

from hyperprune.errors import InputError
from hyperprune.models import cells
from hyperprune.sparsity import DynamicSparse, SparseTraining, methods
from hyperprune.sparsity.counts import num_live_at
from sparsity.tiny_runs import OPTIMIZERS, Run, assert_same, loss_of, quick, seeded, tiny
from sparsity.two_ranks import train_on_rank


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize(
    "module",
    [
        lambda: nn.LSTM(5, 6, 2, bidirectional=True, proj_size=3),
        lambda: nn.GRU(5, 6, 2, bidirectional=True),
        lambda: nn.RNN(5, 6, 3, nonlinearity="relu"),
        lambda: cells.RHN(5, 6, depth=2),
        lambda: cells.PeepholeLSTM(5, 6),
    ],
)
@pytest.mark.parametrize("gates", ["exchange", "separate"])
def test_any_recurrent_module_is_pruned(module: Any, gates: str) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = module()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    method = DynamicSparse(gates=gates, update_every=2, growth="gradient")
    sparse = SparseTraining(model, optimizer, method, sparsity=0.7, total_steps=6, generator=seeded(0))
    inputs = torch.randn(7, 3, 5, generator=seeded(1))
    gate_counts = [row.gates for row in sparse.summary()]
    for _ in range(6):
        optimizer.zero_grad()
        model(inputs)[0].square().mean().backward()
        sparse.step()
    summary = sparse.summary()
    assert summary.live == num_live_at(0.7, summary.total)
    if gates == "separate":
        assert [row.gates for row in summary] == gate_counts
        assert all(max(counts) - min(counts) <= 1 for counts in gate_counts if counts)


def test_several_parameter_groups_and_optimizers_are_handled_by_identity_and_not_by_position() -> None:
    model = tiny()
    first = torch.optim.SGD(
        [{"params": [model.decoder.weight], "lr": 0.3}, {"params": model.rnn.parameters()}], 0.1
    )
    second = torch.optim.Adam([model.decoder.bias, model.encoder.weight], 1e-2)
    sparse = SparseTraining(
        model, [first, second], methods.set_(update_every=2), sparsity=0.6, total_steps=6, generator=seeded(0)
    )
    for step in range(6):
        model.zero_grad()
        loss_of(model, step).backward()
        sparse.step()
    for name, mask in sparse.masks.items():
        assert not bool(dict(model.named_parameters())[name][~mask].any())
    moments = second.state[model.encoder.weight]["exp_avg_sq"]
    assert not bool(moments[~sparse.masks["encoder.weight"]].any())
    assert bool(moments.any())


def test_gradients_can_be_accumulated_over_several_batches() -> None:
    whole, parts = tiny(dtype=torch.float64), tiny(dtype=torch.float64)
    sparses = []
    for model, batches in ((whole, 1), (parts, 3)):
        optimizer = OPTIMIZERS["momentum"](model.parameters())
        sparse = SparseTraining(
            model, optimizer, methods.rigl(update_every=2), sparsity=0.6, total_steps=8, generator=seeded(0)
        )
        for step in range(4):
            optimizer.zero_grad()
            for _ in range(batches):
                (loss_of(model, step) / batches).backward()
            sparse.mask_gradients()
            clip_grad_norm_(model.parameters(), 0.25)
            sparse.step()
        sparses.append(sparse)
    for name, mask in sparses[0].masks.items():
        assert torch.equal(mask, sparses[1].masks[name])
        # Three additions of thirds round differently from one gradient; 64-bit rounding over four steps.
        torch.testing.assert_close(dict(whole.named_parameters())[name], dict(parts.named_parameters())[name])


def test_sparse_gradients_of_an_embedding_are_masked() -> None:
    with torch.random.fork_rng():
        model = nn.Embedding(12, 4, sparse=True)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    sparse = SparseTraining(
        model,
        optimizer,
        DynamicSparse(growth="gradient", update_every=1),
        sparsity=0.5,
        total_steps=3,
        generator=seeded(0),
    )
    for _ in range(2):
        mask = sparse.masks["weight"]
        optimizer.zero_grad()
        model(torch.tensor([1, 3, 3, 7])).square().sum().backward()
        sparse.mask_gradients()
        assert model.weight.grad is not None
        assert not bool(model.weight.grad.to_dense()[~mask].any())
        sparse.step()
        assert not bool(model.weight[~sparse.masks["weight"]].any())
    assert sparse.summary().live == 24


@pytest.mark.parametrize("num_steps_before", [0, 2])
@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("name", ["static", "snfs", "rigl", "top_kast"])
def test_sparse_gradients_and_momentum_train_as_dense_gradients_do(
    name: str, nesterov: bool, num_steps_before: int
) -> None:
    outcomes = []
    for is_sparse in (True, False):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = nn.Embedding(12, 4, sparse=is_sparse)
        optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, nesterov=nesterov)

        def backward(model: nn.Module = model, optimizer: torch.optim.Optimizer = optimizer) -> None:
            optimizer.zero_grad()
            model(torch.tensor([1, 3, 3, 7])).square().sum().backward()

        for _ in range(num_steps_before):
            backward()
            optimizer.step()
        method = methods.static() if name == "static" else quick(name, update_every=2)
        sparse = SparseTraining(model, optimizer, method, sparsity=0.5, total_steps=9, generator=seeded(0))
        for _ in range(5):
            backward()
            sparse.step()
            if name != "top_kast":  # whose backward set keeps its moments
                buffer = optimizer.state[model.weight]["momentum_buffer"]
                assert not bool(buffer[~sparse.masks["weight"]].any())
        outcomes.append((model.weight.detach().clone(), sparse.masks["weight"]))
    torch.testing.assert_close(*(weight for weight, _ in outcomes))  # sums are ordered otherwise
    assert torch.equal(*(mask for _, mask in outcomes))


# Mixed precision


def scaled_run(*, mask_first: bool, explicit: bool, steps: int = 4) -> tuple[nn.Module, SparseTraining]:
    model = tiny()
    optimizer = OPTIMIZERS["momentum"](model.parameters())
    method = methods.rigl(update_every=2, gradient_batches=2)
    sparse = SparseTraining(model, optimizer, method, sparsity=0.6, total_steps=20, generator=seeded(7))
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=2)
    for step in range(steps):
        optimizer.zero_grad()
        scaler.scale(loss_of(model, step)).backward()
        if explicit:
            scaler.unscale_(optimizer)
        if mask_first:
            sparse.mask_gradients(scaler)
            clip_grad_norm_(model.parameters(), 0.25)
        sparse.step(scaler)
        scaler.update()
    return model, sparse


@pytest.mark.parametrize("mask_first", [True, False])
@pytest.mark.parametrize("explicit", [True, False])
def test_a_gradient_scaler_changes_nothing(mask_first: bool, explicit: bool) -> None:
    # Scales are powers of two, so dividing by them is exact.
    model, sparse = scaled_run(mask_first=mask_first, explicit=explicit)
    plain = Run(methods.rigl(update_every=2, gradient_batches=2), clip=0.25 if mask_first else None).run(4)
    assert_same(model.state_dict(), plain.model.state_dict())
    assert_same(sparse.state_dict(), plain.sparse.state_dict())


@pytest.mark.parametrize(
    "optimizer", ["momentum", "adam_fused"]
)  # a fused one is called, and skips by itself
@pytest.mark.parametrize("name", ["rigl", "selfish_rnn"])  # with dense gradients and without
def test_a_step_that_the_scaler_skips_does_not_count_and_leaves_no_trace(name: str, optimizer: str) -> None:
    run = Run(methods.get(name, update_every=1), optimizer=optimizer)
    scaler = torch.amp.GradScaler("cpu", init_scale=1e38)
    before = copy.deepcopy(run.model.state_dict()), run.sparse.state_dict()
    scaler.scale(loss_of(run.model, 0) * 1e6).backward()  # overflows
    run.sparse.step(scaler)
    scaler.update()
    assert run.sparse.num_steps == 0
    assert_same(run.model.state_dict(), before[0])
    before[1]["clock"]["num_lost"] = 1  # counted among the epoch's batches, and that is all
    assert_same(run.sparse.state_dict(), before[1])
    run.optimizer.zero_grad()
    scaler.scale(loss_of(run.model, 0) * 1e-30).backward()
    run.sparse.step(scaler)
    assert run.sparse.num_steps == 1


def test_masking_gradients_that_still_carry_the_scale_is_an_error() -> None:
    run = Run(methods.static())
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(loss_of(run.model, 0)).backward()
    run.sparse.mask_gradients()
    with pytest.raises(InputError, match=r"gradients must be unscaled before.*call mask_gradients\(scaler\)"):
        run.sparse.step(scaler)


def masked_with(run: Run, scaler: torch.amp.GradScaler, step: int, *, set_to_none: bool = True) -> None:
    run.optimizer.zero_grad(set_to_none=set_to_none)
    scaler.scale(loss_of(run.model, step)).backward()
    run.sparse.mask_gradients(scaler)


@pytest.mark.parametrize("set_to_none", [True, False])
@pytest.mark.parametrize("name", ["static", "gmp", "dense"])  # with dead weights and without
def test_a_batch_that_is_given_up_without_an_update_of_the_scaler_makes_the_next_one_an_error(
    name: str, set_to_none: bool
) -> None:
    run, scaler = Run(methods.get(name)), torch.amp.GradScaler("cpu")
    masked_with(run, scaler, 0)
    run.optimizer.zero_grad(set_to_none=set_to_none)
    with pytest.raises(InputError, match=r"call scaler.update\(\) after giving a batch up"):
        masked_with(run, scaler, 1, set_to_none=set_to_none)


def test_a_batch_that_is_given_up_without_an_update_of_the_scaler_makes_its_step_an_error() -> None:
    run, scaler = Run(methods.static()), torch.amp.GradScaler("cpu")
    masked_with(run, scaler, 0)
    run.optimizer.zero_grad()
    scaler.scale(loss_of(run.model, 1)).backward()
    with pytest.raises(InputError, match=r"call scaler.update\(\) after giving a batch up"):
        run.sparse.step(scaler)


@pytest.mark.parametrize("name", ["static", "rigl", "dense"])
def test_a_batch_that_is_given_up_with_an_update_of_the_scaler_leaves_no_trace(name: str) -> None:
    # Scales are powers of two, so dividing by them is exact.
    run, plain = (Run(quick(name), clip=None) for _ in range(2))
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for step in range(4):
        masked_with(run, scaler, 50)
        run.optimizer.zero_grad()
        scaler.update()
        masked_with(run, scaler, step)
        run.sparse.step(scaler)
        scaler.update()
    assert_same(run.model.state_dict(), plain.run(4).model.state_dict())
    assert run.sparse.state_dict()["clock"]["num_lost"] == 4


@pytest.mark.parametrize("name", ["static", "rigl", "dense"])
def test_gradients_that_change_twice_after_masking_are_unscaled_once(name: str) -> None:
    run, plain = (Run(quick(name), clip=None) for _ in range(2))
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for step in range(4):
        masked_with(run, scaler, step)
        for factor in (2.0, 0.5):
            for parameter in run.model.parameters():
                assert parameter.grad is not None
                parameter.grad.mul_(factor)
        run.sparse.step(scaler)
        scaler.update()
    assert_same(run.model.state_dict(), plain.run(4).model.state_dict())
    assert run.sparse.state_dict()["clock"]["num_lost"] == 0


@pytest.mark.parametrize("update_every", [2, "epoch"])
def test_an_optimizer_that_the_scaler_skips_beside_one_that_steps_loses_the_batch_for_growth(
    update_every: Any,
) -> None:
    model = tiny()
    optimizers = [
        torch.optim.SGD(part.parameters(), 0.1) for part in (model.encoder, model.rnn, model.decoder)
    ]
    method = methods.rigl(update_every=update_every)
    settings: dict[str, Any] = {"sparsity": 0.6, "total_steps": 20, "generator": seeded(0)}
    sparse = SparseTraining(model, optimizers, method, steps_per_epoch=2, **settings)
    scaler = torch.amp.GradScaler("cpu", init_scale=1.0)
    for step in range(4):
        model.zero_grad()
        scaler.scale(loss_of(model, step)).backward()
        if step == 1:  # by whose gradients the first update would rank
            assert model.decoder.weight.grad is not None
            model.decoder.weight.grad[0, 0] = torch.inf
        before = model.decoder.weight.detach().clone(), model.rnn.weight_hh_l0.detach().clone()
        sparse.step(scaler)
        scaler.update()
        assert torch.equal(model.decoder.weight, before[0]) == (step == 1)
        assert not torch.equal(model.rnn.weight_hh_l0, before[1])
        if step % 2:
            sparse.end_epoch()
    assert sparse.num_steps == 3
    assert [update.step for update in sparse.history()] == ([2] if update_every == 2 else [3])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_models_of_other_precision_are_pruned_exactly(dtype: torch.dtype) -> None:
    run = Run(methods.rigl(update_every=2), model=tiny(dtype=dtype)).run(6)
    summary = run.sparse.summary()
    assert summary.live == num_live_at(0.6, summary.total)
    for name, mask in run.sparse.masks.items():
        assert not bool(dict(run.model.named_parameters())[name][~mask].any())


# Copies


@pytest.mark.parametrize("name", methods.names())
@pytest.mark.parametrize("how", ["deepcopy", "pickle"])
def test_copies_go_on_like_the_original_and_apart_from_it(name: str, how: str) -> None:
    run = Run(quick(name), optimizer="snt_asgd").run(6)
    twin = copy.deepcopy(run) if how == "deepcopy" else pickle.loads(pickle.dumps(run))
    state = copy.deepcopy(run.state())
    twin.run(6)
    assert_same(run.state(), state)
    run.run(6)
    assert_same(run.state(), twin.state())


@pytest.mark.parametrize("name", methods.names())
def test_methods_are_hashable_printable_and_picklable(name: str) -> None:
    method = methods.get(name)
    assert pickle.loads(pickle.dumps(method)) == method == copy.deepcopy(method)
    assert {method: 1}[methods.get(name)] == 1
    assert type(method).__name__ in repr(method)


# Compilation and several processes


def test_a_compiled_model_trains_to_the_same_masks_and_weights() -> None:
    compiled_model = torch.compile(
        nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 6)), backend="aot_eager"
    )
    plain_model = copy.deepcopy(compiled_model._orig_mod)  # pyright: ignore[reportFunctionMemberAccess]
    outcomes = []
    for model in (compiled_model, plain_model):
        assert isinstance(model, nn.Module)
        optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
        sparse = SparseTraining(
            model, optimizer, methods.rigl(update_every=2), sparsity=0.5, total_steps=9, generator=seeded(0)
        )
        for step in range(6):
            optimizer.zero_grad()
            model(torch.randn(5, 6, generator=seeded(step))).square().mean().backward()
            sparse.step()
        outcomes.append(sparse.masks)
    assert_same(outcomes[0], outcomes[1])
    assert list(outcomes[0]) == ["0.weight", "2.weight"]


def test_all_ranks_hold_identical_masks_and_weights(tmp_path: Path) -> None:
    torch.multiprocessing.start_processes(train_on_rank, (str(tmp_path),), nprocs=2, start_method="spawn")
    one, other = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert_same(one, other)
    assert next(iter(one[0])) == "encoder.weight"
    assert any(not torch.equal(one[0][name], one[1][name]) for name in one[0])
