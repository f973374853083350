"""Sequence classifiers: readout, padding, start values, sizes."""

import math
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import hyperprune as hp
from hyperprune.errors import InputError
from hyperprune.models.cells import PeepholeLSTM
from hyperprune.models.classifier import CELLS, ClassifierSettings, SequenceClassifier
from hyperprune.rng import generator
from hyperprune.sparsity.parameters import num_gates


def _model(cell: Any = "gru", *, features=3, classes=4, **settings) -> SequenceClassifier:
    chosen = ClassifierSettings(cell=cell, **{"hidden_size": 6, **settings})
    return SequenceClassifier(chosen, features, classes, generator(0, "weights"))


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("num_layers", [1, 2])
def test_padding_changes_nothing(cell, num_layers):
    if cell == "rhn" and num_layers == 2:
        pytest.skip("an RHN has one layer")
    model = _model(cell, num_layers=num_layers).double()
    inputs = torch.randn(7, 3, 3, generator=generator(0, "inputs"), dtype=torch.float64)
    lengths = torch.tensor([7, 1, 4])
    alone = torch.cat(
        [model(inputs[:length, index : index + 1]) for index, length in enumerate(lengths.tolist())]
    )
    for padding in (0.0, 1e3):
        padded = inputs.clone()
        for index, length in enumerate(lengths.tolist()):
            padded[length:, index] = padding
        torch.testing.assert_close(model(padded, lengths), alone)
    torch.testing.assert_close(model(inputs), model(inputs, torch.full((3,), 7)))


@pytest.mark.parametrize("cell", CELLS)
def test_every_cell_trains_measures_and_names_its_matrices(cell):
    model = _model(cell)
    inputs = torch.randn(9, 5, 3, generator=generator(0, "inputs"))
    model(inputs).square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    ((module, driven, state),) = model.recurrent_runs(inputs)
    spectrum = hp.lyapunov_spectrum(module, driven, state, jacobian="hidden", warmup=2)
    assert spectrum.exponents.shape == (6,)
    names = model.prunable()
    assert {name.partition(".")[0] for name in names} == {"rnn"}
    assert all(model.get_parameter(name).ndim == 2 for name in names)
    assert "readout.weight" in _model(cell, pruned="all").prunable()


@pytest.mark.parametrize("cell", CELLS)
def test_a_run_that_skips_goes_on_as_the_whole_one(cell):
    model = _model(cell).double()
    inputs = torch.randn(9, 2, 3, generator=generator(0, "inputs"), dtype=torch.float64)
    whole, _ = model.rnn(inputs)
    ((module, driven, state),) = model.recurrent_runs(inputs, skip=4)
    torch.testing.assert_close(module(driven, state)[0], whole[4:])


def test_recurrent_sizes_are_the_papers():
    # JSE, table 3: an LSTM's 4·400·428 = 684.8 k (95 % sparse: 34.2 k); the peephole LSTM's 1.32 M.
    def count(cell) -> int:
        model = _model(cell, features=28, hidden_size=400)
        return sum(model.get_parameter(name).numel() for name in model.prunable())

    assert count("lstm") == 684_800
    assert count("peephole_lstm") == 4 * 400 * (28 + 400 + 400) == 1_324_800
    assert count("gru") == 3 * 400 * 428
    assert count("rnn") == 400 * 428


@pytest.mark.parametrize(
    ("scheme", "standard_deviation"),
    [
        ("normal", 0.05),
        ("glorot", math.sqrt(2 / (50 + 200))),  # uniform on ±√(6/s) has the variance 2/s
        ("he", math.sqrt(2 / 50)),
        ("torch", 1 / math.sqrt(3 * 200)),
    ],
)
def test_start_values_have_their_schemes_spread(scheme, standard_deviation):
    model = _model(
        "lstm", features=50, hidden_size=200, init=scheme, init_scale=0.05 if scheme == "normal" else None
    )
    weight = model.rnn.weight_ih_l0
    assert isinstance(weight, torch.Tensor)
    # 40,000 draws: the spread of a standard deviation is about 0.35 %.
    assert weight.std().item() == pytest.approx(standard_deviation, rel=0.02)
    assert weight.mean().item() == pytest.approx(0, abs=4 * standard_deviation / 200)
    bias = model.rnn.bias_ih_l0
    assert isinstance(bias, torch.Tensor)
    assert (bias.std().item() > 0) == (scheme == "torch")


def test_the_uniform_start_is_all_positive_and_an_rhn_keeps_its_gates_bias():
    weight = _model("lstm", features=50, init="uniform", init_scale=0.1).rnn.weight_ih_l0
    assert isinstance(weight, torch.Tensor)
    assert 0 <= weight.min() < 0.001
    assert 0.099 < weight.max() <= 0.1
    rhn = _model("rhn", depth=2).rnn
    for bias in rhn.biases():  # pyright: ignore[reportCallIssue]
        assert bias.tolist() == [0.0] * 6 + [-2.0] * 6


def test_weights_come_from_the_given_generator_alone():
    before = torch.get_rng_state()
    one, two = _model(), _model()
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


@pytest.mark.parametrize("peephole", ["full", "diagonal"])
def test_a_peephole_lstm_reads_a_sequence_in_one_product_per_layer(peephole):
    class Products(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.rows: list[int] = []

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func in (torch.ops.aten.mm.default, torch.ops.aten.addmm.default):
                self.rows.append(args[-2].shape[0])
            return func(*args, **(kwargs or {}))

    lstm = PeepholeLSTM(3, 5, num_layers=2, peephole=peephole)
    with Products() as products:
        lstm(torch.randn(8, 4, 3, generator=generator(0, "inputs")))
    assert products.rows.count(8 * 4) == 2  # the inputs of both layers
    assert set(products.rows) == {8 * 4, 4}


def test_gates_of_a_full_peephole_are_told_apart():
    full, diagonal = PeepholeLSTM(3, 4, peephole="full"), PeepholeLSTM(3, 4, peephole="diagonal")
    assert [num_gates(full, name) for name, _ in full.named_parameters()] == [4, 4, 4, 1]
    assert [num_gates(diagonal, name) for name, _ in diagonal.named_parameters()] == [4, 4, 1, 1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden_size": 0}, "hidden_size must be at least 1, got 0"),
        ({"cell": "rhn", "num_layers": 2}, "an RHN has one layer, got num_layers = 2"),
        ({"cell": "gru", "depth": 2}, "depth is an RHN's, got 2 for 'gru'"),
        ({"init_scale": 0.0}, "init_scale must be positive, got 0.0"),
        ({"init": "he", "init_scale": 0.2}, "init_scale means nothing to the initialisation 'he'"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        ClassifierSettings(**settings)


@pytest.mark.parametrize("lengths", [[0, 1, 2], [1, 2, 8]])
def test_lengths_that_do_not_fit_are_refused(lengths):
    with pytest.raises(InputError, match="lengths must be 3 numbers from 1 to 7"):
        _model()(torch.zeros(7, 3, 3), torch.tensor(lengths))
