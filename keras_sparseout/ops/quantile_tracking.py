"""Follows the quantile of |x| from batch to batch, without sorting."""

from typing import NamedTuple

import keras
from keras import ops

from keras_sparseout.utils.types import Shape, Tensor

# Rows of the state of a tracker.
WIDTH, PEAK, COUNT, ZEROS, TARGET = range(5)
ROWS = 5
# How many elements of a batch are looked at, and at least how many of each unit.
BUDGET, OF_EACH_UNIT = 2**14, 128
_PRIMES = (
    *(1, 2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71),
    *(79, 89, 97, 107, 113, 127, 139, 151, 167, 181, 199, 223, 241, 263, 293, 317),
    *(347, 383, 421, 461, 509, 557, 613, 673, 743, 821, 907, 997, 1097, 1213, 1327),
    *(1459, 1607, 1777, 1949, 2141, 2357, 2593, 2851, 3137, 3449, 3793, 4177, 4591),
    *(5051, 5557, 6113, 6733, 7411, 8147, 8963, 9859, 10847, 11933, 13127, 14437),
    *(15881, 17471, 19219, 21143, 23251, 25577, 28141, 30949, 34057, 37463, 41203),
    *(65537, 131071, 262147, 524287, 1048583),
)


class Sample(NamedTuple):
    """Elements of a batch: vectors, or rows with a column for each unit.

    `counts` is 1 where an element counts and 0 in padding; None if all of them count.
    """

    values: Tensor
    counts: Tensor | None


def sample(x: Tensor, mask: Tensor | None, units: int | None) -> Sample:
    """Takes elements of `x`, spread evenly over samples, positions and channels.

    Args:
        x: Tensor of at least one dimension, if `units` is given.
        mask: Boolean tensor of the first dimensions of `x`, or None.
        units: Size of the last dimension of `x` to look at each unit, None to look at
            all elements together.
    """
    last = (-1,) if units is None else (-1, units)
    x = ops.stop_gradient(x)
    if mask is not None:
        ones = [1] * (len(x.shape) - len(mask.shape))
        mask = ops.reshape(ops.cast(mask, "bool"), (*ops.shape(mask), *ones))
        whole = ops.shape(x) if units is None else (*ops.shape(x)[:-1], 1)
        mask = ops.reshape(
            ops.broadcast_to(mask, whole), (-1,) if units is None else (-1, 1)
        )
    flat = ops.reshape(x, last)
    most = BUDGET if units is None else max(BUDGET // max(units, 1), OF_EACH_UNIT)
    sizes = x.shape[1:] if units is None else x.shape[1:-1]
    stride = _stride(ops.shape(flat)[0], most, sizes if x.shape.rank else ())
    if stride is not None:
        flat = flat[::stride]
        mask = mask if mask is None else mask[::stride]
    return Sample(flat, None if mask is None else ops.cast(mask, "float32"))


def _stride(rows, most: int, sizes: Shape):
    """The distance of the elements to take: a prime that divides none of `sizes`."""
    primes = [p for p in _PRIMES if p == 1 or not any(n and n % p == 0 for n in sizes)]
    if isinstance(rows, int):
        return None if rows <= most else next(p for p in primes if p * most >= rows)
    enough = ops.cast(ops.convert_to_tensor(primes) * most < rows, "int32")
    return ops.take(ops.convert_to_tensor(primes), ops.sum(enough))


def begin(
    t: Tensor, state: Tensor, magnitudes: Sample, target: Tensor, has_begun: Tensor
) -> tuple[Tensor, Tensor]:
    """Returns the first threshold and state: quantiles of the sorted magnitudes.

    Where `has_begun`, `t` was set from outside, and stays.
    """
    values, counts = magnitudes
    values = ops.cast(values, "float32")
    if counts is not None:
        values = ops.where(counts > 0, values, float("inf"))
    values = ops.where(ops.isfinite(values), values, float("inf"))
    ordered = ops.sort(values, axis=0)
    n = ops.sum(ops.cast(ops.isfinite(ordered), "float32"), axis=0)

    def quantile(share):
        return ops.sum(
            ops.where(_ranks(ordered) == ops.round(share * n), ordered, 0.0), axis=0
        )

    delta = _delta(target)
    peak = ops.max(ops.where(ops.isfinite(ordered), ordered, 0.0), axis=0, initial=0)
    t = ops.where(has_begun, t, _below(peak, quantile(target), magnitudes))
    reached = ops.sum(ops.cast(ordered <= t, "float32"), axis=0) / ops.maximum(n, 1)
    width = quantile(ops.minimum(reached + delta, 1.0)) - t
    lives = ops.cast(peak > 0, "float32")
    zeros = ops.sum(ops.cast(ordered == 0, "float32"), axis=0) / ops.maximum(n, 1)
    rows = {
        WIDTH: ops.clip(width, 1e-3 * peak, peak),
        PEAK: peak,
        COUNT: ops.maximum(state[COUNT], lives),
        ZEROS: zeros,
        TARGET: ops.broadcast_to(target, ops.shape(t)),
    }
    return t * lives + (1 - lives) * t, ops.stack([rows[i] for i in range(ROWS)])


def follow(
    t: Tensor, state: Tensor, magnitudes: Sample, target: Tensor, floor: float
) -> tuple[Tensor, Tensor]:
    """Returns the next threshold and state, a step of Robbins and Monro (1951)."""
    values, counts = magnitudes
    dtype = keras.backend.standardize_dtype(values.dtype)
    width, peak, count, zeros, followed = (state[i] for i in range(ROWS))
    largest = float(ops.finfo(dtype).max) if hasattr(ops, "finfo") else 3e38
    edges = ops.stack([ops.zeros_like(t), t, t + width, ops.zeros_like(t) + largest])
    is_below = ops.cast(values[None] <= ops.cast(edges, dtype)[:, None], "float32")
    if counts is None:
        n = ops.cast(ops.shape(values)[0], "float32")
    else:
        is_below, n = is_below * counts, ops.sum(counts)
        values = values * ops.cast(counts, dtype)
    share = ops.sum(is_below, axis=1) / ops.maximum(n, 1)
    usable = ops.cast(ops.logical_and(n > 0, share[3] >= 1), "float32")
    delta = _delta(target)
    highest = ops.cast(ops.max(values, axis=0, initial=0), "float32")
    highest = ops.where(usable > 0, highest, peak)
    new_peak = ops.maximum(highest, peak * 0.99)
    # A unit that was silent so far.
    width = ops.where(width > 0, width, 0.1 * highest)
    count = ops.where(new_peak > 0, count + usable, 0.0)
    gain = usable * ops.maximum(ops.maximum(count, 1.0) ** -0.6, floor)
    new_t = t + gain * width / delta * (target - share[1])
    inside = share[2] - share[1]
    grown = ops.clip((delta - inside) / delta, -1.0, 1.0)
    grown = ops.where(share[1] < 1, grown, 0.0)
    new_width = width * ops.exp(ops.maximum(gain, 0.1 * usable) * grown)
    new_width = ops.clip(new_width, 1e-3 * new_t, new_peak)
    new_zeros = zeros + gain * (share[0] - zeros)
    new_t = _below(new_peak, ops.maximum(new_t, 0.0), magnitudes)
    rows = [new_width, new_peak, count, new_zeros, followed * 0 + target]
    return new_t, ops.stack(rows)


def _delta(target):
    """The share of the values from which the density above the threshold is told."""
    return ops.minimum(0.05, (1 - target) / 2)


def _below(peak, t, magnitudes):
    """Returns `t`, but below the largest value, so that never all values are cut."""
    eps = {"float16": 2**-9, "bfloat16": 2**-6}
    dtype = keras.backend.standardize_dtype(magnitudes.values.dtype)
    return ops.minimum(t, peak * (1 - eps.get(dtype, 2**-22)))


def _ranks(ordered):
    n = ops.shape(ordered)[0]
    return ops.reshape(
        ops.arange(1, n + 1, dtype="float32"), (-1, *[1] * (len(ordered.shape) - 1))
    )
