"""The study of all methods: its cells, its records, its table."""

from pathlib import Path

import pytest

from hyperprune.cli.main import main
from hyperprune.errors import InputError
from hyperprune.experiments.cells import read_records
from hyperprune.experiments.methods_study import SCALES, Scale, cells_of, published, run_study, to_markdown
from hyperprune.sparsity import methods

TASK = f"{Path(__file__).parents[1] / 'tiny_task.py'}:task"
TINY = Scale(task=TASK, epochs=2, sparsities=(0.5, 0.6), seeds=(0, 1))


def test_every_preset_is_a_cell_once_per_sparsity_and_seed_and_dense_once_per_seed():
    cells = cells_of(SCALES["small"])
    presets = set(methods.names()) - {"dynamic_sparse"}
    assert {cell.method for cell in cells} == presets
    assert len(cells) == len(set(cells)) == 2 * (2 * (len(presets) - 1) + 1)
    half = len(cells) // 2
    assert {cell.seed for cell in cells[:half]} == {0}  # one seed is complete before the next begins


def test_an_unknown_method_is_refused():
    with pytest.raises(InputError, match="unknown method 'rigle'; did you mean 'rigl'"):
        cells_of(TINY, ["rigle"])


def test_a_study_goes_on_where_it_stopped_and_trains_nothing_twice(tmp_path):
    names = ["dense", "set_", "snfs"]
    lines = []
    run_study(Scale(**{**TINY.__dict__, "seeds": (0,)}), tmp_path, names=names, say=lines.append)
    assert len(lines) == 1 + 2 + 2
    first = read_records(tmp_path / "records.jsonl")
    run_study(TINY, tmp_path, names=names, say=lines.append)
    records = read_records(tmp_path / "records.jsonl")
    assert records[: len(first)] == first
    assert len({record["key"] for record in records}) == len(records) == 10
    assert all(len(record["valid"]) == 3 and record["test"] > 0 for record in records)
    # Momentum growth needs momentum; the step's size stays comparable.
    by_method = {record["method"]: record for record in records}
    assert by_method["snfs"]["momentum"] == 0.9
    assert by_method["snfs"]["learning_rate"] == pytest.approx(by_method["set_"]["learning_rate"] / 10)


def test_the_table_shows_means_half_ranges_counts_failures_and_the_paper_beside():
    def record(method, sparsity, seed, test):
        return {"method": method, "sparsity": sparsity, "seed": seed, "test": test}

    table = to_markdown(
        [
            record("set_", 0.67, 0, 90.0),
            record("set_", 0.67, 1, 94.0),
            record("rigl", 0.67, 0, 80.0),
            record("rigl", 0.9, 0, None),
            record("dense", 0.0, 0, 70.0),
        ]
    ).splitlines()
    assert table[2] == "| `dense` | 70.0, n = 1 | 70.0, n = 1 | 72.4 |"
    assert table[3] == "| `rigl` | 80.0, n = 1 | failed | 75.9 |"
    assert table[4] == "| `set_` | 92.0 (±2.0), n = 2 | not run | 85.8 |"


def test_the_published_figures_are_those_of_methods_that_exist():
    assert set(published()) <= set(methods.names())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "needs the name of a study"),
        (["methods", "--scale", "huge"], "unknown scale 'huge'"),
        (["methods", "--seeds", "0"], "seeds must be at least 1, got 0"),
        (["methods", "--workers", "0"], "workers must be at least 1, got 0"),
        (["methods", "--method", "rigle"], "unknown method 'rigle'; did you mean 'rigl'"),
    ],
)
def test_wrong_arguments_exit_with_2(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert main(["reproduce", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_study_is_refused_with_the_names_of_those_there_are(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["reproduce", "method"])
    assert stop.value.code == 2
    assert "invalid choice: 'method' (choose from 'methods'" in capsys.readouterr().err
