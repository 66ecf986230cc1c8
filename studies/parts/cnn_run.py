"""One training run of the example's CNN, which several studies repeat."""

import functools
from collections.abc import Iterable, Sequence
from typing import Any

import keras
import numpy as np

from studies import statistics
from studies.data import fashion_cnn
from studies.tables import MISSING, cell

# Headings of tables, and the figures below them. Each is a mean over the three places,
# except for the accuracy and for what is needless, of the whole model.
HEADINGS = {
    "Hoyer": "hoyer",
    "zeros": "zeros",
    "dead": "dead",
    "RMS": "rms",
    "needless": "needless",
    "test accuracy": "accuracy",
}
_OVER_PLACES = ("hoyer", "zeros", "dead", "rms")
IMAGES = 9000


def run(
    regularizer: fashion_cnn.Regularizer,
    seed: int,
    epochs: int,
    images: int = IMAGES,
    callbacks: Iterable[keras.callbacks.Callback] = (),
) -> dict[str, Any]:
    """Trains the CNN; returns its figures on test images.

    Args:
        regularizer: Takes the name of a place, and makes the layer there.
        seed: Of weights, order and noise.
        epochs: How often each image is seen.
        images: How many are trained on.
        callbacks: For `fit`.

    Returns:
        The figures of HEADINGS, "needless" by place too.
    """
    data, classes = fashion_cnn.load_data(fashion_cnn.EMBEDDED)
    keras.utils.set_random_seed(seed)
    model = fashion_cnn.build_model(data[0][0].shape[1:], classes, regularizer)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    x, y = (part[:images] for part in data[0])
    model.fit(x, y, batch_size=64, epochs=epochs, verbose=0, callbacks=[*callbacks])
    accuracy, table = fashion_cnn.measure(model, data)
    figures = {
        column: float(np.mean([row[column] for row in table.rows]))
        for column in _OVER_PLACES
    }
    needless = {
        f"needless {row['layer']}": float(row["needless_macs"]) for row in table.rows
    }
    whole = float(1 - table.effective_macs / table.macs)
    return {**figures, **needless, "needless": whole, "accuracy": float(accuracy)}


def cells(runs: Sequence[dict[str, Any]], headings: Iterable[str]) -> list[str]:
    """Returns means and 95 % intervals of runs that differ by their seed."""
    mean = functools.partial(_cell, runs)
    return [mean(HEADINGS[heading]) for heading in headings]


def _cell(runs, figure):
    values = [run[figure] for run in runs if run[figure] is not None]
    if not values:
        return MISSING
    found = statistics.interval(values)
    return cell(found.mean, found.half)
