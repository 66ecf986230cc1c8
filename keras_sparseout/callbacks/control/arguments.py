"""Checks of what a SparsityController is asked for, and its targets by layer."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_args

from keras_sparseout.callbacks.control import control_keys, macs_budget
from keras_sparseout.callbacks.control.accuracy_limits import MinMetric
from keras_sparseout.callbacks.control.actuators import (
    DEFAULT_BOUNDS,
    LIMITS,
    ActuatorName,
)
from keras_sparseout.callbacks.control.macs_budget import NEEDLESS_MACS
from keras_sparseout.callbacks.control.penalty_push import Kind
from keras_sparseout.metrics import ActivationHistogram, StreamingMetric
from keras_sparseout.metrics.get import Metric, check_metrics
from keras_sparseout.utils import validation

# Metrics that rise with sparsity. All of them lie between 0 and 1.
RISING = (
    *("gini", "hoyer", NEEDLESS_MACS, "population_sparseness", "pq_index"),
    "zero_fraction",
)


def check_actuator(actuator: ActuatorName | None) -> ActuatorName | None:
    """Returns `actuator`; raises unless it is the name of an actuator, or None."""
    names = get_args(ActuatorName)
    known = isinstance(actuator, str) and actuator in names
    if actuator is not None and not known:
        raise ValueError(
            f"`actuator` must be one of {', '.join(names)}. Received: "
            f"actuator={actuator!r}. Leave it out to move what the model has: "
            "adjustable layers, or else a penalty."
        )
    return actuator


def check_kind(kind: Kind | None, actuator: ActuatorName | None) -> Kind:
    """Returns the kind of penalty; raises unless it is one, or None."""
    if kind is None:
        return "hoyer_square"
    if str(kind) not in get_args(Kind):
        raise ValueError(
            f"`kind` must be one of {', '.join(map(repr, get_args(Kind)))}. Received: "
            f"kind={kind!r}. Leave it out for 'hoyer_square'."
        )
    if actuator not in (None, "penalty"):
        raise ValueError(
            '`kind` is the kind of penalty, so `actuator` must be "penalty". Received: '
            f"kind={kind!r} with actuator={actuator!r}. Leave `kind` out."
        )
    return kind


def check_reach_by(reach_by: float) -> float:
    """Returns `reach_by`; raises unless it is a share of the run above 0."""
    if not validation.is_real(reach_by) or not 0 < reach_by <= 1:
        raise ValueError(
            "`reach_by` must be the part of the run after which the target is reached, "
            f"> 0 and <= 1. Received: reach_by={reach_by!r}. Leave it out for 0.5."
        )
    return float(reach_by)


def check_metric(metric: Metric) -> tuple[str, dict[str, StreamingMetric]]:
    """Returns the name of `metric`, and the streaming metrics of layers by name.

    The first of these is the metric, or for "needless_macs" that of the zeros which
    save them. The second is "dead_units".

    Raises:
        ValueError: unless it is a function or a name of `RISING`, or if it has sums for
            each unit, which tell nothing of a few samples.
    """
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
    of_model = isinstance(metric, str) and metric == NEEDLESS_MACS
    [name] = metrics = check_metrics(["zero_fraction" if of_model else metric])
    if name == NEEDLESS_MACS:
        raise ValueError(
            f"`metric` must have another name than {name!r}, which is a figure of the "
            f"whole model. Received: metric={metric!r}. Rename it."
        )
    if any(None in shape for shape in metrics[name].shapes(None)):
        raise ValueError(
            "`metric` must tell its figure from each sample, so it can't be one with "
            "sums for each unit, such as dead_units and lifetime_sparseness. Received: "
            f"metric={metric!r}. Give for example metric='hoyer'."
        )
    metrics.update(check_metrics("dead_units"))
    metrics["dead_units"].optional = True
    return NEEDLESS_MACS if of_model else name, metrics


def check_target(
    target: float | Mapping[str, float], metric: str
) -> float | Mapping[str, float]:
    """Returns `target` in floats; raises unless the metric can have its numbers.

    Args:
        target: A number, or a dict of numbers by name of a layer.
        metric: Name of the metric.
    """
    bounded = metric in RISING
    numbers = list(target.values()) if isinstance(target, Mapping) else [target]
    for number in numbers:
        if (
            not validation.is_real(number)
            or not math.isfinite(number)
            or (bounded and not 0 < number < 1)
        ):
            rule = "number above 0 and below 1" if bounded else "finite number"
            raise ValueError(
                f"`target` must be the value that the metric should reach: a {rule}, "
                f"or a dict of such numbers by layer. Received: target={target!r}. "
                "Give for example target=0.7."
            )
    if not numbers:
        raise ValueError(
            "`target` must have at least one layer. Received: target={}. Give a number "
            "for all layers."
        )
    if isinstance(target, Mapping):
        return {name: float(number) for name, number in target.items()}
    return float(target)


def targets_by_layer(
    target: float | Mapping[str, float], layers: Iterable[str]
) -> dict[str, float]:
    """Returns the targets of the layers of these names."""
    if not isinstance(target, Mapping):
        return dict.fromkeys(layers, target)
    return {name: target[name] for name in layers}


def check_together(
    together: bool, target: float | Mapping[str, float], metric: str
) -> bool:
    """Returns whether the layers are moved together.

    Args:
        together: Whether the user wants that.
        target: A number, or a dict of numbers by name of a layer.
        metric: Name of the metric; for one of the whole model they always are.

    Raises:
        ValueError: if layers that are moved together have several targets.
    """
    if control_keys.is_of_model(metric):
        return macs_budget.check_together(target)
    validation.check_bool("together", together)
    if together and isinstance(target, Mapping) and len(set(target.values())) > 1:
        raise ValueError(
            "`target` must be the same for all layers that are moved together. "
            f"Received: target={target!r}. Give one number, or together=False."
        )
    return together


def check_min_metric(min_metric: MinMetric | None) -> MinMetric | None:
    """Returns `min_metric`; raises unless it is a name and a number, or None."""
    if min_metric is None:
        return None
    asked: Any = min_metric
    good = isinstance(asked, (tuple, list)) and len(asked) in (2, 3)
    good = good and isinstance(asked[0], str) and validation.is_real(asked[1])
    good = good and math.isfinite(asked[1])
    if not good or any(mode not in ("max", "min") for mode in asked[2:]):
        raise ValueError(
            "`min_metric` must be the name of a metric in the logs, the least value to "
            'keep, a finite number, and "max" or "min" if Keras does not know which is '
            f"better. Received: min_metric={min_metric!r}. Give for example "
            'min_metric=("val_accuracy", 0.87).'
        )
    return min_metric


def check_max_loss_increase(max_loss_increase: float | None) -> float | None:
    """Returns `max_loss_increase`; raises unless it is a number above 0, or None."""
    if max_loss_increase is None:
        return None
    return validation.check_positive("max_loss_increase", max_loss_increase)


def check_floor_fits(max_loss_increase: float | None, actuator: ActuatorName) -> None:
    """Raises if the loss that must not rise has what the actuator moves in it."""
    if max_loss_increase is not None and actuator == "weight":
        raise ValueError(
            '`max_loss_increase` can\'t be kept with actuator="weight": the loss has '
            "the penalties of ActivationPenalty in it, and rises with their weight. "
            f"Received: max_loss_increase={max_loss_increase!r}. Give min_metric=, or "
            'actuator="penalty", which leaves the loss as it is.'
        )


def check_every(every: int | None) -> int | None:
    """Returns `every`; raises unless it is an integer >= 1, or None."""
    if every is not None:
        validation.check_count("every", every)
    return every


def check_freeze_after(freeze_after: int | None) -> int | None:
    """Returns `freeze_after`; raises unless it is an integer >= 1, or None."""
    if freeze_after is not None:
        validation.check_count("freeze_after", freeze_after)
    return freeze_after


def check_targets_fit(
    target: float | Mapping[str, float], layers: Iterable[str]
) -> None:
    """Raises if `target` is a dict whose names are not those of the layers."""
    names = set(layers)
    if isinstance(target, Mapping) and names != set(target):
        raise ValueError(
            "`target` must have one number for each layer, by its name. Received: "
            f"target={target!r}, for {validation.some_of(sorted(names))}. Name just "
            "these."
        )


def check_target_names(
    target: float | Mapping[str, float], layers: Iterable[str]
) -> None:
    """Raises if `target` is a dict with names that no layer of the model has."""
    known = list(layers)
    names = target if isinstance(target, Mapping) else ()
    unknown = next((name for name in names if name not in known), None)
    if unknown is not None:
        raise ValueError(
            "`target` must have one number for each layer, by its name. Received: "
            f"target={target!r}, where {unknown!r} is no layer of the model. "
            + validation.did_you_mean(unknown, known, "Name others.")
            + f" The model has: {validation.some_of(known, unknown)}."
        )


def check_bounds(
    bounds: Sequence[float] | None, actuator: ActuatorName | None
) -> tuple[float, float]:
    """Returns `bounds` as two floats; for None the default ones of the actuator.

    Args:
        bounds: The least and the largest setting, or None.
        actuator: What is moved. None where that is not known yet: then the default is
            that of a penalty, and the range that bounds must lie in is the widest.
    """
    if bounds is None:
        return DEFAULT_BOUNDS[actuator or "penalty"]
    low, high = (0, 1e6) if actuator is None else LIMITS[actuator]
    good = isinstance(bounds, (tuple, list)) and len(bounds) == 2
    good = good and all(validation.is_real(bound) for bound in bounds)
    if not good or not low <= bounds[0] < bounds[1] <= high:
        remedy = "" if actuator is None else f" for {DEFAULT_BOUNDS[actuator]}"
        raise ValueError(
            "`bounds` must be two numbers, the least and the largest "
            f"{actuator or 'setting'}, rising and within [{low:g}, {high:g}]. "
            f"Received: bounds={bounds!r}. Leave it out{remedy}."
        )
    return float(bounds[0]), float(bounds[1])
