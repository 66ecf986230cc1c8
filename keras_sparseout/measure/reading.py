"""What the sums of watched layers come to: figures of layers and units, and means."""

from typing import NamedTuple

import numpy as np

from keras_sparseout.measure.layer_sums import split
from keras_sparseout.metrics import ActivationHistogram


class Reading(NamedTuple):
    """The figures that the sums over some data give.

    Attributes:
        figures: Dict of numbers by key, "<metric>/<layer>" of a layer and "<metric>" of
            the mean over the layers.
        units: Dict of arrays by key, of the metrics that have a figure for each unit.
        nan_layers: Names of the layers with NaN among their activations.
    """

    figures: dict
    units: dict
    nan_layers: list


def read(totals, watched, metrics, broken=(), histograms=None):
    """Returns the `Reading` of `totals`, as they come from a `Probe` or `StepSums`.

    Args:
        totals: Dict of sums by layer.
        watched: The layers.
        metrics: Dict of streaming metrics by name.
        broken: Names of layers whose figures are NaN whatever their sums are, as from
            `finite.broken`.
        histograms: Dict of `ActivationHistogram` by layer, to be filled; those that it
            lacks are made. None for no histograms.

    A layer for which a metric is undefined has NaN, and does not count in the mean over
    the layers. NaN activations show in both. Per-unit metrics are averaged over the
    units for which they are defined.
    """
    figures, means, units, nan_layers = {}, {}, {}, []
    for w in watched:
        own = list(split(totals[w.name], metrics))
        has_nan = any(_has_nan(metric, sums) for _, metric, sums in own)
        if has_nan:
            nan_layers.append(w.name)
        elif w.name in broken:
            own = [(name, m, _all_nan(m, sums)) for name, m, sums in own]
        for name, metric, sums in own:
            if isinstance(metric, ActivationHistogram):
                if histograms is not None:
                    _fill(histograms, w.name, metric, sums)
                continue
            figure = np.asarray(metric.figure(*sums))
            if figure.ndim:
                units[f"{name}/{w.name}"] = figure
                defined = figure[~np.isnan(figure)]
                figure = defined.mean() if defined.size else np.nan
            figures[f"{name}/{w.name}"] = float(figure)
            if has_nan or w.name in broken or not np.isnan(figure):
                means.setdefault(name, []).append(float(figure))
            means.setdefault(name, [])
    figures.update(
        (name, np.mean(f).item() if f else np.nan) for name, f in means.items()
    )
    return Reading(figures, units, nan_layers)


def _fill(histograms, name, metric, sums):
    # Those of the last reading are used anew: Keras keeps the memory of variables.
    if name not in histograms:
        histograms[name] = metric.from_config(metric.get_config())
    for variable, total in zip(histograms[name].variables, sums, strict=True):
        variable.assign(total)


def _has_nan(metric, sums):
    if isinstance(metric, ActivationHistogram):
        return sums[0][-1] > 0  # It counts NaN, last of all.
    return any(np.isnan(s).any() for s in sums)


def _all_nan(metric, sums):
    """Returns sums like `sums`, of activations that are all NaN."""
    if not isinstance(metric, ActivationHistogram):
        return [np.full_like(s, np.nan) for s in sums]
    counts = np.zeros_like(sums[0])
    counts[-1] = np.sum(sums[0])
    return [counts, *sums[1:]]
