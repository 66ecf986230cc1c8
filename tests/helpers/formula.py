"""The formula of Sparseout in NumPy, and what its tests share."""

import numpy as np
import tensorflow as tf

from keras_sparseout import ops

DTYPES = ("float16", "bfloat16", "float32", "float64")
# Each dtype plain and compiled with XLA. That takes long, and computes bfloat16 in
# float32 as it does float16.
DTYPES_AND_MODES = (
    *((dtype, False) for dtype in DTYPES),
    *((dtype, True) for dtype in DTYPES if dtype != "bfloat16"),
)
QS = (0.0, 0.5, 1.0, 1.3, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 8.0)
BOTH = (True, False)
EPSILON = 1e-7  # Keras' default
# A number itself, or in a float32 tensor.
FORMS = (float, tf.constant)


def value_and_gradient(x, upstream, rate, q, stop_gradient=True, **kwargs):
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = ops.sparseout(x, rate, q, stop_gradient=stop_gradient, **kwargs)
    return y, tape.gradient(y, x, output_gradients=upstream)


def compile_if(compiled, function):
    if not compiled:
        return function
    return tf.function(function, jit_compile=True, autograph=False)


def as_float64(tensor):
    return tf.cast(tensor, tf.float64).numpy()


def reference(x, keep, keep_prob, q, epsilon=EPSILON):
    """The value x n and the multiplier n of the formula, in float64."""
    n = 1 + (np.abs(x) + epsilon) ** ((q - 2) / 2) * (keep / keep_prob - 1)
    return x * n, n


def signed(rng, shape, dtype="float32"):
    """Numbers of either sign, far enough from 0 for a finite difference."""
    return tf.cast(rng.uniform(0.3, 2, shape) * rng.choice([-1, 1], shape), dtype)
