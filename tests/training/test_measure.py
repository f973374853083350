"""The spectra of a task's model: what they are computed in."""

import numpy as np
import pytest
import torch

import hyperprune as hp
from hyperprune.hypersearch.space import DENSE
from hyperprune.lyapunov import lyapunov_spectrum
from hyperprune.rng import generator
from hyperprune.training.candidate import Training
from hyperprune.training.measure import recurrent_spectra
from hyperprune.training.timing import time_epoch
from tiny_task import TinyModel, TinyTask


@pytest.mark.parametrize(("jacobian", "dtype"), [("hidden", "float32"), ("full", "float64")])
def test_the_full_state_is_measured_in_double_precision(jacobian, dtype):
    task = TinyTask()
    model = task.model(torch.Generator().manual_seed(0)).eval()
    (spectrum,) = recurrent_spectra(task, model, seed=0, jacobian=jacobian)
    assert (spectrum.jacobian, spectrum.dtype) == (jacobian, dtype)
    assert next(model.parameters()).dtype == torch.float32


def a_model_with_a_dead_unit() -> TinyModel:
    model = TinyTask().model(torch.Generator().manual_seed(0)).eval()
    assert isinstance(model, TinyModel)
    model.rnn.requires_grad_(False).get_parameter("weight_hh_l0")[:, 3] = 0
    return model


def test_a_hidden_state_that_loses_directions_is_measured_again_in_double_precision():
    task, model = TinyTask(), a_model_with_a_dead_unit()
    (spectrum,) = recurrent_spectra(task, model, seed=4)
    assert (spectrum.dtype, spectrum.num_negative_infinite) == ("float64", 1)
    expected = lyapunov_spectrum(
        model.rnn,
        task.spectrum_batch(),
        jacobian="hidden",
        warmup=task.spectrum_warmup,
        dtype=torch.float64,
        generator=generator(4, "spectrum"),
    )
    np.testing.assert_array_equal(spectrum.exponents, expected.exponents)


class Steps(TinyTask):
    """Gives a step function, whose weights are its own."""

    def recurrent(self, model, batch):
        assert isinstance(model, TinyModel)
        weight_ih, weight_hh = (
            model.rnn.get_parameter(name)[:8].T for name in ("weight_ih_l0", "weight_hh_l0")
        )
        state = torch.zeros(batch.shape[1], 8)
        return [hp.RecurrentRun(lambda x, h: torch.tanh(x @ weight_ih + h @ weight_hh), batch, state)]


def test_a_step_function_with_weights_of_its_own_is_measured_in_their_type():
    (spectrum,) = recurrent_spectra(Steps(), a_model_with_a_dead_unit(), seed=4)
    assert (spectrum.dtype, spectrum.num_negative_infinite) == ("float32", 1)


class Tuples(TinyTask):
    def recurrent(self, model, batch):  # pyright: ignore[reportIncompatibleMethodOverride]
        return [tuple(run)[:2] for run in super().recurrent(model, batch)]


def test_plain_tuples_stand_for_runs():
    model = TinyTask().model(torch.Generator().manual_seed(0)).eval()
    ((one,), (other,)) = (recurrent_spectra(task, model, seed=0) for task in (TinyTask(), Tuples()))
    np.testing.assert_array_equal(one.exponents, other.exponents)
    training = Training(method=DENSE.build(), sparsity=0.0, total_epochs=1, seed=0, name=DENSE.text)
    assert time_epoch(Tuples(), training, budget=0.0).spectrum > 0
