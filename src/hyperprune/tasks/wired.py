"""The task `reber` for a network wired by a graph: one of a family, named by size and seed, or a file's.

Its graph may be a point of a search: with dense layers (`family = "stack"`) as the reference, the candidates
of the space `graphs` have random graphs of as many nodes.

Reference: the sparse-RNN thesis, section 5.3 (batch 128, 15 epochs, Adam at 1e-3, gradients clipped at 5).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any, Literal

import torch
from torch import nn

from hyperprune.data.strings import NUM_CODES
from hyperprune.errors import InputError
from hyperprune.graphs import GraphPlan, LayeredGraph, layered, read_graphml
from hyperprune.models.graph_classifier import GraphClassifier
from hyperprune.tasks.contract import Recipe
from hyperprune.tasks.reber import RECIPE, ReberTask, StringSettings

_OF_FAMILY = (
    "attachments",
    "neighbours",
    "rewiring",
    "probability",
    "connected",
    "dimensions",
    "shortcuts",
    "exponent",
    "layers",
)


@dataclass(frozen=True, kw_only=True)
class WiringSettings:
    """The cell, and the graph that wires it.

    Attributes:
        cell: "rnn" (tanh), "rnn_relu", "gru" or "lstm".
        family: of graphs, a key of `hyperprune.graphs.FAMILIES`: "stack" is dense, the others are random.
        num_nodes: of the random graph.
        graph_seed: of its draws.
        attachments, neighbours, rewiring, probability, connected, dimensions, shortcuts, exponent, layers: of
            the family, see there; None is the family's default.
        file: a GraphML file with the graph, in place of a random one.
        directed: keep the file's directions; without, edges go from the node that comes earlier.
        read_padding: see `GraphClassifier`.

    Raises:
        InputError: a parameter that the family does not have, or one that a file leaves without meaning.
    """

    cell: Literal["rnn", "rnn_relu", "gru", "lstm"] = "gru"
    family: str = "stack"
    num_nodes: int = 30
    graph_seed: int = 0
    attachments: int | None = None
    neighbours: int | None = None
    rewiring: float | None = None
    probability: float | None = None
    connected: bool | None = None
    dimensions: int | None = None
    shortcuts: int | None = None
    exponent: float | None = None
    layers: int | None = None
    file: str | None = None
    directed: bool = False
    read_padding: bool = False

    def __post_init__(self) -> None:
        if self.file is None:
            if self.directed:
                raise InputError("directed is for a graph of a file; random graphs have no directions")
            self.plan()
            return
        drawn = ("family", "num_nodes", "graph_seed", *_OF_FAMILY)
        for field in fields(self):
            if field.name in drawn and getattr(self, field.name) != field.default:
                raise InputError(
                    f"{field.name} is for a random graph, got it with file {self.file!r}; leave one of the "
                    "two out"
                )

    def plan(self) -> GraphPlan:
        """The random graph by name."""
        given = {name: value for name in _OF_FAMILY if (value := getattr(self, name)) is not None}
        return GraphPlan.of(self.family, self.num_nodes, seed=self.graph_seed, **given)

    def graph(self) -> LayeredGraph:
        """The graph, drawn or read, in layers."""
        if self.file is None:
            return layered(self.plan().build())
        graph = read_graphml(self.file)
        try:
            return layered(graph, directed=self.directed)
        except InputError as error:
            raise InputError(f"{self.file}: {error}") from error


class WiredReberTask(ReberTask):
    """Tell valid strings from false ones by a graph-wired network.

    Args:
        model: cell and graph.
        strings: which, and how many.
        recipe: how weights are trained.
    """

    name = "reber-graph"

    def __init__(
        self,
        *,
        model: WiringSettings | None = None,
        strings: StringSettings | None = None,
        recipe: Recipe = RECIPE,
    ) -> None:
        super().__init__(strings=strings or StringSettings(batch_size=128, by_length=True), recipe=recipe)
        self.wiring = model or WiringSettings()

    @cached_property
    def graph(self) -> LayeredGraph:
        """The network's graph."""
        return self.wiring.graph()

    def model(self, generator: torch.Generator) -> nn.Module:
        return GraphClassifier(
            self.graph,
            self.wiring.cell,
            num_codes=NUM_CODES,
            read_padding=self.wiring.read_padding,
            generator=generator,
        )

    def identity(self) -> dict[str, Any]:
        model = {**asdict(self.wiring), "file": None}  # its graph counts, wherever the file lies
        return {**super().identity(), "model": model, "graph": self.graph.to_json()}
