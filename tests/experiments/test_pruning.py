"""Pruning once by magnitude: which weights go, and that they stay gone."""

import pytest
import torch
from torch import nn

from hyperprune.errors import InputError
from hyperprune.experiments.pruning import lowest_masks, matrices_of, prune_and_hold
from hyperprune.models import PeepholeLSTM


def _lstm() -> nn.LSTM:
    torch.manual_seed(0)
    return nn.LSTM(3, 4, num_layers=2)


@pytest.mark.parametrize(
    ("part", "prefixes"),
    [("both", ("weight_ih", "weight_hh")), ("input", ("weight_ih",)), ("recurrent", ("weight_hh",))],
)
def test_a_part_is_the_matrices_of_its_side_in_every_layer(part, prefixes):
    model = nn.ModuleDict({"embedding": nn.Embedding(5, 3), "rnn": _lstm(), "readout": nn.Linear(4, 2)})
    assert set(matrices_of(model, part)) == {
        f"rnn.{prefix}_l{layer}" for prefix in prefixes for layer in range(2)
    }


def test_a_full_peephole_counts_as_recurrent_and_a_diagonal_one_is_no_matrix():
    full = PeepholeLSTM(3, 4, peephole="full", generator=torch.Generator())
    assert set(matrices_of(full, "recurrent")) == {"weight_hh_l0", "weight_peephole_l0"}
    assert set(matrices_of(PeepholeLSTM(3, 4, generator=torch.Generator()), "recurrent")) == {"weight_hh_l0"}


def test_one_threshold_over_all_layers_or_one_for_each():
    first, second = (
        nn.Parameter(torch.tensor([[1.0, -2.0], [3.0, 4.0]])),
        nn.Parameter(torch.full((2, 2), 9.0)),
    )
    with torch.no_grad():
        second[0, 0] = -8.0
    matrices = {"rnn.weight_hh_l0": first, "rnn.weight_hh_l1": second}
    network = lowest_masks(matrices, 50)
    assert network["rnn.weight_hh_l0"].tolist() == [[False, False], [False, False]]
    assert bool(network["rnn.weight_hh_l1"].all())
    layer = lowest_masks(matrices, 50, scope="layer")
    assert layer["rnn.weight_hh_l0"].tolist() == [[False, False], [True, True]]
    assert layer["rnn.weight_hh_l1"].tolist() == [[False, False], [True, True]]  # a tie goes to the earlier


def test_a_layers_input_and_recurrent_matrices_share_its_threshold():
    matrices = {
        "weight_ih_l0": nn.Parameter(torch.tensor([[1.0, 2.0]])),
        "weight_hh_l0": nn.Parameter(torch.tensor([[3.0, 4.0]])),
        "weight_hh_l1": nn.Parameter(torch.tensor([[0.1, 0.2]])),
    }
    masks = lowest_masks(matrices, 50, scope="layer")
    assert [mask.tolist() for mask in masks.values()] == [[[False, False]], [[True, True]], [[False, True]]]


@pytest.mark.parametrize("percent", [0, 10, 33, 90, 100])
def test_counts_are_exact(percent):
    masks = lowest_masks(matrices_of(_lstm(), "both"), percent)
    total = sum(mask.numel() for mask in masks.values())
    assert total - sum(int(mask.sum()) for mask in masks.values()) == int(total * percent / 100 + 0.5)


@pytest.mark.parametrize("percent", [50, 100])
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_pruned_weights_stay_exactly_zero_while_others_train(percent, optimizer):
    model = _lstm()
    matrices = matrices_of(model, "recurrent")
    masks = lowest_masks(matrices, percent)
    prune_and_hold(matrices, masks)
    kind = {"adam": torch.optim.AdamW, "sgd": torch.optim.SGD}[optimizer]
    momentum = {"momentum": 0.9} if optimizer == "sgd" else {}
    steps = kind(model.parameters(), lr=0.05, weight_decay=0.1, **momentum)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    for _ in range(3):
        steps.zero_grad()
        model(torch.randn(5, 2, 3))[0].pow(2).sum().backward()
        steps.step()
    for name, mask in masks.items():
        assert not matrices[name][~mask].any()
        assert bool((matrices[name] != before[name])[mask].all())
    assert not torch.equal(model.get_parameter("weight_ih_l1"), before["weight_ih_l1"])


def test_what_cannot_be_pruned_is_refused():
    with pytest.raises(InputError, match="unknown part 'inputs'; did you mean 'input'"):
        matrices_of(_lstm(), "inputs")
    with pytest.raises(InputError, match=r"must have matrices named weight_ih\* .* got none"):
        matrices_of(nn.Linear(2, 2), "input")
    matrices = matrices_of(_lstm(), "both")
    with pytest.raises(InputError, match=r"percent must lie in \[0, 100\], got 101"):
        lowest_masks(matrices, 101)
    with pytest.raises(InputError, match="unknown scope 'all'"):
        lowest_masks(matrices, 50, scope="all")
