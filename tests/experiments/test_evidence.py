"""The evidence: its statistics on known cases, its signals, and the whole page from made-up tables."""

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats

import hyperprune as hp
from hyperprune.cli.studies import evidence
from hyperprune.errors import InputError
from hyperprune.experiments.cells import write_records
from hyperprune.experiments.evidence import (
    across,
    bootstrap,
    correlation,
    death_rates,
    later,
    other_worlds,
    paper,
    paper_searches,
    pictures,
    prediction,
    searching,
    summary,
)
from hyperprune.experiments.evidence.bootstrap import Sample, spearman_rows
from hyperprune.experiments.evidence.build import build
from hyperprune.experiments.evidence.chance import chance
from hyperprune.experiments.evidence.correlation import estimate, is_shown, lead, measure, p_value
from hyperprune.experiments.evidence.page import places_of, template, write_page
from hyperprune.experiments.evidence.searching import (
    FULL,
    GRID,
    TPE_FULL,
    Point,
    outcomes,
    points_of,
    selection_epochs,
)
from hyperprune.experiments.evidence.signals import ENTRIES, known_to_the_search, values_of
from hyperprune.experiments.evidence.worlds import (
    extended,
    grid_point,
    load_worlds,
    of_seeds,
    restricted,
    setting,
    shared,
    without_never_averaging,
)
from hyperprune.experiments.recording.scales import SCALES, candidate_cells
from hyperprune.hypersearch import signals as search_signals
from hyperprune.hypersearch.joining import joined
from hyperprune.hypersearch.space import Configuration, Space, paper_branch
from hyperprune.hypersearch.table import CandidateTable, RecordedRun
from hyperprune.records import EpochRecord

FINAL, EXPONENTS = 8, 6


def silent(text):
    pass


def made_up(seed=0, *, group="rate-0.8", rate=0.8, sparsity=0.67, configurations=None):
    """A table in which the distance of spectra from the dense model tells the final metric and nothing else.

    A candidate's quality q is drawn; its spectrum is the dense one shifted by q, its metric falls towards
    100 + 10 q only in the last epochs, and its loss is noise before.
    """
    random = np.random.default_rng(seed)
    if configurations is None:
        configurations = tuple(Space(branches=[paper_branch(rate)]).grid())
    base = np.sort(random.normal(-1, 1, EXPONENTS))[::-1]

    def row(quality, noise):
        records = []
        for epoch in range(FINAL + 1):
            metric = 200 + noise.normal() if epoch < FINAL else 100 + 10 * quality
            records.append(
                EpochRecord(
                    epoch=epoch,
                    train_loss=float(np.log(metric)) if epoch else None,
                    valid_loss=float(np.log(metric)),
                    metric=float(metric),
                    seconds=1.0,
                    spectrum=base - quality + 0.01 * epoch,
                    averaging=epoch > 4,
                    probes={
                        "spectrum_full": np.concatenate([base, base]) - quality,
                        "spectrum_raw": base - quality,
                        "spectrum_updated_raw": base - quality - 0.1,
                        "spectrum_samples": np.tile(base - quality, (10, 1)),
                        "turnover": np.array(0.1),
                        "gradient_norm": np.array(1.0 + noise.random()),
                        "chi": np.array([0.5, 0.5]),
                    },
                )
            )
        return tuple(records)

    qualities = np.random.default_rng((seed, int(100 * rate))).permutation(len(configurations)) / 10 + 0.1
    run = RecordedRun(
        seed=seed,
        configurations=configurations,
        reference=row(0.0, np.random.default_rng(1)),
        candidates=tuple(row(quality, random) for quality in qualities),
        provenance={"command": "made up", "commit": "abc"},
        test_metrics=(),
    )
    return CandidateTable(
        task="made-up",
        metric="perplexity",
        lower_is_better=True,
        final_epochs=FINAL,
        identity={
            "name": "made-up",
            "task": "made-up",
            "sparsity": sparsity,
            "group": group,
            "threads": 1,
            "device": "cpu",
            "baseline": ["unigram perplexity", 199.0],
        },
        runs=(run,),
        provenance={},
    )


def _tried(trial, label, valid):
    """A line of calibration.jsonl."""
    return {
        "trial": trial,
        "label": label,
        "seed": 0,
        "valid": valid,
        "spectrum": None,
        "failure": None,
        "metric": "perplexity",
        "baseline": ["unigram perplexity", 185.2],
    }


def _controls(seed=0):
    twin = Configuration.of(
        "dynamic_sparse",
        allocation="uniform",
        death="threshold",
        growth="random",
        redistribution="none",
        death_rate=0.8,
        update_every="epoch",
        threshold_at_once=True,
    )
    return made_up(seed, group="controls", configurations=(Configuration.of("static"), twin))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("records")
    for seed in (0, 1):
        made_up(seed).save(path / f"world-rate-0.8-seed-{seed}.npz", compact=True)
    _controls().save(path / "world-controls-seed-0.npz")
    made_up(0, sparsity=0.9).save(path / "world-sparsity-0.9.npz")
    return path


def test_rank_correlation_is_scipys_with_ties_and_without():
    random = np.random.default_rng(0)
    one, other = random.normal(size=(5, 20)), random.integers(0, 4, size=(5, 20)).astype(float)
    expected = np.array(
        [scipy.stats.spearmanr(a, b)[0] for a, b in zip(one, other, strict=True)], dtype=float
    )
    np.testing.assert_allclose(spearman_rows(one, other), expected)
    assert np.isnan(spearman_rows(np.ones((1, 5)), one[:1, :5])).all()
    assert np.isnan(spearman_rows(one[:, :2], other[:, :2])).all()


def _samples(signal, final, groups, seeds=2):
    return [Sample(np.array(signal), np.array(final), np.array(groups), np.arange(len(final)))] * seeds


def test_a_signal_that_only_tells_groups_apart_is_seen_through():
    random = np.random.default_rng(0)
    groups = np.repeat(["a", "b", "c", "d"], 30)
    level = np.repeat([0.0, 10.0, 20.0, 30.0], 30)
    samples = _samples(level + random.random(120), level + random.random(120), groups)
    everywhere, inside, outside = (
        bootstrap.estimate(samples, statistic)
        for statistic in (bootstrap.overall, bootstrap.within, bootstrap.between)
    )
    assert everywhere.value > 0.9
    assert inside.low < 0 < inside.high
    assert outside.value == 1


def test_a_perfect_signal_and_its_opposite_and_noise():
    final = np.arange(24.0)
    groups = np.repeat(["a", "b"], 12)
    good = bootstrap.estimate(_samples(final, final, groups), bootstrap.overall)
    bad = bootstrap.estimate(_samples(-final, final, groups), bootstrap.overall)
    assert (good.value, good.low, good.high) == (1, pytest.approx(1), pytest.approx(1))
    assert bad.value == -1
    ahead = bootstrap.lead(_samples(final, final, groups), _samples(-final, final, groups), bootstrap.overall)
    assert (ahead.value, ahead.low) == (2, pytest.approx(2))
    noise = bootstrap.by_chance(_samples(final, final, groups, seeds=1), bootstrap.overall)
    # The standard deviation of rho without any relation is 1/sqrt(n - 1).
    assert noise.value == 0
    assert noise.draws.std() == pytest.approx(23**-0.5, rel=0.15)


def test_too_few_candidates_have_no_correlation():
    nobody = [Sample(*(np.array([]) for _ in range(4)))]
    found = bootstrap.estimate(nobody, bootstrap.overall)
    assert np.isnan(found.value)
    assert found.text() == "–"


@pytest.mark.parametrize("statistic", [bootstrap.overall, bootstrap.within, bootstrap.between])
def test_candidates_of_one_unit_are_not_so_many_observations(statistic):
    random = np.random.default_rng(0)
    one = Sample(random.random(24), random.random(24), np.repeat(["a", "b", "c", "d"], 6), np.arange(24))
    thrice = Sample(*(np.tile(column, 3) for column in one))  # as three death rates that change nothing
    once, again = (bootstrap.estimate([sample], statistic) for sample in (one, thrice))
    np.testing.assert_allclose(again.draws, once.draws)
    assert again[:3] == pytest.approx(once[:3])


def test_a_unit_with_fewer_members_than_others_counts_by_those_it_has():
    random = np.random.default_rng(0)
    units = np.array([0, 0, 1, 2, 2, 3, 4])
    sample = Sample(random.random(7), random.random(7), np.array(["a"] * 3 + ["b"] * 4), units)
    all_units = bootstrap._units([sample])
    drawn_DU = bootstrap._drawn_units(all_units, np.random.default_rng(1), by_group=True)
    index_DN, groups = bootstrap._members(sample, all_units, drawn_DU)
    found = bootstrap.within(sample.signal_N[index_DN], sample.final_N[index_DN], index_DN >= 0, groups)
    for draw in range(20):
        kept = index_DN[draw][index_DN[draw] >= 0]
        expected: list[float] = [
            scipy.stats.spearmanr(sample.signal_N[own], sample.final_N[own]).statistic  # pyright: ignore
            for group in "ab"
            if len(set(own := kept[sample.group_N[kept] == group])) > 1 and len(own) > 2
        ]
        assert found[draw] == pytest.approx(np.mean(expected) if expected else np.nan, nan_ok=True)


def test_few_seeds_have_no_interval_of_their_regret():
    regret = np.array([0.1, 0.3])
    few, many = (bootstrap.mean_of([regret] * count) for count in (4, bootstrap.ENOUGH_SEEDS))
    assert few.percent() == "20.0"
    assert many.percent().startswith("20.0 (")
    np.testing.assert_allclose(few.each, [0.2] * 4)


def test_a_seed_that_repeats_another_one_tells_nothing_new():
    """Draws take the same units of every seed, and exchanges the same groups, also where a seed lacks one."""
    random = np.random.default_rng(0)
    final, groups = random.random(24), np.repeat(["a", "b", "c", "d"], 6)
    (one,) = _samples(final + random.random(24), final, groups, seeds=1)
    lacking = Sample(*(column[:-1] for column in one))
    reordered = Sample(*(column[::-1] for column in one))
    alone = bootstrap.estimate([one], bootstrap.overall)
    for other in (one, reordered):
        again = bootstrap.estimate([one, other], bootstrap.overall)
        np.testing.assert_allclose(again.draws, alone.draws)
        assert bootstrap.p_of_groups([one, other]) == pytest.approx(bootstrap.p_of_groups([one]))
        assert bootstrap.p_of_members([one, other]) == pytest.approx(bootstrap.p_of_members([one]), abs=0.01)
    pair = bootstrap.estimate([one, lacking], bootstrap.overall)
    assert pair.draws.std() == pytest.approx(alone.draws.std(), rel=0.1)
    assert bootstrap.p_of_groups([one, lacking]) == pytest.approx(bootstrap.p_of_groups([one]), rel=0.1)
    assert pair.each[0] == alone.value


def test_exchanges_give_the_p_of_all_permutations():
    """Of four kinds with one member each an order comes about once in 24, and so does its reverse."""
    (sample,) = _samples([1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0], ["a", "b", "c", "d"], seeds=1)
    assert bootstrap.p_of_groups([sample]) == pytest.approx(2 / 24, abs=0.01)
    # Within one group the same exchanges are those of its members.
    together = sample._replace(group_N=np.array(["a"] * 4))
    assert bootstrap.p_of_members([together]) == pytest.approx(2 / 24, abs=0.01)
    # Two groups that exchange their ends: only the sign is left, so that nothing is rare.
    apart = Sample(np.array([1.0, 2, 8, 9]), np.array([1.0, 2, 8, 9]), np.array(list("aabb")), np.arange(4))
    assert bootstrap.p_of_groups([apart]) > 0.2
    assert np.isnan(bootstrap.p_of_groups([sample, sample._replace(signal_N=np.ones(4))]))


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    random = np.random.default_rng(3)
    hits, repeats = 0, 60
    for _ in range(repeats):
        x = random.normal(size=60)
        y = x + random.normal(size=60)
        found = bootstrap.estimate(_samples(x, y, np.zeros(60), seeds=1), bootstrap.overall)
        hits += found.low < 0.69 < found.high  # rho of a normal correlation of sqrt(1/2): 6/pi asin(r/2)
    assert hits / repeats > 0.8  # 95 % nominal; a percentile interval is a little narrow


def test_signals_of_the_search_are_those_that_are_tested(folder):
    table = load_worlds(folder)[0].table
    run = table.runs[0]
    for name in ("spectrum", "spectrum_raw", "spectrum_joint", "loss", "training_losses", "blend"):
        keyed = {str(i): records[:4] for i, records in enumerate(run.candidates)}
        expected = search_signals.measure(name, run.reference[:4], keyed)
        found = values_of(ENTRIES[name], run.reference, list(run.candidates), 3)
        np.testing.assert_array_equal(found, list(expected.values()))


def test_every_distance_is_zero_for_the_dense_model_itself(folder):
    run = load_worlds(folder)[0].table.runs[0]
    # those that look at the candidate alone
    alone = (
        "loss",
        "best_loss",
        "training_losses",
        "blend",
        "none",
        "turnover",
        "update_change",
        "mean_exponent",
    )
    alone += ("gradient_norm", "live", "live_gates", "chi_alone", "weights")
    for name, entry in ENTRIES.items():
        if name in alone or name.startswith("last"):
            continue
        found = values_of(entry, run.reference, [run.reference, *run.candidates], 3)[0]
        assert np.isnan(found) or found == pytest.approx(0, abs=1e-6), name


def test_lost_directions_are_counted_where_the_full_state_was_measured(folder):
    run = load_worlds(folder)[0].table.runs[0]
    (record, *_), without = run.candidates[0], replace(run.candidates[0][0], probes={})
    full = record.probes["spectrum_full"].copy()
    full[2:5] = -np.inf
    lossy = replace(record, probes={**record.probes, "spectrum_full": full})
    found = values_of(ENTRIES["lost"], run.reference, [(item,) for item in (record, lossy, without)], 0)
    np.testing.assert_equal(found, [0.0, 3.0, np.nan])


def test_the_change_over_an_update_and_the_raw_weights_are_read_where_they_are_kept(folder):
    run = load_worlds(folder)[0].table.runs[0]
    change = values_of(ENTRIES["update_change"], run.reference, list(run.candidates), 5)
    np.testing.assert_allclose(change, 0.1 * EXPONENTS**0.5, rtol=0.02)  # half precision
    raw = values_of(ENTRIES["weights_raw"], run.reference, list(run.candidates), 5)  # while averaging
    assert np.isfinite(raw).all()


def test_the_best_loss_so_far_is_of_trained_epochs(folder):
    run = load_worlds(folder)[0].table.runs[0]
    found = values_of(ENTRIES["best_loss"], run.reference, list(run.candidates), 3)
    assert found.tolist() == [min(item.valid_loss for item in own[1:4]) for own in run.candidates]
    assert np.isnan(values_of(ENTRIES["best_loss"], run.reference, list(run.candidates), 0)).all()


def test_a_planted_relation_is_found_and_a_search_by_it_loses_nothing(folder, tmp_path):
    world = load_worlds(folder)[0]
    found = measure(world, ["spectrum", "spectrum_raw", "loss", "none"])
    assert estimate(found, "spectrum_raw", 3).value > 0.99
    assert estimate(found, "spectrum_raw", 3, "within").value > 0.99
    assert abs(estimate(found, "loss", 3).value) < 0.5
    assert estimate(found, "none", 3).value == 0
    points = [
        Point(
            family=GRID,
            signal=signal,
            strategy=hp.LSH(
                candidates=24,
                first_epochs=1,
                round_epochs=1,
                final_epochs=FINAL,
                proposer="grid",
                signal=signal,
            ),
        )
        for signal in ("spectrum_raw", "loss")
    ]
    by_spectrum, by_loss = outcomes(world.table, points, repeats=8, cache=tmp_path)
    assert by_spectrum.mean.value == 0
    assert by_loss.mean.value > 0.001
    again = outcomes(world.table, points, repeats=8, cache=tmp_path)
    np.testing.assert_array_equal(again[1].regret[0], by_loss.regret[0])


def test_tpe_without_early_stopping_is_told_final_metrics_and_ends_with_the_best_of_all(folder):
    table = load_worlds(folder)[0].table
    with known_to_the_search():
        searches = [point.strategy for point in points_of(table) if point.family == TPE_FULL]
        assert {strategy.signal for strategy in searches} == {"best_loss"}
        found = hp.replay(table, replace(searches[0], candidates=24), repeats=2)
    assert found.regret.tolist() == [0, 0]
    assert found.epochs_spent.tolist() == [24 * FINAL] * 2


def test_signals_under_test_are_known_to_strategies_only_within(folder):
    with known_to_the_search():
        assert any(point.signal == "spectrum_mean" for point in points_of(load_worlds(folder)[0].table))
    with pytest.raises(InputError, match="unknown signal 'spectrum_mean'"):
        hp.LSH(signal="spectrum_mean")


def test_a_search_is_replayed_only_where_its_signal_was_measured(monkeypatch):
    monkeypatch.setattr(searching, "SCHEDULES", ((1, 1), (3, 1)))
    table = made_up()
    first = replace(table.runs[0], candidates=tuple(map(_without_full_after_2, table.runs[0].candidates)))
    with known_to_the_search():
        points = points_of(replace(table, runs=(first,)))
    asked = {point.signal: set() for point in points if point.signal}
    for point in points:
        if point.signal:
            asked[point.signal] |= {planned.epoch for planned in point.strategy.plan()}
    assert max(asked["spectrum"]) > 2
    assert asked["full"]
    assert max(asked["full"]) <= 2


def _without_full_after_2(records):
    def cut(record):
        probes = {name: values for name, values in record.probes.items() if name != "spectrum_full"}
        return replace(record, probes=probes)

    return tuple(cut(record) if record.epoch > 2 else record for record in records)


def test_the_grids_selection_costs_what_the_rounding_rule_says():
    lsh = hp.LSH(candidates=24, first_epochs=2, round_epochs=3, final_epochs=40, proposer="grid")
    assert selection_epochs(lsh) == 24 * 2 + (12 + 6 + 3) * 3  # 24, 12, 6, 3 are ranked


def test_tables_of_a_world_are_put_together_by_seed_and_candidates(folder, tmp_path):
    first, second = load_worlds(folder)
    assert [len(run.candidates) for run in first.table.runs] == [24, 24]
    assert first.controls is not None
    assert (first.sparsity, second.sparsity) == (0.67, 0.9)
    assert load_worlds(tmp_path) == []
    with pytest.raises(InputError, match="evidence is made from recorded tables, and there is no folder"):
        load_worlds(tmp_path / "missing")


def test_a_fitted_prediction_finds_the_planted_relation_among_unseen_candidates(folder, monkeypatch):
    monkeypatch.setattr(prediction, "_SPLITS", 4)
    text = prediction.regression_table(load_worlds(folder)[0], [3])
    row = next(line for line in text.splitlines() if line.startswith("| hidden spectrum − dense's |"))
    assert all(float(cell.split()[0]) > 0.9 for cell in row.split("|")[3:6])


def test_a_spectrum_that_was_not_measured_leaves_its_features_out(folder, monkeypatch):
    monkeypatch.setattr(prediction, "_SPLITS", 2)
    world = load_worlds(folder)[0]
    run = world.table.runs[0]
    unknown = replace(run.candidates[0][3], probes={})
    candidates = ((*run.candidates[0][:3], unknown, *run.candidates[0][4:]), *run.candidates[1:])
    runs = (replace(run, candidates=candidates), *world.table.runs[1:])
    text = prediction.regression_table(replace(world, table=replace(world.table, runs=runs)), [3])
    assert "| losses | 3 |" in text
    assert "full-state" not in text


def test_the_table_of_methods_is_that_of_the_study_and_says_who_failed(tmp_path):
    path = tmp_path / "methods.jsonl"
    tests = {("rigl", 0): 80.0, ("rigl", 1): None, ("set_", 0): 85.0, ("set_", 1): 87.0}
    records = [
        {"task": "made-up", "epochs": 2, "method": name, "sparsity": 0.67, "seed": seed, "test": test}
        for (name, seed), test in tests.items()
    ]
    write_records(path, records)
    text = paper.methods_table(path)
    assert text.startswith("Test perplexity on `made-up` after 2 epochs")
    assert "| `set_` | 86.0 (±1.0), n = 2 | 85.8 |" in text
    assert "| `rigl` | failed | 75.9 |" in text


def test_the_list_names_every_part_of_the_page():
    listed = [name for names in evidence.ITEMS for name in names.split(", ")]
    assert sorted(listed) == sorted(places_of(template()))


def test_the_page_keeps_what_was_written_by_hand(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- part: one -->\nold\n<!-- end: one -->\nafter\n")
    write_page(page, {"one": "new"})
    assert page.read_text() == "before\n<!-- part: one -->\nnew\n<!-- end: one -->\nafter\n"
    with pytest.raises(InputError, match=r"it lacks \['two'\] and has the unknown \['one'\]"):
        write_page(page, {"two": ""})
    page.write_text("<!-- part: one -->\n")
    with pytest.raises(InputError, match=r"the part 'one' of .* has no end"):
        write_page(page, {"one": ""})


def test_a_page_without_tables_says_so_and_shows_what_there_is(tmp_path):
    (tmp_path / "calibration.jsonl").write_text(json.dumps(_tried("lr 20", "dense", [200.0, 120.0])) + "\n")
    page = tmp_path / "evidence.md"
    assert build(tmp_path, page, cache=tmp_path, say=silent) == [page]
    text = page.read_text()
    assert text.count("Not answered yet: no table is recorded.") == 1
    assert "| lr 20 | 120 |" in text
    with pytest.raises(InputError, match=r"evidence\.md is made from complete tables, and .* has none; name"):
        build(tmp_path, page, cache=tmp_path, say=silent)  # what a page tells is not wiped
    assert page.read_text() == text


def test_a_verdict_follows_from_the_interval_and_the_kinds(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(bootstrap, "DRAWS", 100)
    found = measure(load_worlds(folder)[0])
    by_chance = replace(found, values={**found.values, "spectrum": found.values["none"]})
    points = [Point(family=FULL, signal=None, strategy=hp.Full(candidates=24, final_epochs=FINAL))]
    outcomes_ = outcomes(found.world.table, points, repeats=2, cache=tmp_path)
    reversed_ = replace(
        found, values={**found.values, "spectrum": [-item for item in found.values["spectrum"]]}
    )
    text, other, bad = (summary.answer(item, None, outcomes_, 3) for item in (found, by_chance, reversed_))
    assert "**Does the spectrum tell more than the loss?** Yes. Rank correlation" in text
    assert "It tells more: within one kind" in text
    assert "Shown: hidden spectrum, pairwise PCA (the paper's) at 1 to 7" in text  # of 8 epochs
    assert "than the loss?** Not shown. Rank correlation" in other
    assert "wrong way" not in text + other
    assert "Shown: hidden spectrum, pairwise PCA (the paper's) (the wrong way)" in bad
    assert "(the paper's): none to 7, below 0 at 1 to 7" in bad
    # Were the kinds all that a signal knows, four of them would not do, however narrow the interval.
    kinds = [np.array([{"threshold": 0.0}.get(kind, 1.0) for kind in own]) for own in found.groups]
    of_kinds = replace(
        found,
        values={**found.values, "spectrum": [np.tile(own, (FINAL, 1)) for own in kinds]},
        finals=[own + np.linspace(0, 0.1, len(own)) for own in kinds],
    )
    assert estimate(of_kinds, "spectrum", 3).low > 0
    assert correlation.p_value(of_kinds, "spectrum", 3) > 0.1
    assert "than the loss?** Not shown" in summary.answer(of_kinds, None, outcomes_, 3)
    # Two signals that mislead: the one that misleads less is ahead, and tells nothing.
    spectrum = found.values["spectrum"]
    noise = np.random.default_rng(0).normal(0, 4, size=spectrum[0].shape)
    both = {"spectrum": [-item + noise for item in spectrum], "loss": [-item for item in spectrum]}
    misled = replace(found, values={**found.values, **both})
    assert correlation.lead(misled, "spectrum", "loss", 3).low > 0
    assert is_shown(misled, "spectrum", 3)
    assert "than the loss?** Not shown" in summary.answer(misled, None, outcomes_, 3)


def test_chance_is_the_better_one_of_two(folder, tmp_path):
    world = load_worlds(folder)[0]
    by_chance = chance(world)
    # Finals are 101, 102, ... 124 in both seeds: all pairs, written out.
    pairs = [min(one, other) / 101 for one in range(24) for other in range(one)]
    assert by_chance.mean == pytest.approx(np.mean(pairs))
    assert by_chance.draws.mean() == pytest.approx(np.mean(pairs), rel=0.02)
    assert by_chance.draws.std() == pytest.approx(np.std(pairs) / np.sqrt(2), rel=0.03)
    share = np.mean([(one + other) / 2 <= 5 / 101 + 1e-9 for one in pairs for other in pairs])
    assert by_chance.as_good(round(5 / 101 - 4e-7, 6)) == pytest.approx(share, abs=0.015)  # as replays are
    three = [min(each) / 101 for each in itertools.combinations(range(24), 3)]
    assert chance(world, 3).mean == pytest.approx(np.mean(three))
    assert (chance(world, 99).picks, chance(world, 99).mean) == (24, 0.0)


def test_searches_draw_from_the_candidates_that_all_seeds_have(tmp_path):
    names = {"a": made_up(0), "b": made_up(0, rate=0.5), "c": made_up(1)}
    for name, table in names.items():
        table.save(tmp_path / f"{name}.npz")
    (world,) = load_worlds(tmp_path)
    assert [run.seed for run in world.table.runs] == [0, 1]
    first, second = (run.configurations for run in world.table.runs)
    assert first == second == made_up(0).runs[0].configurations
    assert [(run.seed, len(run.candidates)) for run in world.everything.runs] == [(0, 48), (1, 24)]
    made_up(1, rate=0.5).save(tmp_path / "d.npz")
    (world,) = load_worlds(tmp_path)
    assert [run.configurations for run in world.table.runs] == [first, first]  # death rate 0.8
    assert [(run.seed, len(run.candidates)) for run in world.everything.runs] == [(0, 48), (1, 48)]
    for name, table in {**names, "d": made_up(1, rate=0.5)}.items():
        run = replace(table.runs[0], provenance={"command": f"record {name}", "date": "today"})
        replace(table, runs=(run,)).save(tmp_path / f"{name}.npz")
    (world,) = load_worlds(tmp_path)
    told = [(run.provenance["command"], run.provenance["date"]) for run in world.table.runs]
    assert told == [("record a, record b", "today"), ("record c, record d", "today")]
    for name in "ac":
        (tmp_path / f"{name}.npz").unlink()
    (world,) = load_worlds(tmp_path)
    assert [len(run.candidates) for run in world.table.runs] == [24, 24]  # of 0.5: there is nothing else
    with pytest.raises(InputError, match="the seeds of a world must share at least two candidates"):
        shared(joined([("a", made_up(0)), ("b", made_up(1, rate=0.5))]))


def test_other_death_rates_are_told_one_by_one_and_as_one_space(folder, tmp_path):
    assert death_rates.by_rate(load_worlds(folder)[0]) == []
    for name, table in {"a": made_up(0), "b": made_up(0, rate=0.5), "c": made_up(1)}.items():
        table.save(tmp_path / f"{name}.npz")
    (world,) = load_worlds(tmp_path)
    low, high = death_rates.by_rate(world)
    assert [item.name for item in (low, high)] == ["made-up, death rate 0.5", "made-up, death rate 0.8"]
    for item, rate, seeds in ((low, 0.5, [0]), (high, 0.8, [0, 1])):
        assert [run.seed for run in item.table.runs] == seeds
        for run in item.table.runs:
            assert {setting(own, "death_rate") for own in run.configurations} == {rate}
            assert len(run.candidates) == 24
    (mixed,) = death_rates.mixed_rates(world)  # all seeds share one rate alone
    assert mixed.name == "made-up, death rates 0.5, 0.8"
    assert [(run.seed, len(run.candidates)) for run in mixed.table.runs] == [(0, 48)]
    for name, table in {"d": made_up(1, rate=0.5), "e": made_up(0, rate=0.65)}.items():
        table.save(tmp_path / f"{name}.npz")
    (wider,) = load_worlds(tmp_path)
    found = {
        item.name: [(run.seed, len(run.candidates)) for run in item.table.runs]
        for item in (*death_rates.by_rate(wider), *death_rates.mixed_rates(wider))
    }
    assert found == {
        "made-up, death rate 0.5": [(0, 24), (1, 24)],
        "made-up, death rate 0.65": [(0, 24)],
        "made-up, death rate 0.8": [(0, 24), (1, 24)],
        "made-up, death rates 0.5, 0.8": [(0, 48), (1, 48)],
        "made-up, death rates 0.5, 0.65, 0.8": [(0, 72)],
    }
    assert death_rates.agreement(death_rates.by_rate(wider)).count(" and ") == 3
    by_point = [  # of the seed that has both
        {grid_point(own): end for own, end in zip(run.configurations, item.finals(run), strict=True)}
        for item in (low, high)
        for run in item.table.runs[:1]
    ]
    one, other = (np.array([ends[point] for point in by_point[0]]) for ends in by_point)
    (expected,) = spearman_rows(one[None], other[None])
    assert death_rates.agreement([low, high]).endswith(f"over the grid: 0.5 and 0.8 {expected:.2f}.")
    names = ["training_losses", "death_rate", "loss"]
    found = measure(low, names)  # the rate of all is one, and has no correlation
    ahead = lead(found, "loss", "training_losses", 3).text()
    assert death_rates.leads(found, names, 3) == (
        f"{low.title}: leads over training losses so far, summed at epoch 3: validation loss {ahead}."
    )


def test_budgets_draw_from_the_widest_table_and_adaptive_tpe_only_where_it_learns(
    folder, tmp_path, monkeypatch
):
    monkeypatch.setattr(paper_searches, "BUDGETS", (8, 24))
    monkeypatch.setattr(paper_searches, "COMPARED", {"spectrum": "spectrum"})
    monkeypatch.setattr(paper_searches, "ADAPTIVE_REPEATS", 1)
    (tmp_path / "few").mkdir()
    for name, table in {"a": made_up(0), "b": made_up(0, rate=0.5), "c": made_up(1)}.items():
        table.save(tmp_path / "few" / f"{name}.npz")
    (world,) = load_worlds(tmp_path / "few")
    text = paper_searches.budgets_table(world, repeats=4, cache=tmp_path / "cache", workers=1)
    assert text.startswith("4 replays (1 with adaptive TPE) on 48 candidates of seed 0.")
    rows = [[cell.strip() for cell in line.split("|")[1:4]] for line in text.splitlines()[4:]]
    assert rows == [["8", "TPE", "12"], ["24", "TPE", "42"], ["24", "adaptive TPE", "42"]]
    text = paper_searches.budgets_table(
        load_worlds(folder)[0], repeats=4, cache=tmp_path / "cache", workers=1
    )
    assert text.startswith("4 replays on 24 candidates of seeds 0, 1.")
    assert len(text.splitlines()) == 5  # of 24 rows adaptive TPE never knows enough
    assert paper_searches._spread([np.array([0.0, 0.01]), np.array([0.02, 0.03])]) == "1.5 (0.1 to 2.9)"


def test_what_the_answer_might_hang_on_is_changed_one_at_a_time(folder):
    world = load_worlds(folder)[0]
    first, *others = world.table.runs
    never = tuple(replace(record, averaging=False) for record in first.candidates[0])
    tested = tuple(float(number) for number in range(25))
    late = tuple(replace(record, averaging=record.epoch > 6) for record in first.candidates[1])
    runs = [replace(first, candidates=(never, late, *first.candidates[2:]), test_metrics=tested)]
    runs += [replace(run, test_metrics=tested) for run in others]
    changed = replace(world, table=replace(world.table, runs=tuple(runs)))
    found = measure(changed, ["spectrum_raw"])
    table = correlation.sensitivity_table(found, ["spectrum_raw"], 3)
    head, _, row = (line.split(" | ") for line in table.splitlines())
    assert [cell.strip("| ") for cell in head[1:]] == [
        "as above",
        "without those that never averaged",
        "end by test perplexity",
        "controls counted as candidates (seed 0)",
        "of those that averaged, given when they began",
    ]
    assert row[5].strip("| ") == "–"  # in the second seed all began together
    assert float(row[1].split()[0]) > 0.99
    assert abs(float(row[3].split()[0])) < 0.9  # another end
    fewer = without_never_averaging(changed)
    assert fewer is not None
    assert [len(run.candidates) for run in fewer.table.runs] == [23, 24]
    starts = correlation.averaging_starts(fewer)
    assert starts is not None
    assert starts[0].tolist() == [7.0] + [5.0] * 22
    assert starts[1].tolist() == [5.0] * 24
    assert correlation.averaging_starts(changed) is None
    assert without_never_averaging(world) is None
    assert world.controls is not None
    counted = extended(world, world.controls)
    assert [len(run.candidates) for run in counted.table.runs] == [26, 24]  # in the seed that has them
    controlled = of_seeds(counted, world.controls)
    assert controlled is not None
    assert [len(run.candidates) for run in controlled.table.runs] == [26]


def test_a_partial_rank_correlation_is_that_of_what_the_third_column_leaves(monkeypatch):
    one, two, fixed = np.random.default_rng(0).normal(size=(3, 20))
    two, fixed = two + one, fixed + one

    def left(values):
        ranks = scipy.stats.rankdata(values)
        return ranks - np.poly1d(np.polyfit(scipy.stats.rankdata(fixed), ranks, 1))(
            scipy.stats.rankdata(fixed)
        )

    assert correlation._partial(one, two, fixed) == pytest.approx(np.corrcoef(left(one), left(two))[0, 1])
    assert np.isnan(correlation._partial(one, two, 2 * one))


DENSE_AT_FIRST = ("gmp", "narang", "iterative_magnitude", "lottery_ticket")


def _methods(configurations=None):
    """What `record --scale methods` adds, as made up as the rest; some begin dense, some stay as they are."""
    if configurations is None:
        configurations = [cell.configuration for cell in candidate_cells(SCALES["methods"], 0)]
    table = made_up(0, group="methods", configurations=tuple(configurations))
    (run,) = table.runs

    def as_it_trains(configuration, record):
        if configuration.method in DENSE_AT_FIRST:
            return replace(record, at_sparsity=record.epoch > 4)
        if configuration.method == "static":
            return replace(record, probes={**record.probes, "turnover": np.array(0.0)})
        return record

    candidates = [
        tuple(as_it_trains(configuration, record) for record in records)
        for configuration, records in zip(run.configurations, run.candidates, strict=True)
    ]
    return replace(table, runs=(replace(run, candidates=tuple(candidates)),))


@pytest.fixture(scope="module")
def kinds(folder, tmp_path_factory):
    path = tmp_path_factory.mktemp("with-methods")
    for table in folder.glob("world-[rc]*.npz"):
        (path / table.name).symlink_to(table)
    _methods().save(path / "world-methods-seed-0.npz")
    (world,) = load_worlds(path)
    found = across.measure_kinds(world)
    assert found is not None
    return found


def test_every_kind_of_pruning_is_one_observation(folder, kinds):
    assert across.measure_kinds(load_worlds(folder)[0]) is None
    (names,) = kinds.every.groups  # of the one seed that has them all
    assert kinds.seeds == [0]
    assert len(names) == len(set(names)) == 20
    assert {"threshold death", "magnitude death, gradient growth", "static", "static, snip"} <= set(names)
    assert kinds.counts["threshold death"] == 6  # without the twin that is at once
    assert kinds.counts["static"] == 1
    members = kinds.candidates.groups[0] == "rigl"
    assert members.sum() == kinds.counts["rigl"] == 2
    expected = kinds.candidates.values["spectrum_mean"][0][:, members].mean(axis=1)
    own = kinds.sparse.values["spectrum_mean"][0][:, kinds.sparse.groups[0] == "rigl"][:, 0]
    np.testing.assert_allclose(own, expected)
    assert set(names) - set(kinds.sparse.groups[0]) == set(DENSE_AT_FIRST)
    assert kinds.starts["gmp"] == across.BEGINS_DENSE
    assert kinds.starts["static, grasp"] == kinds.starts["static, snip"] == across.STAYS
    assert kinds.starts["rigl"] == kinds.starts["set death"] == across.EXPLORES
    # The made-up controls change their masks, other than real ones.
    assert set(kinds.staying.groups[0]) == {name for name in names if name.startswith("static, ")}
    both = {*kinds.staying.groups[0], *kinds.exploring.groups[0]}
    assert both == set(kinds.sparse.groups[0])
    assert estimate(kinds.sparse, "spectrum_mean", 3).value == pytest.approx(1.0)
    assert p_value(kinds.sparse, "spectrum_mean", 3) < 0.01
    assert abs(estimate(kinds.sparse, "loss", 3).value) < 0.9
    ends = list(kinds.ends().values())
    assert ends == sorted(ends)


def test_signals_of_a_round_are_asked_of_the_kinds_that_are_compared(kinds):
    """A blend ranks those that begin sparse among themselves."""
    (blend,) = kinds.candidates.values["blend"]
    assert blend[3].max() <= blend.shape[1]
    assert blend[3].mean() == pytest.approx((blend.shape[1] + 1) / 2)


def test_what_is_known_before_training_stands_beside_the_signals(kinds):
    sparse = kinds.sparse
    stays = [float(name.startswith("static, ")) for name in sparse.groups[0]]
    expected = float(spearman_rows(np.array([stays]), sparse.finals[0][None])[0])
    assert across.never_changes(kinds).startswith(f"{expected:.2f} (")
    given = across.by_trait(kinds)
    # The distance tells everything in both groups; an indicator of the groups tells nothing in either.
    assert estimate(given, "spectrum_mean", 3, "within").value == pytest.approx(1.0)
    assert is_shown(given, "spectrum_mean", 3, "within")
    rows = {line.split(" | ")[0].strip("| "): line for line in across.beyond_table(kinds).splitlines()[2:]}
    assert "| 1.00 (1.00 to 1.00; p < 0.01) |" in rows[ENTRIES["spectrum_mean"].label]
    assert set(rows[ENTRIES["lost"].label].split(" | ")[1:-1]) == {"–"}  # none is lost anywhere


def test_kinds_are_of_the_seeds_that_have_them(folder, kinds):
    world = replace(load_worlds(folder)[0], methods=_methods())
    assert world.methods is not None
    assert world.controls is not None
    (run,) = world.methods.runs
    elsewhere = replace(world.methods, runs=(replace(run, seed=7),))
    assert across.measure_kinds(replace(world, methods=elsewhere)) is None
    (run,) = world.controls.runs
    without = across.measure_kinds(
        replace(world, controls=replace(world.controls, runs=(replace(run, seed=1),)))
    )
    assert without is not None
    assert set(kinds.starts) - set(without.starts) == {"static"}  # the controls are another seed's
    # With too few networks of a sort nothing is compared, and nothing breaks.
    moving = restricted(world.methods, lambda item: item.method != "static")
    assert across.measure_kinds(replace(world, methods=moving)) is None
    # A kind that only one seed has is no observation.
    runs = (world.methods.runs[0], replace(world.methods.runs[0], seed=1))
    both = across.measure_kinds(replace(world, methods=replace(world.methods, runs=runs)))
    assert both is not None
    assert both.seeds == [0, 1]
    assert set(kinds.starts) - set(both.starts) == {"static"}  # seed 1 has no controls
    assert both.counts["rigl"] == 4


def test_what_the_first_two_picks_lose(kinds):
    assert across._regret_of_two(kinds, "spectrum_mean", 3) == 0
    finals = np.sort(kinds.candidates.finals[0])
    count = len(finals)
    chance = np.array([count - 1 - index for index in range(count)]) / (count * (count - 1) / 2)
    expected = float(chance @ finals) / finals[0] - 1
    assert across._regret_of_two(kinds, "none", 3) == pytest.approx(expected)
    unknown = replace(
        kinds.candidates, values={"full": [np.full_like(kinds.candidates.values["full"][0], np.nan)]}
    )
    assert np.isnan(across._regret_of_two(kinds._replace(candidates=unknown), "full", 3))


def test_the_answer_names_what_is_shown_among_kinds(kinds, tmp_path):
    text = summary._across(kinds, 3)
    assert "Of the 16 kinds of pruning recorded here that begin sparse (seed 0)" in text
    assert "Shown, in the only seed: hidden spectrum, pairwise PCA (the paper's), full-state" in text
    assert across.signals_table(kinds, 3).splitlines()[0].count("begin sparse (16)") == 4
    rows = across.kinds_table(kinds, 3).splitlines()[2:]
    assert len(rows) == 20
    pictures.kinds(kinds, 3, tmp_path / "kinds.png")
    assert (tmp_path / "kinds.png").stat().st_size > 10_000


def test_other_worlds_stand_beside_the_first(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(bootstrap, "DRAWS", 100)
    monkeypatch.setattr(searching, "SCHEDULES", ((1, 1), (2, 5)))  # the second is longer than the training
    monkeypatch.setattr(other_worlds, "SCHEDULES", searching.SCHEDULES)
    worlds = load_worlds(folder)
    measured = [measure(world, ("spectrum", "loss", "none")) for world in worlds]
    ends = [row.split(" | ") for row in other_worlds.ends_table(measured).splitlines()[2:]]
    assert [row[0] for row in ends] == ["| made-up, sparsity 0.67", "| made-up, sparsity 0.9"]
    # Qualities are 0.1, 0.2, ... 2.4 in every seed, the final metric is 100 + 10 q, the dense model's 100.
    assert [row[1:6] for row in ends] == [[seeds, "100", "101", "112.5", "124"] for seeds in ("2", "1")]
    means = [float(part.rsplit(" ", 1)[1]) for part in ends[1][6].split(", ")]
    assert means == sorted(means)
    assert len(means) == 4
    assert np.mean(means) == pytest.approx(112.5, abs=0.05)  # the table's rounding
    outcomes_ = {
        world.title: searching.search_outcomes(world, repeats=4, cache=tmp_path, workers=1, families=(GRID,))
        for world in worlds
    }
    assert {item.point.family for found in outcomes_.values() for item in found} == {GRID}
    table = other_worlds.signals_table(measured, outcomes_, ("spectrum", "loss", "none"), 3)
    rows = [row.split(" | ") for row in table.splitlines()[2:]]
    without = ["eliminating by chance", "as many epochs on random candidates, trained fully"]
    assert [row[1] for row in rows] == [
        *(ENTRIES[name].label for name in ("spectrum", "loss", "none")),
        *without,
    ] * 2
    assert len({len(row) for row in rows}) == 1
    # Both seeds' best is among k of 24 in (k / 24)² of the draws, one seed's in k / 24.
    picks = int(outcomes_[worlds[0].title][0].epochs / FINAL)
    share = picks / 24
    assert picks > 2
    assert rows[0][-1].startswith("0.0 (1 %, ")
    assert float(rows[0][-1].split()[3]) == pytest.approx(100 * share**2, abs=1.5)  # rounded, drawn
    assert rows[5][-1].startswith("0.0 (8 %, ")
    assert float(rows[5][-1].split()[3]) == pytest.approx(100 * share, abs=1.5)
    assert rows[2][-1].endswith("(–, –) / – |")  # chance itself
    assert rows[3][-1] == f"{100 * chance(worlds[0]).mean:.1f} / – |"
    fully = chance(worlds[0], picks)
    assert rows[4][-1] == f"{100 * fully.mean:.1f} ({fully.picks} of them) / – |"
    assert rows[0][3] == rows[5][3] == "1.00 (1.00 to 1.00)"
    assert [row[5] for row in rows[::5]] == ["1.00 / 1.00", "1.00"]  # of each seed
    pictures.worlds(measured, tmp_path / "worlds.png")
    assert (tmp_path / "worlds.png").stat().st_size > 10_000


def test_the_answer_tells_what_other_worlds_say(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(bootstrap, "DRAWS", 100)
    first, other = (measure(world) for world in load_worlds(folder))
    points = [Point(family=FULL, signal=None, strategy=hp.Full(candidates=24, final_epochs=FINAL))]
    outcomes_ = outcomes(first.world.table, points, repeats=2, cache=tmp_path)
    text = summary.answer(first, None, outcomes_, 3, [other])
    assert "**And in the other worlds?** made-up, sparsity 0.9 (1 seed): Yes, in its only seed. Rank " in text
    assert "Shown, in the only seed: hidden spectrum" in text
    assert "other worlds" not in summary.answer(first, None, outcomes_, 3)


def test_each_sparsity_is_searched_by_spectrum_by_the_losses_and_by_chance(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(paper_searches, "DEFAULT_SCHEDULE", (1, 1))
    found = paper_searches.ratios(load_worlds(folder), repeats=4, cache=tmp_path, workers=1)
    assert [item.sparsity for item in found] == [0.67, 0.9]
    searches = {"LSH by spectrum", "LSH by loss", "LSH by training losses", "LSH by chance"}
    for item in found:
        assert item.ranges.keys() == searches
        assert all(item.metrics[name] >= item.metrics["best candidate"] for name in searches)
        for name in searches:
            low, high = item.ranges[name]
            assert low <= item.metrics[name] <= high


def test_one_cut_keeps_the_three_best_of_those_that_were_drawn(folder):
    finals = np.arange(100.0, 108.0)
    measured = measure(load_worlds(folder)[0], ())

    def found(signal):
        return replace(measured, values={"a": [np.stack([np.zeros(8), signal])]}, finals=[finals])

    tells, misleads = found(finals), found(-finals)
    assert later.regret(tells, "a", 1, 8) == 0
    assert later.regret(misleads, "a", 1, 8) == pytest.approx(0.05)  # 105 is the best of the last three
    # The best of k drawn at random is on average the (n + 1) / (k + 1)-th, whatever a cut by chance leaves.
    assert later.regret(tells, "a", 1, 5) == pytest.approx((9 / 6 - 1) / 100, abs=5e-4)
    assert later.regret(tells, "a", 0, 8) == pytest.approx((9 / 4 - 1) / 100, abs=1e-3)
    assert later.affordable(180, 12, 36) == 9  # 9 * 12 + 3 * 24 = 180
    assert later.affordable(179, 12, 36) == 8


def test_signals_are_told_over_the_whole_training_and_cuts_within_the_budget(folder, monkeypatch):
    monkeypatch.setattr(bootstrap, "DRAWS", 20)
    monkeypatch.setattr(later, "_CUTS", (1, 2, 6, 8))
    monkeypatch.setattr(later, "_FULL_TRAININGS", (5, 8, 10))
    world = load_worlds(folder)[0]
    found = later.measure_all(world)
    assert found.epochs == tuple(range(FINAL))
    rows = [row.strip("| ").split(" | ") for row in later.correlations_table([found]).splitlines()]
    assert rows[0][2:] == [
        *("ρ, epoch 3", "ρ, epoch 6", "shown at epochs, of 1 to 7", "shown to point the wrong way at"),
    ]
    by_signal = {row[1]: row[2:] for row in rows[2:]}
    by_spectrum = by_signal["hidden spectrum, pairwise PCA (the paper's)"]
    assert by_spectrum == ["1.00 [1.00 / 1.00]", "1.00 [1.00 / 1.00]", "1 to 7", "–"]
    assert by_signal["minus own mean exponent (no dense model)"][2:] == ["1 to 7", "–"]
    backwards = replace(found, values={"spectrum": [-own for own in found.values["spectrum"]]})
    monkeypatch.setattr(later, "NAMES", ("spectrum",))
    assert later.correlations_table([backwards]).splitlines()[-1].endswith("| – | 1 to 7 |")
    late = later.late_table([found]).splitlines()
    assert late[0].startswith(
        "| training loss of the last epoch, epoch 7 | ρ | within kinds of death | lead over"
    )
    assert lead(found, "last_training_loss", "loss", 7).text() in late[2]
    head, _, fully, *cuts = later.cuts_table([found]).splitlines()
    assert head == f"| candidates | epochs | {world.title} |"
    runs = tuple(
        replace(run, reference=run.reference[:-1], candidates=tuple(own[:-1] for own in run.candidates))
        for run in world.table.runs
    )
    shorter = replace(world, table=replace(world.table, final_epochs=FINAL - 1, runs=runs))
    assert later.cuts_table([found, replace(found, world=shorter)]).startswith(f"{head}\n")
    assert fully.startswith("| 5 drawn, trained fully | 40 | ")
    assert [row.split(" | ")[:2] for row in cuts] == [
        ["| 19 drawn, cut after epoch 1", "40"],
        ["| 11 drawn, cut after epoch 2", "40"],
        ["| 5 drawn, cut after epoch 6", "36"],
        ["| 8 drawn, trained fully", "64"],
        ["| 24 drawn, cut after epoch 1", "45"],
        ["| 23 drawn, cut after epoch 2", "64"],
        ["| 9 drawn, cut after epoch 6", "60"],
        ["| 10 drawn, trained fully", "80"],  # 24 to epoch 1 would be told again
        ["| 24 drawn, cut after epoch 2", "66"],
        ["| 12 drawn, cut after epoch 6", "78"],
    ]


@pytest.mark.long
def test_the_whole_page_is_made_from_the_tables(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(prediction, "_SPLITS", 1)
    monkeypatch.setattr(bootstrap, "DRAWS", 40)
    monkeypatch.setattr(correlation, "LAST_EPOCH", 3)
    monkeypatch.setattr(searching, "SCHEDULES", ((1, 1),))
    monkeypatch.setattr(searching, "HALVING_EPOCHS", (1,))
    monkeypatch.setattr(paper_searches, "SCHEDULES", ((1, 1),))
    monkeypatch.setattr(paper_searches, "BUDGETS", (8,))
    monkeypatch.setattr(paper_searches, "DEFAULT_SCHEDULE", (1, 1))
    monkeypatch.setattr(later, "_CUTS", (1,))
    records = tmp_path / "records"
    records.mkdir()
    for table in folder.iterdir():
        (records / table.name).symlink_to(table)
    low = made_up(0, rate=0.5, group="rate-0.5")
    changed = {"command": "another", "commit": "abcdefabcdef-dirty"}
    replace(low, runs=(replace(low.runs[0], provenance=changed),)).save(records / "world-rate-0.5-seed-0.npz")
    page = tmp_path / "docs" / "evidence.md"
    written = build(records, page, repeats=4, cache=tmp_path / "cache", say=silent)
    assert len(written) == 10
    assert all(path.stat().st_size > 500 for path in written)
    text = page.read_text()
    assert "made-up, sparsity 0.67" in text
    assert "made-up, death rate 0.5, sparsity 0.67" in text
    first = "24 | 8 |  | unigram perplexity 199.0"
    assert f"| made-up, sparsity 0.67, death rate 0.8 | 0 | {first} | abc |  |  | `made up` |" in text
    assert (
        f"| made-up, sparsity 0.67, death rate 0.5 | 0 | {first} | {changed['commit']} |  |  | `another` |"
        in text
    )
    assert text.count("<!-- part:") == template().count("<!-- part:")
    assert " nan" not in text
