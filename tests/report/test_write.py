"""The written report: complete, escaped, self-contained, for every kind of run."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from matplotlib.lines import Line2D

from hyperprune.records import CandidateRecord, EpochRecord, RoundRecord, RunRecord
from hyperprune.report import ReportFiles, words, write_report
from hyperprune.report.markdown import escape
from hyperprune.report.pictures import PICTURES, metric, style, topology, trajectories
from hyperprune.report.pictures.curves import layer_borders
from hyperprune.report.pictures.tree import _span, _stages

PNG = b"\x89PNG\r\n\x1a\n"
NASTY = '<script>alert("x")</script> & | *bold* $a$'


class _Reader(HTMLParser):
    """Collects the cells of all tables, the tags, and whatever a browser would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.fetched: list[str] = []
        self.rows: list[list[str]] = []
        self._in_cell = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "srcset", "data", "action") and not (
                value or ""
            ).startswith("#"):
                self.fetched.append(f"{tag} {name}={value}")
        if tag == "tr":
            self.rows.append([])
        self._in_cell = tag in ("td", "th")
        if self._in_cell:
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self._in_cell = False

    def handle_data(self, data: str) -> None:
        if self._in_cell:
            self.rows[-1][-1] += data


def _read(files: ReportFiles) -> tuple[str, _Reader]:
    assert files.html is not None
    text = files.html.read_text(encoding="utf-8")
    reader = _Reader()
    reader.feed(text)
    return text, reader


@pytest.fixture(scope="module")
def written(run: RunRecord, tmp_path_factory: pytest.TempPathFactory) -> ReportFiles:
    return write_report(run, tmp_path_factory.mktemp("report"))


def test_the_page_fetches_nothing_and_runs_nothing(written: ReportFiles) -> None:
    text, reader = _read(written)
    assert reader.fetched == []
    assert not {"script", "link", "iframe", "img", "object"} & set(reader.tags)
    assert not re.search(r"https?:|//\w|@import|url\((?!#)", text)


def test_the_page_is_one_small_file_with_all_pictures_in_it(written: ReportFiles) -> None:
    text, reader = _read(written)
    assert reader.tags.count("svg") == len(PICTURES) == len(written.pictures)
    assert len(text.encode()) < 1_500_000


def test_every_picture_is_a_png_that_the_markdown_shows(written: ReportFiles) -> None:
    markdown = written.markdown.read_text(encoding="utf-8")
    for path in written.pictures:
        data = path.read_bytes()
        assert data.startswith(PNG)
        assert data.endswith(b"IEND\xaeB`\x82")  # the end of a PNG that was not cut off
        assert f"](pictures/{path.name})" in markdown


def test_both_renderings_carry_each_candidates_numbers(run: RunRecord, written: ReportFiles) -> None:
    _, reader = _read(written)
    in_page = {row[1]: row for row in reader.rows if len(row) == 9}
    lines = [
        line for line in written.markdown.read_text(encoding="utf-8").splitlines() if line.startswith("|")
    ]
    in_markdown = {cells[1]: cells for line in lines if len(cells := line.strip("| ").split(" | ")) >= 8}
    for rank, candidate in enumerate(run.candidates, start=1):
        expected = [
            str(rank),
            candidate.key,
            candidate.label,
            words.outcome(candidate),
            str(candidate.epochs[-1].epoch),
            words.number(candidate.signals[max(candidate.signals)] if candidate.signals else None),
            words.number(candidate.epochs[-1].metric),
            words.number(candidate.metric),
        ]
        assert in_page[candidate.key][:8] == expected
        assert in_markdown[candidate.key][:8] == expected


def test_text_from_the_run_never_becomes_markup(run: RunRecord, tmp_path: Path) -> None:
    first = replace(run.candidates[0], label=NASTY, key="c<b>")
    failed = replace(run.candidates[-1], reason=NASTY)
    wild = replace(
        run,
        task=NASTY,
        metric="<i>metric</i>",
        candidates=(first, *run.candidates[1:-1], failed),
        provenance={"<u>command</u>": NASTY},
        baseline=(NASTY, 612.0),
    )
    files = write_report(wild, tmp_path)
    _, reader = _read(files)
    assert not {"script", "b", "i", "u"} & set(reader.tags)
    assert [row[2] for row in reader.rows if len(row) == 9 and row[1] == "c<b>"] == [NASTY]
    markdown = files.markdown.read_text(encoding="utf-8")
    assert "<" not in markdown
    assert "&lt;script&gt;" in markdown


def test_markdown_escapes_what_would_end_a_cell_or_start_emphasis() -> None:
    assert escape("a | b\n*c* `d` [e](f) _g_ h_i") == r"a \| b \*c\* \`d\` \[e\](f) \_g\_ h_i"


def test_the_same_run_gives_the_same_bytes(run: RunRecord, written: ReportFiles, tmp_path: Path) -> None:
    again = write_report(run, tmp_path)
    assert written.html is not None
    assert again.html is not None
    assert again.html.read_bytes() == written.html.read_bytes()
    assert [p.read_bytes() for p in again.pictures] == [p.read_bytes() for p in written.pictures]


def test_a_second_report_removes_pictures_that_it_no_longer_has(
    make_run: Callable[..., RunRecord], tmp_path: Path
) -> None:
    write_report(make_run(candidates=4), tmp_path)
    files = write_report(make_run(candidates=4, spectra=False), tmp_path)
    left = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {
        "report.md",
        "report.html",
        "metric.png",
        "tree.png",
        "topology.png",
    }  # and no temporary names
    assert {path.stem for path in files.pictures} == {"metric", "tree", "topology"}


@pytest.mark.parametrize("finished", [True, False])
def test_one_model_alone_is_not_told_as_a_search(run: RunRecord, finished: bool, tmp_path: Path) -> None:
    model = replace(run.candidates[0], signals={}, outcome="finalist" if finished else "running")
    nothing = replace(run.reference, epochs=(), metric=None, best_epoch=None)
    alone = replace(
        run,
        strategy={"name": "train", "final_epochs": 20},
        reference=nothing,
        candidates=(model,),
        rounds=(),
        epochs_spent=20,
        epochs_full=20,
        finished=finished,
    )
    files = write_report(alone, tmp_path)
    assert {path.stem for path in files.pictures} == {"metric", "spectra", "topology"}
    told = files.markdown.read_text().partition("## How this run was made")[0]
    assert "Report of a hyperprune training" in told
    assert f"{'reaches' if finished else 'is at'} validation" in told
    assert "It was trained for 20 epochs." in told
    for word in ("search", "winner", "leader", "dense", "round", "candidate", "rank order"):
        assert word not in told.lower(), word
    assert files.html is not None
    assert "dense model" not in files.html.read_text().partition("What the words mean")[0]


def test_an_unfinished_run_says_so_and_speaks_of_a_leader(
    make_run: Callable[..., RunRecord], tmp_path: Path
) -> None:
    text, _ = _read(write_report(make_run(finished=False, stop_after=1), tmp_path))
    assert "This run is not finished (1 round done)" in text
    assert "leads so far" in text
    assert " wins " not in text


def _bare(run: RunRecord) -> RunRecord:
    fresh = CandidateRecord(key="c01", label="", configuration={})
    dense = CandidateRecord(key="dense", label="", configuration={})
    return replace(
        run, reference=dense, candidates=(fresh,), rounds=(), epochs_spent=0, epochs_full=20, finished=False
    )


def _higher(run: RunRecord) -> RunRecord:
    def turned(candidate: CandidateRecord) -> CandidateRecord:
        epochs = tuple(replace(record, metric=1 - record.metric / 6000) for record in candidate.epochs)
        return replace(candidate, epochs=epochs, metric=None)

    return replace(
        run,
        metric="accuracy",
        lower_is_better=False,
        baseline=("share of the largest class", 0.5),
        reference=turned(run.reference),
        candidates=tuple(turned(candidate) for candidate in run.candidates),
    )


def _with_epochs(candidate: CandidateRecord, **fields: object) -> CandidateRecord:
    epochs = tuple(replace(record, **fields) for record in candidate.epochs)  # type: ignore[arg-type]
    return replace(candidate, epochs=epochs)


def _diverged(run: RunRecord) -> RunRecord:
    values = (math.nan, math.inf, 1e300)
    wild = tuple(_with_epochs(c, metric=value) for c, value in zip(run.candidates[2:5], values, strict=True))
    return replace(run, candidates=(*run.candidates[:2], *wild, *run.candidates[5:]))


def _singular(run: RunRecord) -> RunRecord:
    spectrum = np.array([0.1, -0.5, -np.inf, 0.2, -30.0, -np.inf])
    broken = _with_epochs(run.candidates[2], spectrum=np.full(6, np.nan))
    rest = tuple(_with_epochs(candidate, spectrum=spectrum) for candidate in run.candidates)
    return replace(
        run,
        reference=_with_epochs(run.reference, spectrum=spectrum),
        candidates=(*rest[:2], broken, *rest[3:]),
    )


VARIANTS: dict[str, Callable[[RunRecord], RunRecord]] = {
    "nothing trained yet": _bare,
    "no candidates": lambda run: replace(run, candidates=(), rounds=(), finished=False),
    "one candidate": lambda run: replace(run, candidates=run.candidates[:1]),
    "no rounds": lambda run: replace(run, rounds=()),
    "no baseline": lambda run: replace(run, baseline=None),
    "a baseline of zero": lambda run: replace(run, baseline=("zero", 0.0)),
    "all failed": lambda run: replace(
        run, candidates=tuple(replace(c, outcome="failed", epochs=(), metric=None) for c in run.candidates)
    ),
    "higher is better": _higher,
    "diverged metrics": _diverged,
    "vanished exponents": _singular,
    "no provenance": lambda run: replace(run, provenance={}, strategy={}),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_kind_of_run_has_a_report(run: RunRecord, variant: str, tmp_path: Path) -> None:
    changed = VARIANTS[variant](run)
    files = write_report(changed, tmp_path)
    _, reader = _read(files)
    assert (
        len([row for row in reader.rows if len(row) == 9]) == len(changed.candidates) + 2
    )  # header, reference


def test_forty_candidates_and_a_hundred_epochs_stay_a_small_page(
    make_run: Callable[..., RunRecord], tmp_path: Path
) -> None:
    files = write_report(make_run(candidates=40, final_epochs=100), tmp_path)
    assert files.html is not None
    assert files.html.stat().st_size < 1_500_000


def test_without_the_extra_there_is_markdown_that_says_what_to_install(
    run: RunRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hyperprune.report.write.find_spec", lambda name: None if name == "jinja2" else True)
    files = write_report(run, tmp_path)
    text = files.markdown.read_text(encoding="utf-8")
    assert (files.html, files.pictures) == (None, ())
    assert "jinja2 cannot be imported; pip install -e '.\\[report\\]' in the project's folder, and" in text
    assert run.candidates[-1].key in text
    assert "](pictures/" not in text


def test_importing_the_report_loads_neither_torch_nor_matplotlib_nor_jinja2() -> None:
    heavy = ("torch", "matplotlib", "jinja2")
    code = f"import hyperprune.report, sys; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_drawing_does_not_load_torch() -> None:
    code = "import hyperprune.report.pictures, hyperprune.report.page, sys; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_layers_begin_where_the_order_starts_again() -> None:
    assert layer_borders(np.array([0.5, -1.0, -np.inf, 0.3, -2.0, 0.1])) == [3, 5]
    assert layer_borders(np.array([-25.0, -21.0, -np.inf])) == []  # all of them count as the floor


def test_a_line_of_the_tree_spans_from_creation_to_elimination(run: RunRecord) -> None:
    stages = _stages(run)
    for candidate in run.candidates:
        begin, end = _span(candidate, run, stages)
        assert begin == candidate.born_in
        if candidate.outcome == "eliminated":
            assert end == candidate.eliminated_in
        elif candidate.outcome == "finalist":
            assert end == len(stages) - 1
        else:
            assert end == pytest.approx(1 / 3)  # it failed after one of the three epochs before round 1


def test_a_line_of_a_later_bracket_ends_between_that_brackets_stages(run: RunRecord) -> None:
    """Brackets with rounds after epochs 3 and 9, and after epoch 4; round 3 lacks, as its bracket failed."""

    def part(number: int, epoch: int) -> RoundRecord:
        return RoundRecord(number=number, epoch=epoch, signals={}, kept=(), inserted=())

    failed = next(candidate for candidate in run.candidates if candidate.outcome == "failed")
    brackets = replace(run, rounds=(part(1, 3), part(2, 9), part(4, 4)))
    stages = _stages(brackets)
    for born_in, trained, span in (
        (0, 3, (0, 1)),
        (0, 6, (0, 1.5)),  # half of the way from 3 to 9
        (0, 15, (0, 2)),  # after its bracket's last round
        (3, 2, (2, 2.5)),  # half of the way to epoch 4
        (3, 12, (2, 3.5)),  # half of the way from 4 to the end at 20
    ):
        epochs = run.reference.epochs[: trained + 1]
        assert _span(replace(failed, born_in=born_in, epochs=epochs), brackets, stages) == span


def _audited(run: RunRecord) -> tuple[RunRecord, CandidateRecord]:
    """The run with one of the eliminated trained to the end."""
    dropped = next(candidate for candidate in run.candidates if candidate.outcome == "eliminated")
    epochs = [
        replace(record, spectrum=None if record.spectrum is None else 1.1 * record.spectrum)
        for record in run.candidates[0].epochs
    ]
    longer = replace(dropped, epochs=tuple(epochs))
    rows = tuple(longer if candidate is dropped else candidate for candidate in run.candidates)
    return replace(run, candidates=rows, audited=(dropped.key,)), longer


def test_a_cross_stands_where_a_candidate_was_dropped_even_if_it_was_audited(run: RunRecord) -> None:
    audited, row = _audited(run)
    (part,) = (part for part in run.rounds if part.number == row.eliminated_in)
    for record, more in ((run, ""), (audited, "; an audited one was trained on")):
        drawing = metric.draw(record)
        assert drawing is not None
        lines = drawing.figure.axes[0].lines
        crosses = sorted(_xy(line)[0][0] for line in lines if line.get_marker() == "x")
        ends = {entry.number: entry.epoch for entry in run.rounds} | {None: 1}  # that failed, after epoch 1
        assert crosses == sorted(
            ends[c.eliminated_in] for c in run.candidates if c.outcome in ("eliminated", "failed")
        )
        assert f"one was dropped{more}." in drawing.reading
    (cross,) = (
        line
        for line in lines
        if line.get_marker() == "x" and _xy(line) == ([part.epoch], [row.epochs[part.epoch].metric])
    )
    assert cross.get_color() == style.looks(audited)[row.key].color


def test_a_path_through_ls_space_is_crossed_where_its_candidate_was_dropped(run: RunRecord) -> None:
    audited, row = _audited(run)
    drawing = trajectories.draw(audited)
    assert drawing is not None
    (part,) = (part for part in run.rounds if part.number == row.eliminated_in)
    lines = drawing.figure.axes[0].lines
    marked = {
        mark: {point for line in lines if line.get_marker() == mark for point in zip(*_xy(line), strict=True)}
        for mark in "xo"
    }
    paths = [[*zip(*_xy(line), strict=True)] for line in lines if line.get_marker() == "None"]
    (own,) = (path for path in paths if len(path) == len(row.epochs) and marked["x"] & {*path})
    assert marked["x"] & {*own} == {own[part.epoch]}
    assert own[-1] in marked["o"]
    assert len(marked["x"]) == sum(c.outcome in ("eliminated", "failed") for c in run.candidates)


def test_the_best_and_the_last_candidate_are_told_apart_in_every_picture(run: RunRecord) -> None:
    looks = style.looks(run)
    last = next(c for c in reversed(run.candidates) if c.outcome == "eliminated")
    assert looks[run.candidates[0].key].color == style.WINNER
    assert looks[last.key].color == style.WORST
    assert [looks[c.key].color for c in run.candidates].count(style.WORST) == 1


def test_every_colour_of_the_inline_pictures_can_follow_the_page(written: ReportFiles) -> None:
    text, _ = _read(written)
    drawn = text[text.index("<svg") :]
    assert set(re.findall(r"(?:fill|stroke): (#[0-9a-f]{6})", drawn)) == set()
    for variable in set(re.findall(r"var\(--(\w+)\)", drawn)):
        assert text.count(f"--{variable}: #") == 3  # light, dark, print


def test_a_diverged_candidate_does_not_flatten_the_others(run: RunRecord) -> None:
    drawing = metric.draw(_diverged(run))
    assert drawing is not None
    low, high = drawing.figure.axes[0].get_ylim()
    assert 50 < low < 88  # just below the dense model's best
    assert 612 < high < 5000
    assert "cut off" in drawing.reading


def test_spectra_that_are_all_the_same_make_no_picture_of_round_off(run: RunRecord) -> None:
    assert trajectories.draw(_singular(run)) is None


def test_networks_of_other_sizes_have_a_path_where_the_network_is_searched(run: RunRecord) -> None:
    first, *others = run.candidates
    epochs = tuple(replace(record, spectrum=np.arange(-4.0, 0.0)) for record in first.epochs)
    smaller = replace(first, epochs=epochs, configuration={**first.configuration, "model.num_layers": 1})
    drawings = [trajectories.draw(replace(run, candidates=(own, *others))) for own in (first, smaller)]
    lines = [len(drawing.figure.axes[0].lines) for drawing in drawings if drawing is not None]
    assert len(lines) == 2
    assert lines[0] == lines[1]


def test_a_metric_that_goes_up_has_an_even_axis(run: RunRecord) -> None:
    down = replace(run, baseline=("unigram perplexity", 9000.0))
    up = replace(_higher(run), baseline=("share of the largest class", 0.01))
    for record, scale in ((down, "log"), (up, "linear")):
        drawing = metric.draw(record)
        assert drawing is not None
        assert drawing.figure.axes[0].get_yscale() == scale


def _with_winner(run: RunRecord, epochs: tuple[EpochRecord, ...]) -> RunRecord:
    first, *others = run.candidates
    return replace(run, candidates=(replace(first, epochs=epochs), *others))


def _xy(line: Line2D) -> tuple[list[float], list[float]]:
    points = np.asarray(line.get_xydata())
    return points[:, 0].tolist(), points[:, 1].tolist()


def test_the_winners_live_weights_are_drawn_by_tensor_gate_update_and_exploration(run: RunRecord) -> None:
    drawing = topology.draw(run)
    assert drawing is not None
    tensors, gates, turnover, explored = drawing.figure.axes
    epochs = run.candidates[0].epochs
    assert {line.get_label(): _xy(line)[1] for line in tensors.lines} == {
        name: [record.density[name] for record in epochs] for name in epochs[0].density
    }
    assert len([line for line in gates.lines if _xy(line)[0]]) == 2 * 4
    last = [record.topology for record in epochs[-2:]]
    assert last[0] is not None
    assert last[1] is not None
    assert _xy(turnover.lines[0])[0][0] == 1  # before epoch 1 nothing moves
    assert _xy(turnover.lines[0])[1][-1] == pytest.approx(last[1].turnover - last[0].turnover)
    assert _xy(explored.lines[0])[1][-1] == last[1].explored


def test_turnover_is_per_update_where_an_epoch_has_several_or_none(run: RunRecord) -> None:
    epochs = []
    for record, (num_updates, turnover) in zip(
        run.candidates[0].epochs[:4], [(0, 0.0), (4, 1.0), (4, 1.0), (6, 1.2)], strict=True
    ):
        assert record.topology is not None
        moved = replace(record.topology, num_updates=num_updates, turnover=turnover)
        epochs.append(replace(record, topology=moved))
    drawing = topology.draw(_with_winner(run, tuple(epochs)))
    assert drawing is not None
    (line,) = drawing.figure.axes[2].lines
    assert _xy(line) == ([1, 3], pytest.approx([0.25, 0.1]))


def test_masks_that_never_move_and_records_without_them_make_no_picture(run: RunRecord) -> None:
    epochs = run.candidates[0].epochs
    assert (
        topology.draw(_with_winner(run, tuple(replace(r, topology=epochs[0].topology) for r in epochs)))
        is None
    )
    assert topology.draw(_with_winner(run, tuple(replace(r, topology=None) for r in epochs))) is None


def test_tensors_without_gates_and_more_than_can_be_told_apart_are_drawn(run: RunRecord) -> None:
    epochs = []
    for record in run.candidates[0].epochs:
        assert record.topology is not None
        density = {f"layer{index}": 0.02 * index + 0.01 for index in range(15)}
        epochs.append(replace(record, density=density, topology=replace(record.topology, gate_density={})))
    drawing = topology.draw(_with_winner(run, tuple(epochs)))
    assert drawing is not None
    assert len(drawing.figure.axes) == 3
    labels = [text.get_text() for text in drawing.figure.legends[0].get_texts()]
    assert labels == [f"layer{index}" for index in range(12)] + ["further tensors"]
