"""From plain values to dataclasses: types are converted or refused, never ignored."""

from dataclasses import dataclass

import pytest

from hyperprune.errors import InputError
from hyperprune.settings import from_mapping


@dataclass(frozen=True, kw_only=True)
class Example:
    name: str
    rate: float = 0.5
    count: int | None = None
    pair: tuple[float, float] = (0.0, 1.0)
    words: tuple[str, ...] = ()
    when: int | str = "epoch"


def test_values_become_what_the_fields_want():
    made = from_mapping(
        Example, {"name": "a", "rate": 1, "pair": [0, 2], "words": ["x"], "when": 100}, "[example]"
    )
    assert made == Example(name="a", rate=1.0, pair=(0.0, 2.0), words=("x",), when=100)
    assert isinstance(made.rate, float)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, r"\[example\] must set 'name'"),
        ({"name": "a", "rat": 1}, r"unknown key in \[example\] 'rat'; did you mean 'rate'"),
        ({"name": "a", "rate": "0.5"}, r"\[example\] rate must be a number, got '0.5'"),
        ({"name": "a", "rate": True}, "rate must be a number, got True"),
        ({"name": "a", "count": 1.5}, "count must be a whole number or left out, got 1.5"),
        ({"name": "a", "pair": [1, 2, 3]}, "pair must be a list, got"),
        ({"name": "a", "words": "x"}, "words must be a list, got 'x'"),
    ],
)
def test_wrong_values_name_table_key_and_value(values, message):
    with pytest.raises(InputError, match=message):
        from_mapping(Example, values, "[example]")
