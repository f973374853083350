import pytest
import torch

from hyperprune import rng
from hyperprune.errors import InputError
from hyperprune.models.dropout import dropout_mask, embed_words, locked_dropout


def test_a_locked_mask_is_the_same_at_all_times_and_differs_within_the_batch() -> None:
    dropped = locked_dropout(torch.ones(5, 4, 100), 0.5, training=True, generator=rng.generator(0, "mask"))
    assert torch.equal(dropped, dropped[:1].expand_as(dropped))
    assert not torch.equal(dropped[0, 0], dropped[0, 1])


def test_a_mask_keeps_the_mean_and_holds_only_zero_and_the_inverse_rate() -> None:
    mask = dropout_mask(torch.zeros(1), (200_000,), 0.65, rng.generator(0, "mask"))
    assert set(mask.unique().tolist()) == {0.0, float(torch.tensor(1 / (1 - 0.65)))}
    # 5 standard errors of a mean of 200,000 draws of variance .65/.35
    assert abs(float(mask.mean()) - 1) < 5 * (0.65 / 0.35 / 200_000) ** 0.5


def test_a_dropped_word_is_zero_wherever_it_occurs_and_a_kept_one_is_scaled() -> None:
    tokens = torch.randint(0, 50, (30, 4), generator=rng.generator(0, "tokens"))
    weight = torch.ones(50, 3)
    embedded = embed_words(tokens, weight, 0.5, training=True, generator=rng.generator(0, "mask"))
    factors = {
        (int(t), *row.tolist()) for t, row in zip(tokens.flatten(), embedded.flatten(0, 1), strict=True)
    }
    assert len(factors) == len(tokens.unique())  # one factor for each word
    assert {factor[1:] for factor in factors} == {(0.0,) * 3, (2.0,) * 3}


def test_dropping_looked_up_rows_equals_dropping_rows_of_the_matrix() -> None:
    tokens = torch.randint(0, 9, (6, 2), generator=rng.generator(0, "tokens"))
    weight = torch.randn(9, 3, generator=rng.generator(0, "weight"))
    embedded = embed_words(tokens, weight, 0.4, training=True, generator=rng.generator(0, "mask"))
    masked = weight * dropout_mask(weight, (9,), 0.4, rng.generator(0, "mask"))[:, None]
    torch.testing.assert_close(embedded, masked[tokens], rtol=0, atol=0)


def test_nothing_is_drawn_in_evaluation_mode_or_at_rate_zero() -> None:
    generator, sequence = rng.generator(0, "mask"), torch.ones(2, 3, 4)
    before, global_before = generator.get_state(), torch.get_rng_state()
    assert locked_dropout(sequence, 0.5, training=False, generator=generator) is sequence
    assert locked_dropout(sequence, 0.0, training=True, generator=generator) is sequence
    embed_words(torch.zeros(2, 3, dtype=torch.int64), sequence[0], 0.5, training=False, generator=generator)
    assert torch.equal(generator.get_state(), before)
    locked_dropout(sequence, 0.5, training=True, generator=generator)
    assert torch.equal(torch.get_rng_state(), global_before)


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_a_rate_outside_zero_to_one_is_refused(rate: float) -> None:
    with pytest.raises(InputError, match=r"must lie in \[0, 1\), got"):
        locked_dropout(torch.ones(1, 1, 1), rate, training=False)
