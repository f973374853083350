"""The Jacobian paper's language models: dense, random masks and its own, at 95 %.

Reference:
    JSE, table 4, figure 5, section 6.2: LSTM 2000 with He start and a frozen embedding, Adam at 1e-3; the
    training perplexity on a random 1 % of the training set. Here each sampled window starts from a zero
    state and dropout is off.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from hyperprune.errors import InputError
from hyperprune.experiments.cells import RECORDS, Record, read_records, run_cells, workspace
from hyperprune.experiments.jacobian_study import published
from hyperprune.experiments.jacobian_tables import table
from hyperprune.hypersearch.space import DENSE, Configuration
from hyperprune.rng import generator
from hyperprune.tasks.contract import Task
from hyperprune.tasks.registry import load_task
from hyperprune.training.candidate import Training
from hyperprune.training.segment import advance, model_after

SPARSITY = 0.95
CRITERIA = ("random", "jacobian", "dense")
NAMES = {"random": "random", "jacobian": "Jacobian spectrum", "dense": "dense"}
_SHARE = 0.01  # of the training windows, on which the training perplexity is measured
_FEWEST = 5  # windows, where 1 % would be fewer


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """One column of the table.

    Attributes:
        task: by name.
        epochs: of every network.
        settings: tables of settings of the task.
        stands_for: the paper's corpus.
    """

    task: str
    epochs: int
    settings: Mapping[str, Mapping[str, Any]]
    stands_for: str


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Which corpora, by name, and how many seeds."""

    corpora: Mapping[str, Corpus]
    seeds: tuple[int, ...]


def _small(task: str, tokens: int, vocabulary: int, hidden: int) -> dict[str, dict[str, Any]]:
    text = {
        "vocabulary_size": vocabulary,
        "train_tokens": tokens,
        "valid_tokens": 20_000,
        "test_tokens": 20_000,
    }
    model = {"preset": "jse", "hidden_size": hidden, "embedding_size": hidden // 2}
    return {"model": model, "text": {**text, "batch_size": 20}}


SCALES = {
    "tiny": Scale(
        corpora={
            "pydoc": Corpus(
                task="pydoc",
                epochs=3,
                settings=_small("pydoc", 20_000, 1000, 64),
                stands_for="wikitext2",
            )
        },
        seeds=(0,),
    ),
    "small": Scale(
        corpora={
            "ptb": Corpus(
                task="ptb",
                epochs=12,
                settings=_small("ptb", 186_000, 2000, 256),
                stands_for="wikitext2",
            )
        },
        seeds=(0, 1, 2),
    ),
    # The paper's steps: 20,000 (22 epochs of 932), 12,000 and 30,000, here as epochs; of WikiText-103 one
    # epoch of as many tokens as 12,000 batches of 64 × 35 hold.
    "paper": Scale(
        corpora={
            "wikitext2": Corpus(task="wikitext2-jse", epochs=22, settings={}, stands_for="wikitext2"),
            "wikitext103": Corpus(
                task="wikitext103-jse",
                epochs=1,
                settings={"text": {"train_tokens": 12_000 * 64 * 35}},
                stands_for="wikitext103",
            ),
            "one-billion-words": Corpus(
                task="one-billion-words", epochs=30, settings={}, stands_for="one-billion-words"
            ),
        },
        seeds=(0,),
    ),
}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One network to train."""

    corpus: str
    criterion: str
    seed: int

    @property
    def key(self) -> str:
        return f"{self.corpus}-{self.criterion}-{self.seed}"


def run_study(
    scale: Scale,
    folder: Path,
    *,
    workers: int = 1,
    data_dir: Path | None = None,
    device: str = "cpu",
    command: str = "",
    say: Callable[[str], None] = print,
) -> list[Record]:
    """Train every network that `folder` has no record of, and return all records; see `jacobian_study`."""
    check_records(read_records(folder / RECORDS), scale)  # keys do not name the epochs
    cells = [
        Cell(corpus=corpus, criterion=criterion, seed=seed)
        for corpus in scale.corpora
        for seed in scale.seeds
        for criterion in CRITERIA
    ]
    for corpus in scale.corpora.values():  # data that are missing are told before a worker starts
        next(iter(_task(corpus, data_dir).batches("valid", 0)))
    work = partial(_run, scale, data_dir, folder, device)
    return run_cells(
        work,
        {cell.key: cell for cell in cells},
        folder,
        workers=workers,
        command=command,
        say=say,
        line=_line,
    )


def check_records(records: Sequence[Record], scale: Scale) -> None:
    """Refuse records of another scale, which would pass for this one's.

    Raises:
        InputError: a record of another corpus or of other epochs.
    """
    for record in records:
        corpus = scale.corpora.get(record["corpus"])
        if corpus is None or corpus.epochs != record["epochs"]:
            known = ", ".join(f"{name!r} and {corpus.epochs}" for name, corpus in scale.corpora.items())
            raise InputError(
                f"records must be of the scale's corpora and epochs, {known}; {record['key']} is of "
                f"{record['corpus']!r} and {record['epochs']}; name its --scale, or another --out"
            )


def _task(corpus: Corpus, data_dir: Path | None) -> Task:
    return load_task(corpus.task, settings=corpus.settings, data_dir=data_dir)


def _run(scale: Scale, data_dir: Path | None, study: Path, device: str, cell: Cell) -> Record:
    corpus = scale.corpora[cell.corpus]
    task = _task(corpus, data_dir)
    configuration = DENSE
    if cell.criterion != "dense":
        configuration = Configuration.of("static", at_init=cell.criterion, allow_empty=True)
    training = Training(
        method=configuration.build(),
        sparsity=0.0 if cell.criterion == "dense" else SPARSITY,
        total_epochs=corpus.epochs,
        seed=cell.seed,
        name=configuration.text,
        device=device,
        measure_spectrum=False,
    )
    folder = workspace(study, cell.key)
    result = advance(task, training, folder, corpus.epochs)
    train = None
    if result.failure is None:
        train = _training_perplexity(task, model_after(task, training, folder, corpus.epochs))
    return {
        "task": task.name,
        **vars(cell),
        "epochs": corpus.epochs,
        "train_perplexity": train,
        "valid": [round(epoch.metric, 3) for epoch in result.epochs],
        "train_loss": [round(epoch.train_loss, 4) for epoch in result.epochs if epoch.train_loss],
        "failure": result.failure,
        "train_seconds": round(sum(epoch.seconds for epoch in result.epochs), 1),
    }


@torch.no_grad()
def _training_perplexity(task: Task, model: torch.nn.Module) -> float:
    """On a random 1 % of the first epoch's windows, the same for every network."""
    num_windows = task.steps_per_epoch()
    wanted = min(num_windows, max(_FEWEST, round(_SHARE * num_windows)))
    chosen = set(torch.randperm(num_windows, generator=generator(0, "sample"))[:wanted].tolist())
    total, num_items = 0.0, 0
    for number, batch in enumerate(task.batches("train", 1)):
        if number in chosen:
            outcome = task.loss(model, batch, None)
            total += outcome.loss.item() * outcome.num_items
            num_items += outcome.num_items
    return round(float(torch.tensor(total / num_items).exp()), 3)


def _line(record: Record) -> str:
    outcome = record["failure"] or f"training perplexity {record['train_perplexity']:.1f}"
    return f"{record['key']}: {outcome} ({record['train_seconds']:.0f} s)"


def report(records: Sequence[Record], scale: Scale) -> str:
    """Table 4 beside the paper's, with the best validation perplexity."""
    paper, rows = published()["language"], []
    for name, corpus in scale.corpora.items():
        for criterion in CRITERIA:
            found = [r for r in records if r["corpus"] == name and r["criterion"] == criterion]
            trained = [r for r in found if r["train_perplexity"] is not None]
            train = _text([r["train_perplexity"] for r in trained], len(found))
            valid = _text([min(r["valid"]) for r in trained], len(found))
            rows.append([name, NAMES[criterion], train, valid, f"{paper[corpus.stands_for][criterion]:.2f}"])
    heads = ["corpus", "masks, 95 %", "training perplexity", "validation, best", "paper (its own corpus)"]
    return table(heads, rows) + "\n"


def captions(scale: Scale) -> dict[str, str]:
    """What the pictures show, by their names."""
    return {
        f"at-init-language-{name}": f"Figure 5: the exponential of the training loss on `{name}`, a line per "
        "seed; with a sampled softmax it is lower than the perplexity."
        for name in scale.corpora
    }


def _text(values: Sequence[float], num_runs: int) -> str:
    if num_runs == 0:
        return "not run"
    if len(values) < num_runs:
        return "failed"
    spread = f" ± {statistics.stdev(values):.1f}" if num_runs > 1 else ""
    return f"{statistics.mean(values):.1f}{spread} (n = {num_runs})"


def draw(records: Sequence[Record], folder: Path) -> list[Path]:
    """Figure 5: the training loss over the epochs, a picture for each corpus."""
    from matplotlib.figure import Figure

    looks = {"random": ("#7d838a", "--"), "jacobian": ("#0072b2", "-"), "dense": ("#1a1c1e", "-")}
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name in dict.fromkeys(record["corpus"] for record in records):
        figure = Figure(figsize=(7, 4), layout="constrained")
        axes = figure.subplots()
        for criterion, (color, dashes) in looks.items():
            own = [r for r in records if r["corpus"] == name and r["criterion"] == criterion]
            for number, record in enumerate(r for r in own if r["train_loss"]):
                curve = torch.tensor(record["train_loss"]).exp()
                label = NAMES[criterion] if number == 0 else None
                epochs = range(1, len(curve) + 1)
                axes.plot(epochs, curve, color=color, linestyle=dashes, marker=".", label=label)
        axes.set(yscale="log", xlabel="epoch", ylabel="exp(training loss)", title=f"{name}, 95 % sparse LSTM")
        axes.legend()
        axes.grid(alpha=0.3, which="both")
        paths.append(folder / f"at-init-language-{name}.png")
        figure.savefig(paths[-1], dpi=130)
    return paths
