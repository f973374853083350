"""The tensors that get pruned are those meant, each once."""

import pytest
import torch
from torch import nn

from hyperprune.errors import InputError
from hyperprune.models import cells
from hyperprune.sparsity.parameters import num_gates, select_parameters
from sparsity.tiny_runs import tiny

LSTM_NAMES = [f"rnn.weight_{kind}_l{layer}" for layer in (0, 1) for kind in ("ih", "hh")]


@pytest.mark.parametrize("cell", ["LSTM", "GRU", "RNN"])
def test_by_default_every_weight_matrix_is_pruned_and_no_bias(cell: str) -> None:
    # nn.LSTM keeps its weights in no Linear: rules by layer type would leave it dense.
    assert list(select_parameters(tiny(cell=cell), None)) == ["encoder.weight", *LSTM_NAMES, "decoder.weight"]


def test_projections_and_both_directions_are_pruned() -> None:
    model = nn.LSTM(3, 4, num_layers=2, bidirectional=True, proj_size=2)
    assert set(select_parameters(model, None)) == {
        name for name, parameter in model.named_parameters() if parameter.ndim == 2
    }


def test_tied_weights_are_one_tensor_whichever_name_is_given() -> None:
    model = tiny(tied=True)
    assert list(select_parameters(model, None)) == ["encoder.weight", *LSTM_NAMES]
    assert list(select_parameters(model, ["decoder.weight", "encoder.*"])) == ["encoder.weight"]


def test_patterns_choose_in_the_order_of_the_model() -> None:
    assert list(select_parameters(tiny(), ["decoder.bias", "rnn.weight_hh*"])) == [
        "rnn.weight_hh_l0",
        "rnn.weight_hh_l1",
        "decoder.bias",
    ]
    assert list(select_parameters(tiny(), "rnn.weight_ih_l0")) == ["rnn.weight_ih_l0"]


def test_a_pattern_that_matches_nothing_is_an_error_with_the_nearest_name() -> None:
    with pytest.raises(InputError, match=r"'decoder.wieght'; did you mean 'decoder.weight'"):
        select_parameters(tiny(), ["decoder.wieght"])


def test_wrappers_do_not_show_in_names() -> None:
    model = torch.compile(tiny(), backend="eager")
    assert next(iter(select_parameters(model, None))) == "encoder.weight"  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.LayerNorm(3), "must have a weight matrix"),
        (
            nn.ParameterDict({"w": nn.Parameter(torch.zeros(2, 2, dtype=torch.complex64))}),
            "real floating point",
        ),
        (nn.ParameterDict({"w": nn.Parameter(torch.zeros(0, 2))}), "must hold a weight"),
        (nn.ParameterDict({"w": nn.Parameter(torch.zeros(3, 2).t())}), "must be contiguous"),
    ],
)
def test_what_cannot_be_pruned_is_refused_by_name(model: nn.Module, message: str) -> None:
    with pytest.raises(InputError, match=message):
        select_parameters(model, None)


def test_gates_are_known_for_torch_cells_and_for_modules_that_say_so() -> None:
    assert num_gates(tiny(), "rnn.weight_hh_l1") == 4
    assert num_gates(tiny(cell="GRU"), "rnn.weight_ih_l0") == 3
    assert num_gates(tiny(cell="RNN"), "rnn.weight_ih_l0") == 1
    assert num_gates(nn.LSTMCell(2, 3), "weight_hh") == 4
    assert num_gates(nn.LSTM(3, 4, proj_size=2), "weight_hr_l0") == 1
    assert num_gates(tiny(), "decoder.weight") == 1
    assert num_gates(cells.RHN(4, 4, depth=2), "weight_hh_l0_d1") == 2
