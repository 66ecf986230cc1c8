"""The runs of the study `images`: what decides each, and their order."""

import dataclasses
import itertools
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from studies.data import fashion_cnn

# The contrast that was fixed before any run: test accuracy at q = 3 against q = 2.
CONTRAST, DROPOUT = 3.0, 2.0
PAIRS = range(10)
OTHERS = (1.0, 1.5, 2.5)
FEW = range(3)
RATE = 0.3
# For the best rate of both sides of the contrast: the same rates, and seeds of its own.
RATES = (0.1, 0.3, 0.5)
SEARCH_SEEDS = (100, 101)
# Without Sparseout: shares of zeros, and weights of the penalty.
THRESHOLDS = (0.65, 0.75, 0.85)
HOYER_SQUARE = (1e-3, 3e-3)
LENET_Q = (1.5, 1.75, 2.0, 2.25, 2.5)
WRN_Q = (1.0, 1.5, 2.0, 2.5, 3.0)
WRN_PLACES = ("between", "after")
WRN_SEEDS = range(3)
LENET_EPOCHS = 40
WRN_EPOCHS = 8

Figures = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Settings:
    """All that decides the figures of a run.

    Attributes:
        model: "cnn" is that of the example, "lenet5" and "wrn" are in `models.py`.
        method: "sparseout"; or "threshold" or "hoyer_square" before Sparseout.
        q: Exponent of Sparseout.
        rate: Drop rate of Sparseout; if it is matched, what gives the noise to match.
        matched: Whether the rate of each layer is set so that its noise is as strong as
            it would be at q = 2.
        setting: Share of zeros of a threshold, or weight of a penalty.
        place: Of the noise in the blocks of "wrn": "between" or "after".
        renewed: Whether the statistics of BatchNormalization are measured anew, without
            noise, before each validation. Otherwise they are those of training, in
            which noise adds to the variances.
        depth: Of "wrn".
        width: Of "wrn".
        data: Name of the embedded data, or of a data set of images of TFDS.
        images: How many training images to take, 0 for all.
        epochs: How many are trained. The best one on validation images is measured.
        seed: Of the first weights, the order of the images and the noise.
        threads: Of TensorFlow.
    """

    model: str = "cnn"
    method: str = "sparseout"
    q: float = DROPOUT
    rate: float = RATE
    matched: bool = False
    setting: float = 0.0
    place: str = "after"
    renewed: bool = False
    depth: int = 10
    width: int = 1
    data: str = fashion_cnn.EMBEDDED
    images: int = 0
    epochs: int = 16
    seed: int = 0
    threads: int = 1


def runs(done: Mapping[Settings, Figures]) -> list[Settings]:
    """Returns all runs, the primary contrast first."""
    return [
        *over_seeds(PAIRS, Settings(), Settings(q=CONTRAST, matched=True)),
        *over_seeds(PAIRS, Settings(q=CONTRAST)),
        *searches(Settings()),
        *best(done),
        *over_seeds(
            FEW,
            *(
                Settings(q=q, matched=matched)
                for matched in (True, False)
                for q in OTHERS
            ),
        ),
        *over_seeds(FEW, *rivals()),
        *(Settings("lenet5", q=q, epochs=LENET_EPOCHS) for q in LENET_Q),
        *over_seeds(WRN_SEEDS, *wide()),
    ]


def tiny() -> list[Settings]:
    """Returns short runs through the same code."""
    small = {"images": 256, "epochs": 1}
    return [
        Settings(q=CONTRAST, matched=True, **small),
        Settings(method="threshold", setting=THRESHOLDS[0], **small),
        Settings("wrn", q=1.5, place="between", **small),
    ]


def kind(settings: Settings) -> str:
    """Returns what takes about the same time."""
    if settings.model == "wrn":
        renewed = ", renewed" if settings.renewed else ""
        return f"wrn-{settings.depth}-{settings.width}{renewed}"
    if settings.matched:
        return f"{settings.model}, matched"
    return f"{settings.model}, {settings.method}"


def over_seeds(seeds: Iterable[int], *points: Settings) -> list[Settings]:
    """Returns all points of the first seed, then all of the next one."""
    return [
        dataclasses.replace(point, seed=seed)
        for seed, point in itertools.product(seeds, points)
    ]


def rivals() -> list[Settings]:
    """Returns what makes activations sparse at the noise of q = 2."""
    return [
        *(Settings(method="threshold", setting=share) for share in THRESHOLDS),
        *(Settings(method="hoyer_square", setting=weight) for weight in HOYER_SQUARE),
    ]


def wide() -> list[Settings]:
    """Returns the points of the wide residual network."""
    return [
        Settings("wrn", q=q, place=place, renewed=renewed, epochs=WRN_EPOCHS)
        for renewed in (False, True)
        for place in WRN_PLACES
        for q in WRN_Q
    ]


def searches(base: Settings) -> list[Settings]:
    """Returns the runs that choose the rates, with equal budgets for both q."""
    points = [
        dataclasses.replace(base, q=q, rate=rate)
        for rate in RATES
        for q in (DROPOUT, CONTRAST)
    ]
    return over_seeds(SEARCH_SEEDS, *points)


def best(done: Mapping[Settings, Figures]) -> list[Settings]:
    """Returns the runs at the chosen rates, none before they are known."""
    rates = best_rates(done)
    if rates is None:
        return []
    points = [Settings(q=q, rate=rate) for q, rate in rates.items()]
    return over_seeds(PAIRS, *points)


def best_rates(done: Mapping[Settings, Figures]) -> dict[float, float] | None:
    """Returns the rate for each q of the contrast, None if searches are missing.

    It has the highest mean accuracy on validation images, and of equals the lowest
    loss there. Searches count whatever `--set` has changed in all runs.
    """
    bases = [base for base in bases_of(done) if _has_all(done, searches(base))]
    if not bases:
        return None
    base = Settings() if Settings() in bases else bases[0]
    return {q: _best_rate(done, searches(base), q) for q in (DROPOUT, CONTRAST)}


def bases_of(done: Iterable[Settings]) -> list[Settings]:
    """Returns what is common to runs that can be compared, the most frequent first."""
    counts: dict[Settings, int] = {}
    for settings in done:
        base = base_of(settings)
        counts[base] = counts.get(base, 0) + 1
    return sorted(counts, key=lambda base: -counts[base])


def base_of(settings: Settings) -> Settings:
    """Returns a run with plain Dropout, and all that arms do not change."""
    return dataclasses.replace(
        settings,
        method="sparseout",
        q=DROPOUT,
        rate=RATE,
        matched=False,
        setting=0.0,
        seed=0,
    )


def _has_all(done, wanted):
    return all(settings in done for settings in wanted)


def _best_rate(done, wanted, q):
    def score(rate):
        figures = [done[s] for s in wanted if (s.q, s.rate) == (q, rate)]
        accuracy = np.mean([each["valid_accuracy"] for each in figures])
        return accuracy, -np.mean([each["valid_loss"] for each in figures])

    return max(RATES, key=score)
