"""The published code's convention against an independent computation of it in float64."""

import numpy as np
import pytest
import torch
from torch import nn

from hyperprune.lyapunov import lyapunov_spectrum
from hyperprune.models.cells import RHN


def network(layers: int = 2, hidden: int = 8) -> nn.LSTM:
    torch.manual_seed(2)
    return nn.LSTM(3, hidden, layers).double().requires_grad_(False)


def published(module: nn.LSTM, inputs: torch.Tensor, warmup: int) -> np.ndarray:
    """One sample: whole-stack Jacobians of h by autograd, transposed, in forward time, from the identity."""
    shape = (module.num_layers, 1, module.hidden_size)
    h, c = torch.zeros(shape, dtype=torch.float64), torch.zeros(shape, dtype=torch.float64)
    size = h.numel()

    def next_jacobian(x):
        nonlocal h, c
        cell = c
        matrix = torch.autograd.functional.jacobian(
            lambda flat: module(x[None], (flat.reshape(shape), cell))[1][0].reshape(-1), h.reshape(-1)
        )
        _, (h, c) = module(x[None], (h, c))
        return matrix.numpy()  # type: ignore[union-attr]

    frame = np.eye(size)
    for x in inputs[:warmup]:
        frame = next_jacobian(x).T @ frame
    frame, _ = np.linalg.qr(frame)
    logs = np.zeros(size)
    for x in inputs:  # the warm-up's tokens once more, from the state that they led to
        frame, r = np.linalg.qr(next_jacobian(x).T @ frame)
        logs += np.log2(np.abs(np.diag(r)))
    return logs / len(inputs)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_without_warm_up_it_is_what_the_published_code_computes(layers):
    module = network(layers)
    inputs = torch.randn(15, 1, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    spectrum = lyapunov_spectrum(module, inputs, convention="lsh")
    # The bound; |r| spread by 1e3 in one step, times eps.
    np.testing.assert_allclose(spectrum.exponents, published(module, inputs, 0), rtol=0, atol=1e-10)
    assert (spectrum.jacobian, spectrum.unit) == ("hidden", "bits per step")
    np.testing.assert_array_equal(spectrum.exponents, np.concatenate(spectrum.by_layer))


@pytest.mark.parametrize("depth", [1, 3])
def test_a_step_of_several_factors_is_transposed_as_a_whole(depth):
    torch.manual_seed(0)
    module = RHN(3, 8, depth=depth).double().requires_grad_(False)
    inputs = torch.randn(15, 1, 3, dtype=torch.float64)
    frame, state, logs = np.eye(8), torch.zeros(1, 8, dtype=torch.float64), np.zeros(8)
    for x in inputs:
        jacobian = torch.autograd.functional.jacobian(
            lambda s, x=x: module(x[None], s[None])[1].reshape(-1), state[0]
        )
        _, state = module(x[None], state)
        frame, r = np.linalg.qr(jacobian.numpy().T @ frame)  # type: ignore[union-attr]
        logs += np.log2(np.abs(np.diag(r)))
    spectrum = lyapunov_spectrum(module, inputs, convention="lsh")
    np.testing.assert_allclose(spectrum.exponents, logs / 15, rtol=0, atol=1e-10)  # as above


def test_with_a_short_warm_up_the_tokens_are_replayed():
    module = network()
    inputs = torch.randn(15, 1, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    spectrum = lyapunov_spectrum(module, inputs, convention="lsh", warmup=3)
    assert spectrum.num_steps == 15
    # The published way multiplies three Jacobians before its first factorisation: eps times the spread
    # over three steps of whole stack, some 1e9. With ten, nothing but 0.1 nats could be promised.
    np.testing.assert_allclose(spectrum.exponents, published(module, inputs, 3), rtol=0, atol=1e-6)
