"""Rank correlation of an early signal with the final metric, and what is made of it."""

import math
from dataclasses import replace

import numpy as np
import pytest

from hyperprune.hypersearch.ranks import least_told, mean_ranks, spearman_interval
from hyperprune.hypersearch.signals import SIGNALS
from hyperprune.hypersearch.trust import RankCorrelation, rank_correlation, trust
from hyperprune.records import CandidateRecord, EpochRecord, Outcome, RoundRecord, RunRecord
from hyperprune.report.reliance import reliance, verdict
from hyperprune.report.story import tell

FINAL = 3


def _epochs(values, spectrum=None, train=None):
    return tuple(
        EpochRecord(
            epoch=epoch,
            train_loss=train if epoch else None,
            valid_loss=value,
            metric=value,
            seconds=0.0,
            spectrum=spectrum,
        )
        for epoch, value in enumerate(values)
    )


def _run(metrics, *, lower_is_better=True, outcome: Outcome = "finalist", audited=(), **more):
    rows = tuple(
        CandidateRecord(
            key=f"c{number}",
            label="",
            configuration={
                "method": "static",
                **({"sparsity": more["own"][number]} if "own" in more else {}),
            },
            outcome=outcome,
            eliminated_in=1 if outcome == "eliminated" else None,
            metric=metric,
            epochs=_epochs(
                [9.0, more.get("losses", metrics)[number], 0.0, metric],
                more.get("spectrum"),
                more["train"][number] if "train" in more else None,
            ),
        )
        for number, metric in enumerate(metrics)
    )
    return RunRecord(
        task="t",
        sparsity=None if "own" in more else 0.5,
        seed=0,
        strategy={"name": "lsh", "signal": more.get("signal", "loss"), "final_epochs": FINAL},
        metric="m",
        lower_is_better=lower_is_better,
        baseline=None,
        reference=CandidateRecord(
            key="dense",
            label="dense",
            configuration={},
            epochs=_epochs([9.0, 1.0, 1.0, 1.0], more.get("spectrum"), 1.0 if "train" in more else None),
        ),
        candidates=rows,
        rounds=(RoundRecord(number=1, epoch=1, signals={}, kept=(), inserted=()),),
        epochs_spent=0,
        epochs_full=0,
        finished=True,
        provenance={},
        sparsity_weight=more.get("weight", 0.0),
        audited=tuple(audited),
    )


def _signals(values):
    return {f"c{number}": value for number, value in enumerate(values)}


def test_ties_share_the_mean_of_their_ranks():
    assert mean_ranks(np.array([5.0, 1.0, 5.0, 0.0])).tolist() == [3.5, 2.0, 3.5, 1.0]


def test_rho_and_its_interval_by_hand():
    # Ranks 1 2 3 4 against 2 1 4 3: rho = 1 - 6·4 / (4·15) = 0.6.
    outcome = rank_correlation(_run([20.0, 10.0, 40.0, 30.0]), _signals([1.0, 2.0, 3.0, 400.0]))
    assert outcome.rho == pytest.approx(0.6, abs=1e-12)  # a few roundings of numbers near 1
    assert outcome.n == 4
    # z = artanh 0.6 = 0.6931, its standard deviation sqrt((1 + 0.36 / 2) / 1) = 1.0863.
    half = 1.959964 * math.sqrt(1.18)
    assert outcome[1:3] == pytest.approx((math.tanh(math.log(2) - half), math.tanh(math.log(2) + half)))


def test_a_good_signal_is_positive_whatever_the_metrics_direction():
    assert rank_correlation(_run([1, 2, 3]), _signals([1, 2, 3])).rho == pytest.approx(1)
    higher = _run([3, 2, 1], lower_is_better=False)
    assert rank_correlation(higher, _signals([1, 2, 3])).rho == pytest.approx(1)


def test_the_interval_mostly_holds_zero_for_chance_and_never_for_a_strong_signal():
    for n in (5, 8, 20):
        covered = 0
        for seed in range(200):
            random = np.random.default_rng(seed)
            rho = np.corrcoef(random.permutation(n), np.arange(n))[0, 1]
            low, high = spearman_interval(float(rho), n)
            covered += low <= 0 <= high
        # 95 % nominal: 190 of 200, standard deviation 3.
        assert covered >= 181, n
    metrics = np.random.default_rng(0).random(20)
    strong = rank_correlation(_run(metrics.tolist()), _signals(metrics + 0.02 * np.arange(20) / 20))
    assert 0.8 < strong.low <= strong.rho <= strong.high <= 1 + 1e-12  # rounding of a quotient that is 1


@pytest.mark.parametrize(("n", "certain"), [(3, False), (4, False), (5, True)])
def test_a_perfect_order_of_few_is_no_certainty(n, certain):
    # A perfect order of 4 comes by chance, in either direction, once in 12; of 5 once in 60.
    low, high = spearman_interval(1.0, n)
    assert (low > 0) == certain
    assert high == 1.0
    assert spearman_interval(-1.0, n) == pytest.approx((-high, -low))


@pytest.mark.parametrize("n", [5, 6, 24])
def test_the_least_correlation_that_is_told_from_none_is_where_the_interval_leaves_0(n):
    least = least_told(n)
    assert least is not None
    assert spearman_interval(least, n)[0] > 0 >= spearman_interval(least - 0.01, n)[0]
    # By hand: artanh 0.42 = 0.4477 is above 1.96 · sqrt((1 + 0.42² / 2) / 21) = 0.4462, artanh 0.41 is not.
    assert (least == 0.42) == (n == 24)
    assert [least_told(few) for few in (0, 3, 4)] == [None, None, None]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.1, 0.9, "helped"),
        (-0.9, -0.1, "misled"),
        (-0.4, 0.3, "did not help"),
        (-0.2, 0.7, "too few"),
        (math.nan, math.nan, "too few"),
    ],
)
def test_the_verdict_is_read_off_the_interval(low, high, expected):
    assert RankCorrelation(0.0, low, high, 9).verdict == expected


def test_finalists_and_audited_ones_count_and_too_few_or_equal_ones_give_nan():
    assert rank_correlation(_run([1, 2, 3, 4]), _signals([1, 2, 3])).n == 3
    audited = _run([1, 2, 3, 4], outcome="eliminated", audited=["c0", "c2", "c3"])
    assert rank_correlation(audited, _signals([1, 2, 3, 4])).n == 3
    for outcome in (
        rank_correlation(_run([1, 2]), _signals([1, 2])),
        rank_correlation(_run([1, 2, 3], outcome="eliminated"), _signals([1, 2, 3])),
        rank_correlation(_run([1, 2, 3], outcome="failed", audited=["c0", "c1", "c2"]), _signals([1, 2, 3])),
        rank_correlation(_run([1, 1, 1]), _signals([1, 2, 3])),
        rank_correlation(_run([]), {}),
    ):
        assert all(math.isnan(value) for value in outcome[:3])


def test_where_the_sparsity_is_searched_the_weighed_metric_and_signal_are_compared():
    # Bare metrics 1 2 3; with weight 9 the dense ones count 9.1, 2·1.9, 3·1 or so: the order turns round.
    run = _run([1.0, 2.0, 3.0], own=[0.1, 0.9, 0.99], weight=9.0, losses=[3.0, 2.0, 1.0])
    assert rank_correlation(run, _signals([3, 2, 1])).rho == pytest.approx(1)
    found = trust(run)
    assert found is not None
    assert found.first.correlation.rho == pytest.approx(1)


def test_the_signal_is_computed_again_at_the_rounds_epoch_and_compared_with_the_others():
    losses = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    run = _run([1, 2, 3, 4, 5, 6.0], losses=losses[::-1], train=losses, spectrum=np.zeros(2), signal="blend")
    found = trust(run)
    assert found is not None
    assert [(item.signal, item.epoch) for item in found.judged] == [
        ("blend", 1),
        ("training_losses", 1),
        ("mean_exponent", 1),
        ("spectrum", 1),
        ("loss", 1),
    ]
    rhos = [item.correlation.rho for item in found.judged]
    assert rhos[0] == pytest.approx(-1)
    assert rhos[1] == pytest.approx(1)
    assert math.isnan(rhos[2])  # all spectra are equal
    assert math.isnan(rhos[3])
    assert rhos[4] == pytest.approx(-1)
    assert found.num_finalists == 6
    words = dict(tell(run).definitions)["Signal"]
    assert "For comparison, training_losses: the sum of a candidate's training losses" in words
    assert "For comparison, mean_exponent: minus the mean" in words
    assert "comparison, blend" not in words


def test_a_signal_that_is_not_known_here_is_not_judged_by_another_and_others_by_what_was_recorded():
    run = _run([float(number) for number in range(12)], signal="a_users_own")
    found = trust(run)
    assert found is not None
    assert [(item.signal, item.correlation.n) for item in found.judged] == [("a_users_own", 0), ("loss", 12)]
    assert found.judged[1].correlation.verdict == "helped"
    assert str(verdict(run)).startswith("Whether the signal 'a_users_own' at epoch")
    assert "helped is not judged: it is not known here" in str(verdict(run))
    assert trust(_run([])) is None


def test_a_signal_of_ones_own_that_fails_on_the_candidates_trained_to_the_end_tells_nobody(monkeypatch):
    def fails(reference, candidates):
        raise ZeroDivisionError

    monkeypatch.setitem(SIGNALS, "fails", fails)
    run = _run([1, 2, 3.0], signal="fails", spectrum=np.zeros(2))
    found = trust(run)
    assert found is not None
    assert (found.first.signal, found.first.correlation.n) == ("fails", 0)
    assert "Whether the signal 'fails' at epoch 1 helped is not judged" in str(verdict(run))


def _sentence(losses, **more):
    run = _run([float(number) for number in range(len(losses))], losses=losses, **more)
    text = verdict(run)
    assert text is not None
    return text


def test_the_report_says_that_it_helped_misled_did_not_help_or_that_it_cannot_tell():
    random = np.random.default_rng(3)
    chance = random.permutation(40).astype(float).tolist()
    assert _sentence(list(range(12))).startswith(
        "It helped here: candidates that the signal 'loss' at epoch 1 put"
    )
    assert _sentence(list(range(12, 0, -1))).startswith("It misled here")
    assert _sentence(chance).startswith("It did not help here: the signal 'loss' at epoch 1 does not tell")
    assert _sentence([1.0, 2.0]) == (
        "Too few candidates to tell whether the signal 'loss' at epoch 1 helped here: not even a perfect "
        "order of so few would tell (n = 2)."
    )
    assert _sentence([1.0, 0.0, 3.0, 2.0, 5.0, 4.0]).startswith(
        "Too few candidates to tell whether the signal 'loss' at epoch 1 helped here: the smallest "
        "correlation that so many tell from none is 0.87 (rank correlation +0.83, "
    )


def test_the_report_says_whom_it_judges_by():
    alone = _run([1, 2, 3.0], outcome="eliminated", audited=["c0", "c1"])
    table = reliance(alone)
    assert table is not None
    assert "0 finalists and 2 of the eliminated, drawn at random" in table.intro
    assert "over-represented" in table.intro
    assert table.rows[0] == ("loss", "1", "–", "–", "2")
    recorded = replace(alone, audited=("c0", "c1", "c2"))
    for failing, whom, told in (
        ((), "all 3 of the eliminated", "candidates like these."),
        ((0,), "2 of the 3 eliminated", "1 audited candidate failed on the way and is left out."),
        ((0, 1), "1 of the 3 eliminated", "2 audited candidates failed on the way and are left out."),
    ):
        rows = tuple(
            replace(row, outcome="failed") if number in failing else row
            for number, row in enumerate(recorded.candidates)
        )
        intro = (reliance(replace(recorded, candidates=rows)) or table).intro
        assert f"0 finalists and {whom}, trained on after the search: Spearman's" in intro
        assert "--audit" not in intro
        assert intro.endswith(told)  # and nothing of whom they were chosen by
    finalists = _run([1, 2, 3.0])
    assert "--audit" not in (reliance(finalists) or table).intro  # nobody was eliminated
    assert reliance(_run([])) is None


def test_spectra_are_judged_by_quantiles_where_the_network_is_searched():
    run = _run([1.0, 2.0, 3.0], spectrum=np.array([-1.0, -2.0]), signal="spectrum_raw")
    # By quantiles each is farther from the reference than the one before; the last has one exponent more.
    spectra = [np.array([-1.0, -2.0]), np.array([-2.5, -1.0]), np.array([-2.0, -1.0, -4.0])]
    rows = tuple(
        replace(
            row,
            configuration={"method": "static", "model.graph_seed": number},
            epochs=tuple(replace(record, spectrum=spectra[number]) for record in row.epochs),
        )
        for number, row in enumerate(run.candidates)
    )
    found = trust(replace(run, candidates=rows))
    assert found is not None
    own = next(item for item in found.judged if item.signal == "spectrum_raw")
    assert own.correlation.rho == pytest.approx(1)
