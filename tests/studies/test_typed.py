"""Values of settings: what fits a type, and what a user may write."""

from typing import Any, Literal, Optional

import numpy as np
import pytest

from studies.runner.typed import fit, read

PAIR = tuple[float, float] | None
NESTED = tuple[tuple[int, str], ...]


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("2", float, 2.0),
        ("Infinity", float, float("inf")),
        ("2", Optional[float], 2.0),  # noqa: UP045
        ("null", float | None, None),
        ("None", str | None, None),
        ("5", str | None, "5"),
        ("5", str, "5"),
        ("True", bool, True),
        ("false", bool, False),
        ("y", Literal["x", "y"], "y"),
        ("[1, 2]", PAIR, (1.0, 2.0)),
        ('[[1, "a"], [2, "b"]]', NESTED, ((1, "a"), (2, "b"))),
        ("[]", tuple[int, ...], ()),
        ("3", Any, 3),
    ],
)
def test_a_text_is_read_by_its_type(text, kind, value):
    found = read(text, kind)
    assert found == value
    assert repr(found) == repr(value)


@pytest.mark.parametrize(
    ("text", "kind", "name"),
    [
        ("NaN", float, "float"),
        ("true", float, "float"),
        ("1", bool, "bool"),
        ("true", int, "int"),
        ("1.0", int, "int"),
        ("much", float | None, r"float \| None"),
        ("z", Literal["x", "y"], r"Literal\['x', 'y'\]"),
        ("1", Literal[True], "Literal"),
        ("abc", tuple[str, ...], r"tuple\[str, ...\]"),
        ("[1, 2, 3]", PAIR, r"tuple\[float, float\] \| None"),
        ('[[1, "a"], [2, 3]]', NESTED, "tuple"),
    ],
)
def test_a_text_of_another_type_is_refused(text, kind, name):
    with pytest.raises(TypeError, match=f"is not of type {name}"):
        read(text, kind)


def test_a_number_of_numpy_is_a_float_only_where_it_is_one():
    assert type(fit(np.float64(2), float)) is float
    with pytest.raises(TypeError, match=r"np\.float32\(2\.0\) is not of type float"):
        fit(np.float32(2), float)
