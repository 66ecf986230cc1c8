"""Computing what is undefined by intent, or compiled, while numbers are checked."""

import contextlib

import tensorflow as tf


@contextlib.contextmanager
def unchecked():
    """Leaves operations out of `tf.debugging.enable_check_numerics()`.

    The check stops a run at the first NaN or infinity, also where that is an answer, as
    Hoyer's sparsity of zeros is, and XLA can't compile the operations that it adds.
    Around the body of a function that is traced this costs nothing when the function
    runs. What leaves such a body is checked again by whatever is computed with it.

    For a `with` statement or as a decorator, of functions that are no generators. A
    limit on the length of its messages that the check was given becomes the default.

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


def is_checking():
    """Whether `tf.debugging.enable_check_numerics()` is in force in this thread."""
    # TensorFlow does not tell, but its check adds operations to a graph.
    with tf.Graph().as_default() as scratch:
        tf.negative(1.0)
    return any("Numeric" in op.type for op in scratch.get_operations())
