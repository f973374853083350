"""The AWD-LSTM with a mixture of softmaxes."""

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

import hyperprune as hp
from hyperprune.errors import InputError
from hyperprune.models import AWDLSTM, AWDSettings, build_language_model, preset
from hyperprune.models.awd_lstm import drop_weights
from hyperprune.rng import generator
from hyperprune.sparsity.parameters import num_gates
from hyperprune.training.nested import detached

WORDS = 17
TINY = AWDSettings(embedding_size=4, hidden_size=7, last_hidden_size=5, num_experts=3)
EVERY_RATE = (
    "weight_drop",
    *(f"dropout_{part}" for part in ("embedding", "input", "hidden", "output", "latent")),
)


def _model(settings: AWDSettings = TINY, **changes: Any) -> AWDLSTM:
    model = build_language_model(replace(settings, **changes), WORDS, generator(0, "weights"))
    assert isinstance(model, AWDLSTM)
    return model.double()


def _tokens(steps: int = 6, batch: int = 3) -> torch.Tensor:
    return torch.randint(0, WORDS, (steps, batch), generator=generator(steps, "tokens"))


def test_the_mixture_is_a_distribution_and_computed_as_published():
    model = _model().eval()
    log_probabilities, _ = model(_tokens())
    torch.testing.assert_close(
        log_probabilities.logsumexp(-1), torch.zeros(6, 3).double(), rtol=0, atol=1e-12
    )
    # Yang et al., eq. 8-9, written out.
    hidden = model.embedding(_tokens())
    for lstm in model.rnns:
        hidden, _ = lstm(hidden)
    prior = torch.softmax(model.prior(hidden), -1)
    mixed = torch.zeros(6, 3, WORDS).double()
    for expert in range(3):
        rows = slice(4 * expert, 4 * expert + 4)
        vector = torch.tanh(hidden @ model.latent.weight[rows].t() + model.latent.bias[rows])
        logits = vector @ model.embedding.weight.t() + model.decoder_bias
        mixed = mixed + prior[..., expert : expert + 1] * torch.softmax(logits, -1)
    torch.testing.assert_close(log_probabilities, mixed.log())


def test_one_expert_is_a_plain_softmax():
    model = _model(num_experts=1).eval()
    hidden = model.embedding(_tokens())
    for lstm in model.rnns:
        hidden, _ = lstm(hidden)
    logits = torch.tanh(model.latent(hidden)) @ model.embedding.weight.t() + model.decoder_bias
    torch.testing.assert_close(model(_tokens())[0], logits.log_softmax(-1))


def test_a_mixture_has_a_higher_rank_than_its_vectors_allow():
    # The softmax bottleneck: one softmax gives log-probabilities of rank at most E + 2.
    with torch.no_grad():
        one, mixed = (
            torch.linalg.matrix_rank(_large(num_experts).eval()(_tokens(40, 4))[0].flatten(0, 1), rtol=1e-9)
            for num_experts in (1, 5)
        )
    assert one <= 4 + 2 < mixed


def _large(num_experts: int) -> AWDLSTM:
    model = _model(num_experts=num_experts)
    for parameter in model.parameters():
        parameter.mul_(5)
    return model


def test_the_loss_is_the_cross_entropy_of_the_mixture_and_in_training_the_penalties_on_top():
    model = _model(activation_penalty=2.0, change_penalty=3.0)
    tokens, targets = _tokens(), _tokens().flip(0)
    plain = functional.nll_loss(model(tokens)[0].flatten(0, 1), targets.flatten())
    torch.testing.assert_close(model.eval().loss(tokens, targets)[0], plain)
    hidden = model.embedding(tokens)
    for lstm in model.rnns:
        hidden, _ = lstm(hidden)
    penalties = 2 * hidden.square().mean() + 3 * (hidden[1:] - hidden[:-1]).square().mean()
    torch.testing.assert_close(model.train().loss(tokens, targets)[0], plain + penalties)
    assert torch.isfinite(model.loss(tokens[:1], targets[:1])[0])  # one step changes nothing


def test_the_activation_penalty_sees_the_output_after_dropout_and_the_change_penalty_before():
    model = _model(activation_penalty=1.0, dropout_output=0.5)
    outputs = torch.randn(4, 2, 5, generator=generator(0, "outputs")).double()
    raw = torch.randn(4, 2, 5, generator=generator(1, "outputs")).double()
    torch.testing.assert_close(model._penalties(outputs, raw), outputs.square().mean())
    model = _model(change_penalty=1.0)
    torch.testing.assert_close(model._penalties(outputs, raw), (raw[1:] - raw[:-1]).square().mean())


def test_weight_drop_drops_recurrent_weights_and_nothing_else():
    lstm = nn.LSTM(4, 6).double()
    inputs = torch.randn(5, 3, 4, generator=generator(0, "inputs")).double()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        outputs, (h, c) = drop_weights(lstm, inputs, None, 0.5)
        torch.manual_seed(1)
        mask = functional.dropout(torch.ones_like(lstm.get_parameter("weight_hh_l0")), 0.5)
    assert set(mask.unique().tolist()) == {0.0, 2.0}
    before = lstm.get_parameter("weight_hh_l0").detach().clone()
    with torch.no_grad():
        lstm.get_parameter("weight_hh_l0").mul_(mask)
    expected, (expected_h, expected_c) = lstm(inputs)
    torch.testing.assert_close(outputs, expected)
    torch.testing.assert_close((h, c), (expected_h, expected_c))
    with torch.no_grad():
        lstm.get_parameter("weight_hh_l0").copy_(before)
    torch.testing.assert_close(drop_weights(lstm, inputs, None, 0.0)[0], lstm(inputs)[0])
    # The first step has a zero state to read, so no dropped weight can show there, an activation would.
    torch.testing.assert_close(outputs[0], lstm(inputs)[0][0])


def test_dead_weights_stay_dead_and_get_no_gradient_where_a_weight_is_dropped():
    model = _model(weight_drop=0.5).train()
    raw = model.rnns[0].get_parameter("weight_hh_l0")
    with torch.no_grad():
        raw[:, ::2] = 0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model.loss(_tokens(), _tokens())[0].backward()
    assert (raw[:, ::2] == 0).all()
    assert raw.grad is not None
    dropped = (raw.grad == 0).double().mean().item()
    assert 0.3 < dropped < 0.7  # of 196 weights, at a rate of a half: within five standard errors


@pytest.mark.parametrize("rate", EVERY_RATE)
def test_each_kind_of_dropout_acts_in_training_and_not_in_evaluation(rate):
    whole, dropping = _model().eval(), _model(TINY, **{rate: 0.6})
    tokens = _tokens()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        assert not torch.allclose(dropping.train()(tokens)[0], whole(tokens)[0])
        before = torch.get_rng_state()
        assert torch.equal(dropping.eval()(tokens)[0], whole(tokens)[0])
        assert torch.equal(torch.get_rng_state(), before)


def test_two_windows_are_one_sequence():
    model = _model().eval()
    tokens = _tokens(9)
    whole, last = model(tokens)
    first, state = model(tokens[:4])
    second, last_again = model(tokens[4:], detached(state))
    torch.testing.assert_close(torch.cat([first, second]), whole)
    torch.testing.assert_close(last_again, last)


@pytest.mark.parametrize(
    ("name", "vocabulary_size", "sizes", "millions"),
    [
        # Yang et al., tables 1 and 2: 22 M weights on PTB, 35 M on WikiText-2.
        ("awd-mos-ptb", 10_000, [280, 960, 960, 620], 22),
        ("awd-mos-wikitext2", 33_278, [300, 1150, 1150, 650], 35),
    ],
)
def test_published_sizes(name, vocabulary_size, sizes, millions):
    model = build_language_model(preset(name), vocabulary_size, generator(0, "weights"))
    assert isinstance(model, AWDLSTM)
    assert [(lstm.input_size, lstm.hidden_size) for lstm in model.rnns] == list(pairwise(sizes))
    assert model.prior.weight.shape == (15, sizes[-1])
    assert model.latent.weight.shape == (15 * sizes[0], sizes[-1])
    assert round(sum(parameter.numel() for parameter in model.parameters()) / 1e6) == millions


def test_every_layer_has_its_spectrum_on_whole_weights():
    model = _model(weight_drop=0.5, dropout_input=0.5).train()  # training mode must make no difference
    runs = model.recurrent_runs(_tokens(20))
    assert [run[0].hidden_size for run in runs] == [7, 7, 5]
    hidden = model.embedding(_tokens(20))
    for index, (module, inputs, state) in enumerate(runs):
        assert state is None
        assert module is model.rnns[index]
        torch.testing.assert_close(inputs, hidden)
        hidden, _ = module(hidden)
        exponents = hp.lyapunov_spectrum(module, inputs, state, jacobian="hidden", warmup=5).exponents
        assert exponents.shape == (module.hidden_size,)


def test_gates_are_known_and_ties_are_one_tensor():
    model = _model()
    assert num_gates(model, "rnns.2.weight_hh_l0") == 4
    names = [name for name, weight in model.named_parameters() if weight.ndim == 2]
    assert names == [
        "embedding.weight",
        *(f"rnns.{layer}.weight_{side}_l0" for layer in range(3) for side in ("ih", "hh")),
        "prior.weight",
        "latent.weight",
    ]


def test_weights_come_from_the_given_generator_alone():
    before = torch.get_rng_state()
    one, two = _model(), _model()
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert one.rnns[2].get_parameter("weight_hh_l0").abs().max().item() <= 5**-0.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_experts": 0}, "num_experts must be at least 1, got 0"),
        ({"weight_drop": 1.0}, r"weight_drop must lie in \[0, 1\), got 1.0"),
        ({"dropout_latent": -0.1}, r"dropout_latent must lie in \[0, 1\), got -0.1"),
        ({"change_penalty": -1.0}, "change_penalty must be 0 or more, got -1.0"),
        ({"init_range": 0.0}, "init_range must be positive and finite, got 0.0"),
        ({"init_range": math.inf}, "init_range must be positive and finite, got inf"),
        (
            {"num_layers": 1, "hidden_size": 99},
            "a single layer has last_hidden_size units, got hidden_size 99",
        ),
        (
            {"num_layers": 1, "hidden_size": 5, "last_hidden_size": 5, "dropout_hidden": 0.5},
            "dropout_hidden acts between layers, and there is one, got 0.5",
        ),
    ],
)
def test_settings_out_of_range_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        replace(TINY, **change)
