"""The values of variables."""

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf


def to_numpy(variable: Any) -> np.ndarray | np.generic:
    """Returns the value of a Keras variable or eager tensor as NumPy has it."""
    # keras.ops.convert_to_numpy of a variable warns with NumPy 2.
    return tf.convert_to_tensor(variable).numpy()


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
