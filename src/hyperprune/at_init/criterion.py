"""The contract of a criterion: frozen settings, and a score for every weight of a problem.

A `Criterion` is data, as a pruning method is: hashable, printable, with its paper beside it. `scores` maps a
`Problem` (model, loss, batches, recurrent modules) to tensors; ranking them is not its business.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from hyperprune.at_init.recurrence import Recurrence, matrices_of, open_recurrence
from hyperprune.at_init.runs import Runs, recurrent_modules, watched_runs
from hyperprune.errors import InputError, NumericsError

LossFunction = Callable[[nn.Module, Any], Tensor]
Scores = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What is to be scored.

    Attributes:
        model: in evaluation mode.
        parameters: the tensors to score, by name.
        loss_fn: (model, batch) -> scalar; None if there is none.
        batches: all of them count alike.
        recurrent: where the recurrence sits; None: the modules that are recognised inside the model, and
            what drives them while `loss_fn` runs.
        generator: on the CPU; every random draw comes from it.
        live: which weights are left, by name; None is all. Changes between the rounds of an iterative
            criterion.
    """

    model: nn.Module
    parameters: Mapping[str, nn.Parameter]
    loss_fn: LossFunction | None
    batches: Sequence[Any]
    recurrent: Runs | None
    generator: torch.Generator
    live: Mapping[str, Tensor] | None = None

    def losses(self) -> Iterable[Tensor]:
        """The loss of each batch, with its graph.

        Raises:
            InputError: no loss function or batch, or a loss that does not depend on the weights.
            NumericsError: a loss is not finite.
        """
        if self.loss_fn is None:
            raise InputError("this criterion needs the loss: pass loss_fn(model, batch) -> scalar")
        for batch in self._some_batches():
            loss = self.loss_fn(self.model, batch)
            if not isinstance(loss, Tensor) or loss.numel() != 1:
                got = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
                raise InputError(f"loss_fn must return a scalar tensor, got {got}; take the mean")
            if not loss.requires_grad:
                raise InputError(
                    "the loss must depend on the weights by differentiable operations, this batch gave one "
                    "without gradient; remove detach() and no_grad() from loss_fn, and argmax from the loss"
                )
            if not bool(torch.isfinite(loss).all()):
                raise NumericsError(
                    f"the loss must be finite to be differentiated, got {loss.item()}; check the batch, or "
                    "begin with smaller weights"
                )
            yield loss.reshape(())

    @cached_property
    def recurrences(self) -> list[list[Recurrence]]:
        """For each batch, the recurrent modules and what drives them."""
        return [self._recurrences(batch) for batch in self._some_batches()]

    def _recurrences(self, batch: Any) -> list[Recurrence]:
        if self.recurrent is not None:
            with torch.no_grad():
                runs = self.recurrent(self.model, batch)
            if not isinstance(runs, list | tuple) or not all(
                isinstance(run, list | tuple) and len(run) in (2, 3) for run in runs
            ):
                raise InputError(
                    "recurrent must return a list of (module, inputs, state), got "
                    f"{type(runs).__name__}; return [(model.rnn, inputs, None)]"
                )
            if not runs:
                raise InputError(
                    "recurrent must name at least one module, got none; return [(model.rnn, inputs, None)]"
                )
        elif self.loss_fn is None:
            raise InputError(
                "this criterion needs what drives recurrent layers: pass loss_fn and batches, or recurrent"
            )
        else:
            runs = watched_runs(self.model, self.loss_fn, batch)
        return [open_recurrence(*run) for run in runs]

    def _some_batches(self) -> Sequence[Any]:
        if not self.batches:
            raise InputError("this criterion needs data: pass at least one batch, got none")
        return self.batches

    def gradients(self, value: Tensor, *, keep_graph: bool = False, twice: bool = False) -> list[Tensor]:
        """∂value/∂θ for every parameter, in order.

        Args:
            keep_graph: another derivative of the same graph follows.
            twice: the gradient itself will be differentiated.

        Raises:
            InputError: `value` does not depend on one of the parameters.
        """
        found = torch.autograd.grad(
            value,
            list(self.parameters.values()),
            retain_graph=keep_graph or twice,
            create_graph=twice,
            allow_unused=True,
        )
        for name, gradient in zip(self.parameters, found, strict=True):
            if gradient is None:
                raise InputError(
                    f"every scored tensor must take part in what the criterion differentiates, {name} does "
                    "not; leave it out of parameters, or take a criterion that sees it"
                )
        # Of an embedding with sparse=True it is sparse.
        return [gradient.to_dense() if gradient.is_sparse else gradient for gradient in found]


def mean_of(parts: Iterable[list[Tensor]], count: int) -> list[Tensor]:
    """The mean over batches of a tensor for each parameter."""
    totals: list[Tensor] | None = None
    for tensors in parts:
        # Out of place: the gradients of parameters that are added together are one tensor.
        totals = tensors if totals is None else [a + b for a, b in zip(totals, tensors, strict=True)]
    assert totals is not None
    return [total / count for total in totals]


@dataclass(frozen=True, kw_only=True)
class Criterion(ABC):
    """What all criteria share.

    Attributes:
        recurrent_only: it scores the weights of recurrent layers and no others.
        experimental: neither the paper nor anyone else has tested it.
        uses_data: it looks at batches.
        rounds: how many times weights are scored and dropped.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    paper: ClassVar[str] = ""
    equation: ClassVar[str] = ""
    deviations: ClassVar[tuple[str, ...]] = ()
    experimental: ClassVar[bool] = False

    uses_data: ClassVar[bool] = True

    @property
    def recurrent_only(self) -> bool:
        return False

    @property
    def num_rounds(self) -> int:
        return 1

    @property
    def citation(self) -> str:
        """The paper to cite, in one line."""
        return self.paper

    def settings(self) -> dict[str, Any]:
        """All fields by name; `at_init.get(criterion.name, **settings)` makes an equal criterion."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @abstractmethod
    def scores(self, problem: Problem) -> Scores:
        """A score for every weight of `problem.parameters`; the largest (signed) are kept.

        Raises:
            InputError: the problem lacks what the criterion needs.
            NumericsError: a loss or state is not finite.
        """


def recurrent_matrices(model: nn.Module, runs: Sequence[Recurrence] | None) -> set[int]:
    """The identities of the recurrent layers' matrices: of `runs` if given, else of what is recognised."""
    if runs is not None:
        return {id(parameter) for run in runs for parameter in run.matrices}
    return {id(parameter) for module in recurrent_modules(model) for parameter in matrices_of(module)}
