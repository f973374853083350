"""Every criterion against a slow reference: one weight at a time, by differences, in float64."""

import math

import pytest
import torch
from nets import (
    BATCH,
    FEATURES,
    HIDDEN,
    MODULES,
    STEPS,
    batch,
    loss_of,
    net,
    slope,
    slow_jacobians,
    states_at,
)
from torch import nn

from hyperprune import at_init
from hyperprune.at_init.criterion import Problem
from hyperprune.models import RHN


def check(found, expected, names):
    for name in names:
        # Differences of fourth order at step 1e-3 err by some 1e-13 in h⁴ f⁽⁵⁾ / 30, and by rounding alike.
        torch.testing.assert_close(found[name], expected[name], rtol=1e-6, atol=1e-9)


def absolute(tensors):
    return {name: tensor.abs() for name, tensor in tensors.items()}


def matrices(model):
    return [name for name, parameter in model.rnn.named_parameters(prefix="rnn") if parameter.ndim == 2]


def slow_gamma(model, inputs):
    """Σ_t Σ_i ∂h_i/∂θ averaged over samples, h of all layers."""

    def total():
        states = [states_at(model.rnn, inputs, step) for step in range(1, inputs.shape[0] + 1)]
        hidden = [state[0] if isinstance(state, tuple) else state for state in states]
        return torch.stack([h.sum() for h in hidden]).sum() / inputs.shape[1]

    return {name: slope(total, model.get_parameter(name)) for name in matrices(model)}


def slow_jacobian_scores(model, inputs, horizon, *, full=False):
    scores: dict = dict.fromkeys(matrices(model), 0.0)
    for after in range(STEPS - horizon, STEPS):

        def norm(after=after):
            jacobians = slow_jacobians(model.rnn, inputs, after, full=full)
            return jacobians.sum(dim=2).square().sum(dim=1).mean()

        for name in matrices(model):
            scores[name] = scores[name] + slope(norm, model.get_parameter(name)).abs()
    return scores


@pytest.mark.parametrize("kind", MODULES)
def test_the_jacobian_criterion_is_the_derivative_of_the_norm_at_each_step_of_the_horizon(kind):
    model, data = net(kind), batch()
    found = at_init.scores(model, loss_of, [data], criterion=at_init.jacobian_plain(horizon=2))
    check(found, slow_jacobian_scores(model, data[0], 2), matrices(model))


def test_of_the_full_state_the_cell_moves_too():
    model, data = net("lstm"), batch()
    criterion = at_init.jacobian_plain(horizon=2, state="full")
    found = at_init.scores(model, loss_of, [data], criterion=criterion)
    check(found, slow_jacobian_scores(model, data[0], 2, full=True), matrices(model))


@pytest.mark.parametrize("kind", ["gru", "lstm_2"])
def test_gamma_on_the_data_divides_each_score_by_how_far_its_weight_moves_the_states(kind):
    model, data = net(kind), batch()
    found = at_init.scores(model, loss_of, [data], criterion=at_init.jacobian(horizon=2, gamma="data"))
    plain, gamma = slow_jacobian_scores(model, data[0], 2), None
    if kind == "gru":
        gamma = slow_gamma(model, data[0])
    else:  # a stack's lower states are in its final state only, so the sum needs every prefix

        def total():
            states = [model.rnn(data[0][:step])[1][0] for step in range(1, STEPS + 1)]
            return torch.stack(states).sum() / BATCH

        gamma = {name: slope(total, model.get_parameter(name)) for name in matrices(model)}
    # The quotient, so that a γ near 0 does not make the reference's own rounding look large.
    check({name: plain[name] / found[name] for name in plain}, absolute(gamma), plain)


def test_gamma_is_by_default_on_normal_inputs_of_standard_deviation_one_tenth():
    model, data = net("gru"), batch()
    generator = torch.Generator().manual_seed(5)
    found = at_init.scores(model, loss_of, [data], criterion=at_init.jacobian(horizon=1), generator=generator)
    again = torch.Generator().manual_seed(5)
    torch.randint(2**62, (1,), generator=again)  # the seed of what the loss may draw
    inputs = 0.1 * torch.randn(data[0].shape, generator=again).double()
    plain, gamma = slow_jacobian_scores(model, data[0], 1), slow_gamma(model, inputs)
    # The quotient, so that a γ near 0 does not make the reference's own rounding look large.
    check({name: plain[name] / found[name] for name in plain}, absolute(gamma), plain)


@pytest.mark.parametrize("kind", MODULES)
def test_snip_is_the_weight_times_the_loss_slope(kind):
    model, data = net(kind), batch()
    found = at_init.scores(model, loss_of, [data], criterion="snip")
    slopes = {
        name: slope(lambda: loss_of(model, data), model.get_parameter(name)) for name in matrices(model)
    }
    check(found, {name: (model.get_parameter(name) * slopes[name]).abs() for name in slopes}, slopes)


@pytest.mark.parametrize("kind", MODULES)
def test_grasp_is_the_weight_times_the_slope_of_half_the_squared_gradient(kind):
    model, batches = net(kind), [batch(1), batch(2)]
    found = at_init.scores(model, loss_of, batches, criterion="grasp")
    weights = [model.get_parameter(name) for name in matrices(model)]

    def half_square():
        loss = (loss_of(model, batches[0]) + loss_of(model, batches[1])) / 2
        return sum(gradient.square().sum() for gradient in torch.autograd.grad(loss, weights)) / 2

    expected = {
        name: model.get_parameter(name) * slope(half_square, model.get_parameter(name)) for name in found
    }
    check(found, expected, found)
    assert any(bool((score < 0).any()) for score in found.values())  # signed


@pytest.mark.parametrize("name", ["snip", "grasp"])
def test_the_normalised_loss_criteria_are_the_plain_ones_over_gamma(name):
    model, data = net("gru"), batch()
    plain = at_init.scores(model, loss_of, [data], criterion=name)
    found = at_init.scores(model, loss_of, [data], criterion=at_init.get(f"{name}_gamma", gamma="data"))
    gamma = slow_gamma(model, data[0])
    check({key: (plain[key] / found[key]).abs() for key in plain}, absolute(gamma), plain)


def test_several_batches_count_alike_before_the_absolute_value():
    model, batches = net("gru"), [batch(1), batch(2)]
    both = (torch.cat([batches[0][0], batches[1][0]], dim=1), torch.cat([batches[0][1], batches[1][1]]))
    for name in ("snip", "grasp", "jacobian_plain"):
        apart = at_init.scores(model, loss_of, batches, criterion=name)
        together = at_init.scores(model, loss_of, [both], criterion=name)
        check(apart, together, together)


class Added(nn.Module):
    """A recurrent network whose matrix is the sum of two parameters: autograd gives both one gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = (nn.Parameter(net("rnn", seed=i).rnn.weight_hh_l0.detach()) for i in (0, 1))

    def forward(self, x, h):
        return torch.tanh(x + h @ (self.one + self.other).T)


def loss_of_added(model, pair):
    matrix, h = model.one + model.other, torch.ones_like(pair[0][0])
    for x in pair[0]:
        h = torch.tanh(x + h @ matrix.T)
    return h.square().mean()


@pytest.mark.parametrize("name", ["snip", "grasp", "jacobian_plain"])
def test_parameters_that_are_added_together_count_each_batch_once(name):
    model, batches = Added(), [batch(1), batch(2)]
    both = (torch.cat([batches[0][0], batches[1][0]], dim=1), None)
    zeros = torch.zeros(BATCH, HIDDEN, dtype=torch.float64)
    apart, together = (
        at_init.scores(
            model,
            loss_of_added,
            data,
            criterion=name,
            parameters=["one", "other"],
            recurrent=lambda model, pair: [(model, pair[0], zeros.repeat(pair[0].shape[1] // BATCH, 1))],
        )
        for data in (batches, [both])
    )
    check(apart, together, together)


def test_the_rademacher_probe_estimates_the_sum_of_squares_and_the_ones_do_not():
    model, data = net("gru"), batch()
    jacobians = slow_jacobians(model.rnn, data[0], STEPS - 1)
    squares = jacobians.square().sum(dim=(1, 2)).mean().item()
    criterion = at_init.jacobian_plain(horizon=1, probe="rademacher")
    problem = Problem(
        model=model,
        parameters={},
        loss_fn=loss_of,
        batches=[data],
        recurrent=None,
        generator=torch.Generator().manual_seed(0),
    )
    draws = torch.stack(
        [next(criterion.norms(problem.recurrences[0], problem.generator)) for _ in range(100)]
    )
    error = draws.std().item() / math.sqrt(100)
    assert abs(draws.mean().item() - squares) < 4 * error
    ones = next(at_init.jacobian_plain(horizon=1).norms(problem.recurrences[0], problem.generator)).item()
    assert abs(ones - squares) > 4 * error


@pytest.mark.parametrize("kind", ["gru", "lstm", "rhn"])
def test_with_all_exponents_the_experimental_criterion_is_that_of_the_determinant(kind):
    model, data = net(kind), batch()
    criterion = at_init.experimental_lyapunov(horizon=2, num_exponents=HIDDEN, warmup=2, gamma=None)
    found = at_init.scores(model, loss_of, [data], criterion=criterion)

    def volume():  # Σλ = mean ln|det J|, whatever the frames
        logs = [
            torch.linalg.slogdet(slow_jacobians(model.rnn, data[0], after)).logabsdet
            for after in (STEPS - 2, STEPS - 1)
        ]
        return torch.stack(logs).mean()

    for name in matrices(model):
        expected = slope(volume, model.get_parameter(name), step=1e-4).abs()
        # Nearly singular Jacobians make the logarithm steep: differences are good to 1e-5 here.
        torch.testing.assert_close(found[name], expected, rtol=1e-4, atol=1e-7)


def test_the_leading_exponent_alone_gives_other_scores_than_all():
    model, data = net("gru"), batch()
    one, all_ = (
        at_init.scores(
            model,
            loss_of,
            [data],
            criterion=at_init.experimental_lyapunov(horizon=2, num_exponents=k, gamma=None),
        )
        for k in (1, HIDDEN)
    )
    assert not torch.allclose(one["rnn.weight_hh_l0"], all_["rnn.weight_hh_l0"], rtol=0.01)


class Cell(nn.Module):
    """A step function with parameters: h' = tanh(W x + U h)."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.RNN(FEATURES, HIDDEN, bias=False)

    def forward(self, x, h):
        return torch.tanh(x @ self.rnn.weight_ih_l0.T + h @ self.rnn.weight_hh_l0.T)


def test_a_step_function_is_scored_as_the_module_that_it_writes_out():
    model, data = net("rnn"), batch()
    with torch.no_grad():
        for name in ("bias_ih_l0", "bias_hh_l0"):
            model.rnn.get_parameter(name).zero_()
    cell = Cell().double()
    cell.rnn.load_state_dict({k: v for k, v in model.rnn.state_dict().items() if "weight" in k})
    zeros = torch.zeros(BATCH, HIDDEN, dtype=torch.float64)
    expected = at_init.scores(model, loss_of, [data], criterion="jacobian_plain")
    found = at_init.scores(
        cell,
        batches=[data],
        recurrent=lambda model, pair: [(model, pair[0], zeros)],
        criterion="jacobian_plain",
    )
    check(found, expected, expected)


def test_batch_first_and_a_given_state_mean_the_same():
    model, data = net("gru"), batch()
    turned = net("gru")
    turned.rnn.batch_first = True
    state = torch.randn(1, BATCH, HIDDEN, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    expected = at_init.scores(
        model,
        lambda _, pair: model.rnn(pair[0], state)[0].square().mean(),
        [data],
        criterion="jacobian_plain",
    )
    found = at_init.scores(
        turned,
        lambda _, pair: turned.rnn(pair[0].transpose(0, 1), hx=state)[0].square().mean(),
        [data],
        criterion="jacobian_plain",
    )
    check(found, expected, expected)
    zero = at_init.scores(model, loss_of, [data], criterion="jacobian_plain")
    assert not torch.allclose(zero["rnn.weight_hh_l0"], expected["rnn.weight_hh_l0"])


def test_a_projected_lstm_is_scored():
    module = nn.LSTM(FEATURES, 5, proj_size=HIDDEN).double()
    data = batch()
    found = at_init.scores(
        module,
        lambda m, pair: m(pair[0])[0].square().mean(),
        [data],
        criterion=at_init.jacobian_plain(horizon=1),
    )

    def norm():
        total = 0.0
        for sample in range(BATCH):
            one = data[0][:, sample : sample + 1]
            h, c = module(one[:-1])[1]
            jacobian = torch.autograd.functional.jacobian(
                lambda h, one=one, c=c: module(one[-1:], (h, c))[1][0], h
            )
            total = total + jacobian.reshape(HIDDEN, HIDDEN).sum(1).square().sum()
        return total / BATCH

    expected = {"weight_hr_l0": slope(norm, module.weight_hr_l0).abs()}
    check(found, expected, expected)


def test_the_rhn_has_a_matrix_for_each_micro_step():
    assert isinstance(net("rhn").rnn, RHN)
    assert len(matrices(net("rhn"))) == 3
