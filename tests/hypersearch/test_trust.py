"""Rank correlation of an early signal with the final metric."""

import math

import numpy as np
import pytest

from hyperprune.hypersearch.trust import mean_ranks, rank_correlation
from hyperprune.records import CandidateRecord, Outcome, RunRecord


def _run(metrics, *, lower_is_better=True, outcome: Outcome = "finalist"):
    dense = CandidateRecord(key="dense", label="dense", configuration={})
    rows = tuple(
        CandidateRecord(key=f"c{number}", label="", configuration={}, outcome=outcome, metric=metric)
        for number, metric in enumerate(metrics)
    )
    return RunRecord(
        task="t",
        sparsity=0.5,
        seed=0,
        strategy={},
        metric="m",
        lower_is_better=lower_is_better,
        baseline=None,
        reference=dense,
        candidates=rows,
        rounds=(),
        epochs_spent=0,
        epochs_full=0,
        finished=True,
        provenance={},
    )


def _signals(values):
    return {f"c{number}": value for number, value in enumerate(values)}


def test_ties_share_the_mean_of_their_ranks():
    assert mean_ranks(np.array([5.0, 1.0, 5.0, 0.0])).tolist() == [3.5, 2.0, 3.5, 1.0]


def test_rho_by_hand():
    # Ranks 1 2 3 4 against 2 1 4 3: rho = 1 - 6·4 / (4·15) = 0.6.
    outcome = rank_correlation(_run([20.0, 10.0, 40.0, 30.0]), _signals([1.0, 2.0, 3.0, 400.0]))
    assert outcome.rho == pytest.approx(0.6, abs=1e-12)  # a few roundings of numbers near 1
    assert outcome.n == 4


def test_a_good_signal_is_positive_whatever_the_metrics_direction():
    assert rank_correlation(_run([1, 2, 3]), _signals([1, 2, 3])).rho == pytest.approx(1)
    higher = _run([3, 2, 1], lower_is_better=False)
    assert rank_correlation(higher, _signals([1, 2, 3])).rho == pytest.approx(1)


def test_the_interval_mostly_holds_zero_for_chance_and_never_for_a_strong_signal():
    covered = 0
    for seed in range(40):
        random = np.random.default_rng(seed)
        metrics = random.random(20)
        chance = rank_correlation(_run(metrics.tolist()), _signals(random.random(20)))
        covered += chance.low < 0 < chance.high
    # 95 % nominal, a little less for a percentile interval of 20 points; 32 of 40 is 4 deviations below 93 %.
    assert 32 <= covered <= 40
    metrics = np.random.default_rng(0).random(20)
    strong = rank_correlation(_run(metrics.tolist()), _signals(metrics + 0.02 * np.arange(20) / 20))
    assert 0.8 < strong.low <= strong.rho <= strong.high <= 1 + 1e-12  # rounding of a quotient that is 1


def test_only_finalists_with_a_signal_count_and_too_few_or_equal_ones_give_nan():
    assert rank_correlation(_run([1, 2, 3, 4]), _signals([1, 2, 3])).n == 3
    for outcome in (
        rank_correlation(_run([1, 2]), _signals([1, 2])),
        rank_correlation(_run([1, 2, 3], outcome="eliminated"), _signals([1, 2, 3])),
        rank_correlation(_run([1, 1, 1]), _signals([1, 2, 3])),
        rank_correlation(_run([]), {}),
    ):
        assert all(math.isnan(value) for value in outcome[:3])
