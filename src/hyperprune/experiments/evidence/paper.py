"""Question 3: the LSH paper's other tables (1 and 4), first round and dense curve, in the recorded worlds.

Axes: R candidates, B samples, S exponents, E epochs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hyperprune.experiments.cells import Record, read_records
from hyperprune.experiments.evidence.text import table
from hyperprune.experiments.evidence.worlds import World, kind_of
from hyperprune.experiments.methods_study import published_figures
from hyperprune.experiments.methods_tables import to_tables
from hyperprune.hypersearch.ranks import spearman
from hyperprune.records import EpochRecord
from hyperprune.spectra import compared_vector, spectrum_distance

SAMPLE_COUNTS = (1, 2, 5, 10)


def methods_table(path: Path) -> str:
    """Table 1: the order of published methods, ours from the methods study beside the paper's."""
    records = read_records(path)
    if not records:
        return f"Not recorded yet: `hyperprune reproduce methods` writes what belongs into {path.name}."
    first = records[0]
    about = (
        f"Test perplexity on `{first['task']}` after {first['epochs']} epochs, mean over seeds, half their "
        "range in brackets; how it was made stands in [methods.md](methods.md)."
    )
    return f"{about}\n\n{to_tables(records)}"


def published_table() -> str:
    """All of the paper's Table 1: its methods, and its searches by signal and proposer."""
    columns = {"stacked LSTM, sparsity 0.67": "stacked_lstm_067", "RHN, sparsity 0.53": "rhn_053"}
    methods = [published_figures(name) for name in columns.values()]
    searches = [published_figures("lsh_searches")[name] for name in columns.values()]
    rows = [[name, *(_test_and_valid(column[name]) for column in methods)] for name in methods[0]]
    rows += [
        [f"search by {label}, {proposer}", *(_test_and_valid(column[led][proposer]) for column in searches)]
        for led, label in (("loss", "loss"), ("lsh", "spectrum (LSH)"))
        for proposer in searches[0][led]
    ]
    return table(["paper: test perplexity (validation)", *columns], rows)


def _test_and_valid(quoted: Sequence[float]) -> str:
    return "{:.1f} ({:.1f})".format(*quoted)


def samples_table(world: World, epoch: int) -> str:
    """Table 4: spectra from few samples and from ten; the spread between samples and between models."""
    rows = []
    if epoch in _sampled_epochs(world):
        for run in world.table.runs:
            finals = world.finals(run)
            chosen = {"best": int(finals.argmin()), "worst": int(finals.argmax())}
            for name, index in chosen.items():
                samples_BS = _samples(run.candidates[index][epoch])
                for count in (2, len(samples_BS)):
                    mean_S = samples_BS[:count].mean(axis=0)
                    rows.append(
                        [
                            f"seed {run.seed}, epoch {epoch}, {name}",
                            str(count),
                            f"{mean_S.max():.3f}",
                            f"{mean_S.mean():.3f}",
                            f"{mean_S.var():.3f}",
                        ]
                    )
    for name, values in published_figures("lsh_samples").items():
        for count, quoted in values.items():
            rows.append([f"paper, {name.replace('_', ' ')}", count, *(f"{value:.2f}" for value in quoted)])
    head = ["model", "samples", "largest", "mean", "variance"]
    return table(head, rows) + "\n\n" + _spread_table(world)


def _spread_table(world: World) -> str:
    """How far apart samples of one model are, and models; and what the signal says from few samples."""
    rows = []
    for epoch in _sampled_epochs(world):
        found: dict[int, list[float]] = {count: [] for count in SAMPLE_COUNTS}
        between_samples, between_models = [], []
        for run in world.table.runs:
            dense_BS = _samples(run.reference[epoch])
            models = [_samples(records[epoch]) for records in run.candidates]
            finals = world.finals(run)
            means = np.stack([samples_BS.mean(axis=0) for samples_BS in models])
            between_samples += [
                np.linalg.norm(samples_BS - samples_BS.mean(axis=0), axis=1).mean() for samples_BS in models
            ]
            between_models.append(np.linalg.norm(means - means.mean(axis=0), axis=1).mean())
            for count in SAMPLE_COUNTS:
                distances = [
                    np.linalg.norm(dense_BS[:count].mean(axis=0) - samples_BS[:count].mean(axis=0))
                    for samples_BS in models
                ]
                found[count].append(spearman(np.array(distances), finals))
        rows.append(
            [
                str(epoch),
                f"{np.mean(between_samples):.2f}",
                f"{np.mean(between_models):.2f}",
                *(f"{np.mean(found[count]):+.2f}" for count in SAMPLE_COUNTS),
            ]
        )
    head = ["epoch", "L2, a sample to its model's mean", "L2, a model to the models' mean"]
    return table([*head, *(f"ρ of the distance (L2), {count} samples" for count in SAMPLE_COUNTS)], rows)


def _sampled_epochs(world: World) -> list[int]:
    first = world.table.runs[0].reference[1:-1]
    return [record.epoch for record in first if "spectrum_samples" in record.probes]


def _samples(record: EpochRecord) -> np.ndarray:
    """(B, S) each sample's spectrum, −∞ set to the floor that distances use."""
    values_BS = np.asarray(record.probes["spectrum_samples"], dtype=np.float64)
    return np.stack([compared_vector(values_S) for values_S in values_BS])


def first_round_table(world: World, epoch: int = 3) -> str:
    """The published pool after 3 epochs at paper scale, beside ours: spectrum distance and perplexity."""
    paper = published_first_round()
    rows = []
    for kind in ("threshold", "magnitude", "global_magnitude", "set"):
        distances, metrics, finals = [], [], []
        for run in world.table.runs:
            values = world.finals(run)
            for index, configuration in enumerate(run.configurations):
                if kind_of(configuration) != kind:
                    continue
                records = run.candidates[index]
                dense, own = run.reference[epoch].spectrum, records[epoch].spectrum
                if dense is not None and own is not None:
                    distances.append(spectrum_distance([dense], [own], embedding="none"))
                metrics.append(records[epoch].metric)
                finals.append(abs(values[index]))
        if metrics:
            quoted = paper[kind]
            rows.append(
                [
                    kind,
                    f"{np.mean(distances):.2f}" if distances else "–",
                    f"{np.mean(metrics):.4g}",
                    f"{np.mean(finals):.4g}",
                    f"{quoted[0]:.1f}",
                    f"{quoted[1]:.1f}",
                ]
            )
    dense = np.mean([run.reference[epoch].metric for run in world.table.runs])
    final = np.mean([world.table.final_metric(run.reference) for run in world.table.runs])
    curve = published_figures("dense_curve")
    rows.append(["dense model", "0", f"{dense:.4g}", f"{final:.4g}", "0", f"{curve['3']:.1f}"])
    head = [
        "kind of death",
        f"distance, epoch {epoch}",
        f"{world.table.metric}, epoch {epoch}",
        "final",
        "paper: distance",
        "paper: perplexity",
    ]
    return table(head, rows) + "\n\n" + _agreement_text(world, epoch)


def _agreement_text(world: World, epoch: int) -> str:
    """Whether distance and metric prefer the same candidates then."""
    values = []
    for run in world.table.runs:
        pairs = [
            (spectrum_distance([dense], [own], embedding="none"), records[epoch].valid_loss)
            for records in run.candidates
            if (dense := run.reference[epoch].spectrum) is not None
            and (own := records[epoch].spectrum) is not None
        ]
        if pairs:
            distances, losses = np.array(pairs).T
            values.append(spearman(distances, losses))
    paper = published_figures("lsh_first_round_agreement")
    ours = f"{np.mean(values):+.2f} among ours, " if values else ""
    return (
        f"Rank correlation of the spectrum's distance with the loss at that epoch: {ours}"
        f"{paper['rank_correlation']:+.2f} among the {paper['candidates']} published. The published winner "
        f"was number {paper['winner_by_distance']} by distance and {paper['winner_by_perplexity']} by "
        "perplexity."
    )


def published_first_round() -> dict[str, tuple[float, float]]:
    """Mean spectrum distance and validation perplexity after 3 epochs, by kind of death."""
    return {name: (one, other) for name, (one, other) in published_figures("lsh_first_round").items()}


def curve_table(records: Sequence[Record]) -> str:
    """Dense models trained with the paper's recipe, beside the published validation perplexities."""
    rows = []
    for record in records:
        for epoch, quoted in published_figures("dense_curve").items():
            if int(epoch) < len(record["valid"]):
                name = f"{record['table']}, seed {record['seed']}, epoch {epoch}"
                rows.append([name, f"{record['valid'][int(epoch)]:.1f}", f"{quoted:.1f}"])
    return table(["dense model", "validation perplexity", "paper"], rows)
