"""Sequence classifiers: recurrent layers, and a linear readout of what the last one holds at the end.

References:
    JSE, section 6 (one recurrent layer, zero initial state, the last step's activations, Glorot readout).

Axes: T time, B batch, F features, H hidden, L layers, C classes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from hyperprune.errors import InputError, unknown_name
from hyperprune.models.cells import RHN, PeepholeLSTM
from hyperprune.models.start import Scheme, check_start, draw_weights

Cell = Literal["rnn", "rnn_relu", "lstm", "peephole_lstm", "peephole_lstm_diagonal", "gru", "rhn"]


@dataclass(frozen=True, kw_only=True)
class ClassifierSettings:
    """What a sequence classifier looks like, but for its inputs and classes.

    Args:
        cell: "rnn" (tanh), "rnn_relu", "lstm", "peephole_lstm" (the cell seen by all gates through full
            matrices, which the JSE paper counts), "peephole_lstm_diagonal", "gru" or "rhn".
        hidden_size: units H of a recurrent layer.
        num_layers: recurrent layers; an RHN has one and is made deeper by `depth`.
        depth: the RHN's micro-steps for each time step; 1 for the others.
        init: how the recurrent layers' weights start: "normal", "glorot", "he", "uniform" or "torch" (see
            `hyperprune.models.start`). The readout always starts after Glorot, with zero biases.
        init_scale: of "normal" its standard deviation, of "uniform" its end (None: 0.1), of "torch" the
            bound (None: 1/√hidden_size).
        pruned: which matrices may be pruned: the "recurrent" layers' (input and recurrent weights), as
            in the JSE paper, or "all", readout included.

    Raises:
        InputError: a value out of range, or one that this cell would ignore.
    """

    cell: Cell = "gru"
    hidden_size: int = 400
    num_layers: int = 1
    depth: int = 1
    init: Scheme = "normal"
    init_scale: float | None = None
    pruned: Literal["recurrent", "all"] = "recurrent"

    def __post_init__(self) -> None:
        if self.cell not in CELLS:
            raise unknown_name("cell", self.cell, CELLS)
        for name in ("hidden_size", "num_layers", "depth"):
            if getattr(self, name) < 1:
                raise InputError(
                    f"{name} must be at least 1, got {getattr(self, name)}; 100 units in 1 layer"
                )
        if self.cell == "rhn" and self.num_layers != 1:
            raise InputError(f"an RHN has one layer, got num_layers = {self.num_layers}; set depth instead")
        if self.cell != "rhn" and self.depth != 1:
            raise InputError(f"depth is an RHN's, got {self.depth} for {self.cell!r}; set num_layers instead")
        if self.pruned not in ("recurrent", "all"):
            raise unknown_name("choice of pruned matrices", self.pruned, ("recurrent", "all"))
        check_start(self.init, self.init_scale, name="init_scale")


_Builder = Callable[[int, ClassifierSettings], nn.Module]


def _sizes(num_features: int, settings: ClassifierSettings) -> tuple[int, int, int]:
    return num_features, settings.hidden_size, settings.num_layers


CELLS: dict[str, _Builder] = {
    "rnn": lambda features, settings: nn.RNN(*_sizes(features, settings)),
    "rnn_relu": lambda features, settings: nn.RNN(*_sizes(features, settings), nonlinearity="relu"),
    "lstm": lambda features, settings: nn.LSTM(*_sizes(features, settings)),
    "peephole_lstm": lambda features, settings: PeepholeLSTM(*_sizes(features, settings), peephole="full"),
    "peephole_lstm_diagonal": lambda features, settings: PeepholeLSTM(*_sizes(features, settings)),
    "gru": lambda features, settings: nn.GRU(*_sizes(features, settings)),
    "rhn": lambda features, settings: RHN(features, settings.hidden_size, settings.depth),
}


def read_at_end(
    outputs_TBH: Float[Tensor, "T B H"], lengths: Int64[Tensor, " B"] | None
) -> Float[Tensor, "B H"]:
    """A recurrent module's outputs at the last step of each sequence.

    Args:
        lengths: (B,) steps of each sequence, in 1 … T; None reads step T of all.

    Raises:
        InputError: lengths of another shape or out of range.
    """
    if lengths is None:
        return outputs_TBH[-1]
    num_steps, batch_size = outputs_TBH.shape[:2]
    if lengths.shape != (batch_size,) or bool(((lengths < 1) | (lengths > num_steps)).any()):
        raise InputError(
            f"lengths must be {batch_size} numbers from 1 to {num_steps}, got shape "
            f"{tuple(lengths.shape)} with {lengths.tolist()[:8]}; count the steps before the padding"
        )
    # The layers run forwards only, so a state depends on nothing behind it and no packing is needed.
    return outputs_TBH[lengths - 1, torch.arange(batch_size, device=lengths.device)]


class SequenceClassifier(nn.Module):
    """A recurrent module called `rnn`, and a linear `readout` of the last layer's state at the end.

    Parameters: `rnn.*`, `readout.weight` (C, H), `readout.bias` (C).

    Args:
        settings: cell, sizes, start values.
        num_features: F, at least 1.
        num_classes: C, at least 2.
        generator: source of the initial weights.

    Raises:
        InputError: too few features or classes.
    """

    def __init__(
        self,
        settings: ClassifierSettings,
        num_features: int,
        num_classes: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        if num_features < 1 or num_classes < 2:
            raise InputError(
                "a classifier needs at least 1 feature and 2 classes, got "
                f"{num_features} and {num_classes}; check the data"
            )
        self.settings = settings
        # torch.nn draws start values from the global generator; they are all overwritten below.
        with torch.random.fork_rng(devices=[]):
            self.rnn = CELLS[settings.cell](num_features, settings)
            self.readout = nn.Linear(settings.hidden_size, num_classes)
        draw_weights(self.rnn, settings.init, settings.init_scale, generator)
        nn.init.xavier_uniform_(self.readout.weight, generator=generator)
        nn.init.zeros_(self.readout.bias)

    def forward(
        self,
        inputs: Float[Tensor, "T B F"],
        lengths: Int64[Tensor, " B"] | None = None,
    ) -> Float[Tensor, "B C"]:
        """Score the classes of whole sequences, from a zero state.

        Args:
            inputs: (T, B, F).
            lengths: (B,) steps of each sequence, in 1 … T, where those behind are padding; None reads all
                of every one. What the padding holds does not change the result.

        Returns:
            Logits (B, C).

        Raises:
            InputError: lengths of another shape or out of range.
        """
        outputs_TBH, _ = self.rnn(inputs)
        return self.readout(read_at_end(outputs_TBH, lengths))

    def recurrent_runs(
        self, inputs: Float[Tensor, "T B F"], skip: int = 0
    ) -> list[tuple[nn.Module, Float[Tensor, "t B F"], Any]]:
        """What drives the recurrent module on `inputs`: [(module, inputs, state)], with one entry.

        Args:
            inputs: (T, B, F).
            skip: steps, below T, that only bring about the state from which the run then starts.
        """
        if skip == 0:
            return [(self.rnn, inputs, None)]
        with torch.no_grad():
            _, state = self.rnn(inputs[:skip])
        return [(self.rnn, inputs[skip:], state)]

    def prunable(self) -> list[str]:
        """Names of the matrices that `settings.pruned` stands for."""
        module = self.rnn if self.settings.pruned == "recurrent" else self
        prefix = "rnn." if self.settings.pruned == "recurrent" else ""
        return [f"{prefix}{name}" for name, weight in module.named_parameters() if weight.ndim >= 2]
