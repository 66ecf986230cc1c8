"""Turns the sums of measured layers into figures of layers and units, and means."""

from collections.abc import Container, Iterable, Mapping, MutableMapping, Sequence
from typing import NamedTuple

import numpy as np

from keras_sparseout.measure.layer_sums import Metrics, split
from keras_sparseout.measure.watched_layer import WatchedLayer
from keras_sparseout.metrics import ActivationHistogram
from keras_sparseout.metrics.base import StreamingMetric


class Reading(NamedTuple):
    """The figures that the sums over some data give.

    Attributes:
        figures: Dict of numbers by key, "<metric>/<layer>" for a layer and "<metric>"
            for the mean over the layers.
        units: Dict of arrays by key, from the metrics with a figure for each unit.
        nan_layers: Names of the layers with NaN among their activations.
    """

    figures: dict[str, float]
    units: dict[str, np.ndarray]
    nan_layers: list[str]


def read(
    totals: Mapping[str, Sequence[np.ndarray]],
    watched: Iterable[WatchedLayer],
    metrics: Metrics,
    invalid: Container[str] = (),
    histograms: MutableMapping[str, ActivationHistogram] | None = None,
) -> Reading:
    """Returns the `Reading` of sums from a `Probe` or `StepSums`.

    A layer for which a metric is undefined has NaN, and does not count in the mean over
    the layers. NaN activations show in both. Per-unit metrics are averaged over the
    units for which they are defined.

    Args:
        totals: Dict of sums by layer.
        watched: The layers.
        metrics: Dict of streaming metrics by name.
        invalid: Names of layers whose figures are NaN whatever their sums are, from
            `non_finite.invalid_layers`.
        histograms: Dict of `ActivationHistogram` by layer to fill; missing ones are
            made. None for no histograms.
    """
    figures: dict[str, float] = {}
    of_layers: dict[str, list[float]] = {}
    units, nan_layers = {}, []
    for w in watched:
        parts = list(split(totals[w.name], metrics))
        has_nan = any(_has_nan(metric, sums) for _, metric, sums in parts)
        if has_nan:
            nan_layers.append(w.name)
        elif w.name in invalid:
            parts = [(name, m, _all_nan(m, sums)) for name, m, sums in parts]
        for name, metric, sums in parts:
            if isinstance(metric, ActivationHistogram):
                if histograms is not None:
                    _fill(histograms, w.name, metric, sums)
                continue
            result = np.asarray(metric.figure(*sums))
            if result.ndim:
                units[f"{name}/{w.name}"] = result
                result = result[~np.isnan(result)]
            figure = _mean(result)
            figures[f"{name}/{w.name}"] = figure
            counted = of_layers.setdefault(name, [])
            if has_nan or w.name in invalid or not np.isnan(figure):
                counted.append(figure)
    figures.update((name, _mean(counted)) for name, counted in of_layers.items())
    return Reading(figures, units, nan_layers)


def _mean(values: np.ndarray | Sequence[float]) -> float:
    return np.mean(values).item() if np.size(values) else np.nan


def _fill(
    histograms: MutableMapping[str, ActivationHistogram],
    name: str,
    metric: ActivationHistogram,
    sums: Sequence[np.ndarray],
) -> None:
    # It fills the histogram of the last reading: Keras never frees variables.
    if name not in histograms:
        histograms[name] = metric.from_config(metric.get_config())
    for variable, total in zip(histograms[name].variables, sums, strict=True):
        variable.assign(total)


def _has_nan(metric: StreamingMetric, sums: Sequence[np.ndarray]) -> bool:
    if isinstance(metric, ActivationHistogram):
        return bool(sums[0][-1] > 0)  # The last count is of NaN.
    return any(np.isnan(s).any() for s in sums)


def _all_nan(metric: StreamingMetric, sums: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Returns sums like `sums`, as if all activations were NaN."""
    if not isinstance(metric, ActivationHistogram):
        return [np.full_like(s, np.nan) for s in sums]
    counts = np.zeros_like(sums[0])
    counts[-1] = np.sum(sums[0])
    return [counts, *sums[1:]]
