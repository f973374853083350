"""Networks wired by random graphs: how well do they learn, and what of the graph tells it?

Each cell of the study (family, number, kind of recurrent cell, seed) draws a graph as the thesis does (n
uniform in 10 … 50), trains its network on Reber strings and records the test accuracy after every epoch with
the graph's properties. Nothing is chosen by the test strings: the accuracy of a network is the one after
its last epoch, as in the thesis.

Reference: the sparse-RNN thesis, sections 5.3, 6.3 and 6.4. Deviations: batches hold strings of like
lengths, a string is judged by the state at its own end (`read_padding` gives the thesis's state after the
batch's padding), and the gates of a unit share the graph's edges (in the thesis's code the masks of gates are
stacked in another order than the gates, so that weights of an LSTM or GRU do not follow the graph).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from hyperprune.data.store import data_folders
from hyperprune.data.strings import LabelledStrings
from hyperprune.errors import InputError, unknown_name
from hyperprune.experiments.cells import Record, in_order, run_cells, workspace
from hyperprune.graphs import GraphPlan, family, layered, properties
from hyperprune.hypersearch.reference import dense_training
from hyperprune.models.graph_rnn import CELLS
from hyperprune.tasks.contract import Split
from hyperprune.tasks.reber import FILES, StringSettings
from hyperprune.tasks.wired import WiredReberTask, WiringSettings
from hyperprune.training.segment import advance

_HELD_OUT = 10  # the fewest validation strings a task takes; the study trains on them too


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How large a study is.

    Attributes:
        families: of random graphs.
        graphs: of each family.
        cells: "rnn" (tanh), "rnn_relu", "lstm", "gru"; all are wired by the same graphs.
        epochs: of every network.
        train_strings, test_strings: how many; of the thesis's files the first ones.
        read_padding: judge a string by the state after the batch's padding, in batches in random order, as
            the thesis does.
        seeds: each draws graphs and weights of its own.

    Raises:
        InputError: an unknown family or cell, or a number out of range.
    """

    families: tuple[str, ...] = ("barabasi_albert", "watts_strogatz")
    graphs: int
    cells: tuple[str, ...] = ("rnn", "rnn_relu", "lstm", "gru")
    epochs: int
    train_strings: int = 18_750
    test_strings: int = 6_250
    read_padding: bool = False
    seeds: tuple[int, ...] = (0,)

    def __post_init__(self) -> None:
        for name in self.families:
            family(name)
        for cell in self.cells:
            if cell not in CELLS:
                raise unknown_name("cell", cell, CELLS)
        for name, least in (("graphs", 1), ("epochs", 1), ("test_strings", 1), ("train_strings", 20)):
            if getattr(self, name) < least:
                raise InputError(f"{name} must be at least {least}, got {getattr(self, name)}; raise it")


SCALES = {
    "tiny": Scale(graphs=6, cells=("rnn",), epochs=6, train_strings=2500, test_strings=500),
    "small": Scale(graphs=40, cells=("rnn", "gru"), epochs=8),
    "paper": Scale(graphs=100, epochs=15),
}


@dataclass(frozen=True, kw_only=True)
class Network:
    """One network to train."""

    family: str
    number: int
    cell: str
    seed: int

    def plan(self) -> GraphPlan:
        return GraphPlan.thesis_sample(self.family, self.number, seed=self.seed)


def strings_of(scale: Scale, data_dir: Path | None) -> StringSettings:
    """The thesis's files where there are some (`reber/train_data.csv` below a folder of data), else drawn.

    Args:
        data_dir: first folder to look in; then `$HYPERPRUNE_DATA`, the user's cache.
    """
    sizes: dict[str, Any] = {
        "train_strings": scale.train_strings - _HELD_OUT,
        "valid_strings": _HELD_OUT,
        "test_strings": scale.test_strings,
        "batch_size": 128,
        "by_length": not scale.read_padding,
    }
    for folder in data_folders(data_dir):
        if (folder / "reber" / FILES["train"]).is_file():
            return StringSettings(folder=str(folder / "reber"), **sizes)
    return StringSettings(**sizes)


class _StudyTask(WiredReberTask):
    """The task without validation: what is kept for it is trained on, and each epoch is tested."""

    @cached_property
    def data(self) -> dict[Split, LabelledStrings]:
        parts = super().data
        train = LabelledStrings(
            parts["train"].strings + parts["valid"].strings, parts["train"].valid + parts["valid"].valid
        )
        return {"train": train, "valid": parts["test"], "test": parts["test"]}


def _task(scale: Scale, strings: StringSettings, network: Network) -> WiredReberTask:
    plan = network.plan()
    wiring = WiringSettings(
        cell=network.cell,  # pyright: ignore[reportArgumentType]  # Scale has checked it
        family=plan.family,
        num_nodes=plan.num_nodes,
        graph_seed=plan.seed,
        read_padding=scale.read_padding,
        **dict(plan.parameters),
    )
    return _StudyTask(model=wiring, strings=strings)


def run_study(
    scale: Scale,
    folder: Path,
    *,
    workers: int = 1,
    data_dir: Path | None = None,
    command: str = "",
    say: Callable[[str], None] = print,
) -> list[Record]:
    """Train every network that `folder` has no record of, and return the records of `scale`.

    Killing it loses at most an epoch of each network in flight; the same call goes on.

    Args:
        scale: which networks, trained for how long.
        folder: holds records.jsonl, and checkpoints while a network trains.
        workers: networks trained at a time.
        data_dir: where the thesis's strings are looked for first, see `strings_of`.
        command: recorded with each record.
        say: gets a line per finished network.

    Raises:
        InputError: the strings' files are broken or too short.
    """
    networks = [
        Network(family=name, number=number, cell=cell, seed=seed)
        for seed in scale.seeds
        for number in range(scale.graphs)
        for name in scale.families
        for cell in scale.cells
    ]
    strings = strings_of(scale, data_dir)
    data = _task(scale, strings, networks[0]).data  # what is wrong with it is told before a worker starts
    checksums = {split: data[split].checksum() for split in ("train", "test")}
    digest = _digest(scale, checksums)
    keys = {f"{n.family}-{n.number}-{n.cell}-{n.seed}-{digest}": n for n in networks}
    work = partial(_train, scale, strings, folder, checksums)
    records = run_cells(
        work, {key: (key, network) for key, network in keys.items()}, folder, workers=workers,
        command=command, say=say, line=_line,
    )  # fmt: skip
    return in_order(records, keys)


def _digest(scale: Scale, checksums: dict[str, str]) -> str:
    """Eight letters that tell records of other settings or strings apart; a key names the rest."""
    kept = ("epochs", "read_padding")
    text = json.dumps([checksums, *(asdict(scale)[name] for name in kept)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _train(
    scale: Scale, strings: StringSettings, study: Path, checksums: dict[str, str], cell: tuple[str, Network]
) -> Record:
    key, network = cell
    task = _task(scale, strings, network)
    training = dense_training(scale.epochs, seed=network.seed, measure_spectrum=False)
    result = advance(task, training, workspace(study, key), scale.epochs)
    plan = network.plan()
    accuracies = [record.metric for record in result.epochs]
    return {
        "family": network.family,
        "number": network.number,
        "cell": network.cell,
        "seed": network.seed,
        "graph": plan.to_json(),
        "features": properties(layered(plan.build())),
        "test": None if result.failure else accuracies[-1],
        "test_by_epoch": [round(value, 5) for value in accuracies],
        "test_loss": None if result.failure else result.epochs[-1].valid_loss,
        "failure": result.failure,
        "train_strings": len(task.data["train"].strings),
        "test_strings": len(task.data["test"].strings),
        "strings": "drawn" if strings.folder is None else "of files",
        "strings_sha256": checksums,
        "read_padding": scale.read_padding,
        "seconds": round(sum(record.seconds for record in result.epochs), 1),
    }


def _line(record: Record) -> str:
    outcome = record["failure"] or f"test accuracy {record['test']:.3f}"
    nodes = record["graph"]["num_nodes"]
    return f"{record['key']}: {nodes} nodes, {outcome} ({record['seconds']:.0f} s)"


def trained(records: Sequence[Record]) -> list[Record]:
    """Those whose training did not fail."""
    return [record for record in records if record["test"] is not None]
