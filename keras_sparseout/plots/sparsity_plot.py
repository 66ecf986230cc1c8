"""The picture of how sparse layers became while a model trained."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from keras_sparseout.plots import drawing
from keras_sparseout.plots.readings import KINDS, History, Readings
from keras_sparseout.utils.types import PathLike

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# By the prefix of a log key, as in KINDS.
_STYLES = {"": "-", "val_": "--"}


def sparsity(
    history: History,
    metric: str | Sequence[str] = "hoyer",
    *,
    accuracy: str | None = "accuracy",
    path: PathLike | None = None,
) -> "Figure":
    """Draws the sparsity of each layer by epoch, below the accuracy.

    Solid lines show training batches (log keys `<metric>/<layer>`), dashed lines show
    validation or probe data (`val_<metric>/<layer>`). Colours run from the first layer,
    dark, to the last. Markers tell up to 8 layers apart; with more layers a colour bar
    replaces the legend. The mean over several layers is black.

    Args:
        history: What `fit` returns, a SparsityTracker, or a dict of lists by log key.
            With more than 8 layers the logs of `fit` have only their mean, and a
            tracker has no accuracy: `{**run.history, **tracker.history}` has both.
            The list at "epoch" says where in epochs the readings are; without it they
            are at epochs 1, 2, ... With `validation_freq` a tracker alone, or both as
            above, says which epochs were validated.
        metric: Name of the metric, or a tuple of names: one panel each.
        accuracy: Key of the upper panel, which shows it for training and validation.
            If `history` has neither, or for None, there is no such panel.
        path: A file to write too.

    Raises:
        ValueError: if `history` is empty or has no figures of `metric`.

    Example:

    >>> from keras_sparseout import plots
    >>> history = {"accuracy": [0.5, 0.7, 0.8], "val_hoyer/dense": [0.5, 0.7, 0.8]}
    >>> [panel.get_ylabel() for panel in plots.sparsity(history).axes]
    ['accuracy', 'Hoyer sparsity\\n(0 dense, 1 sparse)']
    """
    drawing.check_path(path)
    readings = Readings(history)
    metrics = _check_metrics((metric,) if isinstance(metric, str) else metric)
    for name in metrics:
        readings.require("metric", name, mean_is_enough=True)
    figure = _draw(readings, metrics, accuracy)
    return drawing.save(figure, path)


def _draw(readings, metrics, accuracy):
    has_accuracy = accuracy is not None and any(
        f"{kind}{accuracy}" in readings for kind in KINDS
    )
    heights = [2.2] * has_accuracy + [3] * len(metrics)
    figure = drawing.new_figure(0.5 + sum(heights))
    grid = figure.subplots(
        len(heights), sharex=True, squeeze=False, height_ratios=heights
    )
    panels = list(grid[:, 0])
    if has_accuracy:
        most = max(len(readings.layers(name)) for name in metrics)
        _draw_accuracy(panels[0], readings, accuracy, drawing.legend_for(most))
    for panel, name in zip(panels[has_accuracy:], metrics, strict=True):
        _draw_metric(figure, panel, readings, name)
    drawing.finish_epochs(panels)
    return figure


def _draw_accuracy(panel, readings, accuracy, add_legend):
    handles = []
    for kind, label, colour in (("", "training", "0.5"), ("val_", "validation", "k")):
        look = {"linestyle": _STYLES[kind], "color": colour}
        if drawing.curve(panel, readings, f"{kind}{accuracy}", **look):
            handles.append(drawing.line(label, **look))
    panel.set_ylabel(accuracy.replace("_", " "))
    add_legend(panel, handles)


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
