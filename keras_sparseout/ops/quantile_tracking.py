"""Follows a quantile of |x| from batch to batch, without sorting in each of them.

In a batch the share of |x| <= t is counted, and t moves by what the share lacks, as
Robbins & Monro (1951) do. The mean of the shares is unbiased, that of the quantiles of
small batches would not be. Three things make the steps fit to any activations:

- The width w is such that about `delta` of the values lie between t and t + w. So w /
  delta tells how far t has to move for a share.
- The gain g goes down the gradient of the squared error: a larger g would have taken
  away h more of it, the fading sum of the errors before. So it rises while errors keep
  their sign, soon if many do, and falls while they alternate (Benveniste, Metivier &
  Priouret, 1990, "Adaptive Algorithms and Stochastic Approximations").
- The trend v is how far t moves at each step of late, since activations grow and shrink
  for many steps as a network learns.

With the share s at t, the error e = (target - s) min(1, m / E[m]) of m values in the
batch, and u = g e / delta within -4 and 4:

    g  <-  g (1 + r),  r = .05 e h / E[e^2] within -.1 and .2
    h  <-  (1 - g) h + e
    v  <-  .97 v + .25 g w u
    t  <-  t + v + w u

g is at least 1 - momentum, and at most .5. In u, v and h it is of the batch before: a
gain that depends on e would bias the step. And of the n values of a sample n delta are
expected within w. With fewer than 1, as of a unit in a small batch, the few that are
met must not move t or w at once, so the gain is at most n delta. A batch that is
smaller than usual, as the last of an epoch may be, has a noisier share, and moves t
less.

What is left is noise: batches differ in their shares by some standard deviation, and t
settles within about its sqrt(g / 2). A smaller gain would lag behind the weights.
"""

from typing import NamedTuple

import keras
from keras import ops

from keras_sparseout.utils import validation
from keras_sparseout.utils.types import Tensor

# How many elements of a batch are looked at: all up to FEW, then about a quarter, up to
# MANY. And at least how many of each unit, if there is a threshold for each.
FEW, MANY, OF_EACH_UNIT = 2**12, 2**14, 32
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
_MOST_GAIN = 0.5
# Where t may be at most, to the largest |x|: values that are equal in x's precision are
# cut together, and without the largest ones a layer of zeros is left.
_BELOW_PEAK = {"float16": 1 - 2**-9, "bfloat16": 1 - 2**-6}


class State(NamedTuple):
    """What a tracker keeps besides t: scalars, or vectors of an entry for each unit."""

    width: Tensor  # w
    trend: Tensor  # v
    gain: Tensor  # g; 0 before the first batch
    errors: Tensor  # h, the fading sum of the errors
    variance: Tensor  # a moving mean of e^2
    peak: Tensor  # the largest |x| of late
    zeros: Tensor  # the moving share of x = 0
    target: Tensor  # of the last batch
    batch_size: Tensor  # a moving mean of m


class Sample(NamedTuple):
    """Elements of a batch: a vector, or rows with a column for each unit.

    `counts` is 1 where an element counts and 0 in padding; None if all of them count.
    `stride` is how many elements of the batch each of them stands for.
    """

    values: Tensor
    counts: Tensor | None
    stride: int | Tensor = 1

    def distances(self, centre: Tensor | None) -> "Sample":
        """The same elements as |x|, or as |x - centre|."""
        x = self.values
        if centre is not None:
            x = x - ops.cast(centre, x.dtype)
            if self.counts is not None:
                # Padding is no peak.
                x = x * ops.cast(self.counts, x.dtype)
        return self._replace(values=ops.abs(x))

    def size(self) -> Tensor:
        """How many elements count, of each unit."""
        if self.counts is not None:
            return ops.sum(self.counts)
        return ops.cast(ops.shape(self.values)[0], "float32")

    def batch_size(self) -> Tensor:
        """About how many elements of the batch count, of each unit."""
        stride = self.stride
        if not isinstance(stride, int):
            stride = ops.cast(stride, "float32")
        return self.size() * stride

    def is_usable(self, size: Tensor) -> Tensor:
        """Whether it has elements, and all of them are finite."""
        return ops.isfinite(ops.sum(ops.cast(self.values, "float32")) / size)


def take_sample(x: Tensor, mask: Tensor | None, units: int | None) -> Sample:
    """Takes elements of `x`, spread evenly over samples, positions and channels.

    Args:
        x: Tensor; of known rank, if there is a mask.
        mask: Boolean tensor of the first dimensions of `x`, or None.
        units: Size of the last dimension of `x` to look at each unit, None to look at
            all elements together.
    """
    x = ops.stop_gradient(x)
    shape = validation.shape_of(x) or ()
    sizes = shape[1:] if units is None else shape[1:-1]
    if mask is not None:
        ones = [1] * (len(x.shape) - len(mask.shape))
        mask = ops.reshape(ops.cast(mask, "bool"), (*ops.shape(mask), *ones))
        shape = ops.shape(x)
        mask = ops.broadcast_to(mask, shape if units is None else (*shape[:-1], 1))
        mask = ops.reshape(mask, (-1,) if units is None else (-1, 1))
    rows = (-1,) if units is None else (-1, units)
    flat = ops.reshape(x, rows)
    stride = _stride(ops.shape(flat)[0], units, sizes)
    if not isinstance(stride, int) or stride > 1:
        # A stride that is a tensor loses the rank.
        flat = ops.reshape(flat[::stride], rows)
        if mask is not None:
            mask = ops.reshape(mask[::stride], (-1,) if units is None else (-1, 1))
    if mask is None:
        return Sample(flat, None, stride)
    # Padding may hold anything, NaN too.
    return Sample(ops.where(mask, flat, 0), ops.cast(mask, "float32"), stride)


def _stride(rows, units, sizes):
    """The distance of the rows to take.

    It is a prime that divides none of `sizes`: a divisor of the number of channels
    would meet the same channels each time.
    """
    primes = [p for p in _PRIMES if p == 1 or not any(n and n % p == 0 for n in sizes)]
    if units is None:
        few, many = FEW, MANY
    else:
        few, many = (max(n // max(units, 1), OF_EACH_UNIT) for n in (FEW, MANY))
    if isinstance(rows, int):
        least = max(min(rows / few, 4), rows / many)
        return min((p for p in primes if p >= least), default=primes[-1])
    rows = ops.cast(rows, "float32")
    least = ops.maximum(ops.minimum(rows / few, 4.0), rows / many)
    table = ops.convert_to_tensor(primes, "int32")
    smaller = ops.cast(primes[:-1], "float32") < least
    return ops.take(table, ops.sum(ops.cast(smaller, "int32")))


def begin(
    t: Tensor, state: Tensor, sample: Sample, target: float | Tensor
) -> tuple[Tensor, Tensor]:
    """Returns the first threshold and state, from quantiles of the sorted |x|.

    Where the gain is above 0 and w is not, t was set from outside and stays. Nothing
    changes if the sample has no values but 0.
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
    begins = ops.max(peak) > 0
    first = ops.where(was_set(state), t, quantile(target))
    first = _below_peak(first, peak, sample)
    share = ops.sum(ops.cast(ordered <= first, "float32") * counted, axis=0)
    share = share / ops.maximum(n, 1)
    # At least to the next one. If t is among the largest, there is none above it.
    step = ops.maximum(_delta(target), 1 / ops.maximum(n, 1))
    above = quantile(ops.minimum(share + step, 1.0)) - first
    width = ops.maximum(above, first - quantile(ops.maximum(share - step, 0.0)))
    zero = ops.zeros_like(t)
    new = State(
        width=_bounded(width, first, peak),
        trend=zero,
        gain=zero + _MOST_GAIN,
        errors=zero,
        variance=zero,
        peak=peak,
        zeros=ops.sum(ops.cast(ordered == 0, "float32"), axis=0) / ops.maximum(n, 1),
        target=zero + target,
        batch_size=zero + sample.batch_size(),
    )
    return ops.where(begins, first, t), ops.where(begins, ops.stack(new), state)


def follow(
    t: Tensor,
    state: Tensor,
    sample: Sample,
    size: Tensor,
    target: float | Tensor,
    least_gain: float,
) -> tuple[Tensor, Tensor]:
    """Returns the next threshold and state.

    Args:
        t, state: The last ones.
        sample: Values of |x|.
        size: How many of them count.
        target: A number, or a tensor if it may move.
        least_gain: Below which the gain does not fall.
    """
    # Few operations: on small batches each of them counts.
    old = State(*ops.unstack(state, len(State._fields)))
    delta, moves = _delta(target), ops.is_tensor(target)
    expected = size * delta
    old = old._replace(gain=ops.minimum(old.gain, expected))
    levels = [ops.zeros_like(t), ops.maximum(t - old.width, 0), t, t + old.width]
    zeros, below, share, above = _shares(sample, levels)
    batch_size = sample.batch_size()
    usual = ops.maximum(old.batch_size, batch_size)
    error = ((old.target if moves else target) - share) * (batch_size / usual)
    gain = _next_gain(old, error, least_gain)
    push = ops.clip(error * old.gain / delta, -4.0, 4.0) * old.width
    trend = _next_trend(old, push)
    new_t = t + trend + push
    if moves:
        ahead = (target - old.target) / delta
        gain = ops.minimum(ops.maximum(gain, 0.5 * ops.abs(ahead)), _MOST_GAIN)
        new_t = new_t + ahead * old.width
    new_t = ops.maximum(new_t, 0)
    peak = _next_peak(old, sample)
    width = _next_width(old, t, (above - below) / delta, expected)
    new = State(
        width=_bounded(width, new_t, peak),
        trend=ops.maximum(trend, -new_t),
        gain=gain,
        errors=error + (1 - old.gain) * old.errors,
        variance=old.variance + 0.1 * (error * error - old.variance),
        peak=peak,
        zeros=old.zeros + gain * (zeros - old.zeros),
        target=0 * t + target if moves else old.target,
        batch_size=old.batch_size + 0.1 * (batch_size - old.batch_size),
    )
    return _below_peak(new_t, peak, sample), ops.stack(new)


def row(state: Tensor, name: str) -> Tensor:
    """Returns one field of a state."""
    return state[State._fields.index(name)]


def was_set(state: Tensor) -> Tensor:
    """Where the threshold was set from outside, and no batch was seen since."""
    return ops.logical_and(row(state, "gain") > 0, row(state, "width") == 0)


def can_follow(state: Tensor, target: float | Tensor) -> Tensor:
    """Whether there was a first batch, and the target is near what it was in the last.

    If not, quantiles of the next batch are nearer than steps from here.
    """
    width = row(state, "width")
    begun = (ops.max(width) if width.shape else width) > 0
    if not ops.is_tensor(target):
        return begun
    jump = ops.max(ops.abs(target - row(state, "target")))
    return ops.logical_and(begun, jump <= 2 * _delta(target))


def _next_gain(old, error, least_gain):
    alike, scale = error * old.errors, old.variance
    if error.shape:
        # One gain for all units: each of them alone has few values.
        alike, scale = ops.mean(alike), ops.mean(scale)
    rise = ops.clip(0.05 * alike / (scale + 1e-12), -0.1, 0.2)
    gain = old.gain * (1 + rise)
    return ops.minimum(ops.maximum(gain, least_gain), _MOST_GAIN)


def _next_trend(old, push):
    limit = 0.3 * old.width
    return ops.clip(0.97 * old.trend + 0.25 * old.gain * push, -limit, limit)


def _next_peak(old, sample):
    peak = ops.max(sample.values, axis=0, initial=0)
    return ops.maximum(ops.cast(peak, "float32"), 0.99 * old.peak)


def _next_width(old, t, found, expected):
    """`found` is the share of the values within w of t, in deltas."""
    # Values that are 0 do not tell the density near t.
    widths = 1 + ops.minimum(t / ops.maximum(old.width, 1e-37), 1)
    gain = ops.minimum(ops.maximum(old.gain, 0.05), expected)
    return old.width * (1 + 0.6 * ops.clip(gain * (widths - found), -0.67, 1.0))


def _bounded(width, t, peak):
    # So that t + w differs from t. A share of the peak would be too wide for heavy
    # tails, but a unit that was silent so far has nothing else.
    return ops.where(width > 0, ops.clip(width, 1e-5 * t, peak), 0.05 * peak)


def _shares(sample, levels):
    """Returns the share of the values up to each level, NaN for an empty sample.

    They are compared in their own precision, as they are cut.
    """
    values, counts = sample.values, sample.counts
    levels = ops.cast(ops.stack(levels), values.dtype)
    is_below = ops.cast(values[None] <= levels[:, None], "float32")
    if counts is None:
        return ops.unstack(ops.mean(is_below, axis=1), levels.shape[0])
    shares = ops.sum(is_below * counts, axis=1) / ops.sum(counts)
    return ops.unstack(shares, levels.shape[0])


def _delta(target):
    """The share of the values from which the density above t is told."""
    half = (1 - target) / 2
    return ops.minimum(0.05, half) if ops.is_tensor(target) else min(0.05, half)


def _below_peak(t, peak, sample):
    dtype = keras.backend.standardize_dtype(sample.values.dtype)
    return ops.minimum(t, peak * _BELOW_PEAK.get(dtype, 1 - 2**-22))
