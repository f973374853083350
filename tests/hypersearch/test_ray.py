"""Segments on a local Ray cluster of two nodes: the leaderboard of local workers, bit for bit.

One cluster serves all tests here; starting it takes most of the time.
"""

import socket
import time
from pathlib import Path

import pytest
import torch

import hyperprune as hp
from hyperprune.errors import InputError
from hyperprune.hypersearch import executor as executors
from hyperprune.hypersearch.executor import Execution
from hyperprune.hypersearch.executor.ray_tasks import _connect
from hyperprune.training.checkpoint import load_checkpoint

ray = pytest.importorskip("ray", reason="the extra 'ray' is not installed")
TASK = f"{Path(__file__).parents[1] / 'tiny_task.py'}:task"
LSH = hp.LSH(candidates=4, first_epochs=1, round_epochs=1, final_epochs=4)


@pytest.fixture(scope="module")
def nodes():
    """The second node of a cluster to which this process is connected by its address."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    second = cluster.add_node(num_cpus=1)
    try:
        assert _connect(cluster.address)[1]
        yield cluster, second
    finally:
        ray.shutdown()
        cluster.shutdown()


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    folder = tmp_path_factory.mktemp("local")
    return hp.search(hp.load_task(TASK), LSH, folder=folder, seed=3, workers=2)


def _facts(result):
    return [
        (
            *(row.key, row.outcome, row.signals, row.metric),
            *((epoch.epoch, epoch.valid_loss, tuple(epoch.spectrum)) for epoch in row.epochs),
        )
        for row in (result.record.reference, *result.record.candidates)
    ]


def _weights(result):
    return load_checkpoint(result.checkpoint)["model"]


def _assert_same(one, other):
    assert _facts(one) == _facts(other)
    assert all(torch.equal(weight, _weights(other)[name]) for name, weight in _weights(one).items())


class Watcher:
    """Counts epochs, and calls back once when some have been told of."""

    def __init__(self, after=0, then=lambda: None):
        self.epochs, self.after, self.then = 0, after, then

    def event(self, state, event):
        pass

    def epoch(self, state, key, record):
        self.epochs += 1
        if self.epochs == self.after:
            self.then()

    def note(self, text):
        raise AssertionError(text)


def _num_records(result):
    return sum(len(row.epochs) for row in (result.record.reference, *result.record.candidates))


def _search(folder, **options):
    return hp.search(hp.load_task(TASK), LSH, folder=folder, seed=3, executor="ray", **options)


def test_an_address_that_does_not_answer_is_an_error_before_a_folder_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr("hyperprune.hypersearch.executor.ray_tasks.CONNECT_SECONDS", 3.0)
    with socket.socket() as deaf:  # takes connections and never answers
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        address = f"127.0.0.1:{deaf.getsockname()[1]}"
        started = time.monotonic()
        with pytest.raises(InputError, match=f"{address} did not answer within 3 s; start one"):
            hp.search(hp.load_task(TASK), LSH, folder=tmp_path / "run", executor="ray", ray_address=address)
    assert time.monotonic() - started < 60  # Ray's own attempt goes on for minutes
    assert not (tmp_path / "run").exists()


def test_ray_client_addresses_are_refused():
    with pytest.raises(InputError, match="'auto' or the host:port"):
        executors.make_executor(
            hp.load_task(TASK),
            Execution(executor="ray", ray_address="ray://head:10001"),
            device="cpu",
            threads=1,
        )


def test_ray_gives_what_local_workers_give_and_tells_of_every_epoch(nodes, local, tmp_path):
    watcher = Watcher()
    _assert_same(_search(tmp_path, observer=watcher), local)
    assert watcher.epochs == _num_records(local)


def test_where_nodes_do_not_see_the_run_folder_checkpoints_travel(nodes, local, tmp_path, monkeypatch):
    # No node has the folder with this token, as if there were no shared file system.
    monkeypatch.setattr("hyperprune.hypersearch.executor.ray_tasks.token_of", lambda folder: "elsewhere")
    result = _search(tmp_path)
    _assert_same(result, local)
    kept = sorted(path.name for path in (tmp_path / "candidates" / result.best.key).iterdir())
    assert kept == ["best.pt", "epoch-00003.pt", "epoch-00004.pt"]


def test_a_gpu_that_the_cluster_does_not_have_is_an_error(nodes, tmp_path):
    with pytest.raises(InputError, match=r"takes 0.25 GPU\(s\), and the Ray cluster has 0"):
        _search(tmp_path / "run", device="cuda", gpus_per_candidate=0.25)
    assert not (tmp_path / "run").exists()


def test_a_node_removed_in_mid_round_costs_at_most_the_segments_in_flight(nodes, local, tmp_path):
    cluster, second = nodes
    watcher = Watcher(after=8, then=lambda: cluster.remove_node(second, allow_graceful=False))
    _assert_same(_search(tmp_path, observer=watcher), local)
    # The node had one CPU, so one segment was on it, if any; the longest has all epochs and epoch 0.
    assert watcher.epochs <= _num_records(local) + LSH.final_epochs + 1


def test_another_address_while_connected_is_not_ignored(nodes):
    with pytest.raises(InputError, match="connected to Ray already, got ray_address 'auto'"):
        _connect("auto")
