"""SparsityTracker: watches the sparsity of activations while a model trains."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from keras_sparseout import plots
from keras_sparseout.callbacks import log_keys
from keras_sparseout.callbacks.callback_list import Logs
from keras_sparseout.callbacks.figure_sources import Source, not_begun
from keras_sparseout.callbacks.measuring_callback import MeasuringCallback
from keras_sparseout.callbacks.reporter import MOST_LAYERS_IN_LOGS, Reporter
from keras_sparseout.measure import layer_selection
from keras_sparseout.measure.layer_selection import LayerChoice
from keras_sparseout.measure.probe_data import ProbeData
from keras_sparseout.measure.watched_layer import WatchedLayer
from keras_sparseout.metrics import ActivationHistogram
from keras_sparseout.metrics.get import Metrics, check_metrics
from keras_sparseout.utils import validation
from keras_sparseout.utils.types import Data, PathLike
from keras_sparseout.utils.validation import check_count

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Layers: TypeAlias = LayerChoice | Sequence[LayerChoice]


class SparsityTracker(MeasuringCallback):
    """Measures how sparse layers' activations are, while a model trains.

    Without `x` it needs no data and no extra pass. It adds up sums inside the training
    step, over the first samples of each batch, and reads them once an epoch. It gives

    - `<metric>/<layer>` in training, while weights change and earlier layers add noise;
    - `val_<metric>/<layer>` for the batches of validation. The dict `evaluated` has the
      last ones, also those of `model.evaluate(callbacks=[tracker])`.

    With probe data `x` it runs the model on them in inference mode, and gives only
    `val_<metric>/<layer>`. `<metric>` and `val_<metric>` are means over the layers.

    The figures go into `logs`, for History, the progress bar and the callbacks *after*
    it: CSVLogger, TensorBoard, ModelCheckpoint, EarlyStopping (it needs a `mode`:
    `EarlyStopping("val_hoyer", mode="max")`). With more than 8 layers only the means go
    there; `history` holds all layers, and its documentation explains the figures.

    Figures of validation appear in the epochs in which Keras validates, figures of
    probe data in every epoch. Names that the model's own metrics or another tracker use
    are refused: `metrics={"activation_gini": "gini"}` gives another name. If one
    callback measures probe data and another one validation under the same name, `logs`
    get the figure of the probe data, and a warning says so.

    Layers that an unbuilt model makes in its first batch are watched from the second
    batch on. Without `x` it follows the model's own `train_step` and
    `make_train_function`. If you assign `model.train_function` yourself, it needs `x`.
    In a training loop of your own, put `watching` around the forward pass. Tracking
    changes neither weights nor seeds nor recurrent states. Rounding may differ where it
    changes how TensorFlow fuses operations: without `x`, under `jit_compile=True`, and
    at the output of a layer whose activation is a layer.

    Args:
        x: Probe data: a numpy array or tensor, a tuple or dict of them for a model of
            several inputs (no labels), or a `tf.data.Dataset` or
            `keras.utils.PyDataset` of batches as for `fit`, but none that shuffles and
            that `fit` gets too: each pass changes the order of the next. A thousand
            samples are plenty. None: measure training and validation batches.
        layers: Which to watch: a list of layers of the model, names (a nested layer's
            name is its path, "encoder/dense"), regular expressions that match a whole
            name ("block.*"), types (`keras.layers.Conv2D`), or, where no name matches,
            names of activations ("relu") or types ("conv2d"). None: the inputs of all
            Sparseout layers; in a model without any, the outputs of all layers with a
            nonlinear activation, but not an activation that ends the model, such as a
            softmax. It leaves out layers that can't be read, and prints their names.
        metrics: Names, functions f(x) as in `keras_sparseout.metrics` (one value for
            each vector along the last axis), streaming metrics, or a dict of them by
            name. Names: "hoyer", "zero_fraction", "gini", "population_sparseness",
            "pq_index", "kurtosis", "dead_units", "firing_rate", "lifetime_sparseness",
            "rms", and "histogram", which fills `histograms`. Without `x` one call
            measures all layers of a step. XLA compiles it when training begins, unless
            "gini", functions of yours or changing sizes prevent that: these cost more.
        where: "input" or "output" of the layers. None: the input of Sparseout layers,
            whose output is noisy in training, the output of all others.
        axis: -1 for vectors along the units (in a convolution the channels at each
            position, also with `data_format="channels_first"`), None for whole maps.
            Layers without `data_format`, such as ReLU, have that of `keras.config` if
            their activations are images or volumes.
        every: "epoch", or the number of batches after which a reading goes into
            `history`; `logs` get the figures of each epoch all the same.
        sample_size: Without `x`, how many samples of each batch are measured, on each
            replica. The cost grows with it: an epoch of 141 batches measures 564
            samples with 4. Give more where batches are few, above all for dead units.
        batch_size: With `x`, how many samples of arrays run at once.
        steps: With `x`, how many batches of a data set to take; None for all.
        per_layer: Whether each layer's figures go into `logs`; None: of up to 8 layers.
        log_dir: Folder for TensorBoard: figures and histograms of the activations go
            into its subfolder "sparsity", a file for each training. None for neither.
        verbose: 1 to print once what is watched, 0 not to.

    Raises:
        ValueError: if `x` is empty or endless or a metric unknown; in training, if no
            layer matches, a named one can't be read, `x` does not fit the model, its
            step can't be measured, or the model or another callback uses its log keys.

    Example:

    >>> noise = keras_sparseout.Sparseout(0.5, q=1.5, name="hidden")
    >>> layers = [keras.layers.Dense(8, "relu"), noise, keras.layers.Dense(1)]
    >>> model = keras.Sequential([keras.Input((4,)), *layers])
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
        x: Data | None = None,
        *,
        layers: Layers | None = None,
        metrics: Metrics = ("hoyer", "zero_fraction"),
        where: Literal["input", "output"] | None = None,
        axis: Literal[-1] | None = -1,
        every: int | Literal["epoch"] = "epoch",
        sample_size: int = 4,
        batch_size: int = 256,
        steps: int | None = None,
        per_layer: bool | None = None,
        log_dir: PathLike | None = None,
        verbose: int = 1,
    ) -> None:
        data = None if x is None else ProbeData(x, batch_size=batch_size, steps=steps)
        named = layer_selection.check_layers(layers)
        self.where = validation.check_where(where)
        measures = check_metrics(metrics, validation.check_axis(axis))
        self.every = _check_every(every)
        size = check_count("sample_size", sample_size)
        self.per_layer = _check_per_layer(per_layer)
        self.log_dir = log_dir
        self.verbose = verbose
        self.evaluated: dict[str, float] = {}
        if log_dir is not None:
            measures.setdefault("histogram", ActivationHistogram())
        self._reporter = Reporter(measures, log_dir)
        super().__init__(measures, data, named, size, in_steps=data is None)

    def _forget(self) -> None:
        super()._forget()
        self._validated: dict[str, float] = {}
        self._fitting = False

    @property
    def units(self) -> dict[str, np.ndarray]:
        """The last "firing_rate" and "lifetime_sparseness" of the units, by key."""
        return self._reporter.units

    @property
    def histograms(self) -> dict[str, ActivationHistogram]:
        """The last `ActivationHistogram`s; the next reading fills the same objects.

        The keys are "activations/<layer>" and "val_activations/<layer>".
        """
        return self._reporter.histograms

    def plot(
        self,
        metric: str | None = None,
        *,
        accuracy: str = "accuracy",
        path: PathLike | None = None,
    ) -> "Figure":
        """Draws a metric of the layers over the epochs, below the accuracy.

        Up to 8 layers are lines, more a heat map. See `keras_sparseout.plots`.

        Args:
            metric: Name of a metric; None for the first one.
            accuracy: The key of the upper panel in the history of `fit`.
            path: File to write; its suffix sets the format.
        """
        metric = next(iter(self.metrics)) if metric is None else metric
        if len(self._names) > MOST_LAYERS_IN_LOGS:
            return plots.heat_map(self.history, metric, path=path)
        history = self._log.history_with(accuracy, f"val_{accuracy}")
        return plots.sparsity(history, metric, accuracy=accuracy, path=path)

    def log_keys(self) -> set[str]:
        """Returns the keys that it may put into `logs`.

        Keys of validation that another callback has for probe data are not among them.
        """
        if self.data is not None:
            return self.probe_keys()
        own = self._keys("val_")
        own -= log_keys.probe_keys(self._beside)
        return own | self._keys("")

    def probe_keys(self) -> set[str]:
        """Returns the keys of figures of probe data."""
        return self._keys("val_") if self.data else set()

    def _keys(self, prefix: str) -> set[str]:
        return self._reporter.keys(prefix, self._names, self.per_layer)

    def _describe(self, source: Source, *, once: bool = False) -> None:
        if self.verbose:
            few = f"{self.sample_size} samples of each batch"
            data = self.data.describe() if self.data else few
            self._reporter.describe(source, data, once=once)

    def _select(self) -> list[WatchedLayer]:
        return layer_selection.select(self.model, self.layers, self.where)

    def on_train_begin(self, logs: Logs = None) -> None:
        self._fitting, self._validated, self.evaluated = True, {}, {}
        self._reporter.begin_run()
        self._begin()
        if self._probe is not None:
            self._describe(self._probe)

    def on_train_end(self, logs: Logs = None) -> None:
        self._fitting = False
        self._reporter.close()

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        self._begin_epoch(epoch)
        self._validated = {}

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        self._end_batch(batch, logs)
        if not self._settled and self._settle(logs) and self._probe is not None:
            self._describe(self._probe)
        training = self._training
        if training is not None and self._log.unread and not training.is_checked:
            training.check_reached()
            self._watch(training.watched)
            self._describe(training, once=True)
        if self.every != "epoch" and self._log.due(self.every):
            self._take_reading()

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        self._progress.epoch = epoch
        self._correct_progress()
        if self._log.unread or (self.data and not self._progress.batches):
            self._take_reading()
        self._log.end_epoch(self._validated, logs)
        trained = self._reporter.epoch_figures(self._training, self.model, self._loss)
        self._tell({**self._validated, **trained}, logs)

    on_test_begin = MeasuringCallback._begin_evaluation
    on_test_batch_begin = MeasuringCallback._begin_test_batch
    on_test_batch_end = MeasuringCallback._end_test_batch

    def on_test_end(self, logs: Logs = None) -> None:
        source, self._testing = self._testing, None
        if source is None or not source.end(warn=self._reporter.warn_of_validation):
            return
        if source.left_out:
            self._describe(source)
        if self._fitting:
            log_keys.check_model(self, logs)
            keys = self._keys("val_") - self.log_keys()
            self._reporter.warn_of_probe_figures(keys)
            self._correct_progress()
        loss = (logs or {}).get("loss", 0.0)
        self.evaluated = self._validated = self._read(source, loss)
        if not self._fitting:
            self._reporter.close()

    def _take_reading(self) -> None:
        self._correct_progress()
        source = self._training or self._probe
        if source is None:
            raise not_begun(self)
        figures = self._read(source, self._loss)
        if self.data is not None:
            self._validated = figures
        self._log.add(figures)

    def _read(self, source: Source, loss: Any) -> dict[str, float]:
        figures = self._reporter.report(source, self.model, loss, self._progress)
        self._watch(source.watched)
        return figures


def _check_per_layer(per_layer: bool | None) -> bool | None:
    if per_layer is None or isinstance(per_layer, bool):
        return per_layer
    raise validation.value_error(
        "per_layer",
        per_layer,
        "True, False or None",
        "Leave it out to have the figures of each layer if there are up to 8.",
    )


def _check_every(every: int | str) -> int | Literal["epoch"]:
    if every == "epoch":
        return "epoch"
    if isinstance(every, str):
        raise ValueError(
            '`every` must be "epoch" or a number of batches, an integer >= 1. '
            f"Received: every={every!r}. Leave it out for each epoch."
        )
    return check_count("every", every)
