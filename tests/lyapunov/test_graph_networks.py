"""Spectra of graph-wired networks: Jacobians against autograd's, sums against determinants."""

import numpy as np
import pytest
import torch

from hyperprune import lyapunov_spectrum
from hyperprune.graphs import GraphPlan, layered
from hyperprune.lyapunov.jacobians import stack_of
from hyperprune.models.graph_rnn import CELLS, GraphRNN


def network(cell):
    graph = layered(GraphPlan.of("watts_strogatz", 11, seed=1, neighbours=4).build())
    assert any(b - a > 1 for a, b in graph.links)
    return GraphRNN(graph, cell, generator=torch.Generator().manual_seed(0)).double()


def drive(model, steps, batch=2):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(steps, batch, model.input_size, dtype=torch.float64, generator=generator)


def autograd_jacobian(model, x_BI, state, *, hidden_only):
    """(B, S, S) of the whole network's step; (h, c) joined, or h with c held fixed."""
    parts = (state,) if isinstance(state, torch.Tensor) else state

    def of_sample(sample):
        fixed = tuple(part[sample : sample + 1] for part in parts[1:])

        def step(flat):
            free = (flat[None, :],) if hidden_only or not fixed else tuple(flat[None, :].chunk(2, dim=1))
            whole = free + fixed if hidden_only else free
            new = model.step(x_BI[sample : sample + 1], whole[0] if len(whole) == 1 else whole)
            new_parts = (new,) if isinstance(new, torch.Tensor) else new
            return torch.cat(new_parts[:1] if hidden_only else new_parts, dim=1)[0]

        own = parts[:1] if hidden_only else parts
        at = torch.cat([part[sample] for part in own])
        return torch.autograd.functional.jacobian(step, at)

    return torch.stack([of_sample(sample) for sample in range(x_BI.shape[0])])


@pytest.mark.parametrize("hidden_only", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_blocks_of_the_jacobian_are_autograds_and_nothing_lies_above_them(cell, hidden_only):
    model, batch = network(cell), 2
    inputs = drive(model, 5)
    _, state = model(inputs[:4])
    stack = stack_of(
        model, state, batch=batch, hidden_only=hidden_only, dtype=torch.float64, device=torch.device("cpu")
    )
    expected = autograd_jacobian(model, inputs[4], state, hidden_only=hidden_only)
    doubled = cell == "lstm" and not hidden_only
    passed, new_parts = inputs[4], []
    for layer, carry, block in zip(stack.layers, stack.carries, model.blocks(), strict=True):
        passed, new_carry, coefficients = layer.step(passed, carry)
        new_parts.append(new_carry)
        built = torch.empty(batch, layer.state_size, layer.state_size, dtype=torch.float64)
        layer.build(0, coefficients[:, 0], built)
        own = list(range(block.units.start, block.units.stop))
        later = list(range(block.units.stop, model.num_units))
        if doubled:
            own += [model.num_units + unit for unit in own]
            later += [model.num_units + unit for unit in later]
        torch.testing.assert_close(built, expected[:, own][:, :, own], rtol=1e-9, atol=1e-12)
        assert not expected[:, own][:, :, later].any()
    after = model.step(inputs[4], state)
    after = (after,) if isinstance(after, torch.Tensor) else after
    for index, part in enumerate(after):
        torch.testing.assert_close(torch.cat([carry[index] for carry in new_parts], dim=1), part)


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_exponents_add_up_to_the_mean_log_determinant_and_are_the_generic_paths(cell):
    model = network(cell)
    inputs = drive(model, 12)
    spectrum = lyapunov_spectrum(model, inputs)
    assert len(spectrum.by_layer) == len(model.blocks())
    logs, state = [], model.initial_state(2)
    for x_BI in inputs:
        jacobian = autograd_jacobian(model, x_BI, state, hidden_only=False)
        logs += [torch.linalg.slogdet(one)[1].item() for one in jacobian]
        with torch.no_grad():
            state = model.step(x_BI, state)
    assert spectrum.exponents.sum() == pytest.approx(np.mean(logs), rel=1e-8)
    zero = model.initial_state(2)
    generic = lyapunov_spectrum(model.step, inputs, zero if cell != "lstm" else tuple(zero))
    assert generic.exponents.sum() == pytest.approx(spectrum.exponents.sum(), rel=1e-6)


def test_hidden_spectra_have_an_exponent_for_each_unit_and_start_from_a_given_state():
    model = network("lstm")
    inputs = drive(model, 10)
    hidden = lyapunov_spectrum(model, inputs, jacobian="hidden")
    assert hidden.exponents.shape == (model.num_units,)
    _, state = model(inputs[:4])
    later = lyapunov_spectrum(model, inputs[4:], state, jacobian="hidden")
    with_warmup = lyapunov_spectrum(model, inputs, jacobian="hidden", warmup=4)
    assert later.exponents.sum() == pytest.approx(with_warmup.exponents.sum(), rel=1e-8)
