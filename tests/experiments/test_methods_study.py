"""The study of all methods: its cells, its records, its table."""

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hyperprune.cli.main import main
from hyperprune.errors import InputError
from hyperprune.experiments import methods_study
from hyperprune.experiments.cells import read_records, write_records
from hyperprune.experiments.documents import marked_part
from hyperprune.experiments.methods_study import (
    SCALES,
    Scale,
    cells_of,
    published,
    published_figures,
    run_study,
)
from hyperprune.experiments.methods_tables import to_markdown, to_page
from hyperprune.hypersearch.ranks import spearman
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
    # Keys name no task and no epochs: a record of other ones would pass for these.
    with pytest.raises(
        InputError, match="'tiny' and 3 epochs, dense-0-0 is of 'tiny' and 2; name its --scale"
    ):
        run_study(replace(TINY, epochs=3), tmp_path, names=["rigl"], say=lines.append)
    assert read_records(tmp_path / "records.jsonl") == records


def test_a_study_trains_on_the_device_that_is_asked_for(tmp_path, monkeypatch):
    def stop(task, training, *others):
        raise InputError(f"asked for {training.device}")

    monkeypatch.setattr(methods_study, "advance", stop)
    with pytest.raises(InputError, match="asked for cuda:3"):
        run_study(TINY, tmp_path, names=["dense"], device="cuda:3")


def record(method: str, sparsity: float, seed: int, test: float | None, **changes: Any) -> dict[str, Any]:
    return {
        "key": f"{method}-{sparsity:g}-{seed}",
        "task": "tiny",
        "epochs": 2,
        "method": method,
        "sparsity": sparsity,
        "seed": seed,
        "test": test,
        "learning_rate": 20.0,
        "momentum": 0.0,
        "provenance": {"command": "reproduce", "date": "2026-01-01", "machine": "m", "torch": "2"},
        **changes,
    }


PAGE_SCALE = Scale(task="tiny", epochs=2, sparsities=(0.67, 0.9), seeds=(0, 1))


def test_the_table_shows_means_half_ranges_counts_failures_and_the_paper_beside() -> None:
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


def test_the_page_says_which_published_comparisons_are_met_reversed_or_open() -> None:
    # Published: selfish_rnn < dense < gmp < dsr.
    values = {"selfish_rnn": (80, 82), "dense": (70, 71), "gmp": (70.5, 72), "dsr": (90, 91)}
    records = [
        record(name, 0.0 if name == "dense" else 0.67, seed, test)
        for name, tests in values.items()
        for seed, test in enumerate(tests)
    ]
    page = to_page([*records, record("rigl", 0.67, 0, 75.0)], PAGE_SCALE)
    assert "best first: `selfish_rnn`, `dense`, `gmp`, `rigl`, `dsr`. Here: `dense`, `gmp`, `rigl`, " in page
    # Ranks 4 1 2 3 5 against 1 2 3 4 5: rho = 1 - 6·(9 + 1 + 1 + 1)/120.
    assert "Rank correlation of the two: +0.40. Of the 10 published comparisons" in page
    assert "Of equal methods with 2 seeds each, 33 % would be met or reversed by chance." in page
    lines = page.splitlines()
    met, reversed_, open_ = (next(line for line in lines if f" {kind} (" in line) for kind in VERDICTS)
    assert met.endswith("): `selfish_rnn` before `dsr`; `dense` before `dsr`; `gmp` before `dsr`")
    assert reversed_.endswith("): `selfish_rnn` before `dense`; `selfish_rnn` before `gmp`")
    # dense and gmp overlap; rigl has one seed.
    assert open_.startswith("- 5 open")
    assert "`dense` before `gmp`" in open_
    assert open_.count("`rigl`") == 4


VERDICTS = ("met", "reversed", "open")


def test_the_page_names_what_is_missing_and_how_the_rest_was_made() -> None:
    names = [cell.method for cell in cells_of(PAGE_SCALE) if cell.seed == 0 and cell.sparsity == 0.67]
    records = [record(name, 0.67, 0, 80.0) for name in names] + [
        record("snfs", 0.67, 1, 80.0, learning_rate=2.0, momentum=0.9)
    ]
    page = to_page(records, PAGE_SCALE)
    assert f"Not run yet, {50 - 13} of 50 networks: seed 0: `dense`; seed 0 at 0.9: all; seed 1: `" in page
    assert "; seed 1 at 0.67: all but `snfs`; seed 1 at 0.9: all." in page
    assert (
        "learning rate 20; `snfs` with learning rate 2 and momentum 0.9. Made by `reproduce` (2026-01" in page
    )
    assert to_page([], PAGE_SCALE) == "Not run yet."
    complete = [record(cell.method, cell.sparsity, cell.seed, 80.0) for cell in cells_of(PAGE_SCALE)]
    assert "Not run yet" not in to_page(complete, PAGE_SCALE)


def test_records_of_several_studies_or_of_another_scale_are_refused() -> None:
    mixed = [record("rigl", 0.67, 0, 80.0), record("set_", 0.67, 0, 80.0, epochs=3)]
    with pytest.raises(InputError, match="of one study, got tiny with 2 epochs and tiny with 3 epochs"):
        to_markdown(mixed)
    with pytest.raises(InputError, match="of the scale, ptb-mini with 20 epochs, got tiny with 2 epochs"):
        to_page(mixed[:1], SCALES["small"])


def test_the_page_and_its_records_are_written_where_the_documentation_is(tmp_path, capsys) -> None:
    source, docs = tmp_path / "some.jsonl", tmp_path / "docs"
    write_records(source, [record("rigl", 0.67, 0, 80.0, task="ptb-mini", epochs=20)])
    arguments = ["reproduce", "methods", "--from", str(source), "--docs", str(docs)]
    assert main(arguments) == 2
    assert "methods.md" in capsys.readouterr().err
    docs.mkdir()
    (docs / "methods.md").write_text(methods.page())
    assert main(arguments) == 0
    text = (docs / "methods.md").read_text()
    assert "| `rigl` | 80.0, n = 1 | 75.9 |" in text
    assert read_records(docs / "records" / "methods.jsonl") == read_records(source)
    # The page can be filled again from its own records.
    arguments[3] = str(docs / "records" / "methods.jsonl")
    assert main(arguments) == 0
    assert (docs / "methods.md").read_text() == text


def test_the_documentation_shows_the_committed_records() -> None:
    docs = Path(__file__).parents[2] / "docs"
    records = read_records(docs / "records" / "methods.jsonl")
    assert marked_part(docs / "methods.md", "methods") == to_page(records, SCALES["small"])


def test_the_published_figures_are_those_of_methods_that_exist():
    assert set(published()) <= set(methods.names())


def test_the_published_first_round_is_that_of_the_published_pool(data_dir):
    lines = (data_dir / "published" / "lsh_first_round.csv").read_text().splitlines()
    rows = list(csv.DictReader(line for line in lines if not line.startswith("#")))
    distances, perplexities = (
        np.array([float(row[name]) for row in rows])
        for name in ("spectrum_distance", "validation_perplexity")
    )
    for death, quoted in published_figures("lsh_first_round").items():
        own = np.array([row["death"] == death for row in rows])
        assert quoted == [round(values[own].mean(), 1) for values in (distances, perplexities)]
    winner = [
        (row["allocation"], row["death"], row["redistribution"], row["death_rate"]) for row in rows
    ].index(("er", "global_magnitude", "nonzeros", "0.7"))
    assert published_figures("lsh_first_round_agreement") == {
        "candidates": len(rows),
        "rank_correlation": round(spearman(distances, perplexities), 2),
        "winner_by_distance": 1 + (distances < distances[winner]).sum(),
        "winner_by_perplexity": 1 + (perplexities < perplexities[winner]).sum(),
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "needs the name of a study"),
        (["methods", "--scale", "huge"], "unknown scale 'huge'"),
        (["methods", "--seeds", "0"], "seeds must be at least 1, got 0"),
        (["methods", "--workers", "0"], "workers must be at least 1, got 0"),
        (["methods", "--method", "rigle"], "unknown method 'rigle'; did you mean 'rigl'"),
        (["methods", "--from", "none.jsonl"], "none.jsonl is none; run the study first"),
        (["methods", "--from", "none.jsonl", "--workers", "2"], "--workers is for what is trained"),
        (["methods", "--docs", "nowhere"], "a page must be a readable file, got nowhere/methods.md"),
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
