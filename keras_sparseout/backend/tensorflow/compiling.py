"""Compiles functions with XLA, also in models that are not compiled."""

import functools
import math
import platform
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_sparseout.backend.tensorflow import numerics
from keras_sparseout.utils.types import Tensor


def pays(shape: Sequence[int | None]) -> bool:
    """Whether it pays to compile a function of tensors of `shape`.

    XLA compiles a program for each concrete shape, so every dimension but the batch has
    to be known.
    """
    return None not in shape[1:] and not on_apple_gpu()


def is_large(shape: Sequence[int | None]) -> bool:
    """Whether a tensor has so many elements that programs for its shape alone pay.

    It takes .1 seconds to compile one, and TensorFlow keeps it for ever. A batch of
    unknown size counts as one of 64.
    """
    return _size(shape, batch=64) >= 2**15


def is_small(shape: Sequence[int | None]) -> bool:
    """Whether plain operations on all elements are as fast as a compiled program.

    A batch of unknown size counts as one of 128, so that large ones lose little.
    """
    return _size(shape, batch=128) < 2**13


def _size(shape, batch):
    """Number of elements. Unknown sizes, such as the length of a text, are 1,024."""
    usual = [batch] + [1024] * (len(shape) - 1)
    sizes = (
        guess if size is None else size
        for size, guess in zip(shape, usual, strict=False)
    )
    return math.prod(sizes)


@functools.cache
def on_gpu() -> bool:
    """Whether this machine has a GPU."""
    return bool(tf.config.list_physical_devices("GPU"))


def on_apple_gpu() -> bool:
    """Whether the GPU of this machine is one of Apple's, which have no XLA."""
    return platform.system() == "Darwin" and on_gpu()


def has_branches() -> bool:
    """Whether `either` is there, and no device has to wait for its condition."""
    return keras.backend.backend() == "tensorflow" and not on_gpu()


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


def traced_once(
    function: Callable[..., Tensor],
    kinds: Sequence[tuple[Sequence[int | None], str]],
) -> Callable[..., Tensor]:
    """Makes one graph of a function, not compiled, and checks no numbers in its body.

    Args:
        function: Function of tensors.
        kinds: Shape and dtype of each, with None for a size that may be any.
    """
    function = numerics.unchecked()(function)
    signature = [tf.TensorSpec(shape, dtype) for shape, dtype in kinds]
    return tf.function(function, input_signature=signature, autograph=False)


def cached(make: Callable[..., Any]) -> Callable[..., Any]:
    """Keeps the functions that `make` makes, others while numbers are checked.

    What is traced during `tf.debugging.enable_check_numerics()` checks its arguments,
    and the gradients that come into it, for as long as it is kept. As with
    `functools.lru_cache`, `cache_info` and `cache_clear` are attributes.
    """

    @functools.lru_cache(maxsize=128)
    def kept(is_checking, *arguments, **settings):
        return make(*arguments, **settings)

    @functools.wraps(make)
    def find(*arguments, **settings):
        return kept(numerics.is_checking(), *arguments, **settings)

    vars(find).update(cache_info=kept.cache_info, cache_clear=kept.cache_clear)
    return find


def constant_program(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Compiles a function whose result is a constant for gradients."""
    program = compiled(function)
    call = around_compiled(lambda *arguments: program(*arguments))
    # Outside of the program, so that TensorFlow makes no gradient of it.
    return lambda *arguments: tf.stop_gradient(call(*arguments))


def either(
    condition: Callable[..., Tensor],
    one: Callable[..., Any],
    other: Callable[..., Any],
    with_gradients: int,
) -> Callable[..., Any]:
    """Returns a function that calls `one` where `condition` holds, `other` elsewhere.

    What is not called is not compiled. The gradient is a choice of the same kind. The
    gradient of `tf.cond` would store what XLA can't compile, and has no forward mode.

    Args:
        condition: Function of the arguments of the other two.
        one: Function of tensors.
        other: Function of the same tensors.
        with_gradients: How many of them, from the first on, have gradients.
    """

    def call(*arguments):
        if tf.executing_eagerly():
            # As tf.config.run_functions_eagerly(True) asks.
            return (one if condition(*arguments) else other)(*arguments)
        # In this graph, where gradients of any order find them.
        arguments = tuple(tf.identity(argument) for argument in arguments)

        @tf.custom_gradient
        def choose(*inputs):
            inputs = (*inputs, *arguments[with_gradients:])

            def grad(*upstream):
                n = len(upstream)
                choice = either(
                    lambda *arguments: condition(*arguments[n:]),
                    _gradients(one, n, with_gradients),
                    _gradients(other, n, with_gradients),
                    n + with_gradients,
                )
                return choice(*upstream, *inputs)

            result = tf.cond(
                condition(*inputs), lambda: one(*inputs), lambda: other(*inputs)
            )
            return result, grad

        return choose(*arguments[:with_gradients])

    return call


def _gradients(function, n, count):
    """Returns the function of `n` upstream gradients and the arguments of `function`.

    It returns the gradients with respect to the first `count` arguments.
    """

    def gradients(*arguments):
        upstream, arguments = arguments[:n], arguments[n:]
        inputs = list(arguments[:count])
        values = function(*arguments)
        return tf.gradients(
            values, inputs, list(upstream), unconnected_gradients="zero"
        )

    return gradients


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
