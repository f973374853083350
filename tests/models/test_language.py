import copy
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from hyperprune import rng
from hyperprune.errors import InputError
from hyperprune.models import (
    PRESETS,
    RHN,
    LanguageSettings,
    ModelSettings,
    RHNLanguageModel,
    SoftmaxLanguageModel,
    StackedLSTM,
    build_language_model,
    detach_state,
    preset,
)

WORDS = 17
TINY = {
    "lstm": ModelSettings(kind="lstm", embedding_size=6, hidden_size=5, num_layers=2),
    "lstm tied": ModelSettings(kind="lstm", embedding_size=5, hidden_size=5, num_layers=2, tied=True),
    "gru": ModelSettings(kind="gru", embedding_size=6, hidden_size=5, num_layers=2),
    "rhn": ModelSettings(kind="rhn", embedding_size=6, hidden_size=5, depth=2, coupled=False),
    "rhn tied": ModelSettings(kind="rhn", embedding_size=5, hidden_size=5, depth=2, tied=True),
}
every_model = pytest.mark.parametrize("name", TINY)


def build(settings: LanguageSettings, seed: int = 0) -> SoftmaxLanguageModel[Any]:
    assert isinstance(settings, ModelSettings)
    return build_language_model(settings, WORDS, rng.generator(seed, "weights"))


def tokens(steps: int = 7, batch: int = 3) -> torch.Tensor:
    return torch.randint(0, WORDS, (steps, batch), generator=rng.generator(0, "tokens"))


def dropping(settings: ModelSettings, rate: float = 0.5) -> ModelSettings:
    names = ("dropout_embedding", "dropout_input", "dropout_hidden", "dropout_output")
    return replace(settings, **dict.fromkeys(names, rate))


@every_model
def test_the_same_seed_gives_the_same_weights_and_leaves_the_global_generator_alone(name: str) -> None:
    before = torch.get_rng_state()
    first, second, other = build(TINY[name]), build(TINY[name]), build(TINY[name], seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    for key, parameter in first.named_parameters():
        assert torch.equal(parameter, second.get_parameter(key))
        if not key.startswith(("decoder.bias", "rnn.bias_l0")):  # these start at constants
            assert not torch.equal(parameter, other.get_parameter(key))


@every_model
def test_weights_do_not_depend_on_the_global_generator(name: str) -> None:
    first = build(TINY[name])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)
        second = build(TINY[name])
    assert all(torch.equal(p, second.get_parameter(key)) for key, p in first.named_parameters())


@every_model
def test_two_windows_with_the_carried_state_score_like_one(name: str) -> None:
    model = build(TINY[name]).double().eval()
    whole, last = model(tokens(8))
    first, state = model(tokens(8)[:3])
    second, state = model(tokens(8)[3:], detach_state(state))
    torch.testing.assert_close(torch.cat([first, second]), whole)
    torch.testing.assert_close(state, last)
    assert whole.shape == (8, 3, WORDS)


@every_model
def test_scores_are_the_decoder_on_the_recurrent_module_on_the_embedding(name: str) -> None:
    model = build(TINY[name]).double().eval()
    outputs, _ = model.rnn(model.embedding.weight[tokens()])
    torch.testing.assert_close(model(tokens())[0], outputs @ model.decoder.weight.T + model.decoder.bias)


@every_model
def test_recurrent_runs_give_the_inputs_of_evaluation_mode_whatever_the_mode(name: str) -> None:
    model = build(dropping(TINY[name])).train()
    ((module, inputs, state),) = model.recurrent_runs(tokens())
    assert module is model.rnn
    assert state is None
    assert not inputs.requires_grad
    assert torch.equal(inputs, model.embedding.weight[tokens()])
    scores = model.decoder(model.eval().rnn(inputs)[0])
    torch.testing.assert_close(scores, model(tokens())[0])
    assert isinstance(module, nn.LSTM | nn.GRU | RHN)


@pytest.mark.parametrize("name", ["lstm tied", "rhn tied"])
def test_a_tied_matrix_is_one_parameter_through_copies_and_state_dicts(name: str) -> None:
    model = build(TINY[name])
    for candidate in (model, copy.deepcopy(model)):
        assert candidate.decoder.weight is candidate.embedding.weight
        names = [key for key, _ in candidate.named_parameters()]
        assert "embedding.weight" in names
        assert "decoder.weight" not in names
    other = build(TINY[name], seed=1)
    other.load_state_dict(model.state_dict())
    assert other.decoder.weight is other.embedding.weight
    assert torch.equal(other.embedding.weight, model.embedding.weight)


@every_model
def test_the_keys_of_the_state_dict_are_stable(name: str) -> None:
    settings = TINY[name]
    if settings.kind != "rhn":
        parts = ("weight_ih_l", "weight_hh_l", "bias_ih_l", "bias_hh_l")
        recurrent = {f"rnn.{part}{layer}" for part in parts for layer in range(2)}
    else:
        recurrent = {"rnn.weight_ih_l0"} | {
            f"rnn.{p}_l0_d{d}" for p in ("weight_hh", "bias") for d in range(2)
        }
    expected = recurrent | {"embedding.weight", "decoder.weight", "decoder.bias"}
    assert set(build(settings).state_dict()) == expected


@every_model
@pytest.mark.parametrize("dropout", ["embedding", "input", "hidden", "output"])
def test_each_dropout_acts_in_training_only_and_draws_from_the_global_generator(
    name: str, dropout: str
) -> None:
    model = build(replace(TINY[name], **{f"dropout_{dropout}": 0.5}))
    reference = build(TINY[name]).eval()(tokens())[0]
    torch.testing.assert_close(model.eval()(tokens())[0], reference)
    model.train()
    scores = []
    with torch.random.fork_rng(devices=[]):
        for seed in (0, 0, 1):
            torch.manual_seed(seed)
            scores.append(model(tokens())[0])
    assert torch.equal(scores[0], scores[1])
    assert not torch.equal(scores[0], scores[2])
    assert not torch.allclose(scores[0], reference)


def test_the_masks_of_an_rhn_are_fixed_over_the_window() -> None:
    settings = replace(TINY["rhn"], dropout_output=0.5)
    model = build(settings).double().train()
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        model.decoder.weight.fill_(0.0)
        model.decoder.weight[:5] = torch.eye(5)  # shows the masked outputs themselves
        torch.manual_seed(0)
        seen = model(tokens())[0][..., :5]
    zero = seen == 0
    assert torch.equal(zero, zero[:1].expand_as(zero))
    assert zero.any()
    assert not zero.all()


def test_the_first_gradient_step_lowers_the_loss_of_every_preset_that_a_test_can_afford() -> None:
    for name in ("mini", "rhn-mini"):
        model = build(preset(name)).train()
        batch = tokens(10, 4)
        losses = []
        with torch.random.fork_rng(devices=[]):
            for _ in range(2):
                torch.manual_seed(0)
                loss = functional.cross_entropy(model(batch[:-1])[0].flatten(0, 1), batch[1:].flatten())
                losses.append(loss.item())
                model.zero_grad()
                loss.backward()
                with torch.no_grad():
                    for parameter in model.parameters():
                        assert parameter.grad is not None
                        parameter.sub_(0.1 * parameter.grad)
        assert losses[1] < losses[0]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # 2·V·E + V for embedding and decoder, 2·(4H·2H + 8H) for the layers
        ("large", 2 * 10_000 * 1500 + 10_000 + 2 * (4 * 1500 * 3000 + 8 * 1500)),
        # V·H + V, 2H·(I + depth·H) weights and depth·2H biases: the 23 M of the RHN paper
        ("rhn-large", 10_000 * 830 + 10_000 + 2 * 830 * 11 * 830 + 10 * 2 * 830),
    ],
)
def test_the_papers_networks_have_their_numbers_of_weights(name: str, expected: int) -> None:
    model = build_language_model(preset(name), 10_000, rng.generator(0, "weights"))
    assert sum(parameter.numel() for parameter in model.parameters()) == expected
    assert round(expected / 1e6) == {"large": 66, "rhn-large": 23}[name]


def test_embedding_and_decoder_start_within_their_range_and_layers_as_torch_starts_them() -> None:
    model = build_language_model(preset("mini"), 500, rng.generator(0, "weights"))
    limits = {"embedding.weight": 0.1, "decoder.weight": 0.1, "rnn.weight_hh_l0": 128**-0.5}
    for name, limit in limits.items():
        largest = float(model.get_parameter(name).detach().abs().max())
        assert 0.99 * limit < largest <= limit  # of more than 10,000 uniform draws
    assert not model.get_parameter("decoder.bias").any()


def test_presets_have_the_sizes_their_names_promise() -> None:
    sizes = {
        name: (settings.kind, settings.hidden_size, settings.num_layers * getattr(settings, "depth", 1))
        for name, settings in PRESETS.items()
    }
    assert sizes == {
        "mini": ("lstm", 128, 2),
        "small": ("lstm", 200, 2),
        "medium": ("lstm", 650, 2),
        "large": ("lstm", 1500, 2),
        "gru-mini": ("gru", 128, 2),
        "rhn-mini": ("rhn", 128, 3),
        "rhn-large": ("rhn", 830, 10),
        "jse": ("lstm", 2000, 1),
        "awd-mos-mini": ("awd_lstm_mos", 128, 3),
        "awd-mos-ptb": ("awd_lstm_mos", 960, 3),
        "awd-mos-wikitext2": ("awd_lstm_mos", 1150, 3),
    }


def test_the_class_follows_the_kind_and_refuses_the_other() -> None:
    assert type(build(TINY["lstm"])) is StackedLSTM
    assert type(build(TINY["rhn"])) is RHNLanguageModel
    with pytest.raises(InputError, match="a model of kind 'lstm' takes settings of that kind, got 'rhn'"):
        StackedLSTM(TINY["rhn"], WORDS, rng.generator(0, "weights"))


def test_detaching_cuts_the_graph_of_every_part_of_a_state() -> None:
    for settings in TINY.values():
        _, state = build(settings)(tokens())
        parts = state if isinstance(state, tuple) else (state,)
        detached = detach_state(state)
        detached = detached if isinstance(detached, tuple) else (detached,)
        assert all(part.requires_grad for part in parts)
        assert not any(part.requires_grad for part in detached)
    assert detach_state(None) is None


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("lstm", {"hidden_size": 0}, "hidden_size must be at least 1, got 0"),
        ("lstm", {"dropout_input": 1.0}, r"dropout_input must lie in \[0, 1\), got 1.0"),
        ("lstm", {"init_range": 0.0}, "init_range must be positive and finite, got 0.0"),
        ("lstm", {"init_range": math.inf}, "init_range must be positive and finite, got inf"),
        ("lstm", {"tied": True}, "embedding_size 6 and hidden_size 5"),
        ("lstm", {"depth": 3}, "depth must be 1 for an LSTM, got 3"),
        ("lstm", {"coupled": False}, "only an RHN has coupled gates"),
        ("lstm", {"num_layers": 1, "dropout_hidden": 0.5}, "must be 0 with one layer, got 0.5"),
        ("rhn", {"num_layers": 2}, "one layer, got num_layers = 2; set depth"),
        ("lstm", {"num_sampled": 0}, "num_sampled must be at least 1, got 0"),
        ("rhn tied", {"frozen_embedding": True}, "a frozen embedding must not be tied"),
        ("lstm", {"recurrent_init": "he", "recurrent_init_range": 0.1}, "means nothing to the initial"),
    ],
)
def test_settings_out_of_range_or_without_effect_are_refused(kind: str, change: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(TINY[kind], **change)


def test_unknown_presets_and_empty_vocabularies_are_refused() -> None:
    with pytest.raises(InputError, match="unknown model preset 'smal'; did you mean 'small'"):
        preset("smal")
    with pytest.raises(InputError, match="at least 2 words, got 1"):
        build_language_model(TINY["lstm"], 1, rng.generator(0, "weights"))
