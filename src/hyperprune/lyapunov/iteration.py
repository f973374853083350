"""The spectrum's iteration, piece by piece: for users who drive the loop themselves, and for long runs.

Axes: T steps, B batch, F features, S state, K directions.
"""

import math
import warnings
from concurrent.futures import Future
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hyperprune import rng
from hyperprune.errors import InputError
from hyperprune.lyapunov import qr
from hyperprune.lyapunov.blocks import TimeBlocks
from hyperprune.lyapunov.crew import Crew
from hyperprune.lyapunov.frames import LOST_RATIO, Chain, Growth, Plan
from hyperprune.lyapunov.jacobians import Carry, Layer, stack_of
from hyperprune.lyapunov.null_directions import NullDirections
from hyperprune.lyapunov.settings import Settings, as_tensors_name_it, device_of, working_dtype
from hyperprune.lyapunov.trajectory import Trajectory
from hyperprune.spectra import LyapunovSpectrum

_SMALL_STATE = 24
"""States up to this size go through one batch: the loop over samples would cost more than the work."""
_SMALLEST_SHARED = 150
"""States from this size on are worth a thread per chain: two threads gave 0.77× at 100 and 1.26× at 200."""


class LyapunovIteration:
    """Lyapunov exponents of a driven network, advanced by as many steps at a time as one likes.

    Any division of a sequence into pieces gives the same bits as the whole. `state_dict` holds everything
    that a run needs to go on elsewhere, the module apart. Inside, `torch.set_num_threads` is set to one
    and restored; as many chains run side by side as torch had threads.

    Args:
        module, state, jacobian, num_exponents, qr_interval, convention, dtype, generator: as in
            `lyapunov_spectrum`.
        batch_size: samples B.
        device: what the module and the inputs live on; None for the module's.
        batched: whether one chain holds all samples; None for what suits the device and the state's size.
        fast: whether to try Gram-Schmidt before Householder reflections; None for what suits likewise.

    Raises:
        InputError: a setting, module or state that breaks a rule; the message says which.
        NumericsError: a weight is not finite.
    """

    def __init__(
        self,
        module: Any,
        state: Any = None,
        *,
        batch_size: int,
        jacobian: str | None = None,
        num_exponents: int | None = None,
        qr_interval: int = 1,
        convention: str = "forward",
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        generator: torch.Generator | None = None,
        batched: bool | None = None,
        fast: bool | None = None,
    ) -> None:
        own_dtype, notes = working_dtype(module, state)
        self._settings = settings = Settings(
            batch_size=batch_size,
            jacobian=jacobian or ("hidden" if convention == "lsh" else "full"),
            num_exponents=num_exponents,
            qr_interval=qr_interval,
            convention=convention,
            dtype=dtype or own_dtype,
            device=as_tensors_name_it(device) if device is not None else device_of(module, state),
            notes=notes if dtype is None else (),
        )
        with Crew(settings.device):
            stack = stack_of(
                module,
                state,
                batch=batch_size,
                hidden_only=settings.hidden_only,
                dtype=settings.dtype,
                device=settings.device,
            )
        self._state_sizes = tuple(layer.state_size for layer in stack.layers)
        total = sum(self._state_sizes)
        self._num_exponents = total if settings.num_exponents is None else settings.num_exponents
        if not 1 <= self._num_exponents <= total:
            raise InputError(
                f"num_exponents must lie between 1 and the state's size, {total}, got {num_exponents}; None "
                "computes all"
            )
        self._trajectory = Trajectory(stack, batch_size, settings.dtype, settings.device)
        generator = generator if generator is not None else rng.generator(0, "lyapunov", "frame")
        draws = [self._draws(layer, generator) for layer in stack.layers]
        self._shares_cores = max(layer.state_size for layer in stack.layers) >= _SMALLEST_SHARED
        with Crew(settings.device) as crew:
            self._chains = crew.run(
                partial(self._chains_of, layer, draws_KS, batched, fast)
                for layer, draws_KS in zip(stack.layers, draws, strict=True)
            )
        self._blocks = [
            TimeBlocks(settings.qr_interval, layer.num_factors * math.log(LOST_RATIO[settings.dtype]))
            for layer in stack.layers
        ]
        # Steps of an unfinished interval wait as coefficients: frames advance by whole intervals only.
        self._waiting: list[Tensor] | None = None
        self._warmup_steps = 0
        self._measured_steps = 0
        self._logdet_residual: float | None = None
        self._notes = list(settings.notes)

    def _draws(self, layer: Layer, generator: torch.Generator) -> Tensor:
        """What spans a layer's first frames, (K, S): random, or the identity in the published convention.

        Random, because an axis-aligned frame never leaves an invariant subspace; the same for all samples,
        so that a sample's exponents do not depend on the others in its batch.
        """
        num_directions, size = min(self._num_exponents, layer.state_size), layer.state_size
        if self._settings.transposed:
            return torch.eye(num_directions, size, dtype=torch.float64)
        return torch.randn(
            num_directions, size, dtype=torch.float64, generator=generator, device=generator.device
        )

    @torch.no_grad()
    def _chains_of(
        self, layer: Layer, draws_KS: Tensor, batched: bool | None, fast: bool | None
    ) -> list[Chain]:
        settings, size = self._settings, layer.state_size
        frame_KS = draws_KS.to(settings.device, settings.dtype)
        if not settings.transposed:
            frame_KS, _ = qr.householder(frame_KS)
        is_small = size <= _SMALL_STATE
        if batched is None:
            batched = is_small or settings.device.type != "cpu"
        if fast is None:
            fast = not is_small
        groups = [slice(0, settings.batch_size)]
        if not batched:
            groups = [slice(sample, sample + 1) for sample in range(settings.batch_size)]
        null = NullDirections(layer, transposed=settings.transposed)
        return [Chain(layer, samples, frame_KS, null, fast=fast) for samples in groups]

    @property
    def state(self) -> list[Carry]:
        """The state of each layer after the steps so far: tensors (B, ·), h first."""
        return self._trajectory.state()

    @torch.no_grad()
    def warm_up(self, inputs: Tensor) -> "LyapunovIteration":
        """Advance states and frames by T steps, orthonormalising at each, without counting them.

        Raises:
            InputError: as `advance`; or measured steps precede.
            NumericsError: as `advance`.
        """
        if self._measured_steps:
            raise InputError(
                f"a warm-up must precede the measured steps, {self._measured_steps} are measured already; "
                "start a new iteration"
            )
        self._trajectory.check(inputs)
        with Crew(self._settings.device, shares=self._shares_cores) as crew:
            growths: list[Future[Growth]] = []
            for coefficients in self._trajectory.run(inputs, self._warmup_steps):
                _wait(growths)
                plan = Plan(
                    transposed=self._settings.transposed, is_counted=False, first_step=self._warmup_steps
                )
                growths = self._push(self._chains, coefficients, plan, crew)
                self._warmup_steps += coefficients[0].shape[0]
            _wait(growths)
        return self

    @torch.no_grad()
    def advance(self, inputs: Tensor) -> "LyapunovIteration":
        """Advance by T measured steps.

        Args:
            inputs: (T, B, F), on the module's device, any floating-point type.

        Raises:
            InputError: wrong shape, type or device.
            NumericsError: an input, state or Jacobian is not finite; names step and sample.
        """
        self._trajectory.check(inputs)
        with Crew(self._settings.device, shares=self._shares_cores) as crew:
            growths: list[Future[Growth]] = []
            # The network runs ahead while the chains follow through the steps before.
            for new in self._trajectory.run(inputs, self._warmup_steps + self._measured_steps):
                self._absorb(growths)
                growths = self._follow(new, crew)
            self._absorb(growths)
        return self

    @torch.no_grad()
    def spectrum(self) -> LyapunovSpectrum:
        """What has been measured so far; asking changes nothing, and warns where the last steps need it.

        Raises:
            InputError: no step has been measured.
        """
        if self._measured_steps == 0:
            raise InputError("a spectrum needs at least one measured step, got 0; call advance(inputs) first")
        chains, blocks, notes = self._chains, self._blocks, list(self._notes)
        with Crew(self._settings.device, shares=self._shares_cores) as crew:
            if self._waiting is not None:
                num_steps = self._waiting[0].shape[0]
                plan = Plan(
                    steps_per_slot=num_steps,
                    transposed=self._settings.transposed,
                    is_counted=False,
                    first_step=self._warmup_steps + self._measured_steps - num_steps,
                )
                chains = [[chain.copy() for chain in layer] for layer in chains]
                layers = self._by_layer(self._push(chains, self._waiting, plan, crew))
                blocks = [
                    old.with_tail(growth.logs[0], num_steps)
                    for old, growth in zip(blocks, layers, strict=True)
                ]
                if message := _shortening(layers):
                    notes.append(message)
                    warnings.warn(message, stacklevel=3)
            remainders = iter(crew.run(chain.remainder for layer in chains for chain in layer))
        return LyapunovSpectrum(
            log_growth=tuple(
                layer_blocks.growth(
                    np.concatenate([next(remainders) for _ in layer]), max(chain.num_null for chain in layer)
                )
                for layer_blocks, layer in zip(blocks, chains, strict=True)
            ),
            block_steps=blocks[0].steps(),
            state_sizes=self._state_sizes,
            num_exponents=self._num_exponents,
            jacobian=self._settings.jacobian,
            convention=self._settings.convention,
            warmup=self._warmup_steps,
            qr_interval=self._settings.qr_interval,
            dtype=str(self._settings.dtype).removeprefix("torch."),
            logdet_residual=self._logdet_residual,
            notes=tuple(notes),
        )

    def state_dict(self) -> dict[str, Any]:
        """Everything a new iteration with the same settings needs to go on; tensors and plain values."""
        return {
            "identity": self._identity(),
            "carries": [list(carry) for carry in self._trajectory.state()],
            "chains": [[chain.state_dict() for chain in layer] for layer in self._chains],
            "blocks": [blocks.state_dict() for blocks in self._blocks],
            "waiting": self._waiting,
            "warmup_steps": self._warmup_steps,
            "measured_steps": self._measured_steps,
            "logdet_residual": self._logdet_residual,
            "notes": list(self._notes),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken.

        Raises:
            InputError: the saved settings differ; the message names them.
        """
        own, saved = self._identity(), state["identity"]
        different = sorted(name for name in own if own[name] != saved.get(name))
        if different:
            raise InputError(
                f"a saved iteration must have this one's settings, {', '.join(different)} differ; make the "
                "iteration with the saved settings"
            )
        self._trajectory.carries = [tuple(part.clone() for part in carry) for carry in state["carries"]]
        for chains, entries in zip(self._chains, state["chains"], strict=True):
            for chain, entry in zip(chains, entries, strict=True):
                chain.load_state_dict(entry)
        for blocks, entry in zip(self._blocks, state["blocks"], strict=True):
            blocks.load_state_dict(entry)
        self._waiting = state["waiting"]
        self._warmup_steps, self._measured_steps = state["warmup_steps"], state["measured_steps"]
        self._logdet_residual, self._notes = state["logdet_residual"], list(state["notes"])

    def _identity(self) -> dict[str, Any]:
        """What a checkpoint must share with the iteration that it is loaded into."""
        settings = self._settings
        return {
            "batch_size": settings.batch_size,
            "state_sizes": self._state_sizes,
            "num_exponents": self._num_exponents,
            "jacobian": settings.jacobian,
            "convention": settings.convention,
            "qr_interval": settings.qr_interval,
            "dtype": str(settings.dtype),
            "batched": tuple(len(layer) == 1 for layer in self._chains),
        }

    def _follow(self, new: list[Tensor], crew: Crew) -> list[Future[Growth]]:
        """Begin to push all chains through the whole intervals that are there; the rest waits."""
        if self._warmup_steps and not self._measured_steps:
            crew.run(chain.straighten for layer in self._chains for chain in layer)
        first_step = self._warmup_steps + self._measured_steps
        steps = new
        if self._waiting is not None:
            first_step -= self._waiting[0].shape[0]
            steps = [torch.cat(pair) for pair in zip(self._waiting, new, strict=True)]
        self._measured_steps += new[0].shape[0]
        num_steps, interval = steps[0].shape[0], self._settings.qr_interval
        whole = num_steps - num_steps % interval
        self._waiting = [layer[whole:].clone() for layer in steps] if whole < num_steps else None
        if not whole:
            return []
        plan = Plan(steps_per_slot=interval, transposed=self._settings.transposed, first_step=first_step)
        return self._push(self._chains, [layer[:whole] for layer in steps], plan, crew)

    def _push(
        self, chains: list[list[Chain]], coefficients: list[Tensor], plan: Plan, crew: Crew
    ) -> list[Future[Growth]]:
        """Begin to push all chains, in the order of layers and samples."""
        return crew.start(
            partial(chain.push, layer_coefficients[:, chain.samples], plan)
            for layer, layer_coefficients in zip(chains, coefficients, strict=True)
            for chain in layer
        )

    def _by_layer(self, growths: list[Future[Growth]]) -> list[Growth]:
        """Wait for a push; one result for each layer, with all samples."""
        results = iter(_wait(growths))
        return [Growth.joined([next(results) for _ in layer]) for layer in self._chains]

    def _absorb(self, growths: list[Future[Growth]]) -> None:
        """Wait for a push, if there is one, and add what it measured."""
        if not growths:
            return
        layers = self._by_layer(growths)
        for blocks, growth in zip(self._blocks, layers, strict=True):
            blocks.add(growth.logs)
        self._remember(layers)

    def _remember(self, growths: list[Growth]) -> None:
        """Keep the largest log-determinant residual, and say so where intervals had to be shortened."""
        residuals = [growth.logdet_residual for growth in growths if growth.logdet_residual is not None]
        if residuals:
            self._logdet_residual = max(*residuals, self._logdet_residual or 0.0)
        if message := _shortening(growths):
            self._notes.append(message)
            warnings.warn(message, stacklevel=5)  # at who called `advance`


def _shortening(growths: list[Growth]) -> str | None:
    """What to say where intervals had to be shortened."""
    shortened = [entry for growth in growths for entry in growth.shortened]
    if not shortened:
        return None
    ratio, limit, before, _ = max(shortened, key=lambda entry: entry[2])
    after = min(entry[3] for entry in shortened)
    return (
        f"the |r| of one factorisation must lie within a factor of {limit:.3g}, {before} Jacobians spread "
        f"them by {ratio:.3g}; went on with as few as {after} where needed (qr_interval=1, fewer exponents "
        "or float64 avoid this)"
    )


def _wait(growths: list[Future[Growth]]) -> list[Growth]:
    return [growth.result() for growth in growths]
