"""Does q control the sparsity of activations, what does that cost, and who does better?

One hidden layer of 256 units, of a classifier and of an autoencoder, on the embedded
Fashion-MNIST. Sparseout at several q and rates, on ReLU, tanh and behind
BatchNormalization, with the multiplier held constant and differentiated, and on the
smallest three quarters of the activations. Beside it nothing, Dropout, penalties (L1,
Hoyer-square), thresholds, the largest k units, and L1 before Dropout.

All figures are of test images, at inference: the loss without penalties, the accuracy,
and the sparsity, dead units and RMS of the hidden activations, so that collapse is not
mistaken for sparsity. Nothing is chosen by them.
"""

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_sparseout import activation_sparsity
from studies.data import fashion_cnn
from studies.parts.sparsity import dense_models
from studies.parts.sparsity import pictures as sparsity_pictures
from studies.parts.sparsity import tables as sparsity_tables

VERSION = 1

SEEDS = (0, 1, 2)
QS = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0)
FEW_QS = (1.0, 2.0, 3.0)
# The rivals, as (method, rate) with their settings. What they are at a setting of 0,
# nothing or Dropout alone, is among the runs too.
RIVALS = {
    ("l1", 0.0): (1e-4, 3e-4, 1e-3, 3e-3, 1e-2),
    ("l1", 0.5): (1e-4, 3e-4, 1e-3, 3e-3, 1e-2),
    ("hoyer_square", 0.0): (1e-5, 1e-4, 3e-4, 1e-3, 1e-2),
    ("threshold", 0.0): (0.5, 0.7, 0.8, 0.9, 0.95),
    ("top_k", 0.0): (0.5, 0.7, 0.8, 0.9, 0.95),
}
# Of Dropout's own curve; 0.3 and 0.5 are those of q = 2.
DROPOUT_RATES = (0.1, 0.7)


@dataclass(frozen=True)
class Settings:
    """All that decides the figures of a run.

    Attributes:
        task: One of `dense_models.TASKS`.
        method: One of `dense_models.METHODS`.
        setting: The q, weight or share of it.
        rate: Rate of the noise, or of the Dropout behind the method.
        activation: Of the hidden layer.
        batch_norm: Whether BatchNormalization stands before the activation.
        images: How many are trained on.
        epochs: How often.
        seed: Of weights, order and noise.
        threads: That TensorFlow computes with.
    """

    task: str = "classifier"
    method: str = "held"
    setting: float = 2.0
    rate: float = 0.5
    activation: str = "relu"
    batch_norm: bool = False
    images: int = 9000
    epochs: int = 20
    seed: int = 0
    threads: int = 1


def runs(done: Mapping[Settings, dict[str, Any]]) -> list[Settings]:
    """All runs: the main curves first, so that a study cut short still has them."""
    parts = [_main, _main, _other_rate, _other_rate, _variants, _variants]
    tasks = itertools.cycle(dense_models.TASKS)
    return [
        replace(settings, task=task, seed=seed)
        for part, task in zip(parts, tasks, strict=False)
        for settings in part()
        for seed in SEEDS
    ]


def _main() -> Iterable[Settings]:
    for q in QS:
        yield Settings(setting=q)
    yield Settings(method="nothing", setting=0.0, rate=0.0)
    for (method, rate), settings in RIVALS.items():
        for setting in settings:
            yield Settings(method=method, setting=setting, rate=rate)


def _other_rate() -> Iterable[Settings]:
    for q in QS:
        yield Settings(setting=q, rate=0.3)
    for rate in DROPOUT_RATES:
        yield Settings(rate=rate)


def _variants() -> Iterable[Settings]:
    for q in FEW_QS:
        yield Settings(setting=q, batch_norm=True)
    for q in FEW_QS:
        yield Settings(setting=q, activation="tanh")
    # At q = 2 the two gradients are one.
    for q in (1.0, 3.0):
        yield Settings(method="through", setting=q)
    for q in (1.0, 1.5, 2.0, 3.0):
        yield Settings(method="fraction", setting=q)


def tiny() -> list[Settings]:
    """Two runs of a few steps."""
    few = Settings(images=128, epochs=1)
    return [
        replace(few, task="autoencoder", method="l1", setting=1e-3),
        replace(few, method="through", setting=1.0, batch_norm=True),
    ]


def kind(settings: Settings) -> str:
    """Runs of a task take about the same time."""
    return settings.task


def run(settings: Settings) -> dict[str, Any]:
    """Trains a model; returns its figures on all test images."""
    data, _ = fashion_cnn.load_data(fashion_cnn.EMBEDDED)
    train, _, test = map(_prepared, data)
    keras.utils.set_random_seed(settings.seed)
    model = dense_models.build(
        settings.task,
        settings.activation,
        settings.batch_norm,
        dense_models.regularizer(settings.method, settings.setting, settings.rate),
    )
    x, y = (part[: settings.images] for part in _target(train, settings.task))
    model.fit(x, y, batch_size=64, epochs=settings.epochs, verbose=0)
    x, y = _target(test, settings.task)
    scores = model.evaluate(x, y, batch_size=1000, verbose=0, return_dict=True)
    table = activation_sparsity(
        model, x, layers=[dense_models.PLACE], batch_size=1000, verbose=0
    )
    [row] = table.rows
    figures = {
        "loss": scores["loss_alone"],
        "hoyer": row["hoyer"],
        "zeros": row["zeros"],
        "dead": row["dead"],
        "rms": row["rms"],
        "needless": row["needless_macs"],
        "needless_whole": 1 - table.effective_macs / table.macs,
    }
    if settings.task == "classifier":
        figures["accuracy"] = scores["accuracy"]
    # JSON has no NaN: the Hoyer sparsity of silent samples alone, or a diverged loss.
    return {
        name: float(value) if np.isfinite(value) else None
        for name, value in figures.items()
    }


def _prepared(split):
    """To mean 0 and variance 1. Pixels are integers, so that none becomes 0."""
    images, labels = split
    pixels = images.reshape(len(images), -1).astype("float32")
    return (pixels - 72.5) / 90, labels


def _target(split, task):
    x, labels = split
    return (x, labels) if task == "classifier" else (x, x)


def tables(done: Mapping[Settings, dict[str, Any]]) -> str:
    """The figures of all settings, and what follows from them, as Markdown."""
    return sparsity_tables.report(done)


def draw(done: Mapping[Settings, dict[str, Any]], folder: Path) -> None:
    """Draws what sparsity costs, and what q does."""
    sparsity_pictures.draw(done, folder)
