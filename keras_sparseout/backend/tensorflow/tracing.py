"""Traces models and functions into graphs, and looks at the tensors there."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any, TypeAlias

import keras
import tensorflow as tf

from keras_sparseout.utils.types import Tensor

# What tf.function makes.
GraphFunction: TypeAlias = Any

# Operations that a model may put behind its last layer, and that keep all values.
_KEEP_VALUES = ("Cast", "ExpandDims", "Identity", "Reshape", "Squeeze", "Transpose")


def build(model: keras.Model, batch: Any) -> None:
    """Makes a subclassed model create its layers and weights, without running it.

    Args:
        model: A Keras model.
        batch: Inputs of the model, a structure of tensors.
    """
    if not model.built:
        # For any batch size, as `fit` does: the inputs of the model keep it.
        trace(model, batch, None)


def trace(model: keras.Model, batch: Any, size: int | None) -> None:
    """Traces a call of the model with inputs like `batch`, but with `size` samples."""

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
    return traced(function, batch)(batch)


def traced(function: GraphFunction, batch: Any) -> Callable[[Any], Any]:
    """Returns the graph of a tf.function for arguments like `batch`, to be called."""
    return function.get_concrete_function(batch)


def prepare(function: GraphFunction, model: keras.Model, batch: Any) -> None:
    """Traces a tf.function for inputs of `model` of any size, if it takes them.

    Then a last batch of another size needs no second trace.

    Args:
        function: A tf.function of a batch of inputs.
        model: The model.
        batch: Such a batch.
    """
    inputs = getattr(model, "inputs", None) or []
    if all(tensor.shape[0] is None and not tensor.ragged for tensor in inputs):
        trace_for_any_size(function, batch)


def trace_for_any_size(function: GraphFunction, batch: Any) -> None:
    """Traces a tf.function for batches like `batch` of any size."""

    def spec(x):
        return tf.TensorSpec((None, *x.shape[1:]), x.dtype)

    function.get_concrete_function(keras.tree.map_structure(spec, batch))


def functions_run_eagerly() -> bool:
    """Whether TensorFlow is set to run functions without tracing them."""
    return tf.config.functions_run_eagerly()


def check_can_trace(caller: str) -> None:
    """Raises unless there are graphs for `caller`, the name of a function, to read."""
    if keras.backend.backend() != "tensorflow":
        raise RuntimeError(
            f"{caller} needs the TensorFlow back end, whose graph it reads. Received: "
            f"keras.backend.backend()={keras.backend.backend()!r}. Start Python with "
            "KERAS_BACKEND=tensorflow."
        )
    if functions_run_eagerly():
        raise RuntimeError(
            f"{caller} needs the model's graph. Received: "
            "tf.config.functions_run_eagerly()=True. Call "
            "tf.config.run_functions_eagerly(False) before it."
        )


def is_tf_function(function: Callable[..., Any]) -> bool:
    """Whether tf.function made `function`: it may have been traced already."""
    return hasattr(function, "get_concrete_function")


def current_graph() -> Any | None:
    """The graph that is being traced; None in eager mode."""
    return None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()


def current_scope() -> str:
    """The path of the scope in which new operations are made; "" outside of any."""
    return tf.get_current_name_scope()


def outside_graph() -> AbstractContextManager[None]:
    """Runs what is in this context at once, not in the graph that is being traced."""
    return tf.init_scope()


def graph_of(tensors: Any) -> Any | None:
    """The graph that tensors belong to; None for eager ones."""
    # A ragged tensor has no graph, but its parts have.
    for tensor in tf.nest.flatten(tensors, expand_composites=True):
        if tf.is_tensor(tensor):
            return getattr(tensor, "graph", None)
    return None


def origins(tensors: Iterable[Tensor]) -> set[Any]:
    """References to `tensors`, and to those that they were cast or reshaped from."""
    references = set()
    for tensor in tensors:
        while tf.is_tensor(tensor):
            references.add(tensor.ref())
            operation = getattr(tensor, "op", None)
            if operation is None or operation.type not in _KEEP_VALUES:
                break
            tensor = operation.inputs[0]
    return references
