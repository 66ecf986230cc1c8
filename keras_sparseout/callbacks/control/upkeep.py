"""What a SparsityController does beside the control: statistics, and a file."""

import pathlib
from collections.abc import Sequence
from contextlib import AbstractContextManager

import keras
import numpy as np

from keras_sparseout.callbacks.callback_list import calling_list
from keras_sparseout.callbacks.control.controlled_layers import ControlledLayers
from keras_sparseout.callbacks.control.end_weights import EndWeights, averages
from keras_sparseout.callbacks.control.messages import ControllerMessages
from keras_sparseout.callbacks.control.moving_statistics import MovingStatistics
from keras_sparseout.callbacks.control.run_backup import (
    RunBackup,
    backups_of_weights,
)
from keras_sparseout.callbacks.progress import Progress, is_resumed
from keras_sparseout.measure.probe_data import ProbeData


class Upkeep:
    """Keeps the statistics of BatchNormalization, and the state of a resumed run.

    It also ends the run, after all other callbacks.

    Args:
        callback: The controller.
        progress: Its `Progress`.
        data: Its probe data, or None.
        folder: The folder of the state; None for no file.
        in_list: The callbacks in the list.
        messages: What the controller says.
        saves: Whether the state is in no layer, so that a file is needed.
        has_floor: Whether validation tells how far to push. It then sees the model as
            it will be when training has ended.

    Attributes:
        validated_weights: Those that the validation of the epoch saw, if a
            SwapEMAWeights puts averages in for it; otherwise none.
    """

    def __init__(
        self,
        callback: keras.callbacks.Callback,
        progress: Progress,
        data: ProbeData | None,
        folder: pathlib.Path | None,
        in_list: Sequence[keras.callbacks.Callback],
        messages: ControllerMessages,
        saves: bool,
        has_floor: bool,
    ) -> None:
        self._callback = callback
        self._progress = progress
        self._in_list = in_list
        self._has_floor = has_floor
        self._statistics = MovingStatistics(callback.model, data, messages)
        self._backup: RunBackup | None = None
        if saves or has_floor:
            part = "" if saves else "'s floor of accuracy"
            self._backup = RunBackup(folder, callback, progress, messages)
            self._backup.check_list(in_list, part)
        self._weights = EndWeights(callback, has_floor, messages)
        self._weights.check_list(in_list)
        self.validated_weights: list[np.ndarray] = []

    def resume(self, epoch: int, control: ControlledLayers) -> None:
        """In the first epoch of a run, goes on from the file, if there is one.

        A state that is in the layers has nothing of the run: there the optimizer tells
        how long the epochs were, and it is taken to have begun with the first.
        """
        begins = epoch == self._progress.first
        self._go_on(epoch, control)
        if begins:
            self._weights.check_stopping(self._in_list, self._progress.first)

    def _go_on(self, epoch: int, control: ControlledLayers) -> None:
        progress = self._progress
        if self._backup is not None:
            self._backup.begin_epoch(epoch, control)
            if self._backup.has_file:
                return
        goes_on = epoch == progress.first and control.started
        # A later stage of training has a backup too, but it restored nothing.
        resumed = is_resumed(self._callback.model, epoch)
        if goes_on and resumed and backups_of_weights(self._in_list):
            steps = progress.before // epoch
            progress.resume(0, steps, min(steps, 1))

    def begin_epoch(self, batches: int) -> None:
        """Notes that an epoch begins, after so many `batches` of training."""
        self._statistics.begin_epoch(batches)

    def recomputed(self) -> AbstractContextManager[None]:
        """Gives BatchNormalization layers statistics of the probe data in a context."""
        return self._statistics.recomputed()

    def begin_validation(self) -> None:
        """With a floor, prepares these statistics for the steps of a validation."""
        self.validated_weights = []
        if self._has_floor:
            self._statistics.begin_validation()

    def begin_test_batch(self) -> None:
        """In such a validation, gives the layers these statistics for the next step."""
        self._statistics.arm()
        # Here all callbacks have begun the validation.
        if self._has_floor and not self.validated_weights and averages(self._in_list):
            self.validated_weights = self._callback.model.get_weights()

    def end_test_batch(self) -> None:
        """Undoes that, if Keras made no step."""
        self._statistics.disarm()

    def end_validation(self) -> None:
        """Ends it."""
        self._statistics.end_validation()

    def end_epoch(self, epoch: int, control: ControlledLayers) -> None:
        """Saves the state after an epoch."""
        self._weights.end_epoch()
        self.validated_weights = []
        if self._backup is not None:
            self._backup.end_epoch(epoch, control)

    def end_run(self, control: ControlledLayers, batches: int) -> None:
        """Removes the file, as training of so many `batches` is complete."""
        # For callbacks that come next, and look at the model.
        control.restore()
        if self._backup is not None:
            self._backup.end_run(self._in_list)
        # Other callbacks in the list may restore weights first.
        if calling_list() is None:
            self.after_training(control, batches)

    def after_training(self, control: ControlledLayers, batches: int) -> None:
        """Says what was found, and leaves the model statistics that are up to date."""
        # Again, as other callbacks may have restored other weights.
        if not control.restore():
            floor = control.floor
            self._weights.say_changed(floor is None or floor.judges_averages)
        control.conclude(batches, self._progress.of_whole_run)
        self._statistics.conclude(batches)
