"""What Keras tells a layer that it calls."""

import keras
import numpy as np
import pytest

from keras_sparseout.layers import call_context

L = keras.layers
X = np.ones((2, 3), "float32")


class Calling(L.Layer):
    """Calls a function inside its call, and keeps what it returned."""

    def __init__(self, function, **kwargs):
        super().__init__(**kwargs)
        self.function = function
        self.returned = None

    def call(self, x, training=False):
        self.returned = self.function()
        return x


@pytest.mark.parametrize("training", [False, True])
def test_a_function_inside_of_a_layer_knows_whether_it_trains(training):
    layer = Calling(call_context.is_training)
    Calling(lambda: layer(X))(X, training=training)
    assert layer.returned is training
    # The last call does not count outside of it.
    assert call_context.is_training() is False


def test_training_is_what_was_set_until_the_outermost_call_ends():
    inner = Calling(call_context.is_training)

    def function():
        inner(X, training=False)
        told = call_context.is_training()
        call_context.set_training(True)
        inner(X)
        return told, inner.returned

    layer = Calling(function)
    layer(X, training=True)
    assert layer.returned == (False, True)
    assert call_context.is_training() is False


@pytest.mark.parametrize(("dtype", "bits"), [("float32", 12), ("float64", 30)])
def test_weights_are_read_as_stored_in_mixed_precision(dtype, bits):
    variable = keras.Variable(np.array([1 + 2**-bits]), dtype=dtype)

    def read():
        return keras.ops.convert_to_numpy(variable.value)

    layer = Calling(
        lambda: (read(), call_context.without_autocast(read)), dtype="mixed_bfloat16"
    )
    layer(X)
    half, whole = layer.returned
    assert half.item() == 1
    assert whole.item() == 1 + 2**-bits


def test_a_symbolic_call_makes_weights_and_nothing_else():
    class Counting(L.Dense):
        def build(self, shape):
            super().build(shape)
            self.count = self.add_weight(shape=(), initializer="zeros", name="count")

        def call(self, x):
            self.count.assign_add(1.0)
            return super().call(x)

    layer = Counting(4)
    spec = call_context.call_symbolically(layer, X)
    assert spec.shape == (2, 4)
    assert len(layer.weights) == 3
    assert float(layer.count) == 0
