"""Work ahead of a round's end, workers that die, and disks that are full: the outcome does not change."""

import errno
import os
import random
import resource
import signal
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import hyperprune as hp
from hyperprune.errors import InputError, WorkerError
from hyperprune.folder_lock import holder
from hyperprune.hypersearch.executor import Execution, Executor, Lost, check_execution
from hyperprune.hypersearch.executor.choose import _places
from hyperprune.hypersearch.executor.contract import portable
from hyperprune.hypersearch.executor.local import _seeing
from hyperprune.hypersearch.journal import Journal, read_journal
from hyperprune.hypersearch.live_arena import LiveArena
from hyperprune.hypersearch.observer import SilentObserver
from hyperprune.hypersearch.run_folder import RunFolder, epochs_in_training, read_run
from hyperprune.hypersearch.space import Space
from hyperprune.records import EpochRecord
from hyperprune.rng import derive_seed
from hyperprune.training.segment import Advance
from tiny_task import TinyTask

LSH = hp.LSH(candidates=12, first_epochs=1, round_epochs=2, final_epochs=20, proposer="random")
SHORT = hp.LSH(candidates=3, first_epochs=1, round_epochs=1, final_epochs=3)


class Scripted(Executor):
    """`places` workers whose segments end in a random order; what they train is made up, by name and epoch.

    Keeps what was submitted. Segments of `doomed` candidates beyond an epoch are lost; a candidate whose
    death rate is above `fails_above` fails in its third epoch.
    """

    def __init__(self, *, places=1, seed=0, doomed=None, fails_above=1.0):
        super().__init__()
        self._places, self._random, self._doomed = places, random.Random(seed), doomed or {}
        self._fails_above = fails_above
        self.submitted = []

    @property
    def idle(self):
        return max(0, self._places - len(self._waiting))

    def submit(self, job):
        self.submitted.append((job, [other.key for other in self._waiting]))
        super().submit(job)

    def wait(self, on_epoch):
        self._waiting.rotate(-self._random.randrange(min(self._places, len(self._waiting))))
        job = self._waiting.popleft()
        if job.to_epoch > self._doomed.get(job.key, job.to_epoch):
            return job, Lost("killed by SIGKILL")
        fails = getattr(job.training.method, "death_rate", 0.0) > self._fails_above
        last = min(job.to_epoch, 2) if fails else job.to_epoch
        records = tuple(_made_up(job.training.name, epoch) for epoch in range(last + 1))
        best = min(records[1:], key=lambda record: record.metric).epoch if last else None
        return job, Advance(
            epochs=records, best_epoch=best, failure="made up" if last < job.to_epoch else None
        )

    def close(self):
        self._waiting.clear()


def _made_up(name, epoch):
    draws = np.random.default_rng(derive_seed(epoch, name))
    loss = draws.uniform(1, 2)
    return EpochRecord(
        epoch=epoch,
        train_loss=loss,
        valid_loss=loss,
        metric=loss,
        seconds=1.0,
        spectrum=np.sort(draws.normal(size=8))[::-1],
    )


def _facts(record):
    return [
        (
            *(row.key, row.configuration, row.outcome, row.reason, row.signals, row.metric),
            *((epoch.valid_loss, tuple(epoch.spectrum)) for epoch in row.epochs),
        )
        for row in (record.reference, *record.candidates)
    ]


def _search(executor, strategy, folder, seed=3):
    """A search of made-up trainings, driven as `hp.search` drives its arena."""
    task = TinyTask()
    header = {
        "event": "run",
        "identity": {"format": 1, "device": "cpu", "threads": 1},
        "task": task.name,
        "sparsity": task.sparsity,
        "seed": seed,
        "strategy": strategy.to_json(),
        "metric": task.metric,
        "lower_is_better": True,
        "baseline": None,
        "provenance": {},
    }
    with RunFolder(folder) as run:
        run.begin(header)
        arena = LiveArena(task, Space(), run, executor, measures_spectra=True, observer=SilentObserver())
        finalists = strategy.run(arena)
        if not run.state.finished:
            arena.record({"event": "finished", "finalists": finalists})
        return run.state.to_record()


def _ahead(executor, strategy):
    """Candidates' segments that began while others of an earlier round still ran."""
    ends = {planned.epoch: planned.number for planned in strategy.plan()} | {strategy.final_epochs: 99}
    rounds, ahead = {}, []
    for job, running in executor.submitted:
        rounds[job.key] = ends[job.to_epoch]
        if job.key != "dense" and any(rounds[key] < rounds[job.key] for key in running if key != "dense"):
            ahead.append(job.key)
    return ahead


@pytest.mark.parametrize(
    "strategy",
    [
        LSH,
        hp.LSH(candidates=12, first_epochs=1, round_epochs=2, final_epochs=20, proposer="tpe"),
        hp.LSH(candidates=12, first_epochs=1, round_epochs=2, final_epochs=20, proposer="tpe", history="all"),
        hp.LSH(candidates=9, first_epochs=3, round_epochs=1, final_epochs=9, signal="loss"),
        hp.SuccessiveHalving(candidates=12, first_epochs=2, eta=2, final_epochs=16),
        hp.Hyperband(first_epochs=1, eta=3, final_epochs=9, signal="spectrum_raw"),
        hp.Hyperband(first_epochs=1, eta=3, final_epochs=9, proposer="tpe"),
    ],
    ids=["lsh", "tpe", "tpe of all", "lsh by loss", "successive halving", "hyperband", "hyperband tpe"],
)
@pytest.mark.parametrize("fails_above", [1.0, 0.7])
def test_rounds_are_no_barriers_and_the_result_is_the_one_with_barriers(tmp_path, strategy, fails_above):
    plain = _search(Scripted(fails_above=fails_above), strategy, tmp_path / "plain")
    assert (fails_above < 1) == any(row.outcome == "failed" for row in plain.candidates)
    begun_ahead = 0
    for seed in range(3):
        executor = Scripted(places=8, seed=seed, fails_above=fails_above)
        record = _search(executor, strategy, tmp_path / str(seed))
        assert _facts(record) == _facts(plain)
        assert record.rounds == plain.rounds
        assert record.epochs_spent == plain.epochs_spent
        begun_ahead += len(_ahead(executor, strategy))
    assert begun_ahead > 0


def test_where_a_value_depends_on_the_others_only_the_reference_goes_ahead(tmp_path):
    strategy = hp.LSH(candidates=12, first_epochs=1, round_epochs=2, final_epochs=20, signal="blend")
    executor = Scripted(places=8)
    record = _search(executor, strategy, tmp_path / "ahead")
    assert _ahead(executor, strategy) == []
    dense = [(job.to_epoch, running) for job, running in executor.submitted if job.key == "dense"]
    assert any(running for to_epoch, running in dense if to_epoch > strategy.first_epochs)
    assert _facts(record) == _facts(_search(Scripted(), strategy, tmp_path / "plain"))


def test_a_candidate_whose_worker_dies_every_time_is_marked_failed_and_the_others_go_on(tmp_path):
    record = _search(Scripted(places=3, doomed={"c02": 0}), LSH, tmp_path)
    failed = next(row for row in record.candidates if row.key == "c02")
    assert failed.outcome == "failed"
    assert failed.reason == "its worker died 3 times, the last time killed by SIGKILL"
    assert record.finished
    assert len(record.rounds[0].signals) == LSH.candidates - 1
    # The same command answers from the journal, and does not try it again.
    assert _facts(_search(Scripted(), LSH, tmp_path)) == _facts(record)


def test_a_finalist_lost_last_of_all_is_marked_failed_too(tmp_path):
    whole = _search(Scripted(), LSH, tmp_path / "whole")
    doomed = whole.candidates[0].key
    executor = Scripted(doomed={doomed: LSH.final_epochs - 1})
    record = _search(executor, LSH, tmp_path / "lost")
    rows = {row.key: row for row in record.candidates}
    assert rows[doomed].outcome == "failed"
    assert record.candidates[0].outcome == "finalist"


@pytest.mark.parametrize("doomed", [("c01", "c02"), ("dense",)])
def test_two_lost_in_a_row_or_the_reference_stop_the_search_and_mark_nobody(tmp_path, doomed):
    with pytest.raises(WorkerError, match=f"{doomed[-1]} cannot be trained: its worker died 3 times"):
        _search(Scripted(doomed=dict.fromkeys(doomed, 0)), LSH, tmp_path)
    assert all(row.outcome == "running" for row in read_run(tmp_path).candidates)
    record = _search(Scripted(), LSH, tmp_path)
    assert record.finished
    assert all(row.outcome != "failed" for row in record.candidates)


class DiesOnce(TinyTask):
    """Kills the first process that trains a second epoch."""

    def __init__(self, mark):
        self.mark = mark

    def identity(self):
        return {"name": "dies once"}

    def batches(self, split, epoch):
        if self.mark and split == "train" and epoch == 2 and not Path(self.mark).exists():
            Path(self.mark).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().batches(split, epoch)


def test_a_worker_that_dies_once_is_replaced_and_nothing_changes(tmp_path):
    plain = hp.search(DiesOnce(""), SHORT, folder=tmp_path / "plain", seed=1)
    died = hp.search(DiesOnce(str(tmp_path / "died")), SHORT, folder=tmp_path / "two", seed=1, workers=2)
    assert (tmp_path / "died").exists()
    assert _facts(died.record) == _facts(plain.record)


@contextmanager
def _files_of_at_most(size):
    """A disk that takes a part of a write and then says that it is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_full_at_a_checkpoint_is_an_error_and_the_search_goes_on_when_there_is_room(tmp_path):
    whole = hp.search(TinyTask(), SHORT, folder=tmp_path / "whole", seed=3)
    with _files_of_at_most(12_000), pytest.raises(OSError, match="File too large"):  # checkpoints have 18 kB
        hp.search(TinyTask(), SHORT, folder=tmp_path / "full", seed=3)
    assert not list((tmp_path / "full").rglob("*.partial*"))
    again = hp.search(TinyTask(), SHORT, folder=tmp_path / "full", seed=3)
    assert _facts(again.record) == _facts(whole.record)
    full = OSError(28, "No space left on device")
    assert portable(full) is full  # a worker tells of it as it is


class Own(InputError):
    """An error of a task's own class."""


class Unsendable(InputError):
    __module__ = "hyperprune.errors"  # as one of the package that holds what cannot be sent

    def __init__(self, first, second):
        super().__init__(f"{first} and {second}")


@pytest.mark.parametrize("error", [Own("mine"), Unsendable("this", "that"), OSError(lambda: None)])
def test_an_error_that_another_process_could_not_read_is_told_as_text(error):
    told = portable(error)
    assert type(told) is WorkerError
    assert type(error).__name__ in str(told)


def test_a_disk_full_when_a_run_is_opened_asks_for_room_and_not_for_another_folder(tmp_path):
    RunFolder(tmp_path).close()
    with _files_of_at_most(0), pytest.raises(OSError, match="File too large"):
        RunFolder(tmp_path)
    RunFolder(tmp_path).close()


def test_a_disk_without_locks_is_told_as_such_and_held_by_nobody(tmp_path, monkeypatch):
    def flock(file, how):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    RunFolder(tmp_path).close()
    monkeypatch.setattr("fcntl.flock", flock)
    with pytest.raises(InputError, match=r"must be writable, .* \(Operation not supported\)"):
        RunFolder(tmp_path)
    assert holder(tmp_path) is None


def test_what_a_killed_report_left_of_its_pictures_is_removed(tmp_path):
    RunFolder(tmp_path).close()
    (tmp_path / "pictures").mkdir()
    for name in (".rounds.png.partial-ab", "rounds.png"):
        (tmp_path / "pictures" / name).touch()
    RunFolder(tmp_path).close()
    assert [path.name for path in (tmp_path / "pictures").iterdir()] == ["rounds.png"]


def test_a_disk_full_at_the_journal_leaves_it_whole_and_the_search_goes_on_when_there_is_room(tmp_path):
    whole = _search(Scripted(), LSH, tmp_path / "whole")
    for size in (3_000, 9_000, 20_000):
        with _files_of_at_most(size), pytest.raises(OSError, match="journal"):
            _search(Scripted(), LSH, tmp_path / "full")
        events, length = read_journal(tmp_path / "full" / "journal.jsonl")
        assert events
        assert length == (tmp_path / "full" / "journal.jsonl").stat().st_size <= size
    assert _facts(_search(Scripted(), LSH, tmp_path / "full")) == _facts(whole)


def test_a_journal_that_could_not_take_a_record_takes_it_later(tmp_path):
    journal = Journal(tmp_path / "journal")
    journal.append({"number": 1})
    with _files_of_at_most(40), pytest.raises(OSError, match="journal"):
        journal.append({"text": "x" * 100})
    assert read_journal(tmp_path / "journal")[0] == [{"number": 1}]
    journal.append({"number": 2})
    journal.close()
    assert read_journal(tmp_path / "journal")[0] == [{"number": 1}, {"number": 2}]


@pytest.mark.parametrize(
    ("settings", "device", "message"),
    [
        ({"executor": "dask"}, "cpu", "unknown executor 'dask'"),
        ({"workers": 0}, "cpu", "workers must be a whole number of at least 1, got 0"),
        ({"ray_address": "auto"}, "cpu", "ray_address is for the executor 'ray'"),
        ({"gpus_per_candidate": 0.0}, "cpu", r"must lie in \(0, 1\], got 0"),
        ({"gpus_per_candidate": 0.25}, "cpu", "needs a GPU, and the device is 'cpu'; add --device cuda"),
        ({"executor": "ray"}, "cuda:1", "on Ray the device is 'cpu' or 'cuda', got 'cuda:1'"),
        ({}, "tpu", "device must be 'cpu' or 'cuda'"),
    ],
)
def test_what_cannot_run_is_refused(settings, device, message):
    with pytest.raises(InputError, match=message):
        check_execution(TinyTask(), Execution(**settings), device)


def test_workers_are_spread_over_gpus_and_share_them(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert _places(Execution(), "cuda") == [0, 1]
    assert _places(Execution(gpus_per_candidate=1 / 3), "cuda") == [0, 1, 0, 1, 0, 1]
    assert _places(Execution(workers=3), "cuda") == [0, 1, 0]
    assert _places(Execution(workers=2), "cuda:1") == [None, None]
    with pytest.raises(InputError, match=r"at most 4 workers fit on 2 GPU\(s\), got 5"):
        _places(Execution(workers=5, gpus_per_candidate=0.5), "cuda")


def test_a_worker_sees_its_own_gpu_alone(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4, 7")
    with _seeing(1):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "7"
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "4, 7"
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    with _seeing(1):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "1"
    assert "CUDA_VISIBLE_DEVICES" not in os.environ


def test_the_status_tells_how_far_running_segments_are(tmp_path):
    _search(Scripted(), LSH, tmp_path)
    with RunFolder(tmp_path) as run:
        run.note_epoch("c03", 4)
        assert epochs_in_training(tmp_path) == {"c03": 4}
        run.record(
            {
                "event": "segment",
                "key": "c03",
                "epochs": [],
                "best_epoch": None,
                "checkpoint": None,
                "failure": "for the test",
            }
        )
        assert epochs_in_training(tmp_path) == {"c03": 4}  # within a second it is not written again …
    assert epochs_in_training(tmp_path) == {}  # … but at the end
    with RunFolder(tmp_path) as run:  # which may come as soon as an epoch has been written
        run.note_epoch("c03", 5)
        assert epochs_in_training(tmp_path) == {"c03": 5}
    assert epochs_in_training(tmp_path) == {}
    (tmp_path / "status.json").write_text("{")
    assert epochs_in_training(tmp_path) == {}
