"""Which units of a sample are perturbed: those with the smallest |x|."""

import math

import keras
from keras import ops

from keras_sparseout.ops.multiplier import largest
from keras_sparseout.utils.types import Shape, Tensor


def limits(x: Tensor, target_fraction: float, noise_shape: Shape | None) -> Tensor:
    """Returns the limits below which |x| is perturbed, one or more for each sample.

    Of the m units of a sample those are perturbed that are smaller than the one of rank
    int(target_fraction m), counted from 0. Units that tie with it are not. So at most
    int(target_fraction m) of them are.

    The units are told by `unit_axes`. The size of a unit of several elements is its L2
    norm: its limit is then the largest finite number, or 0. NaN counts as infinite.

    Args:
        x: Floating-point tensor of known rank, at least 2, with the samples first.
        target_fraction: A number >= 0 and < 1.
        noise_shape: Shape of the mask, as in `sparseout`.

    Returns:
        Tensor that broadcasts to `x`, in the dtype of products with it; a constant for
        gradients.

    Source: the code of Khan & Stavness (2020), "Pruning Convolutional Filters using
        Batch Bridgeout", https://arxiv.org/abs/2009.10893.

    Example:

    >>> x = np.array([[3.0, -1.0, 0.5, 2.0]], "float32")
    >>> limits(x, 0.5, None).numpy().tolist()
    [[2.0]]
    """
    dtype = keras.backend.standardize_dtype(x.dtype)
    wide = "float64" if dtype == "float64" else "float32"
    rank = len(x.shape)
    sizes = ops.cast(ops.abs(ops.stop_gradient(x)), wide)
    axes = unit_axes(noise_shape, rank)
    if axes:
        # In float64 no square overflows, and the order of the sums, which compilers
        # choose, does not decide between two units.
        squares = ops.square(ops.cast(sizes, "float64"))
        sizes = ops.sqrt(ops.sum(squares, axis=axes, keepdims=True))
        sizes = ops.cast(sizes, wide)
    sizes = ops.where(ops.isnan(sizes), ops.cast(math.inf, wide), sizes)
    batch, *others = ops.shape(sizes)
    # Not -1, which an empty batch leaves open.
    rows = ops.reshape(sizes, (batch, math.prod(others)))
    found = ops.reshape(_ranked(rows, target_fraction), (batch, *[1] * (rank - 1)))
    if axes:
        # Not infinite, which tf.debugging.enable_check_numerics() would find.
        unlimited = ops.convert_to_tensor(largest(wide), wide)
        found = ops.where(sizes < found, unlimited, ops.zeros_like(unlimited))
    return ops.stop_gradient(found)


def unit_axes(noise_shape: Shape | None, rank: int) -> tuple[int, ...]:
    """Returns the axes along which elements are one unit, none if each is one.

    Elements of a sample that share a draw are one unit. If none do, each element is a
    unit, but from rank 4 on, where the inputs are feature maps, each channel is.

    Args:
        noise_shape: Shape of the mask, 1 where elements share a draw; None for the
            shape of the inputs.
        rank: Rank of the inputs.

    Example:

    >>> unit_axes(None, 3), unit_axes(None, 4), unit_axes((None, 1, None), 3)
    ((), (1, 2), (1,))
    """
    shared = tuple(i for i, size in enumerate(noise_shape or ()) if i and size == 1)
    return shared or (tuple(range(1, rank - 1)) if rank >= 4 else ())


def _ranked(rows, share):
    """Returns the value of rank int(share m) of each row of m values, as a column.

    It is found bit by bit, with a count for each bit: a tenth of the time of sorting
    under XLA, and half without. As integers the bits of values >= 0 have their order.

    Args:
        rows: Matrix of numbers >= 0, without NaN.
        share: A number >= 0 and < 1.
    """
    kind = keras.backend.standardize_dtype(rows.dtype).replace("float", "int")
    batch, size = ops.shape(rows)
    rank = ops.cast(share * ops.cast(size, "float64"), "int32")
    # With a last size that is known, as a view needs it.
    bits = ops.view(ops.reshape(rows, (batch, size, 1)), kind)

    # Without the one of the sign.
    places = 31 if kind == "int32" else 63

    # Counted, so that a compiler knows how often, and a GPU need not ask.
    def take_or_leave(place, found):
        higher = found + ops.left_shift(ops.ones((), kind), places - 1 - place)
        smaller = ops.sum(ops.cast(bits < higher, "int32"), axis=1, keepdims=True)
        return place + 1, ops.where(smaller <= rank, higher, found)

    start = ops.zeros((), kind), ops.zeros((batch, 1, 1), kind)
    _, found = ops.while_loop(lambda place, _: place < places, take_or_leave, start)
    return ops.reshape(ops.view(found, rows.dtype), (batch, 1))
