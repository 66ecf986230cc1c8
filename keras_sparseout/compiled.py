"""The algebra compiled with XLA, also in models that are not."""

import functools
import platform

import tensorflow as tf


def draw(function, x, rate, q, seed, shape, **settings):
    """`function(x, rate, q, seed, **settings)` as one compiled call.

    Its masks are not those of the plain one: it has another generator.

    Args:
        function: `ops.draw_and_perturb` or `ops.draw_multiplier`.
        rate: A float, or a scalar float32 tensor.
        q: A float or tensor, as `rate` is.
        shape: Tuple, the shape of `x`, with None for a size that changes.
        **settings: Its other arguments, constants.
    """
    if isinstance(rate, float):
        return _compiled(function, shape, rate, q, **settings)(x, seed)
    return _compiled(function, shape, None, None, **settings)(x, seed, rate, q)


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


# At module level: kept on a layer, the function and its random op would be exported by
# tf.saved_model.save. One for each shape too: shared by layers of several ranks, its
# traces would be generalised to an unknown rank.
@functools.cache
def _compiled(function, shape, rate, q, **settings):
    @tf.function(jit_compile=True, reduce_retracing=True, autograph=False)
    def call(x, seed, rate=rate, q=q):
        return function(x, rate, q, seed, alg="threefry", **settings)

    return call
