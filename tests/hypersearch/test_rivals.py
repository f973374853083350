"""Live searches by other strategies, interrupted and not, and what a proposer is told."""

import pytest
import torch

import hyperprune as hp
from hyperprune.hypersearch.executor import InProcess
from hyperprune.hypersearch.live_arena import LiveArena
from hyperprune.hypersearch.observer import SilentObserver
from hyperprune.hypersearch.proposers import PROPOSERS, Seen
from hyperprune.hypersearch.run_folder import RunFolder
from hyperprune.hypersearch.space import Configuration, Space
from hyperprune.hypersearch.strategy import EveryCandidateFailed, planned_epochs
from hyperprune.records import EpochRecord
from tiny_task import TinyModel, TinyTask

BAND = hp.Hyperband(final_epochs=4, first_epochs=1, eta=2)
HALVING = hp.SuccessiveHalving(candidates=5, final_epochs=4, first_epochs=1, eta=2, signal="blend")


class StopsAfter:
    """An observer that interrupts a search after so many events."""

    def __init__(self, events):
        self.left = events

    def event(self, state, event):
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt

    def epoch(self, state, key, record: EpochRecord):
        pass

    def note(self, text):
        pass


def _facts(record):
    return [
        (row.key, row.label, row.outcome, dict(row.signals), row.metric, row.born_in, len(row.epochs))
        for row in record.candidates
    ], [(entry.number, entry.epoch, entry.kept, entry.inserted) for entry in record.rounds]


def _search_in_pieces(task, strategy, folder, events, **arguments):
    interruptions = 0
    while True:
        try:
            return hp.search(task, strategy, folder=folder, observer=StopsAfter(events), **arguments)
        except KeyboardInterrupt:
            interruptions += 1
            assert interruptions < 200


@pytest.mark.long
@pytest.mark.parametrize("strategy", [BAND, HALVING], ids=lambda strategy: strategy.name)
def test_a_rival_spends_what_it_planned_and_goes_on_after_interruptions(strategy, tmp_path):
    whole = hp.search(TinyTask(), strategy, folder=tmp_path / "whole", seed=2)
    assert whole.epochs_spent == planned_epochs(strategy)
    assert len(whole.record.candidates) == strategy.created
    assert [entry.number for entry in whole.record.rounds] == [row.number for row in strategy.plan()]
    assert [len(entry.inserted) for entry in whole.record.rounds] == [row.inserted for row in strategy.plan()]
    finalists = [row for row in whole.record.candidates if row.outcome == "finalist"]
    assert whole.best.metric == min(row.metric for row in finalists if row.metric is not None)
    pieces = _search_in_pieces(TinyTask(), strategy, tmp_path / "pieces", 3, seed=2)
    assert _facts(pieces.record) == _facts(whole.record)


class FailsLater(TinyTask):
    """Candidates whose masks leave the first two input weights alive in epoch 2 cannot be trained there."""

    def batches(self, split, epoch):
        self.now = epoch if split == "train" else getattr(self, "now", 0)
        return super().batches(split, epoch)

    def loss(self, model, batch, state):
        outcome = super().loss(model, batch, state)
        assert isinstance(model, TinyModel)
        weights = model.rnn.weight_ih_l0
        assert isinstance(weights, torch.Tensor)
        doomed = bool((weights == 0).any()) and bool((weights[:2, 0] != 0).all())
        late = model.training and self.now == 2
        return outcome._replace(loss=outcome.loss * float("inf")) if doomed and late else outcome


def test_a_candidate_that_fails_after_a_round_still_was_in_it_when_the_search_goes_on(tmp_path):
    lsh = hp.LSH(candidates=6, first_epochs=1, round_epochs=1, final_epochs=6, proposer="random")
    whole = hp.search(FailsLater(), lsh, folder=tmp_path / "whole", seed=1)
    ranked_then_failed = [row for row in whole.record.candidates if row.outcome == "failed" and row.signals]
    assert ranked_then_failed
    with RunFolder(tmp_path / "whole") as run:
        keys = [row.key for row in ranked_then_failed]
        assert _arena(run).advance(keys, 1) == keys
        with pytest.raises(
            EveryCandidateFailed, match=f"every candidate failed(.|\n)*{keys[0]}: the training"
        ):
            _arena(run).advance(keys, lsh.final_epochs)
        # Proposers are told of it as the survivor that it was, whenever it failed since.
        number = max(ranked_then_failed[0].signals)
        entry = run.state.round(number)
        assert entry is not None
        assert keys[0] in entry.kept
        told = [item.configuration for item in _arena(run)._history(number, "all")]
        left = [
            row
            for row in whole.record.candidates
            if row.signals and (row.outcome != "failed" or row.key in entry.kept)
        ]
        assert sorted(map(str, told)) == sorted(
            str(Configuration.from_json(row.configuration)) for row in left
        )
    pieces = _search_in_pieces(FailsLater(), lsh, tmp_path / "pieces", 1, seed=1)
    assert _facts(pieces.record) == _facts(whole.record)


def _arena(run, space=None):
    return LiveArena(
        TinyTask(),
        space or Space(),
        run,
        InProcess(TinyTask()),
        measures_spectra=True,
        observer=SilentObserver(),
    )


def test_history_all_tells_the_eliminated_with_their_last_epoch_and_survivors_does_not(tmp_path, monkeypatch):
    told = {}

    def listening(space, count, history, known, seed):
        told[which] = list(history)
        return PROPOSERS["random"](space, count, history, known, seed)

    monkeypatch.setitem(PROPOSERS, "listening", listening)
    for which in ("survivors", "all"):
        lsh = hp.LSH(
            candidates=4,
            first_epochs=1,
            round_epochs=1,
            final_epochs=2,
            proposer="listening",
            history=which,
            signal="loss",
        )
        result = hp.search(TinyTask(), lsh, folder=tmp_path / which, seed=0)
        first = result.record.rounds[0]
        dropped = [key for key in first.signals if key not in first.kept]
        assert [(seen.signal, seen.dropped_at) for seen in told[which]] == [
            *((first.signals[key], None) for key in first.kept),
            *((first.signals[key], 1) for key in dropped if which == "all"),
        ]


def test_tpe_takes_the_eliminated_for_worse_than_every_survivor_whatever_their_signal():
    # Survivors (er) have the larger numbers here: as completed trials the eliminated would win.
    import numpy as np

    space = Space()
    random = np.random.default_rng(0)
    drawn = [space.sample(random) for _ in range(60)]
    is_er = [dict(item.settings)["allocation"] == "er" for item in drawn]
    pruned = [
        Seen(item, 2.0, None) if er else Seen(item, 1.0, 3) for item, er in zip(drawn, is_er, strict=True)
    ]
    completed = [Seen(item, seen.signal) for item, seen in zip(drawn, pruned, strict=True)]

    def share_er(history):
        batches = [PROPOSERS["tpe"](space, 8, history, drawn, seed) for seed in range(4)]
        return np.mean([dict(item.settings)["allocation"] == "er" for batch in batches for item in batch])

    assert share_er(pruned) > 0.6
    assert share_er(completed) < 0.4


def test_the_weights_of_a_hyperband_winner_load_again(tmp_path):
    band = hp.Hyperband(final_epochs=2, first_epochs=1, eta=2)
    result = hp.search(TinyTask(), band, folder=tmp_path, seed=0, workers=1)
    assert isinstance(hp.load_model(result.checkpoint, TinyTask()), torch.nn.Module)
    with RunFolder(tmp_path) as run:
        assert run.state.round(99) is None
