"""Budgets are spread by the rule, exactly, and never leave a tensor empty."""

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from hyperprune.errors import InputError
from hyperprune.sparsity.allocation import ALLOCATIONS, Allocation
from hyperprune.sparsity.counts import num_live_at
from hyperprune.sparsity.masks import MaskedTensor
from hyperprune.sparsity.schedules import cubic_sparsity


def tensors(*shapes: tuple[int, ...]) -> list[MaskedTensor]:
    return [MaskedTensor(f"t{i}", nn.Parameter(torch.zeros(shape))) for i, shape in enumerate(shapes)]


@pytest.mark.parametrize("rule", ALLOCATIONS)
@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(4, 40), st.integers(4, 40)), min_size=1, max_size=5), st.floats(0, 0.85)
)
def test_the_total_is_met_exactly_at_every_sparsity(
    rule: str, shapes: list[tuple[int, int]], sparsity: float
) -> None:
    parts = tensors(*shapes)
    counts = Allocation(rule=rule).num_live(parts, sparsity)
    assert sum(counts) == num_live_at(sparsity, sum(part.total for part in parts))
    assert all(0 < count <= part.total for count, part in zip(counts, parts, strict=True))


@pytest.mark.parametrize("rule", ALLOCATIONS)
def test_sparsity_zero_keeps_everything(rule: str) -> None:
    assert Allocation(rule=rule).num_live(tensors((3, 4), (7, 2)), 0.0) == [12, 14]


def test_er_follows_rows_plus_columns() -> None:
    # Live weights ∝ r + c: 20 : 110, of 0.1 · 1100 = 110.
    assert Allocation(rule="er").num_live(tensors((10, 10), (100, 10)), 0.9) == [17, 93]


def test_er_caps_at_one_and_rescales_the_rest_to_the_exact_total() -> None:
    # Uncapped, 0.5 · 1004 = 502 live weights would be shared 4 : 110, that is 17.6 for a tensor of 4.
    assert Allocation(rule="er").num_live(tensors((2, 2), (100, 10)), 0.5) == [4, 498]


def test_er_counts_the_sum_of_all_axes_of_a_kernel() -> None:
    # ERK: 8·4·3·3 has 8 + 4 + 3 + 3 = 18; 9 x 9 also has 18.
    assert Allocation(rule="er").num_live(tensors((8, 4, 3, 3), (9, 9)), 0.9) == [19, 18]


def test_er_counts_the_matrix_that_a_tensor_stands_for_within_the_room_that_the_tensor_has() -> None:
    edges = MaskedTensor("edges", nn.Parameter(torch.zeros(1, 100)), matrix_shape=(10, 10))
    few = MaskedTensor("few", nn.Parameter(torch.zeros(1, 8)), matrix_shape=(10, 10))
    (square,) = tensors((10, 10))
    assert Allocation(rule="er").num_live([edges, square], 0.67) == [33, 33]
    assert Allocation(rule="er").num_live([edges, few], 0.5) == [46, 8]
    assert Allocation(rule="uniform").num_live([edges, few], 0.5) == [50, 4]


def test_uniform_gives_the_same_density_up_to_one_weight() -> None:
    assert Allocation().num_live(tensors((10, 10), (20, 10), (5, 1)), 0.67) == [33, 66, 2]


def test_a_fixed_density_inside_the_budget_is_made_up_for_by_the_others() -> None:
    rule = Allocation(densities=(("t0", 1.0),))
    assert rule.num_live(tensors((10, 10), (10, 20)), 0.6) == [100, 20]


def test_a_fixed_density_outside_the_budget_leaves_the_others_alone() -> None:
    rule = Allocation(densities=(("t0", 1.0),), counts_fixed=False)
    assert rule.num_live(tensors((10, 10), (10, 20)), 0.6) == [100, 80]


def test_the_first_matching_pattern_fixes_the_density() -> None:
    rule = Allocation(densities=(("t1", 0.5), ("t*", 0.1)), counts_fixed=False)
    assert rule.num_live(tensors((10, 10), (10, 10)), 0.3) == [10, 50]


def test_fixed_densities_beyond_the_budget_are_refused() -> None:
    with pytest.raises(InputError, match=r'must leave room for the rest.*or set budget="free"'):
        Allocation(densities=(("t0", 1.0),)).num_live(tensors((10, 10), (5, 5)), 0.9)


def test_a_pattern_that_matches_no_tensor_is_refused() -> None:
    with pytest.raises(InputError, match=r"unknown pruned tensor 'x'.*known: t0"):
        Allocation(densities=(("x", 0.5),)).num_live(tensors((10, 10)), 0.5)


def test_a_tensor_without_a_live_weight_is_refused_by_name_density_and_remedy() -> None:
    with pytest.raises(InputError, match=r"t0 of shape \(1, 2\) gets density 0 at sparsity 0.9; lower the"):
        Allocation().num_live(tensors((1, 2), (50, 50)), 0.9)


def test_on_the_way_from_dense_counts_that_are_rounded_apart_are_no_error() -> None:
    rule, parts = Allocation(densities=(("*", 0.1),)), tensors((10, 10), (10, 10), (10, 10))
    for sparsity in (0.005, 0.1, 0.333, 0.87, 0.9):  # at 0.005, three times 99 and not 298 or 299 of 300
        counts = rule.num_live(parts, sparsity, final_sparsity=0.9)
        assert sum(counts) == pytest.approx(300 * (1 - sparsity), abs=2)  # each rounded


def test_on_the_way_from_dense_fixed_densities_fall_in_step_and_rooms_bind() -> None:
    rule, parts = Allocation(densities=(("t0", 0.2),)), tensors((10, 10), (10, 10))
    assert rule.num_live(parts, 0.3, final_sparsity=0.6) == [60, 80]
    assert rule.num_live(parts, 0.6, final_sparsity=0.6) == [20, 60]
    assert rule.num_live(parts, 0.3, final_sparsity=0.6, rooms=[55, 70]) == [55, 70]


def random_densities(draw: random.Random) -> tuple[Allocation, list[MaskedTensor], float]:
    """Two to four tensors, some of a fixed density, and a sparsity."""
    parts = tensors(*((draw.randint(2, 12), draw.randint(2, 12)) for _ in range(draw.randint(2, 4))))
    fixed = [part.name for part in parts[1:] if draw.random() < 0.5]
    densities = tuple((name, draw.choice([0.05, 0.3, 0.5, 0.9])) for name in fixed)
    rule = Allocation(
        rule=draw.choice(sorted(ALLOCATIONS)), densities=densities, counts_fixed=draw.random() < 0.7
    )
    return rule, parts, draw.choice([0.5, 0.67, 0.8, 0.9])


def test_on_the_way_from_dense_no_count_falls_below_its_last_or_rises_and_the_last_are_met() -> None:
    draw, num_ways = random.Random(0), 0
    while num_ways < 150:
        rule, parts, sparsity = random_densities(draw)
        try:
            last = rule.num_live(parts, sparsity)
        except InputError:
            continue  # fixed densities beyond the budget, or a tensor without a weight
        num_ways, live = num_ways + 1, [part.total for part in parts]
        for step in range(1, 21):
            on_the_way = cubic_sparsity(sparsity, step / 20)
            counts = rule.num_live(parts, on_the_way, final_sparsity=sparsity, rooms=live)
            assert all(a <= b <= c for a, b, c in zip(last, counts, live, strict=True))
            live = counts
        assert live == last
