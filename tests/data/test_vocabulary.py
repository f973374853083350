import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hyperprune.data.vocabulary import UNKNOWN, Vocabulary
from hyperprune.errors import InputError

WORDS = st.lists(st.sampled_from(["a", "b", "c", "d", "e", UNKNOWN]), max_size=60)


def test_words_are_ranked_by_frequency_and_ties_by_first_appearance() -> None:
    tokens = list("zbaabczz")
    assert Vocabulary.from_tokens(tokens).words == ("z", "b", "a", "c", UNKNOWN)


def test_words_above_the_size_become_unknown_at_the_rank_of_what_was_cut() -> None:
    tokens = list("aaaabbbccd")
    vocabulary = Vocabulary.from_tokens(tokens, 3)
    assert vocabulary.words == ("a", "b", UNKNOWN)  # 4, 3, and 3 of c and d together
    assert vocabulary.encode(tokens).tolist() == [0] * 4 + [1] * 3 + [2] * 3
    assert Vocabulary.from_tokens([*tokens, "d"], 3).words == ("a", UNKNOWN, "b")


def test_unknown_words_that_the_text_already_marks_count_as_unknown() -> None:
    assert Vocabulary.from_tokens(["x", UNKNOWN, UNKNOWN]).words == (UNKNOWN, "x")


@given(tokens=WORDS, size=st.one_of(st.none(), st.integers(2, 8)))
def test_the_size_is_a_limit_and_kept_words_come_back_unchanged(tokens: list[str], size: int | None) -> None:
    vocabulary = Vocabulary.from_tokens(tokens, size)
    distinct = len({*tokens, UNKNOWN})
    assert len(vocabulary) == (distinct if size is None else min(size, distinct))
    decoded = vocabulary.decode(vocabulary.encode(tokens).tolist())
    assert decoded == [token if token in vocabulary else UNKNOWN for token in tokens]
    counts = [tokens.count(word) for word in vocabulary.words if word != UNKNOWN]
    assert counts == sorted(counts, reverse=True)


def test_encoding_gives_integers_of_64_bits_and_reads_a_generator_once() -> None:
    indices = Vocabulary(("a", UNKNOWN)).encode(word for word in ("a", "nowhere"))
    assert indices.dtype == torch.int64
    assert indices.tolist() == [0, 1]


def test_a_vocabulary_of_one_word_or_with_a_word_twice_is_refused() -> None:
    with pytest.raises(InputError, match=r"vocabulary_size must be at least 2 .* got 1; 2000"):
        Vocabulary.from_tokens(["a"], 1)
    with pytest.raises(InputError, match="got 'a' twice"):
        Vocabulary(("a", UNKNOWN, "a"))
    with pytest.raises(InputError, match="must hold '<unk>'"):
        Vocabulary(("a",))
