"""The search for the sparsest point that keeps a floor: where to aim after an epoch."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# Aims that differ by less, on average, are the same.
_SAME = 0.005
# After a break the aims rise at most by this part of the whole way.
_STEP_AFTER_BREAK = 1 / 8
# An epoch that broke the floor tells nothing any more once a later one, at most so much
# less far, kept it: the model has learned to live with that.
_NEAR = 0.025


class Judged(NamedTuple):
    """An epoch, and whether it kept the floor.

    Attributes:
        figures: The figure of each group of layers, a vector.
        kept: Whether it did.
    """

    figures: np.ndarray
    kept: bool


def missing(figures: np.ndarray, start: np.ndarray, targets: np.ndarray) -> float:
    """Returns how much is missing of the targets, on average over the groups.

    Args:
        figures: The figures. What is beyond a target misses nothing.
        start: The figures from which it began.
        targets: The figures asked for.
    """
    return float(np.mean(np.maximum(_way(start, targets) * (targets - figures), 0.0)))


def next_aims(
    epochs: Sequence[Judged],
    aims: np.ndarray,
    targets: np.ndarray,
    *,
    step: float,
    late: bool,
) -> np.ndarray:
    """Returns the figures to aim at in the next epoch.

    Until an epoch breaks the floor, the aims go to the targets by steps. After that
    they are found by bisection, between the figures of an epoch that broke the floor
    and of the one that kept it and went farthest, of those less far.

    Args:
        epochs: All epochs from the last one without a push on, which kept the floor.
        aims: The aims of the last epoch.
        targets: The figures asked for.
        step: Part of the whole way by which the aims rise at most.
        late: Whether the aims must not rise again after a break.
    """
    start, (figures, kept) = epochs[0].figures, epochs[-1]
    way = _way(start, targets)
    highest = aims + step * (targets - start)
    highest = way * np.minimum(way * highest, way * targets)
    gap = missing(figures, start, targets)
    if not kept:
        good = [e.figures for e in epochs if e.kept]
        good = [g for g in good if missing(g, start, targets) > gap] or [start]
        best = min(good, key=lambda g: missing(g, start, targets))
        wanted = best if late else (best + figures) / 2
        return way * np.minimum(way * aims, way * wanted)
    if all(epoch.kept for epoch in epochs):
        return highest
    beyond = [*_still_broken(epochs, start, targets), targets]
    beyond = [b for b in beyond if missing(b, start, targets) < gap] or [targets]
    nearest = max(beyond, key=lambda b: missing(b, start, targets))
    raised = np.maximum(way * aims, way * (figures + nearest) / 2)
    careful = aims + min(step, _STEP_AFTER_BREAK) * (targets - start)
    raised = way * np.minimum(raised, way * careful)
    settled = np.mean(np.abs(raised - aims)) < _SAME
    return aims if late or settled else raised


def _still_broken(
    epochs: Sequence[Judged], start: np.ndarray, targets: np.ndarray
) -> list[np.ndarray]:
    """Returns the figures of epochs that broke the floor and are not refuted since."""
    gaps = [missing(epoch.figures, start, targets) for epoch in epochs]
    least, found = np.inf, []
    for epoch, gap in zip(reversed(epochs), reversed(gaps), strict=True):
        if epoch.kept:
            least = min(least, gap)
        elif least > gap + _NEAR:
            found.append(epoch.figures)
    return found


def _way(start: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Returns 1 where the targets are above the start, else -1."""
    return np.where(targets >= start, 1.0, -1.0)
