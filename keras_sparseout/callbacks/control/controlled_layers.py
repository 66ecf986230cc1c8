"""The layers that a SparsityController moves: from their sums to their settings."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_sparseout.callbacks.control import step_messages
from keras_sparseout.callbacks.control.accuracy_floor import AccuracyFloor
from keras_sparseout.callbacks.control.arguments import targets_by_layer
from keras_sparseout.callbacks.control.control_figures import ControlFigures, Sums
from keras_sparseout.callbacks.control.control_settings import ControlSettings
from keras_sparseout.callbacks.control.controlled_group import ControlledGroup
from keras_sparseout.callbacks.control.messages import ControllerMessages
from keras_sparseout.callbacks.control.run_length import ANY_TIME, ReadingTime
from keras_sparseout.callbacks.control.saved_control import SavedControl
from keras_sparseout.callbacks.control.step_control import StepControl
from keras_sparseout.callbacks.control.step_group import StepGroup
from keras_sparseout.callbacks.control.step_messages import Shortfall
from keras_sparseout.callbacks.progress import Progress
from keras_sparseout.measure.watched_layer import WatchedLayer


class ControlledLayers:
    """The layers that a controller moves in one run of training, in groups.

    It gives the figures of the layers to the groups, and decides when these move: not
    while they are frozen, and not once the loss is not finite.

    Args:
        figures: What the sums of the layers come to.
        settings: What all groups share.
        messages: What the controller says.
        floor: What stops the groups where the accuracy falls; None if nothing does.

    Attributes:
        figures: The argument.
        floor: The argument.
    """

    def __init__(
        self,
        figures: ControlFigures,
        settings: ControlSettings,
        messages: ControllerMessages,
        floor: AccuracyFloor | None = None,
    ) -> None:
        self.figures = figures
        self.floor = floor
        self._settings = settings
        self._messages = messages
        self._watched: Sequence[WatchedLayer] = []
        # Before any were left out.
        self._candidates: Sequence[WatchedLayer] = []
        self._groups: list[ControlledGroup | StepGroup] = []
        self._stepping: StepControl | None = None
        self._moving, self._stopped = True, False

    @property
    def started(self) -> bool:
        """Whether a group has moved, in this run or before."""
        return any(group.started for group in self._groups)

    @property
    def needs_probe(self) -> bool:
        """Whether the setpoints have to move, but the probe data are not measured."""
        return self._moving and self.started and not self.figures.probed

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
        before = [group for group in self._groups if isinstance(group, StepGroup)]
        self._watched, self._groups, self._stepping = watched, [], control
        self._candidates = self._candidates or watched
        self.figures.watched = watched
        targets = targets_by_layer(self._settings.target, [w.name for w in watched])
        parts = [watched] if self._settings.together else [[w] for w in watched]
        for part in filter(None, parts):
            target = float(np.mean([targets[w.name] for w in part]))
            shared = part, target, self._settings, self._messages
            self._groups.append(
                StepGroup(*shared, control, before)
                if control
                else ControlledGroup(*shared)
            )
        self._hold_back()

    def begin_ramp(self) -> None:
        """Lets the figures rise from where they are, if the floor allows more."""
        rises = self.floor is not None and self.floor.new_ramp
        if self._stepping is not None and rises:
            self._stepping.begin_run()

    def ramp(self, reach_by: float) -> float:
        """Returns in which part of the batches left the figures come to their aims.

        Args:
            reach_by: The same for the targets.
        """
        if self.floor is None or self.floor.waits:
            return reach_by
        return self.floor.ramp

    def begin_epoch(self, progress: Progress, freeze_after: int | None) -> None:
        """Decides whether the groups move in this epoch: not if they are frozen.

        Args:
            progress: How far training has come.
            freeze_after: After how many epochs of the run they are; None for never.

        Raises:
            ValueError: if the run has only one epoch, and a floor of accuracy.
        """
        self.figures.begin_epoch()
        if self.floor is not None:
            self.floor.check_epochs(progress.first)
        frozen = progress.epoch - progress.first >= (freeze_after or math.inf)
        waits = self.floor is not None and self.floor.waits
        self._moving = not (frozen or self._stopped or waits)
        if frozen and not self._stopped:
            for group in self._groups:
                group.freeze(progress.total)

    def shift_setpoints(self) -> None:
        """Moves the setpoints toward the gap to the probe data, if it is known."""
        if self._moving and self.figures.probed:
            for group in self._groups:
                group.shift_setpoint(self.figures.probed)
        # The setpoints needed them, and they are of an earlier epoch from now on.
        self.figures.probed = {}

    def check_loss(self, loss: float) -> None:
        """Stops all groups if the loss is not finite."""
        if not self._stopped and not np.all(np.isfinite(loss)):
            self._stopped, self._moving, self.figures.quiet = True, False, True
            self._messages.loss_not_finite(loss)
            for group in self._groups:
                if isinstance(group, StepGroup):
                    group.hold(True)

    def take(
        self, sums: Sums, loss: float, time: ReadingTime = ANY_TIME
    ) -> dict[str, float]:
        """Moves the settings by the sums of a reading; returns figures and settings.

        Args:
            sums: Sums of training batches by layer.
            loss: The loss of these batches.
            time: When the reading is taken.
        """
        figures, dead_shares = self.figures.of_reading(sums, loss)
        if self._moving:
            for group in self._groups:
                group.take(figures, dead_shares, time)
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
        figures = self.figures.of_epoch(sums, probe_sums, loss)
        for group in self._groups:
            figures.update(group.end_epoch(figures))
            if self._moving:
                group.check_reach()
        return figures

    def judge(
        self,
        epoch: int,
        logs: Mapping[str, Any] | None,
        validated: Sequence[np.ndarray] = (),
    ) -> None:
        """Looks at the logs of an epoch, which tell how far the groups may go.

        Args:
            epoch: Number of the epoch.
            logs: Keras' logs at its end.
            validated: The weights that its validation saw, if they are others.
        """
        if self.floor is not None:
            outcomes = [group.came_to for group in self._groups]
            stepping = self._stepping
            numbers = () if stepping is None else stepping.numbers()
            seen = outcomes, numbers, validated
            self.floor.end_epoch(epoch, logs or {}, *seen)
            self._hold_back()

    def restore(self) -> bool:
        """Gives the model the weights back that kept the floor, if it has to.

        Returns:
            Whether it did.
        """
        restored = None if self.floor is None else self.floor.restore()
        if restored is None:
            return False
        figures, numbers = restored
        if self._stepping is not None:
            self._stepping.resume(numbers)
        for group, figure in zip(self._groups, figures, strict=True):
            group.restored(float(figure))
        return True

    def conclude(self, batches: int, of_run: int) -> None:
        """Says what was found.

        Settings to repeat are named only if all targets were reached, and all settings
        were steady: the layers act on each other.

        Args:
            batches: How many batches the model was trained on, with earlier runs.
            of_run: How many of them were in this run, before an interruption too.
        """
        self._conclude_steps(of_run)
        groups = [g for g in self._groups if isinstance(g, ControlledGroup)]
        steady = [group.steady_setting(batches) for group in groups]
        known = all(group.is_repeatable for group in groups)
        known = known and None not in steady
        for group, setting in zip(groups, steady, strict=True):
            group.conclude(setting if known else None)
        reached = all(group.has_reached for group in groups)
        if groups and reached and None in steady:
            self._messages.setting_moved(self._settings.actuator)
        if self.floor is not None:
            self.floor.conclude([group.came_to for group in self._groups])

    def _conclude_steps(self, of_run: int) -> None:
        """Says what was found by control in the step; once, why it was too little."""
        short: dict[Shortfall, list[str]] = {}
        by_steps = self.floor is not None and self.floor.by_steps
        for group in self._groups:
            if isinstance(group, StepGroup):
                why = group.conclude(of_run, by_steps=by_steps)
                if why is not None:
                    short.setdefault(why, []).extend(group.layers)
        for why, layers in short.items():
            layers = ["the model"] if self.figures.budget is not None else layers
            metric = self._settings.metric
            step_messages.say_too_short(self._messages, metric, layers, why)

    @property
    def _saved(self) -> SavedControl:
        parts = self._settings, self._candidates, self._stepping, self._groups
        return SavedControl(*parts, self.figures.units, self.floor)

    def identity(self) -> dict[str, Any]:
        """Returns what must be the same in a run that resumes a `state`."""
        return self._saved.identity()

    def state(self) -> dict[str, Any]:
        """Returns all that a resumed run needs, of a control in the training step."""
        names = [w.name for w in self._candidates]
        own = {
            "watched": [names.index(w.name) for w in self._watched],
            "probed": self.figures.state(),
            "stopped": self._stopped,
        }
        return {**self._saved.state(), **own}

    def weights(self) -> list[np.ndarray]:
        """Returns the weights that the floor may restore."""
        return [] if self.floor is None else self.floor.held_weights

    def resume(self, state: Mapping[str, Any], weights: Sequence[np.ndarray]) -> None:
        """Goes on from the `state` and `weights` of an earlier run.

        Raises:
            KeyError, TypeError, ValueError: if it is none.
        """
        # Others were left out in the first step of that run.
        watched = [self._candidates[int(i)] for i in state["watched"]]
        if len(watched) != len(self._watched):
            self.follow(watched, self._stepping)
        probed = self.figures.known(state["probed"])
        stopped = bool(state["stopped"])
        self._saved.resume(state, weights)
        self.figures.probed = probed
        self._stopped = self.figures.quiet = stopped

    def _hold_back(self) -> None:
        """Tells the groups how far to go, and whether at all, by the floor."""
        if self.floor is None or self._stopped:
            return
        for group in self._groups:
            if isinstance(group, StepGroup):
                group.hold(self.floor.waits)
        if self.floor.aims is not None:
            for aimed, aim in zip(self._groups, self.floor.aims, strict=True):
                aimed.aim_at(float(aim))
