"""Properties: closed forms for a star, networkx for everything else, the thesis's own definitions."""

import statistics

import networkx as nx
import pytest

from hyperprune.errors import InputError
from hyperprune.graphs import FAMILIES, FEATURES, TRUE_SINKS, GraphPlan, layered, properties


def test_a_star_by_hand():
    # Centre 0 and five leaves: one source, the leaves are the last layer.
    figures = properties(layered(nx.star_graph(5)))
    assert {name: figures[name] for name in ("layers", "nodes", "edges", "source_nodes", "sink_nodes")} == {
        "layers": 2,
        "nodes": 6,
        "edges": 5,
        "source_nodes": 1,
        "sink_nodes": 5,
    }
    assert figures[TRUE_SINKS] == 5
    assert figures["diameter"] == 2
    assert figures["density"] == pytest.approx(5 / 30)
    assert figures["average_shortest_path_length"] == pytest.approx((5 * 1 + 10 * 2) / 15)
    assert figures["eccentricity_mean"] == pytest.approx(11 / 6)
    assert figures["eccentricity_var"] == pytest.approx(1 / 6)  # 5/36 by n, 1/6 by n - 1
    assert figures["degree_mean"] == pytest.approx((1 + 5 * 0.2) / 6)
    assert figures["closeness_mean"] == pytest.approx((1 + 5 * 5 / 9) / 6)
    assert figures["nodes_betweenness_mean"] == pytest.approx(1 / 6)
    assert figures["edge_betweenness_mean"] == pytest.approx(5 / 15)
    assert figures["edge_betweenness_var"] == pytest.approx(0)


def test_sinks_are_the_last_layer_and_true_sinks_are_the_nodes_without_a_successor():
    graph = nx.Graph()
    graph.add_nodes_from(range(5))
    graph.add_edges_from([(0, 1), (1, 2), (0, 3), (1, 4)])  # 2 and 4 end in the last layer, 3 before it
    figures = properties(layered(graph))
    assert (figures["sink_nodes"], figures[TRUE_SINKS]) == (2, 3)


@pytest.mark.parametrize("family", FAMILIES)
def test_everything_but_density_and_sinks_is_networkx(family):
    graph = GraphPlan.of(family, 36, seed=5).build()
    figures = properties(layered(graph))
    assert tuple(figures) == (*FEATURES, TRUE_SINKS)
    assert len(FEATURES) == 23
    oriented = nx.DiGraph([(min(edge), max(edge)) for edge in graph.edges])
    assert figures["layers"] == nx.dag_longest_path_length(oriented) + 1
    assert figures["source_nodes"] == sum(degree == 0 for _, degree in oriented.in_degree())
    assert figures[TRUE_SINKS] == sum(degree == 0 for _, degree in oriented.out_degree())
    assert figures["density"] == pytest.approx(nx.density(graph) / 2)
    assert figures["diameter"] == nx.diameter(graph)
    assert figures["average_shortest_path_length"] == pytest.approx(nx.average_shortest_path_length(graph))
    measures = {
        "eccentricity": nx.eccentricity(graph),
        "degree": nx.degree_centrality(graph),
        "closeness": nx.closeness_centrality(graph),
        "nodes_betweenness": nx.betweenness_centrality(graph),
        "edge_betweenness": nx.edge_betweenness_centrality(graph),
    }
    for name, values in measures.items():
        assert figures[f"{name}_mean"] == pytest.approx(statistics.mean(values.values()))
        assert figures[f"{name}_var"] == pytest.approx(statistics.variance(values.values()))
        assert figures[f"{name}_std"] == pytest.approx(statistics.stdev(values.values()))


def test_graphs_without_distances_or_variances_are_refused():
    apart = nx.Graph([(0, 1), (2, 3), (3, 4)])
    with pytest.raises(InputError, match=r"distances need it connected, and it has 2 parts, .* with node 0"):
        properties(layered(apart))
    with pytest.raises(InputError, match="needs at least 2 edges, got 1"):
        properties(layered(nx.path_graph(2)))
