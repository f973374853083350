"""Criteria that look at no data: random, magnitude and SynFlow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from hyperprune.at_init.criterion import Criterion, Problem, Scores
from hyperprune.at_init.runs import recurrent_modules
from hyperprune.errors import InputError, check_whole
from hyperprune.models.cells import RHN, PeepholeLSTM


@dataclass(frozen=True, kw_only=True)
class Random(Criterion):
    """The baseline that is hard to beat."""

    name: ClassVar[str] = "random"
    uses_data: ClassVar[bool] = False
    summary: ClassVar[str] = "uniform random numbers"

    def scores(self, problem: Problem) -> Scores:
        return {
            name: torch.rand(parameter.shape, generator=problem.generator, dtype=torch.float64).to(
                parameter.device
            )
            for name, parameter in problem.parameters.items()
        }


@dataclass(frozen=True, kw_only=True)
class Magnitude(Criterion):
    """The initial weights' size."""

    name: ClassVar[str] = "magnitude"
    uses_data: ClassVar[bool] = False
    summary: ClassVar[str] = "|θ|"
    paper: ClassVar[str] = "the magnitude baseline of Frankle et al. 2021 (arXiv 2009.08576)"

    def scores(self, problem: Problem) -> Scores:
        return {name: parameter.detach().abs() for name, parameter in problem.parameters.items()}


@dataclass(frozen=True, kw_only=True)
class SynFlow(Criterion):
    """Synaptic flow through a chain of the recurrent layers' matrices.

    R = 1ᵀ |W_n| … |W_1| 1 and the score is |θ| ∂R/∂|θ|, in `rounds` rounds of falling density. The chain is
    one path through the network: each layer's input matrix, its recurrent matrices (of an RHN the later
    micro-steps before the first), its peepholes; the gates stacked in a matrix add up. Each matrix occurs
    once, so R is linear in every one and their scores all sum to R: no layer runs dry while another is rich.
    The projection of an LSTM occurs twice, after the input matrix and after the recurrent one: 2R.

    Attributes:
        rounds: at least 1; with few rounds a layer can run dry.
    """

    rounds: int = 100

    name: ClassVar[str] = "synflow"
    uses_data: ClassVar[bool] = False
    summary: ClassVar[str] = "share of the flow Π|W| through a weight, in 100 rounds of falling density"
    paper: ClassVar[str] = "Tanaka et al. 2020, Pruning neural networks without any data (arXiv 2006.05467)"
    equation: ClassVar[str] = "eq. 4, algorithm 1"
    deviations: ClassVar[tuple[str, ...]] = (
        "defined here for gated layers: a path through input, recurrent and peephole matrices, gates summed",
    )

    def __post_init__(self) -> None:
        check_whole("rounds", self.rounds, 1, example="the paper takes 100")

    @property
    def recurrent_only(self) -> bool:
        return True

    @property
    def num_rounds(self) -> int:
        return self.rounds

    def scores(self, problem: Problem) -> Scores:
        names = {id(parameter): name for name, parameter in problem.parameters.items()}
        sizes: dict[str, Tensor] = {}  # |θ| of the scored tensors, which R is differentiated by

        def size_of(parameter: nn.Parameter) -> Tensor:
            name = names.get(id(parameter))
            if name is None:
                return parameter.detach().abs().double()
            if name not in sizes:
                size = parameter.detach().abs().double()
                if problem.live is not None:
                    size = size * problem.live[name]
                sizes[name] = size.requires_grad_()
            return sizes[name]

        flow: Tensor | None = None
        for module in recurrent_modules(problem.model):
            for parameter, width in _chain(module):
                size = size_of(parameter)
                if flow is None:
                    flow = size.new_ones(size.shape[1])
                elif len(flow) != size.shape[1]:  # as if every unit fed every unit
                    flow = flow.sum().expand(size.shape[1])
                flow = (size @ flow).view(-1, width).sum(0)
        unknown = [name for name in problem.parameters if name not in sizes]
        if unknown or flow is None:
            raise InputError(
                "synflow scores the matrices of recurrent modules (nn.RNN, nn.LSTM, nn.GRU, "
                f"hyperprune.models), {', '.join(unknown) or 'this model'} has none of them; take another "
                "criterion"
            )
        gradients = torch.autograd.grad(flow.sum(), list(sizes.values()))
        found = {
            name: size.detach() * gradient
            for (name, size), gradient in zip(sizes.items(), gradients, strict=True)
        }
        return {name: found[name] for name in problem.parameters}


def _chain(module: nn.Module) -> list[tuple[nn.Parameter, int]]:
    """The matrices of a recurrent module along one path, and the width of what each of them feeds."""
    if isinstance(module, RHN):
        first, *later = module.recurrent_weights()
        return [(weight, module.hidden_size) for weight in (module.weight_ih_l0, *later, first)]
    assert isinstance(module, nn.RNNBase | PeepholeLSTM)
    chain = []
    directions = ("", "_reverse") if getattr(module, "bidirectional", False) else ("",)
    for layer in range(module.num_layers):
        for direction in directions:
            suffix = f"_l{layer}{direction}"
            path = [(f"weight_ih{suffix}", module.hidden_size), (f"weight_hh{suffix}", module.hidden_size)]
            if isinstance(module, PeepholeLSTM) and module.peephole == "full":
                path.append((f"weight_peephole{suffix}", module.hidden_size))
            if getattr(module, "proj_size", 0):
                projection = (f"weight_hr{suffix}", module.proj_size)
                path = [path[0], projection, path[1], projection]
            chain += [(_plain(module, name), width) for name, width in path]
    return chain


def _plain(module: nn.Module, name: str) -> nn.Parameter:
    try:
        return module.get_parameter(name)
    except AttributeError as error:
        raise InputError(
            f"synflow scores plain matrices, and {name} of {type(module).__name__} is computed from others "
            "(weight_norm, parametrize); take it off, or take another criterion"
        ) from error
