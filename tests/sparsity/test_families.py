"""Deaths, growths and redistributions: hand-worked masks, and one conformance table for each family."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hyperprune.errors import NumericsError
from hyperprune.sparsity.counts import rounded_share
from hyperprune.sparsity.death import DEATHS, Death, ThresholdDeath
from hyperprune.sparsity.growth import GROWTHS
from hyperprune.sparsity.masks import KILLED, Block, MaskedTensor
from hyperprune.sparsity.redistribution import REDISTRIBUTIONS, shares
from sparsity.tiny_runs import seeded

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
DTYPES = [torch.float32, torch.float64, torch.bfloat16]


def block_of(
    values: list[float], dead: str = "", dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> Block:
    """A block of given weights; `dead` has an x at dead positions."""
    tensor = MaskedTensor("w", nn.Parameter(torch.tensor(values, dtype=dtype, device=device)))
    tensor.status.zero_()
    tensor.set_live(torch.tensor([mark != "x" for mark in dead.ljust(len(values))]))
    with torch.no_grad():
        tensor.zero_dead(tensor.parameter)
    return next(tensor.blocks(by_gate=False))


def picture(block: Block) -> str:
    """Live positions as o, just killed ones as k, other dead ones as a dot."""
    pairs = zip(block.live().tolist(), block.has(KILLED).tolist(), strict=True)
    return "".join("o" if live else "k" if killed else "." for live, killed in pairs)


# Deaths


def test_magnitude_kills_the_smallest_of_each_tensor() -> None:
    blocks = [block_of([3, -1, 2, -4]), block_of([0.1, 0.2, -0.3, 9])]
    DEATHS["magnitude"]().kill(blocks, 0.5)
    assert [picture(block) for block in blocks] == ["okko", "kkoo"]


def test_global_magnitude_ranks_all_tensors_together() -> None:
    blocks = [block_of([3, -1, 2, -4]), block_of([0.1, 0.2, -0.3, 9])]
    DEATHS["global_magnitude"]().kill(blocks, 0.5)
    assert [picture(block) for block in blocks] == ["okoo", "kkko"]


def test_set_kills_positive_and_negative_weights_closest_to_zero() -> None:
    # The negative side must lose -1 and -2, the ones closest to zero, and not the largest negatives.
    block = block_of([1, -9, 2, -1, 8, -2, 7, -8])
    DEATHS["set"]().kill([block], 0.5)
    assert picture(block) == "kokkokoo"


def test_set_takes_from_the_other_sign_what_one_cannot_give() -> None:
    block = block_of([1, 2, 3, 4, 5, -6])
    DEATHS["set"]().kill([block], 0.7)  # 4 to kill: 2 of each sign, but there is one negative weight
    assert picture(block) == "kkkook"


def test_set_counts_a_weight_that_has_not_moved_from_zero_as_positive() -> None:
    block = block_of([0, 5, -1, -2])
    DEATHS["set"]().kill([block], 0.5)
    assert picture(block) == "koko"


def test_threshold_kills_what_lies_strictly_below() -> None:
    block = block_of([0.001, -0.001, 0.0009, 1])  # a threshold with ≤ would kill the ties too
    ThresholdDeath(start=0.001).kill([block], 0.25)
    assert picture(block) == "ooko"


@pytest.mark.parametrize(
    ("values", "threshold"),
    [
        ([0.5] * 50 + [2.0] * 50, 0.5),  # kills 50 of 100 for a target of 30: halved
        ([0.5] * 10 + [2.0] * 90, 2.0),  # kills 10: doubled
        ([0.5] * 30 + [2.0] * 70, 1.0),  # hits
    ],
)
def test_the_threshold_is_doubled_or_halved_once_when_it_misses(
    values: list[float], threshold: float
) -> None:
    death = ThresholdDeath(start=1.0)
    death.kill([block_of(values)], 0.3)
    assert death.state == {"threshold": threshold}


def test_a_miss_within_the_tolerance_leaves_the_threshold() -> None:
    death = ThresholdDeath(start=1.0, tolerance=0.02)
    death.kill([block_of([0.5] * 51 + [2.0] * 49)], 0.5)
    assert death.state == {"threshold": 1.0}


def test_a_threshold_fitted_at_once_meets_its_target_at_the_first_update() -> None:
    blocks = [block_of([3, -1, 2, -4]), block_of([0.1, 0.2, -0.3, 9])]
    ThresholdDeath(at_once=True).kill(blocks, 0.5)
    assert [picture(block) for block in blocks] == ["okoo", "kkko"]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", DEATHS)
@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
def test_every_death_kills_exact_counts_of_live_weights_the_same_each_time(
    name: str, rate: float, dtype: torch.dtype, device: str
) -> None:
    def kill() -> list[Block]:
        values = torch.randn(2, 40, generator=seeded(3))
        blocks = [block_of(row, "xo" * 20, dtype, device) for row in values.tolist()]
        death = ThresholdDeath(at_once=True) if name == "threshold" else DEATHS[name]()
        death.kill(blocks, rate)
        return blocks

    first, second = kill(), kill()
    assert [picture(block) for block in first] == [picture(block) for block in second]
    assert sum(picture(block).count("k") for block in first) == 2 * rounded_share(rate, 20)
    assert all(mark == "." for block in first for mark in picture(block)[::2])


@pytest.mark.parametrize("name", DEATHS)
def test_ties_die_by_index(name: str) -> None:
    block = block_of([1.0] * 6)
    death = ThresholdDeath(at_once=True) if name == "threshold" else DEATHS[name]()
    death.kill([block], 0.5)
    assert picture(block) == "kkkooo"


@pytest.mark.parametrize("name", DEATHS)
def test_death_among_weights_that_are_not_numbers_is_an_error(name: str) -> None:
    death = ThresholdDeath(at_once=True) if name == "threshold" else DEATHS[name]()
    block = block_of([1.0, float("nan"), -1.0, float("nan"), -2.0])
    with pytest.raises(NumericsError, match="w must be finite"):
        death.kill([block], 0.4)


@pytest.mark.parametrize("name", DEATHS)
def test_no_block_loses_more_than_its_limit(name: str) -> None:
    blocks = [block_of([1, 2, 3, -4, 5, 6]), block_of([10, 20, -30, 40, 50, 60])]
    death = ThresholdDeath(start=1e3) if name == "threshold" else DEATHS[name]()
    death.kill(blocks, 0.5, [2, 3])
    expected = {
        "magnitude": ["kkoooo", "kkkooo"],
        "set": ["kookoo", "kkkooo"],
        "global_magnitude": ["kkoooo", "kkkooo"],  # 6 of 12, but there is room for 5
        "threshold": ["kkoooo", "kkkooo"],
    }
    assert [picture(block) for block in blocks] == expected[name]


@pytest.mark.parametrize("death", [DEATHS["global_magnitude"](), ThresholdDeath(at_once=True)])
def test_what_one_block_may_not_lose_is_taken_from_the_next_smallest_of_the_others(death: Death) -> None:
    blocks = [block_of([1, 2, 3, 4]), block_of([5, 6, 70, 80]), block_of([7, 8, 9, 10])]
    death.kill(blocks, 0.5, [1, 2, 4])
    assert [picture(block) for block in blocks] == ["kooo", "kkoo", "kkko"]


def test_an_adaptive_threshold_is_content_with_what_limits_allow() -> None:
    death = ThresholdDeath(start=1e3)
    death.kill([block_of([1, 2, 3, 4])], 0.5, [1])  # the target of 2 could never be met, however high it went
    assert death.state == {"threshold": 1e3}


def test_a_threshold_kills_nothing_at_rate_zero_and_stays() -> None:
    block, death = block_of([1, 2, 3, 4]), ThresholdDeath(start=2.5)
    death.kill([block], 0.0)
    assert picture(block) == "oooo"
    assert death.state == {"threshold": 2.5}


def test_an_adaptive_threshold_does_not_pass_over_weights_that_are_not_numbers() -> None:
    with pytest.raises(NumericsError, match="w must be finite"):
        ThresholdDeath(start=1.0).kill([block_of([1.0, float("nan"), 2.0])], 0.5)


# Growths


def test_gradient_growth_takes_the_largest_magnitudes_among_the_dead() -> None:
    block = block_of([1, 0, 0, 0, 0], "oxxxx")
    scores = torch.tensor([99.0, 0.1, -5.0, 3.0, 4.0])
    GROWTHS["gradient"].grow(block, 2, scores, seeded(0))
    assert picture(block) == "o.o.o"


@pytest.mark.parametrize("name", ["gradient", "momentum"])
def test_growth_by_gradients_that_are_all_zero_picks_dead_positions_by_index(name: str) -> None:
    block = block_of([1, 0, 1, 0, 0], "oxoxx")  # live ones tie with dead ones at 0
    GROWTHS[name].grow(block, 2, torch.zeros(5), seeded(0))
    assert picture(block) == "oooo."
    unscored = block_of([1, 0, 1, 0, 0], "oxoxx")
    GROWTHS[name].grow(unscored, 2, None, seeded(0))
    assert picture(unscored) == picture(block)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", GROWTHS)
@pytest.mark.parametrize("count", [0, 7, 20])
def test_every_growth_is_exact_and_avoids_the_just_killed_while_there_is_room(
    name: str, count: int, device: str
) -> None:
    def grow(*, avoid_killed: bool) -> Block:
        block = block_of([1.0] * 40, "x" * 20, device=device)
        block.kill(torch.tensor([False] * 20 + [True] * 10 + [False] * 10, device=device))
        scores = torch.arange(40.0, device=device)  # the killed have the largest scores
        generator = torch.Generator(device).manual_seed(0)
        GROWTHS[name].grow(block, count, scores, generator, avoid_killed=avoid_killed)
        return block

    block = grow(avoid_killed=True)
    assert block.num_live() == 10 + count
    assert not bool(block.live()[20:30].any())
    assert picture(block) == picture(grow(avoid_killed=True))
    if count == 7 and name != "random":
        assert bool(grow(avoid_killed=False).live()[23:30].all())


@pytest.mark.parametrize("name", GROWTHS)
def test_the_just_killed_regrow_when_there_is_no_other_room(name: str) -> None:
    block = block_of([1.0] * 6, "xxoooo")
    block.kill(torch.tensor([False, False, True, True, True, False]))
    GROWTHS[name].grow(block, 4, torch.arange(6.0), seeded(0))
    assert bool(block.live()[:2].all())
    assert block.num_live() == 5


# Redistributions


def momentum_of(block: Block) -> torch.Tensor:
    return torch.where(block.live(), block.weight * 10, 0)


def after_death() -> list[Block]:
    first = block_of([4, 4, 4, 1, 1, 0, 0, 0, 0, 0], "oooooxxxxx")
    second = block_of([1, 1, 1, 1, 0, 0, 0, 0, 0, 0], "ooooxxxxxx")
    first.kill(torch.tensor([False] * 3 + [True] * 2 + [False] * 5))
    second.kill(torch.tensor([False] * 3 + [True] + [False] * 6))
    for block in (first, second):
        block.tensor.parameter.data.mul_(block.live())
    return [first, second]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("none", [2, 1]),  # what each lost
        ("magnitude", [2, 1]),  # 4 : 1, so 2.4 and 0.6
        ("nonzeros", [2, 1]),  # 3 : 3, tie to the lower index
        ("momentum", [2, 1]),
    ],
)
def test_three_weights_are_shared_as_worked_by_hand(rule: str, expected: list[int]) -> None:
    assert shares(rule, after_death(), 3, momentum_of) == expected


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("none", [7, 3]),  # 2 : 1 would be 6.67, but one has room for 7
        ("magnitude", [7, 3]),  # 4 : 1 would be 8, but there is room for 7
        ("nonzeros", [5, 5]),
        ("momentum", [7, 3]),
    ],
)
def test_ten_weights_are_shared_within_the_rooms(rule: str, expected: list[int]) -> None:
    assert shares(rule, after_death(), 10, momentum_of) == expected


@pytest.mark.parametrize("rule", REDISTRIBUTIONS)
@pytest.mark.parametrize("count", [0, 1, 5, 14])
def test_every_redistribution_is_exact_and_never_exceeds_a_room(rule: str, count: int) -> None:
    counts = shares(rule, after_death(), count, momentum_of)
    assert sum(counts) == count
    assert counts[0] <= 7
    assert counts[1] <= 7


@pytest.mark.parametrize("rule", REDISTRIBUTIONS)
def test_a_tensor_that_lost_everything_gets_a_weight_back(rule: str) -> None:
    blocks = [block_of([1, 1, 1, 1]), block_of([5, 5, 0, 0], "ooxx")]
    blocks[0].kill(torch.ones(4, dtype=torch.bool))
    with torch.no_grad():
        blocks[0].tensor.parameter.zero_()
    counts = shares(rule, blocks, 2, momentum_of)
    assert counts[0] >= 1
    assert sum(counts) == 2


def test_a_tensor_that_had_no_weight_before_gets_none_for_having_none() -> None:
    blocks = [block_of([0, 0, 0, 0], "xxxx"), block_of([5, 5, 5, 0], "ooox"), block_of([5, 5, 0, 0], "ooxx")]
    blocks[1].kill(torch.tensor([True, False, False, False]))
    assert shares("none", blocks, 1, momentum_of) == [0, 1, 0]


def test_too_few_weights_go_to_the_first_of_the_tensors_that_lost_all() -> None:
    blocks = [block_of([5, 5, 5, 0], "ooox"), block_of([1, 1, 1, 1]), block_of([1, 1, 1, 1])]
    for block in blocks[1:]:
        block.kill(torch.ones(4, dtype=torch.bool))
        block.tensor.parameter.data.zero_()
    assert shares("magnitude", blocks, 1, momentum_of) == [0, 1, 0]


def test_momentum_shares_by_room_while_there_is_no_momentum_yet() -> None:
    assert shares("momentum", after_death(), 4, lambda block: None) == [2, 2]
