import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hyperprune.data.batches import bptt_windows, contiguous_batches, num_windows, unigram_perplexity
from hyperprune.errors import InputError


def test_columns_are_contiguous_pieces_and_the_rest_is_dropped() -> None:
    columns = contiguous_batches(torch.arange(11), 3)
    assert columns.t().tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]


@given(length=st.integers(2, 200), batch_size=st.integers(1, 9), bptt=st.integers(1, 40))
def test_windows_cover_the_stream_exactly_once(length: int, batch_size: int, bptt: int) -> None:
    if length < 2 * batch_size:
        return
    columns = contiguous_batches(torch.arange(length), batch_size)
    pairs = list(bptt_windows(columns, bptt))
    assert len(pairs) == num_windows(columns, bptt)
    inputs, targets = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    assert torch.equal(inputs, columns[:-1])
    assert torch.equal(targets, columns[1:])
    assert all(len(x) == len(y) == bptt for x, y in pairs[:-1])
    assert 1 <= len(pairs[-1][0]) <= bptt


def test_a_corpus_shorter_than_one_batch_is_refused() -> None:
    assert contiguous_batches(torch.arange(20), 10).shape == (2, 10)
    with pytest.raises(InputError, match="20 in all, got 19; use more text or a smaller batch size"):
        contiguous_batches(torch.arange(19), 10)


def test_batch_size_and_bptt_below_one_are_refused() -> None:
    with pytest.raises(InputError, match="batch_size must be at least 1, got 0"):
        contiguous_batches(torch.arange(5), 0)
    with pytest.raises(InputError, match="bptt must be at least 1 step, got 0"):
        next(bptt_windows(torch.zeros(5, 1, dtype=torch.int64), 0))


def test_unigram_perplexity_is_that_of_the_smoothed_frequencies() -> None:
    train, heldout = torch.tensor([0, 0, 0, 1]), torch.tensor([0, 2])
    # add-one over 3 words: 4/7, 2/7, 1/7
    expected = math.exp(-(math.log(4 / 7) + math.log(1 / 7)) / 2)
    assert unigram_perplexity(train, heldout, 3) == pytest.approx(expected, rel=1e-12)


def test_unigram_perplexity_of_even_frequencies_is_the_number_of_words() -> None:
    stream = torch.arange(50).repeat(3)
    assert unigram_perplexity(stream, torch.tensor([7, 7, 8]), 50) == pytest.approx(50, rel=1e-12)


def test_unigram_perplexity_refuses_foreign_indices_and_nothing() -> None:
    with pytest.raises(InputError, match=r"train must lie in \[0, 2\), got 0 to 2"):
        unigram_perplexity(torch.tensor([0, 2]), torch.tensor([0]), 2)
    with pytest.raises(InputError, match="at least one token, got 0"):
        unigram_perplexity(torch.tensor([0]), torch.tensor([], dtype=torch.int64), 2)
