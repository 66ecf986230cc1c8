"""Spreads a budget of multiply-accumulates over the places of a model.

The grid of levels, and the greedy choice by the measured error of the output, are those
of TEAL (Liu et al. 2024, arXiv 2408.14690), with one grid for each place alone.
"""

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from keras_sparseout.models.thresholds import calibration
from keras_sparseout.models.thresholds.calibration import Calibration
from keras_sparseout.models.thresholds.place_reader import Measured, PlaceReader

# What is kept of the activations that are not zero by nature.
_GRID = (0.85, 0.7, 0.55, 0.4, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01)
# The share of zeros goes no further.
_MOST = 0.99
# How far below the budget the MACs may end, and where they are aimed.
_NEAR, _MARGIN = 0.004, 0.0015
_MOST_ROUNDS = 10
_STEPS = 200


class Costs(NamedTuple):
    """What is known of the places before the budget is spread.

    Attributes:
        natural: The share of zeros at each place without thresholds.
        effective: The MACs a sample that come next at each place, with a factor that is
            not zero.
        fixed: The share of the model's MACs that thresholds do not reach.
        macs: The MACs a sample of the whole model.
        errors: Array of the relative change of the outputs, places by `_GRID`.
    """

    natural: np.ndarray
    effective: np.ndarray
    fixed: float
    macs: float
    errors: np.ndarray


class _Best(NamedTuple):
    """What keeps within a budget: the share of the MACs, and by place the rest."""

    share: float
    targets: list[float]
    thresholds: list[np.ndarray]


def wanted_samples(places: int) -> int:
    """Returns on how many samples the errors of so many places are measured."""
    return int(np.clip(2**15 // (places * len(_GRID)), 32, 512))


def spread(
    found: Calibration,
    reader: PlaceReader,
    before: Measured,
    sample: Iterable[Any],
    budget: float,
) -> list[float]:
    """Sets the thresholds so that the MACs stay within a budget; returns the targets.

    Args:
        found: The calibration, which has counted without thresholds.
        reader: What measures its model.
        before: What that is without thresholds.
        sample: Batches on which the errors are measured.
        budget: The share of the MACs that may remain.

    Raises:
        ValueError: if they can't be so few, or no output is made of numbers.
    """
    natural = np.array([c.shares()[1] for c in found.calibrators])
    if before.share <= budget:
        return [0.0] * len(natural)
    effective = np.array([own for own, _ in before.next])
    effective[natural >= _MOST] = 0
    fixed = max(before.effective - effective.sum(), 0.0) / before.macs
    _check_outputs(found, sample, budget)
    errors = _errors(found, natural, sample)
    costs = Costs(natural, effective, fixed, before.macs, errors)
    if sum(_targets(costs, budget)) >= sum(_targets(costs, 0.0)):
        # Thresholds change the zeros that come after them: it may be reachable still.
        least = _least(found, reader, natural)
        if least > budget:
            raise _unreachable(least, budget)
    best = _search(found, reader, costs, budget)
    if best is None:
        raise _unreachable(_least(found, reader, natural), budget)
    found.assign(best.thresholds)
    return best.targets


def _search(
    found: Calibration, reader: PlaceReader, costs: Costs, budget: float
) -> _Best | None:
    """Returns the best of some rounds that keep within the budget, None if none does.

    What comes after a threshold has other zeros than it had without. So each round
    measures the model, and the next one aims higher or lower.
    """
    low, high, aim = 0.0, 1.0, budget - _MARGIN
    best: _Best | None = None
    for _ in range(_MOST_ROUNDS):
        targets = _targets(costs, aim)
        found.find(targets)
        share = reader.measure(found.batches).share
        if share <= budget:
            low = max(low, aim)
            if best is None or share > best.share:
                best = _Best(share, targets, found.thresholds())
            if share >= budget - _NEAR:
                break
        else:
            high = min(high, aim)
        aim += budget - _MARGIN - share
        if not low < aim < high:
            aim = (low + high) / 2
    return best


def _check_outputs(found: Calibration, sample: Iterable[Any], budget: float) -> None:
    """Raises unless an output is made of numbers, whose change can be measured."""
    if not calibration.numbers(found.outputs(next(iter(sample)))):
        raise ValueError(
            "`budget` must be left out if all outputs of the model are strings: zeros "
            "go where the outputs change least, and strings have no distance. "
            f"Received: budget={budget!r}. Give `target`, or a model without the layer "
            "that makes the strings."
        )


def _errors(
    found: Calibration, natural: np.ndarray, sample: Iterable[Any]
) -> np.ndarray:
    """Returns the relative change of the outputs, for each place alone and level."""
    levels = [
        [c.threshold_for(level) for level in _levels(np.array(_GRID), zeros)]
        for c, zeros in zip(found.calibrators, natural, strict=True)
    ]
    sums = None
    for batch in sample:
        found.assign([0.0] * len(natural))
        outputs = found.outputs(batch)
        rows = []
        for calibrator, thresholds in zip(found.calibrators, levels, strict=True):
            for threshold in thresholds:
                calibrator.threshold.assign(threshold)
                rows.append(found.change(batch, outputs))
            found.assign([0.0] * len(natural))
        sums = np.array(rows) if sums is None else sums + np.array(rows)
    assert sums is not None
    errors = np.array([calibration.relative(row) for row in sums])
    return errors.reshape(len(natural), len(_GRID))


def _levels(kept: Any, natural: float) -> Any:
    """Returns shares of zeros from the shares of the other activations to keep."""
    return np.minimum(1 - kept * (1 - natural), max(_MOST, natural))


def _targets(costs: Costs, share: float) -> list[float]:
    """Returns targets with which `share` of the MACs should remain.

    The error of a place as a function of its MACs is taken as convex: as the lower hull
    of the measured points. Then it is best to go down, again and again, where the error
    rises least for a multiply-accumulate.
    """
    steps = []
    for place, macs in enumerate(costs.effective):
        if macs:
            steps += [(*step, place) for step in _hull(costs.errors[place], macs)]
    steps.sort()
    kept = np.ones(len(costs.natural))
    excess = costs.fixed * costs.macs + costs.effective.sum() - share * costs.macs
    for _, end, saved, place in steps:
        if excess <= 0:
            break
        kept[place] += (end - kept[place]) * min(1.0, excess / saved)
        excess -= saved
    return [
        0.0 if share == 1 else round(float(_levels(share, zeros)), 4)
        for share, zeros in zip(kept, costs.natural, strict=True)
    ]


def _hull(errors: np.ndarray, macs: float) -> list[tuple[float, float, float]]:
    """Returns the edges of the lower hull of a place's errors.

    Returns:
        List of (slope, share kept at the end, MACs saved), slopes rising.
    """
    grid = np.array([1.0, *_GRID])
    # Errors are squares, so their roots are nearer to straight lines.
    roots = np.sqrt(np.maximum.accumulate([0.0, *errors]))
    kept = np.linspace(1, _GRID[-1], _STEPS)
    curve = np.interp(-kept, -grid, roots) ** 2
    edges, at = [], 0
    while at < len(kept) - 1:
        slopes = (curve[at + 1 :] - curve[at]) / (kept[at] - kept[at + 1 :])
        # The last of the smallest, so that edges are long.
        step = len(slopes) - int(np.argmin(slopes[::-1]))
        edges.append(
            (
                float(slopes[step - 1] / macs),
                float(kept[at + step]),
                float((kept[at] - kept[at + step]) * macs),
            )
        )
        at += step
    return edges


def _least(found: Calibration, reader: PlaceReader, natural: np.ndarray) -> float:
    """Returns the share of the MACs that remains with the highest thresholds."""
    found.find([max(_MOST, zeros) for zeros in natural])
    return reader.measure(found.batches).share


def _unreachable(least: float, budget: float) -> ValueError:
    shown = math.ceil(1000 * least) / 1000
    return ValueError(
        "`budget` must be at least the share of the multiply-accumulates that remains "
        f"with {_MOST:.0%} zeros at each place, here {shown:.3f}. Received: "
        f"budget={budget!r}. Give more, or name more layers: those that the data feed "
        'are left alone otherwise, and attention is reached with where="after" the '
        "layers before it.".replace("%", " %")
    )
