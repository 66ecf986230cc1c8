"""Values that have the types of settings."""

import json
import math
import types
import typing
from typing import Any

# What Python has for the words of JSON.
WORDS = {"None": "null", "True": "true", "False": "false"}


def fit(value: Any, kind: Any) -> Any:
    """Returns a value as its type has it: 2 as 2.0 for a float, a list as a tuple.

    So values that are equal have one text. JSON's lists become tuples again.

    Args:
        value: Text, a number, a boolean, None, or a list or tuple of these.
        kind: Type of a field of settings, such as `float`, `str | None`,
            `Literal["a", "b"]` or `tuple[float, ...]`.

    Raises:
        TypeError: if the value has another type. NaN has, as it equals nothing.
    """
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if origin is typing.Literal and (type(value), value) in [
        (type(part), part) for part in parts
    ]:
        return value
    if origin in (typing.Union, types.UnionType):
        return _fit_one_of(value, kind, parts)
    if origin is tuple and isinstance(value, list | tuple):
        each = parts[:1] * len(value) if parts[-1:] == (...,) else parts
        if len(each) == len(value):
            return tuple(map(fit, value, each))
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        if not math.isnan(value):
            return float(value)
    elif type(value) is kind:
        return value
    raise TypeError(f"{value!r} is not of type {name_of(kind)}")


def _fit_one_of(value, kind, parts):
    for part in parts:
        try:
            return fit(value, part)
        except TypeError:
            continue
    raise TypeError(f"{value!r} is not of type {name_of(kind)}")


def read(text: str, kind: Any) -> Any:
    """Returns the value of a text that a user has written, as its type has it.

    Args:
        text: JSON, a word of Python, or any text where text is wanted.
        kind: Type that is wanted.

    Raises:
        TypeError: if the text is no such value.
    """
    if kind is str:
        return text
    try:
        return fit(json.loads(WORDS.get(text, text)), kind)
    except (json.JSONDecodeError, TypeError):
        return fit(text, kind)


def name_of(kind: Any) -> str:
    """Returns a type as one writes it."""
    if isinstance(kind, type) and typing.get_origin(kind) is None:
        return kind.__name__
    return str(kind).replace("typing.", "")
