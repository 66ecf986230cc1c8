"""Keeps `tf.debugging.enable_check_numerics()` away from NaN that is an answer."""

import contextlib
import functools
import math
from collections.abc import Iterator

import tensorflow as tf


@contextlib.contextmanager
def unchecked() -> Iterator[None]:
    """Leaves operations out of `tf.debugging.enable_check_numerics()`.

    The check stops a run at the first NaN or infinity. But NaN may be the answer, as
    for Hoyer's sparsity of zeros, and XLA can't compile the operations that the check
    adds. Around the body of a traced function this costs nothing when the function
    runs. TensorFlow checks what leaves the body as soon as something is computed with
    it.

    Use it in a `with` statement, or as a decorator of a function that is no generator.
    If the check was given limits for its messages, they go back to the defaults.

    Example:

    >>> tf.debugging.enable_check_numerics()
    >>> with unchecked():
    ...     undefined = tf.zeros(()) / tf.zeros(())
    >>> undefined.numpy().item()
    nan
    >>> tf.debugging.disable_check_numerics()
    """
    if not is_checking():
        yield
        return
    tf.debugging.disable_check_numerics()
    try:
        yield
    finally:
        tf.debugging.enable_check_numerics()


def is_checking() -> bool:
    """Whether `tf.debugging.enable_check_numerics()` is in force in this thread."""
    # TensorFlow does not tell, but its check stops at NaN,
    if tf.executing_eagerly():
        try:
            with tf.device("CPU:0"):
                tf.negative(_nan())
        except tf.errors.InvalidArgumentError:
            return True
        return False
    # and adds operations to a graph.
    with tf.Graph().as_default() as scratch:
        tf.negative(1.0)
    return any("Numeric" in op.type for op in scratch.get_operations())


@functools.cache
def _nan():
    return tf.constant(math.nan)
