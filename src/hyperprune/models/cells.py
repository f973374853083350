"""Recurrent layers that `torch.nn` does not have: the recurrent highway network and the peephole LSTM.

Both are ordinary modules: weights of all gates lie in one stacked matrix, named after the pattern of
`torch.nn.LSTM`, and the input's part of the pre-activations is one matrix product for all time steps.

References:
    Zilly, Srivastava, Koutník, Schmidhuber (2017), Recurrent Highway Networks, eqs. 6-9.
    Gers, Schraudolph, Schmidhuber (2002), Learning precise timing with LSTM recurrent networks
    (the diagonal peephole).

Axes: T time, B batch, I input, H hidden, G gates (GH = G·H stacked rows), L layers.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from hyperprune.errors import InputError, unknown_name

_HiddenAndCell = tuple[Tensor, Tensor]


def _check_size(name: str, value: int) -> None:
    if value < 1:
        raise InputError(f"{name} must be at least 1, got {value}; give the number of units, layers or steps")


def _check_width(inputs: Tensor, expected: int) -> None:
    if inputs.shape[-1] != expected:
        raise InputError(
            f"the last axis of the inputs must have input_size = {expected} features, "
            f"got shape {tuple(inputs.shape)}; inputs are (time, batch, features)"
        )


def _check_state(state: Tensor, expected: tuple[int, ...]) -> None:
    if tuple(state.shape) != expected:
        raise InputError(
            f"the state must have shape {expected}, got {tuple(state.shape)}; "
            "pass None to start from zero, or the state of the same batch size"
        )


class RHN(nn.Module):
    """One recurrent highway layer: `depth` highway micro-steps between two time steps.

    With s the state and the input x entering the first micro-step only,

        h = tanh(W_H x·[d = 0] + R_H,d s + b_H,d)
        t = sigmoid(W_T x·[d = 0] + R_T,d s + b_T,d)
        c = 1 - t if coupled, else sigmoid(W_C x·[d = 0] + R_C,d s + b_C,d)
        s <- h * t + s * c

    Parameters (gates stacked by rows in the order h, t[, c]; G = 2 coupled, 3 free):
        weight_ih_l0: (G·H, I).
        weight_hh_l0_d{j}: (G·H, H), one for each micro-step j.
        bias_l0_d{j}: (G·H), one for each micro-step j.

    Args:
        input_size: features of one time step.
        hidden_size: units H.
        depth: micro-steps for each time step, at least 1.
        coupled: carry gate tied to the transform gate, as in the published language models.
        bias: without it the transform gate also loses its starting value.
        transform_bias: where the transform gate's biases start; -2 as in the published PTB runs, so that
            the layer begins by carrying its state. A free carry gate starts at the mirrored value
            (ours: then both forms start alike).
        generator: source of the initial weights, uniform on ±1/√H; None draws from the global generator.

    Raises:
        InputError: a size is below 1.

    Reference:
        Zilly et al. 2017, eqs. 6-9. One layer; deeper networks are written as larger `depth`, as there.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        depth: int = 3,
        *,
        coupled: bool = True,
        bias: bool = True,
        transform_bias: float = -2.0,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("input_size", input_size), ("hidden_size", hidden_size), ("depth", depth)):
            _check_size(name, value)
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.depth = depth
        self.coupled = coupled
        self.bias = bias
        self.transform_bias = transform_bias
        self.num_layers = 1
        self.num_gates = 2 if coupled else 3
        rows = self.num_gates * hidden_size

        def parameter(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(*shape, device=device, dtype=dtype))

        self.weight_ih_l0 = parameter(rows, input_size)
        for micro_step in range(depth):
            self.register_parameter(f"weight_hh_l0_d{micro_step}", parameter(rows, hidden_size))
            self.register_parameter(f"bias_l0_d{micro_step}", parameter(rows) if bias else None)
        self.reset_parameters(generator)

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None, bound: float | None = None) -> None:
        """Draw every weight uniformly on ±`bound` (1/√H if None) and set the biases' starting values."""
        limit = 1 / math.sqrt(self.hidden_size) if bound is None else bound
        self.weight_ih_l0.uniform_(-limit, limit, generator=generator)
        for weight, bias in zip(self.recurrent_weights(), self.biases(), strict=True):
            weight.uniform_(-limit, limit, generator=generator)
            if bias is not None:
                gates = bias.view(self.num_gates, self.hidden_size)
                gates[0].zero_()
                gates[1].fill_(self.transform_bias)
                if not self.coupled:
                    gates[2].fill_(-self.transform_bias)

    def recurrent_weights(self) -> list[nn.Parameter]:
        """The (G·H, H) matrices of the micro-steps, first to last."""
        return [self.get_parameter(f"weight_hh_l0_d{micro_step}") for micro_step in range(self.depth)]

    def biases(self) -> list[nn.Parameter | None]:
        """The (G·H) biases of the micro-steps, first to last; None where the layer has none."""
        return [getattr(self, f"bias_l0_d{micro_step}") for micro_step in range(self.depth)]

    def initial_state(self, batch_size: int) -> Float[Tensor, "B H"]:
        """The zero state on the weights' device and in their type."""
        return self.weight_ih_l0.new_zeros(batch_size, self.hidden_size)

    def forward(
        self,
        inputs: Float[Tensor, "T B I"],
        state: Tensor | None = None,
        *,
        state_mask: Float[Tensor, "B H"] | None = None,
    ) -> tuple[Float[Tensor, "T B H"], Float[Tensor, "B H"]]:
        """Run the layer over a window.

        Args:
            inputs: (T, B, I), T ≥ 1.
            state: (B, H); None starts from zero.
            state_mask: (B, H) factors for the state where it enters the matrices, the same for all time
                and micro-steps (variational dropout); the carried state itself is not masked.

        Returns:
            The state after each time step, (T, B, H), and the last one, (B, H).

        Raises:
            InputError: no time step, or a shape that does not fit.
        """
        _check_width(inputs, self.input_size)
        if inputs.shape[0] == 0:
            raise InputError("a window needs at least one time step, got 0; pass inputs of shape (T, B, I)")
        if state is None:
            state = self.initial_state(inputs.shape[1])
        _check_state(state, (inputs.shape[1], self.hidden_size))
        weights, biases = self.recurrent_weights(), self.biases()
        outputs = []
        for projected_BG in F.linear(inputs, self.weight_ih_l0, biases[0]).unbind(0):
            state = self._micro_steps(projected_BG, state, state_mask, weights, biases)
            outputs.append(state)
        return torch.stack(outputs), state

    def step(
        self,
        x_t: Float[Tensor, "B I"],
        state: Float[Tensor, "B H"],
        *,
        state_mask: Float[Tensor, "B H"] | None = None,
    ) -> Float[Tensor, "B H"]:
        """The state after one time step with input `x_t` (B, I); the same arithmetic as `forward`."""
        weights, biases = self.recurrent_weights(), self.biases()
        projected_BG = F.linear(x_t, self.weight_ih_l0, biases[0])
        return self._micro_steps(projected_BG, state, state_mask, weights, biases)

    def _micro_steps(
        self,
        projected_BG: Tensor,
        state: Tensor,
        state_mask: Tensor | None,
        weights: list[nn.Parameter],
        biases: list[nn.Parameter | None],
    ) -> Tensor:
        for micro_step, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            seen = state if state_mask is None else state * state_mask
            if micro_step == 0:  # the projected input carries the first bias
                gates_BG = torch.addmm(projected_BG, seen, weight.t())
            else:
                gates_BG = F.linear(seen, weight, bias)
            candidate, *gates = gates_BG.chunk(self.num_gates, dim=-1)
            transform = torch.sigmoid(gates[0])
            if self.coupled:
                state = torch.lerp(state, torch.tanh(candidate), transform)
            else:
                state = torch.tanh(candidate) * transform + state * torch.sigmoid(gates[1])
        return state

    def extra_repr(self) -> str:
        return f"{self.input_size}, {self.hidden_size}, depth={self.depth}, coupled={self.coupled}"


class PeepholeLSTM(nn.Module):
    """LSTM whose gates also see the cell; shapes, states and gate order (i, f, g, o) as in `nn.LSTM`.

    i, f (and g, if full) see the previous cell c; o sees the new cell c':

        i = sigmoid(W_i x + U_i h + P_i c + b_i)        f, g (tanh) alike
        c' = f * c + i * g
        o = sigmoid(W_o x + U_o h + P_o c' + b_o)
        h' = o * tanh(c')

    With "diagonal" P is diagonal and g has none (Gers et al. 2002); with "full" P is a matrix for each of
    the four gates, the form whose weights JSE counts: 4·H·(I + H + H), 1.32 M at I = 28, H = 400. That
    paper does not say which cell o sees; we keep c' in both forms.

    Parameters for each layer k (input_k = I for the first, H above):
        weight_ih_l{k}: (4·H, input_k); weight_hh_l{k}: (4·H, H).
        weight_peephole_l{k}: (3·H) for i, f, o if diagonal; (4·H, H) if full.
        bias_l{k}: (4·H).

    Args:
        generator: source of the initial values, uniform on ±1/√H as in `nn.LSTM`; None draws from the
            global generator.

    Raises:
        InputError: a size below 1, or an unknown form of peephole.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        peephole: str = "diagonal",
        bias: bool = True,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        sizes = (("input_size", input_size), ("hidden_size", hidden_size), ("num_layers", num_layers))
        for name, value in sizes:
            _check_size(name, value)
        if peephole not in ("diagonal", "full"):
            raise unknown_name("peephole", peephole, ("diagonal", "full"))
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.peephole = peephole
        self.bias = bias
        self.num_gates = 4

        def parameter(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(*shape, device=device, dtype=dtype))

        rows = 4 * hidden_size
        for layer in range(num_layers):
            columns = input_size if layer == 0 else hidden_size
            peephole_shape = (3 * hidden_size,) if peephole == "diagonal" else (rows, hidden_size)
            self.register_parameter(f"weight_ih_l{layer}", parameter(rows, columns))
            self.register_parameter(f"weight_hh_l{layer}", parameter(rows, hidden_size))
            self.register_parameter(f"weight_peephole_l{layer}", parameter(*peephole_shape))
            self.register_parameter(f"bias_l{layer}", parameter(rows) if bias else None)
        self.reset_parameters(generator)

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None, bound: float | None = None) -> None:
        """Draw every parameter uniformly on ±`bound` (1/√H if None)."""
        limit = 1 / math.sqrt(self.hidden_size) if bound is None else bound
        for parameter in self.parameters():
            parameter.uniform_(-limit, limit, generator=generator)

    def initial_state(self, batch_size: int) -> tuple[Float[Tensor, "L B H"], Float[Tensor, "L B H"]]:
        """Zero (h, c) on the weights' device and in their type."""
        shape = (self.num_layers, batch_size, self.hidden_size)
        weight = self.get_parameter("weight_ih_l0")
        return weight.new_zeros(shape), weight.new_zeros(shape)

    def forward(
        self,
        inputs: Float[Tensor, "T B I"],
        state: tuple[Float[Tensor, "L B H"], Float[Tensor, "L B H"]] | None = None,
    ) -> tuple[Float[Tensor, "T B H"], tuple[Float[Tensor, "L B H"], Float[Tensor, "L B H"]]]:
        """Run the layers over a window.

        Args:
            inputs: (T, B, I), T ≥ 1.
            state: (h, c), each (L, B, H); None starts from zero.

        Returns:
            The last layer's h after each time step, (T, B, H), and the last (h, c).

        Raises:
            InputError: no time step, or a shape that does not fit.
        """
        _check_width(inputs, self.input_size)
        if inputs.shape[0] == 0:
            raise InputError("a window needs at least one time step, got 0; pass inputs of shape (T, B, I)")
        if state is None:
            state = self.initial_state(inputs.shape[1])
        for part in state:
            _check_state(part, (self.num_layers, inputs.shape[1], self.hidden_size))
        last: list[_HiddenAndCell] = []
        outputs_TBH = inputs
        for layer, layer_state in enumerate(zip(*state, strict=True)):
            weights = self._layer_weights(layer)
            projected = F.linear(outputs_TBH, weights[0], weights[3])
            hidden, cell = layer_state
            outputs = []
            for projected_BG in projected.unbind(0):
                hidden, cell = self._advance(projected_BG, hidden, cell, weights)
                outputs.append(hidden)
            outputs_TBH = torch.stack(outputs)
            last.append((hidden, cell))
        return outputs_TBH, (torch.stack([h for h, _ in last]), torch.stack([c for _, c in last]))

    def step(
        self, x_t: Float[Tensor, "B I"], state: tuple[Float[Tensor, "L B H"], Float[Tensor, "L B H"]]
    ) -> tuple[Float[Tensor, "L B H"], Float[Tensor, "L B H"]]:
        """The (h, c) of all layers after one time step with input `x_t` (B, I)."""
        hidden, cell = [], []
        below = x_t
        for layer, (h, c) in enumerate(zip(*state, strict=True)):
            below, new_cell = self.layer_step(layer, below, (h, c))
            hidden.append(below)
            cell.append(new_cell)
        return torch.stack(hidden), torch.stack(cell)

    def layer_step(
        self, layer: int, x_t: Float[Tensor, "B F"], state: tuple[Float[Tensor, "B H"], Float[Tensor, "B H"]]
    ) -> tuple[Float[Tensor, "B H"], Float[Tensor, "B H"]]:
        """One layer's (h, c), each (B, H), after one time step driven by `x_t` (B, input_k)."""
        weights = self._layer_weights(layer)
        return self._advance(F.linear(x_t, weights[0], weights[3]), *state, weights)

    def _layer_weights(self, layer: int) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        return (
            self.get_parameter(f"weight_ih_l{layer}"),
            self.get_parameter(f"weight_hh_l{layer}"),
            self.get_parameter(f"weight_peephole_l{layer}"),
            getattr(self, f"bias_l{layer}"),
        )

    def _advance(
        self,
        projected_BG: Tensor,
        hidden: Tensor,
        cell: Tensor,
        weights: tuple[Tensor, Tensor, Tensor, Tensor | None],
    ) -> _HiddenAndCell:
        _, weight_hh, peephole, _ = weights
        i, f, g, o = torch.addmm(projected_BG, hidden, weight_hh.t()).chunk(4, dim=-1)
        if self.peephole == "diagonal":
            peephole_i, peephole_f, peephole_o = peephole.chunk(3)
            i = i + peephole_i * cell
            f = f + peephole_f * cell
        else:
            rows = 3 * self.hidden_size
            seen_i, seen_f, seen_g = F.linear(cell, peephole[:rows]).chunk(3, dim=-1)
            i, f, g = i + seen_i, f + seen_f, g + seen_g
            peephole_o = peephole[rows:]
        new_cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
        seen_o = peephole_o * new_cell if self.peephole == "diagonal" else F.linear(new_cell, peephole_o)
        return torch.sigmoid(o + seen_o) * torch.tanh(new_cell), new_cell

    def extra_repr(self) -> str:
        return (
            f"{self.input_size}, {self.hidden_size}, num_layers={self.num_layers}, peephole={self.peephole!r}"
        )
