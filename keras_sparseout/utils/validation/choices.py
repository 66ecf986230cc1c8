"""Checks of arguments that are one of a few values, and of keyword arguments."""

import inspect
from collections.abc import Mapping
from typing import Literal

import keras

from keras_sparseout.utils.validation.messages import did_you_mean, value_error

# Layers of Keras 2 took these, those of Keras 3 do not.
_LEGACY = {
    *("batch_input_shape", "batch_shape", "batch_size"),
    *("input_dtype", "input_length", "input_tensor"),
}

# What some layers of this package take and others do not.
_ELSEWHERE = {
    "target_fraction": "Only Sparseout and SpatialSparseout1D, 2D and 3D choose the "
    "units that they perturb: put one of them before the layer, or after it."
}


def check_bool(name: str, value: object) -> bool:
    """Returns `value`; raises unless it is True or False."""
    if not isinstance(value, bool):
        remedy = f"Give {name}=True or {name}=False."
        raise value_error(name, value, "True or False", remedy)
    return value


def check_where(where: object) -> Literal["input", "output"] | None:
    """Returns `where`; raises unless it is a side of a layer, or None."""
    if where is None or where == "input" or where == "output":
        return where
    raise value_error(
        "where",
        where,
        '"input", "output" or None',
        "Leave it out for the input of Sparseout layers and the output of all others.",
    )


def check_axis(axis: object) -> Literal[-1] | None:
    """Returns `axis`; raises unless it is -1 or None."""
    if axis is None:
        return None
    if axis == -1:
        return -1
    raise value_error(
        "axis",
        axis,
        "-1, for vectors of the units at each position, or None, for the whole map of "
        "a sample",
        "Leave it out for -1.",
    )


def check_keywords(
    name: str, kwargs: Mapping[str, object], layer: type[keras.layers.Layer]
) -> None:
    """Raises unless the layer class `layer`, or any layer, takes all of `kwargs`.

    Args:
        name: Name of the class that was called.
        kwargs: Its keyword arguments.
        layer: The class whose `__init__` takes them.
    """
    known = {
        *inspect.signature(layer.__init__).parameters,
        *inspect.signature(keras.layers.Layer.__init__).parameters,
        # Keras takes them, with a warning that says to use keras.Input.
        "input_shape",
        "input_dim",
    } - {"self", "kwargs"}
    for keyword, value in kwargs.items():
        if keyword in _LEGACY - known:
            raise ValueError(
                f"`{keyword}` is no argument of {name}: it was one in Keras 2. "
                f"Received: {keyword}={value!r}. Leave it out, and begin the model "
                "with keras.Input(shape, batch_size, dtype)."
            )
        if keyword not in known:
            otherwise = _ELSEWHERE.get(keyword, "Leave it out.")
            remedy = did_you_mean(keyword, known, otherwise, written="`{}`")
            raise ValueError(
                f"`{keyword}` is no argument of {name}. Received: "
                f"{keyword}={value!r}. {remedy}"
            )
