"""What the tests of penalties share."""

import numpy as np
import tensorflow as tf


def normal(*shape):
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def loss(layer, x, **kwargs):
    """Returns the one loss that a call adds; asserts that the call passes `x` on."""
    y = layer(x, **kwargs)
    np.testing.assert_array_equal(y, x)
    (added,) = layer.losses
    return float(added)


def gradient(layer, x, **kwargs):
    with tf.GradientTape() as tape:
        tape.watch(x)
        layer(x, **kwargs)
    return tape.gradient(layer.losses, x)
