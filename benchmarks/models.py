"""The models whose training steps are measured, and their regularizers."""

import sys
from collections.abc import Callable

import keras
import numpy as np

from benchmarks.settings import ROOT
from keras_sparseout import Sparseout

sys.path.insert(0, str(ROOT / "examples"))
import fashion_cnn

sys.path.remove(str(ROOT / "examples"))

SHAPE, CLASSES = (28, 28, 1), 10
NONE, DROPOUT = "none", "keras Dropout"
# Each takes the name of a layer, and makes it.
REGULARIZERS = {
    NONE: lambda name: keras.layers.Identity(name=name),
    DROPOUT: lambda name: keras.layers.Dropout(0.3, name=name),
    "Sparseout q=1.5": lambda name: Sparseout(0.3, q=1.5, name=name),
    "Sparseout q=1": lambda name: Sparseout(0.3, q=1, name=name),
    "Sparseout q=2": lambda name: Sparseout(0.3, q=2, name=name),
    "Sparseout q=1.3": lambda name: Sparseout(0.3, q=1.3, name=name),
}


def example_cnn(regularizer: Callable[[str], keras.layers.Layer]) -> keras.Model:
    return fashion_cnn.build_model(SHAPE, CLASSES, regularizer)


def depthwise_cnn(regularizer: Callable[[str], keras.layers.Layer]) -> keras.Model:
    """A small one, with 5 regularizers that take much of its time."""
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input(SHAPE),
            layers.Rescaling(1 / 90, offset=-0.8),
            layers.Conv2D(16, 3, padding="same", activation="relu"),
            regularizer("stem"),
        ]
    )
    for block, (filters, strides) in enumerate([(32, 2), (32, 1), (64, 2), (64, 1)]):
        model.add(layers.DepthwiseConv2D(3, strides, padding="same"))
        model.add(layers.Conv2D(filters, 1, activation="relu"))
        model.add(regularizer(f"block{block + 1}"))
    model.add(layers.GlobalAveragePooling2D())
    model.add(layers.Dense(CLASSES, activation="softmax"))
    return model


EXAMPLE = "example's CNN"
MODELS = {EXAMPLE: example_cnn, "depthwise CNN": depthwise_cnn}


def compiled_model(name: str, kind: str, jit_compile: bool = False) -> keras.Model:
    """Returns a model that is ready for `fit`."""
    keras.utils.set_random_seed(1)
    model = MODELS[name](REGULARIZERS[kind])
    model.compile(
        "adam",
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
        jit_compile=jit_compile,
    )
    return model


def random_images(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns images and labels."""
    x = np.random.default_rng(0).integers(0, 256, (number, *SHAPE)).astype("uint8")
    return x, np.random.default_rng(1).integers(0, CLASSES, number)
