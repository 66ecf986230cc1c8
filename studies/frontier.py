"""What does sparsity cost the example's CNN: by Sparseout, penalties and thresholds?

It trains the CNN of `examples/fashion_cnn.py` with one of these at three places:

- Sparseout at several q,
- an L1 or a Hoyer-square penalty of several weights, then Dropout,
- a threshold for several shares of zeros, alone or after an L1 penalty, then Dropout.

The figures are of test images: the sparsity, dead units and RMS of the activations,
averaged over the three places, the share of the model's multiply-accumulates that zeros
make needless, and the accuracy.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_sparseout import ActivationPenalty, Sparseout, TargetSparsity, plots
from studies.parts import cnn_run
from studies.tables import markdown

VERSION = 1

SEEDS = (0, 1, 2)
# Weight of the penalty that goes with thresholds.
L1 = 1e-2
# What the picture shows accuracy against.
AXES = {
    "hoyer": "Hoyer sparsity of activations, mean of three places",
    "needless": "needless multiply-accumulates, share of the whole model's",
}


@dataclass(frozen=True)
class Settings:
    """All that decides the figures of a run.

    Attributes:
        actuator: A key of ACTUATORS.
        setting: Its q, weight or share of zeros.
        rate: Of the noise, or of the Dropout behind.
        images: How many are trained on.
        epochs: How often.
        seed: Of weights, order and noise.
        threads: That TensorFlow computes with.
    """

    actuator: str
    setting: float
    rate: float = 0.3
    images: int = cnn_run.IMAGES
    epochs: int = 8
    seed: int = 0
    threads: int = 1


def sparseout(q: float, rate: float, name: str | None) -> Sparseout:
    return Sparseout(rate, q=q, name=name)


def penalty(weight: float, rate: float, name: str, kind: str) -> keras.Model:
    """An activation penalty, then Dropout. In inference both change nothing."""
    layers = [ActivationPenalty(weight, kind), sparseout(2, rate, name=None)]
    return keras.Sequential(layers, name=name)


def threshold(target: float, rate: float, name: str, weight: float = 0) -> keras.Model:
    """A threshold, then Dropout. With a weight, an L1 penalty comes before it."""
    penalties = [ActivationPenalty(weight)] if weight else []
    layers = [*penalties, TargetSparsity(target), sparseout(2, rate, name=None)]
    return keras.Sequential(layers, name=name)


# The weights span the sparsity that q reaches, and more. An L1 penalty of 0.1 silences
# the network. Each place adds the mean penalty of its vectors, so all weigh the same.
ACTUATORS = {
    "Sparseout, q": (sparseout, (1.0, 1.25, 1.5, 2.0, 2.5, 3.0)),
    "L1, weight": (partial(penalty, kind="l1"), (1e-3, 3e-3, 1e-2, 3e-2)),
    "Hoyer-square, weight": (
        partial(penalty, kind="hoyer_square"),
        (3e-4, 1e-3, 3e-3, 1e-2),
    ),
    "threshold, target": (threshold, (0.6, 0.7, 0.8, 0.85, 0.9)),
    "threshold + L1, target": (
        partial(threshold, weight=L1),
        (0.7, 0.8, 0.85, 0.9),
    ),
}
# What a curve is at 0: a penalty of weight 0 and a threshold for 0 zeros leave Dropout
# alone, that is q = 2. Where an L1 penalty comes before the threshold, it stays.
DROPOUT = "Sparseout, q", 2.0
STARTS = {
    "L1, weight": DROPOUT,
    "Hoyer-square, weight": DROPOUT,
    "threshold, target": DROPOUT,
    "threshold + L1, target": ("L1, weight", L1),
}


def runs(done: Mapping[Settings, dict[str, Any]]) -> list[Settings]:
    """All settings with all seeds."""
    return [
        Settings(actuator, setting, seed=seed)
        for actuator, (_, settings) in ACTUATORS.items()
        for setting in settings
        for seed in SEEDS
    ]


def tiny() -> list[Settings]:
    """A run of a few steps."""
    return [Settings("threshold + L1, target", 0.9, images=128, epochs=1)]


def run(settings: Settings) -> dict[str, Any]:
    """Trains the CNN; returns its figures on test images."""
    layer, _ = ACTUATORS[settings.actuator]
    return cnn_run.run(
        partial(layer, settings.setting, settings.rate),
        settings.seed,
        settings.epochs,
        settings.images,
    )


Points = dict[tuple[str, float], list[dict[str, Any]]]


def points(done: Mapping[Settings, dict[str, Any]]) -> Points:
    """Returns the figures of all seeds, by actuator and setting."""
    found: Points = {}
    for settings, figures in done.items():
        key = settings.actuator, settings.setting
        found.setdefault(key, []).append(figures)
    return found


def tables(done: Mapping[Settings, dict[str, Any]]) -> str:
    """Means and 95 % intervals over the seeds, as Markdown."""
    return markdown(
        ["actuator", "setting", "seeds", *cnn_run.HEADINGS],
        (
            [
                actuator,
                f"{setting:g}",
                len(seeds),
                *cnn_run.cells(seeds, cnn_run.HEADINGS),
            ]
            for (actuator, setting), seeds in points(done).items()
        ),
    )


def draw(done: Mapping[Settings, dict[str, Any]], folder: Path) -> None:
    """Draws accuracy against both kinds of sparsity, a curve an actuator."""
    found = points(done)
    starts = {
        (actuator, 0.0): found[same]
        for actuator, same in STARTS.items()
        if same in found and any(name == actuator for name, _ in found)
    }
    rows = []
    for (actuator, setting), seeds in (found | starts).items():
        row: dict[str, Any] = {"actuator": actuator, "setting": setting}
        for figure in (*AXES, "accuracy"):
            values = [run[figure] for run in seeds if run[figure] is not None]
            row[figure] = np.mean(values) if values else np.nan
            row[f"{figure}_std"] = np.std(values) if values else 0.0
        rows.append(row)
    figure = plots.frontier(rows, sparsity=AXES)
    figure.suptitle(
        "The example's CNN on Fashion-MNIST, test images\n"
        "means over the seeds; bars: ± std"
    )
    figure.savefig(folder / "frontier.png", dpi=130)
