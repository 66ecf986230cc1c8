"""Bernoulli masks: 32 random bits an element, different on every replica."""

import numbers
from collections.abc import Callable, Sequence
from typing import NamedTuple

import keras
from keras import ops

from keras_sparseout.backend import random, tensors
from keras_sparseout.utils import counter_hash, validation
from keras_sparseout.utils.types import Shape, Tensor

_LEVELS = counter_hash.LEVELS


def bernoulli(
    shape: Sequence[int | Tensor],
    rate: float | Tensor,
    seed: Tensor,
    offset: int | Tensor = 0,
) -> tuple[Tensor, float | Tensor]:
    """Draws a mask that drops each element with probability `rate`.

    It keeps an element if 32 random bits, read as an integer, are at least
    t = round(2^32 rate). So it keeps each with the probability

        keep_prob = 1 - t / 2^32

    which is `1 - rate` to 2^-33, and exact for 0 and 1. Scale by it.

    Element i, counted in row-major order, depends on `seed` and `offset + i` alone. So
    a seed gives the same mask with XLA and without, on every machine. A part of a mask
    can be computed alone: with c columns, the rows from r on have the offset `r * c`.

    Args:
        shape: Tuple of ints, and of scalar integer tensors for sizes that are not known
            while tracing, as `keras.ops.shape` returns it.
        rate: Probability of dropping, in [0, 1]: a number, or a scalar float32 tensor.
        seed: Integer tensor of shape (2,), see `seed_pair`. Equal seeds give equal
            masks.
        offset: Number of the mask's first element, from 0 to 2^63 - 1: an int, or a
            scalar integer tensor.

    Returns:
        `(keep, keep_prob)`: a boolean tensor of `shape`, True where an element is kept,
        and the probability of True: a float for a number, a scalar float32 tensor for a
        tensor.

    Raises:
        ValueError: if `rate` or `offset` is a number out of range, one of them is a
            tensor that is no scalar, or `seed` is no pair of integers.
        RuntimeError: under another Keras backend than TensorFlow.

    Sources: as in `utils.counter_hash`, which defines the bits.

    Example:

    >>> keep, keep_prob = bernoulli((2, 3), 0.25, seed_pair(7))
    >>> keep.numpy().tolist(), keep_prob
    ([[False, False, True], [True, True, False]], 0.75)
    >>> bernoulli((3,), 0.25, seed_pair(7), offset=3)[0].numpy().tolist()
    [True, True, False]
    """
    _check_backend()
    _check_offset(offset)
    threshold, keep_prob = quantise(_check_rate(rate))
    seed = check_pair(seed)
    return random.bits_at_least(threshold, shape, seed, offset), keep_prob


class Rows(NamedTuple):
    """Rows that were looked up in a table.

    Attributes:
        numbers: Integer tensor of any shape: which rows, each >= 0.
        shape: The shape of the mask of the whole table, two ints.
    """

    numbers: Tensor
    shape: tuple[int, int]


def bernoulli_rows(
    rows: Rows, rate: float | Tensor, seed: Tensor
) -> tuple[Tensor, float | Tensor]:
    """Draws only some rows of the mask that `bernoulli` draws for a table.

    Args:
        rows: Which rows, and the shape of the whole mask.
        rate: As in `bernoulli`.
        seed: As in `bernoulli`.

    Returns:
        `(keep, keep_prob)` as in `bernoulli`; `keep` has the shape of the numbers of
        the rows, with the columns behind it.

    Example:

    >>> seed = seed_pair(7)
    >>> whole, _ = bernoulli((5, 4), 0.5, seed)
    >>> rows = Rows(np.array([3, 0, 3]), (5, 4))
    >>> some, _ = bernoulli_rows(rows, 0.5, seed)
    >>> bool((some.numpy() == whole.numpy()[[3, 0, 3]]).all())
    True
    """
    threshold, keep_prob = quantise(rate)
    return random.bits_of_rows_at_least(threshold, *rows, seed), keep_prob


def drawing(
    noise_shape: Shape | None, table: tuple[int, int] | None, **how: bool
) -> Callable[..., tuple[Tensor, Tensor, Tensor]]:
    """Returns a function of x, a threshold, a seed pair, and the numbers of rows.

    It draws a mask for x. It returns x, the mask, and the probability of True in it, in
    the dtype of products with x.

    Args:
        noise_shape: As in `resolve`.
        table: If x was looked up in a table: the shape of it. Then `noise_shape` does
            not count, and the function takes the numbers of the rows.
        **how: `at_once` and `is_one_block`, as in `backend.random.bits_at_least`.
    """

    def draw(x, threshold, seed, numbers=None):
        if table is None:
            shape, x = resolve(noise_shape, x)
            keep = random.bits_at_least(threshold, shape, seed, **how)
        else:
            keep = random.bits_of_rows_at_least(threshold, numbers, table, seed)
        dtype = keras.backend.standardize_dtype(x.dtype)
        wide = "float64" if dtype == "float64" else "float32"
        return x, keep, keep_prob_of(threshold, wide)

    return draw


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
    """Returns `(t, keep_prob)` for `rate`: t = round(2^32 rate), 1 - t / 2^32.

    Args:
        rate: A number in [0, 1], or a scalar float32 tensor.

    Returns:
        An int and a float, or scalar tensors of int64 and float32.

    Example:

    >>> quantise(0.3)
    (1288490189, 0.6999999999534339)
    """
    if isinstance(rate, numbers.Real):
        threshold = round(float(rate) * _LEVELS)
        return threshold, (_LEVELS - threshold) / _LEVELS
    # float32 times 2^32 is exact, half precision overflows.
    rate = ops.cast(rate, "float32")
    threshold = ops.cast(ops.round(rate * _LEVELS), "int64")
    return threshold, keep_prob_of(threshold, "float32")


def drops_nothing(rate: float | Tensor) -> bool:
    """Whether `rate` is a number that masks round to 0."""
    return isinstance(rate, float) and quantise(rate)[0] == 0


def keep_prob_of(threshold: Tensor, dtype: str) -> Tensor:
    """Returns 1 - t / 2^32 for a threshold t in a scalar int64 tensor."""
    return ops.cast(_LEVELS - threshold, dtype) / _LEVELS


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
        pair = check_pair(seed)
    return random.seed_of_replica(pair)


def check_scalar(name: str, tensor: Tensor) -> Tensor:
    """Returns `tensor`; raises unless it is a scalar."""
    shape = validation.shape_of(tensor)
    if shape != ():
        raise ValueError(
            f"`{name}`, where it is a tensor, must be a scalar. Received: {name} of "
            f"shape {shape or 'unknown'}. Give one number for all elements."
        )
    return tensor


def check_pair(seed: Tensor | Sequence[int]) -> Tensor:
    """Returns `seed` as a tensor; raises unless it is a pair of integers."""
    pair = ops.convert_to_tensor(seed)
    dtype = keras.backend.standardize_dtype(pair.dtype)
    if "int" not in dtype or tuple(pair.shape) != (2,):
        raise ValueError(
            "`seed`, where it is a tensor, must be of integers and of shape (2,). "
            f"Received: seed of dtype {dtype} and shape {tuple(pair.shape)}. Make one "
            "with keras_sparseout.ops.masks.seed_pair."
        )
    return pair


def _check_rate(rate):
    if ops.is_tensor(rate):
        return check_scalar("rate", rate)
    return validation.check_rate(rate)


def _check_offset(offset):
    if ops.is_tensor(offset):
        check_scalar("offset", offset)
        is_right = "int" in keras.backend.standardize_dtype(offset.dtype)
    else:
        is_right = validation.is_int(offset) and 0 <= offset < 2**63
    if not is_right:
        raise ValueError(
            "`offset`, the number of the first element, must be an integer from 0 to "
            f"2^63 - 1, or a scalar integer tensor. Received: offset={offset!r}. Leave "
            "it out for a whole mask."
        )


def _check_backend() -> None:
    if keras.backend.backend() != "tensorflow":
        raise RuntimeError(
            "Masks are drawn with TensorFlow. Received: "
            f"keras.backend.backend()={keras.backend.backend()!r}. Set the environment "
            "variable KERAS_BACKEND=tensorflow before Keras is imported, or pass "
            "`mask` to keras_sparseout.ops.sparseout."
        )
