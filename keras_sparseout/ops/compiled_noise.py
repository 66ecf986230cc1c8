"""Drawn noise as programs compiled with XLA, also in models that are not compiled.

One program serves all rates, and all exponents but those that come down to roots: a
power takes longer. Each shape has programs of its own. If layers of several ranks
shared one, TensorFlow would trace it for an unknown rank.

The programs are kept at module level. tf.saved_model.save would export what a layer
keeps, random operation and all. A program that the cache drops lives on in the graphs
that call it.
"""

import functools
from collections.abc import Callable
from typing import Any

from keras import ops

from keras_sparseout.backend import compiling, random
from keras_sparseout.ops import masks, noise
from keras_sparseout.ops.multiplier import is_cheap, multiplier
from keras_sparseout.utils.types import Shape, Tensor

_cached = functools.lru_cache(maxsize=128)


def draw_and_perturb(
    x: Tensor,
    rate: float | Tensor,
    q: float | Tensor,
    seed: Tensor,
    shape: Shape,
    **settings: Any,
) -> Tensor:
    """`noise.draw_and_perturb` as one compiled call.

    Its masks differ from the masks of `noise.draw_and_perturb`: the generator differs.

    Args:
        x: Floating-point tensor.
        rate: A float in [0, 1], or a scalar float32 tensor.
        q: A float >= 0, or a scalar float32 tensor.
        seed: Integer tensor of shape (2,), from `masks.seed_pair`.
        shape: The shape of `x`, with None for a size that changes.
        **settings: `noise_shape`, `epsilon` and `stop_gradient`.
    """
    if isinstance(rate, float) and masks.quantise(rate)[0] == 0:
        return x
    program = _perturbing_program(shape, _constant(q), **settings)
    return program(x, *_as_tensors(rate, q), seed)


def draw_multiplier(
    x: Tensor,
    rate: float | Tensor,
    q: float | Tensor,
    seed: Tensor,
    shape: Shape,
    **settings: Any,
) -> Tensor:
    """The n of `draw_and_perturb` as one compiled call, a constant for gradients.

    The caller multiplies `x` by it. Neither this product nor its gradient is saturated.

    Args:
        **settings: `noise_shape` and `epsilon`. The other arguments are as in
            `draw_and_perturb`.

    Returns:
        Tensor of a shape that broadcasts to `x`.
    """
    program = _multiplying_program(shape, _constant(q), **settings)
    return program(x, *_as_tensors(rate, q), seed)


def _constant(q: float | Tensor) -> float | None:
    """Returns `q` if its program has it as a constant, None if as an argument."""
    return q if is_cheap(q) else None


def _as_tensors(rate: float | Tensor, q: float | Tensor) -> tuple[Tensor, Tensor]:
    if isinstance(rate, float):
        # The quantised rate is exact in float32, `rate` itself is not.
        _, keep_prob = masks.quantise(rate)
        rate = ops.convert_to_tensor(1 - keep_prob, "float32")
    if isinstance(q, float):
        # In float64, so that the exponent is rounded as a constant exponent is.
        q = ops.convert_to_tensor(q, "float64")
    return rate, q


@_cached
def _multiplying_program(
    shape: Shape,
    constant: float | None,
    *,
    noise_shape: Shape | None,
    epsilon: float,
) -> Callable[..., Tensor]:
    def draw(x, rate, q, seed):
        q = q if constant is None else constant
        x, keep, keep_prob = _draw(noise_shape, ops.stop_gradient(x), rate, seed)
        return multiplier(x, keep, keep_prob, q, epsilon)

    return compiling.constant_program(draw)


@_cached
def _perturbing_program(
    shape: Shape,
    constant: float | None,
    *,
    noise_shape: Shape | None,
    **settings: Any,
) -> Callable[..., Tensor]:
    def value(x, rate, q, seed):
        q = q if constant is None else constant
        x, keep, keep_prob = _draw(noise_shape, x, rate, seed)
        return noise.value(x, keep, keep_prob, q, **settings), keep

    def gradient(upstream, x, keep, rate, q, seed):
        q = q if constant is None else constant
        _, keep_prob = masks.quantise(rate)
        return noise.gradient(upstream, x, keep, keep_prob, q, **settings)

    return compiling.program_with_gradient(value, gradient)


def _draw(noise_shape, x, rate, seed):
    shape, x = masks.resolve(noise_shape, x)
    generator = random.compiled_generator()
    return x, *masks.bernoulli(shape, rate, seed, alg=generator)
