"""The weights that the model ends with: another callback may put others in."""

import math
from collections.abc import Sequence

import keras
import numpy as np

from keras_sparseout.backend import variables
from keras_sparseout.callbacks.control.messages import ControllerMessages


class EndWeights:
    """Tells whether the weights are still those of the last epoch, and what may change.

    Args:
        callback: The controller.
        has_floor: Whether it restores weights itself, to keep a floor of accuracy.
        messages: What it says.
    """

    def __init__(
        self,
        callback: keras.callbacks.Callback,
        has_floor: bool,
        messages: ControllerMessages,
    ) -> None:
        self._callback = callback
        self._has_floor = has_floor
        self._messages = messages
        self._lengths: np.ndarray | None = None

    def check_list(self, in_list: Sequence[keras.callbacks.Callback]) -> None:
        """Warns of a later callback that restores weights as training ends."""
        if self._has_floor and self._callback in in_list:
            later = in_list[in_list.index(self._callback) + 1 :]
            kind = type(self._callback)
            if any(isinstance(c, kind) and _has_floor(c) for c in later):
                self._messages.warn(
                    "a later callback of this kind has a floor too. Both may restore "
                    "weights as training ends, and those of the later one stay, which "
                    "may not keep the floor of this one. Give only one of them "
                    "min_metric= or max_loss_increase=",
                    about=("end weights", "floor"),
                )

    def check_stopping(
        self, in_list: Sequence[keras.callbacks.Callback], first: int
    ) -> None:
        """Warns of an EarlyStopping that restores weights as training ends.

        Args:
            in_list: The callbacks in the list.
            first: Index of the first epoch of the run.
        """
        epochs = (self._callback.params or {}).get("epochs")
        reach_by = getattr(self._callback, "reach_by", 1.0)
        left = None if epochs is None else epochs - first
        reached = first + (1 if left is None else math.ceil(reach_by * left))
        stopping = [
            c
            for c in in_list
            if isinstance(c, keras.callbacks.EarlyStopping) and c.restore_best_weights
        ]
        if not self._has_floor:
            stopping = [c for c in stopping if c.start_from_epoch < reached]
        if not stopping:
            return
        if self._has_floor:
            remedy = "Leave restore_best_weights out: the floor restores weights itself"
        else:
            remedy = (
                f"Give it start_from_epoch={reached}"
                if epochs
                else (
                    "Give it the start_from_epoch from which on the target is reached"
                )
            )
            remedy += ", or leave restore_best_weights out"
        self._messages.warn(
            "EarlyStopping(restore_best_weights=True) gives the model the weights of "
            f"the epoch with the best {stopping[0].monitor} as training ends. That may "
            f"be one before the target was reached. {remedy}",
            about=("end weights", "best"),
        )

    def end_epoch(self) -> None:
        """Notes the weights at the end of an epoch."""
        self._lengths = self._now()

    def say_changed(self, averages_judged: bool) -> None:
        """Prints that the model has other weights than the figures are of, if so.

        Args:
            averages_judged: Whether a floor, if there is one, judged averages.
        """
        if self._lengths is None:
            return
        now = self._now()
        same = len(now) == len(self._lengths)
        # How their squares are added up may vary in the last digit.
        if not same or not np.allclose(now, self._lengths, rtol=1e-6, equal_nan=True):
            self._messages.print(
                "the model has other weights now than at the end of the last epoch, of "
                "which the next figures are: another callback, or the optimizer, "
                "changed them as training ended"
            )
            optimizer = self._callback.model.optimizer
            optimizer = getattr(optimizer, "inner_optimizer", optimizer)
            has_averages = getattr(optimizer, "use_ema", False)
            if has_averages and not averages_judged:
                self._messages.print(
                    "with use_ema=True these are averages, which the floor did not "
                    "judge. Give validation_data, keras.callbacks.SwapEMAWeights(), "
                    "with which validation sees them, and a floor of a figure of "
                    "validation, such as val_loss"
                )

    def _now(self) -> np.ndarray:
        return variables.squared_lengths(self._callback.model.trainable_weights)


def averages(in_list: Sequence[keras.callbacks.Callback]) -> bool:
    """Whether a callback in the list has validation see averages of the weights."""
    return any(isinstance(c, keras.callbacks.SwapEMAWeights) for c in in_list)


def _has_floor(callback: keras.callbacks.Callback) -> bool:
    names = "min_metric", "max_loss_increase"
    return any(getattr(callback, name, None) is not None for name in names)
