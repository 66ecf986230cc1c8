"""Measures of activation sparsity: one value for each vector along an axis."""

import numbers

import keras
import numpy as np
from keras import ops

from keras_sparseout import validation


def hoyer(x, axis=-1):
    """Hoyer's sparsity of each vector along `axis`.

        hoyer(x) = (sqrt(n) - sum |x_i| / sqrt(sum x_i^2)) / (sqrt(n) - 1)

    for a vector of n elements. It rises with sparsity: 0 where all |x_i| are equal, 1
    where one alone is not 0; the scale of x does not matter. Of a Gaussian vector it is
    about 0.20 (1 - sqrt(2 / pi), for n to infinity), of a half-rectified one 0.44
    (1 - 1 / sqrt(pi)). An all-zero vector, or one of a single element, is 0/0 and gives
    NaN: average with `numpy.nanmean`, and count such silent vectors apart.

    Args:
        x: Numpy array or backend tensor of real numbers.
        axis: The axis, an int, that the vectors lie along: -1, the default, for the
            features of each sample, or the channels at each position.

    Returns:
        The shape of `x` without `axis`; float32, or float64 for float64. A numpy array
        for a numpy array, a tensor for a tensor.

    Raises:
        ValueError: if `x` is not real, `axis` is not one of its axes, or the vectors
            are empty.

    Source: Hoyer (2004), "Non-negative Matrix Factorization with Sparseness
        Constraints", JMLR 5.

    Example:

    >>> hoyer(np.array([[1.0, -1.0, 1.0, 1.0], [0.0, 0.0, 5.0, 0.0]]))
    array([0., 1.])
    """
    x, restore = _prepare(x, axis)
    magnitude = ops.abs(x)
    # Scaled to a largest element of 1: squares of large ones overflow, of small ones
    # vanish. Of an all-zero vector this is the 0/0 that makes it NaN.
    magnitude = magnitude / ops.max(magnitude, axis=axis, keepdims=True)
    norm_ratio = ops.sum(magnitude, axis=axis) / ops.sqrt(
        ops.sum(ops.square(magnitude), axis=axis)
    )
    root = ops.sqrt(ops.cast(ops.shape(x)[axis], x.dtype))
    return restore((root - norm_ratio) / (root - 1))


def zero_fraction(x, axis=-1, *, threshold=0.0):
    """The fraction of elements of each vector along `axis` that are 0.

        zero_fraction(x) = (number of i with |x_i| <= threshold) / n

    It rises with sparsity, from 0 to 1. Of a Gaussian vector it is 0, of a
    half-rectified one about 0.5, of an all-zero vector 1. A NaN gives NaN.

    Args:
        x: Numpy array or backend tensor of real numbers.
        axis: The axis, an int, that the vectors lie along.
        threshold: What counts as 0, in the units of x; a number >= 0.

    Returns:
        The shape of `x` without `axis`; float32, or float64 for float64. A numpy array
        for a numpy array, a tensor for a tensor.

    Raises:
        ValueError: if `x` is not real, `axis` is not one of its axes, the vectors are
            empty, or `threshold` is not a number >= 0.

    Source: "1 - density"; Hurley & Rickard (2009), "Comparing Measures of Sparsity",
        IEEE Trans. Inf. Theory 55, list it as the l0 measure (with a threshold:
        l0-epsilon).

    Example:

    >>> zero_fraction(np.array([[0.0, -0.1, 0.0, 3.0]]))
    array([0.5])
    >>> zero_fraction(np.array([[0.0, -0.1, 0.0, 3.0]]), threshold=0.1)
    array([0.75])
    """
    if not validation.is_real(threshold) or not threshold >= 0:
        raise ValueError(
            "`threshold` must be a number >= 0, what |x| may be at most to count as "
            f"0. Received: threshold={threshold!r}. Leave it out for exact zeros."
        )
    x, restore = _prepare(x, axis)
    small = ops.cast(ops.abs(x) <= threshold, x.dtype)
    return restore(ops.mean(ops.where(ops.isnan(x), x, small), axis=axis))


def _prepare(x, axis):
    """Returns `x` in float32 or float64, and what turns a result into its kind."""
    restore = _same if ops.is_tensor(x) else ops.convert_to_numpy
    if not ops.is_tensor(x):
        x = np.asarray(x)
    dtype = keras.backend.standardize_dtype(x.dtype)
    if dtype == "bool" or not any(k in dtype for k in ("float", "int")):
        raise ValueError(
            f"`x` must hold real numbers. Received: x.dtype={dtype}. Convert it first."
        )
    rank = len(x.shape)
    if (
        isinstance(axis, bool)
        or not isinstance(axis, numbers.Integral)
        or not -rank <= axis < rank
    ):
        raise ValueError(
            "`axis` must be an int that names an axis of `x`. Received: "
            f"axis={axis!r} for x.shape={tuple(x.shape)}. Give -1 for the last one."
        )
    if x.shape[axis] == 0:
        raise ValueError(
            "`x` must have at least 1 element along `axis`. Received: "
            f"x.shape={tuple(x.shape)}, axis={axis}. Give the axis of the units."
        )
    wide = "float64" if dtype == "float64" else "float32"
    return ops.cast(ops.convert_to_tensor(x), wide), restore


def _same(x):
    return x
