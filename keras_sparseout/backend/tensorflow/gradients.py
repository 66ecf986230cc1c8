"""Gradients that are changed while a training step is traced."""

from collections.abc import Callable

import tensorflow as tf

from keras_sparseout.utils.types import Tensor


def change_gradient(
    x: Tensor, change: Callable[..., Tensor], *others: Tensor, shared: bool = False
) -> Tensor:
    """Returns `x`; on the way back its gradient becomes `change(gradient, x, *others)`.

    TensorFlow keeps `change` for ever, and the graph in which a gradient is defined. So
    that is a graph of its own, and `change` must not hold a model.

    Args:
        x: A tensor.
        change: Function of tensors.
        *others: What it needs, apart from variables.
        shared: Whether `change` assigns variables of several replicas, which it may do
            only in the graph of the step. That is kept then.
    """

    def identity(x, *others):
        def of_dense(gradient):
            # Where parts of `x` are looked up, TensorFlow has the rows that are not 0.
            return change(tf.convert_to_tensor(gradient), x, *others)

        @tf.custom_gradient
        def same(x):
            return tf.identity(x), of_dense

        return same(x)

    if shared or not tf.inside_function():
        return identity(x, *others)
    return tf.function(identity, autograph=False)(x, *others)
