"""Follows a quantile of |x| from batch to batch, without sorting in each of them.

In a batch the share of |x| <= t is counted, and t moves by what the share lacks, as
Robbins & Monro (1951) do. The mean of the shares is unbiased, that of the quantiles of
small batches would not be. Three things make the steps fit to any activations:

- The width w is such that about `delta` of the values lie between t and t + w. So w /
  delta tells how far t has to move for a share.
- The gain g rises while errors keep their sign, and falls while they alternate. If g is
  right, successive errors are uncorrelated (Mehra, 1970, "On the identification of
  variances and adaptive Kalman filtering").
- The trend v is how far t moves at each step of late, since activations grow and shrink
  for many steps as a network learns.

With the share s at t, the error e = target - s, and u = e / delta within -2 and 2:

    g  <-  g exp(.1 e e_before / E[e^2]),  at least 1 - momentum, at most .5
    v  <-  .95 v + .25 g^2 w u
    t  <-  t + v + g w u
"""

import sys
from typing import NamedTuple

import keras
from keras import ops

from keras_sparseout.utils.types import Tensor

# How many elements of a batch are looked at, and at least how many of each unit.
BUDGET, OF_EACH_UNIT = 2**14, 128
# Strides of a sample, about 1.1 apart.
_PRIMES = (
    *(1, 2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71),
    *(79, 89, 97, 107, 113, 127, 139, 151, 167, 181, 199, 223, 241, 263, 293, 317),
    *(347, 383, 421, 461, 509, 557, 613, 673, 743, 821, 907, 997, 1097, 1213, 1327),
    *(1459, 1607, 1777, 1949, 2141, 2357, 2593, 2851, 3137, 3449, 3793, 4177, 4591),
    *(5051, 5557, 6113, 6733, 7411, 8147, 8963, 9859, 10847, 11933, 13127, 14437),
    *(15881, 17471, 19219, 21143, 23251, 25577, 28141, 30949, 34057, 37463, 41203),
    *(65537, 131071, 262147, 524287, 1048583),
)
# The largest finite numbers.
_LARGEST = {
    **{"float16": 65504.0, "bfloat16": (2 - 2.0**-7) * 2.0**127},
    **{"float32": (2 - 2.0**-23) * 2.0**127, "float64": sys.float_info.max},
}
_MOST_GAIN = 0.5
# Where t may be at most, to the largest |x|: values that are equal in x's precision are
# cut together, and cutting the largest ones would leave a layer of zeros.
_BELOW_PEAK = {"float16": 1 - 2**-9, "bfloat16": 1 - 2**-6}


class State(NamedTuple):
    """What a tracker keeps besides t: scalars, or vectors of an entry for each unit."""

    width: Tensor  # w
    trend: Tensor  # v
    gain: Tensor  # g; 0 before the first batch
    error: Tensor  # e of the last batch
    variance: Tensor  # a moving mean of e^2
    peak: Tensor  # the largest |x| of late
    zeros: Tensor  # the moving share of x = 0
    target: Tensor  # of the last batch


ROWS = len(State._fields)


class Sample(NamedTuple):
    """Elements of a batch: a vector, or rows with a column for each unit.

    `counts` is 1 where an element counts and 0 in padding; None if all of them count.
    """

    values: Tensor
    counts: Tensor | None


def take_sample(x: Tensor, mask: Tensor | None, units: int | None) -> Sample:
    """Takes elements of `x`, spread evenly over samples, positions and channels.

    Args:
        x: Tensor; of known rank, if there is a mask.
        mask: Boolean tensor of the first dimensions of `x`, or None.
        units: Size of the last dimension of `x` to look at each unit, None to look at
            all elements together.
    """
    x = ops.stop_gradient(x)
    sizes = () if x.shape.rank is None else x.shape[1 : None if units is None else -1]
    if mask is not None:
        ones = [1] * (len(x.shape) - len(mask.shape))
        mask = ops.reshape(ops.cast(mask, "bool"), (*ops.shape(mask), *ones))
        shape = ops.shape(x)
        mask = ops.broadcast_to(mask, shape if units is None else (*shape[:-1], 1))
        mask = ops.reshape(mask, (-1,) if units is None else (-1, 1))
    flat = ops.reshape(x, (-1,) if units is None else (-1, units))
    most = BUDGET if units is None else max(BUDGET // max(units, 1), OF_EACH_UNIT)
    stride = _stride(ops.shape(flat)[0], most, sizes)
    if stride is not None:
        flat = flat[::stride]
        mask = mask if mask is None else mask[::stride]
    return Sample(flat, None if mask is None else ops.cast(mask, "float32"))


def _stride(rows, most, sizes):
    """The distance of the elements to take; None to take all.

    It is a prime that divides none of `sizes`: a divisor of the number of channels
    would meet the same channels each time.
    """
    primes = [p for p in _PRIMES if p == 1 or not any(n and n % p == 0 for n in sizes)]
    if isinstance(rows, int):
        fit = [p for p in primes if p * most >= rows]
        return None if rows <= most else min(fit, default=primes[-1])
    too_small = ops.cast(rows > ops.convert_to_tensor(primes[:-1]) * most, "int32")
    return ops.take(ops.convert_to_tensor(primes), ops.sum(too_small))


def begin(
    t: Tensor, state: Tensor, sample: Sample, target: Tensor
) -> tuple[Tensor, Tensor]:
    """Returns the first threshold and state, from quantiles of the sorted |x|.

    Where the gain is above 0, t was set from outside and stays. Nothing changes if the
    sample has no values but 0, or one that is not finite.
    """
    values = ops.cast(sample.values, "float32")
    if sample.counts is not None:
        values = ops.where(sample.counts > 0, values, -1.0)
    ordered = ops.sort(values, axis=0)
    counted = ops.cast(ordered >= 0, "float32")
    n = ops.sum(counted, axis=0)
    rank = ops.cumsum(counted, axis=0) * counted

    def quantile(share):
        found = ops.logical_and(rank == ops.round(share * n), rank > 0)
        return ops.sum(ops.where(found, ordered, 0.0), axis=0)

    peak = ops.max(ordered, axis=0, initial=0.0)
    finite = ops.all(ops.isfinite(values))
    begins = ops.logical_and(finite, ops.max(peak) > 0)
    first = ops.where(state[State._fields.index("gain")] > 0, t, quantile(target))
    first = _below_peak(first, peak, sample)
    share = ops.sum(ops.cast(ordered <= first, "float32") * counted, axis=0)
    share = share / ops.maximum(n, 1)
    # At least up to the next one.
    step = ops.maximum(_delta(target), 1 / ops.maximum(n, 1))
    width = quantile(ops.minimum(share + step, 1.0)) - first
    zero = ops.zeros_like(t)
    new = State(
        width=ops.clip(width, 1e-5 * peak, peak),
        trend=zero,
        gain=zero + _MOST_GAIN,
        error=zero,
        variance=zero,
        peak=peak,
        zeros=ops.sum(ops.cast(ordered == 0, "float32"), axis=0) / ops.maximum(n, 1),
        target=zero + target,
    )
    return ops.where(begins, first, t), ops.where(begins, ops.stack(new), state)


def follow(
    t: Tensor, state: Tensor, sample: Sample, target: Tensor, least_gain: float
) -> tuple[Tensor, Tensor]:
    """Returns the next threshold and state.

    Nothing changes if the sample is empty, or has a value that is not finite.
    """
    old = State(*ops.unstack(state, ROWS))
    low = ops.maximum(t - old.width, 0)
    shares, n = _shares(sample, [0 * t, low, t, t + old.width])
    zeros, below, share, above, finite = shares
    usable = ops.logical_and(n > 0, ops.all(finite >= 1))
    delta = _delta(target)
    error = old.target - share
    square = ops.square(error)
    # One gain for all units: each of them alone has few values.
    alike = ops.mean(error * old.error) / (ops.mean(old.variance) + 1e-12)
    gain = old.gain * ops.exp(0.1 * ops.clip(alike, -1.0, 1.0))
    moved = (target - old.target) / delta
    gain = ops.maximum(gain, 0.5 * ops.abs(moved))
    gain = ops.clip(gain, least_gain, _MOST_GAIN)
    push = ops.clip(error / delta, -2.0, 2.0) * old.width
    limit = 0.3 * old.width
    trend = ops.clip(0.95 * old.trend + 0.25 * ops.square(gain) * push, -limit, limit)
    peak = ops.cast(ops.max(_counted(sample), axis=0, initial=0), "float32")
    peak = ops.maximum(peak, 0.99 * old.peak)
    moved = ops.clip(moved, -2.0, 2.0) * old.width
    new_t = ops.maximum(t + trend + gain * push + moved, 0)
    # Below t the window ends at 0, whose own share does not count.
    expected = delta * (1 + (t - low) / ops.maximum(old.width, 1e-37))
    wider = (expected / ops.maximum(above - below, 1e-6)) ** 0.3
    width = old.width * ops.clip(wider, 0.6, 2.0)
    new = State(
        width=ops.clip(width, 1e-5 * peak, peak),
        trend=ops.where(new_t > 0, trend, ops.maximum(trend, 0)),
        gain=gain,
        error=error,
        variance=old.variance
        + ops.where(old.variance > 0, 0.1, 1.0) * (square - old.variance),
        peak=peak,
        zeros=old.zeros + ops.maximum(gain, 0.02) * (zeros - old.zeros),
        target=0 * t + target,
    )
    new_t = _below_peak(new_t, peak, sample)
    return ops.where(usable, new_t, t), ops.where(usable, ops.stack(new), state)


def has_begun(state: Tensor) -> Tensor:
    """Whether there was a first batch."""
    return ops.max(state[State._fields.index("width")]) > 0


def _shares(sample, levels):
    """Returns the share of values up to each level and that of finite ones; how many.

    They are compared in their own precision, as they are cut.
    """
    values, counts = sample
    dtype = keras.backend.standardize_dtype(values.dtype)
    levels = [ops.cast(level, dtype) for level in levels]
    levels = ops.stack([*levels, ops.zeros_like(levels[0]) + _LARGEST[dtype]])
    is_below = ops.cast(values[None] <= levels[:, None], "float32")
    if counts is None:
        n = ops.cast(ops.shape(values)[0], "float32")
    else:
        is_below, n = is_below * counts, ops.sum(counts)
    shares = ops.sum(is_below, axis=1) / ops.maximum(n, 1)
    return ops.unstack(shares, levels.shape[0]), n


def _counted(sample):
    if sample.counts is None:
        return sample.values
    return ops.where(sample.counts > 0, sample.values, 0)


def _delta(target):
    """The share of the values from which the density above t is told."""
    return ops.minimum(0.05, (1 - target) / 2)


def _below_peak(t, peak, sample):
    dtype = keras.backend.standardize_dtype(sample.values.dtype)
    return ops.minimum(t, peak * _BELOW_PEAK.get(dtype, 1 - 2**-22))
