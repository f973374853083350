"""Everything of docs/evidence.md that is made from records: tables and pictures, by name."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hyperprune.errors import InputError
from hyperprune.experiments import calibration
from hyperprune.experiments.cells import read_records
from hyperprune.experiments.evidence import (
    across,
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
    why,
)
from hyperprune.experiments.evidence.page import CALIBRATION, METHODS, places_of, template, write_page
from hyperprune.experiments.evidence.text import table
from hyperprune.experiments.evidence.worlds import World, load_worlds, unfinished

EPOCH = 3  # of the paper's first elimination
Picture = Callable[[str, Callable[[Path], None], str], str]
"""Draws what is called by a name into a file, and gives the Markdown that shows it."""


def build(
    records: Path,
    page: Path,
    *,
    repeats: int = 1000,
    cache: Path,
    workers: int = 1,
    say: Callable[[str], None] = print,
) -> list[Path]:
    """Make every table and picture, and put them into the page; the files written.

    Args:
        records: folder of the tables, and of calibration.jsonl and methods.jsonl where they were recorded.
        page: docs/evidence.md; pictures go into the folder `pictures` beside it.
        repeats: replays of each search.
        cache: folder for the replays' outcomes, which are made again only where a table changed.
        workers: processes for the replays.
        say: gets a line per part.

    Raises:
        InputError: no such folder, a page that would lose what it tells, or one without a place for a part.
    """
    worlds = load_worlds(records)
    if not worlds and page.exists():
        raise InputError(
            f"{page} is made from complete tables, and {records} has none; name their folder with --records, "
            "or another --page"
        )
    drawn: list[Path] = []

    def picture(name: str, draw: Callable[[Path], None], about: str) -> str:
        path = page.parent / "pictures" / f"evidence-{name}.png"
        draw(path)
        drawn.append(path)
        return f"![{about}](pictures/{path.name})"

    parts = {
        "calibration": _calibration(records / CALIBRATION),
        "methods": f"{paper.methods_table(records / METHODS)}\n\n{paper.published_table()}",
        "curve": _curves(records),
    }
    if worlds:
        replays = {"repeats": repeats, "cache": cache, "workers": workers}
        parts |= _parts_of(records, worlds, replays, picture, say)
    missing = {name: "Not recorded yet." for name in places_of(template()) if name not in parts}
    if missing:
        missing["answer"] = (
            "Not answered yet: no table is recorded. `hyperprune reproduce record` makes them (hours), "
            "`hyperprune reproduce evidence` makes this page from them (minutes)."
        )
    write_page(page, parts | missing)
    return [page, *drawn]


def _parts_of(
    records: Path,
    worlds: Sequence[World],
    replays: dict[str, Any],
    picture: Picture,
    say: Callable[[str], None],
) -> dict[str, str]:
    """What is made from tables, by the name of its part."""
    main = worlds[0]
    epoch = min(EPOCH, main.table.final_epochs - 1)
    parts: dict[str, str] = {}

    def part(name: str, *makers: Callable[[], str]) -> None:
        say(name)
        parts[name] = "\n\n".join(text for make in makers if (text := make()))

    part("records", lambda: _records_table(worlds), lambda: _unfinished_text(records))
    part("world", lambda: why.world_table(main))
    say("signals")
    measured = correlation.measure(main)
    part(
        "correlation",
        lambda: picture(
            "correlation", lambda path: pictures.correlation(measured, path), "correlation over epochs"
        ),
        lambda: f"At epoch {epoch}:",
        lambda: correlation.decisive_table(measured, epoch),
        lambda: picture("signals", lambda path: pictures.all_signals(measured, path), "all signals"),
        lambda: _learning_text(measured),
    )
    part("sensitivity", lambda: correlation.sensitivity_table(measured, searching.SIGNALS, epoch))
    kinds = across.measure_kinds(main)
    part("across-methods", lambda: _across(kinds, epoch, picture))
    say("replays")
    found = searching.search_outcomes(main, **replays)
    part(
        "regret",
        lambda: picture("regret", lambda path: pictures.regret(found, main, path), "regret over epochs"),
        lambda: searching.replayed_on(main, replays["repeats"]),
        lambda: searching.needed_table(found),
        lambda: _folded("All schedules", searching.regret_table(found, main)),
    )
    others = [correlation.measure(world) for world in worlds[1:]]
    part("death-rates", lambda: _death_rates(main, replays, epoch, picture))
    part("other-worlds", lambda: _other_worlds([measured, *others], replays, epoch, picture))
    part("later", lambda: _later(worlds, picture))
    part("answer", lambda: summary.answer(measured, kinds, found, epoch, others))
    part(
        "budgets",
        lambda: paper_searches.budgets_table(main, **replays),
        paper_searches.published_budgets_table,
    )
    part("ratios", lambda: _ratios(worlds, replays, picture))
    part("schedules", lambda: paper_searches.schedules_table(main, **replays))
    part("samples", lambda: paper.samples_table(main, epoch))
    part("first-round", lambda: paper.first_round_table(main, epoch))
    part(
        "kinds",
        lambda: picture("spectra", lambda path: pictures.spectra(main, epoch, path), "spectra by kind"),
        lambda: why.kinds_table(main, epoch),
    )
    part(
        "switch",
        lambda: picture("switch", lambda path: pictures.switch(main, path), "distance over epochs"),
        lambda: why.switch_table(measured),
    )
    early = measured.told_epochs
    part("updates", lambda: why.updates_table(main, early))
    part("prediction", lambda: prediction.regression_table(main, early))
    return parts


def _folded(title: str, content: str) -> str:
    return f"<details><summary>{title}</summary>\n\n{content}\n\n</details>"


def _records_table(worlds: Sequence[World]) -> str:
    """One row per recorded table."""
    rows = []
    for world in worlds:
        baseline = "" if world.baseline is None else f"{world.baseline[0]} {world.baseline[1]:.1f}"
        rows += [
            [
                ", ".join(filter(None, (world.title, _group_title(data.identity.get("group", ""))))),
                str(run.seed),
                str(len(run.candidates)),
                str(data.final_epochs),
                run.provenance.get("failed", ""),
                baseline,
                *(run.provenance.get(name, "") for name in ("commit", "date", "processor")),
                f"`{run.provenance.get('command', '')}`",
            ]
            for data in world.recorded
            for run in data.runs
        ]
    head = ["table", "seed", "networks", "epochs", "left out, since their training failed", "baseline"]
    return table([*head, "commit", "date", "processor", "command"], rows)


def _group_title(group: str) -> str:
    """What the candidates of a table have in common, by the name of their group."""
    name, _, rate = group.partition("rate-")
    return f"death rate {rate}" if rate else {"methods": "other methods"}.get(name, name)


def _unfinished_text(records: Path) -> str:
    texts = [f"{name} (lacks {count})" for name, count in unfinished(records).items()]
    return f"Begun, and left out until complete: {', '.join(texts)}." if texts else ""


def _calibration(path: Path) -> str:
    records = read_records(path)
    if not records:
        return "Not recorded yet: `hyperprune reproduce calibrate`."
    return calibration.to_markdown(records)


def _learning_text(measured: correlation.Measured) -> str:
    shares, baseline = correlation.share_learning(measured), measured.world.baseline
    if shares is None or baseline is None:
        return ""
    cells = ", ".join(f"{100 * share:.0f} %" for share in shares)
    return f"Candidates better than the {baseline[0]} at epochs 0 to {measured.epochs[-1]}: {cells}."


def _across(kinds: across.Kinds | None, epoch: int, picture: Picture) -> str:
    if kinds is None:
        return "Not recorded yet: `hyperprune reproduce record --scale methods --out runs/record-small`."
    shown = picture(
        "methods", lambda path: pictures.kinds(kinds, epoch, path), "kinds of pruning: signal and end"
    )
    trait = across.never_changes(kinds)
    known = f"That a mask never changes is known before training; its rank correlation is {trait}."
    made = [across.signals_table(kinds, epoch), known, across.beyond_table(kinds)]
    return "\n\n".join([shown, *made, across.kinds_table(kinds, epoch)])


def _other_worlds(
    measured: Sequence[correlation.Measured], replays: dict[str, Any], epoch: int, picture: Picture
) -> str:
    """The main signals in every world, so that one world's accident shows."""
    if len(measured) < 2:
        return "None recorded yet."
    outcomes = {
        found.world.title: searching.search_outcomes(found.world, families=(searching.GRID,), **replays)
        for found in measured
    }
    made = [
        picture("worlds", lambda path: pictures.worlds(measured, path), "correlation over epochs, by world"),
        other_worlds.ends_table(measured),
        other_worlds.signals_table(measured, outcomes, (*summary.MAIN, "frobenius_alone"), epoch),
    ]
    for found in measured[1:]:
        world = found.world
        tables = [
            why.world_table(world),
            why.kinds_table(world, epoch),
            why.switch_table(found),
            f"At epoch {epoch}:",
            correlation.decisive_table(found, epoch),
            correlation.sensitivity_table(found, summary.MAIN, epoch),
        ]
        about = f"{world.title}: seed by seed, by kind of death, and every signal"
        made.append(_folded(about, "\n\n".join(tables)))
    return "\n\n".join(made)


def _death_rates(world: World, replays: dict[str, Any], epoch: int, picture: Picture) -> str:
    """The main signals at each death rate, and searches of several of them at once."""
    worlds, mixed = death_rates.by_rate(world), death_rates.mixed_rates(world)
    if not worlds:
        return "Not recorded yet: one death rate alone."
    names = (*summary.MAIN, "frobenius_alone", "death_rate")
    measured = [correlation.measure(item, names) for item in (*worlds, *mixed)]
    found = {
        item.title: searching.search_outcomes(item, families=families, **replays)
        for items, families in ((worlds, (searching.GRID,)), (mixed, searching.QUICK))
        for item in items
    }
    by_grid = {
        title: [item for item in own if item.point.family == searching.GRID] for title, own in found.items()
    }
    searches = [
        text
        for item in mixed
        for text in (
            searching.replayed_on(item, replays["repeats"]),
            searching.needed_table(found[item.title]),
        )
    ]
    return "\n\n".join(
        [
            picture("rates", lambda path: pictures.worlds(measured, path), "correlation, by death rate"),
            other_worlds.ends_table(measured),
            death_rates.agreement(worlds),
            other_worlds.signals_table(measured, by_grid, names, epoch),
            *(death_rates.leads(item, names, epoch) for item in measured),
            *searches,
        ]
    )


def _later(worlds: Sequence[World], picture: Picture) -> str:
    """The signals over the whole training, and searches that cut once, in each world and at each rate."""
    main, *others = worlds
    first = [*death_rates.by_rate(main), *death_rates.mixed_rates(main)] or [main]
    measured = [later.measure_all(world) for world in (*first, *others)]
    return "\n\n".join(
        [
            picture(
                "later",
                lambda path: pictures.worlds(measured, path, which="signals"),
                "correlation over the whole training, by world and death rate",
            ),
            later.correlations_table(measured),
            later.late_table(measured),
            later.cuts_table(measured),
        ]
    )


def _ratios(
    worlds: Sequence[World],
    replays: dict[str, Any],
    picture: Picture,
) -> str:
    found = paper_searches.ratios(worlds, **replays)
    if not found:
        return "Not recorded yet."
    if len(found) < 2:
        return paper_searches.ratios_table(found)
    shown = picture(
        "ratios", lambda path: pictures.ratios(found, worlds[0].table.metric, path), "metric by sparsity"
    )
    return f"{shown}\n\n{paper_searches.ratios_table(found)}"


def _curves(records: Path) -> str:
    """Dense models trained at paper scale: files NAME-curve.json of `reproduce record --scale large`."""
    found = [json.loads(path.read_text()) for path in sorted(records.glob("*-curve.json"))]
    if not found:
        return "Not recorded yet: `hyperprune reproduce record --scale large --device cuda`."
    return paper.curve_table(found)
