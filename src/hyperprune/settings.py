"""From TOML tables to frozen dataclasses; a wrong key or value is an error that names it."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from hyperprune.errors import InputError, unknown_name

T = TypeVar("T")


def from_mapping(kind: type[T], values: Mapping[str, Any], where: str) -> T:
    """An instance of the dataclass `kind` from plain values, as TOML gives them.

    Args:
        kind: a keyword-only dataclass; lists become tuples where it wants them, whole numbers floats,
            tables nested dataclasses.
        values: by field name.
        where: the table's name in error messages ("[training]").

    Raises:
        InputError: an unknown key, a missing one, or a value of the wrong type.
    """
    hints = get_type_hints(kind)
    known = {field.name: field for field in fields(kind)}  # pyright: ignore[reportArgumentType]
    for key in values:
        if key not in known:
            raise unknown_name(f"key in {where}", key, known)
    for name, field in known.items():
        if name not in values and field.default is MISSING and field.default_factory is MISSING:
            raise InputError(f"{where} must set {name!r}; add it")
    return kind(**{key: _convert(value, hints[key], f"{where} {key}") for key, value in values.items()})


def _convert(value: Any, hint: Any, where: str) -> Any:
    """`value` as `hint` wants it, or an error."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _convert_union(value, arguments, where)
    if origin is tuple and isinstance(value, list | tuple):
        if arguments[-1] is Ellipsis:
            return tuple(_convert(item, arguments[0], where) for item in value)
        if len(value) == len(arguments):
            return tuple(_convert(item, kind, where) for item, kind in zip(value, arguments, strict=True))
    elif origin is Literal and value in arguments:
        return value
    elif is_dataclass(hint) and isinstance(value, Mapping):
        return from_mapping(hint, value, where)  # pyright: ignore[reportArgumentType]
    elif hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    elif hint in (int, str, bool) and type(value) is hint:
        return value
    raise InputError(f"{where} must be {_describe(hint)}, got {value!r}")


def _convert_union(value: Any, options: tuple[Any, ...], where: str) -> Any:
    if value is None and type(None) in options:
        return None
    for option in options:
        if option is type(None):
            continue
        try:
            return _convert(value, option, where)
        except InputError:
            if is_dataclass(option) and isinstance(value, Mapping):
                raise  # the table is meant, and its own error says more
    raise InputError(f"{where} must be {' or '.join(map(_describe, options))}, got {value!r}")


def _describe(hint: Any) -> str:
    names = {
        int: "a whole number",
        float: "a number",
        str: "a text",
        bool: "true or false",
        type(None): "left out",
    }
    if hint in names:
        return names[hint]
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(map(repr, get_args(hint)))
    if get_origin(hint) is tuple:
        return "a list"
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(map(_describe, get_args(hint)))
    return "a table"
