"""Penalties on activations: one number for each vector along the last axis."""

from collections.abc import Callable
from typing import Literal, TypeAlias, get_args

import keras
from keras import ops

from keras_sparseout.utils.types import Tensor

Kind: TypeAlias = Literal["l1", "hoyer_square", "ar", "tar"]
KINDS: tuple[Kind, ...] = get_args(Kind)


def mean_penalty(
    x: Tensor, mask: Tensor | None, kind: Kind, epsilon: float | Tensor
) -> Tensor:
    """Returns the mean of the penalties of the vectors of `x` along the last axis.

    Args:
        x: Activations in float32 or float64. For "tar" the timesteps come second.
        mask: Boolean, False for vectors that do not count; its shape can be broadcast
            to that of `x` without the last axis. None if all count.
        kind: Which penalty, as in `layers.ActivationPenalty`.
        epsilon: Length of a vector below which "hoyer_square" falls to 0.
    """
    vectors = ops.shape(x)[:-1]
    counted = ops.ones(vectors, "bool")
    if mask is not None:
        counted = ops.broadcast_to(mask, vectors)
    if kind == "tar":
        x = x[:, 1:] - x[:, :-1]
        counted = ops.logical_and(counted[:, 1:], counted[:, :-1])
    if mask is not None:
        # Before the penalty: a NaN in padding would come back through its gradient.
        x = ops.where(counted[..., None], x, 0)
    penalty = _FUNCTIONS[kind](x, epsilon)
    count = ops.cast(ops.count_nonzero(counted), x.dtype)
    return ops.sum(penalty) / ops.maximum(count, 1)


def mean_penalty_gradient(
    x: Tensor,
    mask: Tensor | None,
    kind: Literal["l1", "hoyer_square"],
    silent: float,
    axis: int = -1,
) -> tuple[Tensor, Tensor]:
    """Returns the gradient of `mean_penalty`, times the number of vectors, and that.

    Its epsilon is here a share of the root mean square of the lengths of the vectors.

    Args:
        x: Activations in float32 or float64.
        mask: Boolean, False for vectors that do not count; it has the shape of `x`
            without the dimension `axis`, or fewer of its first ones. None if all count.
        kind: Which penalty.
        silent: This share, for "hoyer_square".
        axis: The dimension of the elements of a vector.
    """
    # With float64 as Keras' own type, its integers are not all of one type.
    units = ops.maximum(ops.cast(ops.shape(x)[axis], x.dtype), 1)
    if mask is None:
        vectors = ops.cast(ops.size(x), x.dtype) / units
    else:
        missing = len(x.shape) - 1 - len(mask.shape)
        mask = ops.reshape(mask, (*ops.shape(mask), *[1] * missing))
        counted = ops.broadcast_to(ops.expand_dims(mask, axis), ops.shape(x))
        x = ops.where(counted, x, 0)
        vectors = ops.cast(ops.count_nonzero(counted), x.dtype) / units
    vectors = ops.maximum(vectors, 1)
    if kind == "l1":
        return ops.sign(x), vectors
    total = ops.sum(ops.abs(x), axis=axis, keepdims=True)
    squares = ops.sum(ops.square(x), axis=axis, keepdims=True)
    least = silent**2 * ops.sum(squares) / vectors
    ratio = total / (squares + ops.maximum(least, keras.config.epsilon() ** 2))
    return 2 * ratio * (ops.sign(x) - ratio * x), vectors


def _l1(x, epsilon):
    return ops.sum(ops.abs(x), axis=-1)


def _hoyer_square(x, epsilon):
    # Divide by the largest element, so that no square overflows or vanishes. It cancels
    # out, so it is a constant in the gradient.
    magnitude = ops.abs(x)
    unit = ops.max(magnitude, axis=-1, keepdims=True, initial=0.0)
    unit = ops.stop_gradient(ops.maximum(unit, epsilon))
    magnitude = magnitude / unit
    squares = ops.sum(ops.square(magnitude), axis=-1)
    squares = squares + ops.square(epsilon / unit[..., 0])
    return ops.square(ops.sum(magnitude, axis=-1)) / squares


def _mean_square(x, epsilon):
    # Without elements the mean would be NaN; the other penalties are 0 there.
    count = ops.maximum(ops.cast(ops.shape(x)[-1], x.dtype), 1)
    return ops.sum(ops.square(x), axis=-1) / count


_FUNCTIONS: dict[Kind, Callable[..., Tensor]] = {
    "l1": _l1,
    "hoyer_square": _hoyer_square,
    "ar": _mean_square,
    "tar": _mean_square,  # of the differences
}
