"""What every measure does first with the activations that it is given."""

import math
import numbers

import keras
import numpy as np
from keras import ops


def real_tensor(x):
    """Returns `x` as a tensor of float32 or float64, and what restores its kind."""
    restore = _same if ops.is_tensor(x) else ops.convert_to_numpy
    if not ops.is_tensor(x):
        x = np.asarray(x)
    try:
        dtype = keras.backend.standardize_dtype(x.dtype)
        real = dtype != "bool" and any(kind in dtype for kind in ("float", "int"))
    except ValueError:  # Keras has no name for it, as for that of objects.
        dtype, real = x.dtype, False
    if not real:
        raise ValueError(
            f"`x` must hold real numbers. Received: x.dtype={dtype}. Convert it first."
        )
    wide = "float64" if dtype == "float64" else "float32"
    return ops.cast(ops.convert_to_tensor(x), wide), restore


def along_last(x, axis):
    """Returns `x` with the vectors that lie along `axis` along its last axis."""
    shape = tuple(x.shape)
    rank = len(shape)
    if not (axis is None and rank) and not (is_int(axis) and -rank <= axis < rank):
        raise ValueError(
            "`axis` must be an int that names an axis of `x`, or None for the whole of "
            f"each sample. Received: axis={axis!r} for x.shape={shape}. Give -1 for "
            "the last one."
        )
    if 0 in ((shape[1:] or shape) if axis is None else (shape[axis],)):
        raise ValueError(
            "`x` must have at least 1 element along `axis`. Received: "
            f"x.shape={shape}, axis={axis}. Give the axis of the units."
        )
    if axis is None and rank > 2:
        if None in shape[1:]:
            return ops.reshape(x, (ops.shape(x)[0], -1))
        return ops.reshape(x, (-1, math.prod(shape[1:])))
    if axis in (None, -1, rank - 1):
        return x
    return ops.moveaxis(x, axis, -1)


def check_batch(x):
    """Raises unless `x` has samples and units, and no axis but the first is empty."""
    shape = tuple(x.shape)
    if len(shape) < 2 or 0 in shape[1:]:
        raise ValueError(
            "`x` must have the shape (samples, ..., units), of at least 1 unit and "
            f"position. Received: x.shape={shape}. Give x[None] for a single sample."
        )


def check_sample_weight(sample_weight, x):
    """Returns `sample_weight` as float64, ones for None: one for each sample of `x`."""
    if sample_weight is None:
        return ops.ones(ops.shape(x)[:1], "float64")
    weights = ops.cast(ops.convert_to_tensor(sample_weight), "float64")
    if len(weights.shape) != 1 or not _begins(weights.shape, x.shape):
        raise ValueError(
            "`sample_weight` must hold one number for each sample. Received: "
            f"sample_weight.shape={tuple(weights.shape)} for x.shape={tuple(x.shape)}."
            " Give an array of shape (samples,)."
        )
    return weights


def check_mask(mask, x):
    """Returns `mask` as a boolean tensor, of the positions of `x` or blocks of them."""
    mask = ops.cast(ops.convert_to_tensor(mask), "bool")
    if not len(mask.shape) or not _begins(mask.shape, x.shape[:-1]):
        raise ValueError(
            "`mask` must have the shape of `x` without its last axis, or the beginning "
            f"of that. Received: mask.shape={tuple(mask.shape)} for x.shape="
            f"{tuple(x.shape)}. Give for example one value for each timestep."
        )
    return mask


def expand_to(x, rank):
    """Returns `x` with axes of size 1 put at its end, up to `rank`."""
    return ops.reshape(x, (*ops.shape(x), *[1] * (rank - len(x.shape))))


def rows(x, sample_weight, mask):
    """Returns `x` as (samples and positions, units), and the rows' float64 weights."""
    x, _ = real_tensor(x)
    check_batch(x)
    positions = len(x.shape) - 1
    weights = expand_to(check_sample_weight(sample_weight, x), positions)
    weights = ops.broadcast_to(weights, ops.shape(x)[:-1])
    if mask is not None:
        weights = ops.where(expand_to(check_mask(mask, x), positions), weights, 0.0)
    weights = ops.reshape(weights, (-1,))
    x = ops.reshape(x, (-1, ops.shape(x)[-1]))
    if sample_weight is not None or mask is not None:
        # A NaN that does not count would be NaN times 0.
        x = ops.where(ops.expand_dims(weights == 0, -1), 0.0, x)
    return x, weights


def is_int(value):
    """Whether `value` is an integer, which a bool is not."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _same(x):
    return x


def _begins(shape, whole):
    """Whether `shape`, where known, is the beginning of the shape `whole`."""
    return len(shape) <= len(whole) and all(
        size is None or other is None or size == other
        for size, other in zip(shape, whole, strict=False)
    )
