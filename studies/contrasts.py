"""Comparisons of arms with q = 2, paired by seed: figures, tables and a picture."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from studies.statistics import Difference, holm, interval, paired
from studies.tables import MISSING, cell

SIGNIFICANT = 0.05
NOT_OBSERVED = "not observed at this scale"

Figures = Mapping[str, Any]
Done = Mapping[Any, Figures]


class Row(NamedTuple):
    """Runs that differ in their seeds alone.

    Attributes:
        label: What they are.
        settings: Of one of them.
        seeds: Of all of them.
    """

    label: str
    settings: Any
    seeds: Sequence[int]

    def figures(self, done: Done) -> dict[int, Figures]:
        """Returns the figures of those that are finished, by seed."""
        runs = {s: dataclasses.replace(self.settings, seed=s) for s in self.seeds}
        return {seed: done[run] for seed, run in runs.items() if run in done}

    def values(self, done: Done, name: str) -> list[Any]:
        """Returns one figure of those that are finished."""
        return [figures[name] for figures in self.figures(done).values()]


class Arm(NamedTuple):
    """Rows that are compared with a row of q = 2."""

    name: str
    baseline: Row
    rows: Sequence[Row]

    @property
    def all_rows(self) -> list[Row]:
        """The baseline, then the others."""
        return [self.baseline, *self.rows]


def distinct_rows(arms: Iterable[Arm]) -> list[tuple[str, Row]]:
    """Returns all rows with the names of their arms, what arms share only once."""
    rows: dict[Any, tuple[str, Row]] = {}
    for arm in arms:
        for row in arm.all_rows:
            rows.setdefault(row.settings, (arm.name, row))
    return list(rows.values())


class Measure(NamedTuple):
    """The figure that arms are compared by, and how it is shown.

    Attributes:
        name: Its key among the figures.
        what: Its name in sentences, with its unit.
        factor: What it is multiplied by to be shown.
        digits: Of it behind the point.
        lower, higher: What a difference below 0 means, and one above it.
        linear: Part of the picture's axis that is linear, in shown units.
    """

    name: str
    what: str
    factor: float
    digits: int
    lower: str
    higher: str
    linear: float


class Contrast(NamedTuple):
    """A row against the baseline of its arm.

    Attributes:
        measure: What is compared.
        arm: The arm.
        row: The row.
        differences: One a pair that is finished, in shown units.
        difference: Their mean and what is known of it; None without pairs.
        p: Its p value, corrected unless the contrast was fixed beforehand.
        same_as: Name of an arm before it that compares the same runs, if there is one.
    """

    measure: Measure
    arm: Arm
    row: Row
    differences: Sequence[float]
    difference: Difference | None
    p: float
    same_as: str = ""

    @property
    def verdict(self) -> str:
        """What the runs show."""
        if self.same_as:
            return f"the same runs as in {self.same_as}"
        pairs, planned = len(self.differences), len(self.row.seeds)
        if self.difference is None or pairs < planned:
            return f"open: {pairs} of {planned} pairs"
        if planned == 1:
            return "one seed, no interval"
        if not self.p < SIGNIFICANT:
            return NOT_OBSERVED
        is_higher = self.difference.mean > 0
        what = self.measure.higher if is_higher else self.measure.lower
        return f"observed: {what} than {self.arm.baseline.label}"

    @property
    def cells(self) -> list[str]:
        """Difference, standard deviations, p and verdict, as a table shows them."""
        d = self.difference
        compared = [MISSING] * 2
        if d is not None:
            compared = [signed(d, self.measure.digits), standardized(d)]
        return [*compared, p_text(self.p), self.verdict]


# The heads of `Contrast.cells`.
CELLS = ("difference to q = 2", "d", "p", "")


def contrasts(done: Done, arms: Iterable[Arm], measure: Measure) -> list[Contrast]:
    """Returns all contrasts. The first one was fixed beforehand.

    The p values of all others are corrected together, each comparison counted once.
    """
    listed: list[Contrast] = []
    seen: dict[tuple[Any, Any], str] = {}
    for arm in arms:
        for row in arm.rows:
            pair = arm.baseline.settings, row.settings
            contrast = _contrast(done, arm, row, measure)
            listed.append(contrast._replace(same_as=seen.get(pair, "")))
            seen.setdefault(pair, arm.name)
    corrected = holm([np.nan if c.same_as else c.p for c in listed[1:]])
    others = zip(listed[1:], corrected, strict=True)
    return [*listed[:1], *(contrast._replace(p=p) for contrast, p in others)]


def _contrast(done, arm, row, measure):
    own, base = row.figures(done), arm.baseline.figures(done)
    seeds = [seed for seed in own if seed in base]
    if not seeds:
        return Contrast(measure, arm, row, (), None, np.nan)
    values, baseline = (
        [measure.factor * figures[seed][measure.name] for seed in seeds]
        for figures in (own, base)
    )
    d = paired(values, baseline)
    differences = np.subtract(values, baseline).tolist()
    return Contrast(measure, arm, row, differences, d, d.p)


def fixed_sentences(contrast: Contrast, what: str) -> str:
    """Says what the contrast shows that was fixed beforehand."""
    d, measure = contrast.difference, contrast.measure
    if d is None:
        return f"{what}: {contrast.verdict}.\n"
    verdict = f"{contrast.verdict[:1].upper()}{contrast.verdict[1:]}"
    pairs, spread = "pair" if d.n == 1 else "pairs", ""
    if d.n > 1:
        deviation = np.std(contrast.differences, ddof=1)
        spread = f", which is {deviation:.{measure.digits}f} here"
    return (
        f"{what}: {signed(d, measure.digits)}, p = {p_text(d.p)}, {standardized(d)} "
        f"standard deviations, {d.n} {pairs}. **{verdict}.**\n\n"
        "Ten pairs see an effect of about one standard deviation of the paired "
        f"differences (power 0.8, two-sided at {SIGNIFICANT:g}){spread}. An interval "
        "covers seeds, not data or models: others may give another difference.\n"
    )


def observed_sentence(listed: Sequence[Contrast]) -> str:
    """Says which of the contrasts behind the first one are observed."""
    tested = [c for c in listed[1:] if not np.isnan(c.p)]
    seen = [c for c in tested if c.verdict.startswith("observed")]
    names = "; ".join(f"{c.arm.name}, {c.row.label} ({c.verdict})" for c in seen)
    return (
        f"Of {len(tested)} other contrasts with more than one pair, {len(seen)} are "
        f"observed after the correction{': ' + names if names else ''}.\n"
    )


def signed(d: Difference, digits: int) -> str:
    """Returns a difference and its interval."""
    if np.isnan(d.low):
        return f"{d.mean:+.{digits}f}"
    return f"{d.mean:+.{digits}f} [{d.low:+.{digits}f}, {d.high:+.{digits}f}]"


def standardized(d: Difference) -> str:
    """Returns a difference in standard deviations."""
    return f"{d.standardized:+.2f}" if np.isfinite(d.standardized) else MISSING


def p_text(p: float) -> str:
    """Returns a p value."""
    if np.isnan(p):
        return MISSING
    return f"{p:.4f}" if p >= 1e-4 else "below 0.0001"


def mean_cell(values: Iterable[Any], digits: int, factor: float = 1) -> str:
    """Returns the mean of the values that are known, and half of its interval."""
    known = [factor * value for value in values if value is not None]
    if not known:
        return MISSING
    found = interval(known)
    return cell(found.mean, found.half, digits)


def draw_differences(
    listed: Sequence[Contrast], better: str, ticks: Sequence[float]
) -> Figure:
    """Draws each contrast that has pairs: their differences, mean and interval.

    Args:
        listed: The contrasts.
        better: The side of 0 that is better, "left" or "right".
        ticks: Where the axis may have numbers. It is logarithmic beyond its linear
            part.
    """
    drawn = [contrast for contrast in listed if contrast.difference is not None]
    figure = Figure(figsize=(9, 1.4 + 0.3 * len(drawn)), layout="constrained")
    panel = figure.subplots()
    names = list(dict.fromkeys(contrast.arm.name for contrast in drawn))
    colours = colormaps["viridis"](np.linspace(0, 0.8, max(1, len(names))))
    for y, contrast in enumerate(drawn):
        _draw_difference(panel, y, contrast, colours[names.index(contrast.arm.name)])
    panel.axvline(0, color="0.3", linewidth=1)
    labels = [f"{contrast.arm.name}: {contrast.row.label}" for contrast in drawn]
    panel.set_yticks(range(len(drawn)), labels)
    panel.invert_yaxis()
    if drawn:
        measure = drawn[0].measure
        panel.set_xscale("symlog", linthresh=measure.linear)
        low, high = panel.get_xlim()
        panel.set_xticks([tick for tick in ticks if low <= tick <= high])
        panel.set_xticks([], minor=True)
        panel.xaxis.set_major_formatter("{x:g}")
        panel.set_xlabel(
            f"difference to q = 2, {measure.what} ({better} is better)\nmean and 95 % "
            f"interval; a line for each pair of seeds; linear within {measure.linear:g}"
        )
    panel.grid(alpha=0.3, axis="x")
    return figure


def _draw_difference(panel: Axes, y: int, contrast: Contrast, colour: Any) -> None:
    pairs, d = contrast.differences, contrast.difference
    panel.plot(pairs, [y] * len(pairs), "|", color=colour, alpha=0.4, markersize=9)
    half = 0 if np.isnan(d.low) else d.high - d.mean
    style = {"color": colour, "capsize": 4, "markersize": 6}
    panel.errorbar(d.mean, y, xerr=half, fmt="o", **style)
