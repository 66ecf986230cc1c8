"""Compiling functions with XLA, also in models that are not."""

import functools
import platform

import tensorflow as tf

from keras_sparseout.backend.tensorflow import numerics


def pays(shape):
    """Whether what is done with tensors of `shape` gains by being compiled.

    XLA compiles anew for each concrete shape, so it does where every dimension but the
    batch is known.
    """
    return None not in shape[1:] and not on_apple_gpu()


@functools.cache
def on_apple_gpu():
    """Whether this is a machine of which the GPU has no XLA."""
    return platform.system() == "Darwin" and bool(
        tf.config.list_physical_devices("GPU")
    )


compiled = functools.partial(
    tf.function, jit_compile=True, reduce_retracing=True, autograph=False
)


def around_compiled(function):
    """A function around compiled ones, in whose body numbers are not checked.

    Not in the compiled ones themselves: their arguments would be checked.
    """
    function = numerics.unchecked()(function)
    return tf.function(function, reduce_retracing=True, autograph=False)


def generator():
    """The fastest generator of random bits here, by the name TensorFlow has for it."""
    # XLA alone has Threefry on every device, and `tf.config.run_functions_eagerly`
    # makes TensorFlow run these functions without it.
    return "philox" if tf.executing_eagerly() else "threefry"
