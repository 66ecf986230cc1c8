"""How should one train with thresholds: several ways to ask for a share of zeros.

It trains the CNN of `examples/fashion_cnn.py` with a TargetSparsity layer at three
places, in several ways. The figures are of test images: the shares of zeros and of dead
units, averaged over the three places, the share of the model's multiply-accumulates
that zeros make needless, and the accuracy.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import keras
import numpy as np

from keras_sparseout import ActivationPenalty, Sparseout, TargetSparsity
from keras_sparseout.plots import drawing
from studies.frontier import L1
from studies.parts import cnn_run
from studies.tables import markdown

VERSION = 1

SEEDS = (0, 1, 2)
RATE = 0.3
COLUMNS = ("zeros", "dead", "needless", "test accuracy")


@dataclass(frozen=True)
class Settings:
    """All that decides the figures of a run.

    Attributes:
        way: A key of WAYS.
        target: Share of zeros that is asked for.
        images: How many are trained on.
        epochs: How often.
        seed: Of weights, order and noise.
        threads: That TensorFlow computes with.
    """

    way: str
    target: float = 0.8
    images: int = cnn_run.IMAGES
    epochs: int = 8
    seed: int = 0
    threads: int = 1


def ramp(target: float, done: float) -> float:
    """From half of the zeros to the target, over the first half of training."""
    return 0.5 + (target - 0.5) * min(1.0, 2 * done)


def last_eighth(target: float, done: float) -> float:
    """With 8 epochs, this is the last one."""
    return target if done >= 7 / 8 else 0.0


class Way(NamedTuple):
    """A way of training with thresholds.

    Attributes:
        axis: None for one threshold, -1 for one for each channel or unit.
        straight_through: Whether the gradient passes below the threshold too.
        rate: Rate of the Dropout behind the threshold.
        weight: Weight of the L1 penalty before the threshold.
        schedule: Function of the target, and of the part of training that is done,
            that returns the target for now.
    """

    axis: Literal[-1] | None = None
    straight_through: bool = False
    rate: float = RATE
    weight: float = 0
    schedule: Callable[[float, float], float] | None = None


WAYS = {
    "from the start": Way(),
    f"after an L1 penalty of {L1:g}": Way(weight=L1),
    "`straight_through=True`": Way(straight_through=True),
    "no Dropout behind it": Way(rate=0),
    "in the last epoch alone": Way(schedule=last_eighth),
    "target raised over the first half": Way(schedule=ramp),
    "`axis=-1`": Way(axis=-1),
}


class Scheduled(keras.callbacks.Callback):
    """Makes the layers of a way, and moves their targets before each epoch."""

    def __init__(self, way: Way, target: float, epochs: int) -> None:
        super().__init__()
        self.way, self.target, self.epochs = way, target, epochs
        self.thresholds: list[TargetSparsity] = []

    def make(self, name: str) -> keras.Model:
        way = self.way
        cutting = TargetSparsity(
            self.target,
            axis=way.axis,
            straight_through=way.straight_through,
            adjustable=way.schedule is not None,
        )
        self.thresholds.append(cutting)
        penalties = [ActivationPenalty(way.weight)] if way.weight else []
        # At q = 2, which is Dropout.
        layers = [*penalties, cutting, Sparseout(way.rate, q=2)]
        return keras.Sequential(layers, name=name)

    def on_epoch_begin(self, epoch, logs=None):
        if self.way.schedule is not None:
            for cutting in self.thresholds:
                cutting.target = self.way.schedule(self.target, epoch / self.epochs)


def runs(done: Mapping[Settings, dict[str, Any]]) -> list[Settings]:
    """All ways with all seeds."""
    return [Settings(way, seed=seed) for way in WAYS for seed in SEEDS]


def tiny() -> list[Settings]:
    """A run of a few steps, in which the target moves."""
    return [Settings("target raised over the first half", images=128, epochs=2)]


def run(settings: Settings) -> dict[str, Any]:
    """Trains the CNN; returns its figures on test images."""
    parts = Scheduled(WAYS[settings.way], settings.target, settings.epochs)
    return cnn_run.run(
        parts.make, settings.seed, settings.epochs, settings.images, [parts]
    )


def by_way(done: Mapping[Settings, dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Returns the figures of all seeds, by way."""
    found: dict[str, list[dict[str, Any]]] = {}
    for settings, figures in done.items():
        found.setdefault(settings.way, []).append(figures)
    return found


def tables(done: Mapping[Settings, dict[str, Any]]) -> str:
    """Means and 95 % intervals over the seeds, as Markdown."""
    targets = sorted({settings.target for settings in done})
    asked = ", ".join(f"{target:g}" for target in targets)
    table = markdown(
        ["", "seeds", *COLUMNS],
        (
            [way, len(seeds), *cnn_run.cells(seeds, COLUMNS)]
            for way, seeds in by_way(done).items()
        ),
    )
    return f"Share of zeros asked for: {asked}.\n\n{table}"


def draw(done: Mapping[Settings, dict[str, Any]], folder: Path) -> None:
    """Draws accuracy against needless multiply-accumulates, a point a way."""
    figure = drawing.new_figure(4.5)
    panel = figure.subplots()
    for (way, seeds), marker in zip(
        by_way(done).items(), drawing.MARKERS, strict=False
    ):
        x, y = ([run[key] for run in seeds] for key in ("needless", "accuracy"))
        panel.errorbar(
            np.mean(x),
            np.mean(y),
            xerr=np.std(x),
            yerr=np.std(y),
            fmt=marker,
            capsize=2,
            label=way.replace("`", ""),
        )
    panel.set_xlabel("needless multiply-accumulates, share of the whole model's")
    panel.set_ylabel("test accuracy")
    panel.grid(alpha=0.3)
    figure.legend(loc="outside right upper", frameon=False)
    figure.suptitle("Means over the seeds; bars: ± std")
    figure.savefig(folder / "thresholds.png", dpi=130)
