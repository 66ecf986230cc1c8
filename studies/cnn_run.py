"""One training run of the example's CNN, which several studies repeat."""

import os
import sys
from collections.abc import Iterable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
import fashion_cnn

# Headings, and the columns of the table of `activation_sparsity`.
FIGURES = {"Hoyer": "hoyer", "zeros": "zeros", "dead": "dead", "RMS": "rms"}
ACCURACY = "test accuracy"
# The share of multiply-accumulates with a zero: of the whole model, and behind a place.
NEEDLESS = "needless"
NEEDLESS_AT = {place: f"needless {place}" for place in fashion_cnn.PLACES}


def run(
    data: fashion_cnn.Data,
    classes: int,
    regularizer: fashion_cnn.Regularizer,
    seed: int,
    epochs: int,
    callbacks: Iterable[keras.callbacks.Callback] = (),
) -> dict[str, float]:
    """Trains the CNN; returns its figures on test images.

    These are the means of FIGURES over the three places, the shares of
    multiply-accumulates that are needless, and the accuracy.
    """
    keras.utils.set_random_seed(seed)
    model = fashion_cnn.build_model(data[0][0].shape[1:], classes, regularizer)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(*data[0], batch_size=64, epochs=epochs, verbose=0, callbacks=[*callbacks])
    accuracy, table = fashion_cnn.measure(model, data)
    means = {
        heading: float(np.mean([row[column] for row in table.rows]))
        for heading, column in FIGURES.items()
    }
    needless = {NEEDLESS_AT[row["layer"]]: row["needless_macs"] for row in table.rows}
    whole = 1 - table.effective_macs / table.macs
    return {**means, NEEDLESS: whole, **needless, ACCURACY: accuracy}
