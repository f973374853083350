"""γ: how much all hidden states move with each weight, by which scores are made comparable between gates.

Reference:
    JSE, eq. 7: γ_n = E[Σ_t Σ_i ∂h_i^(t)/∂θ_n], over inputs ~ N(0, 0.1) or over the data. Ours: 0.1 is the
    standard deviation; h are the states of all layers; the inputs are those of the recurrent modules.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hyperprune.at_init.criterion import Criterion, Problem, Scores, mean_of
from hyperprune.at_init.ranking import check_finite
from hyperprune.errors import InputError
from hyperprune.sparsity.method import check_choice, check_number

SOURCES = ("normal", "data")


@dataclass(frozen=True, kw_only=True)
class ByGamma(Criterion):
    """A criterion whose scores may be divided by γ.

    Attributes:
        gamma: what scores are divided by: γ on "normal" inputs, on the "data", or None.
        gamma_std: standard deviation of the "normal" inputs.
    """

    gamma: str | None = None
    gamma_std: float = 0.1

    def __post_init__(self) -> None:
        if self.gamma is not None:
            check_choice("gamma", self.gamma, SOURCES)
        check_number(
            "gamma_std",
            self.gamma_std,
            0,
            float("inf"),
            low_open=True,
            example="0.1, or 0.316 for variance 0.1",
        )
        if self.gamma != "normal" and self.gamma_std != ByGamma.gamma_std:
            raise InputError(f'gamma_std needs gamma to be "normal", got {self.gamma!r}; remove gamma_std')

    @property
    def recurrent_only(self) -> bool:
        return self.gamma is not None

    def normalized(self, scores: Scores, problem: Problem) -> Scores:
        """The scores, by γ where the settings say so.

        Raises:
            NumericsError: a γ is not finite.
        """
        if self.gamma is None:
            return scores
        gammas = gamma(problem, self.gamma, self.gamma_std)
        check_finite(dict(zip(scores, gammas, strict=True)), "γ")
        return divided_by_gamma(scores, gammas)


def gamma(problem: Problem, source: str, std: float) -> list[Tensor]:
    """γ for every parameter of the problem, in order; signed.

    One gradient for each batch: of Σ_t Σ_i h_i^(t), averaged over samples. "normal" replaces the inputs of
    the recurrent modules by as many draws.

    Raises:
        InputError: a parameter that no hidden state depends on.
    """

    def gradients() -> Iterator[list[Tensor]]:
        for recurrences in problem.recurrences:
            moved = []
            for recurrence in recurrences:
                inputs = recurrence.inputs
                if source == "normal":
                    draws = torch.randn(inputs.shape, generator=problem.generator, dtype=torch.float32)
                    inputs = (std * draws).to(inputs)
                hidden, _ = replace(recurrence, inputs=inputs).run(inputs)
                moved.append(sum(h.sum() for h in hidden) / recurrence.batch_size)
            yield problem.gradients(torch.stack(moved).sum())

    return mean_of(gradients(), len(problem.recurrences))


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
