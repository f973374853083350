"""Question 4: what is in the spectra, and what moves them?

Axes: R candidates, S exponents.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hyperprune.experiments.evidence.correlation import Measured, estimate
from hyperprune.experiments.evidence.text import table
from hyperprune.experiments.evidence.worlds import (
    World,
    first_averaging,
    kind_of,
    never_averaging,
    setting,
)
from hyperprune.hypersearch.ranks import spearman
from hyperprune.hypersearch.space import Configuration
from hyperprune.hypersearch.table import RecordedRun
from hyperprune.records import EpochRecord
from hyperprune.spectra import compared_vector


def world_table(world: World) -> str:
    """Each seed: the dense model, the best, median and worst candidate, the controls."""
    rows = []
    for run in world.table.runs:
        finals = world.finals(run)
        order = np.argsort(finals, kind="stable")
        row = [
            str(run.seed),
            str(len(finals)),
            f"{world.table.final_metric(run.reference):.4g}",
            f"{abs(finals[order[0]]):.4g} ({run.configurations[order[0]].label})",
            f"{abs(np.median(finals)):.4g}",
            f"{abs(finals[order[-1]]):.4g} ({run.configurations[order[-1]].label})",
        ]
        rows.append([*row, _controls_text(world, run.seed)])
    head = ["seed", "candidates", "dense", "best", "median", "worst", "controls"]
    final = (
        f"The final metric is the best validation {world.table.metric} of the {world.table.final_epochs} "
        "epochs."
    )
    about = " ".join(text for text in [final, *_never_averaging(world), _ceiling_text(world)] if text)
    return "\n\n".join([table(head, rows), about, _unfinished(world)])


_END = 3  # epochs over which the pace at the end is told


def _unfinished(world: World) -> str:
    """Whether training had come to its end, and from when on the metric itself tells the final one."""
    runs, last = world.table.runs, world.table.final_epochs
    better = np.argmin if world.table.lower_is_better else np.argmax
    metrics = [np.array([[record.metric for record in own] for own in run.candidates]) for run in runs]
    best_last = [int(np.sum(better(values_RE[:, 1:], axis=1) == last - 1)) for values_RE in metrics]
    paces = np.concatenate([_pace(values_RE) for values_RE in metrics])
    dense = np.concatenate([_pace(np.array([[record.metric for record in run.reference]])) for run in runs])
    epochs = [epoch for epoch in (3, 6, 12, 18, 24, 28, 30, 32, 34, last) if epoch <= last]
    sign, name = (1.0 if world.table.lower_is_better else -1.0), world.table.metric
    seeds = list(zip(metrics, map(world.finals, runs), strict=True))
    agreeing = [
        f"{np.mean([spearman(sign * values_RE[:, epoch], finals) for values_RE, finals in seeds]):+.2f} "
        f"after {epoch}"
        for epoch in dict.fromkeys(epochs)
    ]
    return (
        f"The last epoch is the best one of {sum(best_last)} of {sum(map(len, metrics))} candidates; over "
        f"the last {_END} epochs the {name} changed by {np.median(paces):+.2f} % an epoch (median), the "
        f"dense model's by {np.median(dense):+.2f} %. Rank correlation of the {name} after an epoch with "
        f"the final one: {', '.join(agreeing)}."
    )


def _pace(values_RE: np.ndarray) -> np.ndarray:
    """(R,) mean change per epoch over the last ones, in percent."""
    return 100 * ((values_RE[:, -1] / values_RE[:, -1 - _END]) ** (1 / _END) - 1)


def _never_averaging(world: World) -> list[str]:
    """Which candidates the optimizer's averages never reached, while others were judged by theirs."""
    texts = []
    for run in world.table.runs:
        never = [
            f"{run.configurations[index].label} ({world.table.final_metric(run.candidates[index]):.4g})"
            for index in never_averaging(run)
        ]
        if 0 < len(never) < len(run.candidates):
            texts.append(
                f"Never evaluated with averaged weights, unlike the others (seed {run.seed}): "
                f"{'; '.join(never)}."
            )
    return texts


def _controls_text(world: World, seed: int) -> str:
    runs = [run for run in world.controls.runs if run.seed == seed] if world.controls else []
    return "; ".join(
        f"{control_name(configuration)} {world.table.final_metric(records):.4g}"
        for run in runs
        for configuration, records in zip(run.configurations, run.candidates, strict=True)
    )


def control_name(configuration: Configuration) -> str:
    """What the label of a control leaves out."""
    allocation = setting(configuration, "allocation")
    if setting(configuration, "threshold_at_once"):
        return f"threshold at once ({allocation}, {setting(configuration, 'redistribution')})"
    return f"{configuration.method} ({allocation})"


def _ceiling_text(world: World) -> str:
    """How far final metrics repeat: between seeds, and between twins that differ in random draws alone."""
    parts = []
    runs = world.table.runs
    correlations = []
    for number, one in enumerate(runs):
        for other in runs[number + 1 :]:
            shared = [item for item in one.configurations if item in other.configurations]
            pair = [
                np.array([world.finals(run)[run.configurations.index(item)] for item in shared])
                for run in (one, other)
            ]
            correlations.append(spearman(*pair))
    if correlations:
        parts.append(
            f"Rank correlation of the final metric between seeds: {np.mean(correlations):+.2f} (the mean "
            f"over {len(correlations)} {'pair' if len(correlations) == 1 else 'pairs'} of seeds): how far a "
            "finished run tells the next seed's order."
        )
    twins = twin_differences(world)
    if twins:
        parts.append(
            "A threshold that meets its target at once kills exactly as the global magnitude does, with "
            "other random draws of masks and growth, from the same initial weights and on the same data: the "
            f"two differ by {', '.join(f'{100 * twin:.1f} %' for twin in twins)} in the final metric (two "
            "pairs a seed). Less than that between two candidates says nothing."
        )
    return " ".join(parts)


def twin_differences(world: World) -> list[float]:
    """How far apart two runs of one recipe end that differ in random draws alone, as shares."""
    differences = []
    for controls in world.controls.runs if world.controls else ():
        run = next((item for item in world.table.runs if item.seed == controls.seed), None)
        if run is None:
            continue
        for configuration, records in zip(controls.configurations, controls.candidates, strict=True):
            if not setting(configuration, "threshold_at_once"):
                continue
            twin = _twin(run, configuration)
            if twin is not None:
                one, other = world.table.final_metric(records), world.table.final_metric(twin)
                differences.append(abs(one - other) / min(abs(one), abs(other)))
    return differences


def _twin(run: RecordedRun, control: Configuration) -> Sequence[EpochRecord] | None:
    names = ("allocation", "redistribution", "death_rate")
    for configuration, records in zip(run.configurations, run.candidates, strict=True):
        same = all(setting(configuration, name) == setting(control, name) for name in names)
        if same and kind_of(configuration) == "global_magnitude":
            return records
    return None


def _groups(world: World) -> dict[str, list[tuple[RecordedRun, Sequence[EpochRecord]]]]:
    """Candidates by kind of death, and each control by its name, with the run of their dense model."""
    found: dict[str, list[tuple[RecordedRun, Sequence[EpochRecord]]]] = {}
    for run in world.table.runs:
        for configuration, records in zip(run.configurations, run.candidates, strict=True):
            found.setdefault(kind_of(configuration), []).append((run, records))
    for run in world.controls.runs if world.controls else ():
        for configuration, records in zip(run.configurations, run.candidates, strict=True):
            found.setdefault(control_name(configuration), []).append((run, records))
    return found


def kinds_table(world: World, epoch: int) -> str:
    """What tells the kinds of death apart: distance, mean and largest exponent, turnover."""
    rows = []
    for name, members in _groups(world).items():
        pairs = [(usable(run.reference[epoch]), usable(records[epoch])) for run, records in members]
        known = [(dense, own) for dense, own in pairs if dense is not None and own is not None]
        if not known:
            continue
        difference_RS = np.array([own - dense for dense, own in known])
        turnover = [
            sum(float(record.probes.get("turnover", 0.0)) for record in records[:epoch])
            for _, records in members
        ]
        finals = [abs(world.table.final_metric(records)) for _, records in members]
        rows.append(
            [
                name,
                str(len(members)),
                f"{np.mean(finals):.4g}",
                f"{np.mean([records[epoch].metric for _, records in members]):.4g}",
                f"{np.linalg.norm(difference_RS, axis=1).mean():.2f}",
                f"{difference_RS.mean():+.3f}",
                f"{np.mean([own.max() - dense.max() for dense, own in known]):+.3f}",
                f"{np.std(difference_RS - difference_RS.mean(axis=1, keepdims=True)):.3f}",
                f"{np.mean(turnover):.2f}",
            ]
        )
    head = [
        "kind of death",
        "models",
        "final",
        f"{world.table.metric}, epoch {epoch}",
        "L2 distance",
        "mean exponent − dense's",
        "largest − dense's",
        "spread of the difference about its mean",
        "turnover of the updates before, summed",
    ]
    return table(head, rows) + "\n\n" + _factors_text(world)


def _factors_text(world: World) -> str:
    """How much of the final metric's variance each setting explains by itself, and would by chance."""
    shares: dict[str, list[float]] = {}
    chances: dict[str, list[float]] = {}
    for run in world.table.runs:
        finals = np.log(np.abs(world.finals(run)))
        for name in ("death", "redistribution", "allocation", "death_rate"):
            levels = np.array([str(setting(item, name)) for item in run.configurations])
            if len(set(levels)) > 1:
                means = np.array([finals[levels == level].mean() for level in levels])
                shares.setdefault(name, []).append(means.var() / finals.var())
                chances.setdefault(name, []).append((len(set(levels)) - 1) / (len(finals) - 1))
    texts = (
        f"{name} {' / '.join(f'{100 * value:.0f} %' for value in values)} "
        f"({100 * np.mean(chances[name]):.0f} %)"
        for name, values in shares.items()
    )
    return (
        "What a setting explains of the variance of the final metric's logarithm, each seed, and in brackets "
        f"what it would by chance: {', '.join(texts)}."
    )


def usable(record: EpochRecord, name: str | None = None) -> np.ndarray | None:
    """(S,) the epoch's spectrum, or the one of another name, as distances see it; None if not measured."""
    values = record.spectrum if name is None else record.probes.get(name)
    if values is None or np.isnan(values).any():
        return None
    return compared_vector(np.asarray(values, dtype=np.float64))


def _raw(record: EpochRecord) -> np.ndarray | None:
    """(S,) the spectrum of the raw weights, which evaluation uses until the optimizer averages."""
    return usable(record, "spectrum_raw" if record.averaging else None)


def switch_table(found: Measured) -> str:
    """Who evaluates averaged weights when, and what that does to the signal."""
    runs = found.world.table.runs
    rows = []
    for epoch in found.epochs:
        averaging = np.mean([[records[epoch].averaging for records in run.candidates] for run in runs])
        dense = np.mean([run.reference[epoch].averaging for run in runs])
        moved = [
            float(np.linalg.norm(averaged - raw))
            for run in runs
            for records in (run.reference, *run.candidates)
            if (raw := usable(records[epoch], "spectrum_raw")) is not None
            and (averaged := usable(records[epoch])) is not None
        ]
        rows.append(
            [
                str(epoch),
                f"{100 * dense:.0f} %",
                f"{100 * averaging:.0f} %",
                f"{np.mean(moved):.2f}" if moved else "–",
                *(estimate(found, name, epoch).text() for name in ("spectrum_raw", "weights_raw")),
            ]
        )
    if not any(
        record.averaging
        for run in runs
        for own in (run.reference, *run.candidates)
        for record in own[: found.epochs[-1] + 1]
    ):
        touched = (
            "of the signals above only the distances to the dense model's end are touched by it, since that "
            "end is averaged, and the final metric is. "
            if any(run.reference[-1].averaging for run in runs)
            else "no signal above is touched by it. "
        )
        return f"Nobody averages up to epoch {found.epochs[-1]}: {touched}" + " ".join(
            [_switches_text(found.world), _moved_text(found.world)]
        )
    head = [
        "epoch",
        "dense models averaging",
        "candidates averaging",
        "distance averaged to raw",
        "ρ, as evaluated",
        "ρ, raw weights of both",
    ]
    return table(head, rows) + "\n\n" + " ".join([_switches_text(found.world), _moved_text(found.world)])


def _moved_text(world: World) -> str:
    """Late distances from the dense model, of what is evaluated and of raw weights, where both are known."""
    texts = []
    for epoch in range(world.table.final_epochs + 1):
        evaluated, raw = [], []
        for run in world.table.runs:
            for records in run.candidates:
                dense, own = run.reference[epoch], records[epoch]
                pairs = [(usable(dense), usable(own)), (_raw(dense), _raw(own))]
                differences = [b - a for a, b in pairs if a is not None and b is not None]
                if dense.averaging and len(differences) == 2:
                    evaluated.append(np.linalg.norm(differences[0]))
                    raw.append(np.linalg.norm(differences[1]))
        if evaluated:
            texts.append(f"{np.mean(evaluated):.1f} and {np.mean(raw):.1f} at epoch {epoch}")
    if not texts:
        return ""
    return f"Mean L2 distance from the dense model as evaluated, and of the raw weights: {'; '.join(texts)}."


def _switches_text(world: World) -> str:
    parts, correlations = [], []
    for run in world.table.runs:
        dense = first_averaging(run.reference)
        firsts = [first_averaging(records) for records in run.candidates]
        own = [epoch for epoch in firsts if epoch is not None]
        finals = [final for final, epoch in zip(world.finals(run), firsts, strict=True) if epoch is not None]
        rho = spearman(np.array(own), np.array(finals))
        correlations.append("–" if np.isnan(rho) else f"{rho:+.2f}")
        span = (
            f"epochs {min(own)} to {max(own)} (median {np.median(own):g}), "
            f"{len(own)} of {len(run.candidates)}"
            if own
            else "none"
        )
        parts.append(f"seed {run.seed}: dense model {'never' if dense is None else dense}; candidates {span}")
    return (
        f"First epoch evaluated with averages: {'; '.join(parts)}. Among those that averaged, its rank "
        f"correlation with the final metric: {' / '.join(correlations)} (below 0 where who begins early ends "
        "worse)."
    )


def updates_table(world: World, epochs: Sequence[int]) -> str:
    """What a topology update does to the spectrum at once, by kind of death."""
    rows = []
    for name, members in _groups(world).items():
        cells = []
        for epoch in epochs:
            moved, shifts, turnover = [], [], []
            for _, records in members:
                record = records[epoch]
                raw = _raw(record)
                after = usable(record, "spectrum_updated_raw")
                if raw is not None and after is not None:
                    moved.append(np.linalg.norm(after - raw))
                    shifts.append((after - raw).mean())
                    turnover.append(float(record.probes.get("turnover", np.nan)))
            cells.append(
                f"{np.mean(moved):.2f}, {np.mean(shifts):+.3f}, {np.mean(turnover):.2f}" if moved else "–"
            )
        rows.append([name, *cells])
    head = ["kind of death", *(f"epoch {epoch}: moved, mean shift, turnover" for epoch in epochs)]
    return table(head, rows)
