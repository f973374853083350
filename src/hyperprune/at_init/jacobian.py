"""The Jacobian spectrum: how much each weight moves ‖J 1‖² over the last steps of a sequence.

Reference:
    JSE, eqs. 4-7 and algorithm 1: χ_u = ‖J_{S-u} 1‖², Δχ_u = |∂χ_u/∂θ|, d = Σ_u Δχ_u / |γ|.

Axes: B batch, K directions.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from hyperprune.at_init.criterion import Problem, Scores, mean_of
from hyperprune.at_init.gamma import ByGamma
from hyperprune.at_init.recurrence import Carry, Recurrence
from hyperprune.errors import InputError, NumericsError, check_whole
from hyperprune.sparsity.method import check_choice

PROBES = ("ones", "rademacher")
STATES = ("hidden", "full")
Pieces = tuple[Tensor, ...]


@dataclass(frozen=True, kw_only=True)
class OverHorizon(ByGamma):
    """What the criteria that look at the last steps of a sequence share.

    Attributes:
        horizon: U ≥ 1, the last steps of the sequence that are looked at.
        state: "hidden": J = ∂h'/∂h, an LSTM's cell held fixed (of a function's state, all but its first
            part); "full": of the whole state.
    """

    horizon: int = 4
    state: str = "hidden"
    gamma: str | None = "normal"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole("horizon", self.horizon, 1, example="the paper takes 4 steps")
        check_choice("state", self.state, STATES)

    @property
    def recurrent_only(self) -> bool:
        return True

    def before(self, recurrence: Recurrence) -> tuple[Carry, ...]:
        """The states right before the horizon, with their graph.

        Raises:
            InputError: a sequence shorter than the horizon.
            NumericsError: a state is not finite.
        """
        num_steps = recurrence.inputs.shape[0]
        if num_steps < self.horizon:
            raise InputError(
                f"a sequence must be at least as long as the horizon, got {num_steps} steps and horizon "
                f"{self.horizon}; lower horizon or pass longer sequences"
            )
        _, carries = recurrence.run(recurrence.inputs[: num_steps - self.horizon])
        for carry in carries:
            if not all(bool(torch.isfinite(part).all()) for part in carry):
                raise NumericsError(
                    f"states must be finite, they are not after {num_steps - self.horizon} steps; begin with "
                    "smaller weights"
                )
        return carries


@dataclass(frozen=True, kw_only=True)
class Jacobian(OverHorizon):
    """The paper's criterion.

    Attributes:
        probe: the vector that J is applied to: "ones", or "rademacher", random signs for each sample,
            with which ‖J v‖² estimates the sum of J's squared singular values without bias.
    """

    probe: str = "ones"

    name: ClassVar[str] = "jacobian"
    summary: ClassVar[str] = (
        "how much each weight moves the temporal Jacobian's norm over the last steps, by γ"
    )
    paper: ClassVar[str] = (
        "Zhang & Stadie 2020, One-shot pruning of RNNs by Jacobian spectrum evaluation (arXiv 1912.00120)"
    )
    equation: ClassVar[str] = "eqs. 4-7, algorithm 1"
    deviations: ClassVar[tuple[str, ...]] = (
        "where the paper is loose: the batch's mean of ‖J 1‖², J = ∂h'/∂h with an LSTM's cell held fixed; "
        "the total derivative through all earlier steps; 0.1 is a standard deviation",
        "of several recurrent modules each is a system of its own, and their norms add up",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("probe", self.probe, PROBES)

    def scores(self, problem: Problem) -> Scores:
        totals: list[list[Tensor]] = []  # for each step of the horizon: the gradient, summed over batches
        for recurrences in problem.recurrences:
            for step, norm in enumerate(self.norms(recurrences, problem.generator)):
                gradients = problem.gradients(norm, keep_graph=step + 1 < self.horizon)
                if step == len(totals):
                    totals.append(gradients)
                else:
                    # Out of place, as in `mean_of`.
                    totals[step] = [a + b for a, b in zip(totals[step], gradients, strict=True)]
        scores = {
            name: sum(total[index].abs() for total in totals) / len(problem.recurrences)
            for index, name in enumerate(problem.parameters)
        }
        return self.normalized(scores, problem)  # pyright: ignore[reportArgumentType]

    def norms(self, recurrences: list[Recurrence], generator: torch.Generator) -> Iterator[Tensor]:
        """χ of each step of the horizon, earliest first: ‖J v‖², averaged over samples, with its graph."""
        states = [self.before(recurrence) for recurrence in recurrences]
        for step in range(-self.horizon, 0):
            squares = []
            for index, recurrence in enumerate(recurrences):
                moving, free = one_step(recurrence, recurrence.inputs[step], states[index], self.state)
                probe = tuple(self._probe(part, generator) for part in free)
                # A product with the Jacobian, never the Jacobian: memory stays linear in the parameters.
                moved, states[index] = _jvp(moving, free, probe)
                squares.append(sum(part.square().sum() for part in moved) / recurrence.batch_size)
            yield torch.stack(squares).sum()

    def _probe(self, part: Tensor, generator: torch.Generator) -> Tensor:
        if self.probe == "ones":
            return torch.ones_like(part)
        signs = torch.randint(2, part.shape, generator=generator, device=generator.device)
        return (2 * signs - 1).to(part)


@dataclass(frozen=True, kw_only=True)
class PlainJacobian(Jacobian):
    """The same without γ."""

    gamma: str | None = None

    name: ClassVar[str] = "jacobian_plain"
    summary: ClassVar[str] = "how much each weight moves the temporal Jacobian's norm over the last steps"
    equation: ClassVar[str] = "eq. 4"


@dataclass(frozen=True, kw_only=True)
class LyapunovSensitivity(OverHorizon):
    """How much each weight moves the sum of the leading Lyapunov exponents over the horizon.

    Frames of `num_exponents` orthonormal directions, random and different for each sample, are aligned over
    `warmup` steps and then pushed through the horizon by forward mode, with a QR factorisation at every
    step; the sum of the logarithms of |r|, averaged over steps and samples, is differentiated once.

    Attributes:
        num_exponents: leading exponents, at least 1, at most the state's size.
        warmup: steps before the horizon that align the frames, as many of them as there are; their part in
            the derivative is left out.
    """

    horizon: int = 10
    num_exponents: int = 5
    warmup: int = 10

    name: ClassVar[str] = "experimental_lyapunov"
    summary: ClassVar[str] = "experimental: how much each weight moves the leading Lyapunov exponents, by γ"
    paper: ClassVar[str] = "of this project; nobody has tested it"
    experimental: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole("num_exponents", self.num_exponents, 1, example="5 leading exponents")
        check_whole("warmup", self.warmup, 0, example="10 steps align the directions")

    def scores(self, problem: Problem) -> Scores:
        growths = (
            torch.stack([self.growth(one, problem.generator) for one in recurrences]).sum()
            for recurrences in problem.recurrences
        )
        means = mean_of(map(problem.gradients, growths), len(problem.recurrences))
        scores = {name: mean.abs() for name, mean in zip(problem.parameters, means, strict=True)}
        return self.normalized(scores, problem)

    def growth(self, recurrence: Recurrence, generator: torch.Generator) -> Tensor:
        """Σ of the leading exponents over the horizon, nats per step, averaged over samples."""
        if recurrence.inputs.dtype not in (torch.float32, torch.float64):
            raise InputError(
                f"{self.name} needs float32 or float64, got {recurrence.inputs.dtype}: QR has no other; "
                "convert the model and its inputs"
            )
        self.before(recurrence)  # refuses sequences that are too short
        num_steps = recurrence.inputs.shape[0]
        start = max(0, num_steps - self.horizon - self.warmup)
        _, states = recurrence.run(recurrence.inputs[:start])
        _, free = one_step(recurrence, recurrence.inputs[start], states, self.state)
        sizes = [part[0].numel() for part in free]
        if self.num_exponents > sum(sizes):
            raise InputError(
                f"num_exponents must not exceed the state's size, {sum(sizes)}, got {self.num_exponents}"
            )
        shape = (recurrence.batch_size, sum(sizes), self.num_exponents)
        frame_BSK = torch.randn(shape, generator=generator, dtype=torch.float32).to(free[0])
        frame_BSK = torch.linalg.qr(frame_BSK)[0]
        total = free[0].new_zeros(())
        for step in range(start, num_steps):
            moving, free = one_step(recurrence, recurrence.inputs[step], states, self.state)
            frame_BSK, states = _pushed(moving, free, sizes, frame_BSK)
            frame_BSK, r_BKK = torch.linalg.qr(frame_BSK)
            if step < num_steps - self.horizon:
                frame_BSK = frame_BSK.detach()
            else:
                total = total + r_BKK.diagonal(dim1=-2, dim2=-1).abs().log().sum()
        return total / (self.horizon * recurrence.batch_size)


def one_step(
    recurrence: Recurrence, x_BF: Tensor, states: tuple[Carry, ...], state: str
) -> tuple[Callable[..., tuple[Pieces, tuple[Carry, ...]]], Pieces]:
    """One time step as a function of the free parts of the state, and those parts.

    Returns:
        A function from the free parts, each (B, ·), to (the new ones, all new states); and the free parts:
        every layer's h, or with "full" everything.
    """
    counts = [1 if state == "hidden" else len(carry) for carry in states]

    def moving(*free: Tensor) -> tuple[Pieces, Any]:
        parts = iter(free)
        carries = [
            (*(next(parts) for _ in range(count)), *carry[count:])
            for carry, count in zip(states, counts, strict=True)
        ]
        new = recurrence.step(x_BF, carries)
        return tuple(part for carry, n in zip(new, counts, strict=True) for part in carry[:n]), new

    return moving, tuple(part for carry, count in zip(states, counts, strict=True) for part in carry[:count])


def _jvp(moving: Callable[..., Any], free: Pieces, tangents: Pieces) -> tuple[Pieces, tuple[Carry, ...]]:
    """The derivative along the tangents, and the new states; both with their graph."""
    with warnings.catch_warnings():  # torch's own, at the first call of a process
        warnings.filterwarnings("ignore", message="`torch.jit.script`", category=DeprecationWarning)
        _, moved, states = torch.func.jvp(moving, free, tangents, has_aux=True)  # pyright: ignore[reportAssignmentType]
    return moved, states


def _pushed(
    moving: Callable[..., Any], free: Pieces, sizes: list[int], frame_BSK: Tensor
) -> tuple[Tensor, tuple[Carry, ...]]:
    """J times every column of the frame, and the new states."""

    def push(direction_BS: Tensor) -> Tensor:
        pieces = direction_BS.split(sizes, dim=1)
        tangents = tuple(piece.reshape(part.shape) for piece, part in zip(pieces, free, strict=True))
        moved, _ = _jvp(moving, free, tangents)
        return torch.cat([part.flatten(1) for part in moved], dim=1)

    pushed_BSK = torch.func.vmap(push, in_dims=2, out_dims=2)(frame_BSK)
    _, states = moving(*free)
    return pushed_BSK, states
