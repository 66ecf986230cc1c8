"""The state of a control that no layer has, as a file has it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_sparseout.callbacks.control.accuracy_floor import AccuracyFloor
from keras_sparseout.callbacks.control.arguments import targets_by_layer
from keras_sparseout.callbacks.control.control_settings import ControlSettings
from keras_sparseout.callbacks.control.controlled_group import ControlledGroup
from keras_sparseout.callbacks.control.dead_units import DeadUnitCount
from keras_sparseout.callbacks.control.step_control import StepControl
from keras_sparseout.callbacks.control.step_group import StepGroup
from keras_sparseout.measure.watched_layer import WatchedLayer


class SavedControl:
    """Reads the state of the parts of a control, and sets it.

    Args:
        settings: What all groups share.
        watched: The layers, also those that were left out since.
        stepping: What moves them inside the training step; None if nothing does.
        groups: The groups of those that were not.
        units: The count of their dead units.
        floor: What stops the groups where the accuracy falls; None if nothing does.
    """

    def __init__(
        self,
        settings: ControlSettings,
        watched: Sequence[WatchedLayer],
        stepping: StepControl | None,
        groups: Sequence[ControlledGroup | StepGroup],
        units: DeadUnitCount,
        floor: AccuracyFloor | None,
    ) -> None:
        self._settings = settings
        self._watched = watched
        self._names = [w.name for w in watched]
        self._stepping = stepping
        self._groups = groups
        self._stepped = [group for group in groups if isinstance(group, StepGroup)]
        self._units = units
        self._floor = floor

    def identity(self) -> dict[str, Any]:
        """Returns what must be the same in a run that resumes a `state`."""
        settings = self._settings
        targets = targets_by_layer(settings.target, self._names)
        # Without names: Keras numbers them, so a new model may have others.
        layers = [(type(w.layer).__name__, w.number_of_units()) for w in self._watched]
        identity = {
            "actuator": settings.actuator,
            "metric": settings.metric,
            "layers": layers,
            "target": list(targets.values()),
            "together": settings.together,
            "bounds": settings.bounds,
            "accuracy_floor": self._floor is not None,
        }
        if self._stepping is not None and settings.actuator == "penalty":
            identity["kind"] = self._stepping.settings.kind
        return identity

    def state(self) -> dict[str, Any]:
        """Returns the numbers of all parts."""
        step = [] if self._stepping is None else self._stepping.numbers()
        floor = [] if self._floor is None else self._floor.numbers()
        return {
            "step": [array.tolist() for array in step],
            "groups": [group.state() for group in self._stepped],
            "units": self._units.state(self._names),
            "floor": [array.tolist() for array in floor],
        }

    def resume(self, state: Mapping[str, Any], weights: Sequence[np.ndarray]) -> None:
        """Goes on from the `state` of an earlier run.

        Args:
            state: The state.
            weights: The weights of the model that the floor may restore.

        Raises:
            KeyError, TypeError, ValueError: if it is none.
        """
        step = [np.array(numbers, "float32") for numbers in state["step"]]
        own = [] if self._stepping is None else self._stepping.numbers()
        if [numbers.shape for numbers in step] != [numbers.shape for numbers in own]:
            raise ValueError("its numbers are of other layers")
        pairs = list(zip(self._stepped, state["groups"], strict=True))
        known = [
            {key: float(saved[key]) for key in group.state()} for group, saved in pairs
        ]
        floor = [np.array(numbers, "float64") for numbers in state["floor"]]
        self._units.resume(self._names, state["units"])
        for stepped, saved in zip(self._stepped, known, strict=True):
            stepped.resume(saved)
        if self._floor is not None:
            self._floor.resume(floor, weights)
            aims = self._floor.aims
            if aims is not None:
                for group, aim in zip(self._groups, aims, strict=True):
                    group.aim_at(float(aim))
        if self._stepping is not None:
            # Last, as it has what the groups tell it.
            self._stepping.resume(step)
