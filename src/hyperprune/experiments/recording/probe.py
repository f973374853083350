"""What is measured of a candidate besides its training: spectra, gradients, weights, masks, Jacobians.

An `EpochProbe` writes one file per epoch beside the candidate's checkpoint. It changes nothing: training is
the same, bit for bit, with and without it.

Reference for χ: Zhang et al., One-shot pruning of recurrent neural networks by Jacobian spectrum evaluation
(arXiv 1912.00120): the mean squared singular value of ∂h'/∂h, here exact, ‖J‖²_F / S.

Axes: S exponents, B samples, P recurrent weight matrices, G gates, L layers, N weights.
"""

from __future__ import annotations

import io
import math
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from hyperprune.errors import NumericsError
from hyperprune.experiments.recording.scales import is_detailed
from hyperprune.files import write_atomically
from hyperprune.lyapunov.jacobians import stack_of
from hyperprune.lyapunov.trajectory import Trajectory
from hyperprune.optim import SNTASGD
from hyperprune.tasks.contract import RecurrentRun, Task
from hyperprune.training.candidate import Moment
from hyperprune.training.measure import recurrent_spectra
from hyperprune.training.nested import to_device

Arrays = dict[str, np.ndarray]
DENSE_WEIGHTS = "weights.npz"


def epoch_file(folder: Path, epoch: int) -> Path:
    """Where the probe writes what it measured of an epoch."""
    return folder / f"probe-{epoch:05d}.npz"


class EpochProbe:
    """Measures a candidate at every epoch, on the weights that evaluation uses unless a name says otherwise.

    Args:
        task: gives the measured window.
        folder: the candidate's own.
        seed: of the run, for the tangent frame.
        dense_weights: the file with the dense model's recurrent weights of every epoch; None for the dense
            model itself, which then records its own.
        full_state: epochs at which the spectrum of the full state is measured too.
    """

    def __init__(
        self,
        task: Task,
        folder: Path,
        *,
        seed: int,
        dense_weights: Path | None,
        full_state: Collection[int] = (),
    ) -> None:
        self._task, self._folder, self._seed = task, folder, seed
        self._dense_weights, self._full_state = dense_weights, full_state
        self._gradient_norms: list[Tensor] = []
        self._found: Arrays = {}

    def __call__(self, moment: Moment) -> None:
        if moment.kind == "gradients":
            self._gradient_norms.append(_gradient_norm(moment.model))
            return
        started = time.perf_counter()
        if moment.kind == "before_update":
            self._found = self._before_update(moment)
            self._found["probe_seconds"] = np.array(time.perf_counter() - started)
            return
        found = self._found | self._after_update(moment)
        found["probe_seconds"] = found["probe_seconds"] + time.perf_counter() - started
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **found)
        write_atomically(epoch_file(self._folder, moment.epoch), buffer.getvalue())
        self._found = {}

    def _before_update(self, moment: Moment) -> Arrays:
        norms = torch.stack(self._gradient_norms).mean().item() if self._gradient_norms else math.nan
        self._gradient_norms = []
        found: Arrays = {"gradient_norm": np.array(norms, dtype=np.float32)}
        with _as_evaluated(moment.optimizer):
            found |= self._spectra(moment.model, full_state=moment.epoch in self._full_state)
            found |= self._weights(moment)
            runs = self._task.recurrent(moment.model, self._batch(moment.model))
            found["chi"] = np.concatenate([mean_squared_singular_values(run) for run in runs])
        if is_detailed(moment.epoch):
            found["spectrum_raw"] = (
                self._hidden(moment.model) if _averages(moment.optimizer) else found["spectrum"]
            )
        return found

    def _after_update(self, moment: Moment) -> Arrays:
        found: Arrays = {"death_rate": np.array(moment.sparse.death_rate, dtype=np.float32)}
        found["turnover_so_far"] = np.array(moment.sparse.turnover, dtype=np.float64)
        found["explored"] = np.array(moment.sparse.explored, dtype=np.float32)
        if is_detailed(moment.epoch):
            found["spectrum_updated_raw"] = self._hidden(moment.model)
            with _as_evaluated(moment.optimizer):
                found["spectrum_updated"] = (
                    self._hidden(moment.model)
                    if _averages(moment.optimizer)
                    else found["spectrum_updated_raw"]
                )
        return found

    def _spectra(self, model: nn.Module, *, full_state: bool) -> Arrays:
        started = time.perf_counter()
        found: Arrays = {}
        try:
            spectra = recurrent_spectra(self._task, model, seed=self._seed)
        except NumericsError:
            return {"spectrum": np.array([np.nan], dtype=np.float32)}
        found["spectrum"] = _float32(np.concatenate([item.concatenated for item in spectra]))
        # Summed over blocks, in the order of `concatenated`: each layer by its mean over the samples.
        found["spectrum_samples"] = _float32(
            np.concatenate([_samples(item.log_growth, item.num_steps) for item in spectra], axis=1)
        )
        found["spectrum_seconds"] = np.array(time.perf_counter() - started, dtype=np.float32)
        if full_state:
            started = time.perf_counter()
            found["spectrum_full"] = self._hidden(model, jacobian="full")
            found["spectrum_full_seconds"] = np.array(time.perf_counter() - started, dtype=np.float32)
        return found

    def _hidden(self, model: nn.Module, jacobian: str = "hidden") -> np.ndarray:
        """(S,) the compared vector; a single NaN where the spectrum cannot be measured."""
        try:
            spectra = recurrent_spectra(self._task, model, seed=self._seed, jacobian=jacobian)  # pyright: ignore[reportArgumentType]
        except NumericsError:
            return np.array([np.nan], dtype=np.float32)
        return _float32(np.concatenate([spectrum.concatenated for spectrum in spectra]))

    def _weights(self, moment: Moment) -> Arrays:
        """Norms, spectral radii, distance from the dense model's, and live weights of each recurrent gate."""
        recurrent = recurrent_matrices(self._task, moment.model, self._batch(moment.model))
        blocks = [block for name, matrix in recurrent for block in _square_blocks(name, matrix)]
        found: Arrays = {
            "frobenius": np.array([matrix.norm().item() for _, matrix in recurrent], dtype=np.float32),
            "spectral_radius": np.array([_spectral_radius(block) for block in blocks], dtype=np.float32),
        }
        summary = {row.name: row for row in moment.sparse.summary()}
        gates = [summary[name].gates or (summary[name].live,) for name, _ in recurrent if name in summary]
        found["live_gates"] = np.array([count for counts in gates for count in counts], dtype=np.int64)
        found["density"] = np.array([row.density for row in summary.values()], dtype=np.float32)
        if self._dense_weights is None:
            flat = [matrix.detach().float().cpu().flatten() for _, matrix in recurrent]
            found["weights"] = torch.cat(flat).numpy()
            found["weight_distance"] = np.zeros(len(recurrent), dtype=np.float32)
        else:
            found["weight_distance"] = self._distance(recurrent, moment.epoch)
        return found

    def _distance(self, recurrent: Sequence[tuple[str, Tensor]], epoch: int) -> np.ndarray:
        assert self._dense_weights is not None
        with np.load(self._dense_weights, allow_pickle=False) as file:
            if str(epoch) not in file.files:  # the dense model failed before
                return np.full(len(recurrent), np.nan, dtype=np.float32)
            dense = file[str(epoch)]
        ends = np.cumsum([matrix.numel() for _, matrix in recurrent])[:-1]
        parts = zip(recurrent, np.split(dense, ends), strict=True)
        distances = [np.linalg.norm(matrix.float().cpu().numpy().ravel() - own) for (_, matrix), own in parts]
        return np.array(distances, dtype=np.float32)

    def _batch(self, model: nn.Module) -> object:
        return to_device(self._task.spectrum_batch(), next(model.parameters()).device)


def recurrent_matrices(task: Task, model: nn.Module, batch: object) -> list[tuple[str, Tensor]]:
    """The weight matrices of a model's recurrent modules, by parameter name."""
    modules = [run.module for run in task.recurrent(model, batch) if isinstance(run.module, nn.Module)]
    own = {id(parameter) for module in modules for parameter in module.parameters()}
    return [
        (name, parameter.detach())
        for name, parameter in model.named_parameters()
        if id(parameter) in own and parameter.ndim == 2
    ]


def mean_squared_singular_values(run: RecurrentRun, *, warmup: int = 10) -> np.ndarray:
    """(L,) per layer ‖∂h'/∂h‖²_F / S, the mean over steps after the warm-up and samples.

    The cell of an LSTM is held fixed, as in the paper. A window no longer than the warm-up counts whole.
    """
    assert isinstance(run.module, nn.Module)
    parameter = next(run.module.parameters())
    num_steps, batch_size = run.inputs.shape[:2]
    stack = stack_of(
        run.module,
        run.state,
        batch=batch_size,
        hidden_only=True,
        dtype=parameter.dtype,
        device=parameter.device,
    )
    first = warmup if warmup < num_steps else 0
    totals, step = [0.0] * len(stack.layers), 0
    for chunk in Trajectory(stack, batch_size, parameter.dtype, parameter.device).run(run.inputs, 0):
        for index, (layer, coefficients_TBF) in enumerate(zip(stack.layers, chunk, strict=True)):
            size = layer.state_size
            for number, coefficients_BF in enumerate(coefficients_TBF):
                if step + number < first:
                    continue
                jacobian_BSS = coefficients_BF.new_empty(batch_size, size, size)
                layer.build(0, coefficients_BF[:, 0], jacobian_BSS)
                for factor in range(1, layer.num_factors):
                    next_BSS = torch.empty_like(jacobian_BSS)
                    layer.build(factor, coefficients_BF[:, factor], next_BSS)
                    jacobian_BSS = next_BSS @ jacobian_BSS
                totals[index] += jacobian_BSS.square().sum().item() / (size * batch_size)
        step += len(chunk[0])
    return np.array(totals, dtype=np.float32) / (num_steps - first)


def _samples(log_growth: Sequence[np.ndarray], num_steps: int) -> np.ndarray:
    """(B, S) each sample's exponents, in the order of `LyapunovSpectrum.concatenated`."""
    layers = []
    for growth_NBK in log_growth:
        rates_BK = growth_NBK.sum(axis=0) / num_steps
        layers.append(rates_BK[:, np.argsort(-rates_BK.mean(axis=0), kind="stable")])
    return np.concatenate(layers, axis=1)


def _gradient_norm(model: nn.Module) -> Tensor:
    norms = [parameter.grad.norm() for parameter in model.parameters() if parameter.grad is not None]
    return torch.stack(norms).norm()


def _square_blocks(name: str, matrix: Tensor) -> list[Tensor]:
    """The gates of a hidden-to-hidden matrix."""
    rows, columns = matrix.shape
    is_hidden = name.rpartition(".")[2].startswith("weight_hh") and rows % columns == 0
    return list(matrix.split(columns)) if is_hidden else []


def _spectral_radius(block: Tensor) -> float:
    return float(np.abs(np.linalg.eigvals(block.double().cpu().numpy())).max())


def _averages(optimizer: torch.optim.Optimizer) -> bool:
    return isinstance(optimizer, SNTASGD) and optimizer.triggered


@contextmanager
def _as_evaluated(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    if isinstance(optimizer, SNTASGD):
        with optimizer.averaged():
            yield
    else:
        yield


def _float32(values: np.ndarray) -> np.ndarray:
    return np.asarray(values, dtype=np.float32)
