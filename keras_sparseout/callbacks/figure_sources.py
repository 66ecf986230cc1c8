"""Where the figures of a callback come from: training, evaluation, probe data.

Each source has the sums of layers, which `read` returns, and the beginning of their log
keys, `prefix`. `watched` and `left_out` are the layers that it could read, and those
that it could not.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias, TypeVar

import keras
import numpy as np

from keras_sparseout.measure.layer_sums import Metrics, add
from keras_sparseout.measure.probe import Probe
from keras_sparseout.measure.probe_data import ProbeData
from keras_sparseout.measure.step_sums import Control, StepSums
from keras_sparseout.measure.watched_layer import WatchedLayer

Sums: TypeAlias = dict[str, list[np.ndarray]]
# What to do with layers that can't be read, as for `StepSums`.
Missing: TypeAlias = Literal["raise", "leave out", "keep"]


class TrainingSteps(StepSums):
    """Sums over the training batches: since the last reading, and over the epoch.

    Attributes:
        epoch_sums: Dict of sums by layer, over the readings of the epoch.
        is_checked: Whether `check_reached` was called in the epoch.
    """

    prefix = ""

    def __init__(
        self,
        model: keras.Model,
        watched: Sequence[WatchedLayer],
        metrics: Metrics,
        sample_size: int,
        missing: Missing,
        control: Control | None = None,
    ) -> None:
        settings = model, watched, metrics, sample_size, missing, control
        super().__init__(model, "train", *settings[1:])
        self.arguments = settings
        self.epoch_sums: Sums = {}
        self.is_checked = False

    def begin_epoch(self) -> None:
        """Sets all sums to 0."""
        self.disarm()
        self.reset()
        self.epoch_sums, self.is_checked = {}, False

    def check_reached(self) -> None:
        """Raises unless a step and each layer were measured since the last `reset`."""
        self.is_checked = True
        super().check_reached()

    def read(self) -> Sums:
        """Returns the sums since the last reading, and adds them to the epoch's."""
        sums = self.totals()
        self.reset()
        for name, own in sums.items():
            add(self.epoch_sums, name, own)
        return sums


class EvaluationSteps(StepSums):
    """Sums over the test batches of a validation or an `evaluate`.

    After training they are sums of the layers that the training steps measure. A part
    of the model may serve training alone: its sums stay 0 (`missing="keep"`). A test
    step that can't be measured must not end the training, so `error` keeps the reason.
    Where `evaluate` stands alone, it is raised.

    Attributes:
        error: Why the steps can't be measured, None if they can.
    """

    prefix = "val_"

    def __init__(
        self,
        model: keras.Model,
        watched: Sequence[WatchedLayer],
        metrics: Metrics,
        sample_size: int,
        missing: Missing,
    ) -> None:
        super().__init__(model, "test", watched, metrics, sample_size, missing)
        self.arguments = model, watched, metrics, sample_size, missing
        self.error: ValueError | None = None
        self._is_built = True

    @property
    def _stands_alone(self) -> bool:
        return self.missing != "keep"

    def begin(self) -> None:
        """Prepares for the first batch."""
        self.disarm()
        self.reset()
        self._is_built = not self._stands_alone
        self.error = None
        self._note_error(self.check)

    def arm(self) -> None:
        """Makes the next test step of the model measure, if it can be measured."""
        if self.error is None:
            super().arm()

    def end_batch(self, select: Callable[[], Sequence[WatchedLayer]]) -> None:
        """Raises if the first batch made layers that `select` finds only now."""
        self.disarm()
        if not self._is_built:
            self._is_built = True
            if select() != self._candidates:
                raise ValueError(
                    "`model` must be built before `evaluate` is tracked, since it "
                    "makes layers in its first batch. Received: model "
                    f"{self.model.name!r}. Call it once on a batch before, for "
                    "example model(x[:1])."
                )

    def end(self, warn: Callable[[ValueError], None]) -> bool:
        """Returns whether the steps were measured. If not, `warn` gets the reason."""
        if self.error is None:
            self._note_error(self.check_reached)
        if self.error is not None:
            warn(self.error)
        return self.error is None

    def read(self) -> Sums:
        """Returns the sums."""
        return self.totals()

    def _note_error(self, check: Callable[[], None]) -> None:
        try:
            check()
        except ValueError as error:
            if self._stands_alone:
                raise
            self.error = error


class ProbeSums(Probe):
    """Sums over the probe data, of the model in inference mode."""

    prefix = "val_"

    def __init__(
        self,
        model: keras.Model,
        watched: Sequence[WatchedLayer],
        metrics: Metrics,
        named: bool,
        data: ProbeData,
    ) -> None:
        super().__init__(model, watched, metrics, named=named)
        self.arguments = model, watched, metrics, named, data
        self.data = data

    def read(self) -> Sums:
        """Returns the sums, from a pass over the data."""
        return self.measure(self.data)


Source: TypeAlias = TrainingSteps | EvaluationSteps | ProbeSums
AnySource = TypeVar("AnySource", TrainingSteps, EvaluationSteps, ProbeSums)


def prepared(
    kind: type[AnySource], before: AnySource | None, *arguments: Any
) -> AnySource:
    """Returns a source with these arguments.

    If `before` has them, it is returned, since its graphs are traced already.

    Args:
        kind: The class of the source.
        before: The source that was used last, or None.
        *arguments: The arguments of `kind`.
    """
    if before is not None and before.arguments == arguments:
        return before
    return kind(*arguments)


def check_backend(callback: keras.callbacks.Callback) -> None:
    """Raises unless the back end is TensorFlow, which alone has steps to measure."""
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            "A training step can be measured with TensorFlow alone. Received: "
            f"{type(callback).__name__} with the backend {keras.backend.backend()!r}. "
            "Set the environment variable KERAS_BACKEND=tensorflow before Keras is "
            "imported."
        )


def not_begun(callback: keras.callbacks.Callback) -> ValueError:
    """The error for a callback that is to measure a batch before its training."""
    return ValueError(
        "`on_train_begin` must be called before the first batch, and before `watching` "
        f"is entered. Received: {type(callback).__name__}, whose training has not "
        "begun. Call on_train_begin of keras.callbacks.CallbackList([callback], "
        "model=model) before."
    )
