"""How long a run of training is, and how often a controller reads in it."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from keras_sparseout.callbacks.progress import Progress

# A run has at least so many readings, where it has as many batches,
LEAST_READINGS = 100
# and one each so many batches where it has many.
LONGEST_READING = 32
# A run of unknown length is taken to have at least so many batches.
UNKNOWN_BATCHES = 1000


class ReadingTime(NamedTuple):
    """When a reading is taken.

    Attributes:
        batches: How many batches the model was trained on before it ends.
        readings: How many readings the whole run has; infinite if that is unknown.
        left: How many of them are still to come; infinite too.
        every: After how many batches a reading comes.
    """

    batches: int = 0
    readings: float = math.inf
    left: float = math.inf
    every: int = LONGEST_READING


# Where nothing is known of the run.
ANY_TIME = ReadingTime()


class RunLength:
    """Tells when the next reading is due, and how long the run is.

    The length is known from the `params` that `fit` gives its callbacks. If that of the
    data is unknown, it is known after the first epoch of the run. Until then readings
    become rarer as it goes on, as if the epoch ended with the present batch. What is
    left is a guess: as much of the epoch as is over, and of the run as much as makes it
    `UNKNOWN_BATCHES`.

    Args:
        progress: The `Progress` of training.
        every: After how many batches a reading comes; None to derive it.
        params: The `params` of the callback.
    """

    def __init__(
        self,
        progress: Progress,
        every: int | None,
        params: Mapping[str, Any] | None,
    ) -> None:
        self._progress = progress
        self._every = every
        self._end = (params or {}).get("epochs")
        # Those before `initial_epoch` belong to no run.
        self._epochs = self._end and self._end - progress.first

    @property
    def every(self) -> int:
        """After how many batches a reading comes; in a shorter epoch at its end."""
        every = self._every or self._derived()
        return min(every, self._progress.steps or every)

    @property
    def is_guess(self) -> bool:
        """Whether `left` is a guess that changes with each batch."""
        return bool(self._end) and not self._steps

    @property
    def left(self) -> int:
        """How many batches of the run are not over; a guess where it is unknown."""
        steps, batches = self._steps, self._progress.batches
        if not self._end:
            return UNKNOWN_BATCHES
        epochs = self._end - self._progress.epoch
        if steps:
            return epochs * steps - batches
        return max(epochs * 2 * batches, UNKNOWN_BATCHES) - batches

    @property
    def now(self) -> ReadingTime:
        """The `ReadingTime` of a reading that is taken now."""
        progress, steps, every = self._progress, self._steps, self.every
        readings = left = math.inf
        if self._epochs and steps:
            readings = self._epochs * math.ceil(steps / every)
            epochs = progress.epoch - progress.first + progress.batches / steps
            left = readings * max(1 - epochs / self._epochs, 0)
        return ReadingTime(progress.total, readings, left, every)

    @property
    def _steps(self) -> int | None:
        """How many batches an epoch has, None in a first epoch of unknown length."""
        return self._progress.steps or self._progress.mean_steps

    def _derived(self) -> int:
        if not self._epochs:
            return LONGEST_READING
        steps = self._steps or self._progress.batches
        of_epoch = math.ceil(LEAST_READINGS / self._epochs)
        return min(max(steps // of_epoch, 1), LONGEST_READING)
