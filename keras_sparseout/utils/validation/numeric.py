"""Checks of arguments that are numbers."""

import math
import numbers
from typing import TypeGuard

import keras

from keras_sparseout.utils.validation.messages import value_error

# Below this a float32 intermediate is a denormal, which XLA and most GPUs flush to 0.
_SMALLEST_EPSILON = 1e-30
# From here on a number is infinite in float32.
_INFINITE = (2 - 2**-24) * 2.0**127
_LEAVE_OUT = "Leave it out for the default."


def is_real(value: object) -> TypeGuard[float]:
    """Whether `value` is a real number, which a bool is not."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def is_int(value: object) -> TypeGuard[int]:
    """Whether `value` is an integer, which a bool is not."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def check_rate(rate: object) -> float:
    """Returns `rate` as a float; raises unless it is a number in [0, 1]."""
    meaning = ", the fraction of units to drop"
    remedy = _remedy_for_knob("rate", rate, "Give for example rate=0.5.")
    return _check_share("rate", rate, meaning, remedy)


def check_recurrent_rate(rate: object) -> float:
    """Returns `rate` as a float; raises unless it is a number in [0, 1]."""
    remedy = _remedy_for_knob("recurrent_rate", rate, _LEAVE_OUT)
    return _check_share("recurrent_rate", rate, "", remedy)


def check_share(name: str, value: object) -> float:
    """Returns `value` as a float; raises unless it is a number in [0, 1]."""
    return _check_share(name, value, "", _LEAVE_OUT)


def _check_share(name, value, meaning, remedy):
    if not is_real(value) or not 0 <= value <= 1:
        raise value_error(name, value, f"a number between 0 and 1{meaning}", remedy)
    return float(value)


def check_target(target: object) -> float:
    """Returns `target` as a float; raises unless it is a number in [0, 1)."""
    # In float32, as an adjustable layer keeps it.
    if not is_real(target) or not 0 <= target < 1 - 2**-25:
        raise value_error(
            "target",
            target,
            "a number >= 0 and < 1, the share of the activations that is to be zero",
            _remedy_for_knob("target", target, "Give for example target=0.7."),
        )
    return float(target)


def check_target_fraction(target_fraction: object) -> float:
    """Returns `target_fraction` as a float; raises unless it is in [0, 1]."""
    meaning = ", the share of the units of a sample that is perturbed"
    remedy = "Leave it out to perturb all of them."
    return _check_share("target_fraction", target_fraction, meaning, remedy)


def check_momentum(momentum: object) -> float:
    """Returns `momentum` as a float; raises unless it is a number in [0, 1)."""
    if not is_real(momentum) or not 0 <= momentum < 1:
        rule = "a number >= 0 and < 1"
        raise value_error("momentum", momentum, rule, _LEAVE_OUT)
    return float(momentum)


def check_q(q: object) -> float:
    """Returns `q` as a float; raises unless it is a finite number >= 0."""
    if isinstance(q, (tuple, list)):
        raise ValueError(
            "`q` must be a finite number >= 0; it stands where keras.layers.Dropout "
            f"has `noise_shape`. Received: q={q!r}. Pass noise_shape={q!r} by name."
        )
    if is_real(q) and _INFINITE <= q < math.inf:
        rule = "at most 3.4e38, the largest number of float32, in which it is computed"
        raise value_error("q", q, rule, "Give a smaller one, such as q=4.")
    remedy = "Give q=2 for Dropout, less for sparser activations, more for denser ones."
    return _check_size("q", q, "", remedy)


def check_weight(weight: object) -> float:
    """Returns `weight` as a float; raises unless it is a finite number >= 0."""
    meaning = ", what the penalty is multiplied by"
    return _check_size("weight", weight, meaning, "Give for example weight=1e-3.")


def check_c(c: object) -> float:
    """Returns `c` of Shakeout as a float; raises unless it is a finite number >= 0."""
    remedy = "Give c=0 for Dropout of the layer's inputs."
    return _check_size("c", c, ", the magnitude of a dropped weight", remedy)


def _check_size(name, value, meaning, remedy):
    if not is_real(value) or not 0 <= value < math.inf:
        remedy = _remedy_for_knob(name, value, remedy)
        raise value_error(name, value, f"a finite number >= 0{meaning}", remedy)
    return float(value)


def _remedy_for_knob(name, value, otherwise):
    """Returns the remedy for a knob that is no number: for a tensor, or `otherwise`."""
    if isinstance(value, keras.KerasTensor) or keras.ops.is_tensor(value):
        return (
            "Give its value as a number. To change it while training, make the layer "
            f"with adjustable=True and assign numbers to layer.{name}."
        )
    return otherwise


def check_positive(name: str, value: object) -> float:
    """Returns `value` as a float; raises unless it is a finite number > 0."""
    if not is_real(value) or not 0 < value < math.inf:
        raise value_error(name, value, "a finite number > 0", _LEAVE_OUT)
    return float(value)


def check_epsilon(epsilon: object) -> float:
    """Returns `epsilon` as a float, `keras.config.epsilon()` for None."""
    if epsilon is None:
        epsilon = keras.config.epsilon()
    if not is_real(epsilon) or not _SMALLEST_EPSILON <= epsilon < math.inf:
        raise value_error(
            "epsilon",
            epsilon,
            f"a finite number >= {_SMALLEST_EPSILON:g}: a smaller one is flushed to 0 "
            "in float32",
            "Leave it None for keras.config.epsilon(), or give 1e-12 as the authors' "
            "release does.",
        )
    return float(epsilon)


def check_threshold(threshold: object) -> float:
    """Returns `threshold` as a float; raises unless it is a number >= 0."""
    if not is_real(threshold) or not threshold >= 0:
        rule = "a number >= 0, what |x| may be at most to count as 0"
        remedy = "Leave it out for exact zeros."
        raise value_error("threshold", threshold, rule, remedy)
    return float(threshold)


def check_powers(p: object, q: object) -> None:
    """Raises unless `p` and `q` are finite numbers, 0 < p < q."""
    if not is_real(p) or not is_real(q) or not 0 < p < q < math.inf:
        raise ValueError(
            "`p` and `q` must be finite numbers with 0 < p < q. Received: "
            f"p={p!r}, q={q!r}. Leave them out for p=1 and q=2."
        )


def check_count(
    name: str,
    value: object,
    *,
    least: int = 1,
    meaning: str = "",
    remedy: str = _LEAVE_OUT,
) -> int:
    """Returns `value` as an int; raises unless it is an integer >= `least`.

    Args:
        name: Name of the argument.
        value: What was given.
        least: The smallest number that it may be.
        meaning: What it counts, for the message: empty, or ", ..." after the rule.
        remedy: What to do instead, a sentence.
    """
    if not is_int(value) or value < least:
        raise value_error(name, value, f"an integer >= {least}{meaning}", remedy)
    return int(value)


def check_seed(seed: object) -> int | None:
    """Returns `seed` as an int, or None for a random one."""
    if seed is None:
        return None
    if not is_int(seed) or not -(2**63) <= seed < 2**63:
        rule = "an integer of at most 64 bits, or None"
        remedy = "Give for example seed=42, or None for a random seed."
        raise value_error("seed", seed, rule, remedy)
    return int(seed)
