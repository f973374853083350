"""The Lyapunov spectrum of a driven recurrent network, as measured: a frozen record of numbers.

What is stored is the growth of every tangent direction in blocks of time, per layer and sample; every
figure (exponents, error bars, running estimate, dimension) is derived from it on demand.

Axes: N time blocks, B samples, K exponents of one layer, S exponents of the network.
"""

import dataclasses
import io
import json
import math
import zipfile
import zlib
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float64, Int64

from hyperprune.errors import InputError
from hyperprune.files import write_atomically
from hyperprune.spectra import figures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FORMAT = 1


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class LyapunovSpectrum:
    """Exponents of a network driven by a batch of sequences, with their errors and derived figures.

    Exponents are in nats per step (bits per step for the convention "lsh": see `unit`), the mean of
    `ln |R_kk|` over steps and samples. `-inf` stands for a direction that the network maps to zero.

    Args:
        log_growth: per layer, `ln |R_kk|` summed over each block of steps, in nats.
        block_steps: number of steps in each block.
        state_sizes: size of each layer's state; `log_growth` holds fewer directions if only the leading
            ones were asked for.
        num_exponents: how many exponents of the whole network were asked for; all of them for "lsh".
        jacobian: "hidden" or "full".
        convention: "forward" or "lsh".
        warmup: steps before the measured window.
        qr_interval: steps between two orthonormalisations.
        dtype: the floating-point type the Jacobians and factors were computed in.
        logdet_residual: largest `|Σ_k ln|R_kk| − ln|det J||` over the steps that were checked, in nats; None
            when it does not exist (leading exponents only, or every checked Jacobian singular).
        notes: what the reader of the numbers should know.
    """

    log_growth: tuple[Float64[np.ndarray, "N B _"], ...]
    block_steps: Int64[np.ndarray, " N"]
    state_sizes: tuple[int, ...]
    num_exponents: int
    jacobian: str = "full"
    convention: str = "forward"
    warmup: int = 0
    qr_interval: int = 1
    dtype: str = "float64"
    logdet_residual: float | None = None
    notes: tuple[str, ...] = ()

    @property
    def unit(self) -> str:
        """Unit of every exponent here."""
        return "bits per step" if self.convention == "lsh" else "nats per step"

    @property
    def scale(self) -> float:
        """From nats, in which growth is stored, to `unit`."""
        return 1 / math.log(2) if self.convention == "lsh" else 1.0

    @property
    def num_steps(self) -> int:
        """Measured steps per sample."""
        return int(self.block_steps.sum())

    @property
    def num_samples(self) -> int:
        return self.log_growth[0].shape[1]

    @cached_property
    def by_layer(self) -> list[Float64[np.ndarray, " _"]]:
        """Exponents of each layer, largest first (in the order of the factorisation for "lsh").

        With `num_exponents` these are the leading exponents of every layer, so that together they may be
        more than `exponents`, which holds the leading ones of the network.
        """
        return [rates_BK.mean(axis=0)[order_K] for rates_BK, order_K in self._layers]

    @cached_property
    def concatenated(self) -> Float64[np.ndarray, " C"]:
        """The vector that spectra are compared by: `by_layer`, first layer first, in one array."""
        return np.concatenate(self.by_layer)

    @cached_property
    def exponents(self) -> Float64[np.ndarray, " S"]:
        """Exponents of the whole network, largest first (in the order of the layers for "lsh")."""
        return self.concatenated[self._chosen]

    @cached_property
    def per_sample(self) -> Float64[np.ndarray, "B S"]:
        """Each sample's own exponents; the columns follow `exponents`, which is their mean."""
        return self._columns([rates_BK for rates_BK, _ in self._layers])

    @cached_property
    def standard_error(self) -> Float64[np.ndarray, " S"]:
        """Standard error of `exponents` by batch means over time and samples; NaN where unknown."""
        return self._columns(
            [
                self.scale * figures.standard_error(growth_NBK, self.block_steps)
                for growth_NBK in self.log_growth
            ]
        )

    @cached_property
    def running_steps(self) -> Int64[np.ndarray, " N"]:
        """Measured steps behind each row of `running`."""
        return np.cumsum(self.block_steps)

    @cached_property
    def running(self) -> Float64[np.ndarray, "N S"]:
        """The estimate of `exponents` after each block of time, for convergence plots."""
        return self._columns(
            [
                self.scale * np.cumsum(growth_NBK.mean(axis=1), axis=0) / self.running_steps[:, None]
                for growth_NBK in self.log_growth
            ]
        )

    @property
    def num_negative_infinite(self) -> int:
        """How many of `exponents` are `-inf`."""
        return int(np.isneginf(self.exponents).sum())

    @property
    def largest(self) -> float:
        return float(self.exponents.max())

    @property
    def mean(self) -> float:
        """Mean of the finite exponents (`-inf` if there is none)."""
        finite_S = self.exponents[np.isfinite(self.exponents)]
        return float(finite_S.mean()) if finite_S.size else -np.inf

    @property
    def variance(self) -> float:
        """Population variance of the finite exponents (0 if there is none)."""
        finite_S = self.exponents[np.isfinite(self.exponents)]
        return float(finite_S.var()) if finite_S.size else 0.0

    @property
    def kaplan_yorke_dimension(self) -> float:
        """Dimension of the attractor by Kaplan & Yorke; see `spectra.figures.kaplan_yorke_dimension`."""
        return figures.kaplan_yorke_dimension(self.exponents)

    @property
    def entropy_rate(self) -> float:
        """Sum of the positive exponents, in `unit`."""
        return figures.entropy_rate(self.exponents)

    def summary(self) -> dict[str, float | int | str | None]:
        """The derived figures by name, for tables and JSON."""
        return {
            "largest": self.largest,
            "mean": self.mean,
            "variance": self.variance,
            "kaplan_yorke_dimension": self.kaplan_yorke_dimension,
            "entropy_rate": self.entropy_rate,
            "num_exponents": len(self.exponents),
            "num_negative_infinite": self.num_negative_infinite,
            "logdet_residual": self.logdet_residual,
            "num_steps": self.num_steps,
            "num_samples": self.num_samples,
            "unit": self.unit,
        }

    def save(self, path: str | PathLike[str]) -> Path:
        """Write the record to a compressed `.npz` file under exactly this name, whole or not at all."""
        path = Path(path)
        settings: dict[str, Any] = {"format": _FORMAT, "num_layers": len(self.log_growth)}
        settings |= {name: getattr(self, name) for name in _SETTINGS}
        layers = {f"log_growth_{layer}": growth_NBK for layer, growth_NBK in enumerate(self.log_growth)}
        arrays = {"settings": np.array(json.dumps(settings)), "block_steps": self.block_steps} | layers
        content = io.BytesIO()
        np.savez_compressed(content, **arrays)  # pyright: ignore[reportArgumentType]
        write_atomically(path, content.getvalue())
        return path

    @classmethod
    def load(cls, path: str | PathLike[str]) -> "LyapunovSpectrum":
        """Read what `save` wrote.

        Raises:
            InputError: the file is missing or is not a saved spectrum.
        """
        try:
            # Opened here, because numpy leaves a file open that it cannot read.
            with Path(path).open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                settings = json.loads(str(arrays["settings"]))
                if settings["format"] != _FORMAT:
                    raise InputError(
                        f"a saved spectrum must have format {_FORMAT}, {path} has {settings['format']}; "
                        "measure it again with this version"
                    )
                layers = tuple(arrays[f"log_growth_{layer}"] for layer in range(settings["num_layers"]))
                block_steps = arrays["block_steps"]
            chosen = {name: settings[name] for name in _SETTINGS}
            chosen["state_sizes"] = tuple(chosen["state_sizes"])
            chosen["notes"] = tuple(chosen["notes"])
        except (OSError, KeyError, TypeError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"a saved spectrum must be a file that LyapunovSpectrum.save wrote, {path} is not "
                f"({error}); measure the spectrum again"
            ) from error
        return cls(log_growth=layers, block_steps=block_steps, **chosen)

    def plot(self) -> "Figure":
        """The spectrum with error bars per layer, and the running estimate (needs matplotlib)."""
        from hyperprune.spectra.plot import figure_of

        return figure_of(self)

    @cached_property
    def _layers(self) -> list[tuple[Float64[np.ndarray, "B _"], Int64[np.ndarray, " _"]]]:
        """Per layer: each sample's rates, and the order of the directions by their mean rate.

        Sorting follows averaging: sorting each sample first would bias the extremes outwards by an amount
        that depends on the length of the window.
        """
        layers = []
        for growth_NBK in self.log_growth:
            rates_BK = growth_NBK.sum(axis=0) * self.scale / self.num_steps
            order_K = np.arange(rates_BK.shape[1])
            if self.convention != "lsh":
                order_K = np.argsort(-rates_BK.mean(axis=0), kind="stable")
            layers.append((rates_BK, order_K))
        return layers

    @cached_property
    def _chosen(self) -> Int64[np.ndarray, " S"]:
        """Positions of `exponents` within `concatenated`."""
        if self.convention == "lsh":
            return np.arange(len(self.concatenated))
        return np.argsort(-self.concatenated, kind="stable")[: self.num_exponents]

    def _columns(self, by_direction: list[np.ndarray]) -> np.ndarray:
        """Join the layers along the last axis, in the order of `exponents`."""
        ordered = [
            array[..., order_K] for array, (_, order_K) in zip(by_direction, self._layers, strict=True)
        ]
        return np.concatenate(ordered, axis=-1)[..., self._chosen]


_SETTINGS = tuple(
    field.name
    for field in dataclasses.fields(LyapunovSpectrum)
    if field.name not in {"log_growth", "block_steps"}
)
