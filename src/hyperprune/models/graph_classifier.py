"""Classifiers of strings by a graph-wired network, and files that hold such a network with its graph.

Reference: the sparse-RNN thesis, section 5.3 (embedding as wide as the sources, last layer read out).

Axes: T time, B batch, V codes, I inputs, C classes.
"""

from __future__ import annotations

import io
import json
import math
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from hyperprune.errors import InputError
from hyperprune.files import write_atomically
from hyperprune.graphs import LayeredGraph
from hyperprune.models.classifier import read_at_end
from hyperprune.models.graph_rnn import GraphRNN

_FORMAT = "hyperprune-graph-network-1"


class GraphClassifier(nn.Module):
    """Classes of strings by a graph-wired network: embedding as wide as the sources, `rnn`, `readout`.

    Args:
        graph: its wiring.
        cell: "rnn" (tanh), "rnn_relu", "gru" or "lstm".
        num_codes: characters V.
        num_classes: C.
        read_padding: read out the state after a batch's padding, as the thesis does, so that a string's
            class depends on the longest string beside it; by default the state at the string's own end.
        generator: source of the initial weights, which start as torch's own modules do.
    """

    def __init__(
        self,
        graph: LayeredGraph,
        cell: str,
        *,
        num_codes: int = 128,
        num_classes: int = 2,
        read_padding: bool = False,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.num_codes, self.num_classes, self.read_padding = num_codes, num_classes, read_padding
        self.rnn = GraphRNN(graph, cell, generator=generator)
        # torch.nn draws start values from the global generator; they are overwritten below.
        with torch.random.fork_rng(devices=[]):
            self.embedding = nn.Embedding(num_codes, self.rnn.input_size)
            self.readout = nn.Linear(self.rnn.output_size, num_classes)
        nn.init.normal_(self.embedding.weight, generator=generator)
        limit = 1 / math.sqrt(self.rnn.output_size)
        nn.init.uniform_(self.readout.weight, -limit, limit, generator=generator)
        nn.init.uniform_(self.readout.bias, -limit, limit, generator=generator)

    def forward(self, codes: Int64[Tensor, "T B"], lengths: Int64[Tensor, " B"]) -> Float[Tensor, "B C"]:
        """Logits (B, C) of padded strings: codes (T, B), lengths (B,) in 1 … T."""
        outputs, _ = self.rnn(self.embedding(codes))
        return self.readout(read_at_end(outputs, None if self.read_padding else lengths))

    def recurrent_runs(self, codes: Int64[Tensor, "T B"]) -> list[tuple[nn.Module, Tensor, Any]]:
        """What drives the recurrent module on `codes`: [(module, inputs (T, B, I), state)], one entry."""
        with torch.no_grad():
            return [(self.rnn, self.embedding(codes), None)]

    def prunable(self) -> list[str]:
        """Names of the recurrent layers' matrices."""
        return [f"rnn.{name}" for name, weight in self.rnn.named_parameters() if weight.ndim == 2]

    def describe(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in ("num_codes", "num_classes", "read_padding")}
        return own | self.rnn.describe()

    @classmethod
    def from_description(cls, data: Mapping[str, Any]) -> GraphClassifier:
        """A network as `describe` told of it, its weights drawn anew."""
        settings = {name: data[name] for name in ("num_codes", "num_classes", "read_padding")}
        graph = LayeredGraph.from_json(data["graph"])
        return cls(graph, data["cell"], generator=torch.Generator(), **settings)


_KINDS: dict[str, type[GraphRNN | GraphClassifier]] = {
    "GraphRNN": GraphRNN,
    "GraphClassifier": GraphClassifier,
}


def save_network(network: GraphRNN | GraphClassifier, path: str | Path) -> None:
    """Write a network with its graph to one file, atomically."""
    description = {"kind": type(network).__name__, **network.describe()}
    buffer = io.BytesIO()
    torch.save(
        {"format": _FORMAT, "network": json.dumps(description), "weights": network.state_dict()}, buffer
    )
    write_atomically(Path(path), buffer.getvalue())


def load_network(path: str | Path) -> GraphRNN | GraphClassifier:
    """The network of a file of `save_network`, on the CPU, in evaluation mode; the file runs no code.

    Raises:
        InputError: no such file, a damaged one, or one of something else.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise InputError(f"a network must be a readable file, got {path}: {error.strerror}") from error
    except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError) as error:
        raise InputError(f"{path} is damaged, or no file of a network: {error}") from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise InputError(f"{path} must be a file of save_network, and is not; give one that it wrote")
    description = json.loads(content["network"])
    network = _KINDS[description["kind"]].from_description(description)
    network.to(next(iter(content["weights"].values())).dtype)
    network.load_state_dict(content["weights"])
    return network.eval()
