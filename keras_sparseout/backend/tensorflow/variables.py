"""The values of variables."""

import contextlib
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

# TensorFlow adds up no others.
_SUMMABLE = ("float16", "bfloat16", "float32", "float64")


def to_numpy(variable: Any) -> np.ndarray | np.generic:
    """Returns the value of a Keras variable or eager tensor as NumPy has it."""
    # keras.ops.convert_to_numpy of a variable warns with NumPy 2.
    return tf.convert_to_tensor(variable).numpy()


def are_finite(variables: Sequence[Any]) -> list[bool]:
    """Whether all elements are finite, of each of these Keras variables of floats.

    A reading of a callback asks for all weights of a model. So this takes a single
    operation for each of them, where they are float32, and fetches one result.
    """
    if not variables:
        return []
    values = [
        v.value if v.dtype in _SUMMABLE else tf.cast(v.value, "float32")
        for v in variables
    ]
    sums = [tf.raw_ops.Sum(input=x, axis=_axes(len(x.shape))) for x in values]
    sums = [x if x.dtype is tf.float32 else tf.cast(x, "float32") for x in sums]
    finite = np.isfinite(tf.raw_ops.Pack(values=sums, axis=0).numpy())
    # One pass tells, if the sum is finite. If not, the sum itself may have overflowed.
    return [
        bool(known or tf.reduce_all(tf.math.is_finite(x)).numpy())
        for x, known in zip(values, finite, strict=True)
    ]


def squared_lengths(variables: Sequence[Any]) -> np.ndarray:
    """Returns the sum of the squares of each of these Keras variables."""
    values = [tf.cast(v.value, "float32") for v in variables]
    return np.array([tf.reduce_sum(tf.square(x)).numpy() for x in values])


@functools.cache
def _axes(rank):
    with tf.init_scope():
        return tf.range(rank)


@contextlib.contextmanager
def outside_graph() -> Iterator[bool]:
    """Leaves the function that is being traced; yields whether variables have values.

    They have none in a `tf.Graph` of TensorFlow 1, which is inside of nothing.
    """
    with tf.init_scope():
        yield tf.executing_eagerly()


def make_outside_graph(value: np.ndarray) -> Any:
    """Makes a variable that Keras does not know, also while a function is traced."""
    with tf.init_scope():
        return tf.Variable(value, trainable=False)


def read(variable: Any) -> Any:
    """Returns the value of a variable of `make_outside_graph` as a tensor."""
    return variable.read_value()
