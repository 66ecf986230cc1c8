"""Bernoulli masks: 16 random bits an element, different on every replica."""

import numbers
from collections.abc import Sequence

import keras
from keras import ops

from keras_sparseout.backend import random, tensors
from keras_sparseout.utils.types import Shape, Tensor

_LEVELS = 2**16


def bernoulli(
    shape: Sequence[int | Tensor],
    rate: float | Tensor,
    seed: Tensor,
    *,
    alg: random.Generator = "philox",
) -> tuple[Tensor, float | Tensor]:
    """Draws a mask that drops each element with probability `rate`.

    It keeps an element if 16 random bits, read as an integer, are at least
    `t = round(rate * 65536)`. So it keeps each with the probability

        keep_prob = 1 - t / 65536

    which differs from `1 - rate` by at most 2^-17. Scale by `keep_prob`, not by
    `1 - rate`, and the mean of the scaled mask is exactly 1.

    Args:
        shape: Tuple of ints, and of scalar integer tensors for sizes that are not known
            while tracing, as `keras.ops.shape` returns it.
        rate: Probability of dropping, in [0, 1]: a number, or a scalar float32 tensor.
        seed: Integer tensor of shape (2,), see `seed_pair`. Equal seeds give equal
            masks.
        alg: Generator, `"philox"` or (inside XLA only, and the faster one there)
            `"threefry"`. The two give different masks for one seed.

    Returns:
        `(keep, keep_prob)`: a boolean tensor of `shape`, True where an element is kept,
        and the probability of True: a float for a number, a scalar float32 tensor for a
        tensor.

    Raises:
        RuntimeError: under another Keras backend than TensorFlow.

    Example:

    >>> keep, keep_prob = bernoulli((2, 3), 0.3, seed_pair(7))
    >>> keep.shape.as_list(), keep_prob
    ([2, 3], 0.6999969482421875)
    """
    _check_backend()
    threshold, keep_prob = quantise(rate)
    return random.bits_at_least(threshold, shape, seed, alg), keep_prob


def resolve(
    noise_shape: Shape | None, x: Tensor
) -> tuple[tuple[int | Tensor, ...], Tensor]:
    """Returns the shape of a mask of `noise_shape` for `x`, and `x`.

    Args:
        noise_shape: Tuple with one entry for each dimension of `x`: its size, 1, or
            None for its size; or None for the shape of `x`.
        x: Tensor.

    Returns:
        `(shape, x)`. If `noise_shape` gives a size that `x` does not have while
        tracing, `x` is asserted to have it when the graph runs: otherwise it would be
        broadcast.

    Example:

    >>> resolve((None, 1), np.ones((2, 3)))[0]
    (2, 1)
    """
    if noise_shape is None:
        return ops.shape(x), x
    sizes = [
        noise if dim is None and noise != 1 else dim
        for noise, dim in zip(noise_shape, x.shape, strict=True)
    ]
    if sizes != list(x.shape):
        x = tensors.ensure_shape(x, sizes)
    shape = tuple(
        dim if noise is None else noise
        for noise, dim in zip(noise_shape, ops.shape(x), strict=True)
    )
    return shape, x


def quantise(rate: float | Tensor) -> tuple[int | Tensor, float | Tensor]:
    """Returns `(t, keep_prob)` for `rate`: t = round(65536 rate), 1 - t / 65536.

    Args:
        rate: A number in [0, 1], or a scalar float32 tensor.

    Returns:
        An int and a float, or scalar tensors of int32 and float32.

    Example:

    >>> quantise(0.3)
    (19661, 0.6999969482421875)
    """
    if isinstance(rate, numbers.Real):
        threshold = round(float(rate) * _LEVELS)
        return threshold, (_LEVELS - threshold) / _LEVELS
    # Through int32: 65536 does not fit uint16, and XLA casts to unsigned otherwise.
    threshold = ops.cast(ops.round(rate * _LEVELS), "int32")
    return threshold, ops.cast(_LEVELS - threshold, "float32") / _LEVELS


def seed_pair(
    seed: int | keras.random.SeedGenerator | Tensor | None = None,
) -> Tensor:
    """Returns the two int64 numbers that a mask is drawn from.

    Under `tf.distribute` each replica gets numbers of its own, by a hash of the
    replica's number.

    Args:
        seed: A `keras.random.SeedGenerator` (which steps on), an integer, an integer
            tensor of shape (2,), or None for a new draw from Keras' global generator,
            which `keras.utils.set_random_seed` sets.

    Returns:
        int64 tensor of shape (2,).

    Raises:
        RuntimeError: under another Keras backend than TensorFlow.

    Example:

    >>> seed_pair(7).numpy().tolist()
    [7, 0]
    """
    _check_backend()
    if seed is None:
        pair = keras.random.randint((2,), 0, 2**31 - 1, dtype="int64")
    elif isinstance(seed, keras.random.SeedGenerator):
        pair = seed.next()
    elif isinstance(seed, numbers.Integral):
        pair = ops.convert_to_tensor([int(seed), 0], "int64")
    else:
        pair = seed
    # int64: with 32 bits two of 200,000 steps collide more often than not.
    return random.fold_in_replica(ops.cast(pair, "int64"))


def _check_backend() -> None:
    if keras.backend.backend() != "tensorflow":
        raise RuntimeError(
            "Masks are drawn with TensorFlow. Received: "
            f"keras.backend.backend()={keras.backend.backend()!r}. Set the environment "
            "variable KERAS_BACKEND=tensorflow before Keras is imported, or pass "
            "`mask` to keras_sparseout.ops.sparseout."
        )
