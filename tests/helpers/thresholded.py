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


def batches(rng, steps, activation="gelu", size=64, units=64, scale=1.0):
    """A stack of batches of activations, whose samples and units differ in scale.

    `scale` is one for all batches, or one for each.
    """
    x = rng.normal(size=(steps, size, units)) * np.reshape(scale, (-1, 1, 1))
    x *= np.exp(0.3 * rng.normal(size=(steps, size, 1))) * np.linspace(0.5, 1.5, units)
    return ACTIVATIONS[activation](tf.constant(x, "float32"))


def batch(rng, *args, **kwargs):
    return batches(rng, 1, *args, **kwargs)[0]


def trainer(layer, jit_compile=False):
    """Returns a function that shows a batch to `layer` in training."""
    return tf.function(
        lambda x, mask=None: layer(x, training=True, mask=mask),
        reduce_retracing=True,
        jit_compile=jit_compile,
    )


def train_in_a_loop(layer, x):
    """Shows a stack of batches to `layer` in training; faster than a call for each."""
    if not layer.built:
        layer.build(x.shape[1:])
    loop = tf.function(lambda x: tf.map_fn(lambda x: layer(x, training=True), x))
    return loop(x)


def zeros(y, axis=None):
    return np.mean(np.asarray(y, "float32") == 0, axis=axis)
