"""Tracing models, and telling which graph a tensor is of."""

import keras
import tensorflow as tf


def build(model, batch):
    """Makes a subclassed model create its layers and weights, without running it."""
    if not model.built:
        # Of any batch size, as `fit` does it: the inputs of the model keep it.
        trace(model, batch, None)


def trace(model, batch, size):
    """Traces a call of `model` with the inputs in `batch`, but `size` samples."""

    def spec(x):
        x = tf.convert_to_tensor(x)
        return tf.TensorSpec((size, *x.shape[1:]), x.dtype)

    call = tf.function(lambda x: model(x, training=False), autograph=False)
    call.get_concrete_function(keras.tree.map_structure(spec, batch))


def is_tf_function(function):
    """Whether `function` is made by tf.function, which may be traced already."""
    return hasattr(function, "get_concrete_function")


def current_graph():
    """The graph that is being traced; None in eager mode."""
    return None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()


def graph_of(tensors):
    """The graph that tensors belong to; None of eager ones."""
    # A ragged tensor has no graph, but its parts have.
    for tensor in tf.nest.flatten(tensors, expand_composites=True):
        if tf.is_tensor(tensor):
            return getattr(tensor, "graph", None)
    return None
