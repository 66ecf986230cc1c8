"""Vectors along an axis, prepared for the measures of `functions`."""

from collections.abc import Callable

import keras
import numpy as np
from keras import ops

from keras_sparseout.metrics import inputs
from keras_sparseout.utils.types import Tensor


def along_last(
    x: Tensor, axis: int | None
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Returns `x` with its vectors along the last axis, and `restore` of its kind.

    `restore` turns figures into an array if `x` was no tensor.
    """
    x, restore = inputs.real_tensor(x)
    return inputs.along_last(x, axis), restore


def magnitudes(
    x: Tensor, axis: int | None, power: float = 2
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Returns |x| along the last axis, with room for a power, and `restore`.

    Squares of large numbers would overflow, of small ones vanish. In float64 the
    squares of float32 numbers do neither, nor do their fourth powers. Elsewhere, and
    for higher powers, the largest magnitude of each vector is scaled to 1.

    `restore` also casts figures back to the dtype of `x`.
    """
    x, restore = along_last(x, axis)
    dtype = keras.backend.standardize_dtype(x.dtype)
    magnitude = ops.abs(x)
    roomy = dtype == "float32" and keras.backend.backend() == "tensorflow"
    if roomy and power <= 4:
        magnitude = ops.cast(magnitude, "float64")
    else:
        top = largest(magnitude)
        magnitude = magnitude / ops.where(top == 0, 1.0, top)
    return magnitude, lambda figures: restore(ops.cast(figures, dtype))


def total(x: Tensor) -> Tensor:
    """The sum of |x| along the last axis: 0 if all elements are, NaN if one is."""
    # As in `magnitudes`, so that XLA computes it once for both.
    if keras.backend.backend() == "tensorflow":
        return ops.sum(ops.cast(ops.abs(x), "float64"), axis=-1)
    return ops.sum(ops.abs(x), axis=-1)


def largest(magnitude: Tensor) -> Tensor:
    """The largest magnitude of each vector, in a last axis of size 1."""
    # Without `initial` Keras refuses a batch of 0 samples.
    return ops.max(magnitude, axis=-1, keepdims=True, initial=0)


def size(x: Tensor) -> Tensor:
    """The number of elements of each vector, as a scalar of the dtype of `x`."""
    return ops.cast(ops.shape(x)[-1], x.dtype)


def of_several(x: Tensor, figures: Tensor) -> Tensor:
    """Returns `figures`, or NaN if the vectors have a single element.

    There they are 0/0, which rounding may turn into infinity.
    """
    return ops.where(size(x) > 1, figures, np.nan)


def power_mean(magnitude: Tensor, power: float, *, keepdims: bool = False) -> Tensor:
    """The power mean of each vector: for 2 the root mean square."""
    if power == 1:
        return ops.mean(magnitude, axis=-1, keepdims=keepdims)
    if power == 2:
        mean = ops.mean(ops.square(magnitude), axis=-1, keepdims=keepdims)
        return ops.sqrt(mean)
    mean = ops.mean(ops.power(magnitude, power), axis=-1, keepdims=keepdims)
    return ops.power(mean, 1 / power)
