"""What is proposed: from the space, without duplicates, the same for the same seed."""

import random as python_random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperprune.errors import InputError
from hyperprune.hypersearch import atpe
from hyperprune.hypersearch.proposers import PROPOSERS, Seen
from hyperprune.hypersearch.space import Branch, Configuration, Range, Space
from hyperprune.hypersearch.spaces import get_space

PAPER = Space()
SPACES = {
    "paper": PAPER,
    "wide": get_space("wide"),
    "sparsity": Space(branches=PAPER.branches, sparsity=Range(0.5, 0.9, digits=2), sparsity_weight=1.0),
    "choices": Space(
        branches=[Branch.of("static", allocation=["uniform", "er"], gates=["exchange", "separate"])]
    ),
}
TINY = Space(branches=[Branch.of("set_", death_rate=Range(0.1, 0.8, digits=1))])  # eight


def _needs_hyperopt(name):
    if name == "atpe":
        pytest.importorskip("hyperopt")
        pytest.importorskip("lightgbm")
        pytest.importorskip("sklearn")


def _history(count, seed=0, space=PAPER):
    random = np.random.default_rng(seed)
    return [Seen(space.sample(random), float(value)) for value in random.random(count)]


@pytest.mark.parametrize("name", PROPOSERS)
def test_a_proposer_is_deterministic_in_its_seed_and_repeats_nothing(name):
    _needs_hyperopt(name)
    history = _history(12)
    history += [Seen(seen.configuration, seen.signal, 3) for seen in _history(4, seed=1)]
    known = [seen.configuration for seen in history] + PAPER.grid()[:4]
    first = PROPOSERS[name](PAPER, 5, history, known, 11)
    assert first == PROPOSERS[name](PAPER, 5, history, known, 11)
    assert first != PROPOSERS[name](PAPER, 5, history, known, 12)
    assert len(set(first)) == 5
    assert set(first).isdisjoint(known)


@pytest.mark.parametrize("where", ["wide", "sparsity", "choices"])
@pytest.mark.parametrize("name", PROPOSERS)
def test_every_proposer_serves_every_space(name, where):
    _needs_hyperopt(name)
    space, count = SPACES[where], 2
    history = _history(14, space=space) if where != "choices" else [Seen(space.grid()[0], 1.0)] * 12
    known = [] if where != "choices" else [space.grid()[0]]
    batch = PROPOSERS[name](space, count, history, known, 5)
    assert len(set(batch)) == count
    assert all(space.coordinates(point) is not None for point in batch)
    for point in batch:
        point.build()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**40), name=st.sampled_from(["random", "tpe"]))
def test_proposals_lie_in_the_space(seed, name):
    branch = Branch.of("dynamic_sparse", death=["set", "magnitude"], death_rate=Range(0.5, 0.6))
    space = Space(branches=[branch])
    random = np.random.default_rng(seed)
    history = [Seen(space.sample(random), float(value)) for value in random.random(4)]
    for configuration in PROPOSERS[name](space, 5, history, [], seed):
        values = dict(configuration.settings)
        assert 0.5 <= values["death_rate"] <= 0.6
        assert round(values["death_rate"], 3) == values["death_rate"]
        assert values["death"] in ("set", "magnitude")


def _is_good(configuration):
    values = dict(configuration.settings)
    return values["allocation"] == "er" and values["death"] == "magnitude"


@pytest.mark.parametrize("name", ["tpe", "atpe"])
def test_who_learns_proposes_from_the_history_what_random_does_not(name):
    # In the history, only ER with magnitude death is good: one point in eight.
    _needs_hyperopt(name)
    history = [
        Seen(seen.configuration, 0.1 if _is_good(seen.configuration) else 1.0 + seen.signal / 9)
        for seen in _history(60)
    ]
    known = [seen.configuration for seen in history]
    good = {
        which: sum(
            _is_good(point)
            for seed in range(2 if name == "atpe" else 5)
            for point in PROPOSERS[which](PAPER, 6, history, known, seed)
        )
        for which in (name, "random")
    }
    assert good[name] > 2 * good["random"]


@pytest.mark.parametrize("name", ["tpe", "atpe"])
def test_who_learns_finds_the_branch_that_is_good(name):
    _needs_hyperopt(name)
    wide = SPACES["wide"]
    history = [
        Seen(
            seen.configuration,
            0.1 if seen.configuration.method in ("static", "rigl") else 1.0 + seen.signal / 9,
        )
        for seen in _history(80, space=wide)
    ]
    known = [seen.configuration for seen in history]
    good = sum(
        point.method in ("static", "rigl")
        for seed in range(2)
        for point in PROPOSERS[name](wide, 6, history, known, seed)
    )
    # By chance 2 of 13 branches: 1.8 of 12, standard deviation 1.2.
    assert good > 5


@pytest.mark.parametrize("name", ["random", "tpe", "atpe"])
def test_a_batch_takes_the_last_unseen_one_before_it_fails(name):
    _needs_hyperopt(name)
    everything = list(TINY.everything())
    history = [Seen(point, float(index)) for index, point in enumerate(everything[:7])]
    known = [seen.configuration for seen in history]
    assert PROPOSERS[name](TINY, 1, history, known, 0) == everything[7:]
    with pytest.raises(InputError, match="must hold the 2 new candidates asked for, and it has 1 unseen"):
        PROPOSERS[name](TINY, 2, history, known, 0)


def test_the_grids_remainder_is_shuffled_anew_for_each_batch():
    points = PAPER.grid()
    first = PROPOSERS["grid"](PAPER, 12, [], [], 0)
    rests = [PROPOSERS["grid"](PAPER, 12, [], first, seed) for seed in (1, 2)]
    assert all(set(first) | set(rest) == set(points) for rest in rests)
    assert rests[0] != rests[1]


def test_more_candidates_than_the_grid_has_left_is_an_error_with_a_remedy():
    with pytest.raises(InputError, match=r"grid has 4 points left and 5 candidates.*at most 4"):
        PROPOSERS["grid"](PAPER, 5, [], PAPER.grid()[:20], 0)


@pytest.mark.parametrize("name", ["tpe", "atpe"])
def test_a_history_from_outside_the_space_is_left_out(name):
    _needs_hyperopt(name)
    history = [Seen(Configuration.of("static"), 1.0)]
    assert PROPOSERS[name](TINY, 2, history, [], 3) == PROPOSERS["random"](TINY, 2, [], [], 3)


def test_atpe_gives_the_global_generators_back_as_they_were():
    before = python_random.getstate(), np.random.get_state(legacy=False)["state"]["key"].tolist()  # noqa: NPY002
    with atpe._seeded(7):
        drawn = python_random.random(), np.random.random()  # noqa: NPY002
    assert (python_random.getstate(), np.random.get_state(legacy=False)["state"]["key"].tolist()) == before  # noqa: NPY002
    with atpe._seeded(7):
        assert (python_random.random(), np.random.random()) == drawn  # noqa: NPY002


def test_atpe_takes_the_eliminated_for_worse_than_every_survivor_the_early_ones_most():
    history = [
        Seen(Configuration.of("static"), signal, dropped)
        for signal, dropped in [(5.0, None), (-1.0, 3), (9.0, None), (-2.0, 6)]
    ]
    assert atpe._losses(history) == [1.0, 4.0, 2.0, 3.0]
    assert atpe._losses(history[:1] + history[2:3]) == [5.0, 9.0]
    negative = [Seen(Configuration.of("static"), signal) for signal in (-1.0, 0.0)]
    assert atpe._losses(negative) == [pytest.approx(0.1), pytest.approx(1.1)]  # hyperopt wants them positive


def test_without_hyperopt_the_error_names_the_remedy(monkeypatch):
    import sys

    atpe.require_hyperopt.cache_clear()
    monkeypatch.setitem(sys.modules, "hyperopt.atpe", None)
    with pytest.raises(
        InputError,
        match=r"'atpe' needs hyperopt, lightgbm and scikit-learn.*; pip install -e '\.\[atpe\]' in",
    ):
        PROPOSERS["atpe"](PAPER, 1, [], [], 0)
