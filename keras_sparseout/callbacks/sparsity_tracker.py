"""SparsityTracker: watching the sparsity of activations while a model trains."""

import numpy as np

from keras_sparseout import plots
from keras_sparseout.callbacks import arming, callback_order
from keras_sparseout.callbacks.progress import StepCount
from keras_sparseout.callbacks.readout import Readout, describe
from keras_sparseout.callbacks.watcher import Watcher
from keras_sparseout.measure import layer_selection, non_finite
from keras_sparseout.measure.layer_sums import add
from keras_sparseout.measure.probe_data import ProbeData
from keras_sparseout.metrics import ActivationHistogram
from keras_sparseout.metrics.get import check_metrics
from keras_sparseout.utils import validation
from keras_sparseout.utils.validation import check_count

_MOST_LAYERS_IN_LOGS = 8


class SparsityTracker(Watcher):
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

    A sample's figure is the mean over its positions. The figure of the data is the mean
    over the samples, which all weigh the same. Masked timesteps do not count, except
    inside a `TimeDistributed` layer, from which Keras hides the mask. Hoyer's sparsity
    is undefined for all-zero vectors, so they count in `zero_fraction` alone. A layer
    that has no other vectors, or only one unit, has NaN. The mean over the layers
    leaves it out.

    Validation figures appear in the epochs in which Keras validates, figures of probe
    data in every epoch. Names that the model's own metrics or another tracker use are
    refused: `metrics={"activation_gini": "gini"}` gives another name. If one callback
    measures probe data and another measures validation under the same name, `logs` get
    the figure of the probe data, and a warning says so.

    A model that is not built makes its layers in the first batch. They are watched from
    the second batch on.

    It changes nothing: neither weights nor seeds nor recurrent states. Rounding may
    differ where tracking changes how TensorFlow fuses operations: without `x`, under
    `jit_compile=True`, and where the output of a layer is watched whose activation is a
    layer of its own.

    Without `x` it follows the model's own `train_step` and `make_train_function`; with
    a function that was assigned, `model.train_function = ...`, it needs `x`. In a
    training loop of your own, put `watching` around the forward pass.

    NaN in a kernel may come out of a ReLU as 0. So a layer's figures are NaN if the
    loss, its weights, or the weights of a layer before it are not finite. A warning
    says which.

    Args:
        x: Probe data: a numpy array or tensor, a tuple or dict of them for a model of
            several inputs (so without labels), a `tf.data.Dataset` or a
            `keras.utils.PyDataset` of batches as for `fit`, but none that shuffles and
            that `fit` gets too: each pass over it would change the order of the next.
            A thousand samples are plenty. None: measure the batches of training and
            validation themselves.
        layers: Which to watch: a list of layers of the model, names (a nested layer's
            is its path, "encoder/dense"), regular expressions that match a whole name
            ("block.*"), types (`keras.layers.Conv2D`), or, where no name matches, names
            of activations ("relu") or types ("conv2d"). None: the inputs of all
            Sparseout layers; in a model without any, the outputs of all layers with a
            nonlinear activation, except an activation that the model ends with, such as
            a softmax. Layers that can't be read are left out then, and the printed line
            names them. If you name such a layer, that is an error.
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
            go into its subfolder "sparsity", into a file for each training. None for
            neither.
        verbose: 1 to print once what is watched, 0 not to.

    Attributes:
        history: Dict of lists by key, one entry a reading; "epoch" tells when, in
            epochs. Of what was not measured at a reading it holds NaN. With
            `steps_per_execution` readings come after whole executions, and the epoch
            is told by the steps that these made.
        units: Dict of arrays by key: the last reading of metrics that have a figure for
            each unit, "firing_rate" and "lifetime_sparseness".
        histograms: Dict of `keras_sparseout.metrics.ActivationHistogram` of the last
            reading, by "activations/<layer>" and "val_activations/<layer>". The next
            reading fills the same objects.
        evaluated: Without `x`, dict of the figures of the last validation or
            `evaluate`, which may stand alone: `model.evaluate(callbacks=[tracker])`.

    Raises:
        ValueError: if `x` is empty or endless, a metric is unknown, or (as training
            begins) no layer matches, one that is named can't be read, `x` does not fit
            the model, without `x` its step can't be measured, or its log keys are those
            of another callback or of the model.

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
        data = None
        if x is not None:
            data = ProbeData(x, batch_size=batch_size, steps=steps)
        layers = layer_selection.check_layers(layers)
        self.where = validation.check_where(where)
        metrics = check_metrics(metrics, validation.check_axis(axis))
        self.every = every if every == "epoch" else _check_every(every)
        sample_size = check_count("sample_size", sample_size)
        if per_layer is not None:
            validation.check_bool("per_layer", per_layer)
        self.per_layer = per_layer
        self.log_dir = log_dir
        self.verbose = verbose
        self.evaluated = {}
        if log_dir is not None:
            metrics.setdefault("histogram", ActivationHistogram())
        self._readout = Readout(metrics, log_dir)
        super().__init__(metrics, data, layers, sample_size, in_steps=data is None)

    def _forget(self):
        super()._forget()
        self._new, self._tested = {}, None
        self._count, self._given, self._fitting = None, 0, False

    def __deepcopy__(self, memo):
        shared = ("data", "layers", "metrics", "_readout")
        copied = callback_order.copy_of(self, memo, shared)
        copied._readout = Readout(self.metrics, self.log_dir)
        return copied

    @property
    def units(self):
        """The last figures of each unit: a dict of arrays by key, see the class."""
        return self._readout.units

    @property
    def histograms(self):
        """The last histograms, by key, see the class."""
        return self._readout.histograms

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
        if len(self._names) > _MOST_LAYERS_IN_LOGS:
            return plots.heat_map(self.history, metric, path=path)
        history = self.history
        for key in (accuracy, f"val_{accuracy}"):
            if any(key in logs for logs in self._log.logs.values()):
                history[key] = [
                    self._log.logs.get(row, {}).get(key, np.nan)
                    for row in range(len(self._log.rows))
                ]
        return plots.sparsity(history, metric, accuracy=accuracy, path=path)

    def log_keys(self):
        """Returns the keys that it may put into `logs`, a set.

        Without `x` not those of validation that another callback has for probe data.
        """
        keys = self._keys("val_")
        if self.data is None:
            keys |= self._keys("")
            for other in self._beside:
                if hasattr(other, "probe_keys"):
                    keys -= other.probe_keys()
        return keys

    def probe_keys(self):
        """Returns those of them that are of probe data."""
        return set() if self.data is None else self._keys("val_")

    def _keys(self, prefix):
        names = self._names if self._logs_layers() else ()
        return {
            prefix + metric + name
            for metric, measure in self.metrics.items()
            if not isinstance(measure, ActivationHistogram)
            for name in ("", *(f"/{name}" for name in names))
        }

    def on_train_begin(self, logs=None):
        self.evaluated = {}
        self._readout.begin_run()
        self._new, self._count, self._fitting = {}, None, True
        self._begin()
        if self._probe is not None:
            self._describe(self._probe)

    def on_train_end(self, logs=None):
        self._fitting = False
        self._readout.close()

    def on_epoch_begin(self, epoch, logs=None):
        self._begin_epoch(epoch)
        self._new, progress = {}, self._progress
        if self._count is None:
            # Not before, since it may be restored as training begins.
            before = progress.trained_before(epoch)
            self._count = StepCount(self.model, before)
            progress.before = max(
                progress.before, self._count.batches_after(0) or before
            )
        self._given = self._count.batches_after(progress.of_run)

    def on_train_batch_end(self, batch, logs=None):
        self._end_batch(batch, logs)
        if not self._settled and self._settle(logs) and self._probe is not None:
            self._describe(self._probe)
        if self._training is not None and self._log.unread and not self._reached:
            self._check_reached()
        if self.every != "epoch" and self._log.due(self.every):
            self._take_reading()

    def on_epoch_end(self, epoch, logs=None):
        self._progress.epoch = epoch
        self._correct_progress()
        probed = self.data is not None and self._progress.batches == 0
        if self._log.unread or probed:
            self._take_reading()
        self._log.end_epoch(self._new, logs)
        if self.data is not None:
            figures = {k: f for k, f in self._log.rows[-1].items() if k != "epoch"}
        else:
            figures = dict(self._new)
            if self._totals:
                causes = non_finite.invalid_layers(
                    self.model, self._watched, self._loss
                )
                figures |= self._readout.figures(self._totals, self._watched, causes)
        self._tell(figures, logs)

    def on_test_begin(self, logs=None):
        if self.data is not None:
            return
        trained = self._trained()
        if trained is None:
            self._set_up()
            self._settled = False
            self._testing = self._step_sums("test", self._tested)
        else:
            self._watch(trained.watched)
            # A part of the model may serve training alone.
            self._testing = self._step_sums(
                "test", self._tested, self._watched, missing="keep"
            )
        self._tested = self._testing
        self._testing.disarm()
        self._testing.reset()
        if self._fitting:
            self._tell_of_others()
        if self._can_test(self._testing.check):
            self._arms_last = arming.after_all(self, "test", self._arm)

    def on_test_batch_begin(self, batch, logs=None):
        if self._testing is not None and not self._arms_last:
            self._arm("test")

    def on_test_batch_end(self, batch, logs=None):
        if self._testing is None:
            return
        self._testing.disarm()
        if self._trained() is None and not self._settled:
            self._settled = True
            self._check_built()

    def on_test_end(self, logs=None):
        if self._testing is not None and self._can_test(self._testing.check_reached):
            self._watch(self._testing.watched)
            if self._testing.left_out:
                self._describe(self._testing)
            if self._fitting:
                callback_order.check_free(self, logs)
                self._correct_progress()
            loss = (logs or {}).get("loss", 0.0)
            self.evaluated = self._read("val_", self._testing.totals(), loss)
            self._new = self.evaluated
            if not self._fitting:
                self._readout.close()
        self._testing = None

    def _can_test(self, check):
        """Whether the test step can be measured; if not, that ends no training."""
        try:
            check()
        except ValueError as error:
            if self._trained() is None:
                raise
            self._testing = None
            text = f"SparsityTracker: validation has no figures. {error}"
            self._readout.warn_once(text, about="val_")
        return self._testing is not None

    def _select(self):
        return layer_selection.select(self.model, self.layers, self.where)

    def _check_built(self):
        if self._select() != self._selected:
            raise ValueError(
                "`model` must be built before `evaluate` is tracked, since it makes "
                f"layers in its first batch. Received: model {self.model.name!r}. Call "
                "it once on a batch before, for example model(x[:1])."
            )

    def _check_reached(self):
        self._reached = True
        self._training.check_reached()
        self._watch(self._training.watched)
        if not self._described:
            self._describe(self._training)

    def _take_reading(self):
        self._correct_progress()
        if self._training is None:
            totals, prefix = self._probe.measure(self.data), "val_"
            self._watch(self._probe.watched)
        else:
            totals, prefix = self._training.totals(), ""
            self._watch(self._training.watched)
            self._training.reset()
            for name, sums in totals.items():
                add(self._totals, name, sums)
        self._log.add(self._read(prefix, totals, self._loss))

    def _read(self, prefix, totals, loss):
        return self._readout.take(
            prefix, totals, self._watched, self._progress, self.model, loss
        )

    def _correct_progress(self):
        super()._correct_progress()
        if self._progress.may_be_off and self._training is None:
            given = self._count.batches_after(self._progress.of_run)
            if given > self._given:
                self._progress.correct(given - self._given)

    def _logs_layers(self):
        if self.per_layer is None:
            return len(self._names) <= _MOST_LAYERS_IN_LOGS
        return self.per_layer

    def _tell_of_others(self):
        """Warns if figures of validation are not in `logs`, but those of probe data."""
        hidden = sorted(self._keys("val_") - self.log_keys())
        if hidden:
            self._readout.warn_once(
                f"{validation.some_of(hidden)} in the logs are figures of probe data, "
                "by another callback; those of validation are in `history` alone. Give "
                "the metrics other names for both, for example metrics="
                f'{{"probe_{next(iter(self.metrics))}": ...}}.',
                about="probe data",
            )

    def _trained(self):
        """Returns the sums of the model's training steps, None if it has none."""
        if self._training is None or self._training.model is not self.model:
            return None
        return self._training

    def _describe(self, measured):
        self._described = True
        if self.verbose:
            where = f"{self.sample_size} samples of each batch"
            if self.data is not None:
                where = self.data.describe()
            describe(measured, self.metrics, where)


def _check_every(every):
    if isinstance(every, str):
        raise ValueError(
            '`every` must be "epoch" or a number of batches, an integer >= 1. '
            f"Received: every={every!r}. Leave it out for each epoch."
        )
    return check_count("every", every)
