"""Wrong input is refused with rule, value and remedy."""

import networkx as nx
import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from hyperprune.errors import InputError
from hyperprune.graphs import layered
from hyperprune.lyapunov import LyapunovIteration, lyapunov_spectrum
from hyperprune.models import GraphRNN, PeepholeLSTM

X = torch.zeros(6, 2, 4)
STATE = torch.zeros(2, 3)


def lstm(**settings) -> nn.LSTM:
    return nn.LSTM(4, 3, 2, **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"convention": "backward"}, "unknown convention 'backward'; .*forward, lsh"),
        ({"jacobian": "cell"}, "unknown jacobian 'cell'; .*full, hidden"),
        ({"convention": "lsh", "jacobian": "full"}, 'got jacobian="full"; leave `jacobian` out'),
        ({"convention": "lsh", "num_exponents": 3}, "got num_exponents=3; leave `num_exponents` out"),
        ({"num_exponents": 0}, "between 1 and the state's size, 12, got 0; None computes all"),
        ({"num_exponents": 13}, "between 1 and the state's size, 12, got 13"),
        ({"warmup": 6}, "shorter than the sequence, 6 steps, got 6; pass more steps"),
        ({"warmup": -1}, "at least 0 and shorter than the sequence, 6 steps, got -1"),
        # Other types are refused by the tests' own type checks before they come so far.
        ({"num_exponents": True}, "num_exponents must be a whole number, got True"),
        ({"warmup": True}, "warmup must be a whole number, got True"),
        ({"qr_interval": True}, "qr_interval must be a whole number, got True"),
        ({"qr_interval": 0}, "qr_interval must be at least 1, got 0"),
        ({"dtype": torch.float16}, "dtype must be torch.float32 or torch.float64, got torch.float16"),
    ],
)
def test_settings_outside_their_range(settings, message):
    with pytest.raises(InputError, match=message):
        lyapunov_spectrum(lstm(), X, **settings)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (torch.zeros(0, 2, 4), r"at least 1 step and 1 sample, got shape \(0, 2, 4\)"),
        (torch.zeros(6, 0, 4), r"at least 1 step and 1 sample, got shape \(6, 0, 4\)"),
        (torch.zeros(6, 4), r"shape \(time, batch, features\), got \(6, 4\); use unsqueeze\(1\)"),
        (torch.zeros(6, 2, 5), r"must have 4 features, got shape \(6, 2, 5\)"),
        (torch.zeros(6, 2, 4, dtype=torch.int64), "must be floating-point, got torch.int64; embed tokens"),
        (torch.zeros(6, 2, 4, device="meta"), "the module is on cpu and the inputs on meta; move one"),
    ],
)
def test_inputs_of_the_wrong_kind(inputs, message):
    with pytest.raises(InputError, match=message):
        lyapunov_spectrum(lstm(), inputs)


def test_another_batch_in_a_later_piece():
    iteration = LyapunovIteration(lstm(), batch_size=2).advance(X)
    with pytest.raises(InputError, match=r"1 step of 2 samples, got shape \(6, 3, 4\); .*batch_first"):
        iteration.advance(torch.zeros(6, 3, 4))


def test_a_batch_size_that_is_no_number():
    with pytest.raises(InputError, match="batch_size must be a whole number, got True"):
        LyapunovIteration(lstm(), batch_size=True)


def test_an_empty_batch_in_the_iteration():
    with pytest.raises(InputError, match="at least 1 sample, got 0"):
        LyapunovIteration(lstm(), batch_size=0)


@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
def test_bidirectional_modules(kind):
    with pytest.raises(InputError, match=r"step from .* none: its backward half runs from the end"):
        lyapunov_spectrum(kind(4, 3, bidirectional=True), X)


@pytest.mark.parametrize(
    ("module", "state", "message"),
    [
        (lstm(), torch.zeros(2, 2, 3), r"the state must be \(2, 2, 3\) and \(2, 2, 3\), got \(2, 2, 3\)"),
        (lstm(), (torch.zeros(2, 2, 3), torch.zeros(2, 1, 3)), r"have shape \(2, 2, 3\), got \(2, 1, 3\)"),
        (nn.GRU(4, 3), torch.zeros(2, 3), r"have shape \(1, 2, 3\), got \(2, 3\); pass None"),
        (nn.GRU(4, 3), torch.zeros(1, 2, 3, device="meta"), "the state is on meta and the inputs on cpu"),
        (lambda x, h: h, None, "a callable needs a state: .* 2 samples first, got NoneType"),
        (lambda x, h: h, torch.zeros(3, 3), r"2 samples first, got \(3, 3\)"),
        (lambda x, h: h, (torch.zeros(2, 3), 1.0), r"2 samples first, got \(\(2, 3\), float\)"),
    ],
)
def test_states_of_the_wrong_form(module, state, message):
    with pytest.raises(InputError, match=message):
        lyapunov_spectrum(module, X, state)


def test_what_is_neither_module_nor_callable():
    with pytest.raises(InputError, match=r"callable \(x_t, state\) -> new state, got str"):
        lyapunov_spectrum("lstm", X)


class Normalised(nn.GRU):
    """Does more than its base class's weights say."""

    def forward(self, input, hx=None):
        return super().forward(input, hx)


def test_a_subclass_that_runs_otherwise_than_its_base_class():
    with pytest.raises(InputError, match="a GRU is measured by its weights, and Normalised has a forward of"):
        lyapunov_spectrum(Normalised(4, 6), X)


def pruned_by_a_hook() -> nn.Module:
    module = nn.GRU(4, 6)
    prune.l1_unstructured(module, "weight_hh_l0", 0.5)
    return module


def watched() -> nn.Module:
    module = nn.GRU(4, 6)
    module.register_forward_hook(lambda module, inputs, outputs: None)
    return module


@pytest.mark.parametrize("make", [pruned_by_a_hook, watched])
def test_a_module_whose_forward_hooks_may_change_it(make):
    with pytest.raises(
        InputError, match=r"must be free of forward hooks, .* got some on a GRU; take them off"
    ):
        lyapunov_spectrum(make(), X)


def test_a_hook_within_a_network_that_a_graph_wires():
    module = GraphRNN(layered(nx.path_graph(3)), "gru", input_size=4)
    module.get_submodule("layers.1").register_forward_pre_hook(lambda module, inputs: None)
    with pytest.raises(InputError, match=r"a GraphRNN is measured .* got some on a WiredLayer"):
        lyapunov_spectrum(module, X)


def test_a_module_of_unknown_kind_is_a_callable():
    with pytest.raises(InputError, match="a callable needs a state"):
        lyapunov_spectrum(nn.Linear(4, 3), X)


def in_place(x_t, h):
    h += 1
    return h * 2


def in_place_copy(x_t, h):
    h.copy_(0.5 * h)
    return torch.tanh(h)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x, h: h[:, :2], r"form it was given, shapes \[\(2, 3\)\], got \[\(2, 2\)\]"),
        (lambda x, h: (h, h), r"shapes \[\(2, 3\)\], got \[\(2, 3\), \(2, 3\)\]"),
        (lambda x, h: (h,), r"a tensor for a tensor and a tuple for a tuple"),
        (lambda x, h: None, r"got \['NoneType'\]"),
        (lambda x, h: torch.tanh(h).detach(), "part 0 is detached"),
        (lambda x, h: x[:, :3], "part 0 is detached"),
        (in_place, "modified in place; return a new tensor"),
        (in_place_copy, "modified in place; return a new tensor"),
    ],
)
def test_step_functions_that_break_the_contract(function, message):
    with pytest.raises(InputError, match=message):
        lyapunov_spectrum(function, X, STATE)


def test_a_part_of_the_state_that_changes_with_the_old_one_and_is_detached():
    with pytest.raises(InputError, match="part 1 is detached"):
        lyapunov_spectrum(lambda x, s: (torch.tanh(s[0]), torch.tanh(s[1]).detach()), X, (STATE, STATE))


def test_a_step_function_that_computes_in_another_type():
    weight = torch.eye(3)

    def step(x, h):
        return torch.tanh(h @ weight)

    with pytest.raises(
        InputError, match=r"in the type of its inputs, torch.float64, and failed with: .*dtype"
    ):
        lyapunov_spectrum(step, X, torch.zeros(2, 3), dtype=torch.float64)


def test_a_step_of_torchs_own_module_in_another_type():
    gru = torch.nn.GRU(4, 3)
    with pytest.raises(
        InputError, match=r"in the type of its inputs, torch.float64, and failed with: .*dtype"
    ):
        lyapunov_spectrum(lambda x, h: gru(x[None], h[None])[1][0], X, torch.zeros(2, 3), dtype=torch.float64)


def test_a_state_whose_first_axis_is_not_the_samples():
    """Of two layers and two samples, so that the shape does not tell."""
    module = PeepholeLSTM(4, 3, 2)
    with pytest.raises(InputError, match="samples must not act on each other"):
        lyapunov_spectrum(module.step, X.float(), module.initial_state(2))


def test_a_step_function_that_changes_its_state_only_later():
    calls = []

    def step(x_t, h):
        calls.append(0)
        if len(calls) > 4:
            h.mul_(0.5)
        return torch.tanh(h)

    with pytest.raises(InputError, match="modified in place"):
        lyapunov_spectrum(step, X, STATE)


def test_a_fixed_matrix_elsewhere_than_the_inputs():
    module = nn.GRUCell(4, 3)
    module.register_buffer("fixed", torch.zeros(3, device="meta"))
    with pytest.raises(InputError, match="fixed is on meta and the inputs on cpu; move one"):
        lyapunov_spectrum(module, X, STATE)


def test_a_module_elsewhere_than_its_inputs():
    with pytest.raises(InputError, match="weight_ih_l0 is on meta and the inputs on cpu; move one"):
        LyapunovIteration(lstm(device="meta"), batch_size=2, device="cpu")
