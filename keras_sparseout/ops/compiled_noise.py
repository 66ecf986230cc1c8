"""The algebra compiled with XLA, also in models that are not."""

import functools

import tensorflow as tf

from keras_sparseout.backend import compiling, numerics
from keras_sparseout.ops import masks, noise


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
        threshold, keep_prob = masks.quantise(rate)
        if threshold == 0 and function is noise.draw_and_perturb:
            return x
        # Exact in float32, as `rate` itself is not.
        rate = tf.constant(1 - keep_prob, tf.float32)
    constant = q if noise.is_cheap(q) else None
    if isinstance(q, float):
        # In full, so that the exponent is rounded as that of a constant is.
        q = tf.constant(q, tf.float64)
    program = _multiplier if function is noise.draw_multiplier else _perturbed
    return program(shape, constant, **settings)(x, rate, q, seed)


# One program serves all rates, and all exponents but those that come down to roots:
# a power takes longer. It is one for each shape: shared by layers of several ranks, its
# traces would be generalised to an unknown rank.
#
# At module level: kept on a layer, the functions and their random op would be exported
# by tf.saved_model.save. What is dropped here lives on in the graphs that call it.
_cached = functools.lru_cache(maxsize=128)


@_cached
def _multiplier(shape, constant, **settings):
    @compiling.compiled
    def draw(x, rate, q, seed):
        q = q if constant is None else constant
        return noise.draw_multiplier(
            x, rate, q, seed, alg=compiling.generator(), **settings
        )

    call = compiling.around_compiled(lambda *args: draw(*args))
    # Outside, so that no gradient of the program is ever made.
    return lambda *args: tf.stop_gradient(call(*args))


@_cached
def _perturbed(shape, constant, *, noise_shape, **settings):
    # Value and gradient are a program each: of one with a gradient of its own XLA would
    # return the value twice, and x as well.
    @compiling.compiled
    def forward(x, rate, q, seed):
        q = q if constant is None else constant
        shape, x = masks.resolve(noise_shape, x)
        keep, keep_prob = masks.bernoulli(shape, rate, seed, alg=compiling.generator())
        return noise.value(x, keep, keep_prob, q, **settings), keep

    @compiling.compiled
    def backward(upstream, x, keep, rate, q):
        q = q if constant is None else constant
        _, keep_prob = masks.quantise(rate)
        return noise.gradient(upstream, x, keep, keep_prob, q, **settings)

    # A function around both: TensorFlow keeps the graph in which a gradient is defined
    # for ever, which would be that of each model.
    @compiling.around_compiled
    def call(x, rate, q, seed):
        @tf.custom_gradient
        def apply(x):
            value, keep = forward(x, rate, q, seed)

            def grad(upstream):
                with numerics.unchecked():
                    return backward(upstream, x, keep, rate, q)

            return value, grad

        return apply(x)

    return call
