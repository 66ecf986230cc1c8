"""Compiles functions with XLA, also in models that are not compiled."""

import functools
import platform
from collections.abc import Callable, Sequence

import tensorflow as tf

from keras_sparseout.backend.tensorflow import numerics
from keras_sparseout.utils.types import Tensor


def pays(shape: Sequence[int | None]) -> bool:
    """Whether it pays to compile a function of tensors of `shape`.

    XLA compiles a program for each concrete shape, so every dimension but the batch has
    to be known.
    """
    return None not in shape[1:] and not on_apple_gpu()


@functools.cache
def on_gpu() -> bool:
    """Whether this machine has a GPU."""
    return bool(tf.config.list_physical_devices("GPU"))


def on_apple_gpu() -> bool:
    """Whether the GPU of this machine is one of Apple's, which have no XLA."""
    return platform.system() == "Darwin" and on_gpu()


compiled = functools.partial(
    tf.function, jit_compile=True, reduce_retracing=True, autograph=False
)


def around_compiled(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Traces a function that calls compiled ones, and checks no numbers in its body.

    The compiled functions can't switch the check off themselves: it would still see
    their arguments.
    """
    function = numerics.unchecked()(function)
    return tf.function(function, reduce_retracing=True, autograph=False)


def constant_program(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Compiles a function whose result is a constant for gradients."""
    program = compiled(function)
    call = around_compiled(lambda *arguments: program(*arguments))
    # Outside of the program, so that TensorFlow makes no gradient of it.
    return lambda *arguments: tf.stop_gradient(call(*arguments))


def either(
    condition: Callable[..., Tensor],
    one: Callable[..., Tensor],
    other: Callable[..., Tensor],
) -> Callable[..., Tensor]:
    """Returns a function that calls `one` where `condition` holds, `other` elsewhere.

    All of them take the same arguments. What is not called is not compiled.
    """

    def call(*arguments):
        return tf.cond(
            condition(*arguments),
            lambda: one(*arguments),
            lambda: other(*arguments),
        )

    return call


def with_gradient(
    value: Callable[..., Tensor], gradient: Callable[..., Tensor], *, keeps_x: bool
) -> Callable[..., Tensor]:
    """Joins a compiled function and its gradient with respect to the first argument.

    They are compiled apart. From one program with a gradient of its own XLA would
    return the value twice, and `x` as well.

    Args:
        value: Function of `x` and other tensors.
        gradient: Function of the upstream gradient, `x`, and the other tensors.
        keeps_x: Whether `x` is kept for the gradient. If not, the gradient gets the
            upstream gradient in its place.

    Returns:
        Function of `x` and the other tensors.
    """

    # A function around both, since TensorFlow never frees the graph in which a gradient
    # is defined: without it, that would be the graph of each model.
    @around_compiled
    def call(x, *others):
        @tf.custom_gradient
        def apply(x):
            def grad(upstream):
                with numerics.unchecked():
                    return gradient(upstream, x if keeps_x else upstream, *others)

            return value(x, *others), grad

        return apply(x)

    return call
