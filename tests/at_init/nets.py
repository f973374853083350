"""Tiny networks in float64, and what a slow reader would compute of them: weight by weight, by differences.

Nothing here uses hyperprune's own derivatives: the reference moves one weight at a time, and takes steps by
the modules' own forward pass.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from hyperprune.models import RHN, PeepholeLSTM

HIDDEN, FEATURES, BATCH, STEPS, CLASSES = 2, 2, 3, 4, 3


class Net(nn.Module):
    """A recurrent module and a readout of its last output."""

    rnn: Any

    def __init__(self, rnn: nn.Module) -> None:
        super().__init__()
        self.rnn = rnn
        self.readout = nn.Linear(HIDDEN, CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs, _ = self.rnn(inputs)
        return self.readout(outputs[-1])


MODULES: dict[str, Callable[[], nn.Module]] = {
    "rnn": lambda: nn.RNN(FEATURES, HIDDEN),
    "rnn_relu": lambda: nn.RNN(FEATURES, HIDDEN, nonlinearity="relu"),
    "lstm": lambda: nn.LSTM(FEATURES, HIDDEN),
    "lstm_2": lambda: nn.LSTM(FEATURES, HIDDEN, num_layers=2),
    "gru": lambda: nn.GRU(FEATURES, HIDDEN),
    "gru_2_no_bias": lambda: nn.GRU(FEATURES, HIDDEN, num_layers=2, bias=False),
    "peephole": lambda: PeepholeLSTM(FEATURES, HIDDEN),
    "peephole_full": lambda: PeepholeLSTM(FEATURES, HIDDEN, peephole="full"),
    "rhn": lambda: RHN(FEATURES, HIDDEN, 2),
}


def net(kind: str, *, seed: int = 0, scale: float = 0.6) -> Net:
    """A network whose weights are N(0, scale), in float64."""
    with torch.random.fork_rng(devices=[]):
        made = Net(MODULES[kind]()).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(0, scale, generator=generator)
    return made


def batch(seed: int = 1, steps: int = STEPS) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(steps, BATCH, FEATURES, generator=generator, dtype=torch.float64)
    return inputs, torch.randint(CLASSES, (BATCH,), generator=generator)


def loss_of(model: nn.Module, pair: tuple[Tensor, Tensor]) -> Tensor:
    return functional.cross_entropy(model(pair[0]), pair[1])


@torch.no_grad()
def slope(value: Callable[[], Any], parameter: Any, step: float = 1e-3) -> Tensor:
    """∂value/∂θ by differences of fourth order, one weight at a time."""
    result = torch.zeros_like(parameter)
    flat, found = parameter.view(-1), result.view(-1)
    for index in range(flat.numel()):
        before = flat[index].item()
        values = []
        for offset in (-2, -1, 1, 2):
            flat[index] = before + offset * step
            with torch.enable_grad():
                values.append(value().item())
        flat[index] = before
        found[index] = (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * step)
    return result


def states_at(module: Any, inputs: Tensor, steps: int) -> Any:
    """The state after so many steps, by the module's own forward pass."""
    if steps == 0:
        size = (getattr(module, "num_layers", 1), inputs.shape[1], HIDDEN)
        zeros = inputs.new_zeros(size)
        if isinstance(module, RHN):
            return zeros[0]
        return (zeros, zeros) if isinstance(module, nn.LSTM | PeepholeLSTM) else zeros
    return module(inputs[:steps])[1]


def slow_jacobians(module: Any, inputs: Tensor, after: int, *, full: bool = False) -> Tensor:
    """∂h'/∂h of each sample at the step after `after` steps, all layers' h in one vector: (B, S, S)."""
    state = states_at(module, inputs, after)
    x = inputs[after : after + 1]
    fixed: tuple[Tensor, ...] = ()
    free: Any = state if isinstance(state, tuple) else (state,)
    if isinstance(state, tuple) and not full:
        free, fixed = state[:1], state[1:]

    def step(*free: Tensor) -> Tensor:
        """The sum over samples, which do not act on each other: (parts, layers, H)."""
        given = (*free, *fixed)
        new = module(x, given if isinstance(state, tuple) else given[0])[1]
        parts = new[: len(free)] if isinstance(state, tuple) else (new,)
        return torch.stack([part.reshape(-1, BATCH, HIDDEN).sum(1) for part in parts])

    rows = torch.autograd.functional.jacobian(step, free, vectorize=False)
    # Each entry: (parts, layers, H) of the new state by (layers, B, H) of the old one.
    size = rows[0].shape[0] * rows[0].shape[1] * HIDDEN
    columns = [part.reshape(size, -1, BATCH, HIDDEN).movedim(2, 0).flatten(2) for part in rows]
    return torch.cat(columns, dim=2)
