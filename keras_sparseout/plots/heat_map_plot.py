"""The picture of how sparse many layers became while a model trained."""

from typing import TYPE_CHECKING

import numpy as np

from keras_sparseout.plots import drawing
from keras_sparseout.plots.readings import KINDS, History, Readings
from keras_sparseout.utils.types import PathLike

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def heat_map(
    history: History, metric: str = "hoyer", *, path: PathLike | None = None
) -> "Figure":
    """Draws the sparsity of many layers: a row for each layer, a column for each epoch.

    It draws the figures of validation or probe data (log keys `val_<metric>/<layer>`).
    If there are none, it draws those of training batches (`<metric>/<layer>`). The
    colour bar says which. The first layer is at the top. NaN is grey, such as Hoyer's
    sparsity of a silent layer.

    Args:
        history: A SparsityTracker, a dict of lists by log key, or what `fit` returns
            if its logs have single layers (with more than 8: `per_layer=True`) at each
            epoch (with `validation_freq` give the tracker).
        metric: Name of the metric.
        path: A file to write too.

    Returns:
        A `matplotlib.figure.Figure`, the higher the more layers there are.

    Raises:
        ValueError: if `history` is empty or has no figures of `metric` for a layer.

    Example:

    >>> from keras_sparseout import plots
    >>> history = {"val_hoyer/conv": [0.4, 0.5], "val_hoyer/dense": [0.5, 0.7]}
    >>> figure = plots.heat_map(history)
    >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
    ['conv', 'dense']
    """
    drawing.check_path(path)
    readings = Readings(history)
    readings.require("metric", metric)
    figure = _draw(readings, metric)
    return drawing.save(figure, path)


def _draw(readings, metric):
    kind, layers = _layers_of_one_kind(readings, metric)
    places, rows = readings.grid([f"{kind}{metric}/{layer}" for layer in layers])
    height = 1.2 + 0.2 * max(len(layers), 10)
    figure = drawing.new_figure(height)
    panel = figure.subplots()
    mesh = panel.pcolormesh(
        _column_edges(places),
        np.arange(len(layers) + 1) - 0.5,
        rows,
        cmap=drawing.colours_with_gaps(),
    )
    if np.isnan(rows).any():
        drawing.legend_above(panel, [drawing.gap("no value")])
    panel.set_yticks(range(len(layers)), drawing.short(layers))
    panel.invert_yaxis()
    panel.set_ylabel("layer, first to last")
    label = drawing.metric_label(metric).replace("\n", " ")
    figure.colorbar(mesh, label=f"{label}\n{KINDS[kind]} data", aspect=4 * height)
    drawing.finish_epochs([panel])
    return figure


def _layers_of_one_kind(readings, metric):
    """Returns the prefix of the keys to draw, and the layers that have such keys."""
    layers = readings.layers(metric)
    kind = "val_" if any(f"val_{metric}/{n}" in readings for n in layers) else ""
    return kind, [layer for layer in layers if f"{kind}{metric}/{layer}" in readings]


def _column_edges(places):
    """Returns the edges of columns at `places`, half way between neighbours."""
    if len(places) == 1:
        return places + np.array([-0.5, 0.5])
    half = np.diff(places) / 2
    return np.concatenate(
        [places[:1] - half[:1], places[:-1] + half, places[-1:] + half[-1:]]
    )
