"""What must hold for every network, checked on random ones."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrize, prune

from hyperprune.lyapunov import LyapunovIteration, lyapunov_spectrum

F64 = torch.float64
seeds = st.integers(0, 2**31)
kinds = st.sampled_from([nn.RNN, nn.GRU, nn.LSTM])
# Each example takes some 50 ms; ten of them find what a wrong permutation or factor would break.
few = settings(max_examples=10, deadline=None)


def network(kind: type, seed: int, inputs: int, hidden: int, scale: float = 1.0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = kind(inputs, hidden).double().requires_grad_(False)
        for parameter in module.parameters():
            parameter.mul_(scale)
        return module, torch.randn(12, 2, inputs, dtype=F64)


@few
@given(kind=kinds, seed=seeds, hidden=st.integers(2, 40))
def test_permuting_units_leaves_the_spectrum(kind, seed, hidden):
    module, inputs = network(kind, seed, 3, hidden)
    order = torch.randperm(hidden, generator=torch.Generator().manual_seed(seed))
    twin, _ = network(kind, seed, 3, hidden)
    gates = module.weight_hh_l0.shape[0] // hidden
    rows = torch.cat([order + gate * hidden for gate in range(gates)])
    for name, parameter in module.named_parameters():
        permuted = parameter[rows]
        twin.get_parameter(name).copy_(permuted[:, order] if name == "weight_hh_l0" else permuted)
    one, other = (LyapunovIteration(m, batch_size=2, jacobian="hidden") for m in (module, twin))
    # The same tangent directions, so that the two agree at every T and not only in the limit.
    saved = other.state_dict()
    for chain in saved["chains"][0]:
        chain["frame"] = chain["frame"][..., order]
    other.load_state_dict(saved)
    np.testing.assert_allclose(
        other.advance(inputs).spectrum().per_sample,
        one.advance(inputs).spectrum().per_sample,
        rtol=0,
        atol=1e-8,  # eps times the spread of |r| in one step, up to 1e7 for the rare nearly singular J
    )


@few
@given(seed=seeds, hidden=st.integers(1, 40), scale=st.floats(0.01, 1.0), steps=st.integers(1, 6))
def test_scaling_an_orthogonal_matrix_shifts_the_spectrum_by_the_logarithm(seed, hidden, scale, steps):
    module = nn.RNN(1, hidden, bias=False).double().requires_grad_(False)
    draws = torch.randn(hidden, hidden, generator=torch.Generator().manual_seed(seed), dtype=F64)
    module.get_parameter("weight_hh_l0").copy_(scale * torch.linalg.qr(draws)[0])
    spectrum = lyapunov_spectrum(module, torch.zeros(steps, 1, 1, dtype=F64))
    np.testing.assert_allclose(spectrum.exponents, math.log(scale), rtol=0, atol=1e-12)  # round-off


@few
@given(kind=kinds, seed=seeds, hidden=st.integers(2, 30), jacobian=st.sampled_from(["hidden", "full"]))
def test_the_sum_is_the_mean_log_determinant(kind, seed, hidden, jacobian):
    module, inputs = network(kind, seed, 3, hidden)
    spectrum = lyapunov_spectrum(module, inputs, jacobian=jacobian)

    def step(x_t, parts):
        _, new = module(x_t[None, None], tuple(part[None, None] for part in parts) or None)
        return tuple(part[0, 0] for part in (new if isinstance(new, tuple) else (new,)))

    def step_rnn(x_t, parts):
        return (module(x_t[None, None], parts[0][None, None])[1][0, 0],)

    advance = step if kind is nn.LSTM else step_rnn
    parts = tuple(torch.zeros(hidden, dtype=F64) for _ in range(2 if kind is nn.LSTM else 1))
    num_free = 1 if jacobian == "hidden" else len(parts)
    total = 0.0
    for x_t in inputs[:, 0]:

        def of_free(free, parts=parts, x_t=x_t):
            cut = [size[0] for size in (part.shape for part in parts[:num_free])]
            return torch.cat(advance(x_t, free.split(cut) + parts[num_free:])[:num_free])

        matrix = torch.autograd.functional.jacobian(of_free, torch.cat(parts[:num_free]))
        total += np.linalg.slogdet(matrix.numpy())[1]  # type: ignore[union-attr]
        parts = tuple(part.detach() for part in advance(x_t, parts))
    # The smallest |r| carries most of the error, eps times the condition number, up to 1e8 here.
    assert spectrum.per_sample[0].sum() == pytest.approx(total / 12, abs=1e-7)


@few
@given(kind=kinds, seed=seeds, hidden=st.sampled_from([6, 30]))
def test_samples_are_independent(kind, seed, hidden):
    module, inputs = network(kind, seed, 3, hidden)
    together = lyapunov_spectrum(module, inputs)
    for sample in range(2):
        alone = lyapunov_spectrum(module, inputs[:, sample : sample + 1])
        own = np.sort(together.per_sample[sample])
        # Products of two samples may round otherwise than of one.
        np.testing.assert_allclose(np.sort(alone.exponents), own, rtol=0, atol=1e-8)


@few
@given(seed=seeds, hidden=st.integers(26, 60))
def test_the_checked_log_determinants_agree(seed, hidden):
    module, inputs = network(nn.GRU, seed, 3, hidden)
    spectrum = lyapunov_spectrum(module, inputs)
    assert spectrum.logdet_residual is not None
    assert spectrum.logdet_residual < 1e-8  # as above: eps times the condition number


class Dropping(nn.Module):
    """A cell that drops half of its units while it is trained."""

    def __init__(self):
        super().__init__()
        self.cell, self.drop = nn.GRUCell(3, 5), nn.Dropout(0.5)

    def forward(self, x, h):
        return self.drop(self.cell(x, h))

    def scaled(self, x, h, scale):
        return scale * self(x, h)


def test_a_callable_module_is_measured_as_in_evaluation_and_left_as_it_was():
    torch.manual_seed(0)
    module = Dropping()
    inputs, state = torch.randn(20, 2, 3), torch.zeros(2, 5)
    before = torch.get_rng_state()
    training = lyapunov_spectrum(module, inputs, state)
    assert torch.equal(torch.get_rng_state(), before)
    assert module.training
    np.testing.assert_array_equal(
        training.exponents, lyapunov_spectrum(module.eval(), inputs, state).exponents
    )


@pytest.mark.parametrize("dtype", [None, torch.float64])
def test_a_method_of_a_module_is_measured_as_the_module_is(dtype):
    torch.manual_seed(0)
    module = Dropping()
    inputs, state = torch.randn(20, 2, 3), torch.zeros(2, 5)
    method, whole = (lyapunov_spectrum(step, inputs, state, dtype=dtype) for step in (module.forward, module))
    np.testing.assert_array_equal(method.exponents, whole.exponents)
    assert module.training
    assert next(module.parameters()).dtype == torch.float32


@pytest.mark.parametrize("dtype", [None, torch.float64])
def test_a_method_with_arguments_filled_in_is_measured_as_in_evaluation(dtype):
    torch.manual_seed(0)
    module = Dropping()
    inputs, state = torch.randn(20, 2, 3), torch.zeros(2, 5)
    steps = (partial(module.scaled, scale=1.0), module)
    filled, whole = (lyapunov_spectrum(step, inputs, state, dtype=dtype).exponents for step in steps)
    np.testing.assert_array_equal(filled, whole)
    assert module.training


def test_a_step_of_torchs_fused_lstm_is_that_of_the_module():
    module, inputs = network(nn.LSTM, 0, 1, 5)
    module, inputs = module.float(), inputs.float()

    def step(x, state):
        h, c = (part[None] for part in state)
        return tuple(part[0] for part in module(x[None], (h, c))[1])

    state = (torch.zeros(inputs.shape[1], 5),) * 2
    own, whole = (lyapunov_spectrum(item, inputs, start) for item, start in ((step, state), (module, None)))
    np.testing.assert_allclose(own.exponents[:5], whole.exponents[:5], atol=1e-4)
    assert torch.backends.mkldnn.enabled


def test_a_step_function_is_measured_in_inference_mode_as_outside():
    torch.manual_seed(0)
    module, inputs, state = nn.GRUCell(3, 5), torch.randn(20, 2, 3), torch.zeros(2, 5)
    with torch.inference_mode():
        within = lyapunov_spectrum(module, inputs.clone(), state.clone())
    np.testing.assert_array_equal(within.exponents, lyapunov_spectrum(module, inputs, state).exponents)


def test_a_part_of_the_state_that_remembers_the_inputs_has_rows_of_zeros():
    """A delay line: J = [[0.5, 0.3], [0, 0]]."""

    def step(x, state):
        return 0.5 * state[0] + 0.3 * state[1], x

    state = (torch.zeros(2, 1, dtype=F64), torch.zeros(2, 1, dtype=F64))
    spectrum = lyapunov_spectrum(step, torch.ones(9, 2, 1, dtype=F64), state, warmup=1)
    # The first direction is that of the eigenvalue from the first step on; a logarithm's round-off.
    np.testing.assert_allclose(spectrum.exponents, [np.log(0.5), -np.inf], rtol=1e-12)


class EchoState(nn.Module):
    """A network whose matrices are fixed: buffers, not parameters."""

    def __init__(self):
        super().__init__()
        self.register_buffer("weight_hh", 0.4 * torch.randn(5, 5))
        self.register_buffer("weight_ih", torch.randn(5, 3))

    def forward(self, x, h):
        return torch.tanh(h @ self.get_buffer("weight_hh").T + x @ self.get_buffer("weight_ih").T)


def test_a_callable_module_of_buffers_alone_is_measured_in_the_type_that_is_asked_for():
    torch.manual_seed(0)
    module = EchoState()
    inputs, state = torch.randn(20, 2, 3), torch.zeros(2, 5)
    single = lyapunov_spectrum(module, inputs, state)
    double = lyapunov_spectrum(module, inputs, state, dtype=torch.float64)
    assert double.dtype == "float64"
    assert module.get_buffer("weight_hh").dtype == torch.float32
    np.testing.assert_allclose(double.exponents, single.exponents, rtol=0, atol=1e-4)  # float32


class Halved(nn.Module):
    def forward(self, weight):
        return weight / 2


def test_weights_made_by_a_parametrization_are_measured_as_they_are_now():
    (plain, inputs), (made, _) = (network(nn.LSTM, 0, 3, 6) for _ in range(2))
    parametrize.register_parametrization(made, "weight_hh_l0", Halved())
    plain.get_parameter("weight_hh_l0").mul_(3 / 2)
    made.get_parameter("parametrizations.weight_hh_l0.original").mul_(3)
    np.testing.assert_array_equal(
        lyapunov_spectrum(made, inputs).exponents, lyapunov_spectrum(plain, inputs).exponents
    )


def test_a_hook_counts_in_a_step_that_is_passed_as_a_callable():
    module, inputs = network(nn.GRU, 0, 3, 6)
    prune.l1_unstructured(module, "weight_hh_l0", 0.5)
    module.get_parameter("weight_hh_l0_orig").mul_(3)
    state = torch.zeros(2, 6, dtype=F64)
    hooked = lyapunov_spectrum(lambda x, h: module(x[None], h[None])[1][0], inputs, state)
    prune.remove(module, "weight_hh_l0")
    # Two ways to the same Jacobian, as for cells.
    np.testing.assert_allclose(
        hooked.exponents, lyapunov_spectrum(module, inputs).exponents, rtol=0, atol=1e-9
    )


def test_what_is_measured_starts_from_orthonormal_directions_whatever_the_warm_up_left():
    torch.manual_seed(0)
    module = nn.LSTM(5, 100).double().requires_grad_(False)
    for weight in module.parameters():
        weight.mul_(6)
    inputs = torch.randn(11, 1, 5, dtype=torch.float64)
    fast, careful = (
        LyapunovIteration(module, batch_size=1, fast=fast).warm_up(inputs[:10]).advance(inputs[10:])
        for fast in (True, False)
    )
    # Without it 3e-4 off. Skew frames cost no digits but those of the spread of |r|, 1e10 here, times eps.
    np.testing.assert_allclose(fast.spectrum().exponents, careful.spectrum().exponents, rtol=0, atol=2e-5)
