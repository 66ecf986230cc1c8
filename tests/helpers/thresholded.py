"""Batches for TargetSparsity, and how they are shown to it."""

import keras
import numpy as np
import tensorflow as tf


def gated(x):
    """A gated unit of pairs of values."""
    return keras.ops.silu(x) * keras.ops.flip(x, axis=-1)


ACTIVATIONS = {
    "relu": keras.ops.relu,
    "gelu": keras.ops.gelu,
    "tanh": keras.ops.tanh,
    "silu": keras.ops.silu,
    "gated": gated,
}


def batch(rng, activation="gelu", size=64, units=64, scale=1.0):
    """Activations of a batch, whose samples and units differ in scale."""
    x = rng.normal(size=(size, units)) * scale
    x *= np.exp(0.3 * rng.normal(size=(size, 1))) * np.linspace(0.5, 1.5, units)
    return ACTIVATIONS[activation](tf.constant(x, "float32"))


def trainer(layer, jit_compile=False):
    """Returns a function that shows a batch to `layer` in training."""
    return tf.function(
        lambda x, mask=None: layer(x, training=True, mask=mask),
        reduce_retracing=True,
        jit_compile=jit_compile,
    )


def zeros(y, axis=None):
    return np.mean(np.asarray(y, "float32") == 0, axis=axis)
