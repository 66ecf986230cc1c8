"""The picture of a controller at work."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_sparseout.plots import drawing
from keras_sparseout.plots.readings import KINDS, History, Readings
from keras_sparseout.utils import validation
from keras_sparseout.utils.types import PathLike

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ACTUATORS = {
    "q": "q\n(2 Dropout, less sparser)",
    "rate": "drop rate",
    "weight": "weight of the penalty",
    "penalty": "weight of the penalty",
    "target": "target of the threshold",
}
# By the prefix of a log key, as in KINDS.
_STYLES: dict[str, dict[str, Any]] = {
    "": {"linewidth": 0.9, "alpha": 0.7},
    "val_": {
        "linestyle": "none",
        "marker": "o",
        "markersize": 7,
        "markeredgecolor": "white",
    },
}
_DOTTED: dict[str, Any] = {"linestyle": ":", "linewidth": 1.8, "zorder": 2.5}
_GREY = {"color": "0.6", "linewidth": 1}
# A figure of the whole model, not of its layers.
_OF_MODEL = "needless_macs"


def control(
    history: History,
    targets: Mapping[str, float],
    *,
    metric: str,
    actuator: str = "q",
    bounds: Sequence[float] | None = None,
    path: PathLike | None = None,
) -> "Figure":
    """Draws how a controller brings layers to their targets, and what it moves.

    The upper panel shows the sparsity of each layer: lines for training batches (keys
    `<metric>/<layer>`), markers for validation or probe data (`val_<metric>/<layer>`),
    and dotted lines for the targets, in the colours of the layers. The lower panel
    shows the actuator (`<actuator>/<layer>`), with its bounds in grey. The metric
    "needless_macs" is one of the whole model, and drawn in black.

    Args:
        history: A SparsityController, or a dict of lists by key, NaN where a figure was
            not read. The list at "epoch" says where in epochs the readings are; without
            it they are at epochs 1, 2, ...
        targets: Dict of numbers by layer. Layers without a target are drawn too. For
            "needless_macs" one number by that name.
        metric: Name of the metric that has the targets.
        actuator: "q", "rate", "weight", "penalty" (these two on a log scale) or another
            key.
        bounds: The lowest and the highest value of the actuator.
        path: A file to write too.

    Raises:
        ValueError: if `history` is empty or has no figures of `metric` or `actuator`,
            `targets` has other layers or no numbers, or `bounds` do not ascend.

    Example:

    >>> from keras_sparseout import plots
    >>> history = {"hoyer/dense": [0.5, 0.7, 0.75], "q/dense": [2.0, 1.5, 1.4]}
    >>> figure = plots.control(history, {"dense": 0.75}, metric="hoyer", bounds=(1, 4))
    >>> [panel.get_ylabel() for panel in figure.axes]
    ['Hoyer sparsity\\n(0 dense, 1 sparse)', 'q\\n(2 Dropout, less sparser)']
    """
    drawing.check_path(path)
    readings = Readings(history)
    readings.require("metric", metric, mean_is_enough=metric == _OF_MODEL)
    readings.require("actuator", actuator)
    measured = [metric] if metric == _OF_MODEL else readings.layers(metric)
    _check_targets(targets, measured)
    _check_bounds(bounds)
    figure = _draw(readings, targets, metric, actuator, bounds)
    return drawing.save(figure, path)


def _draw(readings, targets, metric, actuator, bounds):
    figure = drawing.new_figure(6.5)
    upper, lower = figure.subplots(2, sharex=True, height_ratios=[3, 2])
    layers = readings.layers(actuator if metric == _OF_MODEL else metric)
    _draw_measured(figure, upper, readings, metric, targets, layers)
    _draw_moved(lower, readings, layers, actuator, bounds)
    drawing.finish_epochs([upper, lower])
    return figure


def _draw_measured(figure, panel, readings, metric, targets, layers):
    """Draws the sparsity of each layer, or of the model, and its target."""
    drawn = [(name, f"{metric}/{name}", look) for name, look in drawing.looks(layers)]
    if metric == _OF_MODEL:
        drawn = [(metric, metric, {"color": "black"})]
    handles = {}
    for layer, figure_key, look in drawn:
        colour = {"color": look["color"]}
        for kind, style in _STYLES.items():
            if (key := f"{kind}{figure_key}") in readings:
                shape = {"marker": look.get("marker", "o")} if kind else {}
                panel.plot(*readings.points(key), label=key, **style | colour | shape)
                handles[kind] = drawing.line(KINDS[kind], **style)
        if layer in targets:
            style = _DOTTED | {"linestyle": _dots(layer, targets)}
            panel.axhline(targets[layer], **style | colour)
    handles["target"] = drawing.line("target", **_DOTTED)
    panel.set_ylabel(drawing.metric_label(metric))
    panel.grid(alpha=0.3)
    drawing.depth_key(figure, panel, layers, list(handles.values()))


def _draw_moved(panel, readings, layers, actuator, bounds):
    """Draws the actuator of each layer and its bounds."""
    for layer, look in drawing.looks(layers):
        drawing.curve(panel, readings, f"{actuator}/{layer}", **look)
    if bounds is not None:
        for bound in bounds:
            panel.axhline(bound, **_GREY)
        add_legend = drawing.legend_for(len(layers))
        add_legend(panel, [drawing.line("bounds", **_GREY)])
    if actuator in ("weight", "penalty"):
        _set_log_scale(panel)
    panel.set_ylabel(_ACTUATORS.get(actuator, actuator.replace("_", " ")))


def _dots(layer, targets):
    """Returns a dotted line style. Layers with the same target put dots in turn."""
    same = [name for name, target in targets.items() if target == targets[layer]]
    if len(same) == 1:
        return ":"
    period = 2.65  # The period of ":", in line widths.
    return (same.index(layer) * period, (1, len(same) * period - 1))


def _set_log_scale(panel):
    """Makes the y axis logarithmic, and linear around 0 if a weight is not > 0."""
    drawn = np.concatenate([line.get_ydata() for line in panel.get_lines()])
    if drawn.min(initial=np.inf) > 0:
        panel.set_yscale("log")
    elif drawn.any():
        turn = 10.0 ** math.floor(math.log10(np.abs(drawn).max() / 100))
        panel.set_yscale("symlog", linthresh=turn)
    # Matplotlib keeps the margins of the linear scale.
    panel.autoscale_view()


def _check_targets(targets, layers):
    if not isinstance(targets, Mapping) or not targets:
        raise ValueError(
            "`targets` must be a dict of at least one target by layer. Received: "
            f"targets={targets!r}. Give for example {{{layers[0]!r}: 0.7}}."
        )
    for layer, target in targets.items():
        if layer not in layers:
            remedy = validation.did_you_mean(layer, layers, "Give these alone.")
            raise ValueError(
                "`targets` must be of layers that `history` holds: "
                f"{', '.join(layers)}. Received: targets={targets!r}. {remedy}"
            )
        if not validation.is_real(target) or not math.isfinite(target):
            raise ValueError(
                "`targets` must be finite numbers. Received: "
                f"targets[{layer!r}]={target!r}. Leave out a layer without one."
            )


def _check_bounds(bounds):
    if bounds is None:
        return
    if (
        not isinstance(bounds, (list, tuple))
        or len(bounds) != 2
        or not all(map(validation.is_real, bounds))
        or not bounds[0] < bounds[1]
    ):
        raise ValueError(
            "`bounds` must be two numbers, the lower first. Received: "
            f"bounds={bounds!r}. Give for example bounds=(1, 4)."
        )
