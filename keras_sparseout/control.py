"""The control loop of SparsityController: from figures to settings of an actuator."""

import dataclasses
import math

import numpy as np


@dataclasses.dataclass(frozen=True)
class Actuator:
    """A knob of a layer that moves the sparsity, and the scale that it moves on.

    Attributes:
        knob: Name of the knob.
        bounds: Its least and largest value unless the user gives others.
        limits: What bounds may be at all.
        gain: Step on the scale for an error of 1 in the figure.
        to_scale: Function to the scale on which equal steps matter equally.
        from_scale: Its inverse.
    """

    knob: str
    bounds: tuple
    limits: tuple
    gain: float
    to_scale: callable
    from_scale: callable


# Up to here equal ratios of q matter equally; beyond, sparsity hardly falls any more,
# and equal differences keep the loop from running away.
_Q_TURN = 2.0
_SMALLEST_WEIGHT = 1e-3


def _q_to_scale(q):
    return math.log(q / _Q_TURN) if q < _Q_TURN else q / _Q_TURN - 1


def _q_from_scale(scale):
    return _Q_TURN * (math.exp(scale) if scale < 0 else 1 + scale)

ACTUATORS = {
    "q": Actuator("q", (1.0, 4.0), (1e-2, 100.0), -20.0, _q_to_scale, _q_from_scale),
    "rate": Actuator(
        "rate",
        (0.05, 0.9),
        (1e-3, 0.99),
        4.0,
        lambda rate: math.log(rate / (1 - rate)),
        lambda scale: 1 / (1 + math.exp(-scale)),
    ),
    # Linear near 0, logarithmic far from it, for either sign.
    "weight": Actuator(
        "weight",
        (0.0, 0.1),
        (-1.0, 100.0),
        30.0,
        lambda weight: math.asinh(weight / _SMALLEST_WEIGHT),
        lambda scale: _SMALLEST_WEIGHT * math.sinh(scale),
    ),
}


class Loop:
    """Moves one setting until a figure is the asked one, and holds it there.

    A PI controller on the actuator's scale: for each figure, with the error
    e = target - (figure - offset),

        scale += gain * (e - e_before + e / RESET)

    cut to the bounds, so that nothing winds up beyond them. In the dead band the second
    term is left out.

    Args:
        target: The figure asked for.
        value: The actuator's setting at the beginning.
        actuator: An `Actuator`.
        bounds: Least and largest setting.
        gain: Factor of the actuator's gain.
        dead_band: Errors of at most this size are let be.
    """

    # Readings in which the second term comes to as much as the first.
    RESET = 8.0
    NEAR = 0.03
    START = 8
    AHEAD = 8

    def __init__(self, target, value, actuator, bounds, *, gain=1.0, dead_band=0.0):
        self.target = target
        self.actuator = actuator
        self.bounds = bounds
        self.gain = gain * actuator.gain
        self.dead_band = dead_band
        self.scale = actuator.to_scale(min(max(value, bounds[0]), bounds[1]))
        self.base = self.scale
        self.readings = 0
        self.slope = self.last = 0.0
        self.offset = 0.0
        self.error = math.nan
        self.figure = math.nan
        # Whether it may push no further toward sparser.
        self.held = False

    @property
    def value(self):
        """The setting to assign."""
        value = self.actuator.from_scale(self.scale)
        # Rounding must not leave the bounds.
        return min(max(value, self.bounds[0]), self.bounds[1])

    def update(self, figure):
        """Takes a new figure; returns the setting."""
        if math.isnan(figure):
            return self.value
        before = self.figure
        if math.isnan(before):
            self.figure = figure
        else:
            self.figure += (figure - before) / 4
            self.slope += (self.figure - before - self.slope) / 8
        error = self.error = self.target + self.offset - self.figure
        low, high = (self.actuator.to_scale(bound) for bound in self.bounds)
        if self.dead_band < abs(error) < self.NEAR:
            self.base = min(max(self.base + self.gain * error / self.RESET, low), high)
        # Softly at first: an untrained network becomes sparser by itself, and units that
        # die meanwhile don't come back.
        self.readings += 1
        gain = self.gain * min(1.0, self.readings / self.START)
        ahead = error - self.AHEAD * self.slope
        self.scale = min(max(self.base + gain * ahead, low), high)
        return self.value

    def correct(self, probe_figure):
        """Moves the setpoint by the gap between training and probe figures."""
        gap = self.figure - probe_figure
        if not math.isnan(gap):
            self.offset += (gap - self.offset) / 2

    def at_bound(self):
        """Returns the bound that the setting is at, or None."""
        return self.value if self.value in self.bounds else None

    def state(self):
        """Returns what a resumed run needs, as a list of numbers."""
        return [self.scale, self.offset, self.error, self.figure, float(self.held)]

    def restore(self, state):
        """Takes what `state` returned."""
        self.scale, self.offset, self.error, self.figure, held = map(float, state)
        self.held = bool(held)
