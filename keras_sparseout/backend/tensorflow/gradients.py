"""Gradients that are changed while a training step is traced."""

from collections.abc import Callable

import tensorflow as tf

from keras_sparseout.utils.types import Tensor


def change_gradient(
    x: Tensor,
    change: Callable[..., Tensor],
    *others: Tensor,
    error: str,
    shared: bool = False,
) -> Tensor:
    """Returns `x`; on the way back its gradient becomes `change(gradient, x, *others)`.

    A gradient that is itself differentiated would be changed too, and nothing tells
    which of several gradients is the last one. So that is an error.

    TensorFlow keeps `change` for ever, and the graph in which a gradient is defined. So
    that is a graph of its own, and `change` must not hold a model.

    Args:
        x: A tensor.
        change: Function of tensors.
        *others: What it needs, apart from variables.
        error: What the error says.
        shared: Whether `change` assigns variables of several replicas, which it may do
            only in the graph of the step. That is kept then.

    Raises:
        ValueError: if a gradient of a gradient is taken through `x`.
    """
    in_graph = tf.inside_function() and not shared
    # A function runs as a whole.
    run = tf.function(change, autograph=False) if in_graph else change

    @tf.custom_gradient
    def once(gradient):
        def again(_):
            raise ValueError(error)

        return tf.identity(gradient), again

    def identity(x, *others):
        def of_dense(gradient):
            # Where parts of `x` are looked up, TensorFlow has the rows that are not 0.
            changed = run(tf.convert_to_tensor(gradient), x, *others)
            if in_graph:
                _require(changed)
            return once(changed)

        @tf.custom_gradient
        def same(x):
            return tf.identity(x), of_dense

        return same(x)

    if not in_graph:
        return identity(x, *others)
    return tf.function(identity, autograph=False)(x, *others)


def _require(x: Tensor) -> None:
    """Has the function that is being traced end only when what made `x` has run.

    Where there are several tapes, or a persistent one, TensorFlow makes the function of
    a gradient without that: its assignments may be dropped, or come too late.
    """
    graph = tf.compat.v1.get_default_graph()
    with tf.control_dependencies([x]):
        # An operation of its own, as TensorFlow may add that of `x` itself.
        getattr(graph, "control_outputs", []).append(tf.no_op())
