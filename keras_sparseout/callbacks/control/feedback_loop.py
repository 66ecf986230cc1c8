"""The control law of SparsityController: from figures to settings of an actuator."""

import math

from keras_sparseout.callbacks.control.actuators import Actuator
from keras_sparseout.callbacks.control.loop_state import LoopState
from keras_sparseout.callbacks.control.run_length import ANY_TIME, ReadingTime

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
# sparser by itself. In a short run they are at most this share of its readings.
GAIN_RAMP = 16
GAIN_RAMP_SHARE = 1 / 6
# The recent output is an exponential mean over about so many readings.
RECENT_READINGS = 8
# The setting is steady while the outputs lie in a band of at most this width. In a run
# that can be repeated it is steady over this share of all batches, and the root mean
# square of how far off it was in the run is at most the spread: what it was before
# leaves its traces.
STEADY_BAND = 0.1
STEADY_SHARE = 0.5
STEADY_SPREAD = 0.2
# A step of 1 on the scale is assumed to move the metric by this over the actuator's
# gain.
ASSUMED_LOOP_GAIN = 3
# Evidence that the plant answers the other way, in standard errors: to believe it, and
# to keep to it. It is believed only while an error of at least this size does not fall.
CLEAR_EVIDENCE = 5
DOUBTFUL_EVIDENCE = 2
FAILING_ERROR = 0.02


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

    While the figure is short of its target, the output does not go beyond its start in
    the direction that leads away. Recursive least squares (Ljung 1999, "System
    Identification") tells how the figure answers to the setting. Where it clearly
    answers the other way, and the error stays, the gain changes its sign.

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
        self.assumed_effect = sign * ASSUMED_LOOP_GAIN / actuator.gain
        self.dead_band = dead_band
        output = actuator.to_scale(_limited(setting, *bounds))
        self.state = LoopState.initial(bounds, output)

    @property
    def setting(self) -> float:
        """The setting to assign."""
        # Rounding must not leave the bounds.
        setting = self.actuator.from_scale(self.state.output)
        return _limited(setting, *self.bounds)

    @property
    def mean_setting(self) -> float:
        """The mean of the settings so far, on the actuator's scale."""
        return self.actuator.from_scale(self._mean_output)

    @property
    def _mean_output(self) -> float:
        state = self.state
        return state.output_sum / state.readings if state.readings else state.output

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

    def steady_setting(self, batches: int) -> float | None:
        """Returns the setting that held over the last part of the run, if one did.

        Args:
            batches: How many batches the model was trained on.
        """
        state = self.state
        middle = (state.band_low + state.band_high) / 2
        early = batches - state.steady_since < STEADY_SHARE * batches
        mean_square = state.square_sum / max(state.readings, 1)
        off = mean_square - 2 * middle * self._mean_output + middle**2
        if early or (state.readings and off > STEADY_SPREAD**2):
            return None
        return self.actuator.from_scale(middle)

    def update(self, figure: float, time: ReadingTime = ANY_TIME) -> float:
        """Takes the figure of a reading at `time`; returns the setting.

        A figure that is not finite changes nothing.
        """
        if math.isfinite(figure):
            self._filter(figure)
            self._learn(figure)
            self._retreat()
            self._move(time)
            self._note_steadiness(time.batches)
        return self.setting

    def shift_setpoint(self, probe_figure: float) -> None:
        """Moves the setpoint toward the gap between training and probe data.

        By a quarter: with a seed, Keras shows the same batches at the end of each
        epoch, and a reading there is off by more than the gap. By more at first.
        """
        offset, shifts = self.state.setpoint_offset, self.state.shifts + 1
        gap = self.state.level - probe_figure
        if math.isfinite(gap):
            offset += (gap - offset) * max(1 / 4, 1 / (shifts + 1))
            self.state = self.state._replace(setpoint_offset=offset, shifts=shifts)

    def block_sparser(self, blocked: bool) -> None:
        """Forbids or allows moves toward sparser activations."""
        self.state = self.state._replace(sparser_blocked=blocked)

    def freeze(self, batches: int = 0) -> None:
        """Makes the setting the mean of the last ones.

        Args:
            batches: How many batches the model was trained on.
        """
        mean = self.state.recent_output
        self.state = self.state._replace(output=mean, integral=mean)
        self._note_steadiness(batches)

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
        self.state = state._replace(
            readings=n,
            level=level,
            slope=slope,
            output_sum=state.output_sum + state.output,
            square_sum=state.square_sum + state.output**2,
        )

    def _learn(self, figure: float) -> None:
        """Takes a reading into the model of the plant, and decides on its sign.

        Where the plant clearly answers the other way, the loop acts the other way: it
        goes back to the start. Without an error that stays, a rise that training alone
        brings could pass for an answer.
        """
        state, assumed = self.state, self.assumed_effect
        plant = state.plant.after(state.output, figure)
        effect = plant.effect(assumed)
        against = -math.copysign(effect.size, effect.size * assumed)
        turned = state.reversed and against > DOUBTFUL_EVIDENCE * effect.error
        failing = abs(self.error) > FAILING_ERROR and self.error * state.slope <= 0
        if failing and state.readings > GAIN_RAMP:
            turned = turned or against > CLEAR_EVIDENCE * effect.error
        self.state = state._replace(plant=plant, reversed=turned)

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

    def _move(self, time: ReadingTime) -> None:
        """Moves the output, and the integral where nothing limits the output."""
        state, error, slew = self.state, self.error, self.actuator.slew_limit
        predicted_rise = self.actuator.lag * state.slope
        ramp = min(GAIN_RAMP, GAIN_RAMP_SHARE * time.readings)
        full_gain = -self.gain if state.reversed else self.gain
        gain = full_gain * min(1.0, state.readings / ramp)
        wanted = state.integral + gain * (error - predicted_rise)
        low, high = map(self.actuator.to_scale, self.bounds)
        output = _limited(wanted, state.output - slew, state.output + slew)
        output = self._kept_from_away(_limited(output, low, high))
        if state.sparser_blocked and (output - state.output) * self.gain > 0:
            return
        near = _limited(error, -MAX_INTEGRATED_ERROR, MAX_INTEGRATED_ERROR)
        missing = near - predicted_rise
        step = full_gain * missing / INTEGRAL_TIME
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

    def _kept_from_away(self, output: float) -> float:
        """Returns `output`, but not farther from the target than it was at the start.

        The derivative term may brake, and take back what was moved. Beyond the start it
        would push the figure away from its target.
        """
        state, toward = self.state, self.error * self.gain
        if toward > 0:
            return max(output, min(state.start, state.output))
        return min(output, max(state.start, state.output))

    def _note_steadiness(self, batches: int) -> None:
        """Widens the band of the last outputs, or begins a new one."""
        state = self.state
        low, high = (
            min(state.band_low, state.output),
            max(state.band_high, state.output),
        )
        since = state.steady_since
        if high - low > STEADY_BAND or batches < since:
            low = high = state.output
            since = batches
        self.state = state._replace(band_low=low, band_high=high, steady_since=since)


def _limited(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)
