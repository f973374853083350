"""The tensors that get pruned are those meant, each once."""

import pytest
import torch
from torch import nn

from hyperprune.errors import InputError
from hyperprune.models import cells
from hyperprune.sparsity.parameters import masks_by_name, matrix_shape, num_gates, select_parameters
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


def test_a_weight_that_is_made_orthogonal_is_refused_because_it_would_stay_dense() -> None:
    model = nn.utils.parametrizations.orthogonal(nn.Linear(4, 4))
    with pytest.raises(InputError, match=r"must be the weight itself, got parametrizations.*remove it first"):
        select_parameters(model, None)
    assert list(select_parameters(nn.Sequential(model, nn.Linear(4, 4)), "1.weight")) == ["1.weight"]


@pytest.mark.parametrize("patterns", [None, "weight_*", "*parametrizations*"])
@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
def test_weight_norm_is_refused_because_a_row_without_weights_would_be_nan(patterns: str | None) -> None:
    old = nn.utils.weight_norm(nn.Linear(3, 4))
    new = nn.utils.parametrizations.weight_norm(nn.Linear(3, 4))
    for model in [old] if patterns == "weight_*" else [new] if patterns else [old, new]:
        with pytest.raises(InputError, match=r"must be the weight itself.*remove weight_norm first"):
            select_parameters(model, patterns)
    model = nn.Sequential(new, nn.Linear(4, 5))
    assert list(select_parameters(model, "1.weight")) == ["1.weight"]


def test_other_parametrizations_may_be_pruned() -> None:
    model = nn.utils.parametrizations.spectral_norm(nn.Linear(3, 4))
    assert list(select_parameters(model, None)) == ["parametrizations.weight.original"]


def test_masks_are_found_under_any_name_of_their_tensor() -> None:
    class Inner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = nn.Linear(2, 3)
            self.tied = nn.Linear(2, 3)
            self.tied.weight = self.module.weight

    mask = torch.ones(3, 2, dtype=torch.bool)
    names = ("module.weight", "tied.weight", "module.module.weight", "_orig_mod.module.tied.weight")
    for name in names:
        assert list(masks_by_name(Inner(), {name: mask})) == ["module.weight"]
    assert list(masks_by_name(nn.Linear(2, 3), {"module._orig_mod.module.weight": mask})) == ["weight"]
    with pytest.raises(InputError, match=r"got two for module.weight, also under the name of tied.weight"):
        masks_by_name(Inner(), dict.fromkeys(("module.weight", "tied.weight"), mask))


@pytest.mark.parametrize("masks", [[torch.ones(2)], {"weight": torch.ones(3, 2).bool().numpy()}])
def test_masks_of_the_wrong_kind_are_refused(masks: object) -> None:
    with pytest.raises(InputError, match="masks must map parameters' names to bool tensors"):
        masks_by_name(nn.Linear(2, 3), masks)


def test_gates_are_known_for_torch_cells_and_for_modules_that_say_so() -> None:
    assert num_gates(tiny(), "rnn.weight_hh_l1") == 4
    assert num_gates(tiny(cell="GRU"), "rnn.weight_ih_l0") == 3
    assert num_gates(tiny(cell="RNN"), "rnn.weight_ih_l0") == 1
    assert num_gates(nn.LSTMCell(2, 3), "weight_hh") == 4
    assert num_gates(nn.LSTM(3, 4, proj_size=2), "weight_hr_l0") == 1
    assert num_gates(tiny(), "decoder.weight") == 1
    assert num_gates(cells.RHN(4, 4, depth=2), "weight_hh_l0_d1") == 2


def test_a_module_says_which_matrix_a_parameter_stands_for() -> None:
    class Edges(nn.Linear):
        matrix_shapes = {"weight": (6, 4)}

    model = nn.Sequential(nn.Linear(2, 3), Edges(2, 3))
    names = [name for name, _ in model.named_parameters()]
    assert [matrix_shape(model, name) for name in names] == [None, None, (6, 4), None]
