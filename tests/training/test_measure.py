"""The spectra of a task's model: what they are computed in."""

import pytest
import torch

from hyperprune.training.measure import recurrent_spectra
from tiny_task import TinyTask


@pytest.mark.parametrize(("jacobian", "dtype"), [("hidden", "float32"), ("full", "float64")])
def test_the_full_state_is_measured_in_double_precision(jacobian, dtype):
    task = TinyTask()
    model = task.model(torch.Generator().manual_seed(0)).eval()
    (spectrum,) = recurrent_spectra(task, model, seed=0, jacobian=jacobian)
    assert (spectrum.jacobian, spectrum.dtype) == (jacobian, dtype)
    assert next(model.parameters()).dtype == torch.float32
