"""Test accuracy predicted from a graph's properties: Bayesian ridge, random forest, AdaBoost.

scikit-learn is an optional dependency and is imported only here.

Reference: the sparse-RNN thesis, section 6.4 and appendix B. It scales features to [0, 1] on all graphs,
fits nine tenths and reports R² on the other tenth, 20 graphs. `holdout` is that figure, with its split
(seed 7); `cross_validated` is what to trust: every graph is predicted by a model that has not seen it.

Axes: N networks, F features.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hyperprune.errors import InputError, install
from hyperprune.experiments.random_structure_results import Outcome
from hyperprune.graphs import FEATURES

FEWEST = 10  # networks; a tenth of fewer is none
_FOLDS, _REPEATS = 5, 3
_SPLITS = 20  # other tenths held out, to show how far one says something

_COUNTS = ("nodes", "edges", "source_nodes", "sink_nodes")
FEATURE_SETS: dict[str, tuple[str, ...]] = {
    "all": FEATURES,
    "counts only: nodes, edges, sources, last layer": _COUNTS,
    "all but these counts": tuple(name for name in FEATURES if name not in _COUNTS),
    "variances only": tuple(name for name in FEATURES if name.endswith("_var")),
}
"""The four sets of the thesis's appendix B, which calls the counts nodes and edges."""
REGRESSORS = ("Bayesian ridge", "random forest", "AdaBoost")


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """How well accuracy is predicted.

    Attributes:
        cross_validated: R² of the pooled predictions of five folds, the mean over three shufflings; its
            spread is their standard deviation. 0 is as good as the mean accuracy, below 0 is worse.
        holdout: the thesis's R², on the tenth that its split holds out.
        holdout_range: the lowest and highest R² of 20 other tenths. This and the others are NaN where the
            accuracies to be predicted do not vary.
        importances: by feature, of a model of all networks; coefficients of the ridge, whose features are
            scaled to [0, 1].
    """

    regressor: str
    features: tuple[str, ...]
    cross_validated: float
    spread: float
    holdout: float
    holdout_range: tuple[float, float]
    importances: Mapping[str, float]


def require_sklearn() -> None:
    """Raise InputError where scikit-learn is not installed."""
    try:
        import sklearn  # noqa: F401
    except ImportError as error:
        raise InputError(f"the prediction of accuracy needs scikit-learn; {install('studies')}") from error


def _model(regressor: str) -> Any:
    from sklearn.ensemble import AdaBoostRegressor, RandomForestRegressor
    from sklearn.linear_model import BayesianRidge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MinMaxScaler

    kinds = {
        "Bayesian ridge": BayesianRidge,
        "random forest": lambda: RandomForestRegressor(random_state=0),
        "AdaBoost": lambda: AdaBoostRegressor(random_state=0),
    }
    return make_pipeline(MinMaxScaler(), kinds[regressor]())


def predict(outcomes: Sequence[Outcome], regressor: str, features: Sequence[str] = FEATURES) -> Prediction:
    """Predict the accuracy of networks of one cell.

    Args:
        outcomes: at least `FEWEST`.
        regressor: one of `REGRESSORS`.
        features: what is known of a graph.

    Raises:
        InputError: too few networks, or scikit-learn is not installed.
    """
    require_sklearn()
    if len(outcomes) < FEWEST:
        raise InputError(f"a prediction needs at least {FEWEST} networks, got {len(outcomes)}; train more")
    x_NF = np.array([[outcome.features[name] for name in features] for outcome in outcomes])
    y_N = np.array([outcome.accuracy for outcome in outcomes])
    repeated = [_cross_validated(regressor, x_NF, y_N, seed) for seed in range(_REPEATS)]
    others = [_holdout(regressor, x_NF, y_N, 100 + split) for split in range(_SPLITS)]
    others = [value for value in others if not math.isnan(value)]
    fitted = _model(regressor).fit(x_NF, y_N)[-1]
    with np.errstate(invalid="ignore"):  # where nothing is learned, AdaBoost divides 0 by 0
        weights = fitted.coef_ if regressor == "Bayesian ridge" else fitted.feature_importances_
    return Prediction(
        regressor=regressor,
        features=tuple(features),
        cross_validated=statistics.fmean(repeated),
        spread=float(np.std(repeated, ddof=1)),
        holdout=_holdout(regressor, x_NF, y_N, 7),
        holdout_range=(min(others, default=math.nan), max(others, default=math.nan)),
        importances=dict(zip(features, map(float, weights), strict=True)),
    )


def _cross_validated(regressor: str, x_NF: np.ndarray, y_N: np.ndarray, seed: int) -> float:
    from sklearn.model_selection import KFold, cross_val_predict

    folds = KFold(_FOLDS, shuffle=True, random_state=seed)
    return _r2(y_N, np.asarray(cross_val_predict(_model(regressor), x_NF, y_N, cv=folds)))


def _holdout(regressor: str, x_NF: np.ndarray, y_N: np.ndarray, seed: int) -> float:
    """The thesis's way, its scaling on all graphs included."""
    from sklearn.model_selection import train_test_split
    from sklearn.preprocessing import MinMaxScaler

    scaled_NF = MinMaxScaler().fit_transform(x_NF)
    x_train, x_test, y_train, y_test = train_test_split(scaled_NF, y_N, test_size=0.1, random_state=seed)
    return _r2(np.asarray(y_test), _model(regressor)[-1].fit(x_train, y_train).predict(x_test))


def _r2(y_N: np.ndarray, predicted_N: np.ndarray) -> float:
    """1 − the share of variance left; NaN where there is none."""
    if np.ptp(y_N) == 0:  # their mean may be off by round-off
        return math.nan
    return 1 - float(((y_N - predicted_N) ** 2).sum() / ((y_N - y_N.mean()) ** 2).sum())
