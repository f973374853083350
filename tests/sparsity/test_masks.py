"""Masks are one byte per weight, zero exactly, in place, and survive packing."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from hyperprune.sparsity import masks
from hyperprune.sparsity.masks import EXPLORED, MaskedTensor, pack_bits, unpack_bits, zero_where_not_negative
from sparsity.tiny_runs import seeded

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def masked(shape: tuple[int, ...] = (8, 5), num_gates: int = 1) -> MaskedTensor:
    return MaskedTensor("w", nn.Parameter(torch.randn(shape, generator=seeded(0))), num_gates)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("contiguous", [True, False])
def test_dead_values_become_zero_even_if_not_finite_and_live_ones_keep_every_bit(
    dtype: torch.dtype, contiguous: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(masks, "_CHUNK", 7)  # several chunks, the last one short
    values = torch.randn(6, 4, generator=seeded(0)).to(dtype)
    values[0, 0], values[0, 1], values[1, 0], values[1, 1] = math.nan, math.inf, -0.0, math.nan
    values = values if contiguous else values.t().contiguous().t()
    live = torch.rand(6, 4, generator=seeded(1)) < 0.5
    live[0], live[1, 0] = False, True
    expected = torch.where(live, values, torch.zeros((), dtype=dtype))
    address = values.data_ptr()
    tensor = MaskedTensor("w", nn.Parameter(torch.zeros(6, 4)))
    tensor.set_live(live)
    zero_where_not_negative(values, tensor.status)
    assert values.data_ptr() == address
    assert torch.equal(torch.nan_to_num(values), torch.nan_to_num(expected))
    assert not bool(values[~live].any())
    assert math.copysign(1, values[1, 0]) == -1  # the sign of a live zero


def test_a_mask_takes_one_byte_per_weight() -> None:
    tensor = masked((30, 20))
    assert tensor.status.untyped_storage().nbytes() == 600


def test_setting_masks_keeps_the_memory_of_what_was_live() -> None:
    tensor = MaskedTensor("w", nn.Parameter(torch.zeros(4)))
    tensor.status.zero_()
    for live in ([True, False, True, False], [False, False, True, True]):
        tensor.set_live(torch.tensor(live))
    assert tensor.live().tolist() == [False, False, True, True]
    assert (tensor.status.bitwise_and(EXPLORED) != 0).tolist() == [True, False, True, True]


def test_killing_and_growing_touch_exactly_what_was_chosen() -> None:
    tensor = MaskedTensor("w", nn.Parameter(torch.zeros(5)))
    tensor.set_live(torch.tensor([True, True, True, False, False]))
    (block,) = tensor.blocks(by_gate=False)
    block.kill(torch.tensor([True, False, False, False, False]))
    block.grow(torch.tensor([False, False, False, False, True]))
    assert tensor.live().tolist() == [False, True, True, False, True]
    assert block.has(masks.KILLED).tolist() == [True, False, False, False, False]
    assert block.has(masks.GROWN).tolist() == [False, False, False, False, True]
    block.forget_changes()
    assert not bool(block.has(masks.KILLED | masks.GROWN).any())
    assert tensor.live().tolist() == [False, True, True, False, True]


def test_gates_are_equal_blocks_of_rows_that_share_the_storage() -> None:
    tensor = masked((12, 5), num_gates=4)
    blocks = list(tensor.blocks(by_gate=True))
    assert [block.shape for block in blocks] == [(3, 5)] * 4
    assert [block.label for block in blocks] == [f"w[gate {i}]" for i in range(4)]
    blocks[2].kill(torch.ones(15, dtype=torch.bool))
    assert tensor.live().all(dim=1).tolist() == [True] * 6 + [False] * 3 + [True] * 3
    assert torch.equal(blocks[1].weight.view(3, 5), tensor.parameter[3:6])


@given(st.lists(st.booleans(), min_size=1, max_size=70))
def test_packing_to_bits_and_back_changes_nothing(bits: list[bool]) -> None:
    mask = torch.tensor(bits)
    packed = pack_bits(mask)
    assert packed.numel() == (len(bits) + 7) // 8
    assert torch.equal(unpack_bits(packed, (len(bits),)), mask)
