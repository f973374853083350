"""Is there a better signal in the same data? The final metric regressed on what was measured early.

Axes: R candidates, F features.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from hyperprune.experiments.evidence.text import table
from hyperprune.experiments.evidence.why import usable
from hyperprune.experiments.evidence.worlds import World, grid_point, kind_of
from hyperprune.hypersearch.ranks import spearman
from hyperprune.hypersearch.table import RecordedRun
from hyperprune.records import EpochRecord

_COMPONENTS = 8
_PENALTIES = np.logspace(-2, 4, 13)
_SPLITS = 40
_FEW = 5  # scores: too few for a range

Features = Callable[[RecordedRun, Sequence[EpochRecord], int], np.ndarray]


def _difference(run: RecordedRun, records: Sequence[EpochRecord], epoch: int) -> np.ndarray:
    dense, own = usable(run.reference[epoch]), usable(records[epoch])
    return np.full(1, np.nan) if dense is None or own is None else own - dense


def _full_difference(run: RecordedRun, records: Sequence[EpochRecord], epoch: int) -> np.ndarray:
    dense = usable(run.reference[epoch], "spectrum_full")
    own = usable(records[epoch], "spectrum_full")
    return np.full(1, np.nan) if dense is None or own is None else own - dense


def _loss(_: RecordedRun, records: Sequence[EpochRecord], epoch: int) -> np.ndarray:
    losses = [record.train_loss for record in records[1 : epoch + 1] if record.train_loss is not None]
    return np.array([records[epoch].valid_loss, records[epoch - 1].valid_loss, *losses[-1:]])


_RIVALS = (
    "gradient_norm",
    "frobenius",
    "spectral_radius",
    "weight_distance",
    "live_gates",
    "chi",
    "turnover",
)


def _rivals(_: RecordedRun, records: Sequence[EpochRecord], epoch: int) -> np.ndarray:
    return np.concatenate(
        [np.atleast_1d(np.asarray(records[epoch].probes.get(name, np.nan))) for name in _RIVALS]
    )


FEATURES: Mapping[str, tuple[Features, ...]] = {
    "losses": (_loss,),
    "hidden spectrum − dense's": (_difference,),
    "full-state spectrum − dense's": (_full_difference,),
    "rivals": (_rivals,),
    "hidden spectrum and losses": (_difference, _loss),
    "rivals and losses": (_rivals, _loss),
    "everything": (_difference, _full_difference, _rivals, _loss),
}


def _distance(run: RecordedRun, records: Sequence[EpochRecord], epoch: int) -> np.ndarray:
    return np.atleast_1d(np.linalg.norm(_difference(run, records, epoch)))


def _last_loss(_: RecordedRun, records: Sequence[EpochRecord], epoch: int) -> np.ndarray:
    return np.array([records[epoch].valid_loss])


ALONE: Mapping[str, Features] = {
    "validation loss itself, nothing fitted": _last_loss,
    "L2 distance of the spectra itself, nothing fitted": _distance,
}


def regression_table(world: World, epochs: Sequence[int]) -> str:
    """How well a fitted prediction of the final metric ranks candidates that the fit has not seen.

    Ridge regression of the logarithm of the final metric on the first principal components of the
    standardised features; standardisation, components and penalty are fitted without the candidates held
    out. Ranks are compared among candidates that were held out together, never across fits: predictions
    without information are the mean of the rest, which is low where the truth is high.
    """
    runs = world.table.runs
    rows = []
    for epoch in epochs:
        for name, part in ALONE.items():
            rows.append([name, str(epoch), *_scores(world, (part,), epoch, fitted=False)])
        for name, parts in FEATURES.items():
            rows.append([name, str(epoch), *_scores(world, parts, epoch, fitted=True)])
    head = ["features", "epoch", "unseen grid points", "unseen kind of death"]
    head += ["unseen seed"] if len(runs) > 1 else []
    return table(head, [row for row in rows if set(row[2:]) != {"–"}])


def _scores(world: World, parts: Sequence[Features], epoch: int, *, fitted: bool) -> list[str]:
    """By what is held out: the mean rank correlation and its range over the splits."""
    runs = world.table.runs
    rows = [
        [np.concatenate([part(run, own, epoch) for part in parts]) for own in run.candidates] for run in runs
    ]
    if any(np.isnan(row_F).any() for own in rows for row_F in own):  # one NaN stands for a whole spectrum
        return ["–"] * (2 + (len(runs) > 1))
    features = [np.array(own) for own in rows]
    sign = 1.0 if world.table.lower_is_better else -1.0
    finals = [sign * np.log(np.abs(world.finals(run))) for run in runs]

    def score(known: tuple[np.ndarray, np.ndarray], held: tuple[np.ndarray, np.ndarray]) -> float:
        predicted_R = _fit(*known, held[0]) if fitted else held[0][:, 0]
        return spearman(predicted_R, held[1])

    columns: list[list[float]] = [[], []]
    for run, values_RF, finals_R in zip(runs, features, finals, strict=True):
        for column, splits in zip(columns, (_point_splits(run), _kind_splits(run)), strict=True):
            column += [
                score((values_RF[~held_R], finals_R[~held_R]), (values_RF[held_R], finals_R[held_R]))
                for held_R in splits
            ]
    if len(runs) > 1:
        others = [[other for other in range(len(runs)) if other != number] for number in range(len(runs))]
        columns.append(
            [
                score(
                    (
                        np.concatenate([features[other] for other in known]),
                        np.concatenate([finals[other] for other in known]),
                    ),
                    (features[number], finals[number]),
                )
                for number, known in enumerate(others)
            ]
        )
    return [_score_text(np.array(column)) for column in columns]


def _score_text(scores: np.ndarray) -> str:
    known = scores[~np.isnan(scores)]
    if not len(known):
        return "–"
    if len(known) < _FEW:
        return f"{known.mean():+.2f} [{' / '.join(f'{item:+.2f}' for item in known)}]"
    low, high = np.percentile(known, [10, 90])
    return f"{known.mean():+.2f} ({low:+.2f} to {high:+.2f})"


def _point_splits(run: RecordedRun) -> list[np.ndarray]:
    """(R,) masks: a quarter of the grid points at random, each with all its death rates."""
    points = [grid_point(item) for item in run.configurations]
    different = list(dict.fromkeys(points))
    random = np.random.default_rng(0)
    masks = []
    for _ in range(_SPLITS):
        chosen = random.choice(len(different), size=max(3, len(different) // 4), replace=False)
        masks.append(np.array([different.index(point) in chosen for point in points]))
    return [held_R for held_R in masks if (~held_R).sum() >= 3]


def _kind_splits(run: RecordedRun) -> list[np.ndarray]:
    """(R,) masks: every kind of death in turn."""
    kinds = np.array([kind_of(item) for item in run.configurations])
    masks = [kinds == kind for kind in dict.fromkeys(kinds)]
    return [held_R for held_R in masks if held_R.sum() >= 3 and (~held_R).sum() >= 3]


def _fit(known_RF: np.ndarray, finals_R: np.ndarray, new_RF: np.ndarray) -> np.ndarray:
    from sklearn.decomposition import PCA
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    components = min(_COMPONENTS, known_RF.shape[1], len(known_RF) - 1)
    model = make_pipeline(StandardScaler(), PCA(components, svd_solver="full"), RidgeCV(_PENALTIES))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # features without any difference are expected: no turnover yet
        return model.fit(known_RF, finals_R).predict(new_RF)
