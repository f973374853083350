"""Strategies on an arena of numbers: who is kept, what is spent."""

from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperprune.errors import InputError
from hyperprune.hypersearch.strategies import LSH, Full, planned_epochs


class Numbers:
    """Candidates whose signal is their number, smaller is better; those in `fails` fail at once."""

    def __init__(self, fails: Sequence[int] = ()) -> None:
        self.epochs: dict[str, int] = {}
        self.rounds: list[tuple[int, int, int, list[str]]] = []
        self.fails = {f"c{number:03d}" for number in fails}

    def admit(self, proposer: str, count: int, *, round_number: int) -> list[str]:
        keys = [f"c{len(self.epochs) + number:03d}" for number in range(count)]
        self.epochs |= dict.fromkeys(keys, 0)
        return keys

    def advance(self, keys: Sequence[str], to_epoch: int) -> list[str]:
        for key in keys:
            assert self.epochs[key] <= to_epoch
            self.epochs[key] = to_epoch
        return [key for key in keys if key not in self.fails]

    def signals(self, keys: Sequence[str], signal: str, epoch: int) -> dict[str, float]:
        assert all(self.epochs[key] == epoch for key in keys)
        return {key: float(key[1:]) for key in keys}

    def eliminate(
        self, round_number: int, epoch: int, signals: Mapping[str, float], kept: Sequence[str]
    ) -> None:
        self.rounds.append((round_number, epoch, len(signals), list(kept)))


def test_the_papers_schedule_goes_from_24_over_18_13_10_7_5_4_3_to_2():
    rounds = LSH(candidates=24, first_epochs=3, round_epochs=3, final_epochs=100).plan()
    assert [planned.entrants for planned in rounds] == [24, 18, 13, 10, 7, 5, 4, 3]
    assert (rounds[-1].kept, rounds[-1].inserted) == (2, 0)
    assert [planned.epoch for planned in rounds] == [3, 6, 9, 12, 15, 18, 21, 24]
    assert rounds[1].epochs == 12 * 3 + 6 * 6  # the newcomers catch up from scratch


def test_the_grid_inserts_nothing_and_goes_24_12_6_3_2():
    rounds = LSH(proposer="grid").plan()
    assert [planned.entrants for planned in rounds] == [24, 12, 6, 3]
    assert all(planned.inserted == 0 for planned in rounds)


@given(
    candidates=st.integers(2, 60),
    first=st.integers(1, 5),
    step=st.integers(1, 4),
    proposer=st.sampled_from(["tpe", "random", "grid"]),
)
def test_what_is_trained_is_what_was_planned(candidates, first, step, proposer):
    lsh = LSH(
        candidates=candidates, first_epochs=first, round_epochs=step, final_epochs=200, proposer=proposer
    )
    arena = Numbers()
    finalists = lsh.run(arena)
    assert len(finalists) == 2
    assert sum(arena.epochs.values()) == planned_epochs(lsh)
    assert [(number, epoch, entrants) for number, epoch, entrants, _ in arena.rounds] == [
        (planned.number, planned.epoch, planned.entrants) for planned in lsh.plan()
    ]


def test_the_smallest_signals_are_kept_and_win():
    arena = Numbers()
    assert LSH(candidates=8, final_epochs=50).run(arena) == ["c000", "c001"]
    assert arena.rounds[0][3] == ["c000", "c001", "c002", "c003"]


def test_failed_candidates_are_never_ranked_and_the_rest_goes_on():
    arena = Numbers(fails=[0, 1, 2])
    finalists = LSH(candidates=6, final_epochs=50).run(arena)
    assert finalists == ["c003", "c004"]
    assert all("c000" not in kept for *_, kept in arena.rounds)


def test_when_one_candidate_is_left_it_is_trained_to_the_end():
    arena = Numbers(fails=[1, 2])
    assert LSH(candidates=3, final_epochs=50).run(arena) == ["c000"]
    assert arena.epochs["c000"] == 50


def test_full_trains_everything_to_the_end():
    arena = Numbers()
    full = Full(candidates=5, final_epochs=7)
    assert len(full.run(arena)) == 5
    assert sum(arena.epochs.values()) == planned_epochs(full) == 35


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"candidates": 1}, "candidates must be at least 2, got 1"),
        ({"final_epochs": 20}, "final_epochs must be at least the 24 epochs of the selection, got 20"),
        ({"first_epochs": 0}, "first_epochs must be at least 1, got 0"),
        ({"proposer": "tp"}, "unknown proposer 'tp'; did you mean 'tpe'"),
        ({"signal": "spectra"}, "unknown signal 'spectra'; did you mean 'spectrum'"),
    ],
)
def test_wrong_settings_are_refused_with_rule_value_and_remedy(settings, message):
    with pytest.raises(InputError, match=message):
        LSH(**settings)
