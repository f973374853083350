"""Counts are whole, exact, and say what was asked for."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperprune.errors import InputError, NumericsError
from hyperprune.sparsity.counts import apportion, check_sparsity, num_live_at, rounded_share


@pytest.mark.parametrize("sparsity", [-0.1, 1.0, 1.2, math.nan, math.inf, "0.5", True, None])
def test_a_sparsity_outside_its_range_is_refused_with_rule_value_and_remedy(sparsity: object) -> None:
    with pytest.raises(InputError, match=r"sparsity must lie in \[0, 1\), got .*; 0.67 keeps a third"):
        check_sparsity(sparsity)


@pytest.mark.parametrize(
    ("sparsity", "total", "live"), [(0.67, 100, 33), (0.9, 10, 1), (0.0, 7, 7), (0.5, 3, 1)]
)
def test_sparsity_is_read_as_the_decimal_number_it_is_written_as(
    sparsity: float, total: int, live: int
) -> None:
    assert num_live_at(sparsity, total) == live


def test_a_share_rounds_halves_up() -> None:
    assert [rounded_share(0.5, total) for total in (1, 2, 3, 5)] == [1, 1, 2, 3]


@given(
    st.lists(st.tuples(st.floats(0, 1e9), st.integers(0, 10**6)), min_size=1, max_size=12),
    st.floats(0, 1),
)
def test_shares_add_up_within_their_rooms_and_in_proportion(
    parts: list[tuple[float, int]], fill: float
) -> None:
    weights, rooms = [weight for weight, _ in parts], [room for _, room in parts]
    total = int(fill * sum(rooms))
    shares = apportion(total, weights, rooms)
    assert sum(shares) == total
    assert all(0 <= share <= room for share, room in zip(shares, rooms, strict=True))
    open_ = [i for i in range(len(parts)) if 0 < shares[i] < rooms[i] - 1 and weights[i] > 0]
    for i in open_[1:]:  # what is not full follows the weights up to rounding
        first = open_[0]
        expected = shares[first] * weights[i] / weights[first]
        assert abs(shares[i] - expected) <= 1 + weights[i] / weights[first] + 1e-6 * expected


def test_what_exceeds_a_room_is_passed_on_in_proportion() -> None:
    assert apportion(10, [6, 2, 1], [3, 100, 100]) == [
        3,
        5,
        2,
    ]  # 7 left, 2 : 1, the odd one to the larger rest


def test_leftovers_go_to_the_larger_remainder_and_ties_to_the_lower_index() -> None:
    assert apportion(5, [1, 1, 1], [9, 9, 9]) == [2, 2, 1]
    assert apportion(1, [1, 2], [9, 9]) == [0, 1]


def test_a_minimum_is_part_of_a_share_and_not_on_top_of_it() -> None:
    assert apportion(10, [5, 5, 0], [10, 10, 10], [1, 1, 1]) == [5, 4, 1]


def test_weights_that_are_all_zero_share_by_room() -> None:
    assert apportion(6, [0, 0], [2, 4]) == [2, 4]
    assert apportion(8, [1, 0], [5, 10]) == [5, 3]


def test_weights_that_are_not_finite_are_an_error() -> None:
    with pytest.raises(NumericsError, match="must be finite"):
        apportion(3, [1.0, math.nan], [5, 5])
