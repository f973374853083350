"""The numbers by which the sparse-RNN thesis describes a graph-wired network.

Distances and centralities are of the undirected graph and are networkx's own. Two definitions are the
thesis's: density is m / (n(n-1)), half of networkx's for an undirected graph; "sinks" is the size of the
last layer, while nodes without a successor are counted apart (`TRUE_SINKS`). Variances divide by n - 1.

All of them take 26 ms for 50 nodes, the study's largest, and .6 s for 200, against seconds to train the
network: a second graph library (rustworkx) would gain nothing here.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

from hyperprune.errors import InputError
from hyperprune.graphs.layers import LayeredGraph

if TYPE_CHECKING:
    import networkx


_SPREAD = ("eccentricity", "degree", "closeness", "nodes_betweenness", "edge_betweenness")
FEATURES: tuple[str, ...] = (
    "layers",
    "nodes",
    "edges",
    "source_nodes",
    "sink_nodes",
    "diameter",
    "density",
    "average_shortest_path_length",
    *(f"{name}_{figure}" for name in _SPREAD for figure in ("mean", "var", "std")),
)
"""The thesis's features, by the names of its result files' columns."""
TRUE_SINKS = "true_sink_nodes"


def properties(graph: LayeredGraph) -> dict[str, float]:
    """All of `FEATURES`, and `TRUE_SINKS` last.

    Raises:
        InputError: the graph is not connected (distances would be infinite), or has one edge only (its
            betweenness has no variance).
    """
    import networkx as nx

    undirected: networkx.Graph = nx.Graph()
    undirected.add_nodes_from(range(graph.num_nodes))
    undirected.add_edges_from(graph.edges)
    if not nx.is_connected(undirected):
        parts = sorted(nx.connected_components(undirected), key=len)
        raise InputError(
            f"a graph's distances need it connected, and it has {len(parts)} parts, the smallest with node "
            f"{min(parts[0])}; join them, or describe the largest part alone"
        )
    num_nodes, num_edges = graph.num_nodes, len(graph.edges)
    if num_edges < 2:
        raise InputError(
            f"the variance over edges needs at least 2 edges, got {num_edges}; take a larger graph"
        )
    eccentricity: Any = nx.eccentricity(undirected)
    with_successor = {source for source, _ in graph.edges}
    figures: dict[str, float] = {
        "layers": len(graph.layers),
        "nodes": num_nodes,
        "edges": num_edges,
        "source_nodes": len(graph.layers[0]),
        "sink_nodes": len(graph.layers[-1]),
        "diameter": max(eccentricity.values()),
        "density": num_edges / (num_nodes * (num_nodes - 1)),
        "average_shortest_path_length": nx.average_shortest_path_length(undirected),
    }
    by_name: dict[str, Any] = {
        "eccentricity": eccentricity,
        "degree": nx.degree_centrality(undirected),
        "closeness": nx.closeness_centrality(undirected),
        "nodes_betweenness": nx.betweenness_centrality(undirected),
        "edge_betweenness": nx.edge_betweenness_centrality(undirected),
    }
    for name, values in by_name.items():
        numbers = [float(value) for value in values.values()]
        variance = statistics.variance(numbers)
        figures |= {
            f"{name}_mean": statistics.fmean(numbers),
            f"{name}_var": variance,
            f"{name}_std": variance**0.5,
        }
    return figures | {TRUE_SINKS: num_nodes - len(with_successor)}
