"""How long a run of training is, and how often a controller reads in it."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from keras_sparseout.callbacks.progress import Progress

# A run has at least so many readings, where it has as many batches,
LEAST_READINGS = 100
# and one each so many batches where it has many.
LONGEST_READING = 32


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
    """Tells when the next reading is due, from the length of the run.

    The length is known from the `params` that `fit` gives its callbacks. If that of the
    data is unknown, it is known after the first epoch. Until then the epoch is taken to
    end with the present batch, so that readings become rarer as it goes on.

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
        self._epochs = (params or {}).get("epochs")

    @property
    def every(self) -> int:
        """After how many batches a reading comes; in a shorter epoch at its end."""
        every = self._every or self._derived()
        return min(every, self._progress.steps or every)

    @property
    def left(self) -> int | None:
        """How many batches of the run are not over; None if that is unknown."""
        if not self._epochs or not self._steps:
            return None
        progress = self._progress
        return (self._epochs - progress.epoch) * self._steps - progress.batches

    @property
    def now(self) -> ReadingTime:
        """The `ReadingTime` of a reading that is taken now."""
        progress, steps, every = self._progress, self._steps, self.every
        readings = left = math.inf
        if self._epochs and steps:
            readings = self._epochs * math.ceil(steps / every)
            done = (progress.epoch + progress.batches / steps) / self._epochs
            left = readings * max(1 - done, 0)
        return ReadingTime(progress.total, readings, left, every)

    @property
    def _steps(self) -> int | None:
        """How many batches an epoch has, None in a first epoch of unknown length."""
        progress = self._progress
        if progress.steps or not progress.epoch:
            return progress.steps
        # Of all epochs so far: a resumed run has not seen the last one.
        return round(progress.before / progress.epoch) or None

    def _derived(self) -> int:
        if not self._epochs:
            return LONGEST_READING
        steps = self._steps or self._progress.batches
        of_epoch = math.ceil(LEAST_READINGS / self._epochs)
        return min(max(steps // of_epoch, 1), LONGEST_READING)
