"""Measuring watched layers: on probe data, and inside the model's own steps.

Both ways add up, for each layer, the sums of its streaming metrics.
"""

import contextlib

import keras
import tensorflow as tf

from keras_sparseout import metrics as sparsity
from keras_sparseout.backend.tensorflow.numerics import unchecked
from keras_sparseout.measure import hooks, layer_selection
from keras_sparseout.measure.trace import Trace
from keras_sparseout.ops import compiled_noise
from keras_sparseout.utils import validation

METRICS = {
    "dead_units": sparsity.DeadUnits,
    "firing_rate": sparsity.FiringRate,
    "gini": sparsity.Gini,
    "histogram": sparsity.ActivationHistogram,
    "hoyer": sparsity.Hoyer,
    "kurtosis": sparsity.Kurtosis,
    "lifetime_sparseness": sparsity.LifetimeSparseness,
    "population_sparseness": sparsity.PopulationSparseness,
    "pq_index": sparsity.PQIndex,
    "rms": sparsity.RMS,
    "zero_fraction": sparsity.ZeroFraction,
}
# Log keys of Keras and its callbacks.
_TAKEN = ("loss", "epoch", "learning_rate", "lr")
_OVER_DATA = ("dead_units", "firing_rate", "histogram", "lifetime_sparseness", "rms")
# Functions that were compiled, by what they are for.
_COMPILED = {}
_MOST_COMPILED = 32


class Probe:
    """Measures watched layers on given data, without training.

    The hooks are in place only while one compiled function is traced, that returns
    the sums and not the activations: at run time they cost nothing.

    Args:
        model: A built Keras model.
        watched: The layers, from `watching.select`.
        metrics: Dict of streaming metrics by name, from `check_metrics`.
        named: Whether the user named the layers, so that one that can't be read is an
            error; otherwise it is left out.

    Attributes:
        watched: The layers that are measured.
        left_out: Dict of reasons, by name, of those that are not.
    """

    def __init__(self, model, watched, metrics, *, named=True):
        self.settings = model, watched, metrics, named
        self.model = model
        self.watched = watched
        self.metrics = metrics
        self.named = named
        self.left_out, self._calls = {}, {}
        self._step = tf.function(self._trace, autograph=False, reduce_retracing=True)

    def calls(self):
        """Returns how often each layer is called, by name."""
        return dict(self._calls)

    def measure(self, batches):
        """Returns the totals over `batches` of model inputs, by layer."""
        totals = {}
        for batch in batches:
            for name, sums in run(self._step, batch).items():
                add(totals, name, [s.numpy() for s in sums])
        return totals

    def _trace(self, batch):
        trace = Trace(self.model, self.watched)
        # In the scope assignments to variables go nowhere: recurrent states and the
        # seeds of layers that draw even at inference stay what they are.
        with keras.StatelessScope(), trace.reading():
            self.model(batch, training=False)
        if not self.named:
            self.left_out.update(trace.left_out())
            self.watched = [w for w in self.watched if w.name not in self.left_out]
        missed = trace.missed()
        if missed and (self.named or not self.watched):
            raise layer_selection.unreached(missed, self.model, named=self.named)
        self._calls = trace.calls()
        sums = {}
        for watched, x, mask in trace.seen:
            if watched.name in self.left_out:
                continue
            own = layer_sums(watched, self.metrics, x, mask)
            before = sums.get(watched.name, own)
            check_same_units(watched, *([s.shape for s in x] for x in (before, own)))
            add(sums, watched.name, own)
        return sums


def run(function, batch):
    """Returns what a tf.function makes of `batch`.

    It is not called itself: TensorFlow counts the calls of all functions of the same
    code, and would warn of retracing where many models are measured, each once.
    """
    return function.get_concrete_function(batch)(batch)


def layer_sums(watched, metrics, x, mask):
    """Returns the sums of all `metrics` of one layer's activations, in order."""
    if hooks.rank_of(x) < 2:
        raise ValueError(
            "`layers` must be layers whose activations have a batch and a feature "
            f"dimension. Received: {watched.name} with shape {getattr(x, 'shape', ())}."
            " Leave it out."
        )
    try:
        return [part for m in metrics.values() for part in m.sums(x, mask=mask)]
    except ValueError as error:
        raise ValueError(f"{error} `x` are the activations of {watched.name}.") from (
            error
        )


@unchecked()
def packed_sums(seen, metrics):
    """Returns the sums of all `metrics` of several layers, a vector for each.

    Args:
        seen: List of (watched, x, mask), one for each call of a layer.
        metrics: Dict of streaming metrics by name.
    """
    activations = [(x, mask) for _, x, mask in seen]
    # By themselves they are some 20 operations a metric and layer, that take longer to
    # start than to run. Not in eager mode, where it would be compiled at each call.
    if (
        not tf.executing_eagerly()
        and all(metric.compiles for metric in metrics.values())
        and all(
            hooks.rank_of(x) and compiled_noise.pays(x.shape) for x, _ in activations
        )
    ):
        with contextlib.suppress(ValueError):  # What follows tells of which layer.
            return _compiled(metrics, activations)(activations)
    return [_pack(layer_sums(w, metrics, x, mask)) for w, x, mask in seen]


def _compiled(metrics, activations):
    """Returns a compiled function of `activations`, one for all that are alike.

    What XLA compiled stays in memory, so that new callbacks share it with old ones.
    """
    key = [(type(m), repr(m.get_config())) for m in metrics.values()]
    for tensor in keras.tree.flatten(activations):
        key.append(None if tensor is None else (tensor.dtype, repr(tensor.shape)))
    key = tuple(key)
    if key not in _COMPILED:

        @tf.function(jit_compile=True, autograph=False)
        def call(activations):
            return [
                _pack(part for m in metrics.values() for part in m.sums(x, mask=mask))
                for x, mask in activations
            ]

        _COMPILED[key] = call
        if len(_COMPILED) > _MOST_COMPILED:
            del _COMPILED[next(iter(_COMPILED))]
    return _COMPILED[key]


def _pack(sums):
    return tf.concat([tf.reshape(s, [-1]) for s in sums], axis=0)


def shapes(metrics, units):
    """Returns the shapes of the sums of all `metrics`, in order."""
    return [shape for metric in metrics.values() for shape in metric.shapes(units)]


def check_same_units(watched, shapes, others):
    """Raises unless the sums of a call have the shapes of those before."""
    for a, b in zip(shapes, others, strict=True):
        if None not in (*a, *b) and tuple(a) != tuple(b):
            raise ValueError(
                "`metrics` with a figure for each unit need layers with one number of "
                f"units. Received: {watched.name}, which is called with {a[0]} and "
                f"{b[0]} units. Leave it out of `layers`."
            )


def add(totals, name, sums):
    """Adds one layer's `sums` to its entry in `totals`."""
    old = totals.get(name)
    totals[name] = (
        sums if old is None else [a + b for a, b in zip(old, sums, strict=True)]
    )


def split(sums, metrics):
    """Yields (name, metric, its own sums), from all sums of a layer."""
    start = 0
    for name, metric in metrics.items():
        stop = start + len(metric.shapes(None))
        yield name, metric, sums[start:stop]
        start = stop


def check_metrics(metrics, axis=-1):
    """Returns a dict of streaming metrics by name.

    Args:
        metrics: Names, functions f(x), streaming metrics of `keras_sparseout.metrics`,
            a list of them, or a dict of functions and streaming metrics by name.
        axis: What the vectors lie along: -1 for the units at each position, None for
            the whole map of a sample.
    """
    if isinstance(metrics, (str, keras.metrics.Metric)) or callable(metrics):
        metrics = [metrics]
    if not isinstance(metrics, (list, tuple, dict)) or not metrics:
        raise ValueError(
            "`metrics` must be a list of at least one name or function, or a dict of "
            f"functions by name. Received: metrics={metrics!r}. Names are "
            f"{', '.join(METRICS)}."
        )
    if isinstance(metrics, dict):
        named = list(metrics.items())
    else:
        named = [(_name(metric), metric) for metric in metrics]
    names = [name for name, _ in named]
    for name in names:
        if (
            not isinstance(name, str)
            or names.count(name) > 1
            or name in _TAKEN
            or name.startswith("val_")
        ):
            raise ValueError(
                "`metrics` must have a name each, all different, that does not begin "
                f"with 'val_' and is none of {', '.join(_TAKEN)}, since they name the "
                f"log keys. Received: metrics={metrics!r}. Give a dict of functions by "
                "name."
            )
    return {name: _streaming(name, metric, axis) for name, metric in named}


def _name(metric):
    if isinstance(metric, keras.metrics.Metric):
        return metric.name
    return getattr(metric, "__name__", metric)


def _streaming(name, metric, axis):
    if hasattr(metric, "sums"):
        return metric
    if isinstance(metric, str) and metric in METRICS:
        options = {} if metric in _OVER_DATA else {"axis": axis}
        return METRICS[metric](name=name, **options)
    if callable(metric) and not isinstance(metric, (type, keras.metrics.Metric)):
        # The library's own functions over a data set have streaming twins.
        twin = METRICS.get(getattr(metric, "__name__", ""))
        if twin is not None and metric is getattr(sparsity, metric.__name__, None):
            return _streaming(name, metric.__name__, axis)
        return sparsity.SampleMean(metric, axis=axis, name=name)
    raise ValueError(
        "`metrics` must be functions f(x), streaming metrics of "
        f"keras_sparseout.metrics, or among the names {', '.join(METRICS)}. Received: "
        f"metrics={metric!r}. "
        + validation.did_you_mean(metric, METRICS, "Give one of these.")
    )
