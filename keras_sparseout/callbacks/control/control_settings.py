"""The arguments that all groups of a controller share, and their figures."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from keras_sparseout.callbacks.control import control_keys
from keras_sparseout.callbacks.control.actuators import ActuatorName
from keras_sparseout.measure.watched_layer import WatchedLayer


@dataclasses.dataclass(frozen=True)
class ControlSettings:
    """The arguments of a SparsityController that all of its groups share.

    Attributes:
        target: The figure asked for, or a dict of them by layer.
        metric: Name of the metric.
        actuator: Name of the knob that is moved.
        bounds: Least and largest setting.
        together: Whether all layers are one group.
        gain: Factor of the actuator's gain.
        dead_band: The integral leaves out errors of at most this size.
        max_dead: Share of dead units beyond which nothing moves toward sparser.
        has_probe: Whether there are probe data.
    """

    target: float | Mapping[str, float]
    metric: str
    actuator: ActuatorName
    bounds: tuple[float, float]
    together: bool
    gain: float
    dead_band: float
    max_dead: float
    has_probe: bool

    def subject(self, watched: Sequence[WatchedLayer]) -> str:
        """Returns what is controlled, for example "hoyer of hidden"."""
        names = ", ".join(w.name for w in watched)
        of_model = control_keys.is_of_model(self.metric)
        return f"{self.metric} of {'the model' if of_model else names}"

    def figure(
        self, prefix: str, figures: Mapping[str, float], watched: Iterable[WatchedLayer]
    ) -> float:
        """Returns the mean of layers' figures, of those that have one, or the model's.

        Args:
            prefix: "val_" for figures of probe data, otherwise "".
            figures: Dict of figures by log key.
            watched: The layers.
        """
        keys = control_keys.controlled(self.metric, [w.name for w in watched])
        known = [figures.get(prefix + key, math.nan) for key in keys]
        known = [figure for figure in known if not math.isnan(figure)]
        return float(np.mean(known)) if known else math.nan

    def keys(self, watched: Iterable[WatchedLayer]) -> list[str]:
        """Returns the log keys of the layers' figures."""
        return control_keys.of_layers(self.metric, [w.name for w in watched])

    def outcome(
        self,
        target: float,
        figures: Mapping[str, float],
        watched: Sequence[WatchedLayer],
    ) -> tuple[dict[str, float], float]:
        """Returns what an epoch came to, by the probe data if there are any.

        Args:
            target: The figure asked for.
            figures: Dict of figures by log key.
            watched: The layers.

        Returns:
            Target minus figure, by log key, and the figure. Without figures of the
            epoch nothing, and NaN.
        """
        layers = [w.name for w in watched]
        names = control_keys.with_target(self.metric, layers)
        keys = control_keys.controlled(self.metric, layers)
        prefix = "val_" if self.has_probe else ""
        if prefix + keys[0] not in figures:
            return {}, math.nan
        errors = {
            f"error/{name}": target - figures[prefix + key]
            for name, key in zip(names, keys, strict=True)
        }
        return errors, self.figure(prefix, figures, watched)
