"""Parts of one's own: a signal, a proposer, a strategy and a space, beside the task that they serve.

    hyperprune search examples/own_parts.py:task --strategy one_cut --signal gap --proposer ends \\
        --space gentle

A part is known by its name once this file is imported, which naming the task does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from own_task import Forecast

from hyperprune.hypersearch.dimensions import Range
from hyperprune.hypersearch.proposers import PROPOSERS, History, distinct
from hyperprune.hypersearch.signals import SIGNALS, Records
from hyperprune.hypersearch.space import Branch, Configuration, Space
from hyperprune.hypersearch.spaces import SPACES
from hyperprune.hypersearch.strategies import STRATEGIES
from hyperprune.hypersearch.strategy import Arena, Strategy


class Gap:
    """How much faster the training loss falls than the validation loss: what is learned by heart."""

    needs_spectra = False

    def __call__(self, reference: Records, candidates: Mapping[str, Records]) -> dict[str, float]:
        return {
            key: records[-1].valid_loss - (records[-1].train_loss or math.inf)
            for key, records in candidates.items()
        }


def ends(
    space: Space, count: int, history: History, known: Sequence[Configuration], seed: int
) -> list[Configuration]:
    """Draws of grid values: low, middle and high of every range."""
    random = np.random.default_rng(seed)

    def draw() -> Configuration:
        return space.ask(lambda _, own: own.grid[random.integers(len(own.grid))])

    return distinct(draw, count, known, space, seed)


@dataclass(frozen=True, kw_only=True)
class OneCut(Strategy):
    """Rank once, keep so many.

    Attributes:
        cut_epoch: when.
        keep: how many.
    """

    proposer: str = "random"
    cut_epoch: int = 1
    keep: int = 2
    name = "one_cut"

    def run(self, arena: Arena) -> list[str]:
        keys = arena.admit(self.proposer, self.candidates, round_number=0)
        keys = self.sift(arena, keys, number=1, epoch=self.cut_epoch, keep=self.keep, later=())
        return arena.advance(keys, self.final_epochs)


def gentle() -> Space:
    """Selfish-RNN with small death rates."""
    return Space(branches=[Branch.of("selfish_rnn", death_rate=Range(0.05, 0.3, digits=2))])


SIGNALS["gap"] = Gap()
PROPOSERS["ends"] = ends
STRATEGIES["one_cut"] = OneCut
SPACES["gentle"] = gentle

task = Forecast()
