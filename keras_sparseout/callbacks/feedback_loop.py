"""The control loop of SparsityController: from figures to settings of an actuator."""

import dataclasses
import math
from collections.abc import Callable

from keras_sparseout.metrics import ActivationHistogram
from keras_sparseout.utils import validation


@dataclasses.dataclass(frozen=True)
class Actuator:
    """A knob of a layer that moves the sparsity, and the scale that it moves on.

    Attributes:
        bounds: Least and largest setting unless the user gives others.
        limits: What bounds may be at all.
        gain: Step on the scale for an error of 1 in the figure.
        slew: Largest step on the scale from one reading to the next.
        lag: Readings that the sparsity takes to follow, and that are looked ahead.
        to_scale: Function from a setting to the scale, on which equal steps matter
            about equally.
        from_scale: Its inverse.
    """

    bounds: tuple
    limits: tuple
    gain: float
    slew: float
    lag: int
    to_scale: Callable
    from_scale: Callable


def _q_to_scale(q):
    # Beyond 2 sparsity falls ever less: differences instead of ratios keep the loop
    # from running away there.
    return math.log(q / 2) if q < 2 else q / 2 - 1


def _q_from_scale(scale):
    return 2 * (math.exp(scale) if scale < 0 else 1 + scale)


# Metrics that rise with sparsity; all of them lie between 0 and 1.
RISING = ("gini", "hoyer", "population_sparseness", "pq_index", "zero_fraction")

# Up to about here the scale of weights is linear, beyond logarithmic.
_SMALL_WEIGHT = 1e-3

ACTUATORS = {
    "q": Actuator(
        bounds=(1.0, 4.0),
        limits=(0.01, 100.0),
        gain=-20.0,
        slew=0.15,
        lag=3,
        to_scale=_q_to_scale,
        from_scale=_q_from_scale,
    ),
    "rate": Actuator(
        bounds=(0.05, 0.9),
        limits=(0.001, 0.999),
        gain=40.0,
        slew=0.3,
        lag=3,
        to_scale=lambda rate: math.log(rate / (1 - rate)),
        from_scale=lambda scale: 1 / (1 + math.exp(-scale)),
    ),
    "weight": Actuator(
        bounds=(0.0, 0.1),
        limits=(0.0, 1e6),
        gain=30.0,
        slew=0.4,
        lag=1,
        to_scale=lambda weight: math.asinh(weight / _SMALL_WEIGHT),
        from_scale=lambda scale: _SMALL_WEIGHT * math.sinh(scale),
    ),
}


class Loop:
    """Moves one setting until a figure is the asked one, and holds it there.

    A PID controller on the actuator's scale. The figure and its slope are those of a
    fading-memory filter of degree 1, which a steady rise does not make late (Morrison
    1969, "Introduction to Sequential Smoothing and Prediction"). For each reading,

        error  = target + offset - figure
        way    = lag slope
        scale  = base + gain (error - way)
        base  += gain (error - way) / 6     with an error of at most 0.06

    The scale is cut to the bounds and to a largest step. Nothing adds up where it is
    cut, as it would have to be unwound, nor while the way is all that is missing. The
    slope sees ahead, since sparsity follows the setting only over hundreds of steps,
    and units that die meanwhile don't come back.

    Args:
        target: The figure asked for.
        value: The setting at the beginning.
        actuator: An `Actuator`.
        bounds: Least and largest setting.
        sign: -1 if the metric moves against the sign of the gain, else 1.
        gain: Factor of the actuator's gain.
        dead_band: Errors of at most this size add nothing to the base.
    """

    # What the filter keeps of the readings before: it remembers some 4.
    MEMORY = 0.7
    # A larger error adds no more than this to the base: far off it would wind up.
    NEAR = 0.06
    # Readings in which an error adds to the base what it moves the setting by at once.
    RESET = 6
    # What the error may grow by above the actuator's own bounds.
    WORSE = 0.015
    # Readings until the gain is all there: an untrained network becomes sparser by
    # itself.
    START = 16

    def __init__(
        self, target, value, actuator, bounds, *, sign=1, gain=1.0, dead_band=0.0
    ):
        self.target = target
        self.actuator = actuator
        self.bounds = bounds
        self.gain = sign * gain * actuator.gain
        self.dead_band = dead_band
        self.scale = self.base = actuator.to_scale(
            min(max(value, bounds[0]), bounds[1])
        )
        self.readings = 0
        self.figure = math.nan
        self.slope = 0.0
        self.offset = 0.0
        self.total = 0.0
        # A mean of the last settings, for when it is to stay what it is.
        self.settled = self.scale
        # The error when the setting was last within the own bounds, if it ever was.
        self.error_within = math.inf
        # Whether it may push no further toward sparser.
        self.held = False

    @property
    def error(self):
        """What is missing to the target, on training batches."""
        return self.target + self.offset - self.figure

    @property
    def value(self):
        """The setting to assign."""
        # Rounding must not leave the bounds.
        value = self.actuator.from_scale(self.scale)
        return min(max(value, self.bounds[0]), self.bounds[1])

    @property
    def at_bound(self):
        """Whether the setting is at a bound."""
        # On the scale: a bound does not always come back from it as the same number.
        return self.scale in map(self.actuator.to_scale, self.bounds)

    def freeze(self):
        """Makes the setting the mean of the last ones."""
        self.scale = self.base = self.settled

    @property
    def mean(self):
        """The mean of the settings so far, on the actuator's scale."""
        scale = self.total / self.readings if self.readings else self.scale
        return self.actuator.from_scale(scale)

    def update(self, figure):
        """Takes the figure of a reading; returns the setting."""
        if not math.isfinite(figure):
            return self.value
        self.readings += 1
        self.total += self.scale
        self._smooth(figure)
        self._retreat()
        error, way = self.error, self.actuator.lag * self.slope
        gain = self.gain * min(1.0, self.readings / self.START)
        wanted = self.base + gain * (error - way)
        slew = self.actuator.slew
        low, high = (self.actuator.to_scale(bound) for bound in self.bounds)
        scale = min(max(wanted, self.scale - slew), self.scale + slew)
        scale = min(max(scale, low), high)
        if self.held and (scale - self.scale) * self.gain > 0:
            return self.value
        missing = min(max(error, -self.NEAR), self.NEAR) - way
        step = self.gain * missing / self.RESET
        follows = (wanted - scale) * step <= 0
        if abs(error) > self.dead_band and missing * error > 0 and follows:
            self.base = min(max(self.base + step, low), high)
        self.scale = scale
        self.settled += (scale - self.settled) / 8
        return self.value

    def _smooth(self, figure):
        """Takes a reading into the figure and its slope."""
        if math.isnan(self.figure):
            self.figure = figure
            return
        # The first ones weigh alike: a line of least squares.
        n = self.readings
        of_figure = max(1 - self.MEMORY**2, 2 * (2 * n - 1) / (n * (n + 1)))
        of_slope = max((1 - self.MEMORY) ** 2, 6 / (n * (n + 1)))
        surprise = figure - self.figure - self.slope
        self.figure += self.slope + of_figure * surprise
        self.slope += of_slope * surprise

    def _retreat(self):
        """Comes back from above the actuator's own bounds if that made it worse.

        There the effect may turn round: at q = 6 or 8 strong activations get so much
        noise that units die, and the layer becomes sparser, for which the loop would
        push on. From then on the setting stays below.
        """
        _, high = self.actuator.bounds
        if self.value <= high:
            self.error_within = abs(self.error)
        elif abs(self.error) > self.error_within + self.WORSE:
            self.bounds = (self.bounds[0], high)
            self.base = self.scale = self.actuator.to_scale(high)

    def correct(self, probe_figure):
        """Moves the setpoint toward the gap between training and probe data.

        By a quarter: with a seed, Keras shows the same batches at the end of each
        epoch, and a reading there is off by more than the gap.
        """
        gap = self.figure - probe_figure
        if math.isfinite(gap):
            self.offset += (gap - self.offset) / 4

    def state(self):
        """Returns what a resumed run needs, as a list of numbers."""
        return [*self.bounds, *(getattr(self, name) for name in _STATE)]

    def restore(self, state):
        """Takes what `state` returned; raises unless it may be that."""
        if len(state) != 2 + len(_STATE):
            raise ValueError(f"there should be {3 + len(_STATE)}")
        low, high, *numbers = map(float, state)
        numbers = dict(zip(_STATE, numbers, strict=True))
        finite = {**numbers, "low": low, "high": high}
        # Infinite until the setting is within the actuator's own bounds.
        within = finite.pop("error_within")
        if numbers["readings"] == 0:
            del finite["figure"]
        if math.isnan(within) or not all(map(math.isfinite, finite.values())):
            raise ValueError("not all are finite")
        self.bounds = (low, high)
        for name, number in numbers.items():
            setattr(self, name, number)
        self.held = bool(self.held)


_STATE = (
    *("scale", "base", "settled", "readings", "figure", "slope", "offset"),
    *("error_within", "held", "total"),
)


def check_actuator(actuator):
    """Returns the name `actuator`; raises unless it is one of `ACTUATORS`."""
    if not isinstance(actuator, str) or actuator not in ACTUATORS:
        raise ValueError(
            f"`actuator` must be one of {', '.join(ACTUATORS)}. Received: "
            f"actuator={actuator!r}. Leave it out for q."
        )
    return actuator


def check_metric(metric):
    """Returns `metric`; raises unless it is a function or a name of `RISING`."""
    if isinstance(metric, str) and metric not in RISING:
        raise ValueError(
            "`metric` must be a function f(x) that rises with sparsity, or one of "
            f"{', '.join(RISING)}. Received: metric={metric!r}. "
            + validation.did_you_mean(metric, RISING, "Give one of these.")
        )
    # A histogram can be called too, but is no number.
    number = callable(metric) and not isinstance(metric, ActivationHistogram)
    if not isinstance(metric, str) and not number:
        raise ValueError(
            "`metric` must be one name or function. Received: "
            f"metric={metric!r}. Give for example metric='hoyer'."
        )
    return metric


def check_target(target, bounded):
    """Returns `target`; raises unless its numbers are possible.

    Args:
        target: A number, or a dict of numbers by name.
        bounded: Whether the metric lies between 0 and 1.
    """
    numbers = list(target.values()) if isinstance(target, dict) else [target]
    for number in numbers:
        if (
            not validation.is_real(number)
            or not math.isfinite(number)
            or (bounded and not 0 < number < 1)
        ):
            rule = "between 0 and 1, neither included" if bounded else "finite"
            raise ValueError(
                f"`target` must be a number {rule}, what the metric is to be, or a "
                f"dict of them by layer. Received: target={target!r}. Give for example "
                "target=0.7."
            )
    if not numbers:
        raise ValueError(
            "`target` must have at least one layer. Received: target={}. Give a number "
            "for all layers."
        )
    return target


def check_bounds(bounds, actuator):
    """Returns `bounds` as two floats, those of the actuator for None."""
    known = ACTUATORS[actuator]
    if bounds is None:
        return known.bounds
    low, high = known.limits
    good = isinstance(bounds, (tuple, list)) and len(bounds) == 2
    good = good and all(validation.is_real(bound) for bound in bounds)
    if not good or not low <= bounds[0] < bounds[1] <= high:
        raise ValueError(
            f"`bounds` must be two numbers, the least and the largest {actuator}, "
            f"rising and within [{low:g}, {high:g}]. Received: bounds={bounds!r}. "
            f"Leave it out for {known.bounds}."
        )
    return tuple(map(float, bounds))
