"""A recurrent network wired by a layered graph: a unit for each node, weights between layers where edges are.

Each layer of the graph is a recurrent layer with input weights only where edges come from the layer just
below; edges that skip layers are further recurrent layers, from the skipped-from layer to theirs, whose
outputs are added. All recurrent layers that end in one layer of the graph lie side by side in one recurrent
layer here (`WiredLayer`, its recurrent matrix block diagonal), so that a sequence takes one fused kernel of
torch for each layer of the graph. The first layer sees all inputs; recurrent matrices are dense within each
recurrent layer.

Only weights that the graph has are parameters; the forward pass puts them in their places of matrices that
are 0 elsewhere. So no optimizer, clipping or copy can touch a weight that is not there, and a pruning method
(`hyperprune.SparseTraining`) works on the weights that are.

Reference: the sparse-RNN thesis, section 5.3 and its published code.

Axes: T time, B batch, I inputs, N units of all recurrent layers, G gates, D blocks of one layer (recurrent
layers that end in it), W nodes of a layer (DW = D·W units, GDW rows), E inputs of one layer, M edges
into it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from hyperprune.errors import InputError, unknown_name
from hyperprune.graphs import LayeredGraph

State = Tensor | tuple[Tensor, Tensor]
_Parts = tuple[Tensor, ...]


@dataclass(frozen=True)
class CellKind:
    """How a cell is run: its gates, the parts of its state, and torch's kernel for whole sequences."""

    num_gates: int
    num_parts: int
    kernel: Callable[..., Any]


CELLS: dict[str, CellKind] = {
    "rnn": CellKind(1, 1, torch.rnn_tanh),
    "rnn_relu": CellKind(1, 1, torch.rnn_relu),
    "gru": CellKind(3, 1, torch.gru),
    "lstm": CellKind(4, 2, torch.lstm),
}


@dataclass(frozen=True, kw_only=True)
class Block:
    """One recurrent layer of the network, 0 where no edge is; rows of all gates stacked as in `torch.nn`.

    Attributes:
        source: the layer of the graph that it reads; None reads the network's inputs.
        target: the layer of the graph to which its output is added.
        units: its columns of the network's state.
    """

    source: int | None
    target: int
    units: slice
    weight_ih: Tensor
    weight_hh: Tensor
    bias_ih: Tensor
    bias_hh: Tensor


class WiredLayer(nn.Module):
    """The recurrent layers that end in one layer of the graph, as one recurrent layer with weights left out.

    Parameters, rows by gate, then block, then node: `weight_ih` (G, M), a weight for each gate and edge,
    edges by the unit that they lead to; `weight_hh` (GDW, W); `bias_ih`, `bias_hh` (GDW).

    Args:
        cell: a key of `CELLS`.
        links: for each block its edges, (W, nodes of the layer it reads), True where there is one.

    Attributes:
        matrix_shapes: of the matrices, 0 where no weight is, that `weight_ih` and `weight_hh` stand for.
    """

    _places_ih: Tensor
    _places_hh: Tensor

    def __init__(self, cell: str, links: Sequence[Bool[Tensor, "W _"]]) -> None:
        super().__init__()
        self._kind = CELLS[cell]
        self.num_gates = self._kind.num_gates
        self.num_blocks, self.width = len(links), links[0].shape[0]
        self.num_units = self.num_blocks * self.width
        rows = self.num_gates * self.num_units
        edges = torch.block_diag(*(link.int() for link in links)).bool()
        within = torch.block_diag(*[torch.ones(self.width, self.width)] * self.num_blocks).bool()
        for name, mask in (("_places_ih", edges), ("_places_hh", within)):
            places = mask.repeat(self.num_gates, 1).flatten().nonzero().squeeze(1)
            self.register_buffer(name, places, persistent=False)
        self.matrix_shapes = {"weight_ih": (rows, edges.shape[1]), "weight_hh": (rows, self.num_units)}
        self.weight_ih = nn.Parameter(torch.empty(self.num_gates, int(edges.sum())))
        self.weight_hh = nn.Parameter(torch.empty(rows, self.width))
        self.bias_ih = nn.Parameter(torch.empty(rows))
        self.bias_hh = nn.Parameter(torch.empty(rows))

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None) -> None:
        """Uniform on ±1/√W, as each recurrent layer would start by itself."""
        limit = 1 / math.sqrt(self.width)
        for parameter in self.parameters():
            parameter.uniform_(-limit, limit, generator=generator)

    def matrices(self) -> tuple[Float[Tensor, "GDW E"], Float[Tensor, "GDW DW"]]:
        """Input and recurrent weights in their places, 0 elsewhere."""
        placed = zip(
            (self.weight_ih, self.weight_hh),
            (self._places_ih, self._places_hh),
            self.matrix_shapes.values(),
            strict=True,
        )
        weight_ih, weight_hh = (
            weight.new_zeros(shape[0] * shape[1]).index_copy(0, places, weight.flatten()).view(shape)
            for weight, places, shape in placed
        )
        return weight_ih, weight_hh

    def forward(self, inputs: Float[Tensor, "T B E"], state: _Parts) -> tuple[Float[Tensor, "T B W"], _Parts]:
        """Outputs, summed over blocks, and the last state, each part (B, DW) like the first."""
        weights = (*self.matrices(), self.bias_ih, self.bias_hh)
        start = tuple(part.unsqueeze(0).contiguous() for part in state)
        start = start[0] if len(start) == 1 else start
        outputs, *last = self._kind.kernel(inputs, start, weights, True, 1, 0.0, self.training, False, False)
        if self.num_blocks > 1:
            outputs = outputs.unflatten(2, (self.num_blocks, self.width)).sum(2)
        return outputs, tuple(part.squeeze(0) for part in last)

    def block_weights(self, block: int) -> dict[str, Tensor]:
        """The four tensors of one block, as a recurrent layer of its own would have them."""
        weight_ih, weight_hh, bias_ih, bias_hh = (
            tensor.detach()
            .unflatten(0, (self.num_gates, self.num_blocks, self.width))[:, block]
            .flatten(0, 1)
            for tensor in (*self.matrices(), self.bias_ih, self.bias_hh)
        )
        units = slice(block * self.width, (block + 1) * self.width)
        return {
            "weight_ih": weight_ih,
            "weight_hh": weight_hh[:, units],
            "bias_ih": bias_ih,
            "bias_hh": bias_hh,
        }


class GraphRNN(nn.Module):
    """The network of a layered graph.

    Parameters: `layers.{i}.*`, see `WiredLayer`.

    Args:
        graph: its wiring; see `hyperprune.graphs.layered`.
        cell: "rnn" (tanh), "rnn_relu", "gru" or "lstm".
        input_size: features I of the inputs; None for as many as the graph has sources, as in the thesis.
        generator: source of the initial weights; None draws from the global generator.

    Attributes:
        output_size: nodes of the last layer.
        num_units: N, the units of all recurrent layers.

    Raises:
        InputError: an unknown cell, or an input size below 1.
    """

    def __init__(
        self,
        graph: LayeredGraph,
        cell: str = "rnn",
        *,
        input_size: int | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if cell not in CELLS:
            raise unknown_name("cell", cell, CELLS)
        if input_size is not None and input_size < 1:
            raise InputError(
                f"input_size must be at least 1, got {input_size}; None takes the graph's sources"
            )
        self.graph, self.cell = graph, cell
        self.input_size = len(graph.layers[0]) if input_size is None else input_size
        self.output_size = len(graph.layers[-1])
        self._sources = [
            tuple(source for source, reader in graph.links if reader == target)
            for target in range(len(graph.layers))
        ]
        first = torch.ones(len(graph.layers[0]), self.input_size, dtype=torch.bool)
        self.layers = nn.ModuleList(
            WiredLayer(cell, [_link(graph, source, target) for source in sources] or [first])
            for target, sources in enumerate(self._sources)
        )
        self.num_units = sum(layer.num_units for layer in self._layers())
        for layer in self._layers():
            layer.reset_parameters(generator)

    def _layers(self) -> Iterator[WiredLayer]:
        for layer in self.layers:
            assert isinstance(layer, WiredLayer)
            yield layer

    def initial_state(self, batch_size: int) -> State:
        """The zero state on the weights' device and in their type."""
        zeros = self.get_parameter("layers.0.bias_hh").new_zeros(batch_size, self.num_units)
        return zeros if CELLS[self.cell].num_parts == 1 else (zeros, zeros.clone())

    def forward(
        self, inputs: Float[Tensor, "T B I"], state: State | None = None
    ) -> tuple[Float[Tensor, "T B _"], State]:
        """Run the network over a window.

        Args:
            inputs: (T, B, I), T ≥ 1.
            state: h (B, N), for an LSTM (h, c); the recurrent layers in the order of `blocks`. None is zero.

        Returns:
            The last layer's outputs (T, B, output_size), and the last state.

        Raises:
            InputError: inputs or state of another shape.
        """
        if inputs.ndim != 3 or inputs.shape[0] < 1 or inputs.shape[2] != self.input_size:
            raise InputError(
                f"inputs must have shape (time, batch, {self.input_size}) with at least one step, got "
                f"{tuple(inputs.shape)}; time comes first"
            )
        if state is None:
            state = self.initial_state(inputs.shape[1])
        parts = (state,) if isinstance(state, Tensor) else state
        expected = (inputs.shape[1], self.num_units)
        if len(parts) != CELLS[self.cell].num_parts or any(part.shape != expected for part in parts):
            raise InputError(
                f"the state of a {self.cell!r} network must have {CELLS[self.cell].num_parts} part(s) of "
                f"shape {expected}, got {[tuple(part.shape) for part in parts]}; None starts from zero"
            )
        sizes = [layer.num_units for layer in self._layers()]
        starts = zip(*(part.split(sizes, dim=1) for part in parts), strict=True)
        outputs: list[Tensor] = []
        ends: list[_Parts] = []
        for layer, sources, start in zip(self._layers(), self._sources, starts, strict=True):
            below = torch.cat([outputs[source] for source in sources], dim=2) if sources else inputs
            output, end = layer(below, start)
            outputs.append(output)
            ends.append(end)
        after = tuple(torch.cat(part, dim=1) for part in zip(*ends, strict=True))
        return outputs[-1], after[0] if len(after) == 1 else (after[0], after[1])

    def step(self, x_t: Float[Tensor, "B I"], state: State) -> State:
        """The state after one time step with input `x_t` (B, I)."""
        return self(x_t.unsqueeze(0), state)[1]

    def blocks(self) -> list[Block]:
        """All recurrent layers, in the order of the state's columns: by target, then by source."""
        blocks, unit = [], 0
        for target, (layer, sources) in enumerate(zip(self._layers(), self._sources, strict=True)):
            column = 0
            for index, source in enumerate(sources or (None,)):
                own = layer.block_weights(index)
                width = self.input_size if source is None else len(self.graph.layers[source])
                own["weight_ih"] = own["weight_ih"][:, column : column + width]
                units = slice(unit, unit + layer.width)
                blocks.append(Block(source=source, target=target, units=units, **own))
                column, unit = column + width, unit + layer.width
        return blocks

    def num_weights(self) -> int:
        """Weights, biases apart."""
        return sum(layer.weight_ih.numel() + layer.weight_hh.numel() for layer in self._layers())

    def describe(self) -> dict[str, Any]:
        return {"graph": self.graph.to_json(), "cell": self.cell, "input_size": self.input_size}

    @classmethod
    def from_description(cls, data: Mapping[str, Any]) -> GraphRNN:
        """A network as `describe` told of it, its weights drawn anew."""
        graph = LayeredGraph.from_json(data["graph"])
        return cls(graph, data["cell"], input_size=data["input_size"], generator=torch.Generator())

    def extra_repr(self) -> str:
        graph = self.graph
        return f"{self.cell}, {graph.num_nodes} nodes, {len(graph.edges)} edges, {len(graph.layers)} layers"


def _link(graph: LayeredGraph, source: int, target: int) -> Tensor:
    """(nodes of target, nodes of source), True at each edge."""
    place = {node: place for layer in (source, target) for place, node in enumerate(graph.layers[layer])}
    link = torch.zeros(len(graph.layers[target]), len(graph.layers[source]), dtype=torch.bool)
    for from_node, to_node in graph.links[source, target]:
        link[place[to_node], place[from_node]] = True
    return link
