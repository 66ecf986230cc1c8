"""Tensors whose rank is known only when the graph runs, not while it is traced."""

from collections.abc import Callable

import tensorflow as tf

from keras_sparseout.utils.types import Tensor


def call_flat(function: Callable[..., Tensor], x: Tensor, *others: Tensor) -> Tensor:
    """Calls an elementwise function on the elements of `x` as a vector.

    Args:
        function: Function of the elements of `x`, and of those of `others`.
        x: Tensor.
        *others: Tensors that broadcast to `x`, which is asserted when the graph runs.
    """
    shape = tf.shape(x)
    vectors = [tf.reshape(tf.broadcast_to(y, shape), [-1]) for y in others]
    return tf.reshape(function(tf.reshape(x, [-1]), *vectors), shape)


def merge_dimensions(
    x: Tensor, mask: Tensor | None, kept: int, message: str
) -> tuple[Tensor, Tensor | None]:
    """Merges the dimensions of `x` between the first `kept` ones and the last one.

    Args:
        x: Tensor of at least `kept + 1` dimensions, and of at least 2.
        mask: Boolean tensor of the first dimensions of `x`, or None.
        kept: How many of the first dimensions stay as they are.
        message: The error if `x` has too few dimensions when the graph runs.

    Returns:
        `x` with `kept + 2` dimensions, and its mask with `kept + 1` dimensions or None.
    """
    tf.debugging.assert_rank_at_least(x, max(kept + 1, 2), message)
    shape = tf.shape(x)
    all_but_last = shape[:-1]
    sizes = [*(shape[axis] for axis in range(kept))]
    sizes.append(tf.reduce_prod(all_but_last[kept:]))
    if mask is not None:
        mask = tf.cast(mask, "bool")
        missing = tf.ones([tf.size(all_but_last) - tf.rank(mask)], "int32")
        mask = tf.reshape(mask, tf.concat([tf.shape(mask), missing], 0))
        mask = tf.reshape(tf.broadcast_to(mask, all_but_last), sizes)
    return tf.reshape(x, [*sizes, shape[-1]]), mask
