"""The Jacobian paper's study: its cells, one of each kind run, its tables from records."""

from dataclasses import replace

import pytest

from hyperprune.cli.main import main
from hyperprune.errors import InputError
from hyperprune.experiments import jacobian_language, jacobian_tables
from hyperprune.experiments.cells import read_records, write_records
from hyperprune.experiments.jacobian_pictures import draw
from hyperprune.experiments.jacobian_study import (
    MAIN,
    PARTS,
    SCALES,
    Scale,
    cells_of,
    compact,
    configuration_of,
    published,
    run_study,
)

TINY = Scale(
    task="digits", units=(4, 6), side_units=4, epochs=1, seeds=(0,), predicted=("magnitude", "synflow")
)


def test_no_cell_is_trained_twice_and_dense_networks_have_no_sparsity():
    cells = cells_of(SCALES["small"])
    assert len({cell.key for cell in cells}) == len(cells)
    assert all(cell.sparsity == 0 for cell in cells if cell.criterion == "dense")
    main = len(MAIN) * 2 * 3
    assert len(cells_of(SCALES["small"], ["main"])) == main
    assert {cell.units for cell in cells[:main]} == {100, 400}
    assert {cell.seed for cell in cells[: main // 3]} == {0}
    for cell in cells:
        if cell.criterion != "time":
            configuration_of(cell).build()


def test_every_part_is_in_every_scale():
    assert all(set(scale.parts) == set(PARTS) for scale in SCALES.values())


def test_an_unknown_part_is_refused():
    with pytest.raises(InputError, match="unknown part of the study 'maine'; did you mean 'main'"):
        cells_of(TINY, ["maine"])


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    return run_study(TINY, tmp_path_factory.mktemp("study"), parts=["main", "time"], say=lambda _: None)


def test_a_study_records_errors_masks_and_spectra(records, tmp_path):
    by_key = {record["key"]: record for record in records}
    assert len(by_key) == 2 * len(MAIN) + 1
    ours = by_key["gru6-jacobian-normal-0.95-0"]
    total = sum(row[3] for row in ours["kept"]["gates"])
    assert total == 3 * 6 * (8 + 6)
    assert sum(row[2] for row in ours["kept"]["gates"]) == total - round(0.95 * total)
    assert 0 <= ours["test_error"] <= 100
    assert len(ours["valid_error"]) == 2
    assert sum(ours["after"]["singular"]) == 8 * 6
    assert 0 <= ours["before"]["score"] <= 1
    assert ours["before"]["distance"] > 0
    dense = by_key["gru6-dense-normal-0-0"]
    assert dense["kept"] is None
    pruned = by_key["gru6-iterative_magnitude-normal-0.95-0"]
    assert sum(row[2] for row in pruned["kept"]["gates"]) == total - round(0.95 * total)
    assert by_key["time-gru6"]["seconds"]["grasp"] > 0


def test_a_study_goes_on_where_it_stopped(records, tmp_path):
    write_records(tmp_path / "records.jsonl", records)
    lines = []
    again = run_study(TINY, tmp_path, parts=["main", "time"], say=lines.append)
    assert again == records
    assert lines == []


def test_tables_and_pictures_come_from_committed_records_alone(records, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(SCALES, "tiny", TINY)
    kept, page = tmp_path / "jacobian.jsonl", tmp_path / "docs" / "at_init.md"
    write_records(kept, compact(records))
    page.parent.mkdir()
    page.write_text("before\n<!-- jacobian: begin -->\n<!-- jacobian: end -->\nafter\n")
    arguments = ["--scale", "tiny", "--from", str(kept), "--docs", str(page.parent)]
    assert main(["reproduce", "jacobian", *arguments]) == 0
    assert read_records(page.parent / "records" / "jacobian.jsonl") == compact(records)
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "| Jacobian spectrum (the paper's) |" in text
    assert "3.09 ± 0.31" in text
    assert text.count("not run") > 10
    assert len(list(tmp_path.glob("docs/pictures/at-init-*.png"))) == 4
    assert draw(records[:1], TINY, tmp_path / "few") == []  # one dense network is in no picture


def test_records_of_another_scale_are_refused(records, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(SCALES, "tiny", TINY)
    write_records(tmp_path / "records.jsonl", records)
    longer = replace(TINY, epochs=2)
    with pytest.raises(
        InputError, match=r"'digits' and 2 epochs, gru.* is of 'digits' and 1; name its --scale"
    ):
        run_study(longer, tmp_path, parts=["main"], say=lambda _: None)
    arguments = ["--scale", "small", "--from", str(tmp_path / "records.jsonl")]
    assert main(["reproduce", "jacobian", *arguments]) == 2
    assert "of the scale's task 'mnist10k'" in capsys.readouterr().err


def test_the_seeds_told_are_those_of_the_records(records):
    assert "over seeds 0; task" in jacobian_tables.report(records, replace(TINY, seeds=(0, 1, 2)))


def record(criterion, seed, error, **more):
    cell = {"cell": "gru", "units": 4, "start": "normal", "sparsity": 0.95}
    return {"criterion": criterion, "seed": seed, "test_error": error, **cell, **more}


def test_a_finding_holds_if_all_seeds_agree():
    verdict = jacobian_tables.verdict
    assert verdict({0: 1.0, 1: 2.0}, {0: 3.0, 1: 4.0}) == ("1.50 against 3.50", "**holds** (2 of 2 seeds)")
    assert verdict({0: 1.0, 1: 5.0}, {0: 3.0, 1: 4.0})[1] == "**undecided** (1 of 2 seeds)"
    assert verdict({0: 4.0}, {0: 3.0})[1] == "**does not hold** (0 of 1 seeds)"
    assert verdict({0: 4.0}, {1: 3.0}) == ("not run", "–")


def gates_kept(*recurrent):
    rows = [["rnn.weight_ih_l0", gate, 3, 100] for gate in "rzn"]
    return {"gates": rows + [["rnn.weight_hh_l0", g, n, 100] for g, n in zip("rzn", recurrent, strict=True)]}


def test_findings_take_the_papers_side_size_by_size_and_judge_the_gates():
    scale = replace(TINY, units=(4, 6))
    paper = published()["main"]
    found = [
        {
            **record(name, 0, paper[name][column][0]),
            "units": units,
            "start": start,
            "kept": gates_kept(0, 0, 1),
        }
        for units, column in ((4, "100"), (6, "400"))
        for name, start in MAIN
        if name not in ("dense", "iterative_magnitude")
    ]
    rows = [row for row in jacobian_tables.findings(found, scale).splitlines() if "**" in row]
    ahead = [row for row in rows if " ahead of " in row]
    assert len(ahead) == 10
    assert all("**holds** (1 of 1 seeds)" in row for row in ahead)  # the paper's own numbers
    assert "| GRU 4 | random ahead of Jacobian" in ahead[0]
    assert "| GRU 6 | Jacobian spectrum (the paper's) ahead of random" in ahead[5]
    one_gate, emptied = rows[10:12]
    assert "40% (even: 33%) | **does not hold**" in one_gate
    assert "0.3% (even: 5%) | **holds**" in emptied


def test_means_deviations_counts_and_failures_are_shown():
    assert jacobian_tables.spread_text([1.0, 2.0, 3.0]) == "2.00 ± 1.00"
    assert jacobian_tables.spread_text([1.0]) == "1.00 (n = 1)"
    assert jacobian_tables.spread_text([1.0, float("inf")]) == "failed"
    errors = jacobian_tables.Errors([record("snip", 0, None), record("snip", 1, 3.0)])
    assert errors.text("snip", units=4) == "failed"


def test_the_predictors_are_ranked_by_spearman_among_the_masks_of_a_start_and_seed():
    found = []
    for seed, shift in ((0, 0.0), (1, 50.0)):  # pooled, the shift of the second seed would reverse the order
        for place, name in enumerate(("snip", "grasp", "random")):
            n = place - shift
            before = {"norm": n, "score": 0.5, "mean": -n, "distance": -n}
            found.append(record(name, seed, 10.0 - place - shift / 10, before=before))
    row = jacobian_tables.prediction_table(found, TINY).splitlines()[2]
    assert row == "| GRU 4, N(0, 0.1) (2 rankings of 3 masks) | +1.00 | – | -1.00 | +1.00 |"
    # A pair has no rank correlation and is no ranking; of the others the smallest and the largest are told.
    before = {"norm": -1.0, "score": 0.6, "mean": 1.0, "distance": 1.0}
    more = [record(name, 2, 1.0, before=before) for name in ("snip", "grasp")]
    more.append(record("magnitude", 0, 20.0, before=before))
    row = jacobian_tables.prediction_table([*found, *more], TINY).splitlines()[2]
    assert row == (
        "| GRU 4, N(0, 0.1) (2 rankings of 3 to 4 masks) | +1.00 | -0.77 (n = 1) | -1.00 | +1.00 |"
    )


def test_the_largest_gate_counts_input_and_recurrent_weights_together():
    gates = [["rnn.weight_ih_l0", "r", 1, 9], ["rnn.weight_ih_l0", "z", 2, 9]]
    gates += [["rnn.weight_hh_l0", "r", 5, 9], ["rnn.weight_hh_l0", "z", 0, 9]]
    assert jacobian_tables._largest_gate({"kept": {"gates": gates}}) == 0.75
    assert jacobian_tables._recurrent({"kept": {"gates": gates}}) == 5 / 18


def test_the_papers_figures_are_those_of_rows_that_exist():
    paper = published()
    assert set(paper["main"]) <= {criterion for criterion, _ in MAIN}
    assert paper["cells"]["rnn"]["jacobian"] == [7.57, 0.20]
    assert set(paper["language"]) == {
        corpus.stands_for for corpus in jacobian_language.SCALES["paper"].corpora.values()
    }


def test_the_language_study_runs_and_resumes_on_the_embedded_text(tmp_path):
    scale = jacobian_language.SCALES["tiny"]
    corpus = scale.corpora["pydoc"]
    text = {**corpus.settings["text"], "train_tokens": 4000, "vocabulary_size": 200}
    small = replace(corpus, epochs=1, settings={**corpus.settings, "text": text})
    scale = replace(scale, corpora={"pydoc": small})
    lines = []
    records = jacobian_language.run_study(scale, tmp_path, say=lines.append)
    assert [record["criterion"] for record in records] == ["random", "jacobian", "dense"]
    assert all(record["failure"] is None and record["train_perplexity"] > 1 for record in records)
    assert jacobian_language.run_study(scale, tmp_path, say=lines.append) == records
    assert len(lines) == 3
    table = jacobian_language.report(records, scale).splitlines()
    assert table[2].startswith("| pydoc | random |")
    assert table[2].endswith("| 22.66 |")
    assert len(jacobian_language.draw(records, tmp_path / "pictures")) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--scale", "huge"], "unknown scale 'huge'"),
        (["--part", "maine"], "unknown part of the study 'maine'"),
        (["--from", "nothing.jsonl"], "nothing.jsonl is none; run the study first"),
        (["--seeds", "0"], "seeds must be at least 1"),
    ],
)
def test_wrong_arguments_exit_with_2(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert main(["reproduce", "jacobian", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_language_records_of_another_scale_are_refused(tmp_path, capsys):
    kept = {"key": "ptb-random-0", "corpus": "ptb", "epochs": 12}
    write_records(tmp_path / "records.jsonl", [kept])
    arguments = ["--scale", "tiny", "--from", str(tmp_path / "records.jsonl")]
    assert main(["reproduce", "jacobian-language", *arguments]) == 2
    assert "'pydoc' and 3; ptb-random-0 is of 'ptb' and 12; name its --scale" in capsys.readouterr().err
