"""Every analytic Jacobian against autograd through the module's own forward, in float64."""

import numpy as np
import pytest
import torch
from torch import nn

from hyperprune.lyapunov.jacobians import stack_of
from hyperprune.lyapunov.trajectory import Trajectory

STACKED = [
    "rnn-tanh",
    "rnn-relu",
    "lstm",
    "lstm-projected",
    "gru",
    "peephole-diagonal",
    "peephole-full",
]
CASES = [(kind, layers) for kind in STACKED for layers in (1, 2, 3)] + [("rhn-coupled", 1), ("rhn-free", 1)]


def prepared(module: nn.Module, weights: str) -> nn.Module:
    """The module as initialised, after training on a toy task, or with 95 % of each matrix at zero."""
    generator = torch.Generator().manual_seed(5)
    if weights == "sparse":
        for parameter in module.parameters():
            if parameter.ndim == 2:
                parameter.mul_(torch.rand(parameter.shape, generator=generator) < 0.05).mul_(4)
    if weights == "trained":
        module.requires_grad_(True)
        optimizer = torch.optim.Adam(module.parameters(), lr=0.05)
        inputs = torch.randn(6, 4, module.input_size, generator=generator, dtype=torch.float64)  # type: ignore[arg-type]
        for _ in range(20):
            outputs, _ = module(inputs)
            loss = (outputs[1:, :, 0] - inputs[:-1, :, 0]).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        module.requires_grad_(False)
    return module


def analytic_jacobians(module, inputs, state, *, hidden_only):
    """All Jacobians as the engine builds them: for every step and layer, (B, S, S)."""
    batch = inputs.shape[1]
    device = torch.device("cpu")
    stack = stack_of(module, state, batch=batch, hidden_only=hidden_only, dtype=torch.float64, device=device)
    chunks = list(Trajectory(stack, batch, torch.float64, device).run(inputs, 0))
    result = []
    for step in range(inputs.shape[0]):
        layers = []
        for layer, coefficients in zip(stack.layers, chunks[0], strict=True):
            product = torch.eye(layer.state_size, dtype=torch.float64).expand(batch, -1, -1)
            for factor in range(layer.num_factors):
                out = torch.full_like(product, torch.nan, memory_format=torch.contiguous_format)
                layer.build(factor, coefficients[step, :, factor], out)
                product = out @ product
            layers.append(product.numpy())
        result.append(layers)
    return result


@pytest.mark.parametrize("weights", ["random", "trained", "sparse"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("kind", "layers"), CASES)
def test_analytic_jacobians_agree_with_autograd(
    kind, layers, bias, weights, make_module, make_state, reference_jacobians
):
    module = prepared(make_module(kind, layers=layers, bias=bias), weights)
    state = make_state(module, 2)
    generator = torch.Generator().manual_seed(11)
    inputs = torch.randn(2, 2, 5, generator=generator, dtype=torch.float64)
    for hidden_only in (True, False):
        ours = analytic_jacobians(module, inputs, state, hidden_only=hidden_only)
        reference = reference_jacobians(module, inputs, state, hidden_only=hidden_only, sample=1)
        for ours_of_step, reference_of_step in zip(ours, reference, strict=True):
            for ours_BSS, reference_SS in zip(ours_of_step, reference_of_step, strict=True):
                # The bound; entries are of order one and a few dozen round-offs apart.
                np.testing.assert_allclose(ours_BSS[1], reference_SS, rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", ["lstm", "gru", "rhn-coupled", "peephole-full"])
def test_the_states_run_as_the_module_runs_them(kind, make_module, make_state):
    module = make_module(kind)
    state = make_state(module, 3)
    inputs = torch.randn(9, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    device = torch.device("cpu")
    stack = stack_of(module, state, batch=3, hidden_only=True, dtype=torch.float64, device=device)
    trajectory = Trajectory(stack, 3, torch.float64, device)
    list(trajectory.run(inputs, 0))
    _, final = module(inputs, state)
    final = (final,) if isinstance(final, torch.Tensor) else final
    for ours, theirs in zip(trajectory.state()[0], final, strict=True):
        # Sums of a dozen terms in another order.
        torch.testing.assert_close(ours, theirs.reshape(ours.shape), rtol=0, atol=1e-13)
