"""The runs of the study `sparsity` as curves: what is set along them, and figures."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

# Figures by seed, and such points by setting.
Point = dict[int, Mapping[str, Any]]
Points = dict[float, Point]

_NAMES = {
    "held": "Sparseout",
    "through": "Sparseout",
    "fraction": "Sparseout",
    "dropout": "Dropout",
    "nothing": "nothing",
    "l1": "L1",
    "hoyer_square": "Hoyer-square",
    "threshold": "threshold",
    "top_k": "top-k",
}
# What a curve along q has behind its name.
_SPARSEOUT = {"held": [], "through": ["derivative"], "fraction": ["smallest 3/4"]}


class Curve(NamedTuple):
    """What runs have in common that differ by setting and seed."""

    method: str
    rate: float = 0.0
    activation: str = "relu"
    batch_norm: bool = False

    @property
    def is_sparseout(self) -> bool:
        """Whether q is what is set along it."""
        return self.method in _SPARSEOUT

    @property
    def name(self) -> str:
        """What it is called in tables and pictures."""
        name = _NAMES[self.method]
        if self.is_sparseout:
            name += f" {self.rate:g}"
        elif self.rate:
            name += f" + Dropout {self.rate:g}"
        parts = [name, *_SPARSEOUT.get(self.method, [])]
        parts += ["BatchNorm"] if self.batch_norm else []
        parts += [self.activation] if self.activation != "relu" else []
        return ", ".join(parts)


DROPOUT, NOTHING = Curve("dropout"), Curve("nothing")


def curves(
    done: Mapping[Any, Mapping[str, Any]],
) -> dict[str, dict[Curve, Points]]:
    """Returns the figures of all runs: by task, curve, setting and seed."""
    found: dict[str, dict[Curve, Points]] = {}
    for run, figures in done.items():
        curve = Curve(run.method, run.rate, run.activation, run.batch_norm)
        points = found.setdefault(run.task, {}).setdefault(curve, {})
        points.setdefault(run.setting, {})[run.seed] = figures
    return {
        task: {curve: _in_order(points) for curve, points in parts.items()}
        for task, parts in found.items()
    }


def with_shared(parts: Mapping[Curve, Points]) -> dict[Curve, Points]:
    """Returns the curves of a task with the points that they share.

    At a setting of 0 a rival is nothing, or the Dropout behind it, which is q = 2. At
    q = 2 both gradients are one. Dropout's own curve is q = 2 at each rate.
    """
    whole = {}
    dropout: Points = {0.0: parts.get(NOTHING, {}).get(0.0, {})}
    for curve, points in parts.items():
        if curve == Curve("held", curve.rate) and 2.0 in points:
            dropout[curve.rate] = points[2.0]
        whole[curve] = _in_order(points | _shared(curve, parts))
    if len(dropout) > 1:
        whole[DROPOUT] = _in_order(dropout)
    return whole


def _shared(curve, parts):
    """Returns the points of other curves that belong to this one too."""
    if curve.method in ("held", "fraction", "nothing"):
        return {}
    if curve.method == "through":
        return {2.0: parts.get(curve._replace(method="held"), {}).get(2.0, {})}
    if curve.rate:
        start = parts.get(curve._replace(method="held"), {}).get(2.0, {})
    else:
        start = parts.get(curve._replace(method="nothing"), {}).get(0.0, {})
    return {0.0: start}


def _in_order(points):
    return {setting: point for setting, point in sorted(points.items()) if point}


def values(point: Point, figure: str) -> list[float]:
    """Returns a figure of all seeds that have it."""
    found = (point[seed].get(figure) for seed in sorted(point))
    return [float(value) for value in found if value is not None]


def seeds(points: Points) -> list[int]:
    """Returns the seeds that all points have."""
    return sorted(set.intersection(*map(set, points.values()))) if points else []


def along(points: Points, seed: int, figure: str) -> list[float]:
    """Returns a figure of one seed at all settings, NaN where it has none."""
    found = (point[seed].get(figure) for point in points.values())
    return [np.nan if value is None else float(value) for value in found]


def at_sparsity(
    points: Points, seed: int, measure: str, sparsity: float, figure: str
) -> float:
    """Returns a figure where one seed has a sparsity, interpolated.

    The points are joined in the order of their sparsity. It is NaN out of their reach.
    """
    x, y = (np.array(along(points, seed, name)) for name in (measure, figure))
    whole = np.isfinite(x) & np.isfinite(y)
    x, y = x[whole], y[whole]
    if not len(x) or not x.min() <= sparsity <= x.max():
        return np.nan
    order = np.argsort(x)
    return float(np.interp(sparsity, x[order], y[order]))
