"""What a SparsityController can move: q, the rate, or the weight of a penalty."""

import dataclasses
import math
from collections.abc import Callable
from typing import Literal, TypeAlias

ActuatorName: TypeAlias = Literal["q", "rate", "weight", "penalty", "threshold"]


@dataclasses.dataclass(frozen=True)
class Actuator:
    """A knob of a layer that changes the sparsity, and the scale that it moves on.

    Attributes:
        default_bounds: Least and largest setting unless the user gives others.
        limits: The range that bounds must lie in.
        gain: Step on the scale for an error of 1 in the metric.
        slew_limit: Largest step on the scale from one reading to the next.
        lag: How many readings the sparsity takes to follow. The loop looks ahead by as
            many.
        to_scale: Function from a setting to the scale, on which equal steps matter
            about equally.
        from_scale: Its inverse.
    """

    default_bounds: tuple[float, float]
    limits: tuple[float, float]
    gain: float
    slew_limit: float
    lag: int
    to_scale: Callable[[float], float]
    from_scale: Callable[[float], float]


def _q_to_scale(q: float) -> float:
    # Above 2 the sparsity falls less and less. Differences instead of ratios keep the
    # loop from running away there.
    return math.log(q / 2) if q < 2 else q / 2 - 1


def _q_from_scale(scale: float) -> float:
    return 2 * (math.exp(scale) if scale < 0 else 1 + scale)


# The scale of weights is linear up to about here, and logarithmic above.
_SMALL_WEIGHT = 1e-3

ACTUATORS: dict[ActuatorName, Actuator] = {
    "q": Actuator(
        default_bounds=(1.0, 4.0),
        limits=(0.01, 100.0),
        gain=-20.0,
        slew_limit=0.15,
        lag=3,
        to_scale=_q_to_scale,
        from_scale=_q_from_scale,
    ),
    "rate": Actuator(
        default_bounds=(0.05, 0.9),
        limits=(0.001, 0.999),
        gain=40.0,
        slew_limit=0.3,
        lag=3,
        to_scale=lambda rate: math.log(rate / (1 - rate)),
        from_scale=lambda scale: 1 / (1 + math.exp(-scale)),
    ),
    "weight": Actuator(
        default_bounds=(0.0, 0.1),
        limits=(0.0, 1e6),
        gain=30.0,
        slew_limit=0.4,
        lag=1,
        to_scale=lambda weight: math.asinh(weight / _SMALL_WEIGHT),
        from_scale=lambda scale: _SMALL_WEIGHT * math.sinh(scale),
    ),
}

# The push of a penalty is in parts of the push that the loss has of its own.
DEFAULT_BOUNDS: dict[ActuatorName, tuple[float, float]] = {
    **{name: actuator.default_bounds for name, actuator in ACTUATORS.items()},
    "penalty": (0.0, 10.0),
    "threshold": (0.0, 0.99),
}
LIMITS: dict[ActuatorName, tuple[float, float]] = {
    **{name: actuator.limits for name, actuator in ACTUATORS.items()},
    "penalty": (0.0, 1000.0),
    "threshold": (0.0, 0.999),
}


def setting_key(actuator: ActuatorName) -> str:
    """Returns what the setting of an actuator is called in logs, and in layers."""
    return "target" if actuator == "threshold" else actuator
