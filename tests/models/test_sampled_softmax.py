"""The sampled softmax against the full one."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from hyperprune.errors import InputError
from hyperprune.models import ModelSettings, build_language_model
from hyperprune.models.sampled_softmax import (
    inclusion_probabilities,
    sample_words,
    sampled_cross_entropy,
    target_logits_and_denominators,
)
from hyperprune.rng import generator


@pytest.mark.parametrize(
    ("vocabulary_size", "num_sampled"), [(50, 1), (50, 12), (50, 49), (50, 50), (2000, 100)]
)
def test_inclusion_probabilities_add_up_and_fall_off_log_uniformly(vocabulary_size, num_sampled):
    inclusion = inclusion_probabilities(vocabulary_size, num_sampled)
    assert float(inclusion.sum()) == pytest.approx(num_sampled, rel=1e-12)
    assert inclusion.max() <= 1 + 1e-12
    rank = torch.arange(vocabulary_size, dtype=torch.float64)[inclusion < 1]
    ratios = inclusion[inclusion < 1] / torch.log((rank + 2.0) / (rank + 1.0))
    torch.testing.assert_close(ratios, ratios[:1].expand_as(ratios), rtol=1e-5, atol=0)
    if len(rank):  # the next word would be above 1 if it were not certain
        certain = int(rank[0])
        assert certain == 0 or ratios[0] * math.log((certain + 1) / certain) >= 1


def test_a_sample_holds_distinct_words_each_as_often_as_it_should():
    inclusion = inclusion_probabilities(40, 9)
    random, counts, num_draws = generator(0, "samples"), torch.zeros(40), 4000
    for _ in range(num_draws):
        words = sample_words(inclusion, random)
        assert len(words) == 9
        assert len(words.unique()) == 9
        counts[words] += 1
    errors = (inclusion * (1 - inclusion) / num_draws).sqrt()
    # 4.5 standard errors: one of forty normal numbers goes beyond with a probability of 3e-4.
    assert ((counts / num_draws - inclusion).abs() <= 4.5 * errors + 1e-9).all()


def _problem(num_words: int = 60) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    random = generator(0, "problem")
    outputs = torch.randn(5, 4, generator=random, dtype=torch.float64)
    weight = 0.3 * torch.randn(num_words, 4, generator=random, dtype=torch.float64)
    bias = 0.3 * torch.randn(num_words, generator=random, dtype=torch.float64)
    return outputs, weight, bias, torch.tensor([0, 3, 3, 20, num_words - 1])


def test_sampling_every_word_is_the_full_softmax():
    outputs, weight, bias, targets = _problem()
    inclusion = inclusion_probabilities(60, 60)
    loss = sampled_cross_entropy(outputs, weight, bias, targets, inclusion)
    torch.testing.assert_close(loss, functional.cross_entropy(outputs @ weight.t() + bias, targets))


def test_the_estimated_denominators_are_unbiased():
    outputs, weight, bias, targets = _problem()
    inclusion, random = inclusion_probabilities(60, 7), generator(0, "draws")
    exact = (outputs @ weight.t() + bias).logsumexp(1).exp()
    estimates = torch.stack(
        [
            target_logits_and_denominators(
                outputs, weight, bias, targets, inclusion, sample_words(inclusion, random)
            )[1].exp()
            for _ in range(4000)
        ]
    )
    z = (estimates.mean(0) - exact) / (estimates.std(0) / len(estimates) ** 0.5)
    assert z.abs().max() < 4  # five positions; beyond 4 with a probability of 3e-4


def test_the_gradient_approaches_the_full_softmaxs_as_the_sample_grows():
    outputs, weight, bias, targets = _problem()
    weight.requires_grad_()
    (full,) = torch.autograd.grad(functional.cross_entropy(outputs @ weight.t() + bias, targets), weight)
    errors = []
    for num_sampled in (4, 20, 50):
        inclusion, random = inclusion_probabilities(60, num_sampled), generator(num_sampled, "draws")
        mean = torch.zeros_like(full)
        for _ in range(800):
            loss = sampled_cross_entropy(outputs, weight, bias, targets, inclusion, random)
            mean += torch.autograd.grad(loss, weight)[0] / 800
        errors.append(float((mean - full).norm() / full.norm()))
    # The bias comes from the logarithm alone and is of the order of the estimate's relative variance.
    assert errors[0] > 3 * errors[1] > 9 * errors[2]
    assert errors[2] < 0.003


def test_a_model_samples_in_training_and_evaluates_in_full():
    settings = ModelSettings(kind="lstm", embedding_size=6, hidden_size=5, num_sampled=8)
    sampled = build_language_model(settings, 30, generator(0, "weights"))
    full = build_language_model(replace(settings, num_sampled=None), 30, generator(0, "weights"))
    assert sampled.state_dict().keys() == full.state_dict().keys()
    tokens, targets = torch.randint(0, 30, (2, 7, 3), generator=generator(0, "tokens"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        losses = [model.train().loss(tokens, targets)[0].item() for model in (sampled, full, sampled)]
    assert losses[0] != pytest.approx(losses[1], rel=1e-4)
    assert losses[0] != losses[2]  # another sample
    assert sampled.eval().loss(tokens, targets)[0] == full.eval().loss(tokens, targets)[0]
    torch.testing.assert_close(
        full.loss(tokens, targets)[0],
        functional.cross_entropy(full(tokens)[0].flatten(0, 1), targets.flatten()),
    )


def test_a_sample_larger_than_the_vocabulary_is_refused():
    settings = ModelSettings(kind="lstm", embedding_size=6, hidden_size=5, num_sampled=31)
    with pytest.raises(
        InputError, match=r"num_sampled must lie in 1 … 30, the size of the vocabulary, got 31"
    ):
        build_language_model(settings, 30, generator(0, "weights"))


def test_a_frozen_embedding_keeps_its_start_and_is_not_pruned():
    settings = ModelSettings(
        kind="lstm", embedding_size=6, hidden_size=5, frozen_embedding=True, pruned="recurrent"
    )
    model = build_language_model(settings, 3000, generator(0, "weights"))
    assert model.embedding.weight.detach().std().item() == pytest.approx(1, rel=0.03)
    assert model.prunable() == ["rnn.weight_ih_l0", "rnn.weight_hh_l0"]
    tokens = torch.randint(0, 30, (7, 3), generator=generator(0, "tokens"))
    model.loss(tokens, tokens)[0].backward()
    assert [name for name, weight in model.named_parameters() if weight.grad is None] == ["embedding.weight"]
