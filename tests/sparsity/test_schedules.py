"""Death rates, densities and due dates, at their ends and beyond."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperprune.errors import InputError
from hyperprune.sparsity.schedules import (
    Cadence,
    Clock,
    cubic_sparsity,
    decayed,
    geometric_rounds,
    narang_threshold,
    stepped_density,
)


@pytest.mark.parametrize(
    ("decay", "at_half", "end"), [("constant", 0.8, 0.8), ("linear", 0.45, 0.1), ("cosine", 0.45, 0.1)]
)
def test_a_decay_starts_and_ends_where_it_should_and_stays_there(
    decay: str, at_half: float, end: float
) -> None:
    assert decayed(0.8, 0.1, decay, 0.0) == pytest.approx(0.8)  # rounding of one addition
    assert decayed(0.8, 0.1, decay, 0.5) == pytest.approx(at_half)
    for progress in (1.0, 1.3, 2.0, 17.5):  # a bare cosine would be back at its start at 2
        assert decayed(0.8, 0.1, decay, progress) == end


@given(st.sampled_from(["linear", "cosine"]), st.floats(0, 3), st.floats(0, 3))
def test_a_decay_never_rises(decay: str, one: float, other: float) -> None:
    early, late = sorted((one, other))
    assert decayed(0.8, 0.0, decay, early) >= decayed(0.8, 0.0, decay, late)


def test_the_cubic_schedule_is_zhu_and_guptas() -> None:
    assert cubic_sparsity(0.8, 0.0) == 0.0
    assert cubic_sparsity(0.8, 0.5) == pytest.approx(0.8 * (1 - 0.125))
    assert cubic_sparsity(0.8, 1.0) == cubic_sparsity(0.8, 1.7) == 0.8


def test_rounds_are_equally_long_and_the_last_ends_the_phase() -> None:
    rounds = geometric_rounds(0.25, 2)
    assert rounds == [0.5, 0.25]
    densities = [stepped_density(0.25, rounds, progress) for progress in (0, 0.49, 0.5, 0.99, 1.0, 2.0)]
    assert densities == [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]


def test_a_list_of_densities_stops_at_the_final_one() -> None:
    rounds = (0.8, 0.6, 0.4, 0.2, 0.1, 0.05, 0.02, 0.01)  # JSE's schedule
    seen = [stepped_density(0.3, rounds, index / 4) for index in range(5)]
    assert seen == [1.0, 0.8, 0.6, 0.4, 0.3]
    final = 1 - 0.9  # 0.0999…98, below the last density of the list by round-off alone
    seen = [stepped_density(final, (0.4, 0.1, 0.05), index / 2) for index in range(3)]
    assert seen == [1.0, 0.4, final]


def test_narangs_threshold_has_two_slopes_and_ends_at_one() -> None:
    at = [narang_threshold(progress, 0.5, 2.0) for progress in (0.0, 0.5, 0.75, 1.0, 1.5)]
    assert at == pytest.approx([0, 1 / 3, 2 / 3, 1, 1])


@pytest.mark.parametrize("text", ["2epochs", "0 epochs", "", "day", 0, -3, 1.5, True, None])
def test_an_update_period_that_means_nothing_is_refused(text: object) -> None:
    with pytest.raises(InputError, match=r'update_every must be a number of steps.*"epoch" or "3 epochs"'):
        Cadence.parse(text)


def test_updates_by_step_respect_period_first_and_last_step() -> None:
    cadence = Cadence.parse(4, first_step=8, last_step=17)
    due = [step for step in range(1, 30) if cadence.due_after_step(Clock(total_steps=30, num_steps=step))]
    assert due == [8, 12, 16]


def test_updates_by_epoch_respect_the_period() -> None:
    cadence = Cadence.parse("3 epochs")
    due = [n for n in range(1, 10) if cadence.due_after_epoch(Clock(total_steps=30, num_epochs=n))]
    assert due == [3, 6, 9]
    assert not cadence.due_after_step(Clock(total_steps=30, num_steps=3))


def test_no_update_is_due_or_coming_at_the_last_planned_step() -> None:
    by_step, by_epoch = Cadence.parse(5), Cadence.parse("epoch")
    for num_steps, due in ((5, True), (10, False), (15, True)):
        clock = Clock(total_steps=10, num_steps=num_steps, num_epochs=num_steps // 5)
        assert by_step.due_after_step(clock) == by_epoch.due_after_epoch(clock) == due
        before = Clock(10, steps_per_epoch=5, num_steps=num_steps - 1, epoch_start=num_steps - 5)
        expected = 0 if due else None
        assert by_step.steps_to_update(before) == by_epoch.steps_to_update(before) == expected


def test_lost_batches_bring_the_last_planned_step_nearer_until_training_goes_beyond_the_plan() -> None:
    by_step, by_epoch = Cadence.parse(1), Cadence.parse("epoch")
    for num_steps, due in ((7, True), (8, False), (9, False), (10, False), (11, True)):
        clock = Clock(10, num_steps=num_steps, num_epochs=2, num_lost=1, num_lost_before=1)
        assert by_step.due_after_step(clock) == by_epoch.due_after_epoch(clock) == due
        before = Clock(10, num_steps=num_steps - 1, num_lost=1, num_lost_before=1)
        assert by_step.steps_to_update(before) == (0 if due else None)


def test_the_steps_before_an_update_are_known() -> None:
    cadence = Cadence.parse(4, last_step=8)
    ahead = [cadence.steps_to_update(Clock(total_steps=30, num_steps=done)) for done in range(9)]
    assert ahead == [3, 2, 1, 0, 3, 2, 1, 0, None]


def test_the_steps_before_an_epochs_end_are_known_if_its_length_is() -> None:
    known = Clock(total_steps=30, steps_per_epoch=5, num_steps=12, num_epochs=2, epoch_start=10)
    unknown = Clock(total_steps=30, num_steps=12, num_epochs=2, epoch_start=10)
    assert Cadence.parse("epoch").steps_to_update(known) == 2
    assert Cadence.parse("epoch").steps_to_update(unknown) == 0
    assert Cadence.parse("2 epochs").steps_to_update(known) is None


def test_lost_batches_bring_an_epochs_end_nearer_and_one_that_outlasts_its_length_may_end_at_any_step() -> (
    None
):
    for num_lost, ahead in enumerate([2, 1, 0, 0]):
        clock = Clock(30, steps_per_epoch=5, num_steps=12, num_epochs=2, epoch_start=10, num_lost=num_lost)
        assert Cadence.parse("epoch").steps_to_update(clock) == ahead
