"""Finds metrics of sparsity by name, as `keras.metrics.get` finds those of Keras."""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, TypeAlias

import keras

from keras_sparseout import metrics as sparsity
from keras_sparseout.utils import validation
from keras_sparseout.utils.types import Tensor

# A name of a metric, a function f(x), or a streaming metric.
Metric: TypeAlias = str | Callable[[Tensor], Tensor] | sparsity.StreamingMetric
Metrics: TypeAlias = Metric | Sequence[Metric] | Mapping[str, Metric]

METRICS: dict[str, type[sparsity.StreamingMetric]] = {
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


def get(
    identifier: Metric, axis: Literal[-1] | None = -1, name: str | None = None
) -> sparsity.StreamingMetric:
    """Returns the streaming metric for a name or function.

    Args:
        identifier: A name in `METRICS`, a function f(x), or a streaming metric, which
            `get` returns unchanged.
        axis: The axis along which the vectors lie: -1 for the units at each position,
            None for the whole map of a sample.
        name: Name for a new metric. None: the name of the metric or function.

    Raises:
        ValueError: if `identifier` is none of these.

    Example:

    >>> get("hoyer").name
    'hoyer'
    """
    if isinstance(identifier, sparsity.StreamingMetric):
        return identifier
    if isinstance(identifier, str) and identifier in METRICS:
        metric = METRICS[identifier]
        # The others measure the data set as a whole, so they have no axis.
        options = {"axis": axis} if issubclass(metric, sparsity.SampleMean) else {}
        return metric(name=name or identifier, **options)
    if callable(identifier) and not isinstance(
        identifier, (type, keras.metrics.Metric)
    ):
        # A function of this package has a streaming metric of the same name.
        own = getattr(identifier, "__name__", "")
        if own in METRICS and identifier is getattr(sparsity, own, None):
            return get(own, axis, name)
        return sparsity.SampleMean(identifier, axis=axis, name=name)
    raise ValueError(
        "`metrics` must be functions f(x), streaming metrics of "
        f"keras_sparseout.metrics, or among the names {', '.join(METRICS)}. Received: "
        f"metrics={identifier!r}. "
        + validation.did_you_mean(identifier, METRICS, "Give one of these.")
    )


def check_metrics(
    metrics: Metrics,
    axis: Literal[-1] | None = -1,
) -> dict[str, sparsity.StreamingMetric]:
    """Returns the streaming metrics for several names or functions, by their names.

    Args:
        metrics: One or a list of what `get` takes, or a dict of them by name.
        axis: As in `get`.

    Raises:
        ValueError: if there are none, or their names are not all different and free in
            the logs.
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
    return {name: get(metric, axis, name) for name, metric in named}


def _name(metric):
    if isinstance(metric, keras.metrics.Metric):
        return metric.name
    return getattr(metric, "__name__", metric)
