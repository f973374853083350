"""One mask per pruned tensor, and the blocks (whole tensor or gate) that a topology update works on.

A mask takes one byte per weight, `status`, and nothing else, so that even methods which remember more
than "live or dead" stay within a byte. The sign bit says live: testing for it is a comparison with zero,
and stretching it over a word gives the bit mask that zeroes dead weights at the speed of memory
(measured on a CPU: 12 times faster than `masked_fill_`).

Axes: N weights of a tensor or block, flattened in the order of storage.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from jaxtyping import Bool, Int8, UInt8
from torch import Tensor, nn

LIVE = -128  # the sign bit of int8
EXPLORED = 1  # has been live at some time
NEGATIVE = 2  # Deep-R: the sign that a weight has whenever it is live
BACKWARD = 4  # Top-KAST: receives gradients, in the forward set or not
KILLED = 8  # by the update in progress
GROWN = 16  # by the update in progress
CANDIDATE = 32  # may be grown by the next update: its gradient is kept

_CHUNK = 1 << 20  # elements handled at once on a CPU: temporaries stay in the cache
_WORD = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class MaskedTensor:
    """A parameter and which of its weights are live.

    Attributes:
        name: the parameter's name in the model.
        parameter: the tensor that the optimizer updates.
        num_gates: equal blocks of rows that it stacks (4 in an LSTM), 1 if none.
        matrix_shape: of the matrix that the parameter stands for, by default its own.
        status: int8, of the parameter's shape; the constants of this module say what its bits mean.
    """

    def __init__(
        self,
        name: str,
        parameter: nn.Parameter,
        num_gates: int = 1,
        matrix_shape: tuple[int, ...] | None = None,
    ) -> None:
        self.name = name
        self.parameter = parameter
        self.num_gates = num_gates
        self.matrix_shape = tuple(parameter.shape) if matrix_shape is None else matrix_shape
        self.status = torch.full_like(
            parameter, LIVE | EXPLORED, dtype=torch.int8, memory_format=torch.contiguous_format
        )

    @property
    def total(self) -> int:
        return self.parameter.numel()

    def follow_device(self) -> None:
        """Move the mask to where the model has been moved."""
        if self.status.device != self.parameter.device:
            self.status = self.status.to(self.parameter.device)

    def live(self) -> Bool[Tensor, "..."]:
        """True where a weight is live; a new tensor of the parameter's shape."""
        return self.status < 0

    def num_live(self) -> int:
        return _count(self.status, LIVE, LIVE)

    def trained(self) -> Bool[Tensor, "..."]:
        """True where a weight is live or in Top-KAST's backward set; a new tensor of its shape."""
        return self.status.bitwise_and(LIVE | BACKWARD) != 0

    def set_live(self, live: Bool[Tensor, "..."]) -> None:
        """Make exactly these weights live; what is known of earlier ones is kept."""
        bits = live.to(self.status.device).reshape(self.status.shape)
        self.status.bitwise_and_(~LIVE).bitwise_or_(bits.view(torch.int8) * (LIVE | EXPLORED))

    def zero_dead(self, values: Tensor) -> None:
        """Set `values`, of the parameter's shape, to exactly 0 wherever the weight is dead, in place."""
        zero_where_not_negative(values, self.status)

    def zero_untrained(self, values: Tensor) -> None:
        """As `zero_dead`, but sparing Top-KAST's backward set."""
        # The flag is moved onto the sign bit, where liveness is tested.
        zero_where_not_negative(values, self.status | (self.status & BACKWARD) << 5)

    def blocks(self, *, by_gate: bool) -> Iterator[Block]:
        """The tensor as one block, or one block per gate."""
        parts = self.num_gates if by_gate else 1
        size = self.total // parts
        for index in range(parts):
            label = f"{self.name}[gate {index}]" if parts > 1 else self.name
            yield Block(self, index * size, (index + 1) * size, label)


@dataclass(frozen=True)
class Block:
    """A run of rows of one tensor: what allocation, death, growth and redistribution count in.

    Attributes:
        start, stop: its place in the flattened tensor.
        label: for messages.
    """

    tensor: MaskedTensor
    start: int
    stop: int
    label: str

    @property
    def total(self) -> int:
        return self.stop - self.start

    @property
    def shape(self) -> tuple[int, ...]:
        """The tensor's shape with this block's share of the rows."""
        rows, *rest = self.tensor.parameter.shape
        return (rows * self.total // self.tensor.total, *rest)

    @property
    def status(self) -> Int8[Tensor, " N"]:
        return self.tensor.status.view(-1)[self.start : self.stop]

    @property
    def weight(self) -> Tensor:
        """The (N,) weights themselves, not a copy."""
        return self.of(self.tensor.parameter)

    def of(self, values: Tensor) -> Tensor:
        """This block's (N,) part of a tensor of the parameter's shape; a view where storage allows."""
        return values.detach().reshape(-1)[self.start : self.stop]

    def live(self) -> Bool[Tensor, " N"]:
        return self.status < 0

    def num_live(self) -> int:
        return _count(self.status, LIVE, LIVE)

    def num_with(self, flags: int, value: int | None = None) -> int:
        """How many weights have, of these flags, exactly those in `value`; None: all of them."""
        return _count(self.status, flags, flags if value is None else value)

    def kill(self, chosen: Bool[Tensor, " N"]) -> None:
        """Live weights become dead, and are remembered as killed until `forget_changes`."""
        self.status.bitwise_xor_(chosen.view(torch.int8) * (LIVE | KILLED))

    def grow(self, chosen: Bool[Tensor, " N"]) -> None:
        """Dead weights become live, and are remembered as grown until `forget_changes`."""
        self.status.bitwise_or_(chosen.view(torch.int8) * (LIVE | EXPLORED | GROWN))

    def has(self, flags: int) -> Bool[Tensor, " N"]:
        """True where any of the flags is set."""
        return self.status.bitwise_and(flags) != 0

    def set_flag(self, flag: int, where: Bool[Tensor, " N"]) -> None:
        """Set the flag exactly where told."""
        self.status.bitwise_and_(~flag).bitwise_or_(where.view(torch.int8) * flag)

    def forget_changes(self) -> None:
        self.status.bitwise_and_(~(KILLED | GROWN | CANDIDATE))


def _count(status: Int8[Tensor, "..."], flags: int, value: int) -> int:
    """How many entries of a contiguous tensor satisfy `status & flags == value`."""
    flat = status.view(-1)
    if status.device.type != "cpu":
        return int((flat.bitwise_and(flags) == value).count_nonzero())
    parts = (flat[start : start + _CHUNK] for start in range(0, flat.numel(), _CHUNK))
    return sum(int((part.bitwise_and(flags) == value).count_nonzero()) for part in parts)


def zero_where_not_negative(values: Tensor, status: Int8[Tensor, "..."]) -> None:
    """`values[status >= 0] = 0`, in place, for NaN and infinity too."""
    word = _WORD.get(values.element_size())
    fast = values.device.type == "cpu" and values.is_contiguous() and status.is_contiguous()
    if word is None or not fast or not values.is_floating_point():
        values.masked_fill_(status >= 0, 0)
        return
    bits, flat_status = values.detach().view(-1).view(word), status.view(-1)
    shift = 8 * values.element_size() - 1
    for start in range(0, bits.numel(), _CHUNK):
        mask = flat_status[start : start + _CHUNK].to(word, copy=True)
        bits[start : start + _CHUNK].bitwise_and_(mask.bitwise_right_shift_(shift))


def pack_bits(mask: Bool[Tensor, "..."]) -> UInt8[Tensor, " bytes"]:
    """Eight booleans per byte, first one in the highest bit, on the CPU."""
    return torch.from_numpy(np.packbits(mask.cpu().numpy().reshape(-1)))


def unpack_bits(packed: UInt8[Tensor, " bytes"], shape: Iterable[int]) -> Bool[Tensor, "..."]:
    """The inverse of `pack_bits`, on the CPU."""
    shape = tuple(shape)
    bits = np.unpackbits(packed.cpu().numpy(), count=prod(shape))
    return torch.from_numpy(bits.view(np.bool_)).view(shape)
