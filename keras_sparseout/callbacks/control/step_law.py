"""The law of control inside the training step: one step for each batch.

It is a PI controller of the error between a setpoint and the filtered figure. In the
words of constrained optimization, the output is the multiplier of the constraint that
the figure is the target: a nu-PI update (Sohrabi et al. 2024, arXiv 2406.04558), which
sees an averaged violation, and answers to its changes too. Times are in units that
follow from the length of the run, so that the same numbers serve runs of any length.
"""

import math
from typing import NamedTuple

from keras import ops

from keras_sparseout.utils.types import Tensor

# The filter keeps this share of what it knew a unit of time before.
FILTER_MEMORY = 0.8
# The integral takes in an error of at most this size. Far from the target it would
# wind up.
MAX_INTEGRATED_ERROR = 0.06
# Units of time before anything moves: the first figures tell where the ramp begins.
WARM_UP = 2.0
# The recent output is an exponential mean over about so many units of time.
RECENT = 8.0


class Law(NamedTuple):
    """The numbers that fit an actuator.

    Attributes:
        gain: How far the output moves for an error of 1.
        integral_time: Units of time in which a steady error moves the integral as far
            as the gain moves the output.
        lag: Units of time that the figure takes to follow. The law looks ahead by them.
        slew: Largest step of the output in a unit of time.
        feedforward: What the setpoint adds to the output, times this.
        correction: Largest size of the integral.
        low: Least output.
        high: Largest output.
    """

    gain: float
    integral_time: float
    lag: float
    slew: float
    feedforward: float = 0.0
    correction: float = math.inf
    low: float = 0.0
    high: float = 1.0


class State(NamedTuple):
    """What the law remembers, a vector each with an entry for each group of layers.

    Attributes:
        batches: How many batches there were.
        level: The filtered figure.
        slope: Its rise from one batch to the next.
        start: The level at which the ramp begins.
        integral: The integral term.
        output: What the actuator gets, on its scale.
        recent: Exponential mean of the last outputs.
    """

    batches: Tensor
    level: Tensor
    slope: Tensor
    start: Tensor
    integral: Tensor
    output: Tensor
    recent: Tensor


class Plan(NamedTuple):
    """What the law is told, a vector each with an entry for each group of layers.

    Attributes:
        setpoint: What the figure is to be after the ramp.
        ramp: After how many batches the ramp ends.
        unit: How many batches a unit of time has, >= 1.
        blocked: 1 where the output must not rise.
        frozen: 1 where the output is held at its recent mean.
    """

    setpoint: Tensor
    ramp: Tensor
    unit: Tensor
    blocked: Tensor
    frozen: Tensor


def step(law: Law, state: State, plan: Plan, figure: Tensor) -> State:
    """Returns the state after a batch.

    Args:
        law: The numbers that fit the actuator.
        state: The state before.
        plan: What is asked for.
        figure: The figure of the batch, a vector. What is not finite moves nothing.
    """
    new = _filtered(state, plan, figure)
    setpoint, climb = _setpoint(new, plan)
    error = setpoint - new.level
    ahead = law.lag * plan.unit * (climb - new.slope)
    slew = law.slew / plan.unit
    fed = law.feedforward * setpoint
    wanted = fed + new.integral + law.gain * (error + ahead)
    output = ops.clip(wanted, new.output - slew, new.output + slew)
    output = ops.clip(output, law.low, law.high)
    near = ops.clip(error, -MAX_INTEGRATED_ERROR, MAX_INTEGRATED_ERROR)
    change = law.gain * (near + ahead) / (law.integral_time * plan.unit)
    # Anti-windup. Against the error the integral moves only where it looks ahead.
    counts = (near + ahead) * error > 0
    counts = ops.logical_and(counts, (wanted - output) * change <= 0)
    integral = ops.where(counts, new.integral + change, new.integral)
    integral = ops.clip(integral, -law.correction, law.correction)
    integral = ops.clip(integral, law.low - law.feedforward, law.high)
    held = ops.logical_or(new.batches <= WARM_UP * plan.unit, plan.frozen > 0)
    rises = ops.logical_and(plan.blocked > 0, output > new.output)
    held = ops.logical_or(held, rises)
    output = ops.where(held, new.output, output)
    output = ops.where(plan.frozen > 0, new.recent, output)
    integral = ops.where(held, new.integral, integral)
    recent = new.recent + (output - new.recent) / (RECENT * plan.unit)
    new = new._replace(output=output, integral=integral, recent=recent)
    finite = ops.isfinite(figure)
    return State(*(ops.where(finite, a, b) for a, b in zip(new, state, strict=True)))


def _filtered(state: State, plan: Plan, figure: Tensor) -> State:
    """Returns the state with a figure taken into the level, the slope and the start."""
    n = state.batches + 1
    memory = ops.power(FILTER_MEMORY, 1 / plan.unit)
    # The first figures weigh alike: a line of least squares.
    of_level = ops.maximum(1 - memory**2, 2 * (2 * n - 1) / (n * (n + 1)))
    of_slope = ops.maximum((1 - memory) ** 2, 6 / (n * (n + 1)))
    innovation = figure - state.level - state.slope
    level = state.level + state.slope + of_level * innovation
    slope = state.slope + of_slope * innovation
    first = n <= 1
    level = ops.where(first, figure, level)
    slope = ops.where(first, ops.zeros_like(slope), slope)
    start = ops.where(n <= WARM_UP * plan.unit, level, state.start)
    return state._replace(batches=n, level=level, slope=slope, start=start)


def _setpoint(state: State, plan: Plan) -> tuple[Tensor, Tensor]:
    """Returns where the ramp is, and how fast it rises."""
    begin = WARM_UP * plan.unit
    length = ops.maximum(plan.ramp - begin, 1.0)
    part = ops.clip((state.batches - begin) / length, 0.0, 1.0)
    rise = plan.setpoint - state.start
    # Above the target it comes down at once: a ramp would push to slow that.
    rises = rise > 0
    climbs = ops.logical_and(rises, ops.logical_and(part > 0, part < 1))
    climb = ops.where(climbs, rise / length, 0.0)
    return ops.where(rises, state.start + rise * part, plan.setpoint), climb
