"""The layers that a SparsityController moves: from their sums to their settings."""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import keras
import numpy as np

from keras_sparseout.callbacks.control.arguments import targets_by_layer
from keras_sparseout.callbacks.control.controlled_group import (
    ControlledGroup,
    ControlSettings,
)
from keras_sparseout.callbacks.control.dead_units import DeadUnitCount
from keras_sparseout.callbacks.control.messages import ControllerMessages
from keras_sparseout.callbacks.control.run_length import ANY_TIME, ReadingTime
from keras_sparseout.callbacks.control.step_control import StepControl
from keras_sparseout.callbacks.control.step_group import StepGroup
from keras_sparseout.measure import non_finite
from keras_sparseout.measure.layer_sums import Metrics
from keras_sparseout.measure.reading import read
from keras_sparseout.measure.watched_layer import WatchedLayer

Sums: TypeAlias = Mapping[str, list[np.ndarray]]


class ControlledLayers:
    """The layers that a controller moves in one run of training, in groups.

    It turns the sums of their metrics into figures, gives these to the groups, and
    decides when the groups move: not while they are frozen, and not once the loss
    is not finite.

    Args:
        model: The model that is trained.
        metrics: Dict of streaming metrics by name: the controlled one, "dead_units".
        settings: What all groups share.
        messages: What the controller says.

    Attributes:
        probed: Figures of the probe data at the end of the last epoch, by log key.
    """

    def __init__(
        self,
        model: keras.Model,
        metrics: Metrics,
        settings: ControlSettings,
        messages: ControllerMessages,
    ) -> None:
        self._model = model
        self._metrics = metrics
        self._settings = settings
        self._messages = messages
        self._watched: Sequence[WatchedLayer] = []
        self._groups: list[ControlledGroup | StepGroup] = []
        self._units = DeadUnitCount(metrics)
        self._broken: dict[str, str] = {}
        self._moving, self._stopped = True, False
        self.probed: dict[str, float] = {}

    @property
    def needs_probe(self) -> bool:
        """Whether the setpoints have to move, but the probe data are not measured."""
        started = any(group.started for group in self._groups)
        return self._moving and started and not self.probed

    def follow(
        self, watched: Sequence[WatchedLayer], control: StepControl | None = None
    ) -> None:
        """Makes new groups if the layers changed; they resume the layers' states.

        Args:
            watched: The layers.
            control: What moves them inside the training step; None if nothing does.
        """
        if watched is self._watched:
            return
        self._watched, self._groups = watched, []
        targets = targets_by_layer(self._settings.target, [w.name for w in watched])
        parts = [watched] if self._settings.together else [[w] for w in watched]
        for part in filter(None, parts):
            target = float(np.mean([targets[w.name] for w in part]))
            shared = part, target, self._settings, self._messages
            group = StepGroup(*shared, control) if control else ControlledGroup(*shared)
            self._groups.append(group)

    def describe(self, names: Sequence[str]) -> None:
        """Says what is controlled, unless it said just that.

        Args:
            names: Names of the layers.
        """
        settings = self._settings
        targets = targets_by_layer(settings.target, names)
        self._messages.controlled(
            settings.metric, targets, settings.actuator, settings.bounds
        )

    def begin_epoch(self, *, frozen: bool, batches: int = 0) -> None:
        """Decides whether the groups move in this epoch: not if they are frozen.

        Args:
            frozen: Whether they are.
            batches: How many batches the model was trained on.
        """
        self._units.begin_epoch()
        self._moving = not (frozen or self._stopped)
        if frozen and not self._stopped:
            for group in self._groups:
                group.freeze(batches)

    def measure_probe(self, sums: Sums) -> None:
        """Takes the sums of the probe data."""
        self.probed = self._figures("val_", sums)

    def shift_setpoints(self) -> None:
        """Moves the setpoints toward the gap to the probe data, if it is known."""
        if self._moving and self.probed:
            for group in self._groups:
                group.shift_setpoint(self.probed)
        self.probed = {}

    def check_loss(self, loss: float) -> None:
        """Stops all groups if the loss is not finite."""
        if not self._stopped and not np.all(np.isfinite(loss)):
            self._stopped, self._moving = True, False
            self._messages.loss_not_finite(loss)
            for group in self._groups:
                if isinstance(group, StepGroup):
                    group.freeze()

    def count_units(self, sums: Sums) -> None:
        """Takes in sums without a reading, only to tell which units are dead."""
        self._units.add(sums)

    def take(
        self, sums: Sums, loss: float, time: ReadingTime = ANY_TIME
    ) -> dict[str, float]:
        """Moves the settings by the sums of a reading; returns figures and settings.

        Args:
            sums: Sums of training batches by layer.
            loss: The loss of these batches.
            time: When the reading is taken.
        """
        self._find_broken(loss)
        self._units.add(sums)
        units = self._units.read(self._watched, self._broken)
        self._messages.nan_activations(units.nan_layers)
        self._messages.broken(self._broken, quiet=self._stopped)
        figures = self._figures("", sums)
        if self._moving:
            for group in self._groups:
                group.take(figures, units.dead_shares, time)
        for group in self._groups:
            figures.update(group.values())
        return figures

    def end_epoch(
        self, sums: Sums, probe_sums: Sums | None, loss: float
    ) -> dict[str, float]:
        """Returns the figures, settings and errors of an epoch by log key.

        Args:
            sums: Sums of the epoch's training batches by layer; empty without batches.
            probe_sums: Sums of the probe data; None without probe data.
            loss: The loss of the last batches.
        """
        self._find_broken(loss)
        self._messages.broken(self._broken, quiet=self._stopped)
        figures = self._figures("", sums) if sums else {}
        if probe_sums is not None:
            self.measure_probe(probe_sums)
            figures.update(self.probed)
        for group in self._groups:
            figures.update(group.end_epoch(figures))
            if self._moving:
                group.check_reach()
        return figures

    def conclude(self, batches: int) -> None:
        """Says what was found in a training of so many `batches`.

        Settings to repeat are named only if all targets were reached, and all settings
        were steady: the layers act on each other.
        """
        for group in self._groups:
            if isinstance(group, StepGroup):
                group.conclude()
        groups = [g for g in self._groups if isinstance(g, ControlledGroup)]
        fixed = [group.steady_setting(batches) for group in groups]
        reached = all(group.has_reached for group in groups)
        steady = reached and None not in fixed
        for group, setting in zip(groups, fixed, strict=True):
            group.conclude(setting if steady else None)
        if groups and reached and not steady:
            self._messages.still_moved(self._settings.actuator)

    def _find_broken(self, loss: float) -> None:
        self._broken = non_finite.invalid_layers(self._model, self._watched, loss)

    def _figures(self, prefix: str, sums: Sums) -> dict[str, float]:
        figures = read(sums, self._watched, self._metrics, self._broken).figures
        keys = [f"{self._settings.metric}/{w.name}" for w in self._watched]
        return {prefix + key: figures[key] for key in keys}
