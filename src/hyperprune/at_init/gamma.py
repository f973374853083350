"""γ: how much all hidden states move with each weight, by which scores are made comparable between gates.

Reference:
    JSE, eq. 7: γ_n = E[Σ_t Σ_i ∂h_i^(t)/∂θ_n], over inputs ~ N(0, 0.1) or over the data. Ours: 0.1 is the
    standard deviation; h are the states of all layers; the inputs are those of the recurrent modules.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from hyperprune.at_init.criterion import Problem, Scores
from hyperprune.errors import InputError
from hyperprune.sparsity.method import check_choice, check_number

SOURCES = ("normal", "data")


def check_gamma(source: str | None, std: float, default_std: float) -> None:
    """Refuse settings of γ that are unknown, or would be ignored."""
    if source is not None:
        check_choice("gamma", source, SOURCES)
    check_number("gamma_std", std, 0, float("inf"), low_open=True, example="0.1, or 0.316 for variance 0.1")
    if source != "normal" and std != default_std:
        raise InputError(f'gamma_std needs gamma="normal", got gamma={source!r}; remove gamma_std')


def gamma(problem: Problem, source: str, std: float) -> list[Tensor]:
    """γ for every parameter of the problem, in order; signed.

    One gradient for each batch: of Σ_t Σ_i h_i^(t), averaged over samples. "normal" replaces the inputs of
    the recurrent modules by as many draws.

    Raises:
        InputError: a parameter that no hidden state depends on.
    """
    totals: list[Tensor] | None = None
    for recurrences in problem.recurrences:
        moved = []
        for recurrence in recurrences:
            inputs = recurrence.inputs
            if source == "normal":
                draws = torch.randn(inputs.shape, generator=problem.generator, dtype=torch.float32)
                inputs = (std * draws).to(inputs)
            hidden, _ = replace(recurrence, inputs=inputs).run(inputs)
            moved.append(sum(h.sum() for h in hidden) / recurrence.batch_size)
        gradients = problem.gradients(torch.stack(moved).sum())
        totals = gradients if totals is None else [a.add_(b) for a, b in zip(totals, gradients, strict=True)]
    assert totals is not None
    return [total / len(problem.recurrences) for total in totals]


def divided_by_gamma(scores: Scores, gammas: Sequence[Tensor]) -> Scores:
    """score / |γ|.

    Where γ is exactly 0 the weight moves no hidden state on those inputs. Its score stays 0 if it was 0
    (nothing speaks for keeping it); otherwise the smallest |γ| above 0 of all weights takes γ's place.
    """
    sizes = [gamma.abs() for gamma in gammas]
    smallest = min(
        (float(size[size > 0].min()) for size in sizes if bool((size > 0).any())),
        default=1.0,
    )
    return {
        name: score / torch.where(size > 0, size, smallest)
        for (name, score), size in zip(scores.items(), sizes, strict=True)
    }
