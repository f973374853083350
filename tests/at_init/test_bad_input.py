"""Wrong input is an error that names the rule, the value and the remedy."""

import io

import numpy as np
import pytest
import torch
from nets import BATCH, HIDDEN, batch, loss_of, net
from torch import nn
from torch.nn.utils.rnn import pack_sequence

import hyperprune as hp
from hyperprune import at_init
from hyperprune.at_init.criterion import Problem
from hyperprune.errors import InputError, NumericsError


def prune(model=None, loss=loss_of, batches=None, **settings):
    model = net("gru") if model is None else model
    return hp.prune_at_init(model, loss, [batch()] if batches is None else batches, **settings)


def detached(model, pair):
    return loss_of(model, pair).detach()


@pytest.mark.parametrize("name", ["snip", "grasp"])
def test_a_loss_without_gradient_is_refused(name):
    with pytest.raises(InputError, match="this batch gave one without gradient; remove detach"):
        prune(loss=detached, criterion=name)


def test_a_tensor_that_the_loss_does_not_depend_on_is_named():
    model = net("gru")
    model.extra = nn.Linear(2, 2).double()
    with pytest.raises(InputError, match=r"extra\.weight does not; leave it out of parameters"):
        prune(model, criterion="snip", parameters=["rnn.weight*", "extra.weight"])


@pytest.mark.parametrize("loss", [lambda model, pair: model(pair[0]), lambda model, pair: 1.0])
def test_a_loss_that_is_no_scalar_is_refused(loss):
    with pytest.raises(InputError, match="loss_fn must return a scalar tensor"):
        prune(loss=loss, criterion="snip")


@pytest.mark.parametrize("name", ["jacobian", "experimental_lyapunov"])
def test_a_sequence_shorter_than_the_horizon_is_refused(name):
    criterion = at_init.get(name, horizon=5, **({"num_exponents": 1} if "exp" in name else {}))
    with pytest.raises(InputError, match="got 4 steps and horizon 5; lower horizon"):
        prune(criterion=criterion)
    fits = at_init.get(name, horizon=4, **({"num_exponents": 1} if "exp" in name else {}))
    prune(criterion=fits, sparsity=0.5, allow_empty=True)


def test_a_sparsity_that_empties_a_tensor_needs_to_be_allowed():
    model = net("gru")
    with torch.no_grad():
        model.rnn.weight_hh_l0.mul_(1e-6)
    with pytest.raises(InputError, match=r"magnitude at sparsity 0.9 empties rnn\.weight_hh_l0; lower"):
        prune(model, criterion="magnitude", sparsity=0.9)
    with pytest.raises(InputError, match="lower the sparsity, or set allow_empty"):
        prune(model, criterion="magnitude", sparsity=0.95, ranking="tensor")
    masks = prune(model, criterion="magnitude", sparsity=0.9, allow_empty=True)
    assert int(masks["rnn.weight_hh_l0"].sum()) == 0


def test_a_sparsity_that_leaves_nothing_is_refused_in_any_case():
    with pytest.raises(InputError, match=r"0\.99 leaves none of 24"):
        prune(sparsity=0.99, allow_empty=True)


@pytest.mark.parametrize("sparsity", [1.0, -0.1, float("nan")])
def test_a_sparsity_lies_between_0_and_1(sparsity):
    with pytest.raises(InputError, match=r"sparsity must lie in \[0, 1\)"):
        prune(sparsity=sparsity)


def dead(model):
    """A unit of a ReLU network that never speaks: its weights' γ and Jacobian slopes are exactly 0."""
    with torch.no_grad():
        model.rnn.bias_ih_l0[0] = -100.0
    return model


def test_where_gamma_is_zero_a_score_of_zero_stays_zero():
    model = dead(net("rnn_relu"))
    criterion = at_init.jacobian(horizon=2, gamma="data")
    scores = at_init.scores(model, loss_of, [batch()], criterion=criterion)
    assert bool((scores["rnn.weight_ih_l0"][0] == 0).all())
    assert bool(torch.isfinite(scores["rnn.weight_hh_l0"]).all())


def test_where_gamma_is_zero_any_other_score_is_over_the_smallest_gamma():
    from hyperprune.at_init.gamma import divided_by_gamma

    scores = {"a": torch.tensor([2.0, 0.0, 3.0]), "b": torch.tensor([1.0, 5.0])}
    gammas = [torch.tensor([0.0, 0.0, -0.5]), torch.tensor([0.25, 4.0])]
    found = divided_by_gamma(scores, gammas)
    assert found["a"].tolist() == [8.0, 0.0, 6.0]
    assert found["b"].tolist() == [4.0, 1.25]
    nothing = divided_by_gamma({"a": torch.tensor([2.0, 0.0])}, [torch.zeros(2)])
    assert nothing["a"].tolist() == [2.0, 0.0]


def test_a_gamma_that_is_not_finite_is_refused_by_the_tensors_name(monkeypatch):
    gammas = [torch.ones(2), torch.tensor([1.0, float("nan")])]
    monkeypatch.setattr("hyperprune.at_init.gamma.gamma", lambda *_: gammas)
    scores = {"rnn.weight_ih_l0": torch.ones(2), "rnn.weight_hh_l0": torch.ones(2)}
    problem = Problem(
        model=net("gru"), parameters={}, loss_fn=None, batches=(), recurrent=None, generator=torch.Generator()
    )
    with pytest.raises(NumericsError, match=r"γ gave 1 of 2 for rnn\.weight_hh_l0"):
        at_init.snip_gamma().normalized(scores, problem)


def test_what_names_the_recurrence_must_return_runs():
    for returned in (None, [net("gru").rnn], torch.zeros(2)):
        with pytest.raises(InputError, match="recurrent must return a list of"):
            prune(recurrent=lambda *_, found=returned: found)


def test_synflow_refuses_matrices_that_are_computed():
    model = net("gru")
    nn.utils.parametrizations.weight_norm(model.rnn, "weight_hh_l0")
    with pytest.raises(InputError, match="synflow scores plain matrices, and weight_hh_l0 of"):
        prune(model, criterion="synflow", parameters=["rnn.weight_ih_l0"])


def test_exponents_need_single_or_double_precision():
    model, data = net("gru").bfloat16(), batch()
    with pytest.raises(InputError, match=r"needs float32 or float64, got torch\.bfloat16"):
        prune(
            model,
            batches=[(data[0].bfloat16(), data[1])],
            criterion=at_init.experimental_lyapunov(horizon=1, num_exponents=1, gamma=None),
        )


@pytest.mark.parametrize("name", ["jacobian", "snip_gamma", "synflow"])
def test_a_tensor_outside_the_recurrent_layers_is_named(name):
    with pytest.raises(InputError, match=r"readout\.weight is none; leave it out of parameters"):
        prune(criterion=name, parameters=["rnn.weight*", "readout.weight"])


@pytest.mark.parametrize("name", ["snip", "grasp", "jacobian", "snip_gamma"])
def test_a_criterion_of_data_needs_data(name):
    with pytest.raises(InputError, match="needs data: pass at least one batch, got none"):
        prune(criterion=name, batches=[])
    with pytest.raises(InputError, match="this criterion needs"):
        prune(criterion=name, loss=None)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"criterion": "jacobien"}, "unknown criterion 'jacobien'; did you mean 'jacobian'"),
        ({"ranking": "layer"}, "unknown ranking 'layer'"),
        ({"elsewhere": "dense"}, "unknown elsewhere 'dense'"),
        ({"parameters": ["rnn.weight_xx"]}, "unknown parameter 'rnn.weight_xx'"),
        ({"batches": torch.zeros(3)}, "batches must be an iterable of batches, got a tensor"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        prune(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"horizon": 0}, "horizon must be a whole number of at least 1"),
        ({"state": "cell"}, "unknown state 'cell'"),
        ({"probe": "gauss"}, "unknown probe 'gauss'"),
        ({"gamma": "uniform"}, "unknown gamma 'uniform'"),
        ({"gamma_std": 0.0}, "gamma_std must lie in"),
        ({"gamma": None, "gamma_std": 0.2}, 'gamma_std needs gamma to be "normal"'),
        ({"steps": 4}, "unknown setting of criterion jacobian 'steps'"),
    ],
)
def test_wrong_settings_of_a_criterion_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        at_init.get("jacobian", **settings)


def test_more_exponents_than_the_state_has_are_refused():
    with pytest.raises(InputError, match="must not exceed the state's size, 2, got 5"):
        prune(criterion=at_init.experimental_lyapunov(horizon=2))


def test_a_frozen_tensor_is_named():
    model = net("gru")
    model.rnn.weight_hh_l0.requires_grad_(False)
    with pytest.raises(InputError, match=r"rnn\.weight_hh_l0 does not; leave it out"):
        prune(model)


def test_a_model_without_recurrence_is_refused():
    with pytest.raises(InputError, match="found none; name the tensors with parameters"):
        prune(nn.Linear(2, 2))
    with pytest.raises(InputError, match="found none; say where the recurrence sits"):
        prune(nn.Linear(2, 2), parameters=["weight"], sparsity=0.5)


def test_packed_sequences_bidirectional_modules_and_modules_not_run_are_refused():
    def packed(model, pair):
        return model.rnn(pack_sequence(list(pair[0].unbind(1))))[0].data.sum()

    with pytest.raises(InputError, match="it was given a packed sequence"):
        prune(loss=packed)
    both = nn.GRU(2, 2, bidirectional=True).double()
    with pytest.raises(InputError, match="a bidirectional GRU has none"):
        prune(both, loss=lambda model, pair: model(pair[0])[0].sum())
    with pytest.raises(InputError, match="it did not call rnn"):
        prune(loss=lambda model, pair: model.readout(pair[0][-1]).sum())


@pytest.mark.parametrize("kind", ["lstm", "peephole"])
@pytest.mark.parametrize("state", [torch.zeros(1, BATCH, HIDDEN), 3, (torch.zeros(1), torch.zeros(1))])
def test_a_state_of_another_form_is_refused(kind, state):
    model, data = net(kind), batch()
    with pytest.raises(InputError, match=r"the state must have shapes \[\(1, .*pass None to start from zero"):
        hp.prune_at_init(model, batches=[data], recurrent=lambda m, b: [(m.rnn, b[0], state)])


def test_a_step_function_needs_a_state_of_its_form():
    model, data = net("gru"), batch()
    cell = nn.GRUCell(2, HIDDEN).double()

    def run(step, state):
        return hp.prune_at_init(
            cell,
            batches=[data],
            recurrent=lambda _, pair: [(step, pair[0], state)],
            parameters=["weight*"],
        )

    zeros = torch.zeros(BATCH, HIDDEN, dtype=torch.float64)
    with pytest.raises(InputError, match="a step function needs a state"):
        run(cell, None)
    with pytest.raises(InputError, match="must return a state of the form it was given"):
        run(lambda x, h: (cell(x, h), h), zeros)
    with pytest.raises(InputError, match="a recurrent module must be"):
        run(3, zeros)
    with pytest.raises(InputError, match="recurrent must name at least one"):
        hp.prune_at_init(model, batches=[data], recurrent=lambda *_: [])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"at_init": 3}, "at_init must be the name of a criterion"),
        ({"at_init": "jacobian", "keep_dense": ["a"]}, "densities and keep_dense do not apply"),
        ({"at_init": "jacobian", "allocation": "er"}, "so allocation, densities and keep_dense do not apply"),
    ],
)
def test_a_method_refuses_what_a_criterion_would_ignore(settings, message):
    with pytest.raises(InputError, match=message):
        hp.methods.static(**settings)
    with pytest.raises(InputError, match="gmp chooses its own masks, got at_init='snip'"):
        hp.methods.gmp(at_init="snip")


def test_sparse_training_asks_for_the_masks_of_a_method_with_a_criterion():
    model = net("gru")
    with pytest.raises(InputError, match=r"needs its starting masks; pass masks=hyperprune\.prune_at_init"):
        hp.SparseTraining(
            model,
            torch.optim.Adam(model.parameters()),
            hp.methods.static(at_init="jacobian"),
            sparsity=0.5,
            total_steps=3,
            generator=torch.Generator(),
        )


def test_a_file_that_holds_no_masks_is_refused(tmp_path):
    whole = tmp_path / "whole.npz"
    at_init.save_masks(whole, {"weight": torch.ones(100, 100, dtype=torch.bool)})
    array = io.BytesIO()
    np.save(array, np.ones(3, dtype=bool))
    path = tmp_path / "masks.npz"
    damaged = bytearray(whole.read_bytes())
    damaged[len(damaged) // 2] ^= 0xFF  # inside the packed array
    for content in (b"nothing", b"", whole.read_bytes()[:60], array.getvalue(), bytes(damaged)):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"masks must be a readable \.npz file"):
            at_init.load_masks(path)
