"""What a setting may be: one of some values, or a number from a range. Every dimension is finite."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hyperprune.errors import InputError
from hyperprune.settings import from_mapping

_MOST_DIGITS = 300  # before and after the point together; more would leave the range of floats
_LARGEST_WHOLE = 2**63 - 1  # that is drawn


@dataclass(frozen=True)
class Choice:
    """One of some values, all equally likely.

    Attributes:
        options: at least one, each once; lists in them become tuples.
    """

    options: tuple[Any, ...]

    def __post_init__(self) -> None:
        options = tuple(frozen(option) for option in self.options)
        object.__setattr__(self, "options", options)
        if not options or len({(type(option), option) for option in options}) != len(options):
            raise InputError(
                f"a choice must list at least one value, each once, got {list(options)}; list others"
            )

    @property
    def size(self) -> int:
        return len(self.options)

    @property
    def grid(self) -> tuple[Any, ...]:
        return self.options

    @property
    def corners(self) -> tuple[Any, ...]:
        """Values that show whether all are allowed."""
        return self.options

    def values(self) -> tuple[Any, ...]:
        return self.options

    def sample(self, random: np.random.Generator) -> Any:
        return self.options[random.integers(len(self.options))]

    def __contains__(self, value: Any) -> bool:
        return frozen(value) in self.options

    def overlaps(self, other: Choice | Range) -> bool:
        return any(option in other for option in self.options)

    def to_toml(self) -> Any:
        return [plain(option) for option in self.options]


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included.

    Attributes:
        low, high: low < high; both with at most `digits` digits.
        digits: values are rounded to so many digits after the point, or, with `log`, to so many significant
            digits, so that a label names a configuration exactly; 0 gives whole numbers.
        log: draw uniformly in the logarithm; low > 0 and digits ≥ 1 then.
        at: the values that the grid takes; low, middle and high if none are given.
    """

    low: float
    high: float
    digits: int = 3
    log: bool = False
    at: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not -math.inf < self.low < self.high < math.inf:
            raise InputError(
                f"a range must have low below high, got low {self.low} and high {self.high}; write a single "
                "value without a range"
            )
        if self.digits < 0 or (self.log and (self.low <= 0 or self.digits < 1)):
            raise InputError(
                "a range must have digits ≥ 0, and with log a low above 0 and digits ≥ 1, got "
                f"low {self.low} and digits {self.digits}"
            )
        largest = max(abs(self.low), abs(self.high))
        most = _MOST_DIGITS if self.log else _MOST_DIGITS - math.ceil(math.log10(max(1, largest)))
        if self.digits > most:
            raise InputError(
                f"a range's values must have at most {_MOST_DIGITS} digits in all, got {self.digits} digits "
                f"{'' if self.log else 'after the point '}and an end of {largest}; 3 are plenty"
            )
        if self.digits == 0 and largest > _LARGEST_WHOLE:
            raise InputError(
                f"a range of whole numbers must lie within ±{_LARGEST_WHOLE}, got an end of {largest}; "
                "take smaller ends"
            )
        object.__setattr__(self, "at", tuple(self.at))
        for value in (self.low, self.high, *self.at):
            if not self.low <= value <= self.high or self.rounded(value) != value:
                kind = "significant digits" if self.log else "digits after the point"
                raise InputError(
                    f"a range's values must lie in it and have at most {self.digits} {kind}, got {value} in "
                    f"[{self.low}, {self.high}]; round it or raise digits"
                )

    def rounded(self, value: float) -> float:
        """The nearest value of the range's digits."""
        if self.log:
            return float(f"{value:.{self.digits - 1}e}")
        return round(value) if self.digits == 0 else round(float(value), self.digits)

    @property
    def size(self) -> int:
        """How many values there are."""
        return self._place(self.high) - self._place(self.low) + 1

    def _place(self, value: float) -> int:
        """The value's number among all of its digits."""
        if not self.log:
            return round(value * 10**self.digits)
        mantissa, exponent = f"{value:.{self.digits - 1}e}".split("e")
        lowest = 10 ** (self.digits - 1)
        return int(exponent) * 9 * lowest + round(float(mantissa) * lowest) - lowest

    def values(self) -> tuple[float, ...]:
        """All of them, in order."""
        return tuple(map(self._at, range(self._place(self.low), self._place(self.high) + 1)))

    def _at(self, place: int) -> float:
        if not self.log:
            return self.rounded(place / 10**self.digits)
        lowest = 10 ** (self.digits - 1)
        exponent, beyond = divmod(place, 9 * lowest)
        return float(f"{beyond + lowest}e{exponent - self.digits + 1}")

    @property
    def grid(self) -> tuple[float, ...]:
        middle = math.sqrt(self.low * self.high) if self.log else (self.low + self.high) / 2
        values = self.at or (self.low, middle, self.high)
        return tuple(dict.fromkeys(self.rounded(value) for value in values))

    @property
    def corners(self) -> tuple[float, ...]:
        return self.rounded(self.low), self.rounded(self.high)

    def sample(self, random: np.random.Generator) -> float:
        if self.log:
            return self.rounded(math.exp(random.uniform(math.log(self.low), math.log(self.high))))
        if self.digits == 0:  # rounding would draw the ends half as often, which matters where values are few
            return int(random.integers(round(self.low), round(self.high) + 1))
        return self.rounded(random.uniform(self.low, self.high))

    def __contains__(self, value: Any) -> bool:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and self.low <= value <= self.high and self.rounded(value) == value

    def overlaps(self, other: Choice | Range) -> bool:
        if isinstance(other, Choice):
            return other.overlaps(self)
        return self.low <= other.high and other.low <= self.high

    def to_toml(self) -> Any:
        described = {"low": self.low, "high": self.high, "digits": self.digits, "log": self.log}
        return described | ({"at": list(self.at)} if self.at else {})


Dimension = Choice | Range


@dataclass(frozen=True, kw_only=True)
class _RangeTable:
    low: float
    high: float
    digits: int = 3
    log: bool = False
    at: tuple[float, ...] = ()


def dimension(value: Any, where: str) -> Dimension:
    """A dimension from how it is written: a list is a choice, a table with `low` and `high` a range, anything
    else (a table of other keys, too) one fixed value.

    Raises:
        InputError: an empty list, a range that is none; the message begins with `where`.
    """
    try:
        if isinstance(value, Choice | Range):
            return value
        if isinstance(value, Mapping) and value.keys() & {"low", "high"}:
            return Range(**vars(from_mapping(_RangeTable, value, "a range")))
        if isinstance(value, Sequence) and not isinstance(value, str):
            return Choice(tuple(value))
        return Choice((value,))
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def frozen(value: Any) -> Any:
    """Lists as tuples and tables as tuples of pairs, so that configurations are hashable."""
    if isinstance(value, Mapping):
        return tuple((str(key), frozen(item)) for key, item in value.items())
    if isinstance(value, list | tuple):
        return tuple(frozen(item) for item in value)
    return value


def plain(value: Any) -> Any:
    """As JSON gives it back: tuples become lists."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value
