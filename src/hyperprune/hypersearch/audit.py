"""Eliminated candidates, trained to the end after the search, to learn how good the signal was.

Finalists alone cannot tell: they are those whose signal was small. A few of the others, drawn at random, can
(`trust`). The search's result does not change by it, and its epochs are counted apart.
"""

from __future__ import annotations

import contextlib

import numpy as np

from hyperprune.errors import InputError, check_whole
from hyperprune.hypersearch.live_arena import LiveArena
from hyperprune.hypersearch.run_state import RunState
from hyperprune.hypersearch.strategy import EveryCandidateFailed, Strategy
from hyperprune.rng import derive_seed


def check_audit(strategy: Strategy, count: int | None, before: RunState | None = None) -> None:
    """Whether the strategy will eliminate as many candidates as are to be audited; None is all of them.

    `before` is the run as it was left, which an extension may have given more.

    Raises:
        InputError: it will not, or the count is negative.
    """
    if count is None:
        return
    check_whole("audit", count, 0, example="0 audits nobody")
    so_far = [] if before is None else before.candidates.values()
    eliminated = max(num_eliminated(strategy), sum(item.eliminated_in is not None for item in so_far))
    if count > eliminated:
        raise InputError(
            f"audit must be at most the number of eliminated candidates, {eliminated} with the strategy "
            f"{strategy.name!r}, got {count}; lower it"
        )


def num_eliminated(strategy: Strategy) -> int:
    """How many candidates the strategy will eliminate, if none fails."""
    return sum(planned.entrants - planned.kept for planned in strategy.plan())


def chosen(state: RunState, count: int | None) -> tuple[str, ...]:
    """The keys to audit: those that were before, then others in a seeded order; at most all eliminated.

    None is all, those of extensions among them.
    """
    pool = [key for key, candidate in state.candidates.items() if candidate.eliminated_in is not None]
    order = np.random.default_rng(derive_seed(state.header["seed"], "audit")).permutation(len(pool))
    shuffled = [pool[index] for index in order]
    further = [key for key in shuffled if key not in state.audited]
    missing = len(further) if count is None else max(0, count - len(state.audited))
    return state.audited + tuple(further[:missing])


def audit(arena: LiveArena, strategy: Strategy, count: int | None) -> None:
    """Train `count` eliminated candidates of a finished search to the end, those before among them."""
    keys = chosen(arena.state, count)
    if keys != arena.state.audited:
        arena.record({"event": "audit", "keys": list(keys)})
    if keys:
        with contextlib.suppress(EveryCandidateFailed):  # the search has its result all the same
            arena.advance(keys, strategy.final_epochs)
