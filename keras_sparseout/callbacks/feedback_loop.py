"""The control law of SparsityController: from figures to settings of an actuator."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from keras_sparseout.callbacks.actuators import Actuator

# The filter keeps this share of the readings before: it remembers about 4 of them.
FILTER_MEMORY = 0.7
# The integral takes in an error of at most this size. Far from the target it would
# wind up.
MAX_INTEGRATED_ERROR = 0.06
# Readings in which a steady error moves the integral as far as the proportional term.
INTEGRAL_TIME = 6
# How much the error may grow above the actuator's default bounds.
RETREAT_MARGIN = 0.015
# Readings over which the gain rises to its full size: an untrained network becomes
# sparser by itself.
GAIN_RAMP = 16
# The recent output is an exponential mean over about so many readings.
RECENT_READINGS = 8


class LoopState(NamedTuple):
    """What a resumed run needs of a loop; saved with the layer, in this order.

    Attributes:
        low: Lower bound of the setting.
        high: Upper bound of the setting.
        output: The setting on the actuator's scale.
        integral: The integral term, on the same scale.
        recent_output: Exponential mean of the last outputs.
        readings: Number of readings so far.
        level: The filtered figure, NaN before the first reading.
        slope: Its rise from one reading to the next.
        setpoint_offset: Gap between training and probe data, added to the target.
        error_in_default_bounds: Size of the last error with a setting that was not
            above the actuator's default bounds; infinite if there was none.
        sparser_blocked: Whether the setting may not move toward sparser.
        output_sum: Sum of the outputs over all readings.
    """

    low: float
    high: float
    output: float
    integral: float
    recent_output: float
    readings: int = 0
    level: float = math.nan
    slope: float = 0.0
    setpoint_offset: float = 0.0
    error_in_default_bounds: float = math.inf
    sparser_blocked: bool = False
    output_sum: float = 0.0

    @classmethod
    def from_numbers(cls, numbers: Sequence[float]) -> "LoopState":
        """Returns the state that was saved as `numbers`; raises if none can be that."""
        state = cls._make(map(float, numbers))
        # At first these two are not finite.
        required = state._replace(error_in_default_bounds=0.0)
        if state.readings == 0:
            required = required._replace(level=0.0)
        no_error = math.isnan(state.error_in_default_bounds)
        if no_error or not all(map(math.isfinite, required)):
            raise ValueError("not all are finite")
        return state._replace(
            readings=int(state.readings), sparser_blocked=bool(state.sparser_blocked)
        )


class FeedbackLoop:
    """Moves one setting until the metric reaches its target, and holds it there.

    A PID controller on the actuator's scale. A fading-memory filter of degree 1 turns
    the readings into a level and a slope, and does not lag behind a steady rise
    (Morrison 1969, "Introduction to Sequential Smoothing and Prediction"). For each
    reading,

        error          = target + setpoint offset - level
        predicted rise = lag slope
        output         = integral + gain (error - predicted rise)
        integral      += gain (error - predicted rise) / 6

    where the integral takes in an error of at most 0.06. The output is limited to the
    bounds and to the actuator's slew limit. Anti-windup: the integral stays while a
    limit cuts the output, and while the predicted rise alone makes up for the error.
    The derivative term looks ahead, since sparsity follows the setting only over
    hundreds of steps, and units that die meanwhile don't come back.

    Whoever uses a loop gives it figures with `update`, and assigns its `setting`. The
    constants of the law stand at the top of this file.

    Args:
        target: The figure asked for.
        setting: The setting at the beginning.
        actuator: What is moved.
        bounds: Least and largest setting.
        sign: -1 if the metric moves against the sign of the gain, else 1.
        gain: Factor of the actuator's gain.
        dead_band: The integral leaves out errors of at most this size.

    Attributes:
        state: The `LoopState`; assign one to go on from it.
    """

    def __init__(
        self,
        target: float,
        setting: float,
        actuator: Actuator,
        bounds: tuple[float, float],
        *,
        sign: int = 1,
        gain: float = 1.0,
        dead_band: float = 0.0,
    ) -> None:
        self.target = target
        self.actuator = actuator
        self.gain = sign * gain * actuator.gain
        self.dead_band = dead_band
        output = actuator.to_scale(_limited(setting, *bounds))
        self.state = LoopState(*bounds, output, integral=output, recent_output=output)

    @property
    def setting(self) -> float:
        """The setting to assign."""
        # Rounding must not leave the bounds.
        setting = self.actuator.from_scale(self.state.output)
        return _limited(setting, *self.bounds)

    @property
    def mean_setting(self) -> float:
        """The mean of the settings so far, on the actuator's scale."""
        state = self.state
        mean = state.output_sum / state.readings if state.readings else state.output
        return self.actuator.from_scale(mean)

    @property
    def bounds(self) -> tuple[float, float]:
        """Least and largest setting; after a retreat the largest is lower."""
        return self.state.low, self.state.high

    @property
    def at_bound(self) -> bool:
        """Whether the setting is at a bound."""
        # On the scale: a bound does not always come back from it as the same number.
        return self.state.output in map(self.actuator.to_scale, self.bounds)

    @property
    def error(self) -> float:
        """Setpoint minus level, on training batches."""
        return self.target + self.state.setpoint_offset - self.state.level

    def update(self, figure: float) -> float:
        """Takes the figure of a reading; returns the setting.

        A figure that is not finite changes nothing.
        """
        if math.isfinite(figure):
            self._filter(figure)
            self._retreat()
            self._move()
        return self.setting

    def shift_setpoint(self, probe_figure: float) -> None:
        """Moves the setpoint toward the gap between training and probe data.

        By a quarter: with a seed, Keras shows the same batches at the end of each
        epoch, and a reading there is off by more than the gap.
        """
        offset = self.state.setpoint_offset
        gap = self.state.level - probe_figure
        if math.isfinite(gap):
            offset += (gap - offset) / 4
            self.state = self.state._replace(setpoint_offset=offset)

    def block_sparser(self, blocked: bool) -> None:
        """Forbids or allows moves toward sparser activations."""
        self.state = self.state._replace(sparser_blocked=blocked)

    def freeze(self) -> None:
        """Makes the setting the mean of the last ones."""
        mean = self.state.recent_output
        self.state = self.state._replace(output=mean, integral=mean)

    def _filter(self, figure: float) -> None:
        """Takes a reading into the level and the slope."""
        state = self.state
        n = state.readings + 1
        level, slope = figure, state.slope
        if not math.isnan(state.level):
            # The first readings weigh alike: a line of least squares.
            of_level = max(1 - FILTER_MEMORY**2, 2 * (2 * n - 1) / (n * (n + 1)))
            of_slope = max((1 - FILTER_MEMORY) ** 2, 6 / (n * (n + 1)))
            innovation = figure - state.level - state.slope
            level = state.level + (state.slope + of_level * innovation)
            slope = state.slope + of_slope * innovation
        total = state.output_sum + state.output
        self.state = state._replace(
            readings=n, level=level, slope=slope, output_sum=total
        )

    def _retreat(self) -> None:
        """Comes back from above the default bounds if the error grew there.

        There the effect may reverse: at q = 6 or 8 strong activations get so much noise
        that units die. The layer becomes sparser, and the loop would push further. From
        then on the setting stays below.
        """
        error, high = abs(self.error), self.actuator.default_bounds[1]
        if self.setting <= high:
            self.state = self.state._replace(error_in_default_bounds=error)
        elif error > self.state.error_in_default_bounds + RETREAT_MARGIN:
            output = self.actuator.to_scale(high)
            self.state = self.state._replace(high=high, output=output, integral=output)

    def _move(self) -> None:
        """Moves the output, and the integral where nothing limits the output."""
        state, error, slew = self.state, self.error, self.actuator.slew_limit
        predicted_rise = self.actuator.lag * state.slope
        gain = self.gain * min(1.0, state.readings / GAIN_RAMP)
        wanted = state.integral + gain * (error - predicted_rise)
        low, high = map(self.actuator.to_scale, self.bounds)
        output = _limited(wanted, state.output - slew, state.output + slew)
        output = _limited(output, low, high)
        if state.sparser_blocked and (output - state.output) * self.gain > 0:
            return
        near = _limited(error, -MAX_INTEGRATED_ERROR, MAX_INTEGRATED_ERROR)
        missing = near - predicted_rise
        step = self.gain * missing / INTEGRAL_TIME
        integral = state.integral
        # Anti-windup, and the dead band.
        cut = (wanted - output) * step > 0
        if abs(error) > self.dead_band and missing * error > 0 and not cut:
            integral = _limited(integral + step, low, high)
        recent = state.recent_output
        recent += (output - recent) / RECENT_READINGS
        self.state = state._replace(
            output=output, integral=integral, recent_output=recent
        )


def _limited(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)
