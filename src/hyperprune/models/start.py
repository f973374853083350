"""Where the weights of a recurrent module begin.

A stacked matrix holds one matrix for each gate; schemes that look at fans look at one gate's, so that a
gate starts as if it were a layer of its own.

References:
    Glorot, Bengio (2010), Understanding the difficulty of training deep feedforward neural networks, eq. 16.
    He, Zhang, Ren, Sun (2015), Delving deep into rectifiers, eq. 10.
    JSE, section 6.1 and table 5 (normal, Glorot, uniform), section 6.2 (He).

Axes: G gates, H hidden.
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from hyperprune.errors import InputError, unknown_name
from hyperprune.models.cells import RHN

Scheme = Literal["torch", "normal", "uniform", "glorot", "he"]
SCHEMES = ("torch", "normal", "uniform", "glorot", "he")


def check_start(scheme: str, scale: float | None, *, name: str) -> None:
    """Raise InputError unless `draw_weights` takes scheme and scale; `name` is what the user calls that."""
    if scheme not in SCHEMES:
        raise unknown_name("initialisation", scheme, SCHEMES)
    if scale is None:
        return
    if scheme in ("glorot", "he"):
        raise InputError(f"{name} means nothing to the initialisation {scheme!r}, got {scale}; leave it out")
    if not (scale > 0 and math.isfinite(scale)):
        raise InputError(f"{name} must be positive, got {scale}; 0.1 is a usual choice")


@torch.no_grad()
def draw_weights(rnn: nn.Module, scheme: Scheme, scale: float | None, generator: torch.Generator) -> None:
    """Draw the parameters of a recurrent module anew.

    Args:
        rnn: `nn.RNN`, `nn.LSTM`, `nn.GRU` or a module of `hyperprune.models.cells`, with `hidden_size` H.
        scheme: for the matrices,
            "torch": uniform on ±scale (None: 1/√H), biases alike, as `torch.nn` does;
            "normal": N(0, scale²) (None: 0.1);
            "uniform": uniform on [0, scale] (None: 0.1), all positive, as JSE's table 5 has it;
            "glorot": uniform on ±√(6 / (columns + H));
            "he": N(0, 2 / columns).
        scale: see there; not for "glorot" and "he".
        generator: source of the draws.

    Biases are 0 but with "torch". A diagonal peephole is a vector with no fans: "glorot" and "he" leave it
    uniform on ±1/√H. An RHN keeps the start of its gates' biases (`reset_parameters`) under every scheme.
    """
    hidden_size = rnn.hidden_size
    assert isinstance(hidden_size, int)
    default = 1 / math.sqrt(hidden_size)
    limit = default if scale is None or scheme != "torch" else scale
    if isinstance(rnn, RHN):
        rnn.reset_parameters(generator, limit)
        if scheme == "torch":
            return
    for name, parameter in rnn.named_parameters():
        is_bias = "bias" in name
        if is_bias and isinstance(rnn, RHN):
            continue
        if is_bias and scheme != "torch":
            parameter.zero_()
        elif scheme == "torch" or (parameter.ndim == 1 and scheme in ("glorot", "he")):
            parameter.uniform_(-limit, limit, generator=generator)
        else:
            _draw_matrix(parameter, scheme, 0.1 if scale is None else scale, hidden_size, generator)


def _draw_matrix(
    weight: Tensor, scheme: Scheme, scale: float, hidden_size: int, generator: torch.Generator
) -> None:
    columns = weight.shape[-1]
    match scheme:
        case "normal":
            weight.normal_(0, scale, generator=generator)
        case "uniform":
            weight.uniform_(0, scale, generator=generator)
        case "glorot":
            limit = math.sqrt(6 / (columns + hidden_size))
            weight.uniform_(-limit, limit, generator=generator)
        case "he":
            weight.normal_(0, math.sqrt(2 / columns), generator=generator)
