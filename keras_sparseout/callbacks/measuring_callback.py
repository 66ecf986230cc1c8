"""The base of SparsityTracker and SparsityController: it measures a model's layers."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import keras

from keras_sparseout.backend import tracing
from keras_sparseout.callbacks import callback_list, csv_columns, log_keys
from keras_sparseout.callbacks.callback_copies import CopiedCallback
from keras_sparseout.callbacks.callback_list import Logs
from keras_sparseout.callbacks.figure_sources import (
    EvaluationSteps,
    Missing,
    ProbeSums,
    TrainingSteps,
    check_backend,
    not_begun,
    prepared,
)
from keras_sparseout.callbacks.progress import OptimizerBatches, Progress
from keras_sparseout.callbacks.reading_log import ReadingLog
from keras_sparseout.measure.layer_selection import LayerChoice
from keras_sparseout.measure.layer_sums import Metrics
from keras_sparseout.measure.probe_data import ProbeData
from keras_sparseout.measure.step_sums import Control, StepSums
from keras_sparseout.measure.watched_layer import WatchedLayer
from keras_sparseout.utils.tables import dataframe

if TYPE_CHECKING:
    import pandas as pd


class MeasuringCallback(CopiedCallback):
    """A callback that measures layers: in training, in evaluation, on probe data.

    It finds the layers when training begins, and again after the first batch, which may
    make some. A subclass has `_select`, which chooses them, and `log_keys`, the keys
    that it may put into `logs`.

    Args:
        metrics: Dict of streaming metrics by name.
        data: The probe data, or None.
        layers: List of the layers that the user named, or None.
        sample_size: How many samples of each batch are measured.
        in_steps: Whether the model's own steps are measured.
    """

    log_keys: Callable[[], set[str]]
    _select: Callable[[], list[WatchedLayer]]
    _shared = ("data", "layers", "metrics")

    def __init__(
        self,
        metrics: Metrics,
        data: ProbeData | None,
        layers: Sequence[LayerChoice] | None,
        sample_size: int,
        *,
        in_steps: bool,
    ) -> None:
        super().__init__()
        self.metrics = metrics
        self.data = data
        self.layers = layers
        self.sample_size = sample_size
        self._in_steps = in_steps
        self._missing: Missing = "leave out" if layers is None else "raise"
        self._progress = Progress()
        self._log = ReadingLog(self._progress)
        self._names: list[str] = []
        self._forget()

    def _forget(self) -> None:
        self._selected: Sequence[WatchedLayer] = []
        self._watched: Sequence[WatchedLayer] = []
        self._beside: list[keras.callbacks.Callback] = []
        self._training: TrainingSteps | None = None
        self._testing: EvaluationSteps | None = None
        self._tested: EvaluationSteps | None = None
        self._probe: ProbeSums | None = None
        self._optimizer_batches: OptimizerBatches | None = None
        self._loss: Any = 0.0
        self._settled = self._called_last = False

    @property
    def history(self) -> dict[str, list[float]]:
        """The readings: a dict of lists by key, with one entry for each reading.

        "epoch" is the time of the reading in epochs. With `steps_per_execution` the
        readings come after whole executions, and "epoch" counts the steps that these
        made. A key has NaN at a reading where it was not measured.

        A figure is the mean over the samples, for each of them over its positions.
        Masked timesteps do not count, except inside a `TimeDistributed` layer, where
        Keras hides the mask. Hoyer's sparsity is undefined for all-zero vectors: they
        count in `zero_fraction` alone. A layer with only such vectors, or with one
        unit, has NaN, and the mean over the layers leaves it out. A ReLU may turn NaN
        from a kernel into 0, so a layer's figures are NaN if the loss, its weights, or
        weights of a layer before it are not finite. A warning says which.
        """
        return self._log.history

    def to_dataframe(self) -> "pd.DataFrame":
        """Returns `history` as a pandas.DataFrame, one row a reading."""
        return dataframe(self.history)

    def watching(self) -> AbstractContextManager[None]:
        """Measures the layers that are called in this context.

        For a training loop of your own without `fit` and `train_on_batch`, which also
        calls the callback's methods. Put it around the forward pass, inside the
        function that TensorFlow compiles, if any. With probe data `x`, a
        `SparsityTracker` does nothing here.

        Raises:
            ValueError: if training has not begun.

        Example:

        >>> hidden = keras.layers.Dense(8, "relu", name="hidden")
        >>> model = keras.Sequential([keras.Input((4,)), hidden])
        >>> tracker = keras_sparseout.SparsityTracker(verbose=0)
        >>> callbacks = keras.callbacks.CallbackList([tracker], model=model)
        >>> callbacks.on_train_begin()
        >>> callbacks.on_epoch_begin(0)
        >>> callbacks.on_train_batch_begin(0)
        >>> with tracker.watching():
        ...     y = model(np.ones((2, 4)), training=True)
        >>> callbacks.on_train_batch_end(0)
        >>> callbacks.on_epoch_end(0)
        >>> sorted(tracker.history)
        ['epoch', 'hoyer', 'hoyer/hidden', 'zero_fraction', 'zero_fraction/hidden']
        """
        steps: StepSums | None = self._testing or self._training
        if steps is not None:
            return steps.reading()
        if not self._in_steps:
            return contextlib.nullcontext()
        raise not_begun(self)

    def on_train_batch_begin(self, batch: int, logs: Logs = None) -> None:
        if self._training is not None:
            self._training.check()
            if not self._called_last:
                self._arm("train")

    def _begin_evaluation(self, logs: Logs = None) -> None:
        """The `on_test_begin` of a subclass that measures evaluation."""
        if not self._in_steps:
            return
        check_backend(self)
        trained, missing = self._training, self._missing
        if trained is not None and trained.model is self.model:
            self._watch(trained.watched)
            missing = "keep"
        else:
            self._watch_selected()
        settings = self.model, self._watched, self.metrics, self.sample_size, missing
        self._testing = prepared(EvaluationSteps, self._tested, *settings)
        self._tested = self._testing
        self._testing.begin()
        self._called_last = callback_list.call_last(self, "test", self._arm)

    def _begin_test_batch(self, batch: int, logs: Logs = None) -> None:
        if not self._called_last:
            self._arm("test")

    def _end_test_batch(self, batch: int, logs: Logs = None) -> None:
        if self._testing is not None:
            self._testing.end_batch(self._select)

    def _begin(self) -> None:
        """Finds the layers, and prepares to measure them."""
        self._beside = callback_list.callbacks_in_list()
        callback_list.warn_if_late(self, self._beside)
        self._progress.begin_run()
        self._log = ReadingLog(self._progress)
        self._testing = self._optimizer_batches = None
        self._settled = False
        self._watch_selected()
        log_keys.check_other_callbacks(self, self._beside)
        if self._in_steps:
            check_backend(self)
            self._training = self._training_steps()
            self._training.begin_epoch()
        self._called_last = callback_list.call_last(
            self, "train", self._arm, self._after_training
        )

    def _begin_epoch(self, epoch: int) -> None:
        self._progress.begin_epoch(epoch, self)
        if self._optimizer_batches is None:
            # Not when training begins, which may restore the optimizer.
            self._optimizer_batches = OptimizerBatches(self.model, self._progress)
        self._optimizer_batches.begin_epoch()
        self._log.begin_epoch()
        self._loss = 0.0
        if self._training is not None:
            self._training.begin_epoch()

    def _end_batch(self, batch: int, logs: Logs) -> None:
        if self._training is None and self._probe is None:
            raise not_begun(self)
        self._loss = (logs or {}).get("loss", 0.0)
        self._progress.end_batch(batch)
        if self._training is not None:
            self._training.disarm()

    def _tell(self, figures: Mapping[str, float], logs: Logs) -> None:
        """Puts the figures of an epoch into `logs`, those under its own keys."""
        if logs is not None:
            csv_columns.keep_columns(self, self._beside)
            keys = self.log_keys()
            logs.update((key, f) for key, f in figures.items() if key in keys)

    def _watch_selected(self) -> None:
        """Finds the layers, and measures a first batch of the probe data."""
        first = None
        if self.data is not None:
            first = self.data.first_for(self.model)
            tracing.build(self.model, first)
        try:
            self._selected = self._select()
        except ValueError:
            if self.model.built:
                raise
            self._selected = []  # Its first batch will make the layers.
        self._watch(self._selected)
        if first is not None:
            self._probe = self._probe_sums()
            # Now, so that layers that can't be read fail before an epoch is spent.
            self._probe.measure([first])
            self._leave_out(self._probe)

    def _settle(self, logs: Logs) -> bool:
        """Takes in layers that the first batch made; returns whether there are any."""
        self._settled = True
        before, self._selected = self._selected, self._select()
        made = self._selected != before
        if made:
            self._watch(self._selected)
            self._log.skip()
            if self._probe is not None:
                self._probe = self._probe_sums()
            if self._training is not None:
                self._training = self._training_steps()
            log_keys.check_other_callbacks(self, self._beside, begun=True)
        log_keys.check_model(self, logs)
        return made

    def _leave_out(self, measured: StepSums | ProbeSums) -> Any:
        """Goes on with the layers that `measured` could read."""
        self._watch(measured.watched)

    def _watch(self, watched: Sequence[WatchedLayer]) -> None:
        self._watched = watched
        self._names = [w.name for w in watched]

    def _probe_sums(self) -> ProbeSums:
        named = self.layers is not None
        settings = self.model, self._selected, self.metrics, named, self.data
        return prepared(ProbeSums, self._probe, *settings)

    def _training_steps(self) -> TrainingSteps:
        settings = self.model, self._selected, self.metrics, self.sample_size
        rest = self._missing, self._step_control()
        return prepared(TrainingSteps, self._training, *settings, *rest)

    def _after_training(self) -> None:
        """Is called after the `on_train_end` of all callbacks."""

    def _step_control(self) -> Control | None:
        """What acts on the layers in each training step; a subclass may have one."""
        return None

    def _arm(self, kind: callback_list.Kind) -> None:
        steps = self._training if kind == "train" else self._testing
        if steps is not None:
            steps.arm()

    def _correct_progress(self) -> None:
        """Corrects the count of batches where an execution may have had fewer."""
        if self._progress.may_be_off:
            if self._training is not None:
                self._progress.correct(self._log.read_at + self._training.steps())
            elif self._optimizer_batches is not None:
                self._optimizer_batches.correct()
