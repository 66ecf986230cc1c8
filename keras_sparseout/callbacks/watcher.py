"""What the tracker and the controller share: they watch layers while a model trains."""

import contextlib

import keras

from keras_sparseout.backend import tracing
from keras_sparseout.callbacks import arming, callback_order
from keras_sparseout.callbacks.progress import Progress
from keras_sparseout.callbacks.reading_log import ReadingLog
from keras_sparseout.measure.probe import Probe
from keras_sparseout.measure.step_sums import StepSums
from keras_sparseout.utils.tables import dataframe


class Watcher(keras.callbacks.Callback):
    """A callback that measures layers inside the training step, on probe data, or both.

    It finds the layers when training begins, and again after the first batch, which may
    make some. A subclass chooses them with `_select`, and says with `log_keys` what it
    may put into `logs`.

    Args:
        metrics: Dict of streaming metrics by name.
        data: `ProbeData`, or None.
        layers: List of what the user named, or None.
        sample_size: How many samples of each batch are measured.
        in_steps: Whether the training steps are measured.
    """

    def __init__(self, metrics, data, layers, sample_size, *, in_steps):
        super().__init__()
        self.metrics = metrics
        self.data = data
        self.layers = layers
        self.sample_size = sample_size
        self._in_steps = in_steps
        self._progress = Progress()
        self._log = ReadingLog(self._progress)
        self._names = []
        self._forget()

    def _forget(self):
        """Sets what belongs to the model and the run of training."""
        self._selected, self._watched, self._beside = [], [], []
        self._training = self._testing = self._probe = None
        self._totals, self._loss = {}, 0.0
        self._settled = self._described = self._reached = self._arms_last = False

    def __deepcopy__(self, memo):
        return callback_order.copy_of(self, memo, shared=("data", "layers", "metrics"))

    @property
    def history(self):
        """The readings so far: a dict of lists by key, see the class."""
        return self._log.history

    def to_dataframe(self):
        """Returns `history` as a pandas.DataFrame, one row a reading."""
        return dataframe(self.history)

    def watching(self):
        """Measures the layers that are called in this context.

        For a training loop of your own, which calls neither `fit` nor `train_on_batch`:
        it goes around the forward pass, in the function that TensorFlow compiles if
        there is one, and the loop calls the callback's methods. A `SparsityTracker`
        with probe data `x` does nothing in it.

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
        sums = self._testing or self._training
        if sums is not None:
            return sums.reading()
        if not self._in_steps:
            return contextlib.nullcontext()
        raise arming.not_begun(self)

    def on_train_batch_begin(self, batch, logs=None):
        if self._training is not None:
            self._training.check()
            if not self._arms_last:
                self._arm("train")

    def _begin(self):
        """Finds the layers, and prepares to measure them."""
        self._beside = callback_order.callbacks_beside(self)
        callback_order.warn_if_late(self, self._beside)
        self._progress.begin_run()
        self._log = ReadingLog(self._progress)
        self._totals, self._testing = {}, None
        self._settled = self._described = self._reached = False
        self._set_up()
        callback_order.check_apart(self, self._beside)
        if self._in_steps:
            self._training = self._step_sums("train", self._training)
            self._training.disarm()
            self._training.reset()
        self._arms_last = arming.after_all(self, "train", self._arm)

    def _begin_epoch(self, epoch):
        self._progress.begin_epoch(epoch, self)
        self._log.begin_epoch()
        self._totals, self._loss, self._reached = {}, 0.0, False
        if self._training is not None:
            self._training.reset()

    def _end_batch(self, batch, logs):
        if self._training is None and self._probe is None:
            raise arming.not_begun(self)
        self._loss = (logs or {}).get("loss", 0.0)
        self._progress.end_batch(batch)
        if self._training is not None:
            self._training.disarm()

    def _tell(self, figures, logs):
        """Puts those of an epoch's figures into `logs` that are its own."""
        if logs is not None:
            callback_order.keep_columns(self, self._beside)
            keys = self.log_keys()
            logs.update((key, f) for key, f in figures.items() if key in keys)

    def _set_up(self):
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
            self._make_probe()
            # Now, so that layers that can't be read fail before an epoch is spent.
            self._probe.measure([first])
            self._leave_out(self._probe)

    def _settle(self, logs):
        """Takes in layers that the model made in its first batch; whether it did."""
        self._settled = True
        selected = self._select()
        made = selected != self._selected
        if made:
            self._selected = selected
            self._watch(selected)
            self._log.skip()
            if self._probe is not None:
                self._make_probe()
            if self._training is not None:
                self._training = self._step_sums("train", None)
            callback_order.check_apart(self, self._beside, begun=True)
        callback_order.check_free(self, logs)
        return made

    def _leave_out(self, measured):
        """Goes on with those layers that a `Probe` or `StepSums` could read."""
        self._watch(measured.watched)

    def _watch(self, watched):
        self._watched = watched
        self._names = [w.name for w in watched]

    def _make_probe(self):
        wanted = self.model, self._selected, self.metrics, self.layers is not None
        if self._probe is None or self._probe.settings != wanted:
            self._probe = Probe(*wanted[:3], named=wanted[3])

    def _step_sums(self, kind, before, watched=None, missing=None):
        """Returns sums for the model's steps: `before`, already traced, if they fit."""
        if keras.backend.backend() != "tensorflow":
            raise ValueError(
                "A training step can be measured with TensorFlow alone. Received: "
                f"{type(self).__name__} with the backend {keras.backend.backend()!r}. "
                "Set the environment variable KERAS_BACKEND=tensorflow before Keras is "
                "imported, or use SparsityTracker(x), which measures probe data."
            )
        watched = self._selected if watched is None else watched
        if missing is None:
            missing = "leave out" if self.layers is None else "raise"
        wanted = (self.model, kind, watched, self.metrics, self.sample_size, missing)
        return before if before and before.settings == wanted else StepSums(*wanted)

    def _arm(self, kind):
        sums = self._training if kind == "train" else self._testing
        if sums is not None:
            sums.arm()

    def _correct_progress(self):
        if self._progress.may_be_off and self._training is not None:
            self._progress.correct(self._log.read_at + self._training.steps())
