"""The Reber grammars: what is valid, what is drawn, what is changed, and the published strings."""

from collections import Counter
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperprune.data.reber import (
    CHANGES,
    EMBEDDED_REBER,
    MAX_LENGTH,
    REBER,
    ReberSettings,
    generate,
    is_valid,
)
from hyperprune.data.strings import load_strings
from hyperprune.errors import InputError


def test_strings_from_the_literature_are_judged_rightly():
    # Cleeremans et al. 1989, figure 2 and its text; the last three break one move each.
    for string in ("BTXSE", "BPVVE", "BTSSSXXTVVE", "BPTTTVPSE", "BTSXXTVPXVPSE"):
        assert is_valid(string)
    for string in ("", "B", "BTXS", "BTXSEE", "TXSE", "BTXXTTVE", "BPTTTVPXE", "btxse"):
        assert not is_valid(string)
    assert is_valid("BTBTXSETE", embedded=True)
    assert is_valid("BPBPVVEPE", embedded=True)
    for string in ("BTBTXSEPE", "BTBTXSET", "BTXSE", "BTBTXSETEE"):
        assert not is_valid(string, embedded=True)


@pytest.mark.parametrize("length", [4, 5, 6, 7, 8])
def test_the_counted_strings_of_a_length_are_those_that_are_accepted(length):
    accepted = sum(is_valid("B" + "".join(middle) + "E") for middle in product("TPSXV", repeat=length - 2))
    assert REBER.num_strings(length)[length] == accepted
    assert EMBEDDED_REBER.num_strings(length + 4)[length + 4] == 2 * accepted  # one for T, one for P


def test_walks_of_one_length_are_uniform_over_its_strings():
    # Two branches at every step but the first and the last: all strings of a length are equally likely.
    strings = REBER.walk(np.full(24_000, 11), np.random.default_rng(0))
    counts = Counter(strings)
    assert len(counts) == REBER.num_strings(11)[11] == 24
    assert all(is_valid(string) for string in counts)
    # Pearson's statistic has 23 degrees of freedom: above 49.7 one time in a thousand.
    assert sum((count - 1000) ** 2 / 1000 for count in counts.values()) < 49.7


@pytest.mark.parametrize("embedded", [False, True])
def test_the_longest_strings_are_drawn_rightly_and_longer_ones_are_refused(embedded):
    long = {"embedded": embedded, "num_strings": 20, "min_length": MAX_LENGTH - 9}
    drawn = generate(ReberSettings(max_length=MAX_LENGTH, changes=("swap",), **long), seed=0)
    for string, valid in zip(drawn.strings, drawn.valid, strict=True):
        assert len(string) > MAX_LENGTH - 10
        assert is_valid(string, embedded=embedded) == valid
    chance = (EMBEDDED_REBER if embedded else REBER).chances(MAX_LENGTH)
    assert chance[chance > 0].min() > np.finfo(float).tiny  # no digit is lost yet
    with pytest.raises(InputError, match="max_length must be at most 2000, got 2001"):
        ReberSettings(max_length=MAX_LENGTH + 1, **long)


def test_lengths_of_walks_have_the_chance_of_a_free_walk():
    chance = REBER.chances(60)[:, 0]
    assert chance[:8].tolist() == pytest.approx([0, 0, 0, 0, 0, 2 / 8, 3 / 16, 4 / 32])
    assert chance.sum() == pytest.approx(1, abs=1e-3)  # what is longer than 60 letters


@pytest.mark.parametrize("embedded", [False, True])
def test_drawn_strings_are_distinct_labelled_rightly_balanced_and_within_the_lengths(embedded):
    settings = ReberSettings(
        num_strings=1001, embedded=embedded, min_length=15, max_length=30, valid_share=0.3
    )
    data = generate(settings, seed=3)
    assert len(data) == len(set(data.strings)) == 1001
    assert sum(data.valid) == 300
    assert {len(string) for string in data.strings} <= set(range(15, 31))
    assert all(is_valid(s, embedded=embedded) == v for s, v in zip(data.strings, data.valid, strict=True))
    assert all(sum(data.valid[start : start + 200]) > 30 for start in (0, 400, 800))  # in random order


def test_a_seed_gives_its_own_strings_and_always_the_same():
    settings = ReberSettings(num_strings=50)
    assert generate(settings, 0) == generate(settings, 0) != generate(settings, 1)


def test_uniform_lengths_are_equally_frequent():
    settings = ReberSettings(
        num_strings=4000, min_length=20, max_length=23, lengths="uniform", valid_share=1, distinct=False
    )
    counts = Counter(map(len, generate(settings, 0).strings))
    assert all(abs(counts[length] - 1000) < 110 for length in range(20, 24))  # four standard deviations


@pytest.mark.parametrize("name", [name for name in CHANGES if name != "forget"])
@given(seed=st.integers(0, 10_000))
def test_a_change_keeps_first_and_last_letter_and_does_what_its_name_says(name, seed):
    random = np.random.default_rng(seed)
    (string,) = REBER.walk(random.integers(5, 20, size=1), random)
    changed = CHANGES[name](string, random)
    assert (changed[0], changed[-1]) == ("B", "E")
    assert len(changed) - len(string) == {"drop": -1, "insert": 1}.get(name, 0)
    if len(changed) == len(string):
        differ = [place for place, (a, b) in enumerate(zip(string, changed, strict=True)) if a != b]
        pairs = set(zip(string[1:-1], changed[1:-1], strict=True))
        match name:
            case "replace":
                assert len(differ) == 1
            case "swap":
                assert Counter(string) == Counter(changed)
                assert differ in ([], [*range(differ[0], differ[0] + 2)] if differ else [])
            case "relabel" | "foreign":
                assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})
                if name == "foreign":
                    assert not set(changed[1:-1]) & set("BTPSXVE")


def test_forgetting_breaks_only_the_embedded_grammars_memory():
    data = generate(ReberSettings(num_strings=100, embedded=True, valid_share=0, changes=("forget",)), 0)
    for string in data.strings:
        assert is_valid(string[2:-2])
        assert {string[1], string[-2]} == {"T", "P"}


def test_every_change_is_used_about_as_often():
    data = generate(ReberSettings(num_strings=1200, valid_share=0, changes=("foreign", "replace")), 0)
    foreign = sum(not set(string) <= set("BTPSXVE") for string in data.strings)
    assert abs(foreign - 600) < 70  # four standard deviations of a fair coin


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_strings": 0}, "num_strings must be at least 1, got 0"),
        (
            {"min_length": 12, "max_length": 11},
            "lengths must go from 1 or more up to max_length, got 12 to 11",
        ),
        ({"min_length": 1, "max_length": 4}, "has no string of 1 to 4 letters; the shortest has 5"),
        ({"embedded": True, "min_length": 5, "max_length": 8}, "the shortest has 9"),
        ({"lengths": "even"}, "unknown choice of lengths 'even'"),
        ({"valid_share": 1.5}, r"valid_share must lie in \[0, 1\], got 1.5"),
        ({"changes": ("replaced",)}, "unknown change 'replaced'; did you mean 'replace'"),
        ({"changes": ("forget",)}, "'forget' is of the embedded grammar"),
        ({"num_strings": 50, "max_length": 11}, "has 24 strings of 11 to 11 letters, got 25 valid ones"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        ReberSettings(**settings)


def test_all_strings_of_a_length_can_be_drawn_and_what_cannot_be_ends_with_an_error():
    assert len(generate(ReberSettings(num_strings=48, max_length=11), 0)) == 48
    impossible = ReberSettings(num_strings=2, min_length=11, max_length=11, changes=("drop",))
    with pytest.raises(InputError, match="1 strings of 11 to 11 letters are too many to draw"):
        generate(impossible, 0)
    endless = ReberSettings(num_strings=2, max_length=11, changes=("drop",), distinct=False)
    with pytest.raises(InputError, match="widen the lengths, or allow other changes"):
        generate(endless, 0)


def test_the_published_strings_are_labelled_as_the_grammar_says_and_use_up_the_short_ones(data_dir):
    folder = data_dir / "reber"
    if not folder.is_dir():
        pytest.skip("no reber folder in HYPERPRUNE_DATA")
    train, test = (load_strings(folder / f"{split}_data.csv") for split in ("train", "test"))
    assert (len(train), sum(train.valid), len(test)) == (18_750, 9_339, 6_250)
    strings, valid = train.strings + test.strings, train.valid + test.valid
    assert all(is_valid(string) == label for string, label in zip(strings, valid, strict=True))
    # What `lengths="walk"` and `distinct` reproduce: every valid string of up to 20 letters, once.
    lengths = Counter(len(string) for string, label in zip(strings, valid, strict=True) if label)
    assert [lengths[n] for n in range(11, 21)] == REBER.num_strings(20)[11:]


def test_short_strings_that_may_repeat_are_drawn_whatever_the_seed():
    # Of 20 bases all may draw a change that does not fit strings of one length; that is no reason to give up.
    for seed in range(50):
        settings = ReberSettings(num_strings=40, min_length=6, max_length=6, distinct=False)
        assert len(generate(settings, seed).strings) == 40
