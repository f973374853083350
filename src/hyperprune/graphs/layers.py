"""From a graph to layers: edges oriented without cycles, and for every node the longest path that ends there.

Reference: the sparse-RNN thesis, section 5.3.1; its layer index is 0 for a node without predecessors, else
1 + the largest of its predecessors'. So every node but the sources has an edge from the layer just below.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from hyperprune.errors import InputError

if TYPE_CHECKING:
    import networkx


MAX_NODES = 2000
"""Nodes of a graph unless more are allowed: masks of layers grow with the square."""


@dataclass(frozen=True)
class LayeredGraph:
    """An acyclic graph of nodes 0 … n-1, oriented, with its layers.

    Attributes:
        num_nodes: n.
        edges: (from, to) pairs, sorted; every edge goes from a lower layer to a higher one.
        layer_of: by node, from 0.

    Make it with `layered`, or from its own JSON.
    """

    num_nodes: int
    edges: tuple[tuple[int, int], ...]
    layer_of: tuple[int, ...]

    @cached_property
    def layers(self) -> tuple[tuple[int, ...], ...]:
        """The nodes of each layer, in rising order."""
        return tuple(
            tuple(node for node in range(self.num_nodes) if self.layer_of[node] == layer)
            for layer in range(max(self.layer_of) + 1)
        )

    @cached_property
    def links(self) -> Mapping[tuple[int, int], tuple[tuple[int, int], ...]]:
        """The edges by (lower layer, higher layer), pairs of layers without an edge left out."""
        found: dict[tuple[int, int], list[tuple[int, int]]] = {}
        for source, target in self.edges:
            found.setdefault((self.layer_of[source], self.layer_of[target]), []).append((source, target))
        return {pair: tuple(edges) for pair, edges in sorted(found.items())}

    def to_json(self) -> dict[str, Any]:
        return {"num_nodes": self.num_nodes, "edges": [list(edge) for edge in self.edges]}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> LayeredGraph:
        """The graph of `to_json`.

        Raises:
            InputError: something else, or a graph with a cycle.
        """
        import networkx as nx

        graph: networkx.DiGraph = nx.DiGraph()
        try:
            graph.add_nodes_from(range(data["num_nodes"]))
            graph.add_edges_from((int(source), int(target)) for source, target in data["edges"])
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"a stored graph must have num_nodes and edges, pairs of nodes: {error}"
            ) from error
        if len(graph) != data["num_nodes"]:
            raise InputError(
                f"a stored graph's edges must join nodes 0 to {data['num_nodes'] - 1}, got others; write "
                "it with to_json"
            )
        return layered(graph, directed=True, max_nodes=max(MAX_NODES, len(graph)))


def layered(graph: networkx.Graph, *, directed: bool = False, max_nodes: int = MAX_NODES) -> LayeredGraph:
    """Orient a graph's edges without cycles and find its layers.

    Args:
        graph: any networkx graph; nodes are numbered in its own order. Parallel edges count once.
        directed: keep the graph's own directions. Without, every edge goes from the node that comes earlier
            to the one that comes later, whatever direction it has.
        max_nodes: the most nodes that are allowed.

    Raises:
        InputError: no edge, too many nodes, a node with an edge to itself, or with `directed` an undirected
            graph or a cycle; the message names the nodes.
    """
    import networkx as nx

    if len(graph) > max_nodes:
        raise InputError(
            f"a graph may have at most {max_nodes} nodes here, got {len(graph)}; take a smaller one, or "
            "call layered with a larger max_nodes"
        )
    if graph.number_of_edges() == 0:
        raise InputError(f"a graph must have an edge to wire layers by, got {len(graph)} nodes and none")
    loop = next(iter(nx.selfloop_edges(graph)), None)
    if loop is not None:
        raise InputError(
            f"a graph must have no edge from a node to itself, got one at node {loop[0]!r}; remove it (every "
            "unit of a recurrent layer sees its own past anyway)"
        )
    if directed and not isinstance(graph, nx.DiGraph):
        raise InputError(
            "directed = true needs a directed graph, got an undirected one; leave it out to orient edges by "
            "the order of the nodes"
        )
    number = {node: index for index, node in enumerate(graph)}
    pairs = {(number[source], number[target]) for source, target in graph.edges()}
    if directed:
        _refuse_cycle(graph)
    else:
        pairs = {(min(pair), max(pair)) for pair in pairs}
    predecessors: list[list[int]] = [[] for _ in number]
    for source, target in pairs:
        predecessors[target].append(source)
    order = range(len(number))
    if isinstance(graph, nx.DiGraph) and directed:
        order = [number[node] for node in nx.topological_sort(graph)]
    layer_of = [0] * len(number)
    for node in order:
        layer_of[node] = max((layer_of[source] + 1 for source in predecessors[node]), default=0)
    return LayeredGraph(len(number), tuple(sorted(pairs)), tuple(layer_of))


def _refuse_cycle(graph: networkx.Graph) -> None:
    import networkx as nx

    try:
        cycle = nx.find_cycle(graph)
    except nx.NetworkXNoCycle:
        return
    nodes = [edge[0] for edge in cycle]
    raise InputError(
        f"a directed graph must have no cycle, got {' -> '.join(map(repr, [*nodes, nodes[0]]))}; remove one "
        "of these edges, or leave directed out to orient edges by the order of the nodes"
    )
