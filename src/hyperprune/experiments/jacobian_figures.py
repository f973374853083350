"""What the study says of a network besides its error: its Jacobian's spectrum, and what may predict it.

Axes: B batch, H hidden.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hyperprune import at_init
from hyperprune.at_init.jacobian import one_step
from hyperprune.at_init.recurrence import open_recurrence
from hyperprune.rng import generator
from hyperprune.spectra import spectrum_distance
from hyperprune.tasks.contract import Task
from hyperprune.training.measure import recurrent_spectra

SAMPLES = 8
EDGES = tuple(np.linspace(0.0, 2.0, 41).round(3).tolist())
_SMALL = 0.01  # singular values below this count as zero
_HORIZON = 4


def network_figures(task: Task, model: nn.Module) -> dict[str, Any]:
    """Singular values of J = ∂h'/∂h at the last step of the first validation images.

    Returns:
        "singular": counts between `EDGES`, values beyond the last in the last; "mean"; "small": the share
        below 0.01.
    """
    values = singular_values(task, model)
    counts, _ = np.histogram(np.minimum(values, EDGES[-1]), EDGES)
    return {
        "singular": counts.tolist(),
        "mean": round(float(values.mean()), 5),
        "small": round(float((values < _SMALL).mean()), 5),
    }


def singular_values(task: Task, model: nn.Module) -> np.ndarray:
    """All singular values of J at the last step, of `SAMPLES` validation images, in one array."""
    run = task.recurrent(model, task.spectrum_batch())[0]
    recurrence = open_recurrence(run.module, run.inputs[:, :SAMPLES], run.state)
    with torch.no_grad():
        _, states = recurrence.run(recurrence.inputs[:-1])
    moving, free = one_step(recurrence, recurrence.inputs[-1], states, "hidden")

    def summed(*free: Tensor) -> Tensor:
        """Σ over samples, which do not act on each other: (H)."""
        return torch.cat([part.sum(0) for part in moving(*free)[0]])

    jacobians = torch.func.jacrev(summed, argnums=tuple(range(len(free))))(*free)
    jacobian_BHH = torch.cat([part.movedim(1, 0) for part in jacobians], dim=2).detach()
    return torch.linalg.svdvals(jacobian_BHH).flatten().double().numpy()


def start_figures(
    task: Task, model: nn.Module, masks: Mapping[str, Tensor] | None, *, seed: int
) -> dict[str, Any]:
    """Figures of the pruned network before training; predictors only where there are masks.

    Returns:
        Those of `network_figures`, and
        "norm": Σ over the last four steps of ‖J 1‖² per unit, of the pruned network;
        "score": the share of the dense network's Jacobian scores (by γ) that the masks keep;
        "distance": the L2 distance of the pruned network's Lyapunov spectrum from the dense one's.
    """
    pruned = copy.deepcopy(model)
    if masks is not None:
        with torch.no_grad():
            for name, mask in masks.items():
                pruned.get_parameter(name).mul_(mask)
    figures = network_figures(task, pruned)
    if masks is None:
        return figures
    batch = next(iter(task.batches("train", 1)))
    run = task.recurrent(pruned, batch)[0]
    recurrence = open_recurrence(run.module, run.inputs, run.state)
    norms = at_init.jacobian(horizon=_HORIZON).norms([recurrence], generator(seed, "at_init"))
    with torch.no_grad():
        norm = sum(norm.item() for norm in norms)
    scores = at_init.scores(
        model,
        lambda model, batch: task.loss(model, batch, None).loss,
        [batch],
        criterion=at_init.jacobian(horizon=_HORIZON),
        generator=generator(seed, "at_init"),
        parameters=list(masks),
    )
    total = sum(float(score.double().sum()) for score in scores.values())
    kept = sum(float(score[masks[name]].double().sum()) for name, score in scores.items())
    dense, sparse = (recurrent_spectra(task, network.eval(), seed=seed) for network in (model, pruned))
    units = recurrence.carries[0][0].shape[1]
    return figures | {
        "norm": round(norm / units, 6),
        "score": round(kept / total, 6) if total else None,
        "distance": round(spectrum_distance(dense, sparse, embedding="none"), 5),
    }
