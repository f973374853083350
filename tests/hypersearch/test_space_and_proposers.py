"""What is proposed: from the space, without duplicates, the same for the same seed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperprune.errors import InputError
from hyperprune.hypersearch.proposers import PROPOSERS, Seen
from hyperprune.hypersearch.space import Configuration, Space

SPACE = Space()
ONE_RATE = {"death_rate": (0.5, 0.5), "grid_death_rate": 0.5}


def _history(count, seed=0):
    random = np.random.default_rng(seed)
    return [Seen(SPACE.sample(random), float(value)) for value in random.random(count)]


def test_the_papers_grid_has_24_points_at_one_death_rate():
    grid = SPACE.grid()
    assert len(set(grid)) == 24
    assert {dict(point.settings)["death_rate"] for point in grid} == {0.8}


def test_a_configuration_survives_json_and_builds_its_method():
    for configuration in SPACE.grid():
        assert Configuration.from_json(configuration.to_json()) == configuration
        assert configuration.build().settings()["death_rate"] == 0.8


@pytest.mark.parametrize("name", PROPOSERS)
def test_a_proposer_is_deterministic_in_its_seed_and_repeats_nothing(name):
    history = _history(6)
    known = [seen.configuration for seen in history]
    known += SPACE.grid()[:4]
    first = PROPOSERS[name](SPACE, 9, history, known, 11)
    assert first == PROPOSERS[name](SPACE, 9, history, known, 11)
    assert first != PROPOSERS[name](SPACE, 9, history, known, 12)
    assert len(set(first)) == 9
    assert set(first).isdisjoint(known)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**40), name=st.sampled_from(["random", "tpe"]))
def test_proposals_lie_in_the_space(seed, name):
    space = Space(death=("set", "magnitude"), death_rate=(0.5, 0.6))
    random = np.random.default_rng(seed)
    history = [Seen(space.sample(random), float(value)) for value in random.random(4)]
    for configuration in PROPOSERS[name](space, 5, history, [], seed):
        values = dict(configuration.settings)
        assert 0.5 <= values["death_rate"] <= 0.6
        assert values["death"] in space.death
        assert values["allocation"] in space.allocation


def test_tpe_learns_from_the_history_what_random_does_not():
    # In the history, only ER with magnitude death is good.
    random = np.random.default_rng(0)
    drawn = [SPACE.sample(random) for _ in range(60)]

    def is_good(configuration):
        values = dict(configuration.settings)
        return values["allocation"] == "er" and values["death"] == "magnitude"

    history = [Seen(configuration, 0.0 if is_good(configuration) else 1.0) for configuration in drawn]
    good = {
        name: sum(
            is_good(point) for seed in range(5) for point in PROPOSERS[name](SPACE, 8, history, drawn, seed)
        )
        for name in ("tpe", "random")
    }
    assert good["tpe"] > 2 * good["random"]


def test_more_candidates_than_the_grid_has_left_is_an_error_with_a_remedy():
    with pytest.raises(InputError, match=r"grid has 4 points left and 5 candidates.*at most 4"):
        PROPOSERS["grid"](SPACE, 5, [], SPACE.grid()[:20], 0)


@pytest.mark.parametrize("name", ["random", "tpe"])
def test_an_exhausted_space_is_an_error(name):
    space = Space(death=("set",), redistribution=("none",), allocation=("er",), **ONE_RATE)
    with pytest.raises(InputError, match="only 1 unseen ones were found; widen"):
        PROPOSERS[name](space, 2, [Seen(space.grid()[0], 1.0)], [], 0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"death": ()}, "space.death must list at least one name"),
        ({"death": ("set", "set")}, "each once"),
        ({"death": ("sett",)}, "set"),
        ({"death_rate": (0.9, 0.4)}, r"range within \(0, 1\], got \[0.9, 0.4\]"),
    ],
)
def test_a_wrong_space_is_refused(settings, message):
    with pytest.raises(InputError, match=message):
        Space(**settings)
