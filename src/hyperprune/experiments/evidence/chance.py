"""What chance ends with: the best of a few recorded candidates drawn at random and trained to the end."""

from __future__ import annotations

from math import comb
from typing import NamedTuple

import numpy as np

from hyperprune.experiments.evidence.worlds import World

_DRAWS = 20_000
HALVING = 2
"""Who halves all candidates without knowing anything keeps two random ones."""


class Chance(NamedTuple):
    """What is lost by the best one of so many random candidates.

    Attributes:
        num_rows: how many are drawn from.
        picks: how many are drawn.
        mean: of the relative regret, over all ways to draw them and over seeds.
        draws: (D,) the mean over seeds of one draw in each.
    """

    num_rows: int
    picks: int
    mean: float
    draws: np.ndarray

    def as_good(self, regret: float) -> float:
        """The share of the draws that lose no more, as a share that may be rounded to six digits."""
        return float((self.draws <= regret + 1e-6).mean())


def chance(world: World, picks: int = HALVING, *, seed: int = 0) -> Chance:
    """Of a world's candidates; of all of them, where more are picked than there are."""
    random = np.random.default_rng(seed)
    data = world.table
    num_rows = data.num_rows
    picks = min(picks, num_rows)
    shares = [comb(num_rows - 1 - row, picks - 1) / comb(num_rows, picks) for row in range(num_rows)]
    means, draws = [], []
    for run in data.runs:
        finals = np.array([data.final_metric(records) for records in run.candidates])
        ends = np.sort(finals if data.lower_is_better else -finals)
        regrets = (ends - ends[0]) / abs(ends[0])
        means.append(regrets @ shares)  # the i-th is the best of a draw with others behind it alone
        draws.append(random.choice(regrets, size=_DRAWS, p=shares))
    return Chance(num_rows, picks, float(np.mean(means)), np.mean(draws, axis=0))


def trained_fully(world: World, epochs: float) -> Chance:
    """What so many epochs buy without any signal: spent on random candidates that are trained to the end."""
    return chance(world, max(1, int(epochs / world.table.final_epochs)))
