"""The network itself as a point of a search: graphs that wire it, and criteria that choose starting masks."""

import json
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hyperprune.cli.main import main
from hyperprune.errors import InputError
from hyperprune.hypersearch.dimensions import Range
from hyperprune.hypersearch.signals import measure
from hyperprune.hypersearch.space import DENSE, Branch, Configuration, Space
from hyperprune.hypersearch.spaces import get_space, space_from
from hyperprune.records import CandidateRecord, EpochRecord, networks_vary
from hyperprune.spectra import resized
from hyperprune.tasks.registry import load_task
from hyperprune.training.load import load_model, load_task_and_model
from hyperprune.training.variants import with_model
from tiny_task import TinyTask

STRINGS = "train_strings = 60\nvalid_strings = 20\ntest_strings = 10\nmax_length = 20\n"
CONFIG = f"""
task = "reber-graph"
sparsity = 0.0
workers = 1
[model]
num_nodes = 9
cell = "rnn"
[strings]
{STRINGS}
[search]
candidates = 3
first_epochs = 1
round_epochs = 1
final_epochs = 2
"""


def run(arguments, capsys):
    code = main(arguments)
    printed = capsys.readouterr()
    return (json.loads(printed.out.splitlines()[-1]) if code == 0 else printed.err), code


def test_a_search_over_graphs_has_dense_layers_of_equal_size_as_reference(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("graphs.toml").write_text(CONFIG)
    arguments = ["search", "--config", "graphs.toml", "--space", "graphs", "--out", "run", "--json"]
    arguments += ["--signal", "spectrum"]
    result, code = run(arguments, capsys)
    assert code == 0, result
    families = {candidate["configuration"]["model.family"] for candidate in result["candidates"]}
    assert families <= {"barabasi_albert", "watts_strogatz", "erdos_renyi", "kleinberg"}
    best = result["best"]
    task, model = load_task_and_model(best["checkpoint"])
    wiring, graph = vars(task)["wiring"], graph_of(model)
    assert wiring.family == best["configuration"]["model.family"]
    assert wiring.graph_seed == best["configuration"]["model.graph_seed"]
    assert graph.num_nodes == 9
    plain = load_task("reber-graph", settings=_tables())
    assert graph_of(load_model(best["checkpoint"], plain)) == graph
    (reference,) = Path("run").glob("candidates/*dense*/best.pt")
    assert graph_of(load_model(reference)).layers == ((0, 1, 2), (3, 4, 5), (6, 7, 8))
    again, code = run(arguments, capsys)
    assert (again["best"], code) == (best, 0)


def graph_of(model) -> Any:
    return model.rnn.graph


def _tables():
    config = tomllib.loads(CONFIG)
    return {"model": config["model"], "strings": config["strings"]}


def test_a_value_that_the_task_refuses_is_told_before_anything_is_trained(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    branch = '[[space.branch]]\nmethod = "static"\n[space.branch.model]\nfamily = "watts_strogatz"\n'
    seeds = "graph_seed = [1, 2, 3]"
    for line, message in (
        (f"neighbours = [4, 9]\n{seeds}", "neighbours must be a whole number from 2 to 8 for 9 nodes, got 9"),
        (f"neighbors = 4\n{seeds}", "unknown key in [model] 'neighbors'; did you mean 'neighbours'"),
        ("graph_seed = ['a', 'b', 'c']", "[model] graph_seed must be"),
    ):
        Path("graphs.toml").write_text(CONFIG + branch + line)
        error, code = run(["search", "--config", "graphs.toml", "--out", "run", "--json"], capsys)
        assert code == 2
        assert message in error
        assert not Path("run").exists()


def test_branches_with_model_settings_are_written_and_read_as_nested_tables():
    space = get_space("graphs")
    mapping = space.to_mapping()
    assert mapping["branch"][1]["model"]["neighbours"] == Range(2, 8, digits=0).to_toml()
    assert space_from(mapping) == space
    point = space.sample(np.random.default_rng(0))
    assert space.coordinates(point) is not None
    assert Configuration.from_json(json.loads(point.text)) == point
    assert dict(point.model).keys() >= {"family", "graph_seed"}
    assert point.build() == Configuration.of("static").build()
    assert DENSE.model == ()
    with pytest.raises(
        InputError, match="branch 'static': model must be a table of the task's settings, got 3"
    ):
        Branch.of("static", model=3)
    with pytest.raises(InputError, match="branches must not share configurations"):
        Space(branches=[Branch.of("static", model={"graph_seed": Range(low, 9, digits=0)}) for low in (1, 2)])


def test_a_programs_own_task_cannot_be_varied():
    task = TinyTask()
    assert with_model(task, {}) is task
    with pytest.raises(InputError, match=r"model settings \['family'\] need a task that has a name"):
        with_model(task, {"family": "stack"})


def test_spectra_of_other_sizes_are_compared_by_quantiles():
    values = np.array([-3.0, -1.0, -2.0, -np.inf])
    assert resized(values, 4).tolist() == [-1.0, -2.0, -3.0, -20.0]
    assert resized(np.array([-1.0, -3.0]), 4).tolist() == [-1.0, -1.5, -2.5, -3.0]
    dense = _measured(-3.0, -1.0)
    others = {"larger": _measured(-5.0, -1.0, -3.0, -7.0), "other layers": _measured(-1.0, -3.0)}
    values = measure("spectrum_raw", dense, others, by_quantiles=True)
    assert values == {"larger": np.hypot(1, 3), "other layers": 0.0}
    kept = {"other layers": others["other layers"]}
    assert measure("spectrum_raw", dense, kept) == {"other layers": np.hypot(2, 2)}  # layer by layer
    assert dense[0].spectrum is not None
    assert dense[0].spectrum.tolist() == [-3.0, -1.0]  # left alone


def _measured(*exponents):
    spectrum = np.array(exponents)
    return [EpochRecord(epoch=0, train_loss=None, valid_loss=1.0, metric=1.0, seconds=0.0, spectrum=spectrum)]


@pytest.mark.parametrize(("names", "vary"), [(["method", "death"], False), (["method", "model.cell"], True)])
def test_networks_vary_where_a_candidate_sets_something_of_the_task(names, vary):
    plain = CandidateRecord(key="c01", label="", configuration={"method": "static"})
    other = CandidateRecord(key="c02", label="", configuration=dict.fromkeys(names))
    assert networks_vary([plain, other]) == vary


def test_pruned_at_init_and_then_explored_is_a_point_beside_others(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    branch = """
[[space.branch]]
method = "rigl"
at_init = ["jacobian", "snip"]
update_every = 1
death_rate = { low = 0.1, high = 0.5, digits = 2 }
"""
    text = CONFIG.replace('task = "reber-graph"', 'task = "reber"').replace(
        "sparsity = 0.0", "sparsity = 0.5"
    )
    text = text.replace('num_nodes = 9\ncell = "rnn"', "cell = 'gru'\nhidden_size = 5\nembedding_size = 4")
    Path("space.toml").write_text(text + branch)
    result, code = run(["search", "--config", "space.toml", "--out", "run", "--json"], capsys)
    assert code == 0, result
    assert {c["configuration"]["at_init"] for c in result["candidates"]} <= {"jacobian", "snip"}
    model = load_model(result["best"]["checkpoint"])
    weights = [p for name, p in model.named_parameters() if ".weight" in name]
    assert any(bool((weight == 0).any()) for weight in weights)
