"""Exactly k weights are chosen, the right ones, ties by index."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperprune.errors import NumericsError
from hyperprune.sparsity import selection
from hyperprune.sparsity.selection import Ranked, at_random, below, largest, smallest
from sparsity.tiny_runs import seeded

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


@pytest.fixture(params=["copied", "counted"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few weights are copied and searched, many are counted: both must choose the same."""
    monkeypatch.setattr(selection, "_FEW", 1 << 15 if request.param == "copied" else 0)


def by_sorting(values: torch.Tensor, eligible: torch.Tensor, count: int, *, reverse: bool) -> list[bool]:
    """The readable reference: sort positions by (magnitude, index)."""
    places = [i for i in range(len(values)) if eligible[i]]
    magnitudes = values.double().abs().tolist()
    places.sort(key=lambda i: (-magnitudes[i] if reverse else magnitudes[i], i))
    chosen = set(places[:count])
    return [i in chosen for i in range(len(values))]


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reverse", [False, True])
def test_the_choice_is_what_sorting_by_magnitude_and_index_gives(dtype: torch.dtype, reverse: bool) -> None:
    generator = seeded(1)
    # Rounded to few values, so that most of them tie; scaled, so that exponents differ too.
    values = (torch.randn(300, generator=generator) * 3).round() * torch.tensor([1.0, 1e-3, 1e3]).repeat(100)
    values = values.to(dtype)
    eligible = torch.rand(300, generator=generator) < 0.7
    choose = largest if reverse else smallest
    for count in [0, 1, 2, 50, 100, int(eligible.sum())]:
        chosen = choose([Ranked(values, eligible, "w")], count)[0]
        assert chosen.tolist() == by_sorting(values, eligible, count, reverse=reverse)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("reverse", [False, True])
def test_several_tensors_are_ranked_together_with_ties_to_the_earlier(reverse: bool) -> None:
    generator = seeded(2)
    values = (torch.randn(90, generator=generator) * 2).round()
    everything = torch.ones(90, dtype=torch.bool)
    parts = [Ranked(part, torch.ones(30, dtype=torch.bool), "w") for part in values.split(30)]
    choose = largest if reverse else smallest
    for count in (1, 17, 45, 89):
        assert torch.cat(choose(parts, count)).tolist() == by_sorting(
            values, everything, count, reverse=reverse
        )


@pytest.mark.usefixtures("way")
def test_data_larger_than_a_chunk_are_ranked_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    values = torch.randn(1000, generator=seeded(3), dtype=torch.float64)
    everything = torch.ones(1000, dtype=torch.bool)
    whole = smallest([Ranked(values, everything, "w")], 321)[0]
    monkeypatch.setattr(selection, "_CPU_CHUNK", 64)
    assert torch.equal(smallest([Ranked(values, everything, "w")], 321)[0], whole)
    assert torch.equal(below(Ranked(values, everything, "w"), 0.5), values.abs() < 0.5)


@pytest.mark.usefixtures("way")
def test_values_that_differ_in_the_last_bit_only_are_told_apart() -> None:
    one = torch.tensor(1.0, dtype=torch.float64)
    next_one = torch.nextafter(one, one * 2)
    values = torch.stack([next_one, one, next_one])
    everything = torch.ones(3, dtype=torch.bool)
    assert smallest([Ranked(values, everything, "w")], 1)[0].tolist() == [False, True, False]


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_is_an_error_that_names_the_tensor(bad: float) -> None:
    values = torch.tensor([1.0, bad, 2.0])
    with pytest.raises(NumericsError, match=r"rnn.weight must be finite to be ranked"):
        smallest([Ranked(values, torch.ones(3, dtype=torch.bool), "rnn.weight")], 1)


def test_below_is_strict_so_that_ties_on_the_threshold_live() -> None:
    part = Ranked(torch.tensor([0.1, -0.5, 0.5, 0.9]), torch.ones(4, dtype=torch.bool), "w")
    assert below(part, 0.5).tolist() == [True, False, False, False]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 400), st.floats(0, 1), st.floats(0, 1), st.integers(0, 2**32))
def test_random_choices_are_exact_and_eligible(size: int, density: float, fill: float, seed: int) -> None:
    eligible = torch.rand(size, generator=seeded(seed)) < density
    count = int(fill * int(eligible.sum()))
    chosen = at_random(eligible, count, seeded(seed))
    assert int(chosen.sum()) == count
    assert not bool((chosen & ~eligible).any())
    assert torch.equal(chosen, at_random(eligible, count, seeded(seed)))


@pytest.mark.parametrize(("num_eligible", "count"), [(10, 3), (10, 8), (2, 1)])
def test_every_eligible_position_is_equally_likely(num_eligible: int, count: int) -> None:
    eligible = torch.zeros(20, dtype=torch.bool)
    eligible[torch.randperm(20, generator=seeded(0))[:num_eligible]] = True
    generator, draws = seeded(5), 4000
    hits = sum(at_random(eligible, count, generator).double() for _ in range(draws))
    share = count / num_eligible
    # Five standard deviations of a binomial share.
    tolerance = 5 * (share * (1 - share) / draws) ** 0.5
    assert torch.allclose(
        torch.as_tensor(hits)[eligible] / draws, torch.tensor(share).double(), atol=tolerance
    )
