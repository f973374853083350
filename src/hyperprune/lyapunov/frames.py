"""Tangent frames pushed through Jacobians: the inner loop of the spectrum.

A chain holds the frames of some samples of one layer. On a CPU every sample has a chain of its own: chains
are independent, so they run in a small pool of threads, one core each, which scales where threads inside a
factorisation do not. On a GPU, and for small states, one chain holds all samples in a batch.

Reference: Benettin, Galgani, Giorgilli, Strelcyn 1980; Geist, Parlitz, Lauterborn 1990 (the QR form).
Deviation: frames need not be orthonormal to round-off, see `qr`.

Axes: T steps, B samples, F factors of a step, N slots (whole intervals of steps), E factorisations,
S state, K directions.
"""

import copy
import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from hyperprune.errors import NumericsError
from hyperprune.lyapunov import qr
from hyperprune.lyapunov.jacobians import Layer
from hyperprune.lyapunov.null_directions import NullDirections

_LOGDET_EVERY = 64
"""Factors between two checks of Σ ln|r| against ln|det J|; a check costs about one factor's work."""

_LONGEST_BACK_OFF = 64
"""Factorisations after which Gram-Schmidt is tried again when it kept failing (singular Jacobians)."""

LOST_RATIO = {torch.float32: 1e-6, torch.float64: 1e-11}
"""A direction that keeps less than this share of the largest |r|, in the geometric mean over factorisations,
counts as mapped to zero. Round-off leaves such a direction up to 2000 eps in the mean (docs/lyapunov.md). In
float64 nothing else is as small. In float32 the last directions of a large LSTM's full state are, so there
the limit is where a step no longer resolves them to 0.1 nats."""

_ROUND_OFF_OF_LOST = 1e-2
"""Share of the largest |r| up to which that of a direction lost before is round-off (docs/lyapunov.md)."""

_Part = tuple[int, Float[Tensor, "B ..."]]  # number of the factor within its step, its coefficients


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """How chains are to be pushed.

    Args:
        steps_per_slot: steps whose growth is added up; chains advance by whole slots only.
        transposed: push through Jᵀ instead of J (the published code's convention).
        is_counted: False in a warm-up, whose log-determinants are not checked.
        first_step: number of the first step, for messages.
    """

    steps_per_slot: int = 1
    transposed: bool = False
    is_counted: bool = True
    first_step: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Growth:
    """What one push of one chain measured.

    Args:
        logs: nats by slot, sample and direction; `-inf` where zeros of a Jacobian make it singular.
        logdet_residual: the largest seen; None if none was checked.
        shortened: (ratio, limit, factors before, factors after) of each interval that was cut short.
    """

    logs: Float64[np.ndarray, "N B K"]
    logdet_residual: float | None
    shortened: list[tuple[float, float, int, int]]

    @classmethod
    def joined(cls, growths: Sequence["Growth"]) -> "Growth":
        """The growth of a layer, from that of its chains in the order of the samples."""
        residuals = [growth.logdet_residual for growth in growths if growth.logdet_residual is not None]
        return cls(
            logs=np.concatenate([growth.logs for growth in growths], axis=1),
            logdet_residual=max(residuals, default=None),
            shortened=[entry for growth in growths for entry in growth.shortened],
        )


def largest_ratio(dtype: torch.dtype) -> float:
    """How far apart the |r| of a factorisation over several steps may be.

    Its smallest direction carries a relative error of about 10·eps times that ratio; the limit keeps the
    error near 1e-3.
    """
    return 1e-4 / torch.finfo(dtype).eps


class Chain:
    """The frames of some samples of one layer, and how they are pushed through its Jacobians.

    Args:
        samples: which samples of the batch.
        frame_KS: the first frame of every sample, orthonormal, transposed.
        null: the directions that the layer's zeros lose; its chains share it.
        fast: whether to try Gram-Schmidt before Householder reflections.
    """

    def __init__(
        self,
        layer: Layer,
        samples: slice,
        frame_KS: Float[Tensor, "K S"],
        null: NullDirections,
        *,
        fast: bool,
    ) -> None:
        self.samples = samples
        self._layer = layer
        self._null = null
        self._batch = samples.stop - samples.start
        self._num_directions = frame_KS.shape[0]
        size = layer.state_size
        self._jacobian_BSS = frame_KS.new_empty(self._batch, size, size)
        lead = None if self._batch == 1 else self._batch
        # The frame, and the room for the next one.
        self._frame, self._next = (qr.Workspace(lead, self._num_directions, size, frame_KS) for _ in range(2))
        self._frame.frame_KS.copy_(frame_KS)
        self._fast = fast
        # How many of the next factorisations are by Householder at once, and how many it will be after
        # the next failure of Gram-Schmidt: it doubles while failures follow each other.
        self._careful_left = 0
        self._back_off = 1
        self._factors_counted = 0
        self._factors_pushed = 0  # in a warm-up, too
        # Factors of an interval once one had to be cut short; it stays so.
        self._shortened_to: int | None = None
        # Directions that zeros of a Jacobian took so far, in a warm-up too.
        self._was_lost_BK = np.zeros((self._batch, self._num_directions), dtype=bool)
        # The factor that was pushed through last, before those at hand; None at the start.
        self._last_part: _Part | None = None

    @torch.no_grad()
    def push(self, coefficients: Float[Tensor, "T B F *C"], plan: Plan) -> Growth:
        """Push the frames through the factors of T steps, a whole number of slots.

        Raises:
            NumericsError: a Jacobian is not finite; names its step and sample.
        """
        num_steps, _, num_factors = coefficients.shape[:3]
        total, per_slot = num_steps * num_factors, plan.steps_per_slot * num_factors
        longest = 1 if plan.steps_per_slot == 1 else per_slot
        factors = range(num_factors)  # of J = F_d … F_1; its transpose applies F_dᵀ first
        order = reversed(factors) if plan.transposed else factors
        parts = [(factor, step[:, factor]) for step, factor in itertools.product(coefficients, tuple(order))]
        # The first chain of a layer stands for all; it needs a whole frame for a determinant.
        checks_logdet = self.samples.start == 0 and self._num_directions == self._layer.state_size
        diagonals: list[Tensor] = []
        starts: list[int] = []
        residuals: list[float] = []
        shortened: list[tuple[float, float, int, int]] = []
        position = 0
        while position < total:
            slot_end = (position // per_slot + 1) * per_slot
            size = min(self._shortened_to or longest, longest, slot_end - position)
            diagonal_BK = self._factorise(parts[position : position + size], plan.transposed)
            if size > 1:
                ratio, limit = _ratio(diagonal_BK), largest_ratio(diagonal_BK.dtype)
                if not ratio <= limit:
                    self._shortened_to = size // 2
                    shortened.append((ratio, limit, size, size // 2))
                    continue
            if plan.is_counted:
                if checks_logdet and size == 1 and self._factors_counted % _LOGDET_EVERY == 0:
                    residuals += self._logdet_residuals(parts[position], diagonal_BK)
                self._factors_counted += size
            self._frame, self._next = self._next, self._frame
            diagonals.append(diagonal_BK)
            starts.append(position)
            position += size
        absolute_EBK = torch.stack(diagonals).abs().double().cpu().numpy()
        self._require_finite(absolute_EBK, [start // num_factors + plan.first_step for start in starts])
        self._find_singular(absolute_EBK, parts, [*starts, total], plan.transposed)
        self._last_part = (parts[-1][0], parts[-1][1].clone())
        self._factors_pushed += total
        with np.errstate(divide="ignore"):
            logs_EBK = np.log(absolute_EBK)
        first_of_slot_N = np.searchsorted(np.asarray(starts), np.arange(0, total, per_slot))
        return Growth(
            logs=np.add.reduceat(logs_EBK, first_of_slot_N, axis=0),
            logdet_residual=max(residuals, default=None),
            shortened=shortened,
        )

    @property
    def num_null(self) -> int:
        """How many of the directions the weights' zeros have taken so far; 0 while none was found lost."""
        if self._last_part is None or not self._was_lost_BK.any():
            return 0
        return self._num_zero(self._null.count(self._factors_pushed, self._last_part[1]))

    def _num_zero(self, num_lost: int) -> int:
        """How many of the frame's directions are lost, of so many of all."""
        return max(0, self._num_directions - (self._layer.state_size - num_lost))

    @torch.no_grad()
    def remainder(self) -> Float64[np.ndarray, "B K"]:
        """`ln |R_kk|` of the frames themselves: what the growth so far lacks for the frames' being skew."""
        return qr.log_triangle(self._frame.frame_KS).reshape(self._batch, -1).cpu().numpy()

    @torch.no_grad()
    def straighten(self) -> None:
        """Make the frames orthonormal, so that a growth measured from here on is that of orthonormal ones."""
        if self._fast:
            self._frame.orthonormalise(fast=False)

    def _factorise(self, parts: Sequence[_Part], transposed: bool) -> Float[Tensor, "B K"]:
        """Make the next frames, in `_next`; returns the diagonals of R after the given factors."""
        self._fill_next(parts, transposed)
        if self._fast and not self._careful_left:
            diagonal_K = self._next.orthonormalise(fast=True)
            if diagonal_K is not None:
                self._back_off = 1
                return diagonal_K.reshape(self._batch, -1)
            self._fill_next(parts, transposed)
            self._careful_left = self._back_off
            self._back_off = min(2 * self._back_off, _LONGEST_BACK_OFF)
        self._careful_left = max(0, self._careful_left - 1)
        diagonal_K = self._next.orthonormalise(fast=False)
        assert diagonal_K is not None
        return diagonal_K.reshape(self._batch, -1)

    def _fill_next(self, parts: Sequence[_Part], transposed: bool) -> None:
        """Write the frames, pushed through the given factors, into `_next`."""
        frame_KS = self._frame.frame_KS
        for index, part in enumerate(parts):
            if index:
                frame_KS = self._next.frame_KS.clone()
            jacobian_BSS = self._jacobian(part, self._jacobian_BSS)
            jacobian_SS = jacobian_BSS[0] if self._batch == 1 else jacobian_BSS
            self._next.load(frame_KS, jacobian_SS.mT if transposed else jacobian_SS)

    def _jacobian(self, part: _Part, out_BSS: Float[Tensor, "B S S"]) -> Float[Tensor, "B S S"]:
        factor, coefficients = part
        self._layer.build(factor, coefficients, out_BSS)
        return out_BSS

    def _logdet_residuals(self, part: _Part, diagonal_BK: Tensor) -> list[float]:
        """`|Σ ln|r| − ln|det J||` of one factor for every sample; nothing for a singular one."""
        jacobian_BSS = self._jacobian(part, self._jacobian_BSS)
        absolute_BK = diagonal_BK.abs()
        rows_BS, columns_BS = _zero_units(jacobian_BSS)
        is_singular_B = (rows_BS | columns_BS).any(-1) | (
            absolute_BK.amin(-1) <= absolute_BK.amax(-1) * LOST_RATIO[jacobian_BSS.dtype]
        )
        logdet_B = qr.log_triangle(jacobian_BSS.mT).sum(-1)
        before_K, after_K = (qr.log_triangle(space.frame_KS) for space in (self._frame, self._next))
        skew_B = (after_K - before_K).sum(-1).reshape(self._batch)
        residual_B = (absolute_BK.double().log().sum(-1) + skew_B - logdet_B).abs()
        return residual_B[~is_singular_B & torch.isfinite(residual_B)].tolist()

    def _require_finite(self, absolute_EBK: np.ndarray, steps: list[int]) -> None:
        bad_EB = ~np.isfinite(absolute_EBK).all(-1)
        if bad_EB.any():
            index, sample = np.argwhere(bad_EB)[0]
            raise NumericsError(
                f"Jacobians must be finite, the one of step {steps[index]}, sample "
                f"{self.samples.start + sample} is not; look for states or weights that overflow, or compute "
                "in float64"
            )

    def _find_singular(
        self, absolute_EBK: np.ndarray, parts: Sequence[_Part], bounds: list[int], transposed: bool
    ) -> None:
        """Set to zero what zero rows or columns of a Jacobian (a pruned unit, a closed relu) make zero.

        They tell how many directions are lost by then (`_num_lost`). Which ones, the
        size of their round-off tells once; from then on they come first, for in many steps some live
        direction is smaller than the round-off of a lost one, and a lost one may seem to live again for a
        step. Other losses show only over time, see `TimeBlocks.growth`.
        """
        # Round-off has a long tail, but above this a small r is more likely a true one.
        largest_noise = torch.finfo(self._jacobian_BSS.dtype).eps ** 0.5
        largest_EB1 = absolute_EBK.max(-1, keepdims=True)
        is_small_EBK = absolute_EBK <= largest_EB1 * largest_noise
        if not (is_small_EBK.any() or self._was_lost_BK.any()):
            return
        may_be_noise_EBK = absolute_EBK <= largest_EB1 * _ROUND_OFF_OF_LOST
        for index, sample in np.ndindex(absolute_EBK.shape[:2]):
            was_lost_K, r_K = self._was_lost_BK[sample], absolute_EBK[index, sample]
            may_be_zero_K = is_small_EBK[index, sample] | (was_lost_K & may_be_noise_EBK[index, sample])
            if bounds[index + 1] - bounds[index] > 1 or not may_be_zero_K.any():
                continue
            position = bounds[index]
            before = parts[position - 1] if position else self._last_part
            num_lost = max(
                self._num_lost(before, parts[position], sample, transposed),
                self._null.count(self._factors_pushed + position + 1, parts[position][1]),
            )
            order_K = np.lexsort((r_K, ~was_lost_K))[: self._num_zero(num_lost)]
            zero_K = order_K[may_be_zero_K[order_K]]
            r_K[zero_K] = 0.0
            was_lost_K[zero_K] = True

    def _num_lost(self, before: _Part | None, part: _Part, sample: int, transposed: bool) -> int:
        """How many directions zero rows and columns make a factor lose, or it and the one before it together.

        What comes out of the factor before has nothing in its zero rows, and of the rest a factor loses its
        zero columns: a unit that is deaf there or unheard here is lost.
        """
        deaf_BS, lost_BS = self._deaf_and_unheard(part, sample, transposed)
        if before is not None:
            lost_BS = lost_BS | self._deaf_and_unheard(before, sample, transposed)[0]
        return int(torch.maximum(deaf_BS.sum(), lost_BS.sum()))

    def _deaf_and_unheard(
        self, part: _Part, sample: int, transposed: bool
    ) -> tuple[Bool[Tensor, "1 S"], Bool[Tensor, "1 S"]]:
        """A sample's zero rows and zero columns of what a factor pushes through."""
        factor, coefficients = part
        jacobian_BSS = self._jacobian((factor, coefficients[sample : sample + 1]), self._jacobian_BSS[:1])
        return _zero_units(jacobian_BSS.mT if transposed else jacobian_BSS)

    def copy(self) -> "Chain":
        """An independent chain in the same place."""
        twin = copy.copy(self)
        twin._jacobian_BSS = torch.empty_like(self._jacobian_BSS)
        twin._frame, twin._next = copy.deepcopy((self._frame, self._next))
        twin._was_lost_BK = self._was_lost_BK.copy()
        return twin

    def state_dict(self) -> dict[str, Any]:
        return {
            "frame": self._frame.frame_KS.clone(),
            "back_off": (self._careful_left, self._back_off),
            "factors_counted": self._factors_counted,
            "factors_pushed": self._factors_pushed,
            "shortened_to": self._shortened_to,
            "was_lost": torch.tensor(self._was_lost_BK),
            "last_part": self._last_part,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._frame.frame_KS.copy_(state["frame"])
        self._careful_left, self._back_off = state["back_off"]
        self._factors_counted = state["factors_counted"]
        self._factors_pushed = state["factors_pushed"]
        self._shortened_to = state["shortened_to"]
        self._was_lost_BK = state["was_lost"].numpy().copy()
        self._last_part = state["last_part"]


def _zero_units(jacobian_BSS: Float[Tensor, "B S S"]) -> tuple[Bool[Tensor, "B S"], Bool[Tensor, "B S"]]:
    """Which rows of a Jacobian are zero (units that are deaf), and which columns (that are unheard)."""
    is_zero_BSS = jacobian_BSS == 0
    return is_zero_BSS.all(-1), is_zero_BSS.all(-2)


def _ratio(diagonal_BK: Tensor) -> float:
    absolute_BK = diagonal_BK.abs()
    return float((absolute_BK.amax(-1) / absolute_BK.amin(-1)).max())
