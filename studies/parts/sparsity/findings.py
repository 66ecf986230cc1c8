"""What follows from the curves of the study `sparsity`, as sentences."""

import itertools
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from studies import statistics
from studies.parts.sparsity.curves import (
    NOTHING,
    Curve,
    Point,
    Points,
    along,
    at_sparsity,
    seeds,
    values,
)

# The figure that tells how good a model is, and whether more of it is better.
SCORES = {"classifier": ("accuracy", 1), "autoencoder": ("loss", -1)}
MEASURES = {"hoyer": "Hoyer sparsity", "needless": "share of needless MACs"}
ALPHA = 1 - statistics.LEVEL
# The curve that rivals are compared with.
COMPARED = Curve("held", 0.5)


class Control(NamedTuple):
    """How the sparsity moves with q.

    Attributes:
        falling: In how many seeds it falls at each step of q.
        seeds: Of how many.
        rises: By the steps (from, to) at which it does not fall: the seeds.
        mean_rises: The steps at which its mean over the seeds does not fall.
    """

    falling: int
    seeds: int
    rises: dict[tuple[float, float], list[int]]
    mean_rises: list[tuple[float, float]]


def control(points: Points, measure: str) -> Control | None:
    """Looks for steps of q at which a sparsity does not fall.

    Returns:
        None if there are no two values of q, or no seed that has them all.
    """
    whole = seeds(points)
    if len(points) < 2 or not whole:
        return None
    qs = list(points)
    steps = list(itertools.pairwise(qs))
    found = {seed: along(points, seed, measure) for seed in whole}
    # A step from or to NaN is no fall.
    falls = {seed: np.diff(each) < 0 for seed, each in found.items()}
    mean_falls = np.diff(np.mean([*found.values()], axis=0)) < 0
    rises = {
        step: [seed for seed in whole if not falls[seed][i]]
        for i, step in enumerate(steps)
    }
    return Control(
        sum(bool(each.all()) for each in falls.values()),
        len(whole),
        {step: rising for step, rising in rises.items() if rising},
        [step for step, fell in zip(steps, mean_falls, strict=True) if not fell],
    )


def control_sentences(task: str, parts: Mapping[Curve, Points]) -> list[str]:
    """Says of each curve along q whether its Hoyer sparsity falls as q rises."""
    sentences = []
    for curve, points in parts.items():
        found = control(points, "hoyer") if curve.is_sparseout else None
        if found is None:
            continue
        start = f"{task}, {curve.name}: Hoyer sparsity"
        if found.falling == found.seeds:
            sentences.append(
                f"{start} falls at each step of q from {min(points):g} to "
                f"{max(points):g}, in all {found.seeds} seeds."
            )
            continue
        where = "; ".join(
            f"{_step(step)} in {len(rising)} of {found.seeds} seeds"
            + (", nor in the mean" if step in found.mean_rises else "")
            for step, rising in found.rises.items()
        )
        sentences.append(f"**Not monotone.** {start} does not fall from q = {where}.")
    return sentences


def _step(step):
    return f"{step[0]:g} to {step[1]:g}"


def difference(
    task: str, point: Point, rival: Points, measure: str
) -> statistics.Difference | None:
    """Compares a rival with a point at its sparsity, seed by seed.

    Args:
        task: Whose score is compared.
        point: A setting of the curve that is compared with.
        rival: Another curve, interpolated at the sparsity that the point has.
        measure: The kind of sparsity.

    Returns:
        The score of the rival minus that of the point. None unless the rival's curves
        of all seeds reach that sparsity.
    """
    score, _ = SCORES[task]
    pairs = []
    for seed in sorted(set(point) & set(seeds(rival))):
        sparsity, own = point[seed].get(measure), point[seed].get(score)
        if sparsity is None or own is None:
            return None
        pairs.append((at_sparsity(rival, seed, measure, sparsity, score), own))
    if np.isnan(pairs).any():
        return None
    return statistics.paired(*map(list, zip(*pairs, strict=True)))


Differences = dict[Curve, dict[float, statistics.Difference | None]]


def differences(task: str, parts: Mapping[Curve, Points], measure: str) -> Differences:
    """Compares all rivals with COMPARED at each q that two seeds have in common."""
    compared = parts.get(COMPARED, {})
    return {
        curve: {
            q: difference(task, point, rival, measure)
            for q, point in compared.items()
            if len(set(point) & set(seeds(rival))) > 1
        }
        for curve, rival in parts.items()
        if not curve.is_sparseout and curve != NOTHING
    }


def is_same(found: statistics.Difference) -> bool:
    """Whether the rival's curve has the very point that it is compared with."""
    return found.mean == found.low == found.high == 0


def side(task: str, found: statistics.Difference) -> int:
    """Returns 1 if the rival is better, -1 if worse, 0 if that was not observed."""
    _, better = SCORES[task]
    return better * (int(found.low > 0) - int(found.high < 0))


def rival_sentences(task: str, measure: str, found: Differences) -> list[str]:
    """Says of each rival where it is better or worse at equal sparsity."""
    score, better = SCORES[task]
    words = {
        1: f"**{'higher' if better > 0 else 'lower'} {score}** at",
        -1: f"{'lower' if better > 0 else 'higher'} {score} at",
        0: "no difference observed at",
        None: "out of its reach at",
    }
    sentences = []
    for curve, by_q in found.items():
        groups: dict[int | None, list[str]] = {word: [] for word in words}
        for q, each in by_q.items():
            if each is None:
                groups[None].append(f"{q:g}")
            elif not is_same(each):
                groups[side(task, each)].append(f"{q:g}")
        parts = [f"{words[g]} q = {', '.join(qs)}" for g, qs in groups.items() if qs]
        if parts:
            sentences.append(
                f"{task}, {curve.name}, at the {MEASURES[measure]} of {COMPARED.name}: "
                f"{'; '.join(parts)}."
            )
    return sentences


def correction_sentences(all_found: Mapping[str, list[Differences]]) -> list[str]:
    """Says how many of the differences remain after a correction for their number."""
    every = [
        (task, each)
        for task, parts in all_found.items()
        for found in parts
        for by_q in found.values()
        for each in by_q.values()
        if each is not None and not is_same(each)
    ]
    if not every:
        return []
    sides = [side(task, each) for task, each in every]
    ps = statistics.holm([each.p for _, each in every])
    left = sum(p < ALPHA for p in ps)
    return [
        f"Of {len(every)} such comparisons the rival is better in {sides.count(1)}, "
        f"worse in {sides.count(-1)}, each by its own 95 % interval; {left} of these "
        "remain after Holm's correction for all of them."
    ]


def collapse_sentences(task: str, parts: Mapping[Curve, Points]) -> list[str]:
    """Names the settings at which more than half of the units are dead."""
    found = []
    for curve, points in parts.items():
        for setting, point in points.items():
            dead = values(point, "dead")
            if dead and np.mean(dead) > 0.5:
                found.append(f"{curve.name} at {setting:g} ({np.mean(dead):.2f})")
    if not found:
        return []
    return [f"{task}: more than half of the units are dead with {', '.join(found)}."]
