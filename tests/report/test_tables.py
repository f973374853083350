"""The terminal's leaderboard, the JSON summary and the facts behind them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from hyperprune.records import CandidateRecord, EpochRecord, RunRecord
from hyperprune.report import facts, summary_json, text_table, words
from hyperprune.report.story import tell


def _candidate(metric: float, key: str = "c01", **fields: object) -> CandidateRecord:
    epochs = tuple(
        EpochRecord(epoch=epoch, train_loss=None, valid_loss=1.0, metric=value, seconds=1.0)
        for epoch, value in enumerate((10 * metric, metric))
    )
    base = CandidateRecord(key=key, label=key, configuration={}, epochs=epochs, best_epoch=1, metric=metric)
    return replace(base, **fields)  # type: ignore[arg-type]


def test_the_table_lists_every_candidate_in_rank_order_with_its_own_numbers(run: RunRecord) -> None:
    lines = text_table(run).splitlines()[3:]
    for rank, (line, candidate) in enumerate(zip(lines, run.candidates, strict=False), start=1):
        cells = line.split()
        assert cells[:2] == [str(rank), candidate.key]
        assert candidate.metric is not None
        shown = float(cells[-1].rstrip("*").replace(",", ""))
        assert shown == pytest.approx(candidate.metric, rel=1e-3)  # four significant digits are shown
        assert cells[-3] == str(candidate.epochs[-1].epoch)


@pytest.mark.parametrize("width", [60, 80, 100])
def test_no_line_of_the_table_is_wider_than_asked(make_run: Callable[..., RunRecord], width: int) -> None:
    run = make_run(candidates=40, final_epochs=12000, finished=False, stop_after=2)
    long = replace(run.candidates[0], label="a label of many words · " * 20, key="c100000")
    run = replace(run, candidates=(long, *run.candidates[1:]), baseline=("a baseline " * 20, 1.0))
    assert max(len(line) for line in text_table(run, width=width).splitlines()) <= width


def test_a_shortened_label_keeps_its_beginning_and_its_end(run: RunRecord) -> None:
    long = replace(run.candidates[0], label="er · global_magnitude · nonzeros_and_more · 0.4321")
    line = text_table(replace(run, candidates=(long,)), width=70).splitlines()[3]
    assert "er·" in line
    assert "…" in line
    assert "0.4321" in line


def test_candidates_that_stay_on_the_baseline_are_marked_and_others_are_not(run: RunRecord) -> None:
    assert run.baseline is not None
    pool = (_candidate(0.951 * run.baseline[1], "c01"), _candidate(0.949 * run.baseline[1], "c02"))
    judged = replace(run, candidates=pool)
    assert [facts.at_baseline(candidate, judged) for candidate in pool] == [True, False]
    stuck, fine = text_table(judged).splitlines()[3:5]
    assert stuck.endswith("*")
    assert not fine.endswith("*")
    assert [row[-1] for row in tell(judged).candidates.rows] == ["", "at baseline", ""]
    assert "no better than 0.95× that" in text_table(judged)
    _, value = run.baseline
    higher = replace(judged, lower_is_better=False, candidates=(_candidate(1.04 * value),))
    assert "no better than 1.05× that" in text_table(higher)


def test_words_are_explained_as_this_run_used_them(run: RunRecord) -> None:
    used = {**run.strategy, "signal": "spectrum", "spectrum_dims": 3, "spectrum_state": "full"}
    words_ = dict(tell(replace(run, strategy=used)).definitions)
    assert "of the network's hidden and cell states" in words_["Lyapunov spectrum (LS)"]
    assert "of 3 dimensions, those along which the spectra of these two networks differ" in words_["Signal"]
    assert "of the network's hidden state" in dict(tell(run).definitions)["Lyapunov spectrum (LS)"]
    line = {**used, "spectrum_dims": 1}
    assert "of 1 dimension, that along" in dict(tell(replace(run, strategy=line)).definitions)["Signal"]


def test_a_higher_metric_is_judged_from_the_other_side(run: RunRecord) -> None:
    pool = tuple(_candidate(metric) for metric in (9.0, 5.26, 5.27, 7.14, 7.15))
    judged = replace(run, candidates=pool, lower_is_better=False, baseline=("mean score", 5.0))
    # 5 / .95 = 5.263
    assert [facts.at_baseline(c, judged) for c in pool] == [False, True, False, False, False]
    # 5 / .7 = 7.143
    assert [facts.learned(c, judged) for c in pool] == [True, False, False, False, True]


def test_an_accuracy_is_judged_as_its_error_rate_is(run: RunRecord) -> None:
    accuracies = (1.0, 0.762, 0.763, 0.824, 0.826)  # 1 - .95 · .25 = .7625, 1 - .7 · .25 = .825
    pool = tuple(_candidate(accuracy) for accuracy in accuracies)
    judged = replace(run, candidates=pool, lower_is_better=False, baseline=("share of valid strings", 0.75))
    errors = tuple(_candidate(1 - accuracy) for accuracy in accuracies)
    mirrored = replace(run, candidates=errors, baseline=("share of others", 0.25))
    for record in (judged, mirrored):
        assert [facts.at_baseline(c, record) for c in record.candidates] == [False, True, False, False, False]
        assert [facts.learned(c, record) for c in record.candidates] == [True, False, False, False, True]
    assert "no better than 0.7625\n" in text_table(judged)
    assert "(at least 0.825)" in tell(judged).notices[0]
    assert "is not beyond 0.7625." in tell(judged).candidates.intro


def test_the_best_metric_ignores_epoch_zero_and_values_that_are_not_finite() -> None:
    values = (0.1, math.nan, 7.0, 5.0, math.inf)
    epochs = tuple(
        EpochRecord(epoch=epoch, train_loss=None, valid_loss=1.0, metric=value, seconds=1.0)
        for epoch, value in enumerate(values)
    )
    candidate = CandidateRecord(key="c01", label="", configuration={}, epochs=epochs)
    assert facts.best_metric(candidate, lower_is_better=True) == 5.0
    assert facts.best_metric(candidate, lower_is_better=False) == 7.0


def test_an_unfinished_run_has_a_leader_but_no_winner(make_run: Callable[..., RunRecord]) -> None:
    run = make_run(finished=False, stop_after=1)
    assert facts.winner(run) is None
    assert facts.leader(run) is run.candidates[0]
    assert "The search is not finished" in text_table(run)
    training = text_table(replace(run, strategy={"name": "train"}))
    assert training.splitlines()[-1] == "The training is not finished."
    assert summary_json(run)["best"] is None


def test_the_summary_has_the_promised_keys_and_the_winners_numbers(run: RunRecord) -> None:
    summary = summary_json(run, folder=Path("runs/a"), report=Path("runs/a/report.html"))
    assert set(summary) == {
        *("best", "reference", "candidates", "epochs_spent", "epochs_full", "epochs_audit", "trust"),
        *("run", "report"),
    }
    first = run.candidates[0]
    assert summary["best"] == {
        "configuration": dict(first.configuration),
        "metric": first.metric,
        "epochs": 20,
        "checkpoint": f"runs/a/{first.checkpoint}",
    }
    assert summary["reference"]["metric"] == run.reference.metric
    assert [entry["key"] for entry in summary["candidates"]] == [c.key for c in run.candidates]
    assert (summary["epochs_spent"], summary["epochs_full"]) == (run.epochs_spent, run.epochs_full)
    assert (summary["run"], summary["report"]) == ("runs/a", "runs/a/report.html")


def test_the_summary_is_strict_json_whatever_the_metrics_are(run: RunRecord) -> None:
    wild = replace(run, candidates=(_candidate(math.nan), _candidate(math.inf, outcome="finalist")))
    parsed = json.loads(json.dumps(summary_json(wild), allow_nan=False))
    assert [entry["metric"] for entry in parsed["candidates"]] == [None, None]


def test_a_ranking_before_most_have_learned_is_told(make_run) -> None:
    record = make_run(first=1, every=2, failed=0)
    first = record.rounds[0]
    metrics = sorted(row.epochs[1].metric for row in record.candidates if row.key in first.signals)
    warning = "When they were first ranked, after 1 epoch,"

    def notices(baseline: float) -> str:
        return " ".join(tell(replace(record, baseline=("unigram perplexity", baseline))).notices)

    assert len(metrics) == 12
    half, more = (metrics[5] + metrics[6]) / 2, metrics[5]  # a tie with the baseline is no better than it
    assert warning not in notices(half)
    assert f"{warning} 7 of 12 candidates were no better than the unigram perplexity yet." in notices(more)
    mirrored = replace(record, lower_is_better=False, baseline=("share", metrics[6]))
    assert [row.epochs[1].metric for row in facts.unlearned_when_ranked(mirrored)] != []
    assert all(row.epochs[1].metric <= metrics[6] for row in facts.unlearned_when_ranked(mirrored))
    assert facts.unlearned_when_ranked(replace(record, rounds=())) == []


def test_the_headline_names_winner_dense_model_baseline_and_saving(run: RunRecord) -> None:
    headline, first = tell(run).headline, run.candidates[0]
    assert first.metric is not None
    assert run.reference.metric is not None
    assert f"{first.key} ({first.label}) wins" in headline
    for part in (
        words.number(first.metric),
        words.number(run.reference.metric),
        f"ratio {first.metric / run.reference.metric:.3f}",
        f"ratio {first.metric / 612:.3f}",
        "67 % sparsity",
        f"spent {run.epochs_spent} epochs",
        f"takes {run.epochs_full} epochs: {run.epochs_full / run.epochs_spent:.1f}× as many",
    ):
        assert part in headline


def test_the_report_says_whether_dense_model_and_winner_learned(run: RunRecord) -> None:
    good = tell(run).notices[0]
    assert "at most 0.7× of it" in good
    assert "dense model: yes (0.14×)" in good
    poor = replace(run, reference=replace(run.reference, metric=0.71 * 612))
    assert "dense model: NO (0.71×)" in tell(poor).notices[0]


def test_failed_candidates_are_told_of_without_a_word_on_when(run: RunRecord) -> None:
    """They may have failed after rounds that ranked them, or in an audit."""
    (failed,) = (c for c in run.candidates if c.outcome == "failed")
    assert tell(run).notices[-1] == f"1 candidate failed and was left out from then on: {failed.key}."
    two = replace(run, candidates=(*run.candidates, replace(failed, key="c99")))
    assert tell(two).notices[-1] == (
        f"2 candidates failed and were left out from then on: {failed.key}, c99."
    )


def test_where_the_sparsity_is_searched_the_dense_row_is_weighed_as_one_of_sparsity_0(run: RunRecord) -> None:
    own = {**run.candidates[0].configuration, "sparsity": 0.9}
    first = replace(run.candidates[0], configuration=own, metric=100.0)
    dense = replace(run.reference, metric=90.0)
    searched = replace(run, sparsity=None, sparsity_weight=0.5, candidates=(first,), reference=dense)
    rows = tell(searched).candidates.rows
    assert [row[-2:] for row in rows] == [("0 %", "135.0"), ("90 %", "105.0")]  # 90 · 1.5 and 100 · 1.05


def test_the_rounds_table_counts_entrants_kept_and_inserted(run: RunRecord) -> None:
    rounds = tell(run).rounds
    assert rounds is not None
    for row, part in zip(rounds.rows, run.rounds, strict=True):
        assert row == (
            str(part.number),
            str(part.epoch),
            str(len(part.signals)),
            str(len(part.kept)),
            ", ".join(part.kept),
            ", ".join(part.inserted) or "–",
        )


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (math.nan, "not a number"),
        (math.inf, "∞"),
        (-math.inf, "−∞"),
        (0.0, "0"),
        (0.12346, "0.1235"),
        (88.3, "88.30"),
        (612.04, "612.0"),
        (12345.6, "12,346"),
        (1.5e9, "1.500e+09"),
    ],
)
def test_numbers_are_written_with_four_digits(value: float | None, text: str) -> None:
    assert words.number(value) == text
