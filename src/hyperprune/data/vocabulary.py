"""The words a corpus knows, and text as integers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from hyperprune.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

UNKNOWN = "<unk>"
END_OF_LINE = "<eos>"


def check_size(size: int | None) -> None:
    """A vocabulary's size must leave room for a word."""
    if size is not None and size < 2:
        raise InputError(
            f"vocabulary_size must be at least 2 ({UNKNOWN!r} and one word), got {size}; "
            "2000 suits small runs, None keeps every word"
        )


@dataclass(frozen=True)
class Vocabulary:
    """The words of a training split: position in `words` is the word's index.

    `<unk>` is always there: a word that is not listed reads as it. Build one with `from_tokens`.

    Args:
        words: distinct words, `<unk>` among them.

    Raises:
        InputError: a word twice, or no `<unk>`.
    """

    words: tuple[str, ...]
    index: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        index = {word: position for position, word in enumerate(self.words)}
        if len(index) != len(self.words):
            twice = next(word for word, count in Counter(self.words).items() if count > 1)
            raise InputError(f"the words of a vocabulary must differ, got {twice!r} twice; drop one of them")
        if UNKNOWN not in index:
            raise InputError(f"a vocabulary must hold {UNKNOWN!r}; add it to the words")
        object.__setattr__(self, "index", index)

    @classmethod
    def from_tokens(cls, tokens: Iterable[str], size: int | None = None) -> Vocabulary:
        """The `size` most frequent words, ties by first appearance; the rest will read as `<unk>`.

        Tokens that are `<unk>` already (PTB, WikiText) count for it, as do the words cut off, so that it
        stands at the place that its own frequency gives it; `size` includes it. Where nothing is unknown
        `<unk>` comes last.

        Args:
            tokens: the training split, and only it, in reading order.
            size: largest number of words, at least 2; None keeps all.

        Raises:
            InputError: `size` below 2.
        """
        return cls.from_counts(Counter(tokens), size)

    @classmethod
    def from_counts(cls, counts: Counter[str], size: int | None = None) -> Vocabulary:
        """As `from_tokens`, of words that were counted; the counter keeps them in order of appearance."""
        check_size(size)
        counts = counts.copy()
        num_unknown = counts.pop(UNKNOWN, 0)
        ranked = counts.most_common()  # equal counts stay in order of first appearance
        kept = ranked if size is None else ranked[: size - 1]
        num_unknown += sum(count for _, count in ranked[len(kept) :])
        place = sum(count >= num_unknown for _, count in kept)
        words = [word for word, _ in kept]
        return cls((*words[:place], UNKNOWN, *words[place:]))

    @cached_property
    def unknown(self) -> int:
        """The index of `<unk>`."""
        return self.index[UNKNOWN]

    def __len__(self) -> int:
        return len(self.words)

    def __contains__(self, word: object) -> bool:
        return word in self.index

    def encode(self, tokens: Iterable[str]) -> Tensor:
        """The (N,) int64 indices of N tokens, read once; unlisted ones are `<unk>`."""
        import numpy as np
        import torch

        index, unknown = self.index, self.unknown
        # Streamed into numbers, because a list of WikiText-103's words would take many gigabytes.
        indices = np.fromiter((index.get(token, unknown) for token in tokens), dtype=np.int64)
        return torch.from_numpy(indices)

    def decode(self, indices: Iterable[int]) -> list[str]:
        """The words at `indices`."""
        return [self.words[int(position)] for position in indices]
