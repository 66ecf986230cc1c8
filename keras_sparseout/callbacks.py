"""Callbacks: watching the sparsity of activations while a model trains."""

import difflib
import inspect
import numbers
import warnings

import keras
import tensorflow as tf

from keras_sparseout import metrics as sparsity
from keras_sparseout import validation, watching

_METRICS = {"hoyer": sparsity.hoyer, "zero_fraction": sparsity.zero_fraction}
_MOST_LAYERS_IN_LOGS = 8


class SparsityTracker(keras.callbacks.Callback):
    """Measures how sparse layers' activations are, at the end of each epoch.

    It runs the model on probe data `x` as at inference, and puts into `logs`

    - `val_<metric>/<layer>` for each layer, and
    - `val_<metric>`, their mean over the layers,

    for History, the progress bar and the callbacks that stand *after* it in the list:
    CSVLogger, TensorBoard, ModelCheckpoint, EarlyStopping (which needs a `mode` for
    these keys: `EarlyStopping("val_hoyer", mode="max")`). With more than 8 layers only
    the means go there; `history` holds all of them.

    A layer's metric is taken along the last axis (the units; in a convolution the
    channels at each position, also in layers with `data_format="channels_first"`),
    averaged over the positions of a sample, and then over the samples, all of equal
    weight. All-zero vectors, of which Hoyer's sparsity is undefined, count in
    `zero_fraction` alone; a layer with no others, or of one unit, has NaN, and is left
    out of the mean.

    It changes nothing: neither weights nor seeds nor recurrent states.

    Args:
        x: Probe data: a numpy array or tensor, a tuple or dict of them for a model of
            several inputs (so without labels), or a `tf.data.Dataset` of batches as for
            `fit`. A thousand samples are plenty.
        layers: Which to watch: a list of layers of the model or their names (a nested
            layer's is its path, "encoder/dense"). None: the inputs of all Sparseout
            layers; in a model without any, the outputs of all layers with a nonlinear
            activation. Of a Sparseout layer it is always the input that is measured,
            of any other layer the output.
        metrics: Names ("hoyer", "zero_fraction") or functions f(x), as those of
            `keras_sparseout.metrics`: one value for each vector along the last axis; or
            a dict of functions by name.
        batch_size: How many samples of arrays run at once.
        per_layer: Whether the figures of each layer go into `logs`: True, False, or
            None for up to 8 layers.
        verbose: 1 to print once what is watched, 0 not to.

    Attributes:
        history: Dict of the figures of each epoch, by key.

    Raises:
        ValueError: if `x` is empty, a metric is unknown, or (as training begins) no
            layer matches or one can't be read.

    Example:

    >>> model = keras.Sequential([
    ...     keras.Input((4,)),
    ...     keras.layers.Dense(8, activation="relu"),
    ...     keras_sparseout.Sparseout(0.5, q=1.5, name="hidden"),
    ...     keras.layers.Dense(1),
    ... ])
    >>> model.compile("sgd", "mse")
    >>> x, y = np.ones((32, 4)), np.ones((32, 1))
    >>> tracker = SparsityTracker(x)
    >>> history = model.fit(x, y, verbose=0, callbacks=[tracker])
    SparsityTracker: hoyer, zero_fraction of the input of hidden on 32 samples
    >>> sorted(tracker.history)
    ['val_hoyer', 'val_hoyer/hidden', 'val_zero_fraction', 'val_zero_fraction/hidden']
    """

    def __init__(
        self,
        x,
        *,
        layers=None,
        metrics=("hoyer", "zero_fraction"),
        batch_size=256,
        per_layer=None,
        verbose=1,
    ):
        super().__init__()
        self.x = _check_data(x)
        self.layers = _check_layers(layers)
        self.metrics = _check_metrics(metrics)
        self.batch_size = _check_batch_size(batch_size)
        if per_layer is not None:
            validation.check_bool("per_layer", per_layer)
        self.per_layer = per_layer
        self.verbose = verbose
        self.history = {}
        self._probe = None

    def on_train_begin(self, logs=None):
        _warn_if_late(self)
        first = next(self._batches(), None)
        if first is None:
            raise _empty("a data set without batches")
        watching.build(self.model, first)
        watched = watching.select(self.model, self.layers)
        self._probe = watching.Probe(self.model, watched, self.metrics)
        self.history = {}
        # Now, so that data or layers that do not fit fail before an epoch is spent.
        self._probe.measure([first])
        if self.verbose:
            print(self._describe(watched))

    def on_epoch_end(self, epoch, logs=None):
        figures = {
            f"val_{key}": figure
            for key, figure in self._probe.measure(self._batches()).items()
        }
        for key, figure in figures.items():
            self.history.setdefault(key, []).append(figure)
        per_layer = self.per_layer
        if per_layer is None:
            per_layer = len(self._probe.watched) <= _MOST_LAYERS_IN_LOGS
        if logs is not None:
            logs.update(
                (key, figure)
                for key, figure in figures.items()
                if per_layer or "/" not in key
            )

    def _batches(self):
        if isinstance(self.x, tf.data.Dataset):
            for batch in self.x:
                yield keras.utils.unpack_x_y_sample_weight(batch)[0]
            return
        for start in range(0, _samples(self.x), self.batch_size):
            stop = start + self.batch_size
            yield keras.tree.map_structure(lambda a: a[start:stop], self.x)  # noqa: B023

    def _describe(self, watched):
        sides = " and ".join(
            f"the {side}{'s' if len(names) > 1 else ''} of {', '.join(names)}"
            for side in ("input", "output")
            if (names := [self._label(w) for w in watched if w.side == side])
        )
        data = "the given data set"
        if not isinstance(self.x, tf.data.Dataset):
            data = f"{_samples(self.x):,} samples"
        return f"SparsityTracker: {', '.join(self.metrics)} of {sides} on {data}"

    def _label(self, watched):
        calls = self._probe.calls[watched.name]
        return watched.name if calls == 1 else f"{watched.name} (its {calls} calls)"


def _samples(x):
    return len(keras.tree.flatten(x)[0])


def _check_data(x):
    if isinstance(x, tf.data.Dataset):
        if x.cardinality() == tf.data.INFINITE_CARDINALITY:
            raise ValueError(
                "`x` must be a finite data set. Received: x of infinite cardinality. "
                "Give a part of it, for example x.take(10)."
            )
        return x
    arrays = keras.tree.flatten(x)
    if not arrays or not all(len(getattr(a, "shape", ())) for a in arrays):
        raise ValueError(
            "`x` must be an array or tensor of samples, a tuple or dict of them, or a "
            f"tf.data.Dataset of batches. Received: x={_brief(x)}. Convert it with "
            "numpy.asarray."
        )
    sizes = {len(a) for a in arrays}
    if len(sizes) > 1:
        raise ValueError(
            "`x` must have the same number of samples in all its arrays. Received: "
            f"x with {', '.join(str(len(a)) for a in arrays)} samples. Cut them to one "
            "length."
        )
    if 0 in sizes:
        raise _empty(_brief(x))
    return x


def _empty(received):
    return ValueError(
        f"`x` must hold at least one sample. Received: x={received}. Give probe data, "
        "for example a thousand validation samples."
    )


def _brief(x):
    return f"an array of shape {x.shape}" if hasattr(x, "shape") else repr(x)[:80]


def _check_layers(layers):
    """Returns a list of layers and names, or None."""
    if layers is None:
        return None
    if isinstance(layers, (str, keras.layers.Layer)):
        return [layers]
    if (
        not isinstance(layers, (list, tuple))
        or not layers
        or not all(isinstance(item, (str, keras.layers.Layer)) for item in layers)
    ):
        raise ValueError(
            "`layers` must be a list of at least one layer or name of a layer. "
            f"Received: layers={layers!r}. Leave it out for the default."
        )
    return list(layers)


def _check_metrics(metrics):
    """Returns a dict of functions by name."""
    if isinstance(metrics, str) or callable(metrics):
        metrics = [metrics]
    if not isinstance(metrics, (list, tuple, dict)) or not metrics:
        raise ValueError(
            "`metrics` must be a list of at least one name or function, or a dict of "
            f"functions by name. Received: metrics={metrics!r}. Leave it out for "
            f"{', '.join(_METRICS)}."
        )
    if isinstance(metrics, dict):
        named = list(metrics.items())
    else:
        named = [(getattr(m, "__name__", m), _METRICS.get(str(m), m)) for m in metrics]
    names = [name for name, _ in named]
    for name, function in named:
        if not callable(function):
            near = difflib.get_close_matches(str(name), _METRICS, n=1)
            raise ValueError(
                "`metrics` must be functions f(x) or among the names "
                f"{', '.join(_METRICS)}. Received: metrics={metrics!r}."
                + (f" Did you mean {near[0]!r}?" if near else " Give one of these.")
            )
        if not isinstance(name, str) or names.count(name) > 1 or name == "loss":
            raise ValueError(
                "`metrics` must have a name each, all different and none of them "
                f"'loss', since they name the log keys. Received: metrics={metrics!r}. "
                "Give a dict of functions by name."
            )
    return dict(named)


def _warn_if_late(tracker):
    """Warns if callbacks that read the logs come before `tracker` in the list."""
    readers = (
        keras.callbacks.CSVLogger,
        keras.callbacks.EarlyStopping,
        keras.callbacks.ModelCheckpoint,
        keras.callbacks.ReduceLROnPlateau,
        keras.callbacks.TensorBoard,
    )
    # A callback is not told of the list it is in; the list is what calls it.
    frame = inspect.currentframe()
    while frame is not None:
        caller = frame.f_locals.get("self")
        if isinstance(caller, keras.callbacks.CallbackList):
            if tracker not in caller.callbacks:  # Another callback passes calls on.
                return
            earlier = caller.callbacks[: caller.callbacks.index(tracker)]
            late = [type(c).__name__ for c in earlier if isinstance(c, readers)]
            if late:
                warnings.warn(
                    f"{', '.join(late)} will not see the figures of SparsityTracker, "
                    "which comes after in `callbacks`. Put the tracker first.",
                    stacklevel=2,
                )
            return
        frame = frame.f_back


def _check_batch_size(batch_size):
    if (
        isinstance(batch_size, bool)
        or not isinstance(batch_size, numbers.Integral)
        or batch_size < 1
    ):
        raise ValueError(
            "`batch_size` must be an integer >= 1. Received: "
            f"batch_size={batch_size!r}. Leave it out for 256."
        )
    return batch_size
