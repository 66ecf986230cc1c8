"""What a SparsityController moves in a model: layers, and by which actuator."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from keras_sparseout.callbacks import knobs
from keras_sparseout.callbacks.control import (
    accuracy_floor,
    arguments,
    control_keys,
    macs_budget,
)
from keras_sparseout.callbacks.control.actuators import ActuatorName, setting_key
from keras_sparseout.callbacks.control.asked import Asked
from keras_sparseout.callbacks.control.control_figures import ControlFigures
from keras_sparseout.callbacks.control.control_settings import ControlSettings
from keras_sparseout.callbacks.control.controlled_layers import ControlledLayers
from keras_sparseout.callbacks.control.macs_budget import MacsBudget
from keras_sparseout.callbacks.control.messages import ControllerMessages
from keras_sparseout.callbacks.control.step_control import StepControl, StepSettings
from keras_sparseout.callbacks.progress import optimizers_of
from keras_sparseout.measure import layer_selection
from keras_sparseout.measure.layer_sums import Metrics
from keras_sparseout.measure.step_sums import Control
from keras_sparseout.measure.watched_layer import WatchedLayer
from keras_sparseout.metrics.base import StreamingMetric


class ControlChoice:
    """Finds what to move in the model that is trained.

    Args:
        asked: The arguments of the controller.

    Attributes:
        asked: What the controller is asked for.
        actuator: What is moved.
        bounds: Least and largest setting.
        budget: What counts the model's MACs, if that is what is asked for.
        stepping: What moves the layers inside the training step, if something does.
    """

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self.actuator: ActuatorName = asked.actuator or "penalty"
        self.bounds = arguments.check_bounds(asked.bounds, asked.actuator)
        self.budget: MacsBudget | None = None
        self.stepping: StepControl | None = None
        # With which the model was compiled when `stepping` was made.
        self._optimizers: list[keras.optimizers.Optimizer] = []

    def begin_run(self, asked: Asked) -> None:
        """Begins a run of training with these arguments."""
        self.asked = asked
        if asked.has_floor:
            # The first epoch is without the push of an earlier run.
            self.stepping = None

    @property
    def is_in_step(self) -> bool:
        """Whether the layers are moved inside the training step."""
        return self.actuator in ("penalty", "threshold")

    def layers(self, model: keras.Model) -> list[WatchedLayer]:
        """Returns the layers of a model to control. It may have made new ones."""
        asked = self.asked
        if model.built:
            names = [w.name for w in layer_selection.all_layers(model)]
            arguments.check_target_names(asked.target, names)
        self.actuator = asked.actuator or knobs.default_actuator(model, asked.layers)
        arguments.check_kind(asked.kind, self.actuator)
        self.bounds = arguments.check_bounds(asked.bounds, self.actuator)
        if self.actuator == "penalty":
            watched = knobs.layers_to_push(model, asked.layers)
        else:
            knob = setting_key(self.actuator)
            watched = knobs.layers_to_control(model, asked.layers, knob)
        arguments.check_targets_fit(asked.target, [w.name for w in watched])
        if not control_keys.is_of_model(asked.metric):
            return watched
        self.budget = macs_budget.prepared(
            self.budget,
            asked.target,
            model,
            watched,
            named=asked.layers is not None,
            actuator=self.actuator,
            data=asked.data,
            sample_size=asked.sample_size,
        )
        return list(self.budget.watched)

    def control(
        self,
        model: keras.Model,
        metrics: Metrics,
        messages: ControllerMessages,
        params: Mapping[str, Any] | None,
    ) -> ControlledLayers:
        """Returns what controls the layers in a run of training.

        Args:
            model: The model that is trained.
            metrics: Dict of streaming metrics by name, the controlled one first.
            messages: What the controller says.
            params: What `fit` tells its callbacks.
        """
        asked = self.asked
        settings = ControlSettings(
            target=asked.target,
            metric=asked.metric,
            actuator=self.actuator,
            bounds=self.bounds,
            together=asked.together,
            gain=asked.gain,
            dead_band=asked.dead_band,
            max_dead=asked.max_dead,
            has_probe=asked.data is not None,
        )
        arguments.check_floor_fits(asked.max_loss_increase, self.actuator)
        limits = asked.min_metric, asked.max_loss_increase
        when = (params or {}).get("epochs"), asked.reach_by
        floor = accuracy_floor.prepared(model, *limits, *when, messages)
        measured = model, metrics, settings, messages, self.budget
        return ControlledLayers(ControlFigures(*measured), settings, messages, floor)

    def in_step(
        self,
        model: keras.Model,
        watched: Sequence[WatchedLayer],
        metric: StreamingMetric,
    ) -> Control | None:
        """Returns what acts on these layers in each training step, if something does.

        It is the same as before if nothing else is asked for, and the model was not
        compiled with a new optimizer. That is another training: other layers may be
        trainable, and the weights other ones. What was integrated would be wrong there.

        Args:
            model: The model that is trained.
            watched: The layers.
            metric: The metric of the layers.
        """
        if not watched:
            return None  # The first batch will make the layers.
        if self.actuator != "penalty" and self.actuator != "threshold":
            self.stepping = None
            return None if self.budget is None else self.budget.step
        asked = self.asked
        settings = StepSettings(
            actuator=self.actuator,
            kind=arguments.check_kind(asked.kind, self.actuator),
            metric=metric,
            together=asked.together,
            budget=self.budget,
            sample_size=asked.sample_size,
            bounds=self.bounds,
            gain=asked.gain,
        )
        wanted, optimizers = (model, watched, settings), optimizers_of(model)
        # A model may make its own in the first step, which is no new compilation.
        same = {*map(id, self._optimizers)} <= {*map(id, optimizers)}
        if self.stepping is None or self.stepping.arguments != wanted or not same:
            self.stepping = StepControl(*wanted)
        self._optimizers = optimizers
        return self.stepping
