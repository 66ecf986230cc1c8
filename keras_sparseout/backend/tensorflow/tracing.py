"""Tracing models, and telling which graph a tensor is of."""

from collections.abc import Callable
from typing import Any, TypeAlias

import keras
import tensorflow as tf

# What tf.function makes.
GraphFunction: TypeAlias = Any


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


def graph_function(function: Callable[[Any], Any]) -> GraphFunction:
    """Makes `function` a tf.function, for `run`."""
    return tf.function(function, autograph=False, reduce_retracing=True)


def traced_per_shape(function: Callable[..., Any]) -> GraphFunction:
    """Makes `function` a tf.function, traced once for each shape of its arguments."""
    return tf.function(function, autograph=False)


def run(function: GraphFunction, batch: Any) -> Any:
    """Returns what a tf.function makes of `batch`.

    It does not call the function itself: TensorFlow counts the calls of all functions
    with the same code, and would warn of retracing where many models are measured, each
    once.
    """
    return function.get_concrete_function(batch)(batch)


def trace_for_any_size(function: GraphFunction, batch: Any) -> None:
    """Traces a tf.function for batches like `batch` of any size."""

    def spec(x):
        return tf.TensorSpec((None, *x.shape[1:]), x.dtype)

    function.get_concrete_function(keras.tree.map_structure(spec, batch))


def functions_run_eagerly() -> bool:
    """Whether TensorFlow is set to run functions without tracing them."""
    return tf.config.functions_run_eagerly()


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
