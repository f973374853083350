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

Scheme = Literal["torch", "normal", "uniform", "glorot", "he"]
SCHEMES = ("torch", "normal", "uniform", "glorot", "he")


def check_start(scheme: str, scale: float) -> None:
    """Raise InputError unless `draw_weights` knows the scheme and `scale` is above 0."""
    if scheme not in SCHEMES:
        raise unknown_name("initialisation", scheme, SCHEMES)
    if not (scale > 0 and math.isfinite(scale)):
        raise InputError(f"init_scale must be above 0, got {scale}; 0.1 is the JSE paper's")


@torch.no_grad()
def draw_weights(rnn: nn.Module, scheme: Scheme, scale: float, generator: torch.Generator) -> None:
    """Draw the parameters of a recurrent module anew.

    Args:
        rnn: `nn.RNN`, `nn.LSTM`, `nn.GRU` or a module of `hyperprune.models.cells`, with `hidden_size` H.
        scheme: for the matrices,
            "torch": uniform on ±1/√H, biases alike (what `torch.nn` does);
            "normal": N(0, scale²);
            "uniform": uniform on [0, scale], all positive, as JSE's table 5 has it;
            "glorot": uniform on ±√(6 / (columns + H));
            "he": N(0, 2 / columns).
        scale: of "normal" and "uniform".
        generator: source of the draws.

    Biases are 0 but with "torch". A diagonal peephole is a vector with no fans: "glorot" and "he" leave it
    uniform on ±1/√H. An RHN keeps the start of its gates' biases (`reset_parameters`) under every scheme.
    """
    hidden_size = rnn.hidden_size
    assert isinstance(hidden_size, int)
    default = 1 / math.sqrt(hidden_size)
    keeps_biases = hasattr(rnn, "transform_bias")
    if keeps_biases:
        rnn.reset_parameters(generator)  # pyright: ignore[reportCallIssue]
    for name, parameter in rnn.named_parameters():
        if "bias" in name:
            if scheme == "torch" and not keeps_biases:
                parameter.uniform_(-default, default, generator=generator)
            elif not keeps_biases:
                parameter.zero_()
        elif scheme == "torch" or (parameter.ndim == 1 and scheme in ("glorot", "he")):
            parameter.uniform_(-default, default, generator=generator)
        else:
            _draw_matrix(parameter, scheme, scale, hidden_size, generator)


def _draw_matrix(
    parameter: Tensor, scheme: Scheme, scale: float, hidden_size: int, generator: torch.Generator
) -> None:
    columns = parameter.shape[-1]
    match scheme:
        case "normal":
            parameter.normal_(0, scale, generator=generator)
        case "uniform":
            parameter.uniform_(0, scale, generator=generator)
        case "glorot":
            limit = math.sqrt(6 / (columns + hidden_size))
            parameter.uniform_(-limit, limit, generator=generator)
        case "he":
            parameter.normal_(0, math.sqrt(2 / columns), generator=generator)
