"""The Lyapunov spectra of a task's model, on the task's own measured batch."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import nn

from hyperprune.errors import InputError
from hyperprune.lyapunov import lyapunov_spectrum
from hyperprune.rng import generator
from hyperprune.spectra import LyapunovSpectrum
from hyperprune.tasks.contract import RecurrentRun, Task
from hyperprune.training.nested import to_device


def recurrent_spectra(
    task: Task,
    model: nn.Module,
    *,
    seed: int,
    jacobian: Literal["full", "hidden"] = "hidden",
    quick: bool = False,
    num_steps: int | None = None,
) -> list[LyapunovSpectrum]:
    """The Lyapunov spectrum of each recurrent module of a task's model, on the task's measured batch.

    Args:
        task: gives the batch and the modules.
        model: in evaluation mode, on the device to measure on.
        seed: of the tangent frame's random draw, where one is needed.
        jacobian: of the full state (an LSTM's h and c), computed in float64 because it spreads too far for
            float32; or of the hidden state with the cell state held, computed in the model's type and, where
            that gives an exponent of -inf, once more in float64.
        quick: measure one exponent over one step, to learn whether it can be measured.
        num_steps: measure over so many steps without a warm-up, to learn what it costs; None is the whole.

    Raises:
        InputError: the task names no recurrent module.
        NumericsError: a Jacobian is not finite.
    """
    device = next(model.parameters()).device
    with torch.no_grad():
        runs = measured_runs(task, model, device)
        if not runs:
            raise InputError(
                f"Task.recurrent must name at least one recurrent module, task {task.name!r} gave none; its "
                "Lyapunov spectrum guides the search (--signal loss does without)"
            )
        end = task.spectrum_warmup + 1 if quick else num_steps

        def spectrum_of(run: RecurrentRun, dtype: torch.dtype | None) -> LyapunovSpectrum:
            return lyapunov_spectrum(
                run.module,
                run.inputs[:end],
                run.state,
                jacobian=jacobian,
                dtype=dtype,
                num_exponents=1 if quick else None,
                warmup=0 if num_steps is not None else task.spectrum_warmup,
                generator=generator(seed, "spectrum"),
            )

        if jacobian == "full":
            return [spectrum_of(run, torch.float64) for run in runs]
        return [_resolved(spectrum_of(run, None), partial(spectrum_of, run, torch.float64)) for run in runs]


def _resolved(spectrum: LyapunovSpectrum, in_double: Callable[[], LyapunovSpectrum]) -> LyapunovSpectrum:
    """The spectrum; in float64 if float32 does not tell whether a direction is lost or only small."""
    if spectrum.dtype == "float64" or not spectrum.num_negative_infinite:
        return spectrum
    try:
        return in_double()
    except InputError:  # a step function may hold weights of its own, which stay in float32
        return spectrum


def measured_runs(task: Task, model: nn.Module, device: torch.device) -> list[RecurrentRun]:
    """What `Task.recurrent` gives on the task's measured batch; (module, inputs[, state]) will do for a run.

    Raises:
        InputError: something else.
    """
    runs = task.recurrent(model, to_device(task.spectrum_batch(), device))
    if not isinstance(runs, list | tuple):
        got = type(runs).__name__
    elif wrong := [run for run in runs if not (isinstance(run, tuple) and len(run) in (2, 3))]:
        got = f"a list with {type(wrong[0]).__name__}"
    else:
        return [RecurrentRun(*run) for run in runs]
    raise InputError(
        "Task.recurrent must return a list of hyperprune.RecurrentRun, or of (module, inputs, state), got "
        f"{got}; return [hyperprune.RecurrentRun(model.rnn, inputs)]"
    )
