"""What a feedback loop learns of its plant: which way, and how late, it answers."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

# Readings by which a figure may lag behind its setting. The one that fits best counts.
LAGS = (1, 3, 9)
# The sums remember about so many readings.
_MEMORY = 50
# Share of a new reading in the filter that settings and figures pass alike.
_FILTER = 0.3
# The assumed effect weighs as much as moves with this sum of squares.
_PRIOR_SQUARES = 1e-3


class LagSums(NamedTuple):
    """Sums for one lag. All sums fade.

    Attributes:
        followed: The setting as the plant follows it.
        filtered: The same after the filter.
        moves: Sum of the moves of `filtered`.
        squares: Sum of their squares.
        products: Sum of moves times rises.
    """

    followed: float = 0.0
    filtered: float = 0.0
    moves: float = 0.0
    squares: float = 0.0
    products: float = 0.0


class Effect(NamedTuple):
    """How a figure answers to its setting.

    Attributes:
        lag: The lag in readings that fits best.
        size: The rise of the figure for a step of 1 on the actuator's scale.
        error: Standard error of the size.
    """

    lag: int
    size: float
    error: float


class PlantModel(NamedTuple):
    """Recursive least squares of the rises of a figure on the moves of its setting.

    For each lag, with the drift of the figure as intercept,

        rise = drift + effect * move

    where settings and figures have passed the same filter. Sums fade, so that what was
    long ago is forgotten. The assumed effect is a prior, which counts as some moves.

    Attributes:
        filtered: The filtered figure, NaN before the first one.
        weight: Sum of the weights of the readings.
        rises: Sum of the rises of the filtered figure.
        rise_squares: Sum of their squares.
        lags: The `LagSums`, one for each of `LAGS`.
    """

    filtered: float = math.nan
    weight: float = 0.0
    rises: float = 0.0
    rise_squares: float = 0.0
    lags: tuple[LagSums, ...] = ()

    @classmethod
    def initial(cls, output: float) -> "PlantModel":
        """Returns the model before the first reading, at this setting."""
        return cls(lags=tuple(LagSums(output, output) for _ in LAGS))

    @classmethod
    def from_numbers(cls, numbers: Sequence[float]) -> "PlantModel":
        """Returns the model that was saved as `numbers`."""
        filtered, weight, rises, rise_squares, *sums = numbers
        width = len(LagSums._fields)
        starts = range(0, len(sums), width)
        lags = tuple(LagSums(*sums[start : start + width]) for start in starts)
        return cls(filtered, weight, rises, rise_squares, lags)

    def numbers(self) -> Iterator[float]:
        """Yields the numbers that make it up."""
        yield from (self.filtered, self.weight, self.rises, self.rise_squares)
        for sums in self.lags:
            yield from sums

    def after(self, output: float, figure: float) -> "PlantModel":
        """Returns the model with one more reading.

        Args:
            output: The setting that acted up to the reading, on the actuator's scale.
            figure: The figure of the reading.
        """
        if math.isnan(self.filtered):
            return self._replace(filtered=figure)
        rise, keep = _FILTER * (figure - self.filtered), 1 - 1 / _MEMORY
        lags = []
        for lag, sums in zip(LAGS, self.lags, strict=True):
            followed = sums.followed + (output - sums.followed) / lag
            move = _FILTER * (followed - sums.filtered)
            lags.append(
                LagSums(
                    followed,
                    sums.filtered + move,
                    keep * sums.moves + move,
                    keep * sums.squares + move**2,
                    keep * sums.products + move * rise,
                )
            )
        return PlantModel(
            self.filtered + rise,
            keep * self.weight + 1,
            keep * self.rises + rise,
            keep * self.rise_squares + rise**2,
            tuple(lags),
        )

    def effect(self, assumed: float) -> Effect:
        """Returns the effect with the lag that fits best.

        Args:
            assumed: The effect that is assumed.
        """
        if self.weight <= 3:
            return Effect(LAGS[0], assumed, math.inf)
        fits = []
        total = self.rise_squares - self.rises**2 / self.weight
        for lag, sums in zip(LAGS, self.lags, strict=True):
            own = sums.squares - sums.moves**2 / self.weight
            product = sums.products - sums.moves * self.rises / self.weight
            squares = own + _PRIOR_SQUARES
            size = (product + _PRIOR_SQUARES * assumed) / squares
            left = max(total - 2 * size * product + size**2 * own, 0.0)
            error = math.sqrt(left / (self.weight - 2) / squares)
            fits.append((left, Effect(lag, size, error)))
        return min(fits)[1]
