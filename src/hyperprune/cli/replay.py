"""`hyperprune replay`: how good a strategy's picks are, over a thousand searches on recorded candidates."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hyperprune.cli import options as shared
from hyperprune.cli import search
from hyperprune.errors import InputError, install

if TYPE_CHECKING:
    from hyperprune.hypersearch.replay import Replays
    from hyperprune.hypersearch.strategy import Strategy
    from hyperprune.hypersearch.table import CandidateTable

_NUMBERS = (
    *("candidates", "first_epochs", "round_epochs", "final_epochs", "eta"),
    *("proposer", "history", "spectrum_dims"),
)

_STRATEGIES = ("lsh", "successive_halving", "hyperband", "full")  # a replay of random is one of full
_SIGNALS = ("training_losses", "loss", "spectrum", "mean_exponent")

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#b05f8f", "#e69f00")
_NO_SIGNAL = "#1a1c1e"
_MARKERS = ("o", "s", "^", "D", "v")


def add_parser(commands: Any) -> None:
    parser = shared.add_parser(
        commands,
        "replay",
        about="Run strategies on a table of finished candidates: the regret of their picks, in milliseconds.",
        examples=(
            "hyperprune replay pydoc.npz",
            "hyperprune replay pydoc.npz --strategy lsh --strategy hyperband --signal spectrum --signal loss",
            "hyperprune replay pydoc.npz --proposer random --repeats 1000 --picture regret.png --json",
            "hyperprune replay seed-0.npz seed-1.npz     # every other search on the other seed",
        ),
    )
    parser.add_argument(
        "tables",
        type=Path,
        nargs="+",
        metavar="TABLE",
        help="what 'hyperprune record' wrote; several of one task are joined, by seeds and candidates",
    )
    parser.add_argument(
        "--strategy", action="append", metavar="NAME", help="may be repeated (every one the table can serve)"
    )
    parser.add_argument(
        "--signal",
        action="append",
        metavar="NAME",
        help="may be repeated (training_losses, loss, spectrum and mean_exponent)",
    )
    parser.add_argument("--repeats", type=int, default=1000, metavar="N", help="searches of each (1000)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of all draws (0)")
    search.add_strategy_options(parser, "half of the table's rows", "1", "1", "the table's")
    parser.add_argument(
        "--picture", type=Path, metavar="FILE", help="plot regret against epochs to this file"
    )
    shared.add_json(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    shared.check_picture(options.picture)
    import time

    from hyperprune.hypersearch.joining import joined
    from hyperprune.hypersearch.replay import replay
    from hyperprune.hypersearch.table import read_table

    tables = [(str(path), read_table(path)) for path in options.tables]
    for path, part in tables:
        if part.num_missing:
            shared.note(
                f"{part.num_missing} candidates of {path} are not recorded yet; regrets are against the best "
                "of those that are"
            )
    table = joined(tables)
    strategies = _strategies(table, options)
    started = time.perf_counter()
    outcomes = [
        replay(table, strategy, repeats=options.repeats, seed=options.seed) for strategy in strategies
    ]
    milliseconds = 1000 * (time.perf_counter() - started) / (options.repeats * len(outcomes))
    seeds = ", ".join(str(run.seed) for run in table.runs)
    print(
        f"{table.task}: {_num_rows(table)} candidates × {table.final_epochs} epochs, seed {seeds}; "
        f"{options.repeats} searches each, {milliseconds:.1f} ms a search"
    )
    print(_text_table(table, outcomes))
    if options.picture is not None:
        _draw(table, outcomes, options.picture)
    if options.json:
        print(
            json.dumps(
                {
                    "tables": [str(path) for path in options.tables],
                    "metric": table.metric,
                    "rows": table.num_rows,
                    "results": [
                        {**outcome.summary(), "settings": outcome.strategy.to_json()} for outcome in outcomes
                    ],
                }
            )
        )
    return 0


def _num_rows(table: CandidateTable) -> str:
    most = max(len(run.candidates) for run in table.runs)
    return f"{most}" if most == table.num_rows else f"{table.num_rows} to {most}"


def _strategies(table: CandidateTable, options: argparse.Namespace) -> list[Strategy]:
    """Each strategy with each signal; one that ranks nobody is there once.

    An option holds for the strategies that know it. Left out: half of the table's rows as candidates, since
    LSH inserts up to as many; one epoch before and between eliminations; the table's final epochs.

    Without names, strategies that the table cannot serve are left out and told, but where none is left that
    knows an option, the option is wrong.
    """
    from hyperprune.errors import unknown_name
    from hyperprune.hypersearch.replay import check
    from hyperprune.hypersearch.signals import get_signal, needs_spectra
    from hyperprune.hypersearch.strategies import STRATEGIES

    names = list(dict.fromkeys(options.strategy or _STRATEGIES))
    usable = [name for name in _SIGNALS if table.has_spectra or not needs_spectra(get_signal(name))]
    signals = list(dict.fromkeys(options.signal or usable))
    for signal in signals:
        get_signal(signal)
    if options.spectrum_dims is not None:
        _check_dims(options.spectrum_dims, signals)
    chosen = shared.given(options, _NUMBERS)
    defaults = {
        "candidates": max(2, table.num_rows // 2),
        "first_epochs": 1,
        "round_epochs": 1,
        "final_epochs": table.final_epochs,
        "spectrum_state": table.identity.get("spectrum_state", "hidden"),
    }
    strategies, served = list["Strategy"](), set[str]()
    refused, left_out = dict[str, InputError](), list[str]()  # by option; what is told
    for name in names:
        if name not in STRATEGIES:
            raise unknown_name("strategy", name, STRATEGIES)
        kind = STRATEGIES[name]
        known = search.settings_of(kind) - (set() if kind.uses_signal else {"spectrum_dims"})
        settings = {key: value for key, value in {**defaults, **chosen}.items() if key in known}
        try:
            made = [kind(**_for_signal(settings, signal), signal=signal) for signal in signals]
            check(table, made[0])
        except InputError as error:
            if options.strategy:
                raise
            refused = dict.fromkeys(known, error) | refused
            left_out.append(f"{name} is left out: {error}")
            continue
        strategies += made if kind.uses_signal else made[:1]
        served |= known
    for option in sorted(set(chosen) - served):
        if option in refused:
            raise refused[option]
        raise InputError(
            f"{shared.flag(option)} means nothing to the "
            f"{'strategy' if len(names) == 1 else 'strategies'} {', '.join(names)}; leave it out"
        )
    if not strategies:
        raise next(iter(refused.values()))
    for told in left_out:
        print(told)
    return strategies


def _check_dims(dims: int, signals: Sequence[str]) -> None:
    """Whether the number is one of dimensions, and a signal has any."""
    from hyperprune.hypersearch.signals import get_signal

    having = [signal for signal in signals if _has_dims(signal)]
    if not having:
        raise InputError(
            f"--spectrum-dims is for a signal with a PCA space, got {', '.join(signals)}; leave it out, or "
            "add --signal spectrum"
        )
    get_signal(having[0], dims=dims)


def _for_signal(settings: Mapping[str, Any], signal: str) -> dict[str, Any]:
    """Without what the signal does not know."""
    return {key: value for key, value in settings.items() if key != "spectrum_dims" or _has_dims(signal)}


def _has_dims(signal: str) -> bool:
    """Whether a signal has a PCA space."""
    from hyperprune.hypersearch.signals import get_signal

    try:
        get_signal(signal, dims=1)
    except InputError:
        return False
    return True


def _text_table(table: CandidateTable, outcomes: Sequence[Replays]) -> str:
    width = max(len("signal"), *(len(outcome.summary()["signal"] or "–") for outcome in outcomes))
    lines = [
        f"regret: {table.metric} of the pick beyond the best candidate's; found: share of searches without",
        f"{'strategy':18}  {'signal':{width}}  {'epochs':>7}  {'mean':>8}  {'median':>8}  {'90 %':>8}  "
        f"{'mean, %':>7}  {'found':>6}",
    ]
    for outcome in outcomes:
        row = outcome.summary()
        lines.append(
            f"{row['strategy']:18}  {row['signal'] or '–':{width}}  {row['epochs']:7.1f}  "
            f"{row['regret_mean']:8.4g}  {row['regret_median']:8.4g}  {row['regret_90']:8.4g}  "
            f"{100 * row['relative_mean']:7.2f}  {row['found_best']:6.1%}"
        )
    return "\n".join(lines)


def _draw(table: CandidateTable, outcomes: Sequence[Replays], path: Path) -> None:
    try:
        from matplotlib.figure import Figure
        from matplotlib.lines import Line2D
    except ImportError as error:
        raise InputError(f"--picture needs matplotlib; {install('report')}") from error
    import numpy as np

    rows = [outcome.summary() for outcome in outcomes]
    signals = list(dict.fromkeys(row["signal"] for row in rows))
    strategies = list(dict.fromkeys(row["strategy"] for row in rows))
    colours = {name: _COLOURS[place % len(_COLOURS)] for place, name in enumerate(filter(None, signals))}
    colours[None] = _NO_SIGNAL
    markers = {name: _MARKERS[place % len(_MARKERS)] for place, name in enumerate(strategies)}
    figure = Figure(figsize=(8, 4.8), layout="constrained")
    axes = figure.subplots()
    for row, outcome, place in zip(rows, outcomes, _beside([row["epochs"] for row in rows]), strict=True):
        low, middle, high = np.percentile(outcome.regret, (10, 50, 90))
        colour = colours[row["signal"]]
        axes.plot([place, place], [low, high], color=colour, linewidth=1.5)
        axes.plot([place], [middle], "_", color=colour, markersize=8, markeredgewidth=2)
        axes.plot([place], [row["regret_mean"]], markers[row["strategy"]], color=colour, markersize=7)
    axes.set(
        xlabel="epochs spent by a search (mean; equal ones are drawn side by side)\n"
        "marker: mean, dash: median, line: from the 10th to the 90th percentile of the searches",
        ylabel=f"regret in {table.metric}",
        title=f"Picks against the best of {_num_rows(table)} candidates of {table.task}, "
        f"{len(outcomes[0].regret)} replays each",
    )
    axes.set_ylim(bottom=0)
    axes.grid(axis="y", color="#dcdfe3")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    shapes = [Line2D([], [], marker=markers[name], color="0.4", ls="", label=name) for name in strategies]
    lines = [Line2D([], [], color=colours[name], label=name or "no signal") for name in signals]
    figure.legend(handles=[*shapes, *lines], loc="outside lower center", ncols=4, frameon=False)
    shared.save_picture(figure, path)


def _beside(epochs: Sequence[float]) -> list[float]:
    """Places on the axis: those that would hide each other are moved apart a little."""
    step = 0.02 * ((max(epochs) - min(epochs)) or 1.0)
    places = list[float]()
    for value in epochs:
        alike = [other for other in epochs if abs(other - value) < step]
        number = sum(1 for other in epochs[: len(places)] if abs(other - value) < step)
        places.append(value + (number - (len(alike) - 1) / 2) * step)
    return places
