"""Dropout with masks that stay fixed over a window, and dropout of whole words.

Masks are drawn from the generator that is passed; None means the global generator of the tensor's device,
which `nn.LSTM` draws from anyway. Whoever trains forks and restores that one.

References:
    Gal, Ghahramani (2016), A theoretically grounded application of dropout in recurrent neural networks.
    Merity, Keskar, Socher (2018), Regularizing and optimizing LSTM language models, §4.1 and §4.3.

Axes: T time, B batch, F features, V words, E embedding.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional

from hyperprune.errors import InputError


def check_rate(name: str, rate: float) -> None:
    """Raise InputError unless `rate` is a probability below 1 (at 1 nothing would pass)."""
    if not 0 <= rate < 1:
        raise InputError(f"{name} must lie in [0, 1), got {rate}; 0 turns it off")


def dropout_mask(
    like: Float[Tensor, "..."],
    shape: tuple[int, ...],
    rate: float,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "..."]:
    """A mask of 0 and 1 / (1 - rate), in the type and on the device of `like`; 0 has probability `rate`.

    Raises:
        InputError: `rate` outside [0, 1).
    """
    check_rate("a dropout rate", rate)
    return like.new_empty(shape).bernoulli_(1 - rate, generator=generator).div_(1 - rate)


def locked_dropout(
    sequence: Float[Tensor, "T B F"],
    rate: float,
    *,
    training: bool,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "T B F"]:
    """Drop features of each batch entry, the same ones at all times ("variational", "locked").

    Args:
        sequence: (T, B, F).
        rate: probability of dropping, in [0, 1).
        training: otherwise the sequence comes back as it is, and nothing is drawn.
        generator: source of the mask.

    Raises:
        InputError: `rate` outside [0, 1).
    """
    check_rate("a dropout rate", rate)
    if not training or rate == 0:
        return sequence
    return sequence * dropout_mask(sequence, (1, *sequence.shape[1:]), rate, generator)


def embed_words(
    tokens: Int64[Tensor, "T B"],
    weight: Float[Tensor, "V E"],
    rate: float = 0.0,
    *,
    training: bool = False,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "T B E"]:
    """Look words up, dropping whole words: one that falls out is zero wherever it occurs in the window.

    Args:
        tokens: (T, B) word indices.
        weight: (V, E), one row for each word.
        rate: probability that a word of the vocabulary is dropped, in [0, 1).
        training: otherwise nothing is dropped or drawn.
        generator: source of the mask.

    Raises:
        InputError: `rate` outside [0, 1).

    Reference:
        Gal & Ghahramani 2016 §4.2, with one mask for the whole batch as in Merity et al. 2018 §4.3. The
        rows that are looked up are masked, not the matrix, which costs less and is the same.
    """
    check_rate("an embedding dropout rate", rate)
    embedded = functional.embedding(tokens, weight)
    if not training or rate == 0:
        return embedded
    mask_V = dropout_mask(weight, (len(weight),), rate, generator)
    return embedded * mask_V[tokens].unsqueeze(-1)
