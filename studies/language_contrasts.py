"""The comparisons of the study `language`: arms, rows of runs, paired differences."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from studies.statistics import Difference, holm, paired

# What tells runs of one results folder apart. The text and the model are the same.
FIELDS = ("q", "matched", "scale", "target", "penalty", "seed")
SIGNIFICANT = 0.05
NATS = "test_nats"
NOT_OBSERVED = "not observed at this scale"
Figures = dict[str, Any]


class Row(NamedTuple):
    """Runs that differ in their seeds alone.

    Attributes:
        label: What the runs are.
        settings: Settings of one of them, of any seed.
        seeds: The seeds of all.
    """

    label: str
    settings: Any
    seeds: Sequence[int]


class Arm(NamedTuple):
    """Rows that are compared with a row of q = 2.

    Attributes:
        name: Its name.
        baseline: The row of q = 2.
        rows: The others.
    """

    name: str
    baseline: Row
    rows: Sequence[Row]


class Contrast(NamedTuple):
    """A row against the baseline of its arm, in nats a word of the test text.

    Attributes:
        arm: The arm.
        row: The row.
        differences: One a pair of seeds that is finished.
        difference: Their mean and what is known of it; None without pairs.
        p: Its p value, corrected unless it is the fixed contrast.
        same_as: Name of an arm before it that compares the same runs, if there is one.
    """

    arm: Arm
    row: Row
    differences: Sequence[float]
    difference: Difference | None
    p: float
    same_as: str | None = None

    @property
    def verdict(self) -> str:
        """What the runs show."""
        if self.same_as:
            return f"the runs of {self.same_as}"
        pairs, planned = len(self.differences), len(self.row.seeds)
        if self.difference is None or pairs < planned:
            return f"open: {pairs} of {planned} pairs"
        if not self.p < SIGNIFICANT:
            return NOT_OBSERVED
        better = "better" if self.difference.mean < 0 else "worse"
        return f"observed: {better} than {self.arm.baseline.label}"


class Found:
    """The figures of the runs that are finished.

    Args:
        done: Figures by settings.

    Raises:
        ValueError: if two runs differ in the text or the model alone.
    """

    def __init__(self, done: Mapping[Any, Figures]) -> None:
        self._figures: dict[tuple, Figures] = {}
        for settings, figures in done.items():
            key = _key(settings)
            if key in self._figures:
                same = ", ".join(f"{n}={v}" for n, v in zip(FIELDS, key, strict=True))
                raise ValueError(
                    "--results must be a folder of runs with one text and one model. "
                    f"Received: two runs with {same}. Give each --set a folder of its "
                    "own."
                )
            self._figures[key] = figures

    def figures(self, settings: Any, seeds: Iterable[int]) -> dict[int, Figures]:
        """Returns the figures of runs with these settings, by seed."""
        keys = {seed: (*_key(settings)[:-1], seed) for seed in seeds}
        return {
            seed: self._figures[key]
            for seed, key in keys.items()
            if key in self._figures
        }

    def values(
        self, settings: Any, seeds: Iterable[int], name: str
    ) -> dict[int, float]:
        """Returns one figure of these runs, by seed."""
        found = self.figures(settings, seeds)
        return {seed: figures[name] for seed, figures in found.items()}


def _key(settings):
    return tuple(getattr(settings, field) for field in FIELDS)


def contrasts(found: Found, arms: Sequence[Arm]) -> list[Contrast]:
    """Returns all contrasts, the one that was fixed beforehand first.

    The p values of the others are corrected for their number by Holm's method.
    """
    listed: list[Contrast] = []
    names: dict[tuple, str] = {}
    for arm in arms:
        for row in arm.rows:
            runs = _key(row.settings), _key(arm.baseline.settings)
            contrast = _compare(found, arm, row)
            listed.append(contrast._replace(same_as=names.get(runs)))
            names.setdefault(runs, arm.name)
    first, others = listed[0], listed[1:]
    ps = holm([np.nan if c.same_as else c.p for c in others])
    corrected = [c._replace(p=p) for c, p in zip(others, ps, strict=True)]
    return [first, *corrected]


def _compare(found, arm, row):
    base = found.values(arm.baseline.settings, row.seeds, NATS)
    own = found.values(row.settings, row.seeds, NATS)
    seeds = [seed for seed in row.seeds if seed in base and seed in own]
    if not seeds:
        return Contrast(arm, row, [], None, np.nan)
    difference = paired([own[s] for s in seeds], [base[s] for s in seeds])
    differences = [own[seed] - base[seed] for seed in seeds]
    return Contrast(arm, row, differences, difference, difference.p)
