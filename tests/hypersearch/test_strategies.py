"""Strategies on an arena of numbers: who is kept, what is spent."""

import subprocess
import sys
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperprune.errors import InputError
from hyperprune.hypersearch.strategies import LSH, STRATEGIES, Full, Hyperband, Random, SuccessiveHalving
from hyperprune.hypersearch.strategy import Ahead, Arena, EveryCandidateFailed, Strategy, planned_epochs


class Numbers:
    """Candidates whose signal is their number, smaller is better; those in `fails` fail at once."""

    def __init__(self, fails: Sequence[int] = ()) -> None:
        self.epochs: dict[str, int] = {}
        self.rounds: list[tuple[int, int, int, list[str]]] = []
        self.proposers: list[str] = []
        self.fails = {f"c{number:03d}" for number in fails}

    def admit(self, proposer: str, count: int, *, round_number: int, history: str = "survivors") -> list[str]:
        assert round_number == (self.rounds[-1][0] if self.rounds else 0)
        self.proposers.append(proposer)
        keys = [f"c{len(self.epochs) + number:03d}" for number in range(count)]
        self.epochs |= dict.fromkeys(keys, 0)
        return keys

    def advance(self, keys: Sequence[str], to_epoch: int, *, ahead: Ahead | None = None) -> list[str]:
        for key in keys:
            assert self.epochs[key] <= to_epoch
            self.epochs[key] = to_epoch
        return [key for key in keys if key not in self.fails]

    def signals(self, keys: Sequence[str], signal: str, epoch: int) -> dict[str, float]:
        assert all(self.epochs[key] == epoch for key in keys)
        return {key: float(key[1:]) for key in keys}

    def eliminate(
        self, round_number: int, epoch: int, signals: Mapping[str, float], kept: Sequence[str]
    ) -> list[str]:
        assert set(kept) <= set(signals)
        self.rounds.append((round_number, epoch, len(signals), list(kept)))
        return list(kept)


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


class TwoCuts(Strategy):
    """A strategy of one's own that does not tell which epochs follow."""

    name = "two_cuts"

    def run(self, arena: Arena) -> list[str]:
        keys = arena.admit("random", self.candidates, round_number=0)
        for number in (1, 2):
            keys = self.sift(arena, keys, number=number, epoch=number, keep=self.candidates - 2 * number)
        return arena.advance(keys, self.final_epochs)


def test_nothing_is_begun_ahead_where_the_epochs_that_follow_are_not_told():
    # Else whoever is certain to be kept would be trained to the end on idle workers, past the second cut.
    told: list[Ahead | None] = []

    class Listens(Numbers):
        def advance(self, keys: Sequence[str], to_epoch: int, *, ahead: Ahead | None = None) -> list[str]:
            told.append(ahead)
            return super().advance(keys, to_epoch, ahead=ahead)

    TwoCuts(candidates=6, final_epochs=9, signal="loss").run(Listens())
    assert told == [None, None, None]
    told.clear()
    SuccessiveHalving(candidates=9, first_epochs=1, final_epochs=9).run(Listens())
    assert [ahead and ahead.epochs for ahead in told] == [(3, 9), (9,), None]


def test_full_trains_everything_to_the_end():
    arena = Numbers()
    full = Full(candidates=5, final_epochs=7)
    assert len(full.run(arena)) == 5
    assert sum(arena.epochs.values()) == planned_epochs(full) == 35


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"candidates": 1}, "candidates must be a whole number of at least 2, got 1"),
        ({"final_epochs": 20}, "final_epochs must be at least the 24 epochs of the selection, got 20"),
        ({"first_epochs": 0}, "first_epochs must be a whole number of at least 1, got 0"),
        ({"proposer": "tp"}, "unknown proposer 'tp'; did you mean 'tpe'"),
        ({"signal": "spectra"}, "unknown signal 'spectra'; did you mean 'spectrum'"),
    ],
)
def test_wrong_settings_are_refused_with_rule_value_and_remedy(settings, message):
    with pytest.raises(InputError, match=message):
        LSH(**settings)


@given(
    candidates=st.integers(3, 90),
    first=st.integers(1, 9),
    final=st.integers(10, 120),
    eta=st.sampled_from([2, 3]),
)
def test_halving_trains_what_was_planned_and_each_round_keeps_one_in_eta(candidates, first, final, eta):
    halving = SuccessiveHalving(candidates=candidates, first_epochs=first, final_epochs=final, eta=eta)
    arena = Numbers()
    finalists = halving.run(arena)
    assert sum(arena.epochs.values()) == planned_epochs(halving)
    assert finalists == [f"c{number:03d}" for number in range(len(finalists))]
    assert len(finalists) == candidates // eta ** len(arena.rounds) >= 1
    assert all(arena.epochs[key] == final for key in finalists)
    for number, (rank, epoch, entrants, kept) in enumerate(arena.rounds):
        assert (rank, epoch) == (number + 1, first * eta**number)
        assert epoch < final
        assert (entrants, len(kept)) == (candidates // eta**number, candidates // eta ** (number + 1))


def test_halving_goes_from_27_over_9_and_3_to_1_by_threes():
    halving = SuccessiveHalving(candidates=27, first_epochs=3, final_epochs=81, eta=3)
    assert [row[1:] for row in halving.plan()] == [
        (3, 27, 9, 0, 81),
        (9, 9, 3, 0, 54),
        (27, 3, 1, 0, 54),
    ]
    assert planned_epochs(halving) == 81 + 54 + 54 + 54


def test_hyperbands_brackets_are_those_of_its_algorithm_for_81_epochs_by_threes():
    # n = ⌈5/5·81⌉, ⌈5/4·27⌉, ⌈5/3·9⌉, ⌈5/2·3⌉, ⌈5/1⌉ candidates, each bracket's first rung at 81/3^s epochs.
    band = Hyperband(final_epochs=81, first_epochs=1, eta=3)
    rungs = [(row.entrants, row.epoch) for row in band.plan()]
    assert rungs == [
        *((81, 1), (27, 3), (9, 9), (3, 27)),
        *((34, 3), (11, 9), (3, 27)),
        *((15, 9), (5, 27)),
        (8, 27),
    ]
    assert band.candidates == 81
    assert [row.inserted for row in band.plan()] == [0, 0, 0, 34, 0, 0, 15, 0, 8, 5]
    assert band.created == 81 + 34 + 15 + 8 + 5


@given(final=st.integers(4, 300), first=st.integers(1, 6), eta=st.integers(2, 4))
def test_hyperband_trains_what_was_planned_and_numbers_its_rounds_through(final, first, eta):
    if final < first * eta:
        with pytest.raises(InputError, match="final_epochs must be at least eta · first_epochs"):
            Hyperband(final_epochs=final, first_epochs=first, eta=eta)
        return
    band = Hyperband(final_epochs=final, first_epochs=first, eta=eta)
    arena = Numbers()
    finalists = band.run(arena)
    assert sum(arena.epochs.values()) == planned_epochs(band)
    assert len(arena.epochs) == band.created
    assert [entry[0] for entry in arena.rounds] == list(range(1, len(arena.rounds) + 1))
    assert min(entry[1] for entry in arena.rounds) >= first
    assert {arena.epochs[key] for key in finalists} == {final}
    assert [entry[:3] for entry in arena.rounds] == [row[:3] for row in band.plan()]
    per_bracket = [row.kept for row in band.plan() if row.inserted]
    assert min(per_bracket) >= 1


class Mortal(Numbers):
    """Raises, as a live arena does, when nobody is left to advance."""

    def admit(self, proposer, count, *, round_number, history="survivors"):
        keys = [f"c{len(self.epochs) + number:03d}" for number in range(count)]
        self.epochs |= dict.fromkeys(keys, 0)
        self.born = {**getattr(self, "born", {}), round_number: keys}
        return keys

    def advance(self, keys, to_epoch, *, ahead=None):
        alive = super().advance(keys, to_epoch)
        if not alive:
            raise EveryCandidateFailed("every candidate failed")
        return alive


def test_a_bracket_that_fails_as_a_whole_leaves_the_others_and_their_numbers_as_they_are():
    band = Hyperband(final_epochs=9, first_epochs=1, eta=3)
    arena = Mortal(fails=range(9))
    finalists = band.run(arena)
    assert [len(keys) for keys in arena.born.values()] == [9, 5, 3]
    assert list(arena.born) == [0, 2, 3]
    assert [entry[0] for entry in arena.rounds] == [3]
    assert finalists == ["c009", "c014", "c015", "c016"]
    with pytest.raises(EveryCandidateFailed, match="every candidate failed"):
        band.run(Mortal(fails=range(100)))


def test_random_search_is_full_training_of_random_draws():
    arena = Numbers()
    strategy = Random(candidates=5, final_epochs=7)
    assert len(strategy.run(arena)) == 5
    assert arena.proposers == ["random"]
    assert sum(arena.epochs.values()) == planned_epochs(strategy) == 35


def test_a_strategy_goes_by_its_name_and_tells_it():
    for name, kind in STRATEGIES.items():
        assert kind().to_json()["name"] == name


def test_lsh_tells_the_proposer_the_history_it_was_asked_for():
    class Asked(Numbers):
        histories = []

        def admit(self, proposer, count, *, round_number, history="survivors"):
            self.histories.append(history)
            return super().admit(proposer, count, round_number=round_number)

    LSH(candidates=4, final_epochs=20, history="all").run(Asked())
    assert Asked.histories[1:] == ["all"] * len(Asked.histories[1:]) != []


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (LSH, {"history": "al"}, "unknown history 'al'; did you mean 'all'"),
        (LSH, {"history": "all", "proposer": "grid"}, "history means nothing to the proposer 'grid'"),
        (SuccessiveHalving, {"eta": 1}, "eta must be a whole number of at least 2, got 1"),
        (
            SuccessiveHalving,
            {"candidates": 2},
            "successive_halving must eliminate somebody.*got 2 candidates",
        ),
        (
            SuccessiveHalving,
            {"final_epochs": 3},
            "successive_halving must eliminate somebody.*3 final epochs",
        ),
        (Hyperband, {"final_epochs": 8}, r"at least eta · first_epochs = 9, got 8; lower first_epochs"),
        (Hyperband, {"first_epochs": 0}, "first_epochs must be a whole number of at least 1, got 0"),
        (Hyperband, {"eta": 1}, "eta must be a whole number of at least 2, got 1"),
    ],
)
def test_rivals_refuse_wrong_settings_with_rule_value_and_remedy(kind, settings, message):
    with pytest.raises(InputError, match=message):
        kind(**settings)


def test_what_is_no_whole_number_or_no_task_is_refused_in_words():
    # In another process, because the type checker of the tests would refuse it first, in its own words.
    code = (
        "import hyperprune as hp\n"
        "for call in (lambda: hp.LSH(candidates=8.0), lambda: hp.LSH(candidates='8'),\n"
        "             lambda: hp.LSH(final_epochs=True),\n"
        "             lambda: hp.LSH(signal='spectrum', spectrum_dims=2.0),\n"
        "             lambda: hp.search('pydoc', folder='none')):\n"
        "    try:\n"
        "        call()\n"
        "    except ValueError as error:\n"
        "        print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert [line.partition(";")[0] for line in done.stdout.splitlines()] == [
        "candidates must be a whole number of at least 2, got 8.0",
        "candidates must be a whole number of at least 2, got '8'",
        "final_epochs must be a whole number of at least 1, got True",
        "spectrum_dims must be a whole number of at least 1, got 2.0",
        "task must be a hyperprune.Task, got 'pydoc'",
    ]
