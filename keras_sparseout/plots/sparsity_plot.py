"""Pictures over epochs: how sparse layers became while a model trained."""

import numpy as np

from keras_sparseout.plots import drawing
from keras_sparseout.plots.readings import KINDS, Readings

# By the prefix of a log key, as in KINDS.
_STYLES = {"": "-", "val_": "--"}


def sparsity(history, metric="hoyer", *, accuracy="accuracy", path=None):
    """Draws the sparsity of each layer by epoch, below the accuracy.

    Solid lines are figures from training batches (log keys `<metric>/<layer>`), dashed
    ones from validation or probe data (`val_<metric>/<layer>`). Colours run from the
    first layer, dark, to the last; markers tell up to 8 layers apart, and more of them
    have a colour bar in place of a legend. The mean over several layers is black.

    Args:
        history: What `fit` returns, a SparsityTracker, or a dict of lists by log key.
            The logs of `fit` leave single layers out where there are more than 8, and
            a tracker has no accuracy: `{**run.history, **tracker.history}` has both.
            A list at "epoch" says where in epochs the figures were read; without it,
            they are those of epochs 1, 2, ...
        metric: Name of the metric, or a tuple of names: one panel each.
        accuracy: Key of what the upper panel shows, beside the same of validation.
            There is no such panel if `history` has neither, or for None.
        path: A .png, .svg or .pdf file to write too.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ValueError: if `history` is empty or holds nothing of `metric`, or `path` has
            another suffix.
        ImportError: if Matplotlib is missing.

    Example:

    >>> from keras_sparseout import plots
    >>> history = {
    ...     "accuracy": [0.5, 0.7, 0.8],
    ...     "val_hoyer/conv": [0.4, 0.5, 0.6],
    ...     "val_hoyer/dense": [0.5, 0.7, 0.8],
    ... }
    >>> figure = plots.sparsity(history)
    >>> [panel.get_ylabel() for panel in figure.axes]
    ['accuracy', 'Hoyer sparsity\\n(0 dense, 1 sparse)']
    """
    drawing.check_path(path)
    readings = Readings(history)
    metrics = _check_metrics((metric,) if isinstance(metric, str) else metric)
    for name in metrics:
        readings.require("metric", name, mean_is_enough=True)

    has_accuracy = accuracy is not None and any(
        f"{kind}{accuracy}" in readings for kind in KINDS
    )
    heights = [2.2] * has_accuracy + [3] * len(metrics)
    figure = drawing.new_figure(0.5 + sum(heights))
    panels = figure.subplots(
        len(heights), sharex=True, squeeze=False, height_ratios=heights
    )[:, 0]
    if has_accuracy:
        most = max(len(readings.layers(name)) for name in metrics)
        _draw_accuracy(panels[0], readings, accuracy, drawing.legend_for(most))
    for panel, name in zip(panels[has_accuracy:], metrics, strict=True):
        _draw_metric(figure, panel, readings, name)
    drawing.finish_epochs(panels)
    return drawing.save(figure, path)


def heat_map(history, metric="hoyer", *, path=None):
    """Draws the sparsity of many layers: a row for each layer, a column an epoch.

    The figures are those from validation or probe data (log keys
    `val_<metric>/<layer>`), or where there are none those from training batches
    (`<metric>/<layer>`); the colour bar says which. The first layer is at the top. What
    is NaN, such as Hoyer's sparsity of a silent layer, is grey.

    Args:
        history: A SparsityTracker, a dict of lists by log key, or what `fit` returns
            if its logs have single layers (with more than 8: `per_layer=True`).
        metric: Name of the metric.
        path: A .png, .svg or .pdf file to write too.

    Returns:
        A `matplotlib.figure.Figure`, the higher the more layers there are.

    Raises:
        ValueError: if `history` is empty or holds no layer's `metric`, or `path` has
            another suffix.
        ImportError: if Matplotlib is missing.

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
    layers = readings.layers(metric)
    kind = "val_" if any(f"val_{metric}/{n}" in readings for n in layers) else ""
    layers = [layer for layer in layers if f"{kind}{metric}/{layer}" in readings]
    places, rows = readings.grid([f"{kind}{metric}/{layer}" for layer in layers])

    height = 1.2 + 0.2 * max(len(layers), 10)
    figure = drawing.new_figure(height)
    panel = figure.subplots()
    mesh = panel.pcolormesh(
        _between(places),
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
    return drawing.save(figure, path)


def _draw_accuracy(panel, readings, accuracy, legend):
    handles = []
    for kind, label, colour in (("", "training", "0.5"), ("val_", "validation", "k")):
        look = {"linestyle": _STYLES[kind], "color": colour}
        if drawing.curve(panel, readings, f"{kind}{accuracy}", **look):
            handles.append(drawing.line(label, **look))
    panel.set_ylabel(accuracy.replace("_", " "))
    legend(panel, handles)


def _draw_metric(figure, panel, readings, metric):
    layers = readings.layers(metric)
    looks = {f"{metric}/{layer}": look for layer, look in drawing.looks(layers)}
    mean = {"color": "black", "linewidth": 1, **drawing.outlined()}
    if len(layers) != 1:
        looks[metric] = mean
    drawn = [
        kind + key
        for kind, style in _STYLES.items()
        for key, look in looks.items()
        if drawing.curve(panel, readings, kind + key, **look, linestyle=style)
    ]
    single = all(len(line.get_xdata()) == 1 for line in panel.get_lines())
    handles = [
        drawing.line(
            KINDS[kind], linestyle=style, **drawing.point(style) if single else {}
        )
        for kind, style in _STYLES.items()
        if any(key.startswith(f"{kind}{metric}") for key in drawn)
    ]
    if {metric, f"val_{metric}"} & set(drawn):
        handles.append(drawing.line("mean over layers", **mean))
    panel.set_ylabel(drawing.metric_label(metric))
    drawing.depth_key(figure, panel, layers, handles)


def _check_metrics(metrics):
    """Returns a tuple of names of metrics."""
    if (
        not isinstance(metrics, (list, tuple))
        or not metrics
        or not all(isinstance(name, str) for name in metrics)
    ):
        raise ValueError(
            "`metric` must be the name of a metric, or a tuple of at least one. "
            f"Received: metric={metrics!r}. Give for example metric='hoyer'."
        )
    return tuple(metrics)


def _between(places):
    """The edges of columns at `places`: half way to the neighbours."""
    if len(places) == 1:
        return places + np.array([-0.5, 0.5])
    half = np.diff(places) / 2
    return np.concatenate(
        [places[:1] - half[:1], places[:-1] + half, places[-1:] + half[-1:]]
    )
