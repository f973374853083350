"""The engine against a readable computation in float64: same frames, same numbers."""

import numpy as np
import pytest
import torch
from torch import nn

from hyperprune.lyapunov import LyapunovIteration, lyapunov_spectrum

KINDS = [
    "rnn-tanh",
    "lstm",
    "lstm-projected",
    "gru",
    "peephole-diagonal",
    "peephole-full",
    "rhn-coupled",
    "rhn-free",
]


def first_frames(iteration: LyapunovIteration) -> list[np.ndarray]:
    """Each layer's first frame, (S, K)."""
    frames = [chains[0]["frame"] for chains in iteration.state_dict()["chains"]]
    return [frame.reshape(-1, *frame.shape[-2:])[0].T.numpy() for frame in frames]


def drive(steps: int, batch: int, features: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(steps, batch, features, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("hidden_only", [True, False])
@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_exponents_equal_the_reference(
    kind, batched, hidden_only, make_module, make_state, reference_jacobians, reference_growth
):
    module = make_module(kind, layers=1 if kind.startswith("rhn") else 2, hidden=26)
    state, inputs = make_state(module, 2), drive(8, 2, 5)
    iteration = LyapunovIteration(
        module, state, batch_size=2, jacobian="hidden" if hidden_only else "full", batched=batched, fast=True
    )
    frames = first_frames(iteration)
    spectrum = iteration.advance(inputs).spectrum()
    for sample in range(2):
        steps = reference_jacobians(module, inputs, state, hidden_only=hidden_only, sample=sample)
        for layer, frame_SK in enumerate(frames):
            logs_TK = reference_growth([step[layer] for step in steps], frame_SK)
            rates_K = spectrum.log_growth[layer][:, sample].sum(0) / 8
            # The 1e-10: eps times the spread of the |r| in one step (up to 1e4 here), times a
            # few dozen operations for each entry.
            np.testing.assert_allclose(rates_K, logs_TK.mean(0), rtol=0, atol=1e-10)


def test_any_step_function_gives_what_the_analytic_cell_gives(make_module):
    module, inputs = make_module("gru", hidden=12), drive(12, 3, 5)
    cell = nn.GRUCell(5, 12).double().requires_grad_(False)
    for name, parameter in cell.named_parameters():
        parameter.copy_(module.get_parameter(f"{name}_l0"))
    ours = lyapunov_spectrum(module, inputs, warmup=2)
    generic = lyapunov_spectrum(cell, inputs, torch.zeros(3, 12, dtype=torch.float64), warmup=2)
    # Two ways to the same Jacobian, apart by round-off, with a spread of |r| below 1e3 in a step.
    np.testing.assert_allclose(generic.exponents, ours.exponents, rtol=0, atol=1e-11)
    np.testing.assert_allclose(generic.per_sample, ours.per_sample, rtol=0, atol=1e-11)


@pytest.mark.parametrize("jacobian", ["hidden", "full"])
def test_tuple_states_keep_their_order_and_hidden_means_the_first_part(jacobian, make_module):
    module, inputs = make_module("lstm", hidden=10), drive(12, 2, 5)
    cell = nn.LSTMCell(5, 10).double().requires_grad_(False)
    for name, parameter in cell.named_parameters():
        parameter.copy_(module.get_parameter(f"{name}_l0"))
    zeros = torch.zeros(2, 10, dtype=torch.float64)
    ours = lyapunov_spectrum(module, inputs, jacobian=jacobian)
    generic = lyapunov_spectrum(cell, inputs, (zeros, zeros), jacobian=jacobian)
    assert len(ours.exponents) == (10 if jacobian == "hidden" else 20)
    # Round-off of one step times the spread of |r|, up to 1e4 for (h, c).
    np.testing.assert_allclose(generic.exponents, ours.exponents, rtol=0, atol=1e-10)


def test_a_stack_is_the_union_of_its_layers_own_blocks(make_module):
    module, inputs = make_module("gru", layers=3, hidden=8), drive(20, 2, 5)
    spectrum = lyapunov_spectrum(module, inputs)
    assert [len(layer) for layer in spectrum.by_layer] == [8, 8, 8]
    np.testing.assert_array_equal(spectrum.exponents, np.sort(spectrum.concatenated)[::-1])

    def whole(x_t, h):
        _, new = module(x_t[None], h.transpose(0, 1).contiguous())
        return new.transpose(0, 1)

    together = lyapunov_spectrum(whole, inputs, torch.zeros(2, 3, 8, dtype=torch.float64))
    # Only the sum of all exponents is the same at every T; single ones agree as T grows.
    assert together.exponents.sum() == pytest.approx(spectrum.exponents.sum(), abs=1e-10)


def test_the_leading_exponents_are_those_of_the_whole_spectrum(make_module):
    module, inputs = make_module("lstm", layers=2, hidden=30), drive(60, 2, 5)
    whole = lyapunov_spectrum(module, inputs, warmup=40)
    leading = lyapunov_spectrum(module, inputs, warmup=40, num_exponents=7)
    assert leading.exponents.shape == (7,)
    assert leading.per_sample.shape == (2, 7)
    # Frames differ (a frame of 7 is not the first 7 columns of a frame of 60), so the agreement is that
    # of settled directions: neighbours are some 0.02 nats apart, 40 steps leave a few percent of a gap.
    np.testing.assert_allclose(leading.exponents, whole.exponents[:7], rtol=0, atol=0.02)
    assert leading.logdet_residual is None


@pytest.mark.parametrize("fast", [True, False])
def test_both_orthonormalisations_and_both_layouts_agree(fast, make_module):
    module, inputs = make_module("lstm", layers=2, hidden=64), drive(12, 3, 5)
    plain = LyapunovIteration(module, batch_size=3, batched=False, fast=False).advance(inputs).spectrum()
    batched = LyapunovIteration(module, batch_size=3, batched=True, fast=fast).advance(inputs).spectrum()
    # As above: eps times the spread of |r| of one step, here up to 1e5.
    np.testing.assert_allclose(batched.per_sample, plain.per_sample, rtol=0, atol=1e-9)


def test_states_may_have_any_number_of_axes():
    start = torch.rand(3, 2, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def step(x_t, state):
        return torch.sin(2 * state + x_t[:, :1, None])

    inputs = drive(10, 3, 1)
    shaped = lyapunov_spectrum(step, inputs, start)
    flat = lyapunov_spectrum(lambda x, h: torch.sin(2 * h + x), inputs, start.reshape(3, 8))
    np.testing.assert_array_equal(shaped.exponents, flat.exponents)
    scalar = lyapunov_spectrum(lambda x, h: torch.sin(2 * h + x[:, 0]), inputs, start[:, 0, 0])
    assert scalar.per_sample.shape == (3, 1)


def test_hidden_state_of_a_callable_may_be_larger_than_its_other_parts():
    def step(x_t, state):
        h, scale = state
        return torch.sin(scale * h + x_t), 0.9 * scale + h[:, :1] / 10

    start = (torch.full((2, 5), 0.3, dtype=torch.float64), torch.ones(2, 1, dtype=torch.float64))
    inputs = drive(10, 2, 1)
    assert lyapunov_spectrum(step, inputs, start).exponents.shape == (6,)
    assert lyapunov_spectrum(step, inputs, start, jacobian="hidden").exponents.shape == (5,)
