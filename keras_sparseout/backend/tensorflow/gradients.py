"""Gradients that are taken, or changed, while a training step is traced."""

from collections.abc import Callable

import tensorflow as tf

from keras_sparseout.utils.types import Tensor


def gradient_of(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Returns the gradient at `x` of a function with one number as value."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(x)
        value = function(x)
    return tape.gradient(value, x, unconnected_gradients="zero")


def change_gradient(x: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Returns `x`; on the way back its gradient becomes `change(gradient)`."""

    @tf.custom_gradient
    def identity(x):
        return tf.identity(x), change

    return identity(x)
