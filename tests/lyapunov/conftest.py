"""A readable reference for the Lyapunov engine: autograd for Jacobians, numpy for the factorisations."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hyperprune.models.cells import RHN, PeepholeLSTM

Parts = tuple[Tensor, ...]  # h first


def _as_parts(state: Any) -> Parts:
    return (state,) if isinstance(state, Tensor) else tuple(state)


def _step_of(module: nn.Module) -> Callable[[Tensor, Parts], Parts]:
    """One step of a module as a function of its state, by the module's own forward."""

    def step(x_BI: Tensor, parts: Parts) -> Parts:
        _, new = module(x_BI[None], parts if len(parts) > 1 else next(iter(parts)))
        return _as_parts(new)

    return step


def _layer_block(parts: Sequence[Tensor], layer: int, sample: int) -> list[Tensor]:
    """A layer's state vectors of one sample; RHN has no layer axis."""
    return [part[layer, sample] if part.ndim == 3 else part[sample] for part in parts]


@pytest.fixture(scope="session")
def reference_jacobians() -> Callable[..., list[list[np.ndarray]]]:
    """`∂(layer's new state) / ∂(its old state)` for every step and layer of one sample, by autograd."""

    def compute(module: nn.Module, inputs: Tensor, state: Any, *, hidden_only: bool, sample: int = 0):
        step = _step_of(module)
        parts = _as_parts(state)
        num_layers = parts[0].shape[0] if parts[0].ndim == 3 else 1
        num_free = 1 if hidden_only else len(parts)
        result = []
        for x_BI in inputs:
            layers = []
            leaves = tuple(part.detach().clone().requires_grad_() for part in parts)
            new = step(x_BI, leaves)
            for layer in range(num_layers):
                rows = []
                for output in torch.cat(_layer_block(new[:num_free], layer, sample)):
                    gradients = torch.autograd.grad(output, leaves, retain_graph=True)
                    rows.append(torch.cat(_layer_block(gradients[:num_free], layer, sample)))
                layers.append(torch.stack(rows).numpy())
            result.append(layers)
            parts = tuple(part.detach() for part in new)
        return result

    return compute


@pytest.fixture(scope="session")
def reference_growth() -> Callable[..., np.ndarray]:
    """`ln |R_kk|` of every step for a sequence of Jacobians and a first frame, by numpy."""

    def compute(jacobians: Sequence[np.ndarray], frame_SK: np.ndarray) -> np.ndarray:
        q_SK, _ = np.linalg.qr(frame_SK)
        logs = []
        for jacobian_SS in jacobians:
            q_SK, r_KK = np.linalg.qr(jacobian_SS @ q_SK)
            logs.append(np.log(np.abs(np.diag(r_KK))))
        return np.stack(logs)

    return compute


def make(kind: str, *, layers: int = 1, bias: bool = True, inputs: int = 5, hidden: int = 7) -> nn.Module:
    """A small float64 module of each kind that has analytic Jacobians."""
    torch.manual_seed(7)
    make_kind: dict[str, Callable[[], nn.Module]] = {
        "rnn-tanh": lambda: nn.RNN(inputs, hidden, layers, bias=bias),
        "rnn-relu": lambda: nn.RNN(inputs, hidden, layers, bias=bias, nonlinearity="relu"),
        "lstm": lambda: nn.LSTM(inputs, hidden, layers, bias=bias),
        "lstm-projected": lambda: nn.LSTM(inputs, hidden, layers, bias=bias, proj_size=4),
        "gru": lambda: nn.GRU(inputs, hidden, layers, bias=bias),
        "peephole-diagonal": lambda: PeepholeLSTM(inputs, hidden, layers, bias=bias),
        "peephole-full": lambda: PeepholeLSTM(inputs, hidden, layers, bias=bias, peephole="full"),
        "rhn-coupled": lambda: RHN(inputs, hidden, 3, bias=bias),
        "rhn-free": lambda: RHN(inputs, hidden, 2, coupled=False, bias=bias),
    }
    return make_kind[kind]().double().requires_grad_(False)


def random_state(module: nn.Module, batch: int) -> Any:
    """A random state in the module's own form."""
    generator = torch.Generator().manual_seed(3)
    probe = torch.zeros(1, batch, module.input_size, dtype=torch.float64)  # type: ignore[arg-type]
    _, state = module(probe)
    parts = tuple(
        0.5 * torch.randn(part.shape, generator=generator, dtype=part.dtype) for part in _as_parts(state)
    )
    return parts[0] if isinstance(state, Tensor) else parts


@pytest.fixture(scope="session")
def make_module() -> Callable[..., nn.Module]:
    return make


@pytest.fixture(scope="session")
def make_state() -> Callable[[nn.Module, int], Any]:
    return random_state
