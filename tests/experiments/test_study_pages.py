"""The pages of studies: their commands exist, their Python runs, their marked parts are made from records."""

import re
from pathlib import Path

import pytest

from hyperprune.cli.main import build_parser
from hyperprune.experiments import (
    jacobian_language,
    jacobian_pictures,
    jacobian_study,
    jacobian_tables,
    prune_regain_pictures,
    prune_regain_tables,
    random_structure_pictures,
)
from hyperprune.experiments.cells import read_records
from hyperprune.experiments.documents import marked_part, page_text
from hyperprune.experiments.random_structure_results import from_records
from hyperprune.experiments.random_structure_tables import (
    accuracy_table,
    correlation_table,
    correlations,
    describe,
    sources_table,
    what_holds,
)

DOCS = Path(__file__).parents[2] / "docs"


def structure(records):
    """All but the predictions, whose forests take a minute."""
    outcomes = from_records(records)
    table = correlations(outcomes)
    tables = (
        accuracy_table(outcomes),
        sources_table(outcomes),
        correlation_table(outcomes, table),
        what_holds(outcomes, table),
    )
    return page_text(records, random_structure_pictures.CAPTIONS, describe(records)), *tables


def prune_regain(records):
    return (page_text(records, prune_regain_pictures.CAPTIONS, prune_regain_tables.to_markdown(records)),)


def jacobian(records):
    tables = jacobian_tables.report(records, jacobian_study.SCALES["small"])
    return (page_text(records, jacobian_pictures.CAPTIONS, tables),)


def language(records):
    scale = jacobian_language.SCALES["small"]
    return (page_text(records, jacobian_language.captions(scale), jacobian_language.report(records, scale)),)


@pytest.mark.parametrize(
    ("page", "part", "records", "make"),
    [
        ("prune_regain.md", "prune-regain", "prune_regain.jsonl", prune_regain),
        ("random_structure.md", "random-structure", "random_structure.jsonl", structure),
        ("at_init.md", "jacobian", "jacobian.jsonl", jacobian),
        ("at_init.md", "jacobian-language", "jacobian_language.jsonl", language),
    ],
)
def test_the_marked_part_is_made_from_the_committed_records(page, part, records, make):
    path = DOCS / "records" / records
    shown = marked_part(DOCS / page, part)
    if not path.exists():
        assert shown == "Not run yet."
        return
    assert all(block in shown for block in make(read_records(path)))
    for picture in re.findall(r"\]\((pictures/[^)]*)\)", shown):
        assert (DOCS / picture).exists()


@pytest.mark.parametrize("page", ["prune_regain.md", "random_structure.md"])
def test_the_commands_of_a_page_exist(page):
    text = (DOCS / page).read_text().replace("\\\n", " ")
    commands = re.findall(r"^hyperprune ([^#\n]*)", text, flags=re.MULTILINE)
    assert len(commands) >= 3
    for command in commands:
        build_parser().parse_args(command.split())


def test_the_python_of_the_page_on_graphs_runs(capsys):
    (block,) = re.findall(r"```python\n(.*?)```", (DOCS / "random_structure.md").read_text(), re.DOTALL)
    exec(compile(block, "random_structure.md", "exec"), {"__name__": "page"})
    assert len(capsys.readouterr().out.split()) == 2


def test_a_page_tells_every_command_commit_and_date_of_its_records():
    provenance = {"machine": "m", "torch": "2", "commit": "abc", "command": "one", "date": "2026-01-01"}
    records = [{"provenance": provenance}, {"provenance": {**provenance, "command": "two", "commit": "def"}}]
    text = page_text(records, {"name": "What it shows."}, "| table |\n")
    assert text == (
        "Made by `one` and `two`, 2026-01-01, commit abc, def, m, torch 2.\n\n"
        "![What it shows.](pictures/name.png)\n\nWhat it shows.\n\n| table |"
    )
