"""What goes on from a finished run: more epochs for its finalists, or a further bracket of candidates.

More epochs: the finalists, and the dense reference, are trained on from their checkpoints; the better
metric of the longer training wins. Schedules keep the span that they had: a death rate that had decayed
by the run's first final epoch stays where it ended. So the outcome is not that of a run that was begun
with the longer training, whose death rates would have decayed later. A finalist that fails on the way
keeps what it had reached.

More candidates: the proposer is told of every candidate that was ranked so far, and what it proposes is
sifted by the same strategy with the same epochs, in rounds of its own. The finalists of all brackets are
compared by the metric. Signals of different brackets are never compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from hyperprune.errors import InputError, check_whole
from hyperprune.hypersearch.live_arena import LiveArena
from hyperprune.hypersearch.run_state import REFERENCE_KEY, Event, RunState
from hyperprune.hypersearch.strategy import NUM_FINALISTS, Ahead, Arena, EveryCandidateFailed, Strategy


def extension_event(
    state: RunState, strategy: Strategy | None, *, final_epochs: int | None, candidates: int | None
) -> Event | None:
    """What to enter into the journal for an extension; None if the run is in it, or has done it, already.

    Args:
        state: of the run.
        strategy: its own; None for a run that trained one model.
        final_epochs: of the finalists, more than before.
        candidates: how many more.

    Raises:
        InputError: not one of the two, too little, or the run is at something else.
    """
    if (final_epochs is None) == (candidates is None):
        raise InputError("extend takes either final_epochs or candidates; give one, then extend again")
    if final_epochs is not None:
        check_whole("final_epochs", final_epochs, 1, example="20 trains the finalists to epoch 20")
    last = state.extensions[-1] if state.extensions else None
    asked = (final_epochs, candidates)
    if not state.finished:
        if last is not None and (last.final_epochs, last.candidates) == asked:
            return None
        raise InputError("a run must be finished to be extended, and this one is not; give its command again")
    audited = [state.candidates[key] for key in state.audited]
    planned = state.header["strategy"]["final_epochs"]
    if any(item.reason is None and item.epochs[-1].epoch < planned for item in audited):
        raise InputError(
            "a run's audit must be finished before it is extended, and this one is not; give the search's "
            "command again"
        )
    if final_epochs is not None:
        if last is not None and final_epochs == state.final_epochs > state.header["strategy"]["final_epochs"]:
            return None
        if final_epochs <= state.final_epochs:
            raise InputError(
                f"final_epochs must be more than the run's {state.final_epochs}, got {final_epochs}; try "
                f"{2 * state.final_epochs}"
            )
    else:
        further(strategy, candidates or 0)
    born = {candidate.born_in for candidate in state.candidates.values()}
    last_round = max([*born, *(entry.number for entry in state.rounds)])
    return {
        "event": "extended",
        "final_epochs": final_epochs,
        "candidates": candidates,
        "after_round": last_round + 1 if last_round in born else last_round,
    }


def further(strategy: Strategy | None, candidates: int) -> Strategy:
    """The strategy for so many more candidates.

    Raises:
        InputError: too few of them, or a strategy whose number of candidates follows from other numbers.
    """
    if strategy is None:
        raise InputError("a run of 'hyperprune train' has one model; search for more candidates")
    if candidates < NUM_FINALISTS:
        raise InputError(
            f"candidates must be how many more, at least {NUM_FINALISTS}, got {candidates}; try +10"
        )
    try:
        return replace(strategy, candidates=candidates)
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"the candidates of {strategy.name} follow from its epochs and cannot be more; search with "
            "another seed in another folder"
        ) from error


def carry_out(arena: LiveArena, strategy: Strategy | None, finalists: Sequence[str]) -> list[str]:
    """Do what the run was extended by, one extension after the other; the finalists of all."""
    finalists, final_epochs = list(finalists), arena.state.header["strategy"]["final_epochs"]
    lead = [] if strategy is None else [REFERENCE_KEY]  # a model trained alone has no reference
    for extension in arena.state.extensions:
        if extension.final_epochs is not None:
            final_epochs = extension.final_epochs
            _train_on(arena, [*lead, *finalists], final_epochs)
        elif extension.candidates is not None:
            try:
                new = further(strategy, extension.candidates).run(_Bracket(arena, extension.after_round))
            except EveryCandidateFailed:  # they are in the journal with their reasons
                continue
            _train_on(arena, new, final_epochs)
            finalists += new
    return finalists


def _train_on(arena: LiveArena, keys: Sequence[str], final_epochs: int) -> None:
    """Train beyond what was planned; whoever fails keeps what it had reached."""
    with suppress(EveryCandidateFailed):
        arena.without_reference().advance(keys, final_epochs)


class _Bracket:
    """An arena whose rounds are numbered on from another's, and whose first proposals know of all before."""

    def __init__(self, arena: Arena, after_round: int) -> None:
        self._arena, self._after = arena, after_round

    def admit(self, proposer: str, count: int, *, round_number: int, history: str = "survivors") -> list[str]:
        history = history if round_number else "all"
        return self._arena.admit(proposer, count, round_number=self._after + round_number, history=history)

    def advance(self, keys: Sequence[str], to_epoch: int, *, ahead: Ahead | None = None) -> list[str]:
        return self._arena.advance(keys, to_epoch, ahead=ahead)

    def signals(self, keys: Sequence[str], signal: str, epoch: int) -> dict[str, float]:
        return self._arena.signals(keys, signal, epoch)

    def eliminate(
        self, round_number: int, epoch: int, signals: Mapping[str, float], kept: Sequence[str]
    ) -> list[str]:
        return self._arena.eliminate(self._after + round_number, epoch, signals, kept)
