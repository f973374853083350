"""Prune and regain: its points, its tables, what predicts, and the command."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hyperprune.cli.main import main
from hyperprune.errors import InputError
from hyperprune.experiments import prune_regain
from hyperprune.experiments.cells import read_records
from hyperprune.experiments.documents import marked_part, page_text
from hyperprune.experiments.prune_regain import SCALES, Scale, run_study
from hyperprune.experiments.prune_regain_pictures import CAPTIONS
from hyperprune.experiments.prune_regain_tables import (
    Points,
    predict,
    published,
    quality_table,
    to_markdown,
)
from hyperprune.experiments.pruning import matrices_of
from hyperprune.tasks.registry import load_task
from hyperprune.training.load import load_model

TINY_TASK = f"{Path(__file__).parents[1] / 'tiny_task.py'}:task"
STRINGS = {"train_strings": 96, "valid_strings": 20, "test_strings": 50, "max_length": 20}
TINY = Scale(
    settings={"model": {"hidden_size": 5, "embedding_size": 4}, "strings": STRINGS},
    cells=("gru",),
    parts=("recurrent",),
    percents=(50, 100),
    base_epochs=2,
    retrain_epochs=2,
    seeds=(0,),
)


def silent(text):
    pass


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    return folder, run_study(TINY, folder, say=silent, command="a command")


def test_a_base_and_each_point_end_in_a_record(study):
    _, records = study
    base, half, none = records
    num_input = 15 * 4 + 2 * 75  # a GRU of 5 units: 15 rows; the first layer reads an embedding of 4
    assert base["num_weights"] == {"both": num_input + 225, "input": num_input, "recurrent": 225}
    assert (half["num_live"], none["num_live"]) == (225 - 113, 0)
    assert len(base["valid"]) == 3
    assert all(len(point["retrained"]["test"]) == 2 for point in (half, none))
    assert base["spectrum"]["distance"] == 0 < half["pruned"]["spectrum"]["distance"]
    assert len(base["spectrum"]["largest_by_layer"]) == 3
    # A GRU without recurrent weights: its Jacobian is the diagonal of the update gate, which is regular.
    assert none["pruned"]["spectrum"]["num_negative_infinite"] == 0
    assert json.loads(json.dumps(records)) == records


def test_each_point_starts_from_the_base_models_best_weights(study):
    folder, records = study
    task = load_task("reber", settings={**TINY.settings, "model": {**TINY.settings["model"], "cell": "gru"}})
    (weights,) = folder.glob("bases/*/best.pt")
    model = load_model(weights, task)
    matrices = matrices_of(model, "recurrent")
    magnitudes = torch.cat([weight.detach().abs().flatten() for weight in matrices.values()])
    threshold = magnitudes.sort().values[112]
    for weight in matrices.values():
        weight.data[weight.data.abs() <= threshold] = 0
    with torch.no_grad():
        assert task.evaluate(model, task.batches("test", 0)).metric == records[1]["pruned"]["test"]


def test_a_study_that_was_stopped_goes_on_with_the_same_result(study, tmp_path):
    _, records = study
    run_study(replace(TINY, percents=(100,)), tmp_path, say=silent)
    lines = []
    again = run_study(TINY, tmp_path, workers=1, say=lines.append)
    assert len(lines) == 1

    def results(found):
        drop = ("seconds", "provenance")
        return {record["key"]: {k: v for k, v in record.items() if k not in drop} for record in found}

    assert results(again) == results(records)


def test_other_settings_in_the_same_folder_are_other_records(tmp_path):
    run_study(replace(TINY, percents=(100,)), tmp_path, say=silent)
    other = run_study(replace(TINY, percents=(100,), retrain_epochs=1), tmp_path, say=silent)
    assert [len(record["retrained"]["test"]) for record in other if record["kind"] == "point"] == [1]
    assert len(read_records(tmp_path / "records.jsonl")) == 4


def test_a_users_own_task_is_pruned_as_it_is(tmp_path):
    scale = replace(TINY, task=TINY_TASK, settings={}, cells=("own",), percents=(30,))
    base, point = run_study(scale, tmp_path, say=silent)
    assert (base["metric"], base["lower_is_better"]) == ("squared error", True)
    assert point["num_live"] == 256 - 77
    assert "| 30 % |" in to_markdown([base, point])


def test_a_training_that_fails_is_told_and_counts_as_never(tmp_path, monkeypatch):
    monkeypatch.setattr(prune_regain, "_train_epoch", lambda *_: "the training loss became nan in epoch 3")
    base, point = run_study(replace(TINY, percents=(100,)), tmp_path, say=silent)
    assert point["failure"] == "the training loss became nan in epoch 3"
    assert point["retrained"] == {"test": [], "loss": [], "spectrum": None}
    for quality, regained, told in ((0.0, None, "epoch 3; it counts as never."), (1.0, 0, "epoch 3.")):
        records = [base, {**point, "pruned": {**point["pruned"], "test": quality}}]
        points = Points(records)
        assert points.epochs_to_regain(points.points[0]) == regained
        assert to_markdown(records).endswith(f"seed 0: the training loss became nan in {told}")


def _base(cell="lstm", seed=0, test=1.0, lower=False, largest=-0.5):
    return {
        "kind": "base",
        "cell": cell,
        "seed": seed,
        "task": "reber",
        "settings": {},
        "metric": "accuracy",
        "lower_is_better": lower,
        "failure": None,
        "test": test,
        "spectrum": {"leading": [largest], "distance": 0.0},
    }


def _point(
    curve, *, percent=90, cell="lstm", part="both", seed=0, distance=1.0, largest: float | None = -1.0
):
    spectrum = {"leading": [largest], "distance": distance}
    return {
        "kind": "point",
        "cell": cell,
        "seed": seed,
        "part": part,
        "percent": percent,
        "pruned": {"test": curve[0], "spectrum": spectrum},
        "retrained": {"test": curve[1:], "spectrum": spectrum},
        "failure": None,
    }


@pytest.mark.parametrize(
    ("base", "lower", "curve", "epochs"),
    [
        (1.0, False, [0.995, 1.0], 0),
        (1.0, False, [0.9949, 1.0], 1),
        (1.0, False, [0.5, 0.9, 0.996], 2),
        (1.0, False, [0.5, 0.9, 0.99], None),
        (100.0, True, [100.5, 90.0], 0),
        (100.0, True, [300.0, 100.6, 99.0], 2),
        (-2.0, True, [-1.98, -1.99], 1),
    ],
)
def test_regained_is_within_half_a_percent_of_the_base_in_the_metrics_direction(base, lower, curve, epochs):
    points = Points([_base(test=base, lower=lower), _point(curve)])
    assert points.epochs_to_regain(points.points[0]) == epochs


def test_the_thesis_stands_beside_its_own_network_and_grammar_only():
    for settings, quoted in (
        ({"strings": {"train_strings": 50}, "model": {"read_padding": True}}, True),
        ({"strings": {"embedded": True}}, False),
        ({"model": {"hidden_size": 4}}, False),
    ):
        records = [{**_base(), "settings": settings}, _point([0.5, 1.0])]
        assert ("[0.495]" in to_markdown(records)) == quoted


def test_the_table_shows_ranges_epochs_and_the_thesis_beside():
    records = [
        _base(),
        _base(seed=1),
        _point([0.5, 1.0]),
        _point([0.6, 0.9, 1.0], seed=1),
        _point([0.5, 0.5], percent=100),
    ]
    table = quality_table(Points(records), "both").splitlines()
    assert table[0] == "| pruned | LSTM: accuracy | epochs |"
    assert table[2] == "| base | 1.000 [1.000] |  |"
    assert table[3] == "| 90 % | 0.500 … 0.600 [0.495] | 1 … 2 [1] |"
    assert table[4] == "| 100 % | 0.500 | never [never] |"
    text = to_markdown([*records[:2], _point([0.5, 1.0], largest=None)])
    assert "| 90 % | −∞ | −∞ |" in text


def test_a_perfect_predictor_has_rank_correlation_one_and_never_ranks_last():
    records = [_base(cell, seed) for cell in ("lstm", "gru") for seed in range(3)]
    curves = [[1.0], [0.5, 1.0], [0.5, 0.5, 1.0], [0.5, 0.5, 0.5]]
    for base in records[:6]:
        records += [
            _point(
                curve, cell=base["cell"], part=part, seed=base["seed"], percent=10 * n, distance=n**2 + 0.001
            )
            for part in ("input", "recurrent")
            for n, curve in enumerate(curves, start=1)
        ]
    points = Points(records)
    prediction = predict(points, "distance of the spectra")
    assert prediction.rho == pytest.approx(1) == prediction.low == prediction.high
    assert (prediction.num_points, prediction.num_bases) == (48, 6)
    assert math.isnan(prediction.within)  # all points of one percentage take as long
    assert math.isnan(predict(points, "distance of the spectra", cell="gru").low)  # three bases are too few
    assert math.isnan(predict(points, "change of the largest exponent").rho)  # it is the same everywhere


def test_within_a_percentage_only_equally_pruned_networks_are_compared():
    records = [_base(cell) for cell in ("lstm", "gru", "rnn", "own")]
    for percent, offset in ((10, 0.0), (90, 100.0)):
        for n, base in enumerate(records[:4]):
            curve = [0.5] * (n + 1 if percent == 10 else 4 - n) + [1.0]
            records.append(_point(curve, cell=base["cell"], percent=percent, distance=offset + n))
    # +1 among those pruned by 10 %, −1 among those by 90 %.
    assert predict(Points(records), "distance of the spectra").within == pytest.approx(0)
    few = [record for record in records if record.get("percent") != 90]
    assert predict(Points(few), "distance of the spectra").within == pytest.approx(1)


def test_the_thesiss_figures_are_of_known_cells_parts_and_percentages():
    paper = published()
    assert set(paper["base"]) == set(SCALES["paper"].cells)
    for figures in (paper["pruned"], paper["regained"]):
        assert set(figures) == set(SCALES["paper"].parts)
    for part in paper["pruned"].values():
        assert set(part) == set(paper["base"])
        assert all(int(percent) in range(10, 101, 10) for cell in part.values() for percent in cell)
    assert paper["pruned"]["input"]["lstm"] == {"70": 0.992, "80": 0.946, "90": 0.621}


CONFIG = "[model]\nhidden_size = 5\nembedding_size = 4\n[strings]\n" + "".join(
    f"{name} = {value}\n" for name, value in STRINGS.items()
)
COMMAND = [
    *("reproduce", "prune-regain", "--config", "tiny.toml", "--cell", "rnn", "--part", "input"),
    *("--percent", "90", "--base-epochs", "1", "--retrain-epochs", "1", "--workers", "1"),
    *("--seeds", "1"),
]


def test_the_command_prints_tables_draws_pictures_and_fills_the_page(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("tiny.toml").write_text(CONFIG)
    Path("docs").mkdir()
    Path("docs/prune_regain.md").write_text(
        "# Page\n<!-- prune-regain: begin -->\n<!-- prune-regain: end -->\n"
    )
    assert main([*COMMAND, "--docs", "docs"]) == 0
    out = capsys.readouterr().out
    records = read_records(Path("docs/records/prune_regain.jsonl"))
    assert [record["kind"] for record in records] == ["base", "point"]
    assert marked_part(Path("docs/prune_regain.md"), "prune-regain") == page_text(
        records, CAPTIONS, to_markdown(records)
    )
    assert to_markdown(records) in out
    again = ["reproduce", "prune-regain", "--from", "docs/records/prune_regain.jsonl"]
    assert main(again) == 0
    assert capsys.readouterr().out.startswith(to_markdown(records))
    assert main([*again, "--tolerance", "0"]) == 0
    assert capsys.readouterr().out.startswith(to_markdown(records, 0.0))
    assert main([*again, "--base-epochs", "0"]) == 2
    assert main([*again, "--cell", "gru"]) == 2
    assert "--cell is for what is trained, got it with --from" in capsys.readouterr().err
    for folder in ("docs/pictures", "runs/prune-regain-small/pictures"):
        names = {path.name for path in Path(folder).iterdir()}
        assert names == {f"prune-regain-{name}.png" for name in ("regain", "exponents", "distance")}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cell", "lstn"], "[model] cell must be one of 'rnn', 'rnn_relu'"),
        (["--part", "inputs"], "parts must be of both, input, recurrent, got 'inputs'"),
        (["--percent", "0"], "percents must lie in 1 to 100, got 0"),
        (["--scope", "all"], "scope must be of network, layer, got 'all'"),
        (["--base-epochs", "0"], "base_epochs must be at least 1, got 0"),
        (["--tolerance", "1"], r"tolerance must lie in [0, 1), got 1.0"),
        (["--task", "rebar"], "unknown task 'rebar'; did you mean 'reber'"),
        (["--task", TINY_TASK, "--cell", "gru"], "[model] is for built-in tasks"),
        (["--scale", "huge"], "unknown scale 'huge'"),
        (["--docs", "nowhere", "--tolerance", "0.01"], "leave --tolerance out"),
        (["--docs", "nowhere"], "nowhere/prune_regain.md: No such file"),
        (["--config", "none.toml"], "none.toml: No such file"),
    ],
)
def test_wrong_arguments_exit_with_2_and_write_nothing(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert main(["reproduce", "prune-regain", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_missing_strings_folder_is_told_before_anything_is_trained(tmp_path):
    scale = replace(TINY, settings={"strings": {"folder": str(tmp_path / "none")}})
    with pytest.raises(InputError, match=r"none/train_data.csv: No such file"):
        run_study(scale, tmp_path, say=silent)
    assert list(tmp_path.iterdir()) == []
