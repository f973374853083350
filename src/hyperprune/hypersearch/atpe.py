"""Adaptive TPE, by hyperopt (the extra `atpe`): a TPE whose settings a trained model picks from the results.

hyperopt's own `atpe.suggest` is left aside, and its optimizer is asked directly, because `suggest`
- ignores its seed: it draws from the global generators, which are seeded here and given back as they were;
- proposes a batch without knowing of its own first proposals: here each is told with the worst value;
- loads its models again for every proposal (0.3 s each);
- forgets, in a space with branches, which branch was drawn: here the branch is a first, flat question, and
  its settings are a second one, with the results of that branch alone.

hyperopt draws at random until it knows 10 results.

Reference: B. Arsenault, "Optimizing optimization" (hyperopt, `hyperopt.atpe`); Bergstra et al. 2011 for TPE.
"""

from __future__ import annotations

import random as python_random
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np

from hyperprune.errors import InputError, install
from hyperprune.hypersearch.dimensions import Choice, Dimension
from hyperprune.hypersearch.proposers import History, Seen, distinct
from hyperprune.hypersearch.proposers import random as uniform
from hyperprune.hypersearch.space import Configuration, Space

_BRANCH = "branch"
# hyperopt fails on spaces without a number; one that never changes carries no information.
_IDLE = {"idle": {"type": "number", "mode": "uniform", "min": 0.0, "max": 1.0, "name": "idle"}}
Places = dict[str, tuple[Dimension, Any]]


def atpe(
    space: Space, count: int, history: History, known: Sequence[Configuration], seed: int
) -> list[Configuration]:
    """Proposals of adaptive TPE; the arguments are those of every proposer.

    Raises:
        InputError: hyperopt, lightgbm or scikit-learn is missing, or the space has too little left.
    """
    optimizer = require_hyperopt()
    told = [(seen, place) for seen in history if (place := space.coordinates(seen.configuration)) is not None]
    if not told:
        return uniform(space, count, history, known, seed)
    losses = _losses([seen for seen, _ in told])
    results = [(place, loss) for (_, place), loss in zip(told, losses, strict=True)]
    worst = max(losses)

    def draw() -> Configuration:
        answers: dict[str, Any] = {}

        def suggest(name: str, own: Dimension) -> Any:
            if name not in answers:
                answers.update(_recommend(optimizer, space, results, answers))
            return answers[name]

        configuration = space.ask(suggest)
        place = space.coordinates(configuration)
        assert place is not None
        results.append((place, worst))
        return configuration

    with _seeded(seed), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # hyperopt's and lightgbm's own, about each other
        return distinct(draw, count, known, space, seed)


def _recommend(
    optimizer: Any, space: Space, results: Sequence[tuple[Places, float]], answers: dict[str, Any]
) -> dict[str, Any]:
    """Answers to the branch, or, once it is known, to all of its dimensions together."""
    if len(space.branches) > 1 and _BRANCH not in answers:
        questions = {_BRANCH: Choice(tuple(range(len(space.branches))))}
    else:
        questions = space.dimensions(answers.get(_BRANCH, 0))
    open_ones = {name: own for name, own in questions.items() if own.size > 1}
    fixed = {name: own.grid[0] for name, own in questions.items() if own.size == 1}
    if not open_ones:
        return fixed
    names = {name: f"d{number}" for number, name in enumerate(open_ones)}  # a dot in a name means nesting
    config = {
        "type": "object",
        "properties": {names[name]: _described(names[name], own) for name, own in open_ones.items()} | _IDLE,
    }
    alike = [(place, loss) for place, loss in results if open_ones.keys() <= place.keys()]
    told = [
        {
            "trial": number,
            "status": "ok",
            "loss": loss,
            "log": "",
            "time": 0.0,
            "idle": 0.5,
            **{names[name]: _told(*place[name]) for name in open_ones},
        }
        for number, (place, loss) in enumerate(alike)
    ]
    answer = optimizer.recommendNextParameters(config, told, currentTrials=[])
    return fixed | {name: _answer(answer[names[name]], own) for name, own in open_ones.items()}


def _described(name: str, own: Dimension) -> dict[str, Any]:
    """A dimension in hyperopt's words."""
    if isinstance(own, Choice):
        return {"type": "string", "enum": [str(index) for index in range(own.size)], "name": name}
    scaling = "logarithmic" if own.log else "linear"
    return {
        "type": "number",
        "mode": "uniform",
        "scaling": scaling,
        "min": own.low,
        "max": own.high,
        "name": name,
    }


def _told(own: Dimension, value: Any) -> Any:
    return str(own.options.index(value)) if isinstance(own, Choice) else value


def _answer(value: Any, own: Dimension) -> Any:
    if isinstance(own, Choice):
        return own.options[int(value)]
    # A logarithm there and back may leave the range by its last bit.
    return own.rounded(min(max(float(value), own.low), own.high))


def _losses(history: Sequence[Seen]) -> list[float]:
    """Positive numbers in the order of preference: signals, or, where some were eliminated, ranks.

    The eliminated come after all others, the later ones first, as signals of different epochs do not compare.
    """
    if all(seen.dropped_at is None for seen in history):
        lowest = min(seen.signal for seen in history)
        return [seen.signal + (0.1 - lowest if lowest <= 0 else 0.0) for seen in history]

    def order(index: int) -> tuple[float, ...]:
        seen = history[index]
        return (seen.dropped_at is not None, -(seen.dropped_at or 0), seen.signal)

    ranks = dict(zip(sorted(range(len(history)), key=order), range(1, len(history) + 1), strict=True))
    return [float(ranks[index]) for index in range(len(history))]


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """The global generators that hyperopt draws from, seeded, and afterwards as they were."""
    python_state, numpy_state = python_random.getstate(), np.random.get_state()  # noqa: NPY002
    python_random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    try:
        yield
    finally:
        python_random.setstate(python_state)
        np.random.set_state(numpy_state)  # noqa: NPY002


@lru_cache(maxsize=1)
def require_hyperopt() -> Any:
    """The optimizer behind the proposer; an InputError where it is not installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import sklearn.preprocessing  # noqa: F401  # hyperopt takes for granted that it is loaded
            from hyperopt.atpe import ATPEOptimizer

            return ATPEOptimizer()
    except ImportError as error:
        raise InputError(
            f"the proposer 'atpe' needs hyperopt, lightgbm and scikit-learn ({error}); "
            f"{install('atpe')}, or use --proposer tpe"
        ) from error
