"""What a SparsityController is asked for, by its arguments."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from keras_sparseout.callbacks.control.accuracy_limits import MinMetric
from keras_sparseout.callbacks.control.actuators import ActuatorName
from keras_sparseout.callbacks.control.penalty_push import Kind
from keras_sparseout.measure.layer_selection import LayerChoice
from keras_sparseout.measure.probe_data import ProbeData


@dataclasses.dataclass(frozen=True)
class Asked:
    """The arguments of a SparsityController that tell what it moves.

    Attributes:
        target: The figure asked for, or a dict of them by layer.
        metric: Name of the metric.
        layers: List of the layers that the user named, or None.
        actuator: What is moved; None for what the model has.
        kind: Which penalty, or None.
        bounds: Least and largest setting, or None.
        together: Whether all layers share one setting.
        data: The probe data, or None.
        sample_size: How many samples of each batch are measured.
        gain: Factor of the gain.
        dead_band: The integral leaves out errors of at most this size.
        max_dead: Share of dead units beyond which nothing moves toward sparser.
        reach_by: The part of the run after which the target is reached.
        min_metric: The metric to keep, or None.
        max_loss_increase: The loss to keep, or None.
    """

    target: float | Mapping[str, float]
    metric: str
    layers: Sequence[LayerChoice] | None
    actuator: ActuatorName | None
    kind: Kind | None
    bounds: tuple[float, float] | None
    together: bool
    data: ProbeData | None
    sample_size: int
    gain: float
    dead_band: float
    max_dead: float
    reach_by: float
    min_metric: MinMetric | None
    max_loss_increase: float | None

    @classmethod
    def of(cls, callback: Any, **others: Any) -> "Asked":
        """Returns what a callback is asked for.

        Args:
            callback: The controller, with attributes of the names of these.
            **others: Those that it has not.
        """
        names = {field.name for field in dataclasses.fields(cls)} - set(others)
        return cls(**{name: getattr(callback, name) for name in names}, **others)

    @property
    def has_floor(self) -> bool:
        """Whether there is a floor of accuracy to keep."""
        return self.min_metric is not None or self.max_loss_increase is not None
