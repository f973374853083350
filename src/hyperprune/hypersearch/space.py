"""What a search chooses from: candidate configurations, and the space they are drawn from.

The default space is the one of the LSH paper: sparse initialisation × death × redistribution (24 points)
times a continuous death rate; growth is random.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from hyperprune.errors import InputError
from hyperprune.sparsity import methods

_DIGITS = 3  # death rates are drawn to three digits, so that a label names the configuration exactly


_SHOWN = {"allocation", "death", "redistribution", "death_rate"}


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """A pruning method and its settings: hashable, comparable, serialisable.

    Attributes:
        method: a name of `hyperprune.methods.names()`.
        settings: (name, value) pairs in alphabetical order.
    """

    method: str
    settings: tuple[tuple[str, Any], ...] = ()

    @classmethod
    def of(cls, method: str, **settings: Any) -> Configuration:
        return cls(method=method, settings=tuple(sorted(settings.items())))

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Configuration:
        settings = dict(data)
        return cls.of(settings.pop("method"), **settings)

    def to_json(self) -> dict[str, Any]:
        return {"method": self.method, **dict(self.settings)}

    @property
    def text(self) -> str:
        """The canonical form, which names the configuration's random draws."""
        return json.dumps(self.to_json(), sort_keys=True)

    @property
    def label(self) -> str:
        """For people: the settings that the default space varies, else the method and its settings."""
        if self.method != "dynamic_sparse" or not dict(self.settings).keys() >= _SHOWN:
            return " ".join([self.method, *(f"{name}={value}" for name, value in self.settings)])
        values = dict(self.settings)
        shown = [values.get("allocation"), values.get("death"), values.get("redistribution")]
        if values.get("growth", "random") != "random":
            shown.append(values["growth"])
        return " · ".join([*(str(value) for value in shown), f"{values['death_rate']:g}"])

    def build(self) -> methods.Method:
        """The method itself; an unknown name or setting is an `InputError`."""
        return methods.get(self.method, **dict(self.settings))


DENSE = Configuration.of("dense")


@dataclass(frozen=True, kw_only=True)
class Space:
    """Allocation × death × growth × redistribution × death rate.

    Attributes:
        allocation, death, growth, redistribution: the names to choose from, at least one each.
        death_rate: the range of the share of live weights that dies per update, within (0, 1].
        grid_death_rate: the one death rate of the grid (the paper: 0.8 stacked LSTM, 0.5 RHN).
        update_every: steps between topology updates, or "epoch".
    """

    allocation: tuple[str, ...] = ("uniform", "er")
    death: tuple[str, ...] = ("magnitude", "set", "threshold", "global_magnitude")
    growth: tuple[str, ...] = ("random",)
    redistribution: tuple[str, ...] = ("none", "magnitude", "nonzeros")
    death_rate: tuple[float, float] = (0.4, 0.9)
    grid_death_rate: float = 0.8
    update_every: int | str = "epoch"

    def __post_init__(self) -> None:
        for name, options in self.choices().items():
            if not options or len(set(options)) != len(options):
                raise InputError(f"space.{name} must list at least one name, each once, got {list(options)}")
        low, high = self.death_rate
        if not 0 < low <= high <= 1:
            raise InputError(
                f"space.death_rate must be a range within (0, 1], got {list(self.death_rate)}; try [0.4, 0.9]"
            )
        for rate in (low, high, self.grid_death_rate):
            if round(rate, _DIGITS) != rate:
                raise InputError(f"death rates have at most {_DIGITS} digits after the point, got {rate}")
        for configuration in self.grid():
            configuration.build()  # names and rates are checked where they are defined

    def choices(self) -> dict[str, tuple[str, ...]]:
        """The categorical dimensions, by name."""
        return {
            "allocation": self.allocation,
            "death": self.death,
            "growth": self.growth,
            "redistribution": self.redistribution,
        }

    def configuration(self, *, death_rate: float, **chosen: str) -> Configuration:
        """The point with these values; the death rate is rounded to three digits."""
        return Configuration.of(
            "dynamic_sparse", **chosen, death_rate=round(death_rate, _DIGITS), update_every=self.update_every
        )

    def grid(self) -> list[Configuration]:
        """Every combination at `grid_death_rate`, in the order of the names."""
        names = list(self.choices())
        return [
            self.configuration(death_rate=self.grid_death_rate, **dict(zip(names, values, strict=True)))
            for values in itertools.product(*self.choices().values())
        ]

    def sample(self, random: np.random.Generator) -> Configuration:
        """A uniform draw."""
        chosen = {name: options[random.integers(len(options))] for name, options in self.choices().items()}
        return self.configuration(death_rate=random.uniform(*self.death_rate), **chosen)

    def size(self) -> float:
        """How many different configurations can be drawn."""
        low, high = (round(rate * 10**_DIGITS) for rate in self.death_rate)
        return math.prod(len(options) for options in self.choices().values()) * (high - low + 1)
