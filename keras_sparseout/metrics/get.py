"""Metrics by their names, as `keras.metrics.get` has them."""

import keras

from keras_sparseout import metrics as sparsity
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
