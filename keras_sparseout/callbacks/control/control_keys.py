"""The log keys of what a SparsityController controls."""

from collections.abc import Iterable

from keras_sparseout.callbacks.control.macs_budget import NEEDLESS_MACS


def is_of_model(metric: str) -> bool:
    """Whether a metric is one figure of the whole model."""
    return metric == NEEDLESS_MACS


def with_target(metric: str, layers: Iterable[str]) -> list[str]:
    """Returns the names of what has a target: of the layers, or of the metric.

    Args:
        metric: Name of the metric.
        layers: Names of the layers.
    """
    return [metric] if is_of_model(metric) else list(layers)


def of_layers(metric: str, layers: Iterable[str]) -> list[str]:
    """Returns the keys of the layers' figures; arguments as for `with_target`."""
    of_each = "zero_fraction" if is_of_model(metric) else metric
    return [f"{of_each}/{name}" for name in layers]


def controlled(metric: str, layers: Iterable[str]) -> list[str]:
    """Returns the keys of the figures that have a target."""
    return [metric] if is_of_model(metric) else of_layers(metric, layers)
