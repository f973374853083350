"""The front door: the Lyapunov spectrum of a recurrent network driven by a batch of sequences.

Axes: T steps, B batch, F features, S exponents of the network.
"""

from typing import Any

import torch
from torch import Tensor

from hyperprune.errors import InputError
from hyperprune.lyapunov.iteration import LyapunovIteration
from hyperprune.lyapunov.settings import check_whole
from hyperprune.lyapunov.trajectory import require_axes
from hyperprune.spectra import LyapunovSpectrum


def lyapunov_spectrum(
    module: Any,
    inputs: Tensor,
    state: Any = None,
    *,
    jacobian: str | None = None,
    num_exponents: int | None = None,
    warmup: int = 0,
    qr_interval: int = 1,
    convention: str = "forward",
    dtype: torch.dtype | None = None,
    generator: torch.Generator | None = None,
) -> LyapunovSpectrum:
    """Lyapunov exponents of every layer and of the whole network, with their errors.

    The network runs as in evaluation (no dropout). A stacked network's Jacobian is block lower triangular,
    so its exponents are those of the layers' own blocks, each driven by the layer below; one chain is run
    for each layer and sample.

    Args:
        module: `nn.RNN`, `nn.LSTM`, `nn.GRU`, a recurrent module of `hyperprune.models`, or any callable
            `(x_t, state) -> new state` on batches, x_t (B, F); the module is not changed.
        inputs: (T, B, F), time first whatever the module's `batch_first`; the first `warmup` steps are
            the warm-up.
        state: initial state in the module's own form; None for zeros. A callable needs one: a tensor or a
            tuple of tensors, samples first.
        jacobian: "full" (default): of the whole state, for an LSTM (h, c); "hidden": of h alone with the
            cell held fixed (of a tuple state's first part), as the LSH paper does.
        num_exponents: only the k largest of the network; None for all, as it must be for "lsh".
        warmup: steps on which states and directions settle, orthonormalised at each, not counted.
        qr_interval: steps between factorisations. Above 1 it is faster and less exact; an interval over
            which the directions would spread too far for the precision is shortened, with a warning.
        convention: "forward", or "lsh" for what the published LSH code computes: Jᵀ in forward time,
            hidden state, from the identity, bits per step, unsorted, and the warm-up tokens replayed as
            the beginning of the measured window (the state goes on from the warm-up's end). That code
            factorises once, at the warm-up's end, and loses accuracy there; here every step is factorised,
            so with a warm-up the two agree only as far as that loss allows (about 0.1 nats).
        dtype: `torch.float32` or `torch.float64`; None for the module's (float32 for half precision).
        generator: source of the random initial frame; None for a fixed one.

    Returns:
        The spectrum, in nats per step (bits for "lsh"); `-inf` for directions that are mapped to zero.

    Raises:
        InputError: a setting, module, inputs or state break a rule; the message names rule and remedy.
        NumericsError: an input, state or Jacobian is not finite; the message names step and sample.

    Reference:
        LSH paper, eq. (1); Engelken, Wolf, Abbott 2020 and Vogt et al. 2022 for driven networks.
        Deviations: full state by default, a random frame, factorisation at every warm-up step.
    """
    require_axes(inputs)
    if inputs.shape[0] == 0 or inputs.shape[1] == 0:
        raise InputError(
            f"inputs must hold at least 1 step and 1 sample, got shape {tuple(inputs.shape)}; the axes are "
            "(time, batch, features)"
        )
    check_whole("warmup", warmup)
    if not 0 <= warmup < inputs.shape[0]:
        raise InputError(
            f"warmup must be at least 0 and shorter than the sequence, {inputs.shape[0]} steps, got "
            f"{warmup}; pass more steps"
        )
    iteration = LyapunovIteration(
        module,
        state,
        batch_size=inputs.shape[1],
        jacobian=jacobian,
        num_exponents=num_exponents,
        qr_interval=qr_interval,
        convention=convention,
        dtype=dtype,
        generator=generator,
    )
    if warmup:
        iteration.warm_up(inputs[:warmup])
    iteration.advance(inputs if convention == "lsh" else inputs[warmup:])
    return iteration.spectrum()
