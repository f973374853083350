"""Cut a token stream into columns and windows for truncated backpropagation through time.

Axes: N tokens in the stream, T time, B batch (columns).
"""

import math
from collections.abc import Iterator

import torch
from jaxtyping import Int64
from torch import Tensor

from hyperprune.errors import InputError


def contiguous_batches(stream: Int64[Tensor, " N"], batch_size: int) -> Int64[Tensor, "T B"]:
    """Lay the stream out as `batch_size` columns, each a contiguous piece of it, read downwards.

    Args:
        stream: (N,) token indices in reading order.
        batch_size: B, at least 1.

    Returns:
        (T, B) with T = ⌊N / B⌋; column b holds tokens b·T … (b + 1)·T - 1, and the N - T·B tokens left
        over at the end are dropped.

    Raises:
        InputError: `batch_size` below 1, or a stream that gives a column fewer than two tokens (an input
            and its target).
    """
    if batch_size < 1:
        raise InputError(f"batch_size must be at least 1, got {batch_size}; 20 is a usual choice")
    num_steps = len(stream) // batch_size
    if num_steps < 2:
        raise InputError(
            f"a corpus must give each of the {batch_size} columns of a batch at least 2 tokens, "
            f"{2 * batch_size} in all, got {len(stream)}; use more text or a smaller batch size"
        )
    return stream[: num_steps * batch_size].view(batch_size, num_steps).t().contiguous()


def bptt_windows(
    columns: Int64[Tensor, "T B"], bptt: int
) -> Iterator[tuple[Int64[Tensor, "t B"], Int64[Tensor, "t B"]]]:
    """Yield (inputs, targets) windows of at most `bptt` steps that cover the columns once, in order.

    Targets are the inputs shifted by one step, so each token but a column's first is a target exactly once.
    The last window is shorter where `bptt` does not divide T - 1.

    Args:
        columns: (T, B) as `contiguous_batches` gives them, T ≥ 2.
        bptt: steps of a window, at least 1.

    Raises:
        InputError: `bptt` below 1.
    """
    if bptt < 1:
        raise InputError(f"bptt must be at least 1 step, got {bptt}; 35 is a usual choice")
    last = len(columns) - 1
    for start in range(0, last, bptt):
        stop = min(start + bptt, last)
        yield columns[start:stop], columns[start + 1 : stop + 1]


def num_windows(columns: Int64[Tensor, "T B"], bptt: int) -> int:
    """How many windows `bptt_windows` yields."""
    return math.ceil((len(columns) - 1) / bptt)


def unigram_perplexity(
    train: Int64[Tensor, " N"], heldout: Int64[Tensor, " M"], vocabulary_size: int
) -> float:
    """Perplexity on `heldout` of the word frequencies of `train`, add-one smoothed.

    What a model reaches that knows how often words occur and nothing about their order:
    exp(-mean ln p(w)) with p(w) = (count of w in train + 1) / (N + vocabulary_size).

    Args:
        train: (N,) token indices below `vocabulary_size`.
        heldout: (M,) likewise, M ≥ 1.
        vocabulary_size: number of word types, seen or not.

    Raises:
        InputError: an empty `heldout`, or an index outside the vocabulary.
    """
    if len(heldout) == 0:
        raise InputError("heldout must hold at least one token, got 0; pass a split of the same corpus")
    for name, stream in (("train", train), ("heldout", heldout)):
        if len(stream) and not (int(stream.min()) >= 0 and int(stream.max()) < vocabulary_size):
            raise InputError(
                f"token indices of {name} must lie in [0, {vocabulary_size}), got "
                f"{int(stream.min())} to {int(stream.max())}; pass the corpus's own vocabulary size"
            )
    return perplexity_of_counts(torch.bincount(train, minlength=vocabulary_size), heldout)


def perplexity_of_counts(counts: Int64[Tensor, " V"], heldout: Int64[Tensor, " M"]) -> float:
    """`unigram_perplexity` from (V,) occurrences in training, on M ≥ 1 indices below V."""
    smoothed = counts.double() + 1
    return math.exp(-float(torch.log(smoothed / smoothed.sum())[heldout].mean()))
