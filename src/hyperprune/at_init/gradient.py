"""Criteria of the loss's gradient: SNIP and GraSP (the JSE paper's "Foresight"), with and without γ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from hyperprune.at_init.criterion import Problem, Scores, mean_of
from hyperprune.at_init.gamma import ByGamma
from hyperprune.at_init.written_out import WrittenOut


def _mean_gradient(problem: Problem) -> list[Tensor]:
    """g = E[∂L/∂θ] over the batches."""
    return mean_of(map(problem.gradients, problem.losses()), len(problem.batches))


@dataclass(frozen=True, kw_only=True)
class SNIP(ByGamma):
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
class GraSP(ByGamma):
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

        def product(loss: Tensor) -> list[Tensor]:
            """H g of one batch."""
            first = problem.gradients(loss, twice=True)
            slope = torch.stack([(a * b).sum() for a, b in zip(first, gradients, strict=True)]).sum()
            return problem.gradients(slope)

        with WrittenOut():
            products = mean_of(map(product, problem.losses()), len(problem.batches))
        scores = {
            name: parameter.detach() * product
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
