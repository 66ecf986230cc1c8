"""Gradients that are changed while a training step is traced."""

from collections.abc import Callable

import tensorflow as tf

from keras_sparseout.utils.types import Tensor


def change_gradient(x: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Returns `x`; on the way back its gradient becomes `change(gradient)`."""

    def of_dense(gradient):
        # Where parts of `x` are looked up, TensorFlow has the rows that are not 0.
        return change(tf.convert_to_tensor(gradient))

    @tf.custom_gradient
    def identity(x):
        return tf.identity(x), of_dense

    return identity(x)
