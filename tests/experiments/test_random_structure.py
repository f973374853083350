"""The study of graph-wired networks: resumable, its figures right, its CSV files checked."""

import csv
import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest

from hyperprune.cli.main import main
from hyperprune.errors import InputError
from hyperprune.experiments.random_structure import SCALES, Scale, run_study, strings_of
from hyperprune.experiments.random_structure_prediction import FEATURE_SETS, REGRESSORS, predict
from hyperprune.experiments.random_structure_results import (
    COLUMNS,
    Outcome,
    correlate,
    difference,
    from_records,
    published,
    published_correlation,
    read_results,
)
from hyperprune.experiments.random_structure_tables import (
    accuracy_table,
    correlation_table,
    correlations,
    describe,
    to_markdown,
    what_holds,
)
from hyperprune.graphs import FEATURES, GraphPlan, layered, properties

FEW = Scale(graphs=2, cells=("rnn",), epochs=2, train_strings=60, test_strings=40)


def silent(text):
    pass


@pytest.fixture(autouse=True)
def few_fits(monkeypatch):
    """Two shufflings and two other splits, for time's sake."""
    for name in ("_REPEATS", "_SPLITS"):
        monkeypatch.setattr(f"hyperprune.experiments.random_structure_prediction.{name}", 2)


@pytest.fixture
def no_files(monkeypatch, tmp_path):
    """Strings are drawn, whatever data the machine has."""
    monkeypatch.setenv("HYPERPRUNE_DATA", str(tmp_path / "none"))
    monkeypatch.setattr("hyperprune.experiments.random_structure.data_folders", lambda data_dir: [])


def outcomes_of(family="watts_strogatz", cell="gru", number=40, slope=0.01, noise=0.0):
    """Accuracies that rise with the number of nodes, of real graphs."""
    random = np.random.default_rng(0)
    found = []
    for index in range(number):
        features = properties(layered(GraphPlan.thesis_sample(family, index).build()))
        accuracy = 0.5 + slope * (features["nodes"] - 10) + noise * random.normal()
        found.append(Outcome(cell=cell, family=family, features=features, accuracy=float(accuracy)))
    return found


def test_every_network_is_trained_once_and_a_study_goes_on_where_it_stopped(tmp_path, no_files):
    lines = []
    small = Scale(**{**FEW.__dict__, "graphs": 1})
    first = run_study(small, tmp_path, say=lines.append)
    assert [(r["family"], r["number"]) for r in first] == [("barabasi_albert", 0), ("watts_strogatz", 0)]
    records = run_study(FEW, tmp_path, say=lines.append)
    assert len(lines) == len(records) == 4
    assert records[:2] == first
    assert "watts_strogatz-1-rnn-0" in lines[3]
    for record in records:
        plan = GraphPlan.thesis_sample(record["family"], record["number"])
        assert record["graph"] == plan.to_json()
        assert record["features"] == properties(layered(plan.build()))
        assert len(record["test_by_epoch"]) == 3
        assert record["test"] == pytest.approx(record["test_by_epoch"][-1], abs=1e-5)
        assert record["strings"] == "drawn"
        assert round(record["test"] * 40, 6) % 1 == 0  # a share of the 40 test strings
    assert "4 networks of 4 graphs, 2 epochs on 60 of drawn strings, tested on 40" in describe(records)
    # Workers end in any order, which no bootstrap and no fold may depend on.
    path = tmp_path / "records.jsonl"
    path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))
    assert run_study(FEW, tmp_path, say=lines.append) == records
    # Other settings are other networks, not resumed ones.
    again = run_study(Scale(**{**small.__dict__, "read_padding": True}), tmp_path, say=silent)
    assert len(again) == 2
    assert {record["key"] for record in again}.isdisjoint(record["key"] for record in records)


def test_the_thesiss_files_are_used_where_they_are(tmp_path, no_files, monkeypatch):
    assert strings_of(FEW, None).folder is None
    folder = tmp_path / "data" / "reber"
    folder.mkdir(parents=True)
    for name, number in (("train_data.csv", 60), ("test_data.csv", 40)):
        rows = "".join(f"{i},B{'T' * (i % 7)}XE,{i % 2}\n" for i in range(number))
        (folder / name).write_text(",string,valid\n" + rows)
    monkeypatch.setattr(
        "hyperprune.experiments.random_structure.data_folders", lambda data_dir: [folder.parent]
    )
    assert strings_of(FEW, None).folder == str(folder)
    (record, _) = run_study(Scale(**{**FEW.__dict__, "graphs": 1}), tmp_path / "out", say=silent)
    assert record["strings"] == "of files"


def test_the_scales_are_the_thesiss_or_smaller():
    paper = SCALES["paper"]
    assert (paper.graphs, paper.epochs, paper.train_strings, paper.test_strings) == (100, 15, 18_750, 6_250)
    assert set(paper.cells) == {"rnn", "rnn_relu", "lstm", "gru"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"families": ("barabasi",)}, "unknown graph family 'barabasi'"),
        ({"cells": ("tanh",)}, "unknown cell 'tanh'"),
        ({"graphs": 0}, "graphs must be at least 1, got 0"),
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"train_strings": 19}, "train_strings must be at least 20, got 19"),
    ],
)
def test_wrong_scales_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        Scale(**{**FEW.__dict__, **changes})


def test_correlations_by_hand():
    x, y = [1.0, 2.0, 3.0, 4.0], [1.0, 4.0, 9.0, 100.0]
    found = correlate(x, y)
    assert found.spearman.value == pytest.approx(1.0)
    assert found.pearson.value == pytest.approx(np.corrcoef(x, y)[0, 1])
    turned = correlate(x, [-value for value in y])
    assert turned.pearson.value == pytest.approx(-found.pearson.value)
    tied = correlate([1.0, 1.0, 2.0], [1.0, 2.0, 3.0])  # ranks 1.5, 1.5, 3 against 1, 2, 3
    assert tied.spearman.value == pytest.approx(math.sqrt(3) / 2)
    assert all(math.isnan(value) for value in correlate([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]).pearson)
    assert math.isnan(correlate([1.0, 2.0], [1.0, 2.0]).pearson.value)


def test_bootstrap_intervals_are_those_of_drawing_networks_again():
    random = np.random.default_rng(3)
    x = random.normal(size=60)
    y = 0.6 * x + 0.8 * random.normal(size=60)
    found = correlate(list(x), list(y))
    draws = []
    for _ in range(2000):
        picked = random.integers(60, size=60)
        ranks = [np.searchsorted(np.sort(v[picked]), v[picked]).astype(float) for v in (x, y)]
        for rank, values in zip(ranks, (x[picked], y[picked]), strict=True):
            rank += [((values == value).sum() - 1) / 2 for value in values]
        draws.append((np.corrcoef(x[picked], y[picked])[0, 1], np.corrcoef(ranks[0], ranks[1])[0, 1]))
    expected = np.percentile(draws, [2.5, 97.5], axis=0)
    # Two bootstraps of 2000 draws: an end of the interval is known to about 0.01.
    assert found.pearson[1:] == pytest.approx(expected[:, 0], abs=0.03)
    assert found.spearman[1:] == pytest.approx(expected[:, 1], abs=0.03)


def test_differences_of_means_have_intervals_that_cover_them():
    gap = difference([0.9, 0.8, 1.0], [0.5, 0.7])
    assert gap.value == pytest.approx(0.3)
    assert 0.0 < gap.low < 0.3 < gap.high < 0.6


def test_predictions_find_what_is_there_and_nothing_where_nothing_is():
    rising = outcomes_of(noise=0.01)
    random = np.random.default_rng(1)
    nothing = [Outcome(**{**o.__dict__, "accuracy": float(random.uniform())}) for o in rising]
    for regressor in REGRESSORS:
        assert predict(rising, regressor).cross_validated > 0.85
        assert predict(nothing, regressor).cross_validated < 0.3
    forest = predict(rising, "random forest", list(FEATURE_SETS.values())[1])
    assert sum(forest.importances.values()) == pytest.approx(1)
    assert forest.features == ("nodes", "edges", "source_nodes", "sink_nodes")
    low, high = forest.holdout_range
    assert low < high <= 1
    ridge = predict(rising, "Bayesian ridge", ("nodes",))
    spread = max(o.features["nodes"] for o in rising) - min(o.features["nodes"] for o in rising)
    assert ridge.importances["nodes"] == pytest.approx(0.01 * spread, rel=0.1)
    with pytest.raises(InputError, match="a prediction needs at least 10 networks, got 9"):
        predict(rising[:9], "AdaBoost")


def test_what_cannot_be_predicted_is_told_by_a_dash():
    same = [replace(one, accuracy=0.1) for one in outcomes_of(number=10)]
    for regressor in REGRESSORS:
        assert math.isnan(predict(same, regressor).cross_validated)
    text = to_markdown(same, source="")
    assert "| GRU | AdaBoost | all | – | – | – | 0.78 |" in text
    assert "nan" not in text
    # Of two graphs held out some have equal accuracies, which leaves the other splits their range.
    some = [replace(one, accuracy=float(place < 3)) for place, one in enumerate(outcomes_of(number=12))]
    low, high = predict(some, "Bayesian ridge").holdout_range
    assert low <= high


def test_the_four_sets_of_features_are_the_appendixs():
    assert FEATURE_SETS["all"] == FEATURES
    counts = FEATURE_SETS["counts only: nodes, edges, sources, last layer"]
    assert counts == ("nodes", "edges", "source_nodes", "sink_nodes")
    assert set(FEATURE_SETS["all but these counts"]) == set(FEATURES) - set(counts)
    assert FEATURE_SETS["variances only"] == (
        "eccentricity_var",
        "degree_var",
        "closeness_var",
        "nodes_betweenness_var",
        "edge_betweenness_var",
    )


def test_the_published_figures_are_of_features_and_cells_that_exist():
    assert set(published()["correlation"]) <= set(FEATURES)
    assert published_correlation("source_nodes", "gru") == 0.74
    assert published_correlation("degree_var", "rnn_relu") == -0.26
    assert published_correlation("sink_nodes", "gru") is None


def test_tables_show_means_intervals_and_the_thesis_and_count_what_holds():
    outcomes = outcomes_of(noise=0.02) + [
        Outcome(**{**o.__dict__, "family": "barabasi_albert", "accuracy": o.accuracy - 0.2})
        for o in outcomes_of(noise=0.02)
    ]
    rows = accuracy_table(outcomes).splitlines()
    assert rows[0].startswith("| cell | Barabási–Albert | Watts–Strogatz | all |")
    assert "| 0.200 (" in rows[2]
    assert rows[2].endswith("| 0.956 |")
    table = correlations(outcomes)
    nodes = next(
        row for row in correlation_table(outcomes, table).splitlines() if row.startswith("| nodes |")
    )
    assert f"| {table['nodes', 'gru'].pearson.value:.2f} (" in nodes
    assert "| 0.49 |" in nodes
    text = what_holds(outcomes, table)
    assert text.startswith("- GRU: ")
    assert "of 12 correlations have the thesis's sign" in text
    assert "Watts–Strogatz is above Barabási–Albert (the interval excludes 0" in text
    few = to_markdown(outcomes[:6], source="Six networks.")
    assert "Fewer than 10 networks of each cell: nothing is predicted." in few


def write_results(path, outcomes, **changes):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["mode", "graph", "graph_nr", *FEATURES, "test_acc", "time"])
        writer.writeheader()
        for number, outcome in enumerate(outcomes):
            row = {"mode": "GRU", "graph": outcome.family, "graph_nr": number, "time": 1.0}
            own = {name: outcome.features[name] for name in FEATURES}
            writer.writerow(row | own | {"test_acc": outcome.accuracy} | changes)


def test_a_csv_file_with_the_thesiss_columns_is_analysed(tmp_path, capsys):
    path = tmp_path / "gru.csv"
    outcomes = outcomes_of(number=15, noise=0.01)
    write_results(path, outcomes)
    found = read_results(path)
    assert [o.accuracy for o in found] == [o.accuracy for o in outcomes]
    assert all(
        o.features[name] == p.features[name]
        for o, p in zip(found, outcomes, strict=True)
        for name in FEATURES
    )
    assert main(["reproduce", "random-structure", "--results", str(path)]) == 0
    printed = capsys.readouterr().out
    assert "15 networks of gru.csv." in printed
    assert "| GRU | random forest | variances only |" in printed


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mode": "RHN"}, r"gru.csv, line 2, column 'mode': unknown mode 'RHN'"),
        ({"closeness_var": "much"}, r"line 2, column 'closeness_var': must be a finite number, got 'much'"),
        ({"nodes": "inf"}, r"line 2, column 'nodes': must be a finite number, got 'inf'"),
        ({"test_acc": 93.7}, r"line 2, column 'test_acc': an accuracy must lie in \[0, 1\], got 93.7"),
    ],
)
def test_wrong_values_in_a_csv_file_are_named_with_their_place(tmp_path, changes, message):
    path = tmp_path / "gru.csv"
    write_results(path, outcomes_of(number=3), **changes)
    with pytest.raises(InputError, match=message):
        read_results(path)


def test_csv_files_that_are_none_are_refused(tmp_path, capsys):
    path = tmp_path / "gru.csv"
    with pytest.raises(InputError, match=r"results must be a readable CSV file, got .*: No such file"):
        read_results(path)
    header = [name for name in COLUMNS if name not in ("density", "test_acc")]
    path.write_text(",".join(header) + "\n")
    with pytest.raises(InputError, match=r"line 1: .* lacks 'density', 'test_acc'; add them"):
        read_results(path)
    path.write_text(",".join(COLUMNS) + "\n")
    with pytest.raises(InputError, match="must hold at least one network, got a header alone"):
        read_results(path)
    path.write_text(",".join(COLUMNS) + "\nGRU,kleinberg\n")
    with pytest.raises(InputError, match=r"line 2: a row must have 26 columns as the header has, got 2"):
        read_results(path)
    path.write_bytes(b"mode,\xff\n")
    with pytest.raises(InputError, match="must be UTF-8, and byte 5 is not"):
        read_results(path)
    assert main(["reproduce", "random-structure", "--results", str(path), "--graphs", "3"]) == 2
    assert "--graphs is for what is trained, got it with --results" in capsys.readouterr().err


def test_the_command_trains_writes_a_page_and_its_records(tmp_path, no_files, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(SCALES, "few", FEW)
    docs = tmp_path / "docs"
    arguments = ["reproduce", "random-structure", "--scale", "few", "--workers", "1", "--docs", str(docs)]
    assert main(arguments) == 2
    assert "random_structure.md: No such file" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    docs.mkdir()
    page = docs / "random_structure.md"
    page.write_text("# Page\n<!-- random-structure: begin -->\n<!-- random-structure: end -->\nend\n")
    assert main(arguments) == 0
    text = page.read_text()
    assert text.startswith("# Page\n")
    assert "### Accuracy" in text
    lines = (docs / "records" / "random_structure.jsonl").read_text().splitlines()
    assert len(from_records([json.loads(line) for line in lines])) == 4
    assert sorted(path.name for path in (docs / "pictures").iterdir()) == [
        "random-structure-accuracy.png",
        "random-structure-correlation.png",
        "random-structure-nodes.png",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--scale", "huge"], "unknown scale 'huge'; .*known: paper, small, tiny"),
        (["--cell", "tanh"], "unknown cell 'tanh'"),
        (["--family", "barabasi"], "unknown graph family 'barabasi'"),
        (["--graphs", "0"], "graphs must be at least 1, got 0"),
        (["--results", "a.csv", "--scale", "tiny"], "--scale is for what is trained, got it with --results"),
    ],
)
def test_wrong_arguments_exit_with_2(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert main(["reproduce", "random-structure", *arguments]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert list(tmp_path.iterdir()) == []
