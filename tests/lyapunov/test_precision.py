"""Precision, singular Jacobians, and values that are not finite."""

import networkx as nx
import numpy as np
import pytest
import torch
from torch import nn

from hyperprune.errors import NumericsError
from hyperprune.lyapunov import LyapunovIteration, lyapunov_spectrum, qr
from hyperprune.models import RHN, PeepholeLSTM

F64 = torch.float64


def network(kind: type = nn.LSTM, hidden: int = 100, layers: int = 2, *, features: int = 10, **settings):
    torch.manual_seed(0)
    return kind(features, hidden, layers, **settings).requires_grad_(False)


def drive(steps: int, batch: int = 2, features: int = 10) -> torch.Tensor:
    return torch.randn(steps, batch, features, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("batched", [True, False])
def test_single_precision_is_close_to_double(batched):
    module, inputs = network(), drive(45)
    settings = {"batch_size": 2, "jacobian": "hidden", "batched": batched}
    single = LyapunovIteration(module, **settings).warm_up(inputs[:10]).advance(inputs[10:]).spectrum()
    double = LyapunovIteration(module, dtype=F64, **settings)
    double = double.warm_up(inputs[:10]).advance(inputs[10:]).spectrum()
    error = np.abs(single.concatenated - double.concatenated)
    assert single.dtype == "float32"
    # The bounds; most of the largest error sits in the last exponent of a layer.
    assert error.max() <= 1e-3
    assert error.mean() <= 1e-5
    assert single.logdet_residual is not None
    assert single.logdet_residual < 1e-2  # a hundred logarithms, of which the last is good to 1e-3


def test_large_states_are_as_exact_with_and_without_the_faster_product(monkeypatch):
    module, inputs = network(hidden=170, layers=1), drive(20)
    settings = {"jacobian": "hidden", "warmup": 5}
    exact = lyapunov_spectrum(module, inputs, dtype=F64, **settings).exponents
    with_it = lyapunov_spectrum(module, inputs, **settings).exponents
    monkeypatch.setattr(qr, "_fast_product", lambda like: None)
    without = lyapunov_spectrum(module, inputs, **settings).exponents
    for single in (with_it, without):
        # The bounds of the whole-window test above; the window here is half as long.
        assert np.abs(single - exact).max() <= 1e-3
        assert np.abs(single - exact).mean() <= 1e-5


def test_a_badly_conditioned_frame_is_made_again():
    """(h, c) of a sparse LSTM spreads |r| so far that Gram-Schmidt alone fails in single precision."""
    module, inputs = network(hidden=60, layers=1), drive(25)
    generator = torch.Generator().manual_seed(3)
    for name in ("weight_ih_l0", "weight_hh_l0"):
        weight = module.get_parameter(name)
        weight.mul_(torch.rand(weight.shape, generator=generator) < 0.1).mul_(3)
    fast, slow = (
        LyapunovIteration(module, batch_size=2, fast=fast).advance(inputs).spectrum()
        for fast in (True, False)
    )
    exact = LyapunovIteration(module, batch_size=2, fast=False, dtype=F64).advance(inputs).spectrum()
    finite = np.isfinite(exact.concatenated)
    error, error_slow = (np.abs(s.concatenated[finite] - exact.concatenated[finite]) for s in (fast, slow))
    # No worse than Householder reflections, whose error is that of the problem itself.
    assert error.mean() <= 2 * error_slow.mean() + 1e-5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_modules_are_computed_in_single_with_a_note(dtype):
    module, inputs = network(nn.GRU, 30).to(dtype), drive(8)
    spectrum = lyapunov_spectrum(module, inputs.to(dtype))
    widened = lyapunov_spectrum(module.float(), inputs.to(dtype).float())
    name = str(dtype).removeprefix("torch.")
    assert spectrum.notes == (f"the module is {name}; its spectrum was computed in float32",)
    assert spectrum.dtype == "float32"
    np.testing.assert_array_equal(spectrum.exponents, widened.exponents)


def test_half_precision_callables_are_computed_in_single():
    cell = nn.GRUCell(10, 30).requires_grad_(False).bfloat16()
    state = torch.zeros(2, 30, dtype=torch.bfloat16)
    spectrum = lyapunov_spectrum(cell, drive(5).bfloat16(), state)
    assert spectrum.dtype == "float32"
    assert next(cell.parameters()).dtype == torch.bfloat16


def test_the_caller_chooses_the_precision():
    assert lyapunov_spectrum(network(hidden=5), drive(3), dtype=F64).dtype == "float64"
    assert lyapunov_spectrum(network(hidden=5).double(), drive(3), dtype=torch.float32).dtype == "float32"


@pytest.mark.parametrize("hidden", [12, 40])
@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM])
def test_units_without_outgoing_weights_have_exponents_of_minus_infinity(kind, dtype, hidden):
    module = network(kind, hidden, 2)
    module.get_parameter("weight_hh_l0")[:, [2, 5]] = 0
    module.get_parameter("weight_hh_l1")[:, 1] = 0
    spectrum = lyapunov_spectrum(module, drive(20), jacobian="hidden", dtype=dtype)
    assert spectrum.num_negative_infinite == 3
    assert [int(np.isneginf(layer).sum()) for layer in spectrum.by_layer] == [2, 1]
    assert np.isneginf(spectrum.per_sample[:, -3:]).all()
    assert np.isfinite(spectrum.per_sample[:, :-3]).all()
    assert np.isnan(spectrum.standard_error[-3:]).all()
    assert np.isfinite(spectrum.mean)


def test_the_finite_exponents_of_a_network_with_a_dead_unit_are_those_without_it():
    """A unit that nothing listens to changes no other exponent."""
    module = network(nn.RNN, 30, 1).double()
    module.get_parameter("weight_hh_l0")[:, 29] = 0
    smaller = nn.RNN(10, 29).double().requires_grad_(False)
    for name, parameter in smaller.named_parameters():
        own = module.get_parameter(name)[:29]
        parameter.copy_(own[:, :29] if name == "weight_hh_l0" else own)
    inputs = drive(60).double()
    one = lyapunov_spectrum(module, inputs)
    # Frames differ, so only sums are comparable at finite T, and those up to what the last direction
    # takes along; the leading exponents are settled to a percent.
    other = lyapunov_spectrum(smaller, inputs)
    np.testing.assert_allclose(one.exponents[:3], other.exponents[:3], rtol=0.1)
    assert one.num_negative_infinite == 1


@pytest.mark.parametrize("num_exponents", [None, 14])
@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize(("num_deaf", "num_unheard"), [(6, 4), (3, 3), (0, 5), (5, 0)])
def test_units_that_hear_nothing_are_lost_besides_those_that_nobody_hears(
    num_deaf, num_unheard, dtype, num_exponents
):
    """No single step loses both: a step's range lacks the deaf units, and of the rest the next loses more."""
    module = network(nn.RNN, 16, 1, features=3)
    weight = module.get_parameter("weight_hh_l0")
    weight[:, :num_unheard] = 0
    weight[num_unheard : num_unheard + num_deaf] = 0
    iteration = LyapunovIteration(module, batch_size=2, dtype=dtype, num_exponents=num_exponents)
    for piece in drive(30, features=3).to(dtype).split(7):  # what a piece ends with counts in the next
        iteration.advance(piece)
    lost = num_deaf + num_unheard - (0 if num_exponents is None else 16 - num_exponents)
    spectrum = iteration.spectrum()
    assert np.isneginf(spectrum.per_sample).sum(1).tolist() == [lost] * 2
    assert spectrum.exponents[np.isfinite(spectrum.exponents)].min() > -6


def _hidden_entries(module):
    """(S, S) where ∂h'/∂h of a tanh RNN or an LSTM may have entries."""
    return (module.weight_hh_l0.unflatten(0, (-1, module.hidden_size)) != 0).any(0).numpy()


def _disjoint_paths(entries, num_steps):
    """The most paths through so many steps that share no unit at any of them: Menger's theorem, by a flow."""
    graph = nx.DiGraph()
    for step in range(num_steps + 1):
        for unit in range(len(entries)):
            graph.add_edge(("in", step, unit), ("out", step, unit), capacity=1)
    for step in range(num_steps):
        for hears, heard in np.argwhere(entries):
            graph.add_edge(("out", step, heard), ("in", step + 1, hears), capacity=1)
    for unit in range(len(entries)):
        graph.add_edge("source", ("in", 0, unit), capacity=1)
        graph.add_edge(("out", num_steps, unit), "sink", capacity=1)
    return nx.maximum_flow_value(graph, "source", "sink")


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("convention", ["forward", "lsh"])
@pytest.mark.parametrize(("kind", "kept"), [(nn.RNN, 0.05), (nn.RNN, 0.03), (nn.LSTM, 0.012)])
def test_directions_lost_along_chains_of_units_are_counted(kind, kept, convention, dtype):
    """The product of many Jacobians loses more than any of them: a hears b, b hears c, c hears nothing."""
    size, num_steps = 40, 30
    module = network(kind, size, 1)
    weight = module.get_parameter("weight_hh_l0")
    weight.mul_(torch.rand(weight.shape, generator=torch.Generator().manual_seed(2)) < kept).mul_(4)
    entries = _hidden_entries(module)
    lost = [size - _disjoint_paths(entries, steps) for steps in (1, 2, num_steps)]
    assert lost[0] < lost[1] < lost[2] < size  # else there is no chain to speak of
    start = torch.rand(2, 1, 2, size, generator=torch.Generator().manual_seed(3))  # of zeros f has no slope
    iteration, resumed = (
        LyapunovIteration(
            module,
            start[0] if kind is nn.RNN else tuple(start),
            batch_size=2,
            jacobian="hidden",
            convention=convention,
            dtype=dtype,
            batched=False,
        )
        for _ in range(2)
    )
    for piece in drive(num_steps).split(7):
        iteration.advance(piece)
    resumed.load_state_dict(iteration.state_dict())
    for item in (iteration, resumed):
        assert np.isneginf(item.spectrum().per_sample).sum(1).tolist() == [lost[2]] * 2


def test_a_chain_loses_all_of_its_directions_and_one_a_step():
    """Each unit hears the one before it alone, so that J⁵ has one path left and J⁶ none."""
    module = nn.RNN(1, 6).requires_grad_(False)
    module.get_parameter("weight_hh_l0").copy_(torch.diag(torch.ones(5), -1))
    iteration = LyapunovIteration(module, batch_size=1)
    counts = []
    for piece in drive(8, 1, 1).split(1):
        spectrum = iteration.advance(piece).spectrum()
        counts.append(spectrum.num_negative_infinite)
    assert counts == [1, 2, 3, 4, 5, 6, 6, 6]


def test_closed_relus_are_counted_as_lost_directions():
    module = network(nn.RNN, 30, 1, nonlinearity="relu").double()
    module.get_parameter("bias_hh_l0")[:4] = -100.0
    spectrum = lyapunov_spectrum(module, drive(10).double())
    assert spectrum.num_negative_infinite >= 4


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("kind", "size", "scale", "num_dead", "dtype"),
    [(nn.LSTM, 128, 1, 10, torch.float32), (nn.RNN, 60, 5, 5, F64)],
)
def test_dead_units_take_no_live_direction_with_them(kind, size, scale, num_dead, dtype, seed):
    """A live direction may be smaller in a step than the round-off of a lost one."""
    torch.manual_seed(seed)
    module = kind(size, size).requires_grad_(False)
    for parameter in module.parameters():
        parameter.mul_(scale)
    module.get_parameter("weight_hh_l0")[:, :num_dead] = 0
    inputs = drive(45, 10, features=size)
    spectrum = lyapunov_spectrum(module, inputs, jacobian="hidden", warmup=10, dtype=dtype)
    assert np.isneginf(spectrum.per_sample).sum(1).tolist() == [num_dead] * 10


@pytest.mark.parametrize("preactivation", [12.0, 20.0])
def test_a_saturated_unit_keeps_its_slope_in_single_precision(preactivation):
    """tanh and the logistic function round to 1 there, their slopes are far from 0."""
    module = nn.RNN(1, 1, bias=False).requires_grad_(False)
    for parameter in module.parameters():
        parameter.fill_(0.5)
    # Of the first step; tanh' = 4 e^-2z to e^-24.
    spectrum = lyapunov_spectrum(module, torch.full((1, 2, 1), 2 * preactivation))
    assert spectrum.largest == pytest.approx(np.log(0.5 * 4) - 2 * preactivation, rel=1e-6)
    highway = RHN(1, 1, 1).requires_grad_(False)
    for parameter in highway.parameters():
        parameter.zero_()
    highway.get_parameter("bias_l0_d0")[1] = preactivation
    spectrum = lyapunov_spectrum(highway, torch.zeros(5, 2, 1))
    assert spectrum.largest == pytest.approx(-preactivation, rel=1e-6)  # 1 − t = e^-z to e^-12


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, PeepholeLSTM])
def test_saturated_gates_keep_their_slopes_in_single_precision(kind):
    """The logistic function and tanh round to 1 at these biases, so that 1 − σ and 1 − tanh² would be 0."""
    torch.manual_seed(0)
    module = kind(2, 2).requires_grad_(False)
    for name, parameter in module.named_parameters():
        if "bias" in name and "hh" not in name:
            parameter.uniform_(18, 19)
            if kind is nn.GRU:
                parameter[2:4] = -40  # of the update gate, whose own path would hide the others'
    inputs = torch.zeros(5, 1, 2)
    single, double = (
        lyapunov_spectrum(module, inputs, jacobian="hidden", warmup=0, dtype=dtype).exponents
        for dtype in (torch.float32, F64)
    )
    assert single[0] < -5  # else the gates are not what the test is for
    np.testing.assert_allclose(single, double, rtol=1e-3)


@pytest.mark.parametrize("batched", [True, False])
def test_the_small_directions_of_a_large_full_state_are_not_taken_for_lost(batched):
    module, inputs = network(hidden=400, layers=1, features=8), drive(12, 1, features=8)
    single, double = (
        LyapunovIteration(module, batch_size=1, batched=batched, dtype=dtype).advance(inputs).spectrum()
        for dtype in (torch.float32, F64)
    )
    assert double.exponents[-1] < -11  # else this network does not try what the test is for
    assert np.isfinite(single.exponents).all()
    # A step resolves a direction at e^-13 of the largest to 0.1 nats, and twelve steps are averaged.
    np.testing.assert_allclose(single.exponents, double.exponents, rtol=0, atol=0.1)


@pytest.mark.parametrize(
    ("dtype", "rate", "is_lost"),
    [(torch.float32, -13, False), (torch.float32, -15, True), (F64, -24, False), (F64, -27, True)],
)
def test_a_rate_counts_as_lost_from_where_the_precision_ends(dtype, rate, is_lost):
    module = nn.RNN(1, 30, bias=False).to(dtype).requires_grad_(False)
    factors = torch.ones(30, dtype=F64)
    factors[7] = float(np.exp(rate))
    module.get_parameter("weight_hh_l0").copy_(torch.diag(factors))
    spectrum = lyapunov_spectrum(module, torch.zeros(40, 1, 1, dtype=dtype), warmup=20)
    if is_lost:
        assert spectrum.exponents[-1] == -np.inf
    else:
        # At e^-13 a step is good to 0.1 nats in float32, at e^-24 far better in float64.
        assert spectrum.exponents[-1] == pytest.approx(rate, abs=0.1)
    # A weight of 1 and its neighbours' round-off.
    np.testing.assert_allclose(spectrum.exponents[:-1], 0.0, rtol=0, atol=1e-5)


def test_each_micro_step_is_a_factorisation_of_its_own():
    """Four micro-steps shrink a direction below one step's limit, none of them below its own."""
    module = RHN(10, 30, 4).requires_grad_(False)
    for parameter in module.parameters():
        parameter.zero_()
    for micro_step in range(4):
        module.get_parameter(f"bias_l0_d{micro_step}")[37] = 6.0  # the carry gate of unit 7
    spectrum = lyapunov_spectrum(module, drive(30), warmup=10)
    # 1 − t with t the logistic function of the bias; of e^-5.3 float32 knows 4 digits.
    assert spectrum.exponents[-1] == pytest.approx(-4 * np.log1p(np.exp(6.0)), abs=1e-2)
    assert spectrum.exponents[-2] == pytest.approx(-4 * np.log(2.0), abs=1e-2)


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("zeros", ["rows", "columns"])
def test_a_full_state_that_an_output_gate_makes_singular_loses_as_many_directions(zeros, batched, fast):
    """Rows of ∂h'/∂(h, c) and ∂c'/∂(h, c) depend on each other, and no row or column is zero."""
    module = network(hidden=60, layers=1)
    output_gate = module.get_parameter("weight_hh_l0")[180:]
    (output_gate if zeros == "rows" else output_gate.T)[[3, 8, 20, 40, 41]] = 0
    iteration = LyapunovIteration(module, batch_size=3, batched=batched, fast=fast, dtype=F64)
    spectrum = iteration.advance(drive(50, batch=3)).spectrum()
    assert np.isneginf(spectrum.per_sample).sum(1).tolist() == [5] * 3
    assert spectrum.num_negative_infinite == 5
    # Round-off would be compared with round-off.
    assert spectrum.logdet_residual is None


@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_determinants_are_checked_of_the_samples_that_have_one(dtype, batched):
    module = network(nn.RNN, 40, 1, nonlinearity="relu")
    module.get_parameter("weight_hh_l0").copy_(torch.eye(40) + 0.02 * torch.rand(40, 40))
    module.get_parameter("weight_ih_l0").zero_()[:15] = -0.1
    inputs = torch.zeros(3, 2, 10)
    inputs[:, 1] = 100.0  # closes fifteen relus of sample 1
    state = torch.full((1, 2, 40), 5.0)
    iteration = LyapunovIteration(module, state, batch_size=2, batched=batched, dtype=dtype)
    spectrum = iteration.advance(inputs).spectrum()
    assert np.isneginf(spectrum.per_sample).sum(1).tolist() == [0, 15]
    assert spectrum.logdet_residual is not None
    assert spectrum.logdet_residual < 1e4 * torch.finfo(dtype).eps  # forty logarithms, condition below 100


def test_a_low_rank_jacobian_without_zeros_is_found_by_its_round_off():
    left = torch.randn(30, 20, generator=torch.Generator().manual_seed(0), dtype=F64)
    right = torch.randn(20, 30, generator=torch.Generator().manual_seed(1), dtype=F64)
    module = nn.RNN(1, 30, bias=False).double().requires_grad_(False)
    module.get_parameter("weight_hh_l0").copy_(left @ right / 100)
    spectrum = lyapunov_spectrum(module, torch.zeros(12, 1, 1, dtype=F64))
    assert spectrum.num_negative_infinite == 10


def test_a_network_of_zeros_has_no_finite_exponent():
    module = network(nn.RNN, 30, 1)
    module.get_parameter("weight_hh_l0").zero_()
    spectrum = lyapunov_spectrum(module, drive(4))
    assert spectrum.num_negative_infinite == 30
    assert (spectrum.mean, spectrum.variance, spectrum.kaplan_yorke_dimension) == (-np.inf, 0.0, 0.0)


def test_inputs_that_are_not_finite_are_named():
    inputs = drive(9)
    inputs[6, 1, 3] = torch.inf
    with pytest.raises(NumericsError, match="inputs must be finite, step 6, sample 1 is not"):
        lyapunov_spectrum(network(), inputs, warmup=2)


def test_states_that_overflow_are_named():
    module = network(nn.RNN, 30, 1, nonlinearity="relu")
    module.get_parameter("weight_hh_l0").fill_(1e6)
    module.get_parameter("weight_ih_l0").fill_(1.0)
    inputs = torch.ones(20, 2, 10)
    inputs[:, 1] = 0.0
    module.get_parameter("bias_ih_l0").zero_()
    module.get_parameter("bias_hh_l0").zero_()
    # 10·30^t·10^(6t) passes 3.4e38 at t = 5; the slope of relu stays finite, the next state does not.
    with pytest.raises(NumericsError, match=r"states must be finite, step \d, sample 0 is not"):
        lyapunov_spectrum(module, inputs)


@pytest.mark.parametrize("batched", [True, False])
def test_jacobians_that_overflow_are_named(batched):
    module = network(nn.RNN, 30, 1, nonlinearity="relu")
    module.get_parameter("weight_hh_l0").fill_(3e38)
    module.get_parameter("bias_ih_l0").fill_(-1.0)
    state = torch.zeros(1, 2, 30)
    inputs = torch.zeros(4, 2, 10)
    inputs[3, 1] = 50.0  # opens some relus of sample 1 in step 3, whose state itself is finite
    iteration = LyapunovIteration(module, state, batch_size=2, batched=batched)
    with pytest.raises(NumericsError, match="Jacobians must be finite, the one of step 3, sample 1"):
        iteration.advance(inputs)


def test_weights_that_are_not_finite_are_named():
    module = network()
    module.get_parameter("weight_hh_l1")[0, 0] = torch.nan
    with pytest.raises(NumericsError, match="weights must be finite, weight_hh_l1 is not"):
        lyapunov_spectrum(module, drive(3))
