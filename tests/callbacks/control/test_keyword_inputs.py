"""What acts on the inputs of layers does so where calls give them by keyword."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as L

from keras_sparseout.callbacks.control import push_weights
from keras_sparseout.callbacks.control.macs_reader import _silenced
from keras_sparseout.callbacks.control.penalty_push import PenaltyPush
from keras_sparseout.measure.watched_layer import WatchedLayer

X = np.random.default_rng(0).normal(size=(4, 8)).astype("float32")


class Scaled(L.Layer):
    def call(self, x, factor=1.0):
        return factor * x


CALLS = [
    (Scaled(), {"factor": 2.0, "x": X}),
    (Scaled(), {"x": X, "factor": 2.0}),
    (L.Dense(8, kernel_initializer="identity"), {"training": False, "inputs": X}),
]


def pushed(layer, args, kwargs):
    """The gradient with respect to X, with the push of a penalty."""
    x = tf.constant(X)
    args = [x if a is X else a for a in args]
    kwargs = {key: x if a is X else a for key, a in kwargs.items()}
    measured = keras.Variable(np.zeros((push_weights.PARTS, 1), "float32"))
    watched = WatchedLayer("a", layer, "input", False)
    push = PenaltyPush(keras.Model(), watched, "l1", 100, measured, 0)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = push.around(tf.constant(0.5))(layer.call, *args, **kwargs)
    return tape.gradient(y, x).numpy()


@pytest.mark.parametrize(("layer", "kwargs"), CALLS)
def test_a_push_of_the_input(layer, kwargs):
    layer(**kwargs)
    others = {key: value for key, value in kwargs.items() if value is not X}
    found = pushed(layer, (), kwargs)
    np.testing.assert_array_equal(found, pushed(layer, (X,), others))
    assert len(np.unique(found)) == 2


@pytest.mark.parametrize(("layer", "kwargs"), CALLS)
def test_an_input_is_silenced(layer, kwargs):
    layer(**kwargs)
    seen = []

    def call(**kwargs):
        seen.append(kwargs)
        return layer.call(**kwargs)

    _silenced(WatchedLayer("a", layer, "input", False))(call, **kwargs)
    [found] = [np.asarray(v) for k, v in seen[0].items() if kwargs[k] is X]
    np.testing.assert_array_equal(found, 0 * X)
