"""The picture of one spectrum. matplotlib is an optional dependency and is imported only here."""

from typing import TYPE_CHECKING

import numpy as np

from hyperprune.errors import InputError, install
from hyperprune.spectra.record import LyapunovSpectrum

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def figure_of(spectrum: LyapunovSpectrum) -> "Figure":
    """Left: exponents of each layer and of the network, with error bars. Right: the running estimate."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError(f"plot() needs matplotlib; {install('report')}") from error
    figure = Figure(figsize=(10, 4), layout="constrained")
    curve, running = figure.subplots(1, 2)
    index_S = np.arange(1, len(spectrum.exponents) + 1)
    band_S = np.nan_to_num(2 * spectrum.standard_error)
    curve.plot(index_S, spectrum.exponents, color="black", label="network")
    curve.fill_between(
        index_S,
        spectrum.exponents - band_S,
        spectrum.exponents + band_S,
        color="black",
        alpha=0.2,
        label="± 2 standard errors",
    )
    if len(spectrum.by_layer) > 1:
        for layer, exponents_K in enumerate(spectrum.by_layer):
            curve.plot(np.arange(1, len(exponents_K) + 1), exponents_K, label=f"layer {layer}")
    curve.axhline(0.0, color="grey", linewidth=0.8)
    title = f"{spectrum.jacobian} state, {spectrum.num_samples} samples × {spectrum.num_steps} steps"
    if spectrum.num_negative_infinite:
        title += f"; {spectrum.num_negative_infinite} exponents are −∞"
    curve.set(xlabel="index", ylabel=f"exponent [{spectrum.unit}]", title=title)
    curve.legend()
    shown = np.unique(np.linspace(0, len(index_S) - 1, min(8, len(index_S))).astype(int))
    for column in shown:
        running.plot(spectrum.running_steps, spectrum.running[:, column], label=f"λ{column + 1}")
    running.set(xlabel="steps", ylabel=f"running estimate [{spectrum.unit}]", title="convergence")
    running.legend(ncols=2)
    return figure
