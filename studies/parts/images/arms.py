"""What the runs of the study `images` are compared in: arms, rows and contrasts."""

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np

from studies.contrasts import Arm, Done, Measure, Row
from studies.parts.images import plan
from studies.parts.images.plan import Settings

MATCHED, EQUAL, BEST, RIVALS = "matched", "equal", "best", "sparsity"
# In percent, as accuracies and their differences are shown.
ACCURACY = Measure(
    "test_accuracy",
    "points of test accuracy",
    factor=100,
    digits=2,
    lower="lower",
    higher="higher",
    linear=2,
)


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


def mean(values: Iterable[Any]) -> float:
    """Returns the mean of the values that are known, NaN without any."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else np.nan
