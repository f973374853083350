"""Choosing exactly k weights: the smallest, the largest, or at random; ties go to the lower index.

The k-th smallest magnitude is found by radix selection on the bit patterns (non-negative floats are
ordered like the integers that share their bits): a histogram of the leading 16 bits, then of the next 16
among the few that share the threshold's first ones. Two to four reads of the data, one chunk of
temporaries, the same code for one tensor and for all tensors of a network together. `torch.topk` would
need 12 bytes per weight more, and breaks ties as it likes. A few thousand weights, for which the histogram
would take longer than all the rest, are copied and searched instead.

Axes: N weights of a block, flattened.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from hyperprune.errors import NumericsError

_DIGIT = 16
_CPU_CHUNK = 1 << 18  # elements at once: keys and their temporaries stay in the second-level cache
_GPU_CHUNK = 1 << 24
_FEW = 1 << 15  # weights in all parts together, up to which copying is faster than counting
_EXACT_HALF = (torch.float16, torch.bfloat16)


class Ranked(NamedTuple):
    """Values to rank by magnitude, and which of them take part.

    Attributes:
        values: (N,) floating point, any sign; or int32, not negative.
        eligible: (N,) True where the position may be chosen.
        label: for messages.
    """

    values: Tensor
    eligible: Bool[Tensor, " N"]
    label: str


def smallest(parts: Sequence[Ranked], count: int) -> list[Bool[Tensor, " N"]]:
    """True at the `count` eligible positions with the smallest magnitudes over all parts together.

    Ties go to the earlier part, within it to the lower index. `count` must not exceed the eligible.

    Raises:
        NumericsError: an eligible value is infinite or not a number.
    """
    return list(_choose(parts, count, largest=False))


def each_smallest(parts: Sequence[Ranked], count: int) -> Iterator[Bool[Tensor, " N"]]:
    """As `smallest`, one part after the other, so that only one choice is in memory at a time."""
    return _choose(parts, count, largest=False)


def largest(parts: Sequence[Ranked], count: int) -> list[Bool[Tensor, " N"]]:
    """True at the `count` eligible positions with the largest magnitudes; ties as in `smallest`."""
    return list(_choose(parts, count, largest=True))


def below(part: Ranked, threshold: float) -> Bool[Tensor, " N"]:
    """True at eligible positions with a magnitude strictly below the threshold.

    Raises:
        NumericsError: an eligible value is infinite or not a number.
    """
    chosen = part.eligible.clone()
    for span in _spans(part):
        magnitudes = part.values[span].abs()
        if bool((chosen[span] & ~torch.isfinite(magnitudes)).any()):
            raise _not_finite(part)
        chosen[span] &= magnitudes < threshold
    return chosen


def at_random(eligible: Bool[Tensor, " N"], count: int, generator: torch.Generator) -> Bool[Tensor, " N"]:
    """True at `count` eligible positions, every such set being equally likely.

    The generator must live on the device of `eligible`.
    """
    room = int(eligible.count_nonzero())
    assert count <= room, (count, room)
    device = eligible.device
    if 8 * room < eligible.numel():  # a list of the few eligible positions is short
        places = eligible.nonzero().squeeze(1)
        order = torch.randperm(room, generator=generator, device=device)[:count]
        return torch.zeros_like(eligible).index_fill_(0, places[order], True)
    if 64 * count > eligible.numel():  # the smallest of random numbers; a tie has odds of 1 to 2 billion
        numbers = torch.empty(eligible.shape, dtype=torch.int32, device=device).random_(generator=generator)
        return smallest([Ranked(numbers, eligible, "random numbers")], count)[0]
    chosen, missing = torch.zeros_like(eligible), count
    while missing > 0:  # never overshoots, so no choice is taken back and none is favoured
        draws = torch.randint(eligible.numel(), (missing,), generator=generator, device=device)
        draws = draws[eligible[draws] & ~chosen[draws]]
        chosen.index_fill_(0, draws, True)
        missing -= draws.unique().numel()
    return chosen


def _spans(part: Ranked) -> Iterator[slice]:
    size = _CPU_CHUNK if part.values.device.type == "cpu" else _GPU_CHUNK
    for start in range(0, part.values.numel(), size):
        yield slice(start, start + size)


def _width(values: Tensor) -> int:
    return 64 if values.dtype == torch.float64 else 32


def _keys(part: Ranked, span: slice) -> Int[Tensor, " chunk"]:
    """Integers in the order of the magnitudes."""
    values = part.values[span]
    if values.dtype == torch.int32:
        return values
    if values.dtype in _EXACT_HALF:
        values = values.float()
    return values.abs().view(torch.int64 if _width(values) == 64 else torch.int32)


def _choose(parts: Sequence[Ranked], count: int, *, largest: bool) -> Iterator[Bool[Tensor, " N"]]:
    num_eligible = sum(int(part.eligible.count_nonzero()) for part in parts)
    assert 0 <= count <= num_eligible, (count, num_eligible)
    if count in (0, num_eligible):
        yield from (part.eligible.clone() if count else torch.zeros_like(part.eligible) for part in parts)
        return
    rank = num_eligible - count if largest else count - 1  # of the threshold, from the smallest, 0-based
    threshold, num_below, num_equal = _threshold(parts, rank)
    num_ties = count - (num_eligible - num_below - num_equal if largest else num_below)
    take_all_ties = num_ties == num_equal
    for part in parts:
        mask = torch.empty_like(part.eligible)
        for span in _spans(part):
            keys, eligible = _keys(part, span), part.eligible[span]
            beyond = (keys > threshold) if largest else (keys < threshold)
            ties = keys == threshold
            if not take_all_ties and num_ties < num_equal:
                ties &= eligible
                places = ties.nonzero().squeeze(1)
                num_equal -= places.numel()
                ties.index_fill_(0, places[num_ties:], False)
                num_ties -= min(num_ties, places.numel())
            torch.logical_and(beyond.logical_or_(ties), eligible, out=mask[span])
        yield mask


def _threshold(parts: Sequence[Ranked], rank: int) -> tuple[int, int, int]:
    """The key of a rank, how many keys lie below it, and how many equal it."""
    if sum(part.values.numel() for part in parts) <= _FEW:
        return _threshold_of_few(parts, rank)
    width = _width(parts[0].values)
    prefix, num_below, num_equal = 0, 0, 0
    for shift in range(width - _DIGIT, -1, -_DIGIT):
        histogram = torch.zeros(1 << _DIGIT, dtype=torch.int64)
        first = shift == width - _DIGIT
        for part in parts:
            counts = torch.zeros(1 << _DIGIT, dtype=torch.int64, device=part.values.device)
            for span in _spans(part):
                keys, eligible = _keys(part, span), part.eligible[span]
                if first:
                    # The sign bit is never set, so it can put aside what does not take part.
                    digits = (keys >> shift).bitwise_or_((~eligible).to(keys.dtype) << (_DIGIT - 1))
                else:
                    few = eligible & (keys >> (shift + _DIGIT) == prefix)
                    digits = (keys[few] >> shift) & ((1 << _DIGIT) - 1)
                counts += torch.bincount(digits, minlength=1 << _DIGIT)
            if first:
                counts[1 << (_DIGIT - 1) :] = 0
            histogram += counts.cpu()
            if first:
                _check_finite(part, counts)
        cumulative = histogram.cumsum(0)
        digit = int(torch.searchsorted(cumulative, rank - num_below, right=True))
        num_equal = int(histogram[digit])
        num_below += int(cumulative[digit]) - num_equal
        prefix = (prefix << _DIGIT) | digit
    return prefix, num_below, num_equal


def _threshold_of_few(parts: Sequence[Ranked], rank: int) -> tuple[int, int, int]:
    """The same as `_threshold`, from a copy of all eligible keys."""
    chosen = [_keys(part, slice(None))[part.eligible] for part in parts]
    for part, keys in zip(parts, chosen, strict=True):
        infinity = _infinity(part) << (_width(part.values) - _DIGIT)
        if part.values.is_floating_point() and bool((keys >= infinity).any()):
            raise _not_finite(part)
    together = torch.cat(chosen)
    threshold = together.kthvalue(rank + 1).values
    return int(threshold), int((together < threshold).sum()), int((together == threshold).sum())


def _check_finite(part: Ranked, counts: Tensor) -> None:
    if part.values.is_floating_point() and int(counts[_infinity(part) :].sum()):
        raise _not_finite(part)


def _infinity(part: Ranked) -> int:
    """The leading 16 bits of the first key that is not finite."""
    return 0x7F80 if _width(part.values) == 32 else 0x7FF0


def _not_finite(part: Ranked) -> NumericsError:
    return NumericsError(
        f"{part.label} must be finite to be ranked, but holds infinite values or NaN; "
        "stop training when the loss is not finite"
    )
