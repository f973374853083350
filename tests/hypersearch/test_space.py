"""Spaces: exact sizes, one description in Python, TOML and JSON, and what is refused."""

import itertools
import tomllib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hyperprune as hp
from hyperprune.errors import InputError
from hyperprune.hypersearch.dimensions import Choice, Range
from hyperprune.hypersearch.space import Branch, Configuration, Space
from hyperprune.hypersearch.spaces import SPACES, begins_dense, get_space, space_from
from hyperprune.sparsity import methods

OWN = """
[space]
sparsity = [0.5, 0.9]
sparsity_weight = 0.25

[[space.branch]]
method = "rigl"
allocation = ["uniform", "er"]
update_every = 10
death_rate = { low = 0.1, high = 0.3, digits = 1 }

[[space.branch]]
method = "deep_r"
l1 = { low = 1e-6, high = 1e-5, digits = 1, log = true, at = [2e-6] }

[[space.branch]]
method = "static"
densities = [[["encoder.weight", 0.5]], []]
"""


@pytest.mark.parametrize("name", ["name", "cls", "self", "where"])
def test_a_setting_of_any_name_that_a_method_lacks_is_told_as_such(name):
    with pytest.raises(InputError, match=f"branch 'rigl': unknown setting of method rigl '{name}'; .*known"):
        space_from({"branch": [{"method": "rigl", name: 0.3}]})


def test_the_papers_grid_has_24_points_at_one_death_rate_and_its_space_501_rates_for_each():
    space = Space()
    assert len(set(space.grid())) == 24
    assert {dict(point.settings)["death_rate"] for point in space.grid()} == {0.8}
    assert {dict(point.settings)["growth"] for point in space.grid()} == {"random"}
    assert space.size() == 24 * 501
    assert get_space("paper") == space


def test_a_configuration_survives_json_and_builds_its_method():
    for configuration in [*Space().grid(), *space_from(tomllib.loads(OWN)["space"]).grid()]:
        again = Configuration.from_json(configuration.to_json())
        assert again == configuration
        assert hash(again) == hash(configuration)
        assert configuration.build() == again.build()


def test_an_own_space_from_toml_holds_what_it_says_and_nothing_twice():
    space = space_from(tomllib.loads(OWN)["space"])
    # 2 allocations × the rates .1 .2 .3, the ten l1 of one digit from 1e-6 to 1e-5, 2 static; two sparsities.
    assert space.size() == (2 * 3 + 10 + 2) * 2
    everything = list(space.everything())
    assert len(everything) == len(set(everything)) == space.size()
    assert set(space.grid()) <= set(everything)
    assert len(space.grid()) == (2 * 3 + 1 + 2) * 2
    assert {point.sparsity for point in everything} == {0.5, 0.9}
    assert {dict(point.settings).get("update_every") for point in everything if point.method == "rigl"} == {
        10
    }
    assert "90 %" in everything[1].label


def test_no_two_candidates_of_a_search_share_a_label_and_the_papers_are_as_short_as_ever():
    varied = Branch.of(
        "dynamic_sparse",
        allocation="er",
        death="threshold",
        redistribution="none",
        growth=["random", "gradient"],
        death_rate=[0.5, 0.8],
        gates=["exchange", "separate"],
        update_every=["epoch", "3 epochs"],
        threshold_at_once=[False, True],
    )
    everything = list(Space(branches=[varied], sparsity=[0.5, 0.9], sparsity_weight=1.0).everything())
    labels = [point.full_label for point in everything]
    assert len(set(labels)) == len(everything) == 2**6
    assert labels[-1] == (
        "er · threshold · none · gradient · 0.8 · gates=separate · threshold_at_once=True · "
        "update_every=3 epochs · 90 %"
    )
    for point in Space().grid():
        assert point.full_label == point.label


@pytest.mark.parametrize("name", SPACES)
def test_a_space_is_the_same_after_being_written_down(name):
    space = get_space(name)
    assert space_from(space.to_mapping()) == space


def test_an_own_space_in_python_is_the_one_of_its_toml():
    python = hp.Space(
        branches=[
            hp.Branch.of(
                "rigl",
                death_rate=hp.Range(0.1, 0.3, digits=1),
                update_every=10,
                allocation=["uniform", "er"],
            ),
            hp.Branch.of("deep_r", l1=hp.Range(1e-6, 1e-5, digits=1, log=True, at=(2e-6,))),
            hp.Branch.of("static", densities=[[("encoder.weight", 0.5)], []]),
        ],
        sparsity=[0.5, 0.9],
        sparsity_weight=0.25,
    )
    assert python == space_from(tomllib.loads(OWN)["space"])
    assert space_from(python.to_mapping()) == python


def test_the_wide_space_has_a_branch_for_every_method_that_prunes():
    wide = get_space("wide")
    assert {branch.method for branch in wide.branches} == set(methods.names()) - {"dense"}
    sparse = {branch.method for branch in get_space("sparse_to_sparse").branches}
    assert set(methods.names()) - {"dense"} - sparse == {
        *("gmp", "narang", "iterative_magnitude", "lottery_ticket"),
    }
    assert begins_dense("gmp")
    assert not begins_dense("top_kast")  # dense nowhere: its backward set is not used
    assert wide.size() == sum(branch.size for branch in wide.branches) == len(list(_limited(wide)))


def _limited(space):
    for branch in space.branches:
        yield from itertools.product(*(own.values() for _, own in branch.settings))


@settings(max_examples=60, deadline=None)
@given(
    low=st.integers(-300, 300),
    span=st.integers(1, 400),
    digits=st.integers(0, 3),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_linear_ranges_draws_and_size_are_those_of_its_values(low, span, digits, seed):
    own = Range(low / 10**digits, (low + span) / 10**digits, digits=digits)
    values = own.values()
    assert len(values) == own.size == span + 1
    assert (values[0], values[-1]) == (own.low, own.high)
    assert all(value in own for value in values)
    assert own.sample(np.random.default_rng(seed)) in set(values)
    assert own.low + 0.5 / 10**digits not in own


@settings(max_examples=60, deadline=None)
@given(
    first=st.integers(1, 99), exponent=st.integers(-7, 2), steps=st.integers(1, 300), seed=st.integers(0, 99)
)
def test_a_logarithmic_ranges_values_have_its_significant_digits(first, exponent, steps, seed):
    low = float(f"{10 + first % 90}e{exponent}")
    high = float(f"{low * (1 + steps / 10):.1e}")
    own = Range(low, high, digits=2, log=True)
    values = own.values()
    assert len(set(values)) == own.size == len(values)
    assert (values[0], values[-1]) == (low, high)
    assert list(values) == sorted(values)
    assert all(float(f"{value:.1e}") == value for value in values)
    assert own.sample(np.random.default_rng(seed)) in set(values)


def test_a_range_of_whole_numbers_gives_whole_numbers():
    own = Range(3, 8, digits=0)
    assert own.values() == (3, 4, 5, 6, 7, 8)
    assert all(type(value) is int for value in (*own.values(), *own.corners, *own.grid))
    assert own.grid == (3, 6, 8)  # low, middle and high
    random = np.random.default_rng(0)
    drawn = [own.sample(random) for _ in range(6000)]
    assert all(type(value) is int for value in drawn)
    # Each of six is drawn 1000 times, with a standard deviation of 29; rounding would give the ends 600.
    assert all(abs(drawn.count(value) - 1000) < 120 for value in own.values())


def test_every_value_of_every_branch_is_shown_in_a_cover():
    for branch in get_space("wide").branches:
        cover = [dict(point.settings) for point in branch.cover()]
        for name, own in branch.settings:
            assert {values[name] for values in cover} == set(own.corners)


def test_a_configurations_coordinates_ask_for_it_again():
    for name in SPACES:
        space = get_space(name)
        random = np.random.default_rng(1)
        for _ in range(30):
            drawn = space.sample(random)
            place = space.coordinates(drawn)
            assert place is not None
            assert space.ask(lambda asked, own, place=place: place[asked][1]) == drawn
        assert space.coordinates(Configuration.of("static", gates="separate")) is None


def test_a_draw_asks_for_its_own_branch_alone():
    space = get_space("wide")
    asked = []

    def suggest(name, own):
        asked.append(name)
        return 1 if name == "branch" else own.grid[0]

    assert space.ask(suggest).method == space.branches[1].method == "static"
    assert asked == ["branch", "1 allocation"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[space]\ndeath = ['set']", r"unknown key in \[space\] 'death'"),
        ("[space]\nname = 'wyde'", "unknown space 'wyde'; did you mean 'wide'"),
        ("[space]\nname = 3", r"\[space\] name must be a text"),
        (
            "[space]\nname = 'wide'\n[[space.branch]]\nmethod = 'set_'",
            "a name or branches of its own, got both",
        ),
        ("[space]\nbranch = 'set_'", "must be a list of tables"),
        ("[space]\nbranch = []", "must have at least one branch"),
        ("[[space.branch]]", "must set method to a name of 'hyperprune methods', got None"),
        ("[[space.branch]]\nmethod = 'rigle'", "unknown method 'rigle'; did you mean 'rigl'"),
        ("[[space.branch]]\nmethod = 'dense'", "a branch must prune"),
        ("[[space.branch]]\nmethod = 'set_'\noptional = 1", "optional must be true or false, got 1"),
        ("[[space.branch]]\nmethod = 'set_'\ndeth_rate = 0.5", "setting of method set_ 'deth_rate'; did you"),
        (
            "[[space.branch]]\nmethod = 'set_'\ndeath = []",
            "branch 'set_', death: a choice must list at least one",
        ),
        ("[[space.branch]]\nmethod = 'set_'\ndeath = ['set', 'set']", "each once"),
        (
            "[[space.branch]]\nmethod = 'set_'\ndeath_rate = [0.5, 1.5]",
            "branch 'set_': death_rate must lie in",
        ),
        ("[[space.branch]]\nmethod = 'set_'\nsparsity = [0.5]", "sparsity is no setting of a method"),
        (
            "[[space.branch]]\nmethod = 'set_'\ndeath_rate = {low = 0.9, high = 0.4}",
            "death_rate: a range must have low below high, got low 0.9 and high 0.4",
        ),
        (
            "[[space.branch]]\nmethod = 'set_'\ndeath_rate = {low = 0.5, high = 1.5}",
            "branch 'set_': death_rate must lie in",
        ),
        (
            "[[space.branch]]\nmethod = 'deep_r'\nl1 = {low = 0, high = 1e300}",
            "at most 300 digits in all, got 3 digits after the point and an end of 1e",
        ),
        (
            "[[space.branch]]\nmethod = 'deep_r'\nl1 = {low = 1e-9, high = 1, digits = 301, log = true}",
            "at most 300 digits in all, got 301 digits and an end of 1",
        ),
        (
            "[[space.branch]]\nmethod = 'deep_r'\nl1 = {low = 0, high = 9223372036854775808, digits = 0}",
            "of whole numbers must lie within ±9223372036854775807, got an end of 9.2",
        ),
        (
            "[[space.branch]]\nmethod = 'set_'\ndeath_rate = {low = 0.1}",
            "a range must set 'high'",
        ),
        (
            "[[space.branch]]\nmethod = 'set_'\ndeath_rate = {low = 0.1, high = 0.5, step = 0.1}",
            "unknown key in a range 'step'",
        ),
        (
            "[[space.branch]]\nmethod = 'set_'\ndeath_rate = {low = 0.1, high = 0.5, at = [0.7]}",
            r"must lie in it .* got 0.7 in \[0.1, 0.5\]",
        ),
        (
            "[[space.branch]]\nmethod = 'deep_r'\nl1 = {low = 0, high = 0.5, log = true}",
            "with log a low above 0",
        ),
        (
            "[[space.branch]]\nmethod = 'set_'\nallocation = 'er'\n"
            "[[space.branch]]\nmethod = 'set_'\nallocation = ['uniform', 'er']",
            "must not share configurations, and two of 'set_' do",
        ),
        ("[space]\nsparsity = [0.5, 0.9]", "needs its trade-off, sparsity_weight ≥ 0"),
        ("[space]\nsparsity = [0.5, 1.0]\nsparsity_weight = 1", r"sparsity must lie in \[0, 1\), got 1.0"),
        ("[space]\nsparsity = ['much']\nsparsity_weight = 1", r"sparsity must lie in \[0, 1\), got 'much'"),
        ("[space]\nsparsity = []\nsparsity_weight = 1", "sparsity: a choice must list at least one"),
        ("[space]\nsparsity_weight = 1", "needs a sparsity that is searched"),
        ("[space]\nsparsity = [0.5]\nsparsity_weight = -1", "sparsity_weight ≥ 0.* got -1"),
    ],
)
def test_a_wrong_space_is_refused(text, message):
    with pytest.raises(InputError, match=message):
        space_from(tomllib.loads(text)["space"])


def test_settings_that_are_only_wrong_together_are_found_before_they_are_drawn():
    with pytest.raises(InputError, match='threshold_start needs death="threshold"'):
        Branch.of("dynamic_sparse", death=["threshold", "set"], threshold_start=[0.001, 0.01])


def test_branches_that_differ_in_one_setting_do_not_overlap():
    space = Space(
        branches=[
            Branch.of("set_", death_rate=Range(0.1, 0.2), allocation="er"),
            Branch.of("set_", death_rate=Range(0.1, 0.2), allocation="uniform"),
            Branch.of("set_", death_rate=Range(0.3, 0.4), allocation="uniform"),
        ]
    )
    assert space.size() == 3 * 101 == len(set(space.everything()))


def test_a_table_without_low_and_high_is_one_value():
    branch = Branch.of("static", densities={"encoder.weight": 0.5})
    assert branch.size == 1
    assert dict(branch.settings)["densities"] == Choice(((("encoder.weight", 0.5),),))
    assert branch.cover()[0].build().densities == (("encoder.weight", 0.5),)
