"""Cells of a study: each once, whatever is killed, in this process or in others."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hyperprune.errors import InputError, WorkerError
from hyperprune.experiments import cells
from hyperprune.experiments.cells import commit_of_source, in_order, read_records, run_cells, workspace
from hyperprune.folder_lock import FolderLock

CELLS = {"one": 1, "two": 2, "three": 3}


def square(number):
    return {"square": number * number, "process": os.getpid()}


def dies_at_two(number):
    if number == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return square(number)


def fails_at_two(number):
    if number == 2:
        raise InputError("two is not a number")
    return square(number)


def silent(text):
    pass


@pytest.mark.parametrize("workers", [1, 2])
def test_each_cell_ends_in_one_record_with_its_provenance(tmp_path, workers):
    records = run_cells(square, CELLS, tmp_path, workers=workers, command="a command", say=silent)
    assert {record["key"]: record["square"] for record in records} == {"one": 1, "two": 4, "three": 9}
    assert records == read_records(tmp_path / "records.jsonl")
    assert all(record["provenance"]["command"] == "a command" for record in records)
    assert all(record["provenance"]["commit"] == commit_of_source() for record in records)
    assert all((record["process"] == os.getpid()) == (workers == 1) for record in records)


def test_what_is_recorded_is_not_run_again(tmp_path):
    first = run_cells(square, {"one": 1}, tmp_path, say=silent)
    said = []
    records = run_cells(square, CELLS, tmp_path, say=said.append)
    assert records[0] == first[0]
    assert said == ["two", "three"]


@pytest.mark.parametrize(
    ("work", "error", "message"),
    [(dies_at_two, WorkerError, "a worker of the study died"), (fails_at_two, InputError, "not a number")],
)
def test_an_error_ends_the_study_and_the_same_call_goes_on(tmp_path, work, error, message):
    run_cells(work, {"one": 1}, tmp_path, workers=2, say=silent)
    with pytest.raises(error, match=message):
        run_cells(work, CELLS, tmp_path, workers=2, say=silent)
    records = run_cells(square, CELLS, tmp_path, say=silent)
    assert {record["key"] for record in records} == set(CELLS)


def test_what_a_cell_goes_on_from_is_there_until_its_record_is(tmp_path, monkeypatch):
    def work(key):
        kept = workspace(tmp_path, key)
        kept.mkdir(parents=True)
        (kept / "checkpoint").write_text("half")
        return {"size": 1}

    def told(text):
        key = text.split(":")[0]
        assert key in {record["key"] for record in read_records(tmp_path / "records.jsonl")}
        assert not workspace(tmp_path, key).exists()

    run_cells(work, {"one": "one", "two": "two"}, tmp_path, say=told)

    def full(path, records):
        raise OSError("no space left")

    monkeypatch.setattr(cells, "write_records", full)
    with pytest.raises(OSError, match="no space left"):
        run_cells(work, {"three": "three"}, tmp_path, say=silent)
    assert (workspace(tmp_path, "three") / "checkpoint").exists()


@pytest.mark.parametrize(
    ("line", "message"), [('{"key": ', "Expecting value"), ("3", "got 3"), ("[1]", r"got \[1\]")]
)
def test_a_broken_record_is_named_with_its_file_and_line(tmp_path, line, message):
    (tmp_path / "records.jsonl").write_text(f'{{"key": "one"}}\n{line}\n')
    with pytest.raises(InputError, match=rf"records.jsonl, line 2, must hold one JSON object.* {message}"):
        run_cells(square, CELLS, tmp_path, say=silent)


def test_an_error_ends_the_processes_of_the_study_and_none_of_the_caller(tmp_path):
    other = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,))
    other.start()
    try:
        with pytest.raises(InputError, match="not a number"):
            run_cells(fails_at_two, CELLS, tmp_path, workers=2, say=silent)
        other.join(0.5)  # a kill would have ended it by then
        assert other.is_alive()
    finally:
        other.kill()
        other.join()


def test_two_processes_do_not_share_a_study_s_folder(tmp_path):
    with FolderLock(tmp_path, "study's folder"), pytest.raises(InputError, match="held by process"):
        run_cells(square, CELLS, tmp_path, say=silent)
    assert len(run_cells(square, CELLS, tmp_path, say=silent)) == 3


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"a study's folder must be writable, and .*file is not"):
        run_cells(square, CELLS, tmp_path / "file", say=silent)


SCRIPT = """
import signal, sys
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have started the tests without one
sys.path.insert(0, {folder!r})
import slow
from hyperprune.experiments.cells import run_cells
if __name__ == "__main__":
    run_cells(slow.work, {{"a": 0.0, "b": 60.0, "c": 60.0}}, Path("."), workers=2)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_study_stopped_in_any_way_leaves_no_process_behind(tmp_path, how):
    (tmp_path / "slow.py").write_text("import time\ndef work(s):\n    time.sleep(s)\n    return {}\n")
    script = tmp_path / "run.py"
    script.write_text(SCRIPT.format(folder=str(tmp_path)))
    with subprocess.Popen(
        [sys.executable, str(script)],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "a\n"
        process.send_signal(how)
        assert process.stdout.read() == ""  # ends when the last process has let go of the pipe
        assert process.wait(timeout=30) != 0
    assert [record["key"] for record in read_records(Path(tmp_path) / "records.jsonl")] == ["a"]


def test_records_come_in_the_order_of_the_keys():
    records = [{"key": "b"}, {"key": "other"}, {"key": "a"}]
    assert in_order(records, ["a", "missing", "b"]) == [{"key": "a"}, {"key": "b"}]
