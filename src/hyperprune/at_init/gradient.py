"""Criteria of the loss's gradient: SNIP and GraSP (the JSE paper's "Foresight"), with and without γ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from hyperprune.at_init.criterion import Criterion, Problem, Scores
from hyperprune.at_init.gamma import check_gamma, divided_by_gamma, gamma
from hyperprune.at_init.written_out import WrittenOut


@dataclass(frozen=True, kw_only=True)
class _OfLoss(Criterion):
    """What both share.

    Attributes:
        gamma: what scores are divided by: γ on "normal" inputs, on the "data", or None.
        gamma_std: standard deviation of the "normal" inputs.
    """

    gamma: str | None = None
    gamma_std: float = 0.1

    def __post_init__(self) -> None:
        check_gamma(self.gamma, self.gamma_std, _OfLoss.gamma_std)

    @property
    def recurrent_only(self) -> bool:
        return self.gamma is not None

    def normalized(self, scores: Scores, problem: Problem) -> Scores:
        if self.gamma is None:
            return scores
        return divided_by_gamma(scores, gamma(problem, self.gamma, self.gamma_std))


def _mean_gradient(problem: Problem) -> list[Tensor]:
    """g = E[∂L/∂θ] over the batches."""
    totals: list[Tensor] | None = None
    for loss in problem.losses():
        gradients = problem.gradients(loss)
        totals = gradients if totals is None else [a.add_(b) for a, b in zip(totals, gradients, strict=True)]
    assert totals is not None
    return [total / len(problem.batches) for total in totals]


@dataclass(frozen=True, kw_only=True)
class SNIP(_OfLoss):
    """Connection sensitivity."""

    name: ClassVar[str] = "snip"
    summary: ClassVar[str] = "|θ·g|: how much the loss changes at first order without the weight"
    paper: ClassVar[str] = "Lee et al. 2019, SNIP (arXiv 1810.02340)"
    equation: ClassVar[str] = "eq. 4 there; JSE, eq. 9"

    def scores(self, problem: Problem) -> Scores:
        gradients = _mean_gradient(problem)
        scores = {
            name: (parameter.detach() * gradient).abs()
            for (name, parameter), gradient in zip(problem.parameters.items(), gradients, strict=True)
        }
        return self.normalized(scores, problem)


@dataclass(frozen=True, kw_only=True)
class NormalizedSNIP(SNIP):
    """SNIP over γ."""

    gamma: str | None = "normal"

    name: ClassVar[str] = "snip_gamma"
    summary: ClassVar[str] = (
        "SNIP's score by γ (the JSE paper's normalised SNIP, whose weights start after Glorot)"
    )
    equation: ClassVar[str] = "JSE, eqs. 7 and 9"


@dataclass(frozen=True, kw_only=True)
class GraSP(_OfLoss):
    """Gradient signal preservation."""

    name: ClassVar[str] = "grasp"
    summary: ClassVar[str] = (
        'signed θ·Hg: weights whose loss would lower the gradient\'s norm (JSE: "Foresight")'
    )
    paper: ClassVar[str] = "Wang et al. 2020, Picking winning tickets (arXiv 2002.07376)"
    equation: ClassVar[str] = "eq. 8 there; JSE, eq. 8"
    deviations: ClassVar[tuple[str, ...]] = (
        "the largest θ·Hg are kept; the original calls −θ·Hg the score and drops the largest: the same",
        "H and g are of the scored tensors alone",
    )

    def scores(self, problem: Problem) -> Scores:
        gradients = [gradient.detach() for gradient in _mean_gradient(problem)]
        products: list[Tensor] | None = None
        with WrittenOut():
            for loss in problem.losses():
                first = problem.gradients(loss, twice=True)
                slope = torch.stack([(a * b).sum() for a, b in zip(first, gradients, strict=True)]).sum()
                new = problem.gradients(slope)
                products = (
                    new if products is None else [a.add_(b) for a, b in zip(products, new, strict=True)]
                )
        assert products is not None
        scores = {
            name: parameter.detach() * product / len(problem.batches)
            for (name, parameter), product in zip(problem.parameters.items(), products, strict=True)
        }
        return self.normalized(scores, problem)


@dataclass(frozen=True, kw_only=True)
class NormalizedGraSP(GraSP):
    """GraSP over γ."""

    gamma: str | None = "normal"

    name: ClassVar[str] = "grasp_gamma"
    summary: ClassVar[str] = "GraSP's score by γ (the JSE paper's normalised Foresight)"
    equation: ClassVar[str] = "JSE, eqs. 7 and 8"
