"""The pictures of the study `images`."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

from keras_sparseout import plots
from studies import images_arms as arms_of
from studies.images_arms import ACCURACY, Arm, Contrast, Done, Row
from studies.statistics import interval

AXES = {
    "hoyer": "Hoyer sparsity of activations, mean of the places",
    "needless": "needless multiply-accumulates, share of the whole model's",
}
# Points of accuracy, where the axis is linear near 0 and logarithmic further out.
TICKS = (-50, -20, -10, -5, -2, -1.5, -1, -0.5, 0, 0.5, 1, 1.5, 2, 5, 10, 20, 50)


def draw(done: Done, folder: Path) -> None:
    """Writes the pictures: paired differences, and accuracy against sparsity."""
    base = arms_of.base_of_contrast(done)
    main = arms_of.main_arms(done, base)
    listed = arms_of.contrasts(done, [*main, *arms_of.other_arms(done, base)])
    figure = _differences([c for c in listed if c.difference is not None])
    figure.savefig(folder / "differences.png", dpi=130)
    points = _points(done, main)
    if points:
        figure = plots.frontier(points, sparsity=AXES)
        figure.suptitle("Test accuracy against sparsity; bars: 95 % intervals")
        figure.savefig(folder / "sparsity.png", dpi=130)


def _differences(listed: Sequence[Contrast]) -> Figure:
    figure = Figure(figsize=(9, 1.4 + 0.3 * len(listed)), layout="constrained")
    panel = figure.subplots()
    names = list(dict.fromkeys(contrast.arm.name for contrast in listed))
    colours = colormaps["viridis"](np.linspace(0, 0.8, len(names)))
    for y, contrast in enumerate(listed):
        colour = colours[names.index(contrast.arm.name)]
        pairs = 100 * np.array(contrast.differences)
        panel.plot(pairs, [y] * len(pairs), "|", color=colour, alpha=0.4, markersize=9)
        d = contrast.difference
        half = 0 if np.isnan(d.low) else 100 * (d.high - d.mean)
        style = {"color": colour, "capsize": 4, "markersize": 6}
        panel.errorbar(100 * d.mean, y, xerr=half, fmt="o", **style)
    panel.axvline(0, color="0.3", linewidth=1)
    labels = [f"{contrast.arm.name}: {contrast.row.label}" for contrast in listed]
    panel.set_yticks(range(len(listed)), labels)
    panel.invert_yaxis()
    panel.set_xscale("symlog", linthresh=2)
    low, high = panel.get_xlim()
    panel.set_xticks([tick for tick in TICKS if low <= tick <= high])
    panel.set_xticks([], minor=True)
    panel.xaxis.set_major_formatter("{x:g}")
    panel.set_xlabel(
        "difference to q = 2, points of test accuracy (right is better)\n"
        "mean and 95 % interval; a line for each pair of seeds; linear within 2"
    )
    panel.grid(alpha=0.3, axis="x")
    return figure


def _points(done: Done, arms: Sequence[Arm]) -> list[dict[str, str | float]]:
    """Returns a point for each row that is finished, with q or weight as its setting.

    The curves of an arm begin at q = 2, which is no threshold and no penalty.
    """
    points = []
    for arm in arms:
        for curve, rows in _curves(arm).items():
            points += [_point(done, curve, row) for row in rows if row.figures(done)]
    return points


def _curves(arm: Arm) -> dict[str, list[Row]]:
    if arm.name != arms_of.RIVALS:
        return {f"Sparseout, {arm.name}, q": arm.all_rows}
    curves: dict[str, list[Row]] = {}
    for row in arm.rows:
        name = row.settings.method.replace("_", "-").capitalize()
        curves.setdefault(f"{name}, setting", [arm.baseline]).append(row)
    return curves


def _point(done: Done, curve: str, row: Row) -> dict[str, str | float]:
    of_rival = curve.endswith("setting")
    setting = row.settings.setting if of_rival else row.settings.q
    point: dict[str, str | float] = {"actuator": curve, "setting": setting}
    names = {**{key: key for key in AXES}, "accuracy": ACCURACY}
    for key, name in names.items():
        found = interval(row.values(done, name))
        point[key] = found.mean
        point[f"{key}_std"] = 0.0 if np.isnan(found.half) else found.half
    return point
