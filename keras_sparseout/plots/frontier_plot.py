"""The picture of what sparsity costs: accuracy against sparsity."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_sparseout.plots import drawing
from keras_sparseout.utils import validation
from keras_sparseout.utils.types import PathLike

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Of Okabe and Ito (2008), which the colour-blind tell apart; yellow is too light here.
_PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_LINES = ("-", "--", "-.", ":")
_ERRORS = ("sparsity_std", "accuracy_std")
_MOST_LABELS = 6
# Of a label from its point, in points. A nearer place is better, unless it is crowded.
_DISTANCES = (8, 14, 20)


def frontier(
    rows: Sequence[Mapping[str, str | float]],
    *,
    sparsity: str | Mapping[str, str] = "Hoyer sparsity",
    path: PathLike | None = None,
) -> "Figure":
    """Draws accuracy against sparsity: a curve for each actuator, a point a setting.

    A curve joins its points in the order of their settings, and up to 6 of the settings
    are written beside their points. Curves differ by colour, marker and line.

    Args:
        rows: List of dicts, one for each point, with the keys "actuator" (the name of
            its curve), "setting" (a number, for example q), "sparsity" and "accuracy".
            The keys "sparsity_std" and "accuracy_std" add error bars of that length to
            either side.
        sparsity: Label of the axis of sparsity. A dict of labels by key draws a panel
            for each key. The rows then have these keys, and these with "_std" behind
            them, in the place of "sparsity" and "sparsity_std".
        path: A file to write too.

    Raises:
        ValueError: if `rows` is empty, one lacks a key or has a wrong value, or
            `sparsity` is a dict without keys, or with other keys than strings.

    Example:

    >>> from keras_sparseout import plots
    >>> rows = [
    ...     {"actuator": "q", "setting": 2.0, "sparsity": 0.62, "accuracy": 0.86},
    ...     {"actuator": "q", "setting": 1.0, "sparsity": 0.81, "accuracy": 0.83},
    ... ]
    >>> figure = plots.frontier(rows)
    >>> [text.get_text() for text in figure.axes[0].texts]
    ['1', '2']
    """
    drawing.check_path(path)
    labels = _check_labels(sparsity)
    _check_rows(rows, tuple(labels))
    panels = [(label, _curves(rows, key)) for key, label in labels.items()]
    figure = _draw(panels)
    return drawing.save(figure, path)


def _curves(rows, key):
    """Returns the points by actuator, in the order of their settings.

    What the rows have under `key` is the sparsity of the points.
    """
    curves: dict[str, list[Any]] = {}
    for row in rows:
        point = {**row, "sparsity": row[key]}
        if f"{key}_std" in row:
            point["sparsity_std"] = row[f"{key}_std"]
        elif key != "sparsity":
            point.pop("sparsity_std", None)
        curves.setdefault(row["actuator"], []).append(point)
    return {
        name: sorted(points, key=lambda point: point["setting"])
        for name, points in curves.items()
    }


def _draw(panels):
    figure = drawing.new_figure(5.5 if len(panels) == 1 else 4.2 * len(panels))
    # The legend of the first panel is that of all.
    axes = figure.subplots(len(panels), sharey=True, squeeze=False)[:, 0]
    names = list(panels[0][1])
    styles = [_style(index) for index in range(len(names))]
    for panel, (label, curves) in zip(axes, panels, strict=True):
        for points, style in zip(curves.values(), styles, strict=True):
            _draw_curve(panel, points, style)
        panel.set_xlabel(label)
        panel.set_ylabel("accuracy")
        panel.grid(alpha=0.3)
        panel.margins(0.08)
    handles = [
        drawing.line(drawing.short([name])[0], **style)
        for name, style in zip(names, styles, strict=True)
    ]
    drawing.legend_beside(axes[0], handles, title="what is set\n(numbers: to what)")
    # Positions in pixels are known once the figure is laid out.
    figure.draw_without_rendering()
    for panel, (_, curves) in zip(axes, panels, strict=True):
        _label_points(panel, curves, [style["color"] for style in styles])
    return figure


def _style(index):
    """Returns how the curve number `index` looks."""
    return {
        "color": _PALETTE[index % len(_PALETTE)],
        "marker": drawing.MARKERS[index % len(drawing.MARKERS)],
        "linestyle": _LINES[index % len(_LINES)],
    }


def _draw_curve(panel, points, style):
    errors = {
        f"{axis}err": [point.get(key, math.nan) for point in points]
        for axis, key in zip("xy", _ERRORS, strict=True)
        if any(key in point for point in points)
    }
    panel.errorbar(
        [point["sparsity"] for point in points],
        [point["accuracy"] for point in points],
        **errors,
        **style,
        elinewidth=1,
        capsize=2,
    )


def _label_points(panel, curves, colours):
    """Writes settings near their points, where least is drawn."""
    drawn = np.concatenate([_pixels(panel, points) for points in curves.values()])
    labels: list[Any] = []
    for points, colour in zip(curves.values(), colours, strict=True):
        count = min(len(points), _MOST_LABELS)
        for index in np.linspace(0, len(points) - 1, count).round().astype(int):
            point = points[index]
            if not math.isfinite(point["sparsity"] + point["accuracy"]):
                continue
            label = panel.annotate(
                f"{point['setting']:g}",
                (point["sparsity"], point["accuracy"]),
                xytext=(0, 0),
                textcoords="offset points",
                color=colour,
                size=9,
                **drawing.outlined(),
            )
            places = itertools.product(_DISTANCES, (0, 1, -1), (1, -1, 0))
            best = min(places, key=lambda place: _crowd(label, place, drawn, labels))
            _put(label, best)
            labels.append(label.get_window_extent())


def _put(label, place):
    """Puts `label` to a place near its point: (8, 1, 1) is 8 right of it and above."""
    distance, across, up = place
    label.xyann = (distance * across, distance * up)
    label.set_horizontalalignment(("center", "left", "right")[across])
    label.set_verticalalignment(("center", "bottom", "top")[up])


def _crowd(label, place, drawn, labels):
    """Returns how crowded `label` is at a place near its point."""
    _put(label, place)
    box = label.get_window_extent().padded(3)
    outside = 4 - label.axes.bbox.count_contains(box.corners())
    far = 2 * (place[0] - _DISTANCES[0])
    blocked = 50 * (box.count_overlaps(labels) + outside)
    return box.count_contains(drawn) + far + blocked


def _pixels(panel, points):
    """Returns points along the lines and error bars of a curve, in pixels."""
    places = np.array([(p["sparsity"], p["accuracy"]) for p in points], float)
    errors = np.array([[p.get(key, 0) for key in _ERRORS] for p in points], float)
    ends = [(places[:-1], places[1:])]
    for error in (errors * [1, 0], errors * [0, 1]):
        ends.append((places - error, places + error))
    pixels = panel.transData.transform
    lines = [
        np.linspace(pixels(a), pixels(b), 50).reshape(-1, 2) for a, b in ends if len(a)
    ]
    return np.concatenate(lines)


def _check_labels(sparsity):
    """Returns the labels of the axes of sparsity by the key of the rows."""
    if not isinstance(sparsity, Mapping):
        return {"sparsity": sparsity}
    if not sparsity or not all(isinstance(key, str) for key in sparsity):
        raise ValueError(
            "`sparsity` must be a label, or a dict of labels by at least one key of "
            f"the rows. Received: sparsity={sparsity!r:.80}. Give for example "
            "sparsity={'hoyer': 'Hoyer sparsity'}."
        )
    return dict(sparsity)


def _check_rows(rows, sparsities):
    keys = ("actuator", "setting", *sparsities, "accuracy")
    errors = [f"{key}_std" for key in (*sparsities, "accuracy")]
    if not isinstance(rows, (list, tuple)) or not rows:
        raise ValueError(
            f"`rows` must be a list of at least one dict. Received: rows={rows!r:.80}. "
            f"Give dicts with the keys {', '.join(keys)}."
        )
    for index, row in enumerate(rows):
        missing = [
            key for key in keys if not isinstance(row, Mapping) or key not in row
        ]
        if missing:
            raise ValueError(
                f"`rows` must be dicts with the keys {', '.join(keys)}. Received: "
                f"rows[{index}]={row!r:.200}. Add {', '.join(missing)}."
            )
        if not isinstance(row["actuator"], str):
            raise ValueError(
                "`rows` must have a string under the key 'actuator'. Received: "
                f"rows[{index}]['actuator']={row['actuator']!r}. Give for example 'q'."
            )
        for key in errors:
            if validation.is_real(row.get(key, 0)) and row.get(key, 0) < 0:
                raise ValueError(
                    f"`rows` must have no negative number at {key!r}. Received: "
                    f"rows[{index}][{key!r}]={row[key]!r}. Give a standard deviation."
                )
        for key in (*keys[1:], *errors):
            if not validation.is_real(row.get(key, 0)):
                raise ValueError(
                    f"`rows` must have numbers at {key!r}. Received: "
                    f"rows[{index}][{key!r}]={row[key]!r}. Give NaN for one that is "
                    "not known."
                )
