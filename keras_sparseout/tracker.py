"""SparsityTracker: watching the sparsity of activations while a model trains."""

import contextlib
import warnings

import keras
import numpy as np

from keras_sparseout import arming, finite, plots, validation, watching
from keras_sparseout.board import Board
from keras_sparseout.data import ProbeData, check_count
from keras_sparseout.frames import columns, dataframe
from keras_sparseout.measuring import Probe, add, check_metrics, read
from keras_sparseout.metrics import ActivationHistogram
from keras_sparseout.order import warn_if_late
from keras_sparseout.stepping import StepSums

_MOST_LAYERS_IN_LOGS = 8


class SparsityTracker(keras.callbacks.Callback):
    """Measures how sparse layers' activations are, while a model trains.

    Without `x` it needs no data and no extra pass: the sums add up inside the training
    step, over the first samples of each batch, and are read once an epoch. It gives

    - `<metric>/<layer>` of training batches, with the weights as they move and the
      noise of earlier layers in them;
    - `val_<metric>/<layer>` of the batches of validation and `evaluate`.

    With probe data `x` it runs the model on them as at inference, and gives
    `val_<metric>/<layer>` alone. `<metric>` and `val_<metric>` are the means over the
    layers.

    They go into `logs`, for History, the progress bar and the callbacks that stand
    *after* it in the list: CSVLogger, TensorBoard, ModelCheckpoint, EarlyStopping
    (which needs a `mode` for these keys: `EarlyStopping("val_hoyer", mode="max")`).
    With more than 8 layers only the means go there; `history` holds all of them.

    The figure of a sample is the mean over its positions, that of the data the mean
    over the samples, all of equal weight. Masked timesteps do not count, but inside a
    `TimeDistributed` layer, from which Keras hides the mask. All-zero vectors, of which
    Hoyer's sparsity is undefined, count in `zero_fraction` alone; a layer with no
    others, or of one unit, has NaN, and is left out of the mean.

    It changes nothing: neither weights nor seeds nor recurrent states. Only what
    TensorFlow fuses anew it rounds anew: without `x`, under `jit_compile=True`, and
    where the output of a layer is watched whose activation is a layer of its own.

    Args:
        x: Probe data: a numpy array or tensor, a tuple or dict of them for a model of
            several inputs (so without labels), a `tf.data.Dataset` or a
            `keras.utils.PyDataset` of batches as for `fit`, but none that shuffles and
            that `fit` gets too: each pass over it would change the order of the next.
            A thousand samples are plenty. None: measure the batches of training and
            validation themselves.
        layers: Which to watch: a list of layers of the model, names (a nested layer's
            is its path, "encoder/dense"), regular expressions that match a whole name
            ("block.*"), or types (`keras.layers.Conv2D`). None: the inputs of all
            Sparseout layers; in a model without any, the outputs of all layers with a
            nonlinear activation.
        metrics: Names, functions f(x) as those of `keras_sparseout.metrics` (one value
            for each vector along the last axis), streaming metrics, or a dict of them
            by name. Names: "hoyer", "zero_fraction", "gini", "population_sparseness",
            "pq_index", "kurtosis", "dead_units", "firing_rate", "lifetime_sparseness",
            "rms", and "histogram", which fills `histograms`. Without `x` all layers of
            a step are measured in one call, which is compiled with XLA when training
            begins; with "gini" or functions of yours among them, and layers whose
            sizes change, it is not, and costs more.
        where: "input" or "output" of the layers. None: the input of Sparseout layers,
            whose output is noisy in training, the output of all others.
        axis: What the vectors lie along: -1 for the units, in a convolution the
            channels at each position, also with `data_format="channels_first"`; None
            for the whole map of a sample.
        every: "epoch", or after how many batches a figure goes into `history`; `logs`
            get those of each epoch all the same.
        sample_size: Without `x`, how many samples of each batch are measured, on each
            replica. What this costs grows with it: of an epoch of 141 batches 4 make
            564 samples. Give more where batches are few, for dead units above all.
        batch_size: With `x`, how many samples of arrays run at once.
        steps: With `x`, how many batches of a data set to take; None for all.
        per_layer: Whether the figures of each layer go into `logs`: True, False, or
            None for up to 8 layers.
        log_dir: Folder for TensorBoard: the figures and histograms of the activations
            go into its subfolder "sparsity". None for neither.
        verbose: 1 to print once what is watched, 0 not to.

    Attributes:
        history: Dict of lists by key, one entry a reading; "epoch" tells when, in
            epochs. Of what was not measured at a reading it holds NaN.
        units: Dict of arrays by key: the last reading of metrics that have a figure for
            each unit, "firing_rate" and "lifetime_sparseness".
        histograms: Dict of `keras_sparseout.metrics.ActivationHistogram` of the last
            reading, by "activations/<layer>" and "val_activations/<layer>".
        evaluated: Without `x`, dict of the figures of the last validation or
            `evaluate`, which may stand alone: `model.evaluate(callbacks=[tracker])`.

    Raises:
        ValueError: if `x` is empty or endless, a metric is unknown, or (as training
            begins) no layer matches, one can't be read or `x` does not fit the model.

    Example:

    >>> model = keras.Sequential([
    ...     keras.Input((4,)),
    ...     keras.layers.Dense(8, activation="relu"),
    ...     keras_sparseout.Sparseout(0.5, q=1.5, name="hidden"),
    ...     keras.layers.Dense(1),
    ... ])
    >>> model.compile("sgd", "mse")
    >>> x, y = np.ones((32, 4)), np.ones((32, 1))
    >>> tracker = SparsityTracker(metrics="hoyer")
    >>> history = model.fit(x, y, verbose=0, callbacks=[tracker])
    SparsityTracker: hoyer of the input of hidden on 4 samples of each batch
    >>> sorted(tracker.history)
    ['epoch', 'hoyer', 'hoyer/hidden']
    """

    def __init__(
        self,
        x=None,
        *,
        layers=None,
        metrics=("hoyer", "zero_fraction"),
        where=None,
        axis=-1,
        every="epoch",
        sample_size=4,
        batch_size=256,
        steps=None,
        per_layer=None,
        log_dir=None,
        verbose=1,
    ):
        super().__init__()
        self.data = None
        if x is not None:
            self.data = ProbeData(x, batch_size=batch_size, steps=steps)
        self.layers = watching.check_layers(layers)
        self.where = validation.check_where(where)
        self.metrics = check_metrics(metrics, validation.check_axis(axis))
        self.every = every if every == "epoch" else _check_every(every)
        self.sample_size = check_count("sample_size", sample_size)
        if per_layer is not None:
            validation.check_bool("per_layer", per_layer)
        self.per_layer = per_layer
        self.log_dir = log_dir
        self.verbose = verbose
        self.units, self.histograms, self.evaluated = {}, {}, {}
        if log_dir is not None:
            self.metrics.setdefault("histogram", ActivationHistogram())
        self._board = Board(log_dir) if log_dir is not None else None
        self._rows, self._logs, self._validated = [], {}, []
        self._watched, self._warned = [], set()
        self._epoch = self._batches = self._read_at = self._step = 0
        self._totals, self._new, self._read_after = {}, {}, []
        self._training = self._testing = self._tested = self._probe = None
        self._arms_last, self._loss = False, 0.0

    @property
    def history(self):
        """The readings so far: a dict of lists by key, see the class."""
        return columns(self._rows)

    def to_dataframe(self):
        """Returns `history` as a pandas.DataFrame, one row a reading."""
        return dataframe(self.history)

    def plot(self, metric=None, *, accuracy="accuracy", path=None):
        """Draws a metric of the layers over the epochs, below the accuracy.

        Up to 8 layers are lines, more a heat map. See `keras_sparseout.plots`.

        Args:
            metric: Name of a metric; None for the first one.
            accuracy: The key of the upper panel in the history of `fit`.
            path: File to write; its suffix sets the format.

        Returns:
            A `matplotlib.figure.Figure`.
        """
        metric = next(iter(self.metrics)) if metric is None else metric
        if len(self._watched) > _MOST_LAYERS_IN_LOGS:
            return plots.heat_map(self.history, metric, path=path)
        history = self.history
        for key in (accuracy, f"val_{accuracy}"):
            if any(key in logs for logs in self._logs.values()):
                history[key] = [
                    self._logs.get(row, {}).get(key, np.nan)
                    for row in range(len(self._rows))
                ]
        return plots.sparsity(history, metric, accuracy=accuracy, path=path)

    def on_train_begin(self, logs=None):
        warn_if_late(self)
        self.units, self.histograms, self.evaluated = {}, {}, {}
        self._rows, self._logs, self._validated = [], {}, []
        self._warned = set()
        self._totals, self._new, self._read_after = {}, {}, []
        self._testing = None
        self._set_up()
        if self.data is None:
            missing = "leave out" if self.layers is None else "raise"
            self._training = self._step_sums("train", self._training, missing)
            self._training.disarm()
            self._training.reset()
        elif self.verbose:
            self._describe(self._probe)
        self._arms_last = arming.after_all(self, self._arm)

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch
        # Not the optimizer's count alone: a model may have several, or its own. Nor
        # earlier: it may be restored as training begins.
        optimizer = getattr(self.model, "optimizer", None)
        iterations = getattr(optimizer, "iterations", 0)
        iterations = keras.ops.convert_to_numpy(iterations)
        self._step = max(self._step, int(iterations))
        self._totals, self._new, self._loss = {}, {}, 0.0
        self._batches = self._read_at = 0
        if self._training is not None:
            self._training.reset()

    def on_train_batch_begin(self, batch, logs=None):
        if self._training is not None:
            self._training.check()
            if not self._arms_last:
                self._arm("train")

    def on_train_batch_end(self, batch, logs=None):
        self._loss = (logs or {}).get("loss", 0.0)
        if self._training is not None:
            self._training.disarm()
            if self._batches == 0:
                self._training.check_reached()
                if self.verbose and not self._rows:
                    self._describe(self._training)
        self._step += batch + 1 - self._batches
        self._batches = batch + 1
        if self.every != "epoch" and self._batches - self._read_at >= self.every:
            self._take_reading()

    def on_epoch_end(self, epoch, logs=None):
        self._epoch = epoch
        if self._batches > self._read_at or self._batches == 0:
            self._take_reading()
        # Only now is it known how many batches a data set without a length has.
        for row, batches in self._read_after:
            row["epoch"] = epoch + (batches / self._batches if self._batches else 1.0)
        self._read_after = []
        if self._training is None:
            figures = dict(self._rows[-1])
            del figures["epoch"]
        else:
            causes = finite.broken(self.model, self._watched, self._loss)
            figures = read(self._totals, self._watched, self.metrics, causes).figures
            # A column that a log once had it keeps, as CSVLogger needs it.
            self._rows[-1].update(self._new)
            figures.update(dict.fromkeys(self._validated, np.nan))
            figures.update(self._new)
            self._validated = list(self._new) or self._validated
        self._logs[len(self._rows) - 1] = dict(logs or {})
        if logs is not None:
            per_layer = self.per_layer
            if per_layer is None:
                per_layer = len(self._watched) <= _MOST_LAYERS_IN_LOGS
            logs.update((k, f) for k, f in figures.items() if per_layer or "/" not in k)

    def on_test_begin(self, logs=None):
        if self.data is not None:
            return
        trained = self._trained()
        if trained is None:
            self._set_up()
            missing = "leave out" if self.layers is None else "raise"
        else:
            self._watched = trained.watched
            # A part of the model may serve training alone.
            missing = "keep"
        self._testing = self._step_sums("test", self._tested, missing)
        self._tested = self._testing
        self._testing.disarm()
        self._testing.reset()
        if self._can_test(self._testing.check):
            self._arms_last = arming.after_all(self, self._arm)

    def on_test_batch_begin(self, batch, logs=None):
        if self._testing is not None and not self._arms_last:
            self._arm("test")

    def on_test_batch_end(self, batch, logs=None):
        if self._testing is not None:
            self._testing.disarm()

    def on_test_end(self, logs=None):
        if self._testing is not None and self._can_test(self._testing.check_reached):
            self._loss = (logs or {}).get("loss", 0.0)
            self._watched = self._testing.watched
            if self.verbose and self._testing.left_out:
                self._describe(self._testing)
            self.evaluated = self._figures("val_", self._testing.totals())
            self._new = self.evaluated
        self._testing = None

    def watching(self):
        """Measures the layers that are called in this context.

        For a training loop of your own, which calls neither `fit` nor `train_on_batch`:
        it goes around the forward pass, in the function that TensorFlow compiles if
        there is one, and the loop calls the callback's methods. With probe data `x` it
        does nothing.

        Raises:
            ValueError: if training has not begun.

        Example:

        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu")])
        >>> tracker = SparsityTracker(verbose=0)
        >>> callbacks = keras.callbacks.CallbackList([tracker], model=model)
        >>> callbacks.on_train_begin()
        >>> callbacks.on_epoch_begin(0)
        >>> callbacks.on_train_batch_begin(0)
        >>> with tracker.watching():
        ...     y = model(np.ones((2, 4)), training=True)
        >>> callbacks.on_train_batch_end(0)
        >>> callbacks.on_epoch_end(0)
        >>> sorted(tracker.history)
        ['epoch', 'hoyer', 'hoyer/dense', 'zero_fraction', 'zero_fraction/dense']
        """
        sums = self._testing or self._training
        if sums is not None:
            return sums.reading()
        if self.data is not None:
            return contextlib.nullcontext()
        raise arming.not_begun(self)

    def _arm(self, kind):
        sums = self._training if kind == "train" else self._testing
        if sums is not None:
            sums.arm()

    def _can_test(self, check):
        """Whether the test step can be measured; if not, that ends no training."""
        try:
            check()
        except ValueError as error:
            if self._trained() is None:
                raise
            self._testing = None
            text = f"SparsityTracker: validation has no figures. {error}"
            self._warn_once(text, about="val_")
        return self._testing is not None

    def _set_up(self):
        first = None
        if self.data is not None:
            first = self.data.first_for(self.model)
            watching.build(self.model, first)
        self._watched = watching.select(self.model, self.layers, self.where)
        if first is not None:
            wanted = self.model, self._watched, self.metrics, self.layers is not None
            if self._probe is None or self._probe.settings != wanted:
                self._probe = Probe(*wanted[:3], named=wanted[3])
            # Now, so that layers that can't be read fail before an epoch is spent.
            self._probe.measure([first])
            self._watched = self._probe.watched

    def _take_reading(self):
        if self._training is None:
            figures = self._figures("val_", self._probe.measure(self.data))
        else:
            self._watched = self._training.watched
            totals = self._training.totals()
            self._training.reset()
            for name, sums in totals.items():
                add(self._totals, name, sums)
            figures = self._figures("", totals)
        steps = (self.params or {}).get("steps") or np.nan
        row = {"epoch": self._epoch + self._batches / steps, **figures}
        self._rows.append(row)
        self._read_after.append((row, self._batches))
        self._read_at = self._batches

    def _figures(self, prefix, totals):
        """Returns the figures of `totals` by log key, and tells of them elsewhere."""
        causes = finite.broken(self.model, self._watched, self._loss)
        reading = read(totals, self._watched, self.metrics, causes)
        for name in reading.nan_layers:
            self._warn_once(
                f"The activations of layer {name!r} hold NaN, first seen in epoch "
                f"{self._epoch + 1}. Its figures are NaN where they do.",
                about=name,
            )
            causes.pop(name, None)
        for cause in dict.fromkeys(causes.values()):
            names = [name for name in causes if causes[name] == cause]
            self._warn_once(
                f"SparsityTracker: {cause}, first seen in epoch {self._epoch + 1}. The "
                "figures of "
                f"{validation.some_of(names)} are NaN while it is so.",
                about=cause,
            )
        figures = {prefix + key: figure for key, figure in reading.figures.items()}
        self.units.update((prefix + key, a) for key, a in reading.units.items())
        histograms = {
            f"{prefix}activations/{k}": h for k, h in reading.histograms.items()
        }
        self.histograms.update(histograms)
        if self._board is not None:
            self._board.write(self._step, figures, histograms)
        return figures

    def _warn_once(self, text, about):
        if about not in self._warned:
            self._warned.add(about)
            warnings.warn(text, stacklevel=3)

    def _trained(self):
        """Returns the sums of the model's training steps, None if it has none."""
        if self._training is None or self._training.model is not self.model:
            return None
        return self._training

    def _step_sums(self, kind, before, missing):
        """Returns sums for the model's steps: `before`, already traced, if they fit."""
        if keras.backend.backend() != "tensorflow":
            raise ValueError(
                "`x` must be given with another backend than TensorFlow, where the "
                f"training step can't be measured. Received: x=None with "
                f"{keras.backend.backend()}. Give probe data."
            )
        wanted = (self.model, kind, self._watched, self.metrics, self.sample_size)
        wanted += (missing,)
        return before if before and before.settings == wanted else StepSums(*wanted)

    def _describe(self, measured):
        """Prints what is watched, and what is not.

        Args:
            measured: The `Probe` or `StepSums`.
        """
        sides = " and ".join(
            f"the {side}{'s' if len(names) > 1 else ''} of {', '.join(names)}"
            for side in ("input", "output")
            if (names := [w.name for w in measured.watched if w.side == side])
        )
        where = f"{self.sample_size} samples of each batch"
        if self.data is not None:
            where = self.data.describe()
        line = f"SparsityTracker: {', '.join(self.metrics)} of {sides} on {where}"
        if measured.left_out:
            left_out = [f"{k} ({reason})" for k, reason in measured.left_out.items()]
            line += f"; left out: {validation.some_of(left_out)}"
        print(line)
        self._tell_of_calls(measured.calls())

    def _tell_of_calls(self, calls):
        names = {w.name for w in self._watched}
        several = [f"{k} {n} times" for k, n in calls.items() if n > 1 and k in names]
        if several:
            print(
                f"SparsityTracker: called in each step {', '.join(several)}, which are "
                "measured together."
            )


def _check_every(every):
    if isinstance(every, str):
        raise ValueError(
            '`every` must be "epoch" or a number of batches, an integer >= 1. '
            f"Received: every={every!r}. Leave it out for each epoch."
        )
    return check_count("every", every)
