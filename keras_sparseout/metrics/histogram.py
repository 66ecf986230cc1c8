"""A histogram of the activations of a data set, and the figures that it gives."""

from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from keras_sparseout.backend import numerics
from keras_sparseout.metrics import inputs
from keras_sparseout.metrics.base import StreamingMetric
from keras_sparseout.utils import validation
from keras_sparseout.utils.types import Shape, Tensor


@keras.saving.register_keras_serializable("keras_sparseout")
class ActivationHistogram(StreamingMetric):
    """Counts of the activations of a data set in logarithmic bins, for each sign.

    There are `bins_per_octave` bins of magnitude from each power of 2 to the next. In
    all of them the ratio r of the upper to the lower edge is the same: 1.011 for 64.
    Magnitudes below the first edge count as 0, magnitudes above the last edge go into
    the last bin, and NaN is counted separately. For each bin it keeps the count and the
    sum of the magnitudes. The memory does not depend on the size of the data: 82 KB by
    default.

    Its result is the Gini index of all activations as one vector, `gini`. If all
    magnitudes are in the range of the bins, the error is at most
    (sqrt(r) - 1) / (sqrt(r) + 1) / 2: 0.0014 for 64 bins an octave. Between the bins it
    is exact; within a bin it takes half of the largest value that the mean of the bin
    allows. All-zero activations give NaN, and so does a NaN or an infinity among them.

    Args:
        smallest_exponent: The lowest edge is 2 to this power, an int >= -126.
        largest_exponent: The highest edge is 2 to this power, an int <= 127.
        bins_per_octave: Number of bins from one power of 2 to the next, an int >= 1.
        name: Name of the metric.

    Raises:
        ValueError: if the exponents or `bins_per_octave` are out of range.

    Example:

    >>> metric = ActivationHistogram()
    >>> metric.update_state(np.array([[0.0, 0.0, -1.0, 1.0]]))
    >>> metric.update_state(np.array([[0.0, 0.0, 2.0, 4.0]]))
    >>> float(metric.result())
    0.65625
    >>> metric.quantile(0.5)
    0.0
    >>> left, right, count = metric.buckets(most=3).T
    >>> count
    array([1., 4., 3.])
    """

    compiles = True

    def __init__(
        self,
        *,
        smallest_exponent: int = -24,
        largest_exponent: int = 16,
        bins_per_octave: int = 64,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name)
        exponents = smallest_exponent, largest_exponent
        if (
            not all(map(validation.is_int, exponents))
            or not -126 <= smallest_exponent < largest_exponent <= 127
        ):
            raise ValueError(
                "`smallest_exponent` and `largest_exponent` must be ints from -126 to "
                "127, the first below the second: what float32 can tell from 0. "
                f"Received: smallest_exponent={smallest_exponent!r}, "
                f"largest_exponent={largest_exponent!r}. Leave them out for -24 and 16."
            )
        self.smallest_exponent = smallest_exponent
        self.largest_exponent = largest_exponent
        self.bins_per_octave = validation.check_count(
            "bins_per_octave", bins_per_octave, remedy="Leave it out for 64."
        )
        self._create_state()

    @numerics.unchecked()
    def sums(
        self, x: Tensor, sample_weight: Tensor | None = None, mask: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        # The order of the bins: negative activations, from the largest magnitude to the
        # smallest, then zeros, positive activations, and NaN.
        x, weights = inputs.rows(x, sample_weight, mask)
        weights = ops.broadcast_to(ops.expand_dims(weights, -1), ops.shape(x))
        x, weights = ops.reshape(x, (-1,)), ops.reshape(weights, (-1,))
        magnitude = ops.abs(x)
        place = (ops.log2(magnitude) - self.smallest_exponent) * self.bins_per_octave
        # Before the cast, which is undefined for numbers that an int can't hold.
        place = ops.cast(ops.clip(ops.floor(place), 0, self._bins - 1), "int32")
        index = self._bins + ops.where(x < 0, -1 - place, 1 + place)
        index = ops.where(magnitude < self._edges[0], self._bins, index)
        index = ops.where(ops.isnan(x), 2 * self._bins + 1, index)
        magnitude = ops.where(ops.isnan(x), 0.0, magnitude)
        size = 2 * self._bins + 2
        return (
            ops.segment_sum(weights, index, size),
            ops.segment_sum(weights * ops.cast(magnitude, "float64"), index, size),
        )

    def shapes(self, units: int | None) -> tuple[Shape, ...]:
        return ((2 * self._bins + 2,),) * 2

    def histogram(
        self, *, totals: Sequence[Tensor] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns the edges of the bins, and the counts of activations between them.

        Args:
            totals: The `sums` of batches added up, to use instead of the state.

        Returns:
            Two float64 arrays. The edges rise from negative to positive ones, and the
            counts are one less. The middle count is the number of zeros.
        """
        counts, _ = self._read(totals)
        return np.concatenate([-self._edges[::-1], self._edges]), counts[:-1]

    def gini(self, *, totals: Sequence[Tensor] | None = None) -> float:
        """Returns the Gini index of all activations, as the result does.

        Args:
            totals: The `sums` of batches added up, to use instead of the state.
        """
        return float(self.figure(*self._read(totals)))

    def quantile(self, p: float, *, totals: Sequence[Tensor] | None = None) -> float:
        """Returns the magnitude that a share `p` of the activations do not exceed.

        Args:
            p: The share, a number from 0 to 1.
            totals: The `sums` of batches added up, to use instead of the state.

        Returns:
            A float, within the range of the bins off by less than the ratio of a bin's
            edges. NaN if there are no activations, or a NaN among them.

        Raises:
            ValueError: if `p` is not a number from 0 to 1.
        """
        if not validation.is_real(p) or not 0 <= p <= 1:
            rule = "a number from 0 to 1, a share of the activations"
            remedy = "Give for example p=0.5 for the median."
            raise validation.value_error("p", p, rule, remedy)
        counts, _ = self._read(totals)
        if counts[-1] or not counts.any():
            return float("nan")
        counts = ops.convert_to_numpy(_by_magnitude(counts, self._bins))
        below = np.cumsum(counts)
        rank = p * below[-1]
        # The first bin that is not empty, for p = 0 too.
        place = np.searchsorted(below, max(rank, np.nextafter(0, 1)))
        if place == 0:
            return 0.0
        low, high = self._edges[place - 1 : place + 1]
        inside = 1 - (below[place] - rank) / counts[place]
        return float(low * (high / low) ** inside)

    def buckets(
        self, most: int = 64, *, totals: Sequence[Tensor] | None = None
    ) -> np.ndarray:
        """Returns the histogram in few buckets, in the format of TensorBoard's plugin.

        The buckets reach from the lowest bin in use to the highest, and are about
        equally wide. Zeros have a bucket of their own. NaN is left out.

        Args:
            most: The largest number of buckets, an int >= 3.
            totals: The `sums` of batches added up, to use instead of the state.

        Returns:
            Float64 array of shape (buckets, 3) with left edge, right edge and count.
            The counts are exact, since edges of buckets are edges of bins.

        Raises:
            ValueError: if `most` is not an int >= 3.
        """
        most = validation.check_count(
            "most",
            most,
            least=3,
            meaning=", for the zeros and either side of them",
            remedy="Give for example most=30.",
        )
        edges, counts = self.histogram(totals=totals)
        used = np.flatnonzero(counts)
        if not used.size:
            return np.zeros((0, 3))
        first, last = used[0], used[-1] + 1
        # If there are zeros, their bucket takes up to two edges.
        zeros = used[used == self._bins]
        zeros = np.append(zeros, zeros + 1)
        even = np.linspace(edges[first], edges[last], most + 1 - zeros.size)
        nearest = np.searchsorted((edges[1:] + edges[:-1]) / 2, even)
        ends = np.union1d(nearest, zeros)
        bucket = np.add.reduceat(counts[:last], ends[:-1])
        return np.stack([edges[ends[:-1]], edges[ends[1:]], bucket], axis=-1)

    @property
    def _bins(self):
        """Number of bins for each sign."""
        return self.bins_per_octave * (self.largest_exponent - self.smallest_exponent)

    @property
    def _edges(self):
        """Edges of the bins of magnitude, rising."""
        ends = self.smallest_exponent, self.largest_exponent
        return 2.0 ** np.linspace(*ends, self._bins + 1)

    def _options(self):
        return {
            "smallest_exponent": self.smallest_exponent,
            "largest_exponent": self.largest_exponent,
            "bins_per_octave": self.bins_per_octave,
        }

    def _read(self, totals):
        totals = self.variables if totals is None else totals
        # A Keras variable itself would warn with numpy 2.
        return [ops.convert_to_numpy(ops.copy(total)) for total in totals]

    def _figure(self, counts, sums):
        unknown = counts[-1]
        counts, sums = (_by_magnitude(t, self._bins) for t in (counts, sums))
        population = counts / ops.sum(counts)
        part = sums / ops.sum(sums)
        lorenz = ops.cumsum(part)
        between = 1 - ops.sum(population * (2 * lorenz - part))
        low, high = (np.append(0.0, e) for e in (self._edges[:-1], self._edges[1:]))
        mean = sums / counts
        # The Gini index of a bin is at least 0, if all of it lies at the mean, and at
        # most this, if all of it lies at the two edges. It is not positive, or NaN,
        # where nothing is to be corrected: in the bin of zeros, in empty bins, and
        # where the mean is not in the bin.
        highest = (mean - low) * (high - mean) / (mean * (high - low))
        within = ops.where(highest > 0, highest / 2, 0.0)
        gini = between + ops.sum(population * part * within)
        return ops.where(unknown > 0, float("nan"), gini)


def _by_magnitude(bins, size):
    """Adds up the bins of both signs: the zeros, then `size` bins."""
    negative, zero, positive = bins[:size], bins[size : size + 1], bins[size + 1 : -1]
    return ops.concatenate([zero, positive + ops.flip(negative)])
