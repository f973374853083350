"""Random graphs by family: Barabási–Albert, connected Watts–Strogatz, Erdős–Rényi, Kleinberg's small world.

Beside them "stack", the graph of dense layers.

All are undirected, of nodes 0 … n-1 in this order, and all but Kleinberg's are networkx's. A graph is named
by its family, size, parameters and seed (`GraphPlan`), so it need not be stored to be had again.

References:
    Barabási, Albert (1999), Emergence of scaling in random networks.
    Watts, Strogatz (1998), Collective dynamics of small-world networks.
    Erdős, Rényi (1959), On random graphs I; G(n, p) as in Gilbert (1959).
    Kleinberg (2000), The small-world phenomenon: an algorithmic perspective.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hyperprune.errors import InputError, unknown_name
from hyperprune.graphs.layers import MAX_NODES
from hyperprune.rng import derive_seed

if TYPE_CHECKING:
    import networkx


_TRIES = 1000  # draws of one graph until it is connected


@dataclass(frozen=True, kw_only=True)
class Family:
    """A family of random graphs.

    Attributes:
        name: as in `FAMILIES`.
        summary: how a graph of it comes about.
        defaults: its parameters, by name, as functions of the number of nodes.
        make: (num_nodes, generator, parameters) to a graph.
    """

    name: str
    summary: str
    defaults: Mapping[str, Callable[[int], Any]]
    make: Callable[..., networkx.Graph]


def _barabasi_albert(num_nodes: int, source: random.Random, *, attachments: int) -> networkx.Graph:
    import networkx as nx

    _check(
        _is_whole(attachments, 1, num_nodes - 1),
        f"attachments must be a whole number from 1 to {num_nodes - 1} for {num_nodes} nodes, got "
        f"{attachments}; the thesis takes a tenth of the nodes",
    )
    # networkx begins with a star around node 0, which by number would be the only source. Here, as in the
    # networkx of 2020 that the thesis used, the centre comes last: there are as many sources as attachments.
    star = nx.empty_graph(attachments + 1)
    star.add_edges_from((node, attachments) for node in range(attachments))
    return nx.barabasi_albert_graph(num_nodes, attachments, seed=source, initial_graph=star)


def _watts_strogatz(
    num_nodes: int, source: random.Random, *, neighbours: int, rewiring: float
) -> networkx.Graph:
    import networkx as nx

    _check(num_nodes >= 3, f"a watts_strogatz graph needs at least 3 nodes, got {num_nodes}")
    _check(
        _is_whole(neighbours, 2, num_nodes - 1),
        f"neighbours must be a whole number from 2 to {num_nodes - 1} for {num_nodes} nodes, got "
        f"{neighbours}; an odd one counts as the even one below",
    )
    _check_share("rewiring", rewiring, "0 leaves a ring, 1 makes it random")
    return _connected(
        "watts_strogatz",
        lambda: nx.watts_strogatz_graph(num_nodes, neighbours, rewiring, seed=source),
        "more neighbours",
    )


def _erdos_renyi(
    num_nodes: int, source: random.Random, *, probability: float, connected: bool
) -> networkx.Graph:
    import networkx as nx

    _check_share("probability", probability, "2 ln(n) / n connects nearly all graphs of n nodes")
    _check(isinstance(connected, bool), f"connected must be True or False, got {connected!r}; pass a bool")
    if not connected:
        return nx.gnp_random_graph(num_nodes, probability, seed=source)
    return _connected(
        "erdos_renyi",
        lambda: nx.gnp_random_graph(num_nodes, probability, seed=source),
        "a larger probability, or connected = false",
    )


def _kleinberg(
    num_nodes: int, source: random.Random, *, dimensions: int, shortcuts: int, exponent: float
) -> networkx.Graph:
    import networkx as nx

    _check(
        _is_whole(dimensions, 1, 3)
        and _is_whole(shortcuts, 0, math.inf)
        and isinstance(exponent, int | float)
        and exponent >= 0,
        f"dimensions must be 1, 2 or 3, shortcuts a whole number and exponent 0 or more, got {dimensions}, "
        f"{shortcuts} and {exponent}; Kleinberg's own are 2, 1 and 2",
    )
    side = round(num_nodes ** (1 / dimensions))
    _check(
        side**dimensions == num_nodes,
        f"a Kleinberg graph of {dimensions} dimensions has side**{dimensions} nodes, got {num_nodes}; take "
        f"{max(side, 2) ** dimensions}, or dimensions = 1",
    )
    # networkx's navigable_small_world_graph is not used: to nodes before the one at hand it draws shortcuts
    # one place off, even to the node itself.
    places = list(itertools.product(range(side), repeat=dimensions))
    distance = [[sum(abs(a - b) for a, b in zip(p, q, strict=True)) for q in places] for p in places]
    graph: networkx.Graph = nx.empty_graph(num_nodes)
    for node, row in enumerate(distance):
        others = [other for other in range(num_nodes) if other != node]
        graph.add_edges_from((node, other) for other in others if row[other] == 1)
        chances = [row[other] ** -exponent for other in others]
        graph.add_edges_from((node, other) for other in source.choices(others, chances, k=shortcuts))
    return graph


def _connected(name: str, draw: Callable[[], networkx.Graph], remedy: str) -> networkx.Graph:
    import networkx as nx

    for _ in range(_TRIES):
        graph = draw()
        if nx.is_connected(graph):
            return graph
    raise InputError(
        f"a {name} graph must be connected, and none of {_TRIES} drawn with these parameters was; "
        f"take {remedy}"
    )


def _check(holds: bool, message: str) -> None:
    if not holds:
        raise InputError(message)


def _is_whole(value: object, low: int, high: float) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _check_share(name: str, value: object, remedy: str) -> None:
    is_share = isinstance(value, int | float) and 0 <= value <= 1
    _check(is_share, f"{name} must be a number in [0, 1], got {value!r}; {remedy}")


def _stack(num_nodes: int, source: random.Random, *, layers: int) -> networkx.Graph:
    import networkx as nx

    _check(
        _is_whole(layers, 2, num_nodes),
        f"layers must be a whole number from 2 to {num_nodes} for {num_nodes} nodes, got {layers}",
    )
    ends = [round(layer * num_nodes / layers) for layer in range(layers + 1)]
    parts = [range(first, last) for first, last in itertools.pairwise(ends)]
    graph: networkx.Graph = nx.empty_graph(num_nodes)
    for below, above in itertools.pairwise(parts):
        graph.add_edges_from(itertools.product(below, above))
    return graph


FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        Family(
            name="barabasi_albert",
            summary="nodes come one by one, each with edges to `attachments` others, rather to those of many",
            defaults={"attachments": lambda n: max(1, n // 10)},
            make=_barabasi_albert,
        ),
        Family(
            name="watts_strogatz",
            summary="a ring with edges to `neighbours` each, every edge rewired with the chance `rewiring`; "
            "drawn again until connected",
            defaults={"neighbours": lambda n: max(2, n // 5), "rewiring": lambda n: 1.0},
            make=_watts_strogatz,
        ),
        Family(
            name="erdos_renyi",
            summary="every edge with the chance `probability`; drawn until connected if `connected`",
            defaults={
                "probability": lambda n: min(
                    1.0, max(2, n // 5) / (n - 1)
                ),  # the mean degree of watts_strogatz
                "connected": lambda n: True,
            },
            make=_erdos_renyi,
        ),
        Family(
            name="kleinberg",
            summary="a grid of `dimensions`, and from each node `shortcuts` edges, to nodes at distance d "
            "with a chance in proportion to d**-exponent; directions dropped",
            defaults={
                "dimensions": lambda n: 2 if round(n**0.5) ** 2 == n else 1,
                "shortcuts": lambda n: 1,
                "exponent": lambda n: 2.0,
            },
            make=_kleinberg,
        ),
        Family(
            name="stack",
            summary="not random: `layers` of equal size, each joined to all of the next as dense layers are; "
            "the reference for the others",
            defaults={"layers": lambda n: min(3, n)},
            make=_stack,
        ),
    )
}


def family(name: str) -> Family:
    """The family of that name.

    Raises:
        InputError: there is none.
    """
    if name not in FAMILIES:
        raise unknown_name("graph family", name, FAMILIES)
    return FAMILIES[name]


@dataclass(frozen=True, kw_only=True)
class GraphPlan:
    """A random graph by name: hashable, comparable, and JSON through `to_json`.

    Attributes:
        family: a key of `FAMILIES`.
        num_nodes: n, from 2 to `MAX_NODES`.
        parameters: (name, value) pairs in alphabetical order, all of the family's.
        seed: of its draws.

    Use `GraphPlan.of`, which fills in the parameters that are left out (the thesis's, where it has some).
    """

    family: str
    num_nodes: int
    parameters: tuple[tuple[str, Any], ...]
    seed: int

    @classmethod
    def of(cls, name: str, num_nodes: int, *, seed: int, **parameters: Any) -> GraphPlan:
        """A plan with some parameters other than the family's defaults.

        Raises:
            InputError: an unknown family or parameter, or a number of nodes that is too small or too large.
        """
        defaults = family(name).defaults
        for parameter in parameters:
            if parameter not in defaults:
                raise unknown_name(f"parameter of {name}", parameter, defaults)
        _check(
            _is_whole(num_nodes, 2, MAX_NODES),
            f"a graph must have at least 2 nodes and at most {MAX_NODES}, got {num_nodes!r}; try 50",
        )
        values = {key: default(num_nodes) for key, default in defaults.items()} | parameters
        return cls(family=name, num_nodes=num_nodes, parameters=tuple(sorted(values.items())), seed=seed)

    @classmethod
    def thesis_sample(cls, name: str, number: int, *, seed: int = 0) -> GraphPlan:
        """Graph `number` of a family's sample as the sparse-RNN thesis draws it: n uniform in 10 … 50."""
        chosen = random.Random(derive_seed(seed, "graph sample", name, number))
        return cls.of(name, chosen.randint(10, 50), seed=chosen.randrange(2**32))

    def to_json(self) -> dict[str, Any]:
        return {
            "family": self.family,
            "num_nodes": self.num_nodes,
            "seed": self.seed,
            **dict(self.parameters),
        }

    def build(self) -> networkx.Graph:
        """The graph; the same plan gives the same one.

        Raises:
            InputError: a parameter out of range, or no connected graph was found where one is needed.
        """
        import networkx as nx

        source = random.Random(derive_seed(self.seed, "graph", self.family, self.num_nodes))
        drawn = family(self.family).make(self.num_nodes, source, **dict(self.parameters))
        graph: networkx.Graph = nx.empty_graph(self.num_nodes)  # networkx's own order is not always by number
        graph.add_edges_from(sorted(tuple(sorted(edge)) for edge in drawn.edges))
        return graph
