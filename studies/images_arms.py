"""What the runs of the study `images` are compared in: arms, rows and contrasts."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from studies import images_plan as plan
from studies.images_plan import Figures, Settings
from studies.statistics import Difference, holm, paired

SIGNIFICANT = 0.05
ACCURACY = "test_accuracy"
MATCHED, EQUAL, BEST, RIVALS = "matched", "equal", "best", "sparsity"

Done = Mapping[Settings, Figures]


class Row(NamedTuple):
    """Runs that differ in their seeds alone.

    Attributes:
        label: What they are.
        settings: Of one of them.
        seeds: Of all of them.
    """

    label: str
    settings: Settings
    seeds: Sequence[int]

    def figures(self, done: Done) -> dict[int, Figures]:
        """Returns the figures of those that are finished, by seed."""
        runs = {s: dataclasses.replace(self.settings, seed=s) for s in self.seeds}
        return {seed: done[run] for seed, run in runs.items() if run in done}

    def values(self, done: Done, name: str) -> list[float]:
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
    rows: dict[Settings, tuple[str, Row]] = {}
    for arm in arms:
        for row in arm.all_rows:
            rows.setdefault(row.settings, (arm.name, row))
    return list(rows.values())


class Contrast(NamedTuple):
    """Test accuracy of a row against that of q = 2, paired by seed.

    Attributes:
        arm: The arm.
        row: The row.
        differences: One a pair that is finished.
        difference: Their mean and what is known of it; None without pairs.
        p: Its p value, corrected unless the contrast was fixed beforehand.
        same_as: Name of an arm before it that compares the same runs, if there is one.
    """

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
            return "not observed at this scale"
        higher = self.difference.mean > 0
        return f"observed: {'higher' if higher else 'lower'} than q = 2"


def base_of_contrast(done: Done) -> Settings:
    """Returns what all runs of the fixed contrast have in common.

    That is what the plan says, or with `--set` the same for another model or data.
    """
    bases = plan.bases_of(done)
    return Settings() if Settings() in bases or not bases else bases[0]


def main_arms(done: Done, base: Settings) -> list[Arm]:
    """Returns the arms of the model of the fixed contrast, which is the first row."""

    def row(q, seeds, **fields):
        label = f"q = {q:g}, rate {fields['rate']:g}" if "rate" in fields else ""
        settings = dataclasses.replace(base, q=q, **fields)
        return Row(label or f"q = {q:g}", settings, seeds)

    dropout = row(plan.DROPOUT, plan.PAIRS)
    arms = [
        Arm(
            name,
            dropout,
            [
                row(plan.CONTRAST, plan.PAIRS, matched=matched),
                *(row(q, plan.FEW, matched=matched) for q in plan.OTHERS),
            ],
        )
        for name, matched in ((MATCHED, True), (EQUAL, False))
    ]
    rates = plan.best_rates(done)
    if rates is not None:
        both = [row(q, plan.PAIRS, rate=rate) for q, rate in rates.items()]
        arms.append(Arm(BEST, both[0], both[1:]))
    rivals = [
        Row(
            _rival(rival),
            dataclasses.replace(base, method=rival.method, setting=rival.setting),
            plan.FEW,
        )
        for rival in plan.rivals()
    ]
    return [*arms, Arm(RIVALS, dropout, rivals)]


def _rival(settings):
    if settings.method == "threshold":
        return f"threshold for {settings.setting:g} zeros"
    return f"Hoyer-square, weight {settings.setting:g}"


def other_arms(done: Done, base: Settings) -> list[Arm]:
    """Returns an arm for each other model, and for each place of its noise."""
    arms = []
    for other in plan.bases_of(done):
        if other == base:
            continue
        qs, name, seeds = plan.WRN_Q, f"WRN-{other.depth}-{other.width}", plan.WRN_SEEDS
        if other.model == "wrn":
            renewed = ", statistics renewed" if other.renewed else ""
            name = f"{name}, {other.place}{renewed}"
        elif other.model == "lenet5":
            qs, name, seeds = plan.LENET_Q, "LeNet-5", range(1)
        else:
            continue
        rows = {
            q: Row(f"q = {q:g}", dataclasses.replace(other, q=q), seeds) for q in qs
        }
        arms.append(Arm(name, rows.pop(plan.DROPOUT), list(rows.values())))
    return sorted(arms, key=lambda arm: arm.name)


def contrasts(done: Done, arms: Iterable[Arm]) -> list[Contrast]:
    """Returns all contrasts. The first one was fixed beforehand.

    The p values of all others are corrected together, each comparison counted once.
    """
    listed, seen = [], {}
    for arm in arms:
        for row in arm.rows:
            pair = arm.baseline.settings, row.settings
            listed.append(_contrast(done, arm, row, seen.get(pair, "")))
            seen.setdefault(pair, arm.name)
    corrected = holm([np.nan if c.same_as else c.p for c in listed[1:]])
    others = zip(listed[1:], corrected, strict=True)
    return [listed[0], *(contrast._replace(p=p) for contrast, p in others)]


def _contrast(done, arm, row, same_as):
    own, dropout = row.figures(done), arm.baseline.figures(done)
    seeds = [seed for seed in own if seed in dropout]
    if not seeds:
        return Contrast(arm, row, (), None, np.nan, same_as)
    values = [own[seed][ACCURACY] for seed in seeds]
    baseline = [dropout[seed][ACCURACY] for seed in seeds]
    d = paired(values, baseline)
    differences = np.subtract(values, baseline).tolist()
    return Contrast(arm, row, differences, d, d.p, same_as)


def mean(values: Iterable[Any]) -> float:
    """Returns the mean of the values that are known, NaN without any."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else np.nan
