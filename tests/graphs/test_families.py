"""Random graphs: what each family promises, and graphs that are named by their plan."""

import networkx as nx
import pytest

from hyperprune.errors import InputError
from hyperprune.graphs import FAMILIES, GraphPlan, layered
from hyperprune.graphs.families import _is_whole


@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_plan_gives_the_same_graph_and_another_seed_another(family):
    plan = GraphPlan.of(family, 25, seed=3)
    edges = set(plan.build().edges)
    assert set(plan.build().edges) == edges
    others = [set(GraphPlan.of(family, 25, seed=seed).build().edges) for seed in range(4, 8)]
    assert any(other != edges for other in others) == (family != "stack")
    content = plan.to_json()
    assert GraphPlan.of(content.pop("family"), content.pop("num_nodes"), **content) == plan


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("num_nodes", [9, 16, 50])
def test_graphs_are_connected_undirected_and_numbered_from_0(family, num_nodes):
    for seed in range(5):
        graph = GraphPlan.of(family, num_nodes, seed=seed).build()
        assert list(graph) == list(range(num_nodes))
        assert not graph.is_directed()
        assert nx.is_connected(graph)


def test_a_scale_free_graph_has_as_many_sources_as_attachments():
    for num_nodes in (10, 25, 40, 50):
        plan = GraphPlan.of("barabasi_albert", num_nodes, seed=1)
        assert len(layered(plan.build()).layers[0]) == num_nodes // 10


def test_numbers_of_edges_are_those_of_the_families():
    # Barabási–Albert starts from a star of m + 1 nodes and adds m edges with each further node.
    graph = GraphPlan.of("barabasi_albert", 40, seed=0).build()
    assert graph.number_of_edges() == 4 + 4 * (40 - 5)
    graph = GraphPlan.of("watts_strogatz", 40, seed=0).build()
    assert graph.number_of_edges() == 40 * 8 // 2
    assert GraphPlan.of("erdos_renyi", 12, seed=0, probability=1.0).build().number_of_edges() == 66
    stack = layered(GraphPlan.of("stack", 10, seed=0, layers=4).build())
    assert [len(layer) for layer in stack.layers] == [2, 3, 3, 2]
    assert len(stack.edges) == 2 * 3 + 3 * 3 + 3 * 2
    grid = GraphPlan.of("kleinberg", 16, seed=0, shortcuts=0).build()
    assert nx.is_isomorphic(grid, nx.grid_2d_graph(4, 4))
    line = GraphPlan.of("kleinberg", 7, seed=0, shortcuts=0).build()
    assert sorted(line.edges) == [(node, node + 1) for node in range(6)]


def test_kleinberg_shortcuts_have_chances_as_the_distance_to_the_minus_exponent():
    # Ends of a line of four: shortcuts from node 0 go to 1, 2, 3 with chances 1 : 1/4 : 1/9, and likewise
    # from node 3; the edge 0-3 comes from either end.
    chance = (1 / 9) / (1 + 1 / 4 + 1 / 9)
    expected = 1 - (1 - chance) ** 2
    draws = [
        GraphPlan.of("kleinberg", 4, seed=seed, dimensions=1, exponent=2.0).build().has_edge(0, 3)
        for seed in range(2000)
    ]
    error = (expected * (1 - expected) / 2000) ** 0.5
    assert abs(sum(draws) / 2000 - expected) < 4 * error


def test_the_thesis_samples_sizes_uniformly_from_10_to_50_with_its_own_parameters():
    plans = [GraphPlan.thesis_sample("watts_strogatz", number) for number in range(400)]
    sizes = [plan.num_nodes for plan in plans]
    assert (min(sizes), max(sizes)) == (10, 50)
    assert abs(sum(sizes) / 400 - 30) < 3  # five standard errors of a uniform mean over 41 sizes
    assert plans[0].parameters == (("neighbours", plans[0].num_nodes // 5), ("rewiring", 1.0))
    scale_free = GraphPlan.thesis_sample("barabasi_albert", 7)
    assert scale_free.parameters == (("attachments", scale_free.num_nodes // 10),)
    assert len({plan.seed for plan in plans}) == 400
    assert GraphPlan.thesis_sample("watts_strogatz", 0, seed=1) != plans[0]


@pytest.mark.parametrize(
    ("family", "num_nodes", "parameters", "message"),
    [
        ("barabasi", 20, {}, "unknown graph family 'barabasi'; did you mean 'barabasi_albert'"),
        ("watts_strogatz", 20, {"k": 4}, "unknown parameter of watts_strogatz 'k'; .*neighbours, rewiring"),
        ("watts_strogatz", 1, {}, "at least 2 nodes and at most 2000, got 1"),
        ("watts_strogatz", 2, {}, "at least 3 nodes, got 2"),
        ("stack", 2001, {}, "at most 2000, got 2001"),
        ("barabasi_albert", 20, {"attachments": 20}, "attachments must be .* from 1 to 19 .*, got 20"),
        ("watts_strogatz", 20, {"neighbours": 1}, "neighbours must be .* from 2 to 19 .*, got 1"),
        ("watts_strogatz", 20, {"rewiring": 1.5}, r"rewiring must be a number in \[0, 1\], got 1.5"),
        ("erdos_renyi", 20, {"probability": -0.1}, r"probability must be a number in \[0, 1\], got -0.1"),
        ("erdos_renyi", 30, {"probability": 0.01}, "erdos_renyi graph must be connected, and none of 1000"),
        ("kleinberg", 20, {"dimensions": 2}, r"side\*\*2 nodes, got 20; take 16, or dimensions = 1"),
        ("stack", 5, {"layers": 6}, "layers must be a whole number from 2 to 5 for 5 nodes, got 6"),
        ("kleinberg", 16, {"dimensions": 4}, "dimensions must be 1, 2 or 3.*got 4"),
        ("kleinberg", 16, {"dimensions": True}, "dimensions must be 1, 2 or 3.*got True"),
        ("kleinberg", 16, {"shortcuts": True}, "shortcuts a whole number .*, got 2, True and 2"),
        ("barabasi_albert", 20, {"attachments": True}, "attachments must be .* from 1 to 19 .*, got True"),
    ],
)
def test_wrong_parameters_are_named(family, num_nodes, parameters, message):
    with pytest.raises(InputError, match=message):
        GraphPlan.of(family, num_nodes, seed=0, **parameters).build()


def test_a_number_with_a_fraction_is_not_whole_though_it_be_zero():
    # By itself, because the tests' own type checks let it come no farther into a family.
    assert _is_whole(2, 1, 3)
    assert not _is_whole(2.0, 1, 3)


def test_two_nodes_have_an_edge_by_default():
    assert set(GraphPlan.of("erdos_renyi", 2, seed=0).build().edges) == {(0, 1)}


def test_an_erdos_renyi_graph_need_not_be_connected_if_told_so():
    graph = GraphPlan.of("erdos_renyi", 30, seed=0, probability=0.01, connected=False).build()
    assert not nx.is_connected(graph)
