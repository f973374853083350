"""The simulated clock of `benchmarks/simulated.py`, by hand: who begins when, and what efficiency is."""

import importlib.util
from pathlib import Path

import pytest

import hyperprune as hp
from tiny_task import TinyTask

_PATH = Path(__file__).parents[2] / "benchmarks" / "simulated.py"
_SPEC = importlib.util.spec_from_file_location("simulated", _PATH)
assert _SPEC is not None
assert _SPEC.loader is not None
simulated = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(simulated)


def _epochs(job):
    return float(job.to_epoch - job.from_epoch)


def _simulate(strategy, places, *, barriers):
    return simulated.simulate(TinyTask(), strategy, places=places, seconds=_epochs, barriers=barriers)


def test_equal_candidates_share_the_workers_and_the_last_one_waits_for_nobody():
    full = hp.Full(candidates=4, final_epochs=3)  # five networks of 3 s, the dense one among them
    assert _simulate(full, 1, barriers=True) == {"seconds": 15.0, "work": 15.0, "efficiency": 1.0}
    assert _simulate(full, 2, barriers=True) == {"seconds": 9.0, "work": 15.0, "efficiency": 15 / 18}
    assert _simulate(full, 8, barriers=True) == {"seconds": 3.0, "work": 15.0, "efficiency": 15 / 24}


def test_working_ahead_saves_what_a_barrier_costs_and_changes_no_work():
    # 2 of 4 are kept after an epoch; two workers. Five networks take 3 s, in the last of which one worker has
    # nothing to do; then three of 7 s take 14 s. Without the barrier it begins one of the three at 2 s.
    lsh = hp.LSH(candidates=4, first_epochs=1, round_epochs=1, final_epochs=8, proposer="grid", signal="loss")
    with_barriers = _simulate(lsh, 2, barriers=True)
    free = _simulate(lsh, 2, barriers=False)
    assert with_barriers["work"] == free["work"] == 5 + 3 * 7
    assert with_barriers["seconds"] == 3 + 14
    assert free["seconds"] == 2 + 14


def test_recorded_times_are_those_of_one_candidate_from_its_epoch_on():
    times = simulated.SegmentTimes(fresh=[10.0], resumed=[5.0], epochs=[[1.0, 2.0, 4.0]])
    training = hp.Configuration.of("static")

    class Job:
        from_epoch, to_epoch = 0, 4

        class training:
            name = training.text

    assert times.of(Job) == pytest.approx(10 + 1 + 2 + 4 + 1)
    Job.from_epoch = 2
    assert times.of(Job) == pytest.approx(5 + 4 + 1)
