"""Orientation and layers, worked by hand; what cannot be layered is refused with its place."""

import networkx as nx
import pytest

from hyperprune.errors import InputError
from hyperprune.graphs import FAMILIES, GraphPlan, LayeredGraph, layered, read_graphml

EDGES = [(0, 2), (1, 2), (2, 4), (0, 3), (3, 4), (0, 4), (1, 5)]


def test_a_small_graph_by_hand():
    ordered = nx.Graph()
    ordered.add_nodes_from(range(6))
    ordered.add_edges_from((b, a) for a, b in EDGES)  # the order within an edge means nothing
    graph = layered(ordered)
    assert graph.layer_of == (0, 0, 1, 1, 2, 1)
    assert graph.layers == ((0, 1), (2, 3, 5), (4,))
    assert graph.links == {
        (0, 1): ((0, 2), (0, 3), (1, 2), (1, 5)),
        (0, 2): ((0, 4),),
        (1, 2): ((2, 4), (3, 4)),
    }


@pytest.mark.parametrize("family", FAMILIES)
def test_edges_rise_and_the_layer_is_the_longest_path_from_a_source(family):
    graph = layered(GraphPlan.of(family, 36, seed=1).build())
    oriented = nx.DiGraph(graph.edges)
    assert all(a < b and graph.layer_of[a] < graph.layer_of[b] for a, b in graph.edges)
    longest = {}
    for node in range(36):  # every path that ends at a node, by definition and without sharing
        paths = [longest[a] + 1 for a in oriented.predecessors(node)] if node in oriented else []
        longest[node] = max(paths, default=0)
    assert graph.layer_of == tuple(longest[node] for node in range(36))
    assert max(graph.layer_of) == nx.dag_longest_path_length(oriented)


def test_a_directed_graph_keeps_its_directions_only_when_told_so():
    backwards = nx.DiGraph()
    backwards.add_nodes_from("abc")
    backwards.add_edges_from([("c", "b"), ("b", "a")])
    assert layered(backwards, directed=True).layer_of == (2, 1, 0)
    assert layered(backwards).layer_of == (0, 1, 2)


def test_parallel_edges_count_once():
    assert layered(nx.MultiGraph([(0, 1), (0, 1), (1, 0)])).edges == ((0, 1),)


def test_a_graph_comes_back_from_its_json():
    graph = layered(GraphPlan.of("watts_strogatz", 30, seed=2).build())
    assert LayeredGraph.from_json(graph.to_json()) == graph
    with pytest.raises(InputError, match="a stored graph must have num_nodes and edges"):
        LayeredGraph.from_json({"edges": []})
    with pytest.raises(InputError, match="edges must join nodes 0 to 2, got others"):
        LayeredGraph.from_json({"num_nodes": 3, "edges": [[0, 1], [0, 7]]})


@pytest.mark.parametrize(
    ("graph", "options", "message"),
    [
        (nx.DiGraph([(0, 1), (1, 2), (2, 0)]), {"directed": True}, "no cycle, got 0 -> 1 -> 2 -> 0"),
        (nx.Graph([(0, 1)]), {"directed": True}, "directed = true needs a directed graph"),
        (nx.empty_graph(4), {}, "must have an edge to wire layers by, got 4 nodes and none"),
        (nx.empty_graph(0), {}, "must have an edge to wire layers by, got 0 nodes and none"),
        (nx.Graph([(0, 1), (1, 1)]), {}, "no edge from a node to itself, got one at node 1"),
        (nx.path_graph(11), {"max_nodes": 10}, "at most 10 nodes here, got 11"),
        (nx.path_graph(2001), {}, "at most 2000 nodes here, got 2001"),
    ],
)
def test_what_has_no_layers_is_refused(graph, options, message):
    with pytest.raises(InputError, match=message):
        layered(graph, **options)


def test_a_graphml_file_is_read_in_its_own_order_and_bad_ones_name_their_place(tmp_path):
    path = tmp_path / "graph.graphml"
    graph = nx.DiGraph([("one", "two"), ("two", "three")])
    nx.write_graphml(graph, path)
    again = read_graphml(path)
    assert list(again) == ["one", "two", "three"]
    assert layered(again, directed=True).layer_of == (0, 1, 2)

    with pytest.raises(InputError, match=r"readable GraphML file, got .*missing.graphml: No such file"):
        read_graphml(tmp_path / "missing.graphml")
    text = path.read_text()
    path.write_text(text[:-30])
    with pytest.raises(InputError, match=r"graph.graphml, line \d+, column \d+: GraphML must be whole XML"):
        read_graphml(path)
    path.write_text("<svg/>")
    with pytest.raises(InputError, match=r"graph.graphml must hold a graph in GraphML"):
        read_graphml(path)
