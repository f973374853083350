"""kill -9 at random moments, and the outcome of an uninterrupted run."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from hyperprune.folder_lock import holder
from hyperprune.hypersearch.run_folder import read_run
from hyperprune.training.checkpoint import load_checkpoint

NUM_KILLS = 10
TASK = Path(__file__).parents[1] / "tiny_task.py"


def _command(folder: Path) -> list[str]:
    return [
        *(sys.executable, "-m", "hyperprune", "search", f"{TASK}:task", "--workers", "2"),
        *("--candidates", "4", "--first-epochs", "1", "--round-epochs", "1", "--final-epochs", "12"),
        *("--seed", "7", "--out", str(folder)),
    ]


def _environment(seconds_per_split: float) -> dict[str, str]:
    return {**os.environ, "TINY_TASK_SECONDS": str(seconds_per_split), "OMP_NUM_THREADS": "1"}


def _run(folder: Path) -> None:
    done = subprocess.run(
        _command(folder), env=_environment(0), capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr


def _facts(folder: Path):
    record = read_run(folder)
    winner = record.candidates[0]
    return winner, [
        (
            *(row.key, row.configuration, row.outcome, row.metric, row.signals),
            *((epoch.valid_loss, tuple(np.array(epoch.spectrum))) for epoch in row.epochs),
        )
        for row in record.candidates
    ]


@pytest.mark.long
def test_ten_kills_at_random_moments_change_neither_the_leaderboard_nor_the_winners_weights(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    _run(whole)
    moments = random.Random(0)
    num_killed = 0
    while num_killed < NUM_KILLS:
        process = subprocess.Popen(
            _command(killed),
            env=_environment(0.05),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        _wait_for_lock(killed, process)
        try:
            process.wait(timeout=moments.uniform(0.0, 2.0))
            shutil.rmtree(killed)  # it came to its end between two kills: the next ten begin anew
            num_killed = 0
        except subprocess.TimeoutExpired:
            if num_killed % 2:  # every other time a worker dies first, and the parent soon after
                for worker in _children(process.pid):
                    os.kill(worker, signal.SIGKILL)
                time.sleep(moments.uniform(0.0, 0.3))
            process.kill()
            process.wait()
            num_killed += 1
    _run(killed)
    winner, facts = _facts(whole)
    winner_after, facts_after = _facts(killed)
    assert facts_after == facts
    one = load_checkpoint(whole / str(winner.checkpoint))["model"]
    other = load_checkpoint(killed / str(winner_after.checkpoint))["model"]
    assert all(torch.equal(one[name], other[name]) for name in one)


def _children(pid: int) -> list[int]:
    """The processes that a process started."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in text.split()]


def _wait_for_lock(folder: Path, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 60
    while holder(folder) is None and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_folder_held_by_a_live_process_is_refused_with_its_pid(tmp_path):
    process = subprocess.Popen(
        _command(tmp_path), env=_environment(0.3), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        _wait_for_lock(tmp_path, process)
        second = subprocess.run(
            _command(tmp_path), env=_environment(0), capture_output=True, text=True, check=False, timeout=120
        )
    finally:
        process.kill()
        process.wait()
    assert second.returncode == 2
    assert f"held by process {process.pid}" in second.stderr
