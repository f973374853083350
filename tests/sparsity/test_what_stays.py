"""Weights that an exchange must leave alone: of dense, kept, frozen and nearly dense tensors."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from hyperprune.sparsity import DynamicSparse, methods
from hyperprune.sparsity.death import DEATHS
from hyperprune.sparsity.growth import GROWTHS
from hyperprune.sparsity.masks import NEGATIVE
from hyperprune.sparsity.redistribution import REDISTRIBUTIONS
from sparsity.tiny_runs import Run


def still(**settings: Any) -> Run:
    """A run whose optimizer moves nothing, so that only topology updates change weights."""
    method = DynamicSparse(death_rate=0.5, decay="constant", update_every=2, **settings)
    run = Run(method, sparsity=0.5)
    for group in run.optimizer.param_groups:
        group["lr"] = 0.0
    return run


@pytest.mark.parametrize("redistribution", REDISTRIBUTIONS)
@pytest.mark.parametrize("growth", GROWTHS)
@pytest.mark.parametrize("death", DEATHS)
def test_a_tensor_that_is_kept_dense_keeps_every_weight_and_its_state(
    death: str, growth: str, redistribution: str
) -> None:
    more: dict[str, Any] = {"threshold_start": 0.5} if death == "threshold" else {}
    run = still(
        death=death, growth=growth, redistribution=redistribution, keep_dense="decoder.weight", **more
    )
    kept = dict(run.model.named_parameters())["decoder.weight"]
    before = kept.detach().clone()
    for _ in run.steps(6):
        assert torch.equal(kept, before)
        assert run.sparse.masks["decoder.weight"].all()
        assert bool(run.optimizer.state[kept]["momentum_buffer"].all())
    assert run.sparse.history()[-1].num_killed > 0


@pytest.mark.parametrize("gates", ["exchange", "separate"])
@pytest.mark.parametrize("growth", GROWTHS)
@pytest.mark.parametrize("death", DEATHS)
@pytest.mark.parametrize("sparsity", [0.1, 0.3])
def test_nothing_killed_comes_back_for_want_of_room(
    death: str, growth: str, gates: str, sparsity: float
) -> None:
    more: dict[str, Any] = {"threshold_start": 0.5} if death == "threshold" else {}
    method = DynamicSparse(death=death, growth=growth, gates=gates, death_rate=0.9, update_every=2, **more)
    run = Run(method, sparsity=sparsity)
    before = run.sparse.masks
    run.run(2)
    num_new = sum(int((mask & ~before[name]).sum()) for name, mask in run.sparse.masks.items())
    assert num_new == run.sparse.history()[0].num_killed > 0


@pytest.mark.parametrize(("sparsity", "dead_limit"), [(0.1, True), (0.5, False)])
def test_with_redistribution_only_nearly_dense_tensors_are_held(sparsity: float, dead_limit: bool) -> None:
    method = DynamicSparse(redistribution="nonzeros", death_rate=0.8, decay="constant", update_every=2)
    run = Run(method, sparsity=sparsity)
    before = run.sparse.summary()
    run.run(2)
    share = run.sparse.history()[0].num_killed / before.live
    # Rounded per tensor.
    assert share == pytest.approx(sparsity / (1 - sparsity) if dead_limit else 0.8, abs=0.02)


@pytest.mark.parametrize("name", ["selfish_rnn", "set_", "dsr", "snfs", "rigl", "deep_r"])
def test_a_frozen_tensor_keeps_weights_and_mask(name: str) -> None:
    more: dict[str, Any] = {} if name == "deep_r" else {"update_every": 2}
    run = Run(methods.get(name, **more))
    frozen = dict(run.model.named_parameters())["rnn.weight_hh_l0"].requires_grad_(False)
    weights, mask = frozen.detach().clone(), run.sparse.masks["rnn.weight_hh_l0"]
    run.run(8)
    assert torch.equal(frozen, weights)
    assert torch.equal(run.sparse.masks["rnn.weight_hh_l0"], mask)
    assert run.sparse.num_updates > 0


def test_with_all_frozen_growth_by_gradients_has_nothing_to_do() -> None:
    run = Run(methods.rigl(update_every=2))
    masks = run.sparse.masks
    for name in masks:
        dict(run.model.named_parameters())[name].requires_grad_(False)
    run.run(4)
    assert all(torch.equal(mask, run.sparse.masks[name]) for name, mask in masks.items())


def test_deep_r_lets_signs_change_where_no_place_is_left_to_grow() -> None:
    run = Run(methods.deep_r(keep_dense="decoder.weight", l1=0.0), optimizer="sgd")
    kept = dict(run.model.named_parameters())["decoder.weight"]
    run.optimizer.param_groups[0].update(lr=2.0, weight_decay=0.0)
    before = kept.detach().clone()
    run.run(10)
    assert bool((before * kept < 0).any())
    assert bool(kept.all())  # what crossed 0 has not been set to it
    (tensor,) = [tensor for tensor in run.sparse._network.tensors if tensor.parameter is kept]
    assert torch.equal(tensor.status.bitwise_and(NEGATIVE) != 0, kept < 0)  # the pull follows the new sign
