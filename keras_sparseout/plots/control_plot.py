"""The picture of a controller at work."""

import difflib
import math
from collections.abc import Mapping

import numpy as np

from keras_sparseout.plots import drawing
from keras_sparseout.plots.readings import KINDS, Readings
from keras_sparseout.utils import validation

_ACTUATORS = {
    "q": "q\n(2 Dropout, less sparser)",
    "rate": "drop rate",
    "weight": "weight of the penalty",
}
# By the prefix of a log key, as in KINDS.
_STYLES = {
    "": {"linewidth": 0.9, "alpha": 0.7},
    "val_": {
        "linestyle": "none",
        "marker": "o",
        "markersize": 7,
        "markeredgecolor": "white",
    },
}
_DOTTED = {"linestyle": ":", "linewidth": 1.8, "zorder": 2.5}
_GREY = {"color": "0.6", "linewidth": 1}


def control(history, targets, *, metric, actuator="q", bounds=None, path=None):
    """Draws how a controller brings layers to their targets, and by what.

    Above, the sparsity of each layer: lines for what was measured while training (keys
    `<metric>/<layer>`), markers for validation or probe data (`val_<metric>/<layer>`),
    and the targets dotted in the colours of the layers. Below, what the controller
    moves (`<actuator>/<layer>`), and grey the bounds that it keeps to.

    Args:
        history: A SparsityController, or a dict of lists by key. The list at "epoch"
            says where in epochs the figures were read (without it: 1, 2, ...), and NaN
            stands where something else was.
        targets: Dict of the target, a number, by layer. Layers without one are drawn
            too.
        metric: Name of the metric that the targets are of.
        actuator: What is moved: "q", "rate", "weight" (on a logarithmic scale), or
            another name among the keys.
        bounds: The lowest and the highest value of the actuator.
        path: A .png, .svg or .pdf file to write too.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ValueError: if `history` is empty or holds nothing of `metric` or `actuator`,
            `targets` has a layer that it does not hold or no number, `bounds` are not
            two ascending numbers, or `path` has another suffix.
        ImportError: if Matplotlib is missing.

    Example:

    >>> from keras_sparseout import plots
    >>> history = {
    ...     "epoch": [0.5, 1.0, 1.5, 2.0],
    ...     "hoyer/dense": [0.5, 0.7, 0.8, 0.75],
    ...     "q/dense": [2.0, 1.5, 1.4, 1.4],
    ... }
    >>> figure = plots.control(history, {"dense": 0.75}, metric="hoyer", bounds=(1, 4))
    >>> [panel.get_ylabel() for panel in figure.axes]
    ['Hoyer sparsity\\n(0 dense, 1 sparse)', 'q\\n(2 Dropout, less sparser)']
    """
    drawing.check_path(path)
    readings = Readings(history)
    readings.require("metric", metric)
    readings.require("actuator", actuator)
    layers = readings.layers(metric)
    _check_targets(targets, layers)
    _check_bounds(bounds)

    figure = drawing.new_figure(6.5)
    upper, lower = figure.subplots(2, sharex=True, height_ratios=[3, 2])
    _draw_measured(figure, upper, readings, metric, targets)
    for layer, look in drawing.looks(layers):
        drawing.curve(lower, readings, f"{actuator}/{layer}", **look)
    if bounds is not None:
        for bound in bounds:
            lower.axhline(bound, **_GREY)
        legend = drawing.legend_for(len(layers))
        legend(lower, [drawing.line("bounds", **_GREY)])
    if actuator == "weight":
        _set_log_scale(lower)
    lower.set_ylabel(_ACTUATORS.get(actuator, actuator.replace("_", " ")))
    drawing.finish_epochs([upper, lower])
    return drawing.save(figure, path)


def _draw_measured(figure, panel, readings, metric, targets):
    layers = readings.layers(metric)
    handles = {}
    for layer, look in drawing.looks(layers):
        colour = {"color": look["color"]}
        for kind, style in _STYLES.items():
            if (key := f"{kind}{metric}/{layer}") in readings:
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


def _dots(layer, targets):
    """A line style of dots; where layers share a target, theirs stand in turn."""
    same = [name for name, target in targets.items() if target == targets[layer]]
    if len(same) == 1:
        return ":"
    period = 2.65  # That of ":", in line widths.
    return (same.index(layer) * period, (1, len(same) * period - 1))


def _set_log_scale(panel):
    """A logarithmic y axis; linear about 0 if there are weights that are not > 0."""
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
            near = difflib.get_close_matches(str(layer), layers, n=1)
            raise ValueError(
                "`targets` must be of layers that `history` holds: "
                f"{', '.join(layers)}. Received: targets={targets!r}. "
                + (f"Did you mean {near[0]!r}?" if near else "Give these alone.")
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
