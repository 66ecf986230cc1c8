"""Counts magnitudes in narrow bins, and finds the quantiles of what was counted."""

from typing import NamedTuple

from keras import ops

from keras_sparseout.utils.types import Tensor

# A bin holds the float32 numbers that share their exponent and the first bits of their
# mantissa. Their bits, read as integers, rise with the magnitude.
_MANTISSA, _ABSOLUTE, _INFINITE = 23, 0x7FFFFFFF, 0x7F800000
_MOST_BITS = 9
# Many groups would need much memory: 2^-96 to 2^32 is enough for them.
_LOW, _HIGH = (127 - 96) << _MANTISSA, (127 + 32) << _MANTISSA
_MOST_COUNTS = 2**22
# See `Bins.near`.
_NEAR = 0.01


class Bins(NamedTuple):
    """The bins of one place.

    Attributes:
        groups: How many groups of magnitudes have counts of their own.
        shift: How many of the last bits of a number do not matter.
        low: The bits of the smallest magnitude that differs from zero.
        high: The bits of the largest one.
    """

    groups: int
    shift: int
    low: int
    high: int

    @property
    def number(self) -> int:
        """The number of bins of a group. The last one is for what is not finite."""
        return ((self.high - self.low) >> self.shift) + 2

    @property
    def near(self) -> float:
        """How far zeros may exceed a target if that is nearer than to stay below it.

        Where bins are wide, about half of what one of them holds of a distribution.
        """
        return max(_NEAR, 2.0 ** (self.shift - _MANTISSA) / 4)

    @property
    def dtype(self) -> str:
        """The type of the counts."""
        return "int64" if self.groups == 1 else "int32"

    def place(self, x: Tensor) -> Tensor:
        """Returns the bin of each float32 number, an integer."""
        bits = ops.bitwise_and(ops.view(x, "int32"), _ABSOLUTE)
        finite = ops.right_shift(
            ops.clip(bits, self.low, self.high) - self.low, self.shift
        )
        return ops.where(bits >= _INFINITE, self.number - 1, finite)


def bins_for(groups: int) -> Bins:
    """Returns the bins for a number of groups: the more groups, the wider bins."""
    if groups == 1:
        return Bins(1, _MANTISSA - _MOST_BITS, 0, _INFINITE - 1)
    bits = _MOST_BITS
    while bits > 3 and groups << (7 + bits) > _MOST_COUNTS:
        bits -= 1
    return Bins(groups, _MANTISSA - bits, _LOW, _HIGH)


def count(x: Tensor, mask: Tensor | None, bins: Bins) -> Tensor:
    """Counts the magnitudes of `x`.

    Args:
        x: A float32 tensor. With several groups, the last axis has one for each.
        mask: A tensor of bool that broadcasts to `x`, False for what does not count.
        bins: The bins.

    Returns:
        A tensor of integers, groups by bins.
    """
    places = bins.place(x)
    if bins.groups > 1:
        places += ops.arange(bins.groups, dtype="int32") * bins.number
    size = bins.groups * bins.number
    if mask is not None:
        # One more bin takes what does not count.
        places = ops.where(mask, places, size)
    counts = ops.bincount(ops.reshape(places, (-1,)), minlength=size + 1)
    return ops.cast(ops.reshape(counts[:size], (bins.groups, bins.number)), bins.dtype)


def quantile(counts: Tensor, target: Tensor, bins: Bins) -> Tensor:
    """Returns the threshold t with the share of magnitudes <= t nearest to `target`.

    Where equal magnitudes keep it from being near, the share is below the target. It is
    never 1: something stays. Where more than `target` are zero, t is 0.

    Args:
        counts: The counts of `count`.
        target: A number >= 0 and < 1, or one for each group.
        bins: The bins.

    Returns:
        A float32 tensor, a number for each group.
    """
    sums = ops.cast(ops.cumsum(counts, axis=-1), "float64")
    total = sums[:, -1:]
    wanted = ops.cast(target, "float64") * total
    below = ops.max(ops.where(sums <= wanted, sums, 0.0), axis=-1, keepdims=True)
    above = ops.min(ops.where(sums > wanted, sums, total), axis=-1, keepdims=True)
    over = above - wanted
    takes_more = (over < wanted - below) & (over <= bins.near * total) & (above < total)
    chosen = ops.where(takes_more, above, below)
    last = ops.sum(ops.cast(sums < chosen, "int32"), axis=-1)
    following = ops.sum(ops.cast(sums <= chosen, "int32"), axis=-1)
    # In the middle of the bins that are empty, so that rounding does not matter.
    edge = ops.left_shift(last + 1, bins.shift - 1)
    bits = edge + ops.left_shift(following, bins.shift - 1) + bins.low - 1
    return ops.where(last == 0, 0.0, ops.view(bits, "float32"))


def rounded_down(threshold: Tensor, dtype: str) -> Tensor:
    """Returns the largest numbers that `dtype` has too, and that are not larger.

    Otherwise the next number up would be cut, with all activations that have it.

    Args:
        threshold: float32 numbers >= 0.
        dtype: The type of the activations.
    """
    nearest = ops.cast(ops.cast(threshold, dtype), "float32")
    # float16 has 10 bits of mantissa, bfloat16 has 7.
    step = {"float16": 2.0**-10, "bfloat16": 2.0**-7}.get(dtype, 0.0)
    smallest = 2.0**-24 if dtype == "float16" else 0.0
    lower = threshold - ops.maximum(threshold * step / 2, smallest / 2)
    down = ops.cast(ops.cast(ops.maximum(lower, 0.0), dtype), "float32")
    return ops.where(nearest > threshold, down, nearest)


def share(counts: Tensor, threshold: Tensor, bins: Bins) -> tuple[float, float]:
    """Returns the share of magnitudes up to a threshold, and the share of zeros."""
    counts = ops.cast(counts, "float64")
    number = ops.reshape(bins.place(threshold), (-1, 1))
    is_cut = ops.arange(bins.number, dtype="int32") <= number
    total = float(ops.sum(counts))
    if not total:
        return 0.0, 0.0
    cut = float(ops.sum(ops.where(is_cut, counts, 0.0)))
    return cut / total, float(ops.sum(counts[:, 0])) / total


def has_invalid(counts: Tensor) -> bool:
    """Whether NaN or infinity was counted."""
    return bool(ops.any(counts[:, -1] > 0))
