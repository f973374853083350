"""Cells against slow references written out gate by gate, and against layers of torch they reduce to."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from hyperprune import rng
from hyperprune.errors import InputError
from hyperprune.models.cells import RHN, PeepholeLSTM

# float64 round-off of sums over a few dozen products; the two sides add in different orders.
CLOSE = {"rtol": 0, "atol": 1e-12}


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=rng.generator(seed, "test"), dtype=torch.float64)


def rhn_reference(layer: RHN, x: Tensor, s: Tensor, mask: Tensor | None = None) -> Tensor:
    """One time step, with a matrix for each gate as the paper writes them."""
    size = layer.hidden_size

    def rows(parameter: Tensor, gate: int) -> Tensor:
        return parameter[gate * size : (gate + 1) * size]

    for d in range(layer.depth):
        seen = s if mask is None else s * mask
        z = []
        for gate in range(2 if layer.coupled else 3):
            value = seen @ rows(layer.get_parameter(f"weight_hh_l0_d{d}"), gate).T
            if layer.bias:
                value = value + rows(layer.get_parameter(f"bias_l0_d{d}"), gate)
            if d == 0:
                value = value + x @ rows(layer.weight_ih_l0, gate).T
            z.append(value)
        h, t = torch.tanh(z[0]), torch.sigmoid(z[1])
        c = 1 - t if layer.coupled else torch.sigmoid(z[2])
        s = h * t + s * c
    return s


@settings(max_examples=20, deadline=None)
@given(depth=st.integers(1, 4), coupled=st.booleans(), bias=st.booleans(), masked=st.booleans())
def test_an_rhn_computes_the_published_equations(depth: int, coupled: bool, bias: bool, masked: bool) -> None:
    generator = rng.generator(1, "weights")
    layer = RHN(3, 5, depth, coupled=coupled, bias=bias, generator=generator, dtype=torch.float64)
    inputs, state = normal(4, 2, 3), normal(2, 5, seed=1)
    mask = torch.tensor([[0.0, 2, 2, 0, 2], [2, 0, 2, 2, 0]], dtype=torch.float64) if masked else None
    outputs, last = layer(inputs, state, state_mask=mask)
    for x, output in zip(inputs, outputs, strict=True):
        stepped = layer.step(x, state, state_mask=mask)
        state = rhn_reference(layer, x, state, mask)
        torch.testing.assert_close(output, state, **CLOSE)
        torch.testing.assert_close(stepped, state, **CLOSE)
    torch.testing.assert_close(last, state, **CLOSE)


def test_an_rhn_without_a_state_starts_from_zero() -> None:
    layer = RHN(3, 5, 2, dtype=torch.float64)
    inputs = normal(4, 2, 3)
    zero = torch.zeros(2, 5, dtype=torch.float64)
    torch.testing.assert_close(layer(inputs)[0], layer(inputs, zero)[0], rtol=0, atol=0)


def test_a_closed_transform_gate_carries_the_state_unchanged() -> None:
    layer = RHN(3, 5, 4, transform_bias=-1e3, dtype=torch.float64)
    state = normal(2, 5)
    torch.testing.assert_close(layer(normal(6, 2, 3, seed=1), state)[1], state, rtol=0, atol=0)


@pytest.mark.parametrize("coupled", [True, False])
def test_transform_gates_start_at_their_negative_bias_and_the_others_do_not(coupled: bool) -> None:
    layer = RHN(3, 4, 2, coupled=coupled)
    expected = [0.0] * 4 + [-2.0] * 4 + ([] if coupled else [2.0] * 4)
    for bias in layer.biases():
        assert bias is not None
        assert bias.tolist() == expected


def test_an_rhn_names_its_parameters_by_micro_step() -> None:
    shapes = {name: tuple(p.shape) for name, p in RHN(3, 4, 2, coupled=False).named_parameters()}
    assert shapes == {
        "weight_ih_l0": (12, 3),
        "weight_hh_l0_d0": (12, 4),
        "bias_l0_d0": (12,),
        "weight_hh_l0_d1": (12, 4),
        "bias_l0_d1": (12,),
    }


def peephole_reference(layer: PeepholeLSTM, k: int, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """One layer's time step with one matrix (or vector) for each gate."""
    w_i, w_f, w_g, w_o = layer.get_parameter(f"weight_ih_l{k}").chunk(4)
    u_i, u_f, u_g, u_o = layer.get_parameter(f"weight_hh_l{k}").chunk(4)
    b_i, b_f, b_g, b_o = layer.get_parameter(f"bias_l{k}").chunk(4)
    peephole = layer.get_parameter(f"weight_peephole_l{k}")
    if layer.peephole == "full":
        p_i, p_f, p_g, p_o = peephole.chunk(4)
    else:
        p_i, p_f, p_o = (torch.diag(part) for part in peephole.chunk(3))
        p_g = torch.zeros_like(p_i)
    i = torch.sigmoid(x @ w_i.T + h @ u_i.T + c @ p_i.T + b_i)
    f = torch.sigmoid(x @ w_f.T + h @ u_f.T + c @ p_f.T + b_f)
    g = torch.tanh(x @ w_g.T + h @ u_g.T + c @ p_g.T + b_g)
    new_c = f * c + i * g
    o = torch.sigmoid(x @ w_o.T + h @ u_o.T + new_c @ p_o.T + b_o)
    return o * torch.tanh(new_c), new_c


@pytest.mark.parametrize("peephole", ["diagonal", "full"])
@pytest.mark.parametrize("num_layers", [1, 3])
def test_a_peephole_lstm_computes_its_equations(peephole, num_layers: int) -> None:
    layer = PeepholeLSTM(3, 5, num_layers, peephole=peephole, dtype=torch.float64)
    inputs = normal(4, 2, 3)
    h, c = normal(num_layers, 2, 5, seed=1), normal(num_layers, 2, 5, seed=2)
    outputs, (last_h, last_c) = layer(inputs, (h, c))
    for x, output in zip(inputs, outputs, strict=True):
        stepped_h, stepped_c = layer.step(x, (h, c))
        below, pairs = x, []
        for k in range(num_layers):
            pairs.append(peephole_reference(layer, k, below, h[k], c[k]))
            below = pairs[-1][0]
        h, c = torch.stack([pair[0] for pair in pairs]), torch.stack([pair[1] for pair in pairs])
        torch.testing.assert_close(output, below, **CLOSE)
        torch.testing.assert_close((stepped_h, stepped_c), (h, c), **CLOSE)
    torch.testing.assert_close((last_h, last_c), (h, c), **CLOSE)


@pytest.mark.parametrize("peephole", ["diagonal", "full"])
def test_a_peephole_lstm_that_sees_nothing_is_the_lstm_of_torch(peephole) -> None:
    ours, theirs = PeepholeLSTM(3, 5, 2, peephole=peephole).double(), nn.LSTM(3, 5, 2).double()
    with torch.no_grad():
        for k in range(2):
            ours.get_parameter(f"weight_peephole_l{k}").zero_()
            for name in (f"weight_ih_l{k}", f"weight_hh_l{k}"):
                ours.get_parameter(name).copy_(theirs.get_parameter(name))
            biases = theirs.get_parameter(f"bias_ih_l{k}") + theirs.get_parameter(f"bias_hh_l{k}")
            ours.get_parameter(f"bias_l{k}").copy_(biases)
    inputs = normal(7, 2, 3)
    torch.testing.assert_close(ours(inputs), theirs(inputs), **CLOSE)


def test_the_full_peephole_has_the_number_of_weights_that_the_paper_counts() -> None:
    layer = PeepholeLSTM(28, 400, peephole="full", bias=False)
    assert sum(p.numel() for p in layer.parameters()) == 4 * 400 * (28 + 400 + 400) == 1_324_800


def test_a_diagonal_peephole_is_a_vector_so_that_pruning_matrices_leaves_it_alone() -> None:
    assert PeepholeLSTM(3, 5).get_parameter("weight_peephole_l0").shape == (15,)


@pytest.mark.parametrize("build", [RHN, PeepholeLSTM])
def test_weights_come_from_the_generator_alone(build) -> None:
    before = torch.get_rng_state()
    first = build(3, 5, generator=rng.generator(0, "weights"))
    second = build(3, 5, generator=rng.generator(0, "weights"))
    other = build(3, 5, generator=rng.generator(1, "weights"))
    assert torch.equal(torch.get_rng_state(), before)
    for name, parameter in first.named_parameters():
        assert torch.equal(parameter, second.get_parameter(name))
    assert not torch.equal(first.get_parameter("weight_ih_l0"), other.get_parameter("weight_ih_l0"))


@pytest.mark.parametrize("layer", [RHN(3, 5, 2, coupled=False), PeepholeLSTM(3, 5, 2, peephole="full")])
def test_gradients_agree_with_finite_differences(layer: nn.Module) -> None:
    layer = layer.double()
    names = [name for name, _ in layer.named_parameters()]
    inputs = normal(3, 2, 3).requires_grad_()

    def outputs(inputs: Tensor, *parameters: Tensor) -> Tensor:
        named = dict(zip(names, parameters, strict=True))
        return torch.func.functional_call(layer, named, (inputs,))[0]

    assert torch.autograd.gradcheck(outputs, (inputs, *(p for _, p in layer.named_parameters())))


@pytest.mark.parametrize("build", [RHN, PeepholeLSTM])
@pytest.mark.parametrize("sizes", [(0, 5, 1), (3, 0, 1), (3, 5, 0)])
def test_sizes_below_one_are_refused(build, sizes: tuple[int, int, int]) -> None:
    with pytest.raises(InputError, match="must be at least 1, got 0"):
        build(*sizes)


@pytest.mark.parametrize("build", [RHN, PeepholeLSTM])
def test_inputs_of_another_width_or_without_time_are_refused(build) -> None:
    with pytest.raises(InputError, match="input_size = 3"):
        build(3, 5)(torch.zeros(2, 1, 4))
    with pytest.raises(InputError, match="at least one time step"):
        build(3, 5)(torch.zeros(0, 1, 3))


def test_a_state_of_another_batch_is_refused() -> None:
    with pytest.raises(InputError, match=r"shape \(2, 5\), got \(4, 5\)"):
        RHN(3, 5)(torch.zeros(1, 2, 3), torch.zeros(4, 5))


def test_an_unknown_form_of_peephole_is_refused() -> None:
    with pytest.raises(InputError, match="unknown peephole 'diagnoal'; did you mean 'diagonal'"):
        PeepholeLSTM(3, 5, peephole="diagnoal")
