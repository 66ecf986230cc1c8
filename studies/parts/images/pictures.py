"""The pictures of the study `images`."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from keras_sparseout import plots
from studies.contrasts import Arm, Done, Row, contrasts, draw_differences
from studies.parts.images import arms as arms_of
from studies.parts.images.arms import ACCURACY
from studies.statistics import interval

AXES = {
    "hoyer": "Hoyer sparsity of activations, mean of the places",
    "needless": "needless multiply-accumulates, share of the whole model's",
}
# Points of accuracy.
TICKS = (-50, -20, -10, -5, -2, -1.5, -1, -0.5, 0, 0.5, 1, 1.5, 2, 5, 10, 20, 50)


def draw(done: Done, folder: Path) -> None:
    """Writes the pictures: paired differences, and accuracy against sparsity."""
    base = arms_of.base_of_contrast(done)
    main = arms_of.main_arms(done, base)
    arms = [*main, *arms_of.other_arms(done, base)]
    listed = contrasts(done, arms, ACCURACY)
    figure = draw_differences(listed, "right", TICKS)
    figure.savefig(folder / "differences.png", dpi=130)
    points = _points(done, main)
    if points:
        figure = plots.frontier(points, sparsity=AXES)
        figure.suptitle("Test accuracy against sparsity; bars: 95 % intervals")
        figure.savefig(folder / "sparsity.png", dpi=130)


def _points(done: Done, arms: Sequence[Arm]) -> list[dict[str, str | float]]:
    """Returns a point for each row that is finished, with q or weight as its setting.

    The curves of an arm begin at q = 2, which is no threshold and no penalty. One that
    has no other point yet is left out.
    """
    points = []
    for arm in arms:
        for curve, rows in _curves(arm).items():
            finished = [row for row in rows if row.figures(done)]
            if len(finished) > 1:
                points += [_point(done, curve, row) for row in finished]
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
    names = {**{key: key for key in AXES}, "accuracy": ACCURACY.name}
    for key, name in names.items():
        found = interval(row.values(done, name))
        point[key] = found.mean
        point[f"{key}_std"] = 0.0 if np.isnan(found.half) else found.half
    return point
