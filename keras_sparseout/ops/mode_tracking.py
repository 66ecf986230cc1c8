"""Follows the mode of x, its most frequent value, from batch to batch."""

from keras import ops

from keras_sparseout.ops.quantile_tracking import Sample
from keras_sparseout.utils.types import Tensor


def first(sample: Sample) -> Tensor:
    """Returns the middle of the shortest interval that a fifth of the values lie in."""
    values = ops.cast(sample.values, "float32")
    if sample.counts is not None:
        values = ops.where(sample.counts > 0, values, float("inf"))
    ordered = ops.sort(values, axis=0)
    size = ops.shape(ordered)[0]
    fifth = (size + 4) // 5
    low, high = ordered[: size - fifth + 1], ordered[fifth - 1 :]
    length = high - low
    length = ops.where(ops.isfinite(length), length, float("inf"))
    shortest = ops.min(length, axis=0, keepdims=True, initial=float("inf"))
    # The first of several.
    is_it = ops.logical_and(length == shortest, ops.isfinite(length))
    is_it = ops.logical_and(is_it, ops.cumsum(ops.cast(is_it, "int32"), axis=0) == 1)
    return ops.sum(ops.where(is_it, low + length / 2, 0.0), axis=0)


def follow(centre: Tensor, t: Tensor, gain: Tensor, sample: Sample) -> Tensor:
    """Moves the mode towards the mean of the values near it.

    It is a step of the mean shift (Fukunaga & Hostetler, 1975) with a flat window of
    t / 2 to either side. Values that are equal to the mode hold it where it is.
    """
    distance = sample.values - ops.cast(centre, sample.values.dtype)
    reach = ops.cast(t / 2, distance.dtype)

    def total(condition, weight=1.0):
        counted = ops.cast(condition, "float32") * ops.cast(weight, "float32")
        if sample.counts is not None:
            counted = counted * sample.counts
        return ops.sum(counted, axis=0)

    inside = ops.logical_and(distance <= reach, distance >= -reach)
    right = total(ops.logical_and(distance > 0, inside))
    left = total(ops.logical_and(distance < 0, inside))
    here = total(distance == 0)
    mean = total(inside, distance) / ops.maximum(right + left + here, 1)
    # Of a bell curve the mode is farther away. The mean of few values is unsure.
    limit = ops.maximum(gain, 0.1) * t
    move = ops.clip(1.5 * mean, -limit, limit)
    return centre + ops.where(ops.abs(right - left) > here, move, 0.0)
