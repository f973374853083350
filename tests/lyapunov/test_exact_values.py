"""Systems whose exponents are known exactly."""

import math

import numpy as np
import pytest
import torch
from scipy.special import digamma, polygamma
from torch import nn

from hyperprune.lyapunov import lyapunov_spectrum

F64 = torch.float64


def undriven(steps: int, batch: int = 1, features: int = 1) -> torch.Tensor:
    return torch.zeros(steps, batch, features, dtype=F64)


def uniform(batch: int, size: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(batch, size, generator=torch.Generator().manual_seed(seed), dtype=F64)


def henon(x_t, state):
    x, y = state.unbind(1)
    return torch.stack([1 - 1.4 * x * x + y, 0.3 * x], dim=1)


def logistic(x_t, state):
    return 4 * state * (1 - state)


def cat_map(x_t, state):
    matrix = torch.tensor([[2.0, 1.0], [1.0, 1.0]], dtype=F64)
    return torch.remainder(state @ matrix, 1.0)


def ikeda(x_t, state):
    x, y = state.unbind(1)
    angle = 0.4 - 6 / (1 + x * x + y * y)
    real = 1 + 0.9 * (x * torch.cos(angle) - y * torch.sin(angle))
    return torch.stack([real, 0.9 * (x * torch.sin(angle) + y * torch.cos(angle))], dim=1)


def standard_map(x_t, state):
    p, q = state.unbind(1)
    p = p + 1.2 * torch.sin(q)
    return torch.stack([p, q + p], dim=1)


def coupled_lattice(x_t, state):
    mapped = torch.remainder(3 * state, 1.0)
    return 0.7 * mapped + 0.15 * (torch.roll(mapped, 1, 1) + torch.roll(mapped, -1, 1))


def test_henon_map():
    spectrum = lyapunov_spectrum(henon, undriven(450, 1000), 0.2 * uniform(1000, 2) - 0.1, warmup=50)
    error = spectrum.exponents - [0.419223, -1.623195]
    # 400 000 points; five of the measured standard errors, which are below 1e-3.
    assert (np.abs(error) < 5 * spectrum.standard_error).all()
    assert (spectrum.standard_error < 1e-3).all()
    # At every T, because the determinant is constant: round-off of sums only.
    assert spectrum.exponents.sum() == pytest.approx(math.log(0.3), abs=1e-13)
    assert spectrum.running.sum(1) == pytest.approx(math.log(0.3), abs=1e-13)


def test_logistic_map():
    spectrum = lyapunov_spectrum(logistic, undriven(500, 800), uniform(800, 1), warmup=20)
    assert abs(spectrum.exponents[0] - math.log(2)) < 5 * spectrum.standard_error[0] < 0.01


def test_cat_map():
    spectrum = lyapunov_spectrum(cat_map, undriven(40), uniform(1, 2), warmup=30)
    # Thirty steps leave e^(-2·0.96·30) ~ 1e-25 of the other direction.
    np.testing.assert_allclose(spectrum.exponents, [0.9624236501192069, -0.9624236501192069], rtol=1e-13)


@pytest.mark.parametrize(("system", "expected"), [(ikeda, 2 * math.log(0.9)), (standard_map, 0.0)])
def test_sum_of_the_exponents_of_a_map_with_constant_determinant(system, expected):
    spectrum = lyapunov_spectrum(system, undriven(150, 4), uniform(4, 2))
    # Round-off of single steps, whose |r| differ by up to 1e3, averaged over 150.
    assert spectrum.per_sample.sum(1) == pytest.approx(expected, abs=1e-12)


def test_coupled_map_lattice():
    spectrum = lyapunov_spectrum(coupled_lattice, undriven(1005), uniform(1, 16), warmup=1000)
    modes = np.arange(16)
    exact = np.sort(math.log(3) + np.log(np.abs(1 - 0.6 * np.sin(np.pi * modes / 16) ** 2)))[::-1]
    # The closest rates are 0.023 nats apart; for a symmetric Jacobian the error falls as the square of
    # the ratio, e^(-2·0.023·1000) ~ 1e-20.
    np.testing.assert_allclose(spectrum.exponents, exact, rtol=0, atol=1e-12)


def test_products_of_gaussian_matrices():
    size, steps, batch = 8, 120, 100
    generator = torch.Generator().manual_seed(4)
    matrices = torch.randn(steps, batch, size * size, generator=generator, dtype=F64) / math.sqrt(size)

    def product(x_t, state):
        return (x_t.reshape(-1, size, size) @ state[..., None])[..., 0]

    spectrum = lyapunov_spectrum(product, matrices, torch.ones(batch, size, dtype=F64))
    shapes = (size - np.arange(size)) / 2
    exact = 0.5 * (np.log(2 / size) + digamma(shapes))
    exact_error = np.sqrt(0.25 * polygamma(1, shapes) / (steps * batch))
    assert exact[[0, -1]] == pytest.approx([-0.065088, -1.674902], abs=1e-6)  # the printed digits
    # Unbiased at every T; eight z-scores below 4 fail by chance once in 2000 seeds, and this seed is fixed.
    assert (np.abs(spectrum.exponents - exact) / exact_error < 4).all()
    # The error bars are right too: chi-square with about 1000 draws, 4 standard deviations of 2 %.
    assert spectrum.standard_error == pytest.approx(exact_error, rel=0.09)


def rnn_with(weight: torch.Tensor, nonlinearity: str = "tanh") -> nn.RNN:
    module = nn.RNN(1, len(weight), bias=False, nonlinearity=nonlinearity).to(weight.dtype)
    module.requires_grad_(False)
    module.get_parameter("weight_hh_l0").copy_(weight)
    return module


def orthogonal(size: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=F64))[0]


def test_tanh_network_at_its_fixed_point():
    rates = torch.linspace(-0.1, -2.9, 29, dtype=F64)
    q = orthogonal(29)
    module = rnn_with(q @ torch.diag(rates.exp()) @ q.T)
    spectrum = lyapunov_spectrum(module, undriven(260), warmup=250)
    # Neighbours are 0.1 nats apart and W is symmetric: e^(-2·0.1·250) ~ 1e-22.
    np.testing.assert_allclose(spectrum.exponents, rates.numpy(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [5, 40])
@pytest.mark.parametrize("steps", [1, 2, 17])
def test_scaled_orthogonal_matrix_at_any_length(size, steps):
    spectrum = lyapunov_spectrum(rnn_with(0.9 * orthogonal(size)), undriven(steps))
    np.testing.assert_allclose(spectrum.exponents, math.log(0.9), rtol=0, atol=1e-13)  # round-off


def test_log_determinant_of_an_lstm_layer():
    torch.manual_seed(0)
    module = nn.LSTM(6, 30).double().requires_grad_(False)
    inputs = torch.randn(20, 1, 6, dtype=F64)
    spectrum = lyapunov_spectrum(module, inputs)
    weight_ih, weight_hh, bias_ih, bias_hh = module.parameters()
    h, c = torch.zeros(30, dtype=F64), torch.zeros(30, dtype=F64)
    total = 0.0
    for x in inputs[:, 0]:
        i, f, g, o = (weight_ih @ x + bias_ih + weight_hh @ h + bias_hh).chunk(4)
        i, f, o = torch.sigmoid(i), torch.sigmoid(f), torch.sigmoid(o)
        c = f * c + i * torch.tanh(g)
        h = o * torch.tanh(c)
        total += torch.log(f * o * (1 - o) * torch.tanh(c).abs()).sum().item()
    expected = total / 20 + np.linalg.slogdet(weight_hh[90:].numpy())[1]
    # Sixty logarithms of |r| that differ by up to 1e6 in one step: 60·1e6·eps ~ 1e-8 at worst.
    assert spectrum.exponents.sum() == pytest.approx(expected, abs=1e-9)
    assert spectrum.logdet_residual is not None
    assert spectrum.logdet_residual < 1e-9


@pytest.mark.parametrize(("gain", "limit"), [(1.5, 0.06522), (3.0, 0.31025), (6.0, 0.61585)])
def test_chaotic_tanh_network_approaches_the_mean_field_limit(gain, limit):
    size = 500
    generator = torch.Generator().manual_seed(1)
    weight = gain / math.sqrt(size) * torch.randn(size, size, generator=generator, dtype=F64)
    start = torch.randn(1, 4, size, generator=generator, dtype=F64).tanh()
    spectrum = lyapunov_spectrum(
        rnn_with(weight), undriven(400, 4), start, warmup=100, num_exponents=1, dtype=torch.float32
    )
    # N = 1000 is .009 below the limit at gain 1.5, and one matrix varies by about 1/sqrt(N)/4.
    assert spectrum.largest == pytest.approx(limit, abs=0.025)
    assert spectrum.largest > 0
