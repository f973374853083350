"""The spectra of a task's model: what they are computed in."""

import numpy as np
import pytest
import torch

from hyperprune.hypersearch.space import DENSE
from hyperprune.training.candidate import Training
from hyperprune.training.measure import recurrent_spectra
from hyperprune.training.timing import time_epoch
from tiny_task import TinyTask


@pytest.mark.parametrize(("jacobian", "dtype"), [("hidden", "float32"), ("full", "float64")])
def test_the_full_state_is_measured_in_double_precision(jacobian, dtype):
    task = TinyTask()
    model = task.model(torch.Generator().manual_seed(0)).eval()
    (spectrum,) = recurrent_spectra(task, model, seed=0, jacobian=jacobian)
    assert (spectrum.jacobian, spectrum.dtype) == (jacobian, dtype)
    assert next(model.parameters()).dtype == torch.float32


class Tuples(TinyTask):
    def recurrent(self, model, batch):  # pyright: ignore[reportIncompatibleMethodOverride]
        return [tuple(run)[:2] for run in super().recurrent(model, batch)]


def test_plain_tuples_stand_for_runs():
    model = TinyTask().model(torch.Generator().manual_seed(0)).eval()
    ((one,), (other,)) = (recurrent_spectra(task, model, seed=0) for task in (TinyTask(), Tuples()))
    np.testing.assert_array_equal(one.exponents, other.exponents)
    training = Training(method=DENSE.build(), sparsity=0.0, total_epochs=1, seed=0, name=DENSE.text)
    assert time_epoch(Tuples(), training, budget=0.0).spectrum > 0
