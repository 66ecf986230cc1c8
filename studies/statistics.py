"""Means over seeds, with what is known of them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

LEVEL = 0.95


class Interval(NamedTuple):
    """A mean and its 95 % interval, which is NaN for one value. Of none, all is NaN."""

    mean: float
    low: float
    high: float

    @property
    def half(self) -> float:
        """Half of its width."""
        return (self.high - self.low) / 2


class Difference(NamedTuple):
    """A mean paired difference.

    Attributes:
        mean: The mean difference.
        low: Lower end of its 95 % interval.
        high: Upper end.
        p: Of the two-sided paired t test.
        n: Number of pairs.
        standardized: Mean difference in standard deviations of the differences.
    """

    mean: float
    low: float
    high: float
    p: float
    n: int
    standardized: float


def interval(values: Sequence[float]) -> Interval:
    """Returns the mean of independent values and its 95 % interval, by Student's t."""
    values = np.asarray(values, "float64")
    n = len(values)
    if n < 2:
        return Interval(float(values[0]) if n else np.nan, np.nan, np.nan)
    mean = float(np.mean(values))
    half = stats.t.ppf((1 + LEVEL) / 2, n - 1) * np.std(values, ddof=1) / np.sqrt(n)
    return Interval(mean, mean - float(half), mean + float(half))


def paired(values: Sequence[float], baseline: Sequence[float]) -> Difference:
    """Compares values with those of the same seeds in a baseline.

    Args:
        values: One a seed.
        baseline: As many, in the same order of seeds.

    Raises:
        ValueError: if there are not as many.
    """
    if len(values) != len(baseline):
        raise ValueError(
            "paired must have as many values as baselines. Received: "
            f"{len(values)} values and {len(baseline)} baselines. Leave out the seeds "
            "that one of them lacks."
        )
    differences = np.subtract(values, baseline, dtype="float64")
    mean, low, high = interval(differences)
    n = len(differences)
    if n < 2:
        return Difference(mean, low, high, np.nan, n, np.nan)
    spread = float(np.std(differences, ddof=1))
    if spread == 0:  # All alike: a t test divides by it.
        p = 1.0 if mean == 0 else 0.0
        return Difference(mean, low, high, p, n, np.nan if mean == 0 else np.inf)
    t = mean / (spread / np.sqrt(n))
    p = float(2 * stats.t.sf(abs(t), n - 1))
    return Difference(mean, low, high, p, n, mean / spread)


def holm(ps: Sequence[float]) -> list[float]:
    """Returns the p values corrected for their number, by Holm (1979).

    NaN stays NaN and does not count.
    """
    known = [i for i, p in enumerate(ps) if not np.isnan(p)]
    corrected = [float("nan")] * len(ps)
    largest = 0.0
    for rank, i in enumerate(sorted(known, key=lambda i: ps[i])):
        largest = max(largest, min(1.0, (len(known) - rank) * ps[i]))
        corrected[i] = largest
    return corrected
