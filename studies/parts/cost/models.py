"""The models whose training steps the study `cost` measures, with each method's noise.

Noise stands in the same places for all methods. Dropout and Sparseout put it on the
activations there, Bridgeout and Shakeout on the kernels of the layers that read them.
"""

from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np

from benchmarks.models import CLASSES, SHAPE, example_cnn, random_images
from keras_sparseout import Bridgeout, Shakeout, Sparseout, SpatialSparseout1D

RATE = 0.3
WORDS, WINDOW = 2000, 35

Layer = keras.layers.Layer
# Takes the name of a place, and makes the layer that stands there.
AtPlace = Callable[[str], Layer]


class Method(NamedTuple):
    """How the noise gets into a model. What is None changes nothing."""

    activations: Callable[..., Layer] | None = None
    # Between recurrent layers, where a sequence has one mask.
    locked: Callable[..., Layer] | None = None
    kernels: Callable[[Layer], Layer] | None = None


def _sparseout(q):
    return Method(
        lambda name: Sparseout(RATE, q, name=name),
        lambda name: SpatialSparseout1D(RATE, q, name=name),
    )


NOTHING, DROPOUT = "nothing", "Dropout"
METHODS = {
    NOTHING: Method(),
    DROPOUT: Method(
        lambda name: keras.layers.Dropout(RATE, name=name),
        lambda name: keras.layers.SpatialDropout1D(RATE, name=name),
    ),
    **{f"Sparseout, q = {q:g}": _sparseout(q) for q in (1, 1.5, 2, 3)},
    "Bridgeout, q = 1.5": Method(kernels=lambda layer: Bridgeout(layer, RATE, 1.5)),
    "Shakeout, c = 0.1": Method(kernels=lambda layer: Shakeout(layer, RATE, 0.1)),
}


def mlp(place: AtPlace) -> keras.Model:
    """Three dense layers of 1,024 units."""
    model = keras.Sequential(
        [
            keras.Input(SHAPE),
            keras.layers.Rescaling(1 / 90, offset=-0.8),
            keras.layers.Flatten(),
        ]
    )
    for number in (1, 2, 3):
        model.add(keras.layers.Dense(1024, activation="relu"))
        model.add(place(f"hidden{number}"))
    model.add(keras.layers.Dense(CLASSES, activation="softmax"))
    return model


def lstm(place: AtPlace) -> keras.Model:
    """A language model with two LSTM layers of 128 units."""
    model = keras.Sequential(
        [keras.Input((WINDOW,)), keras.layers.Embedding(WORDS, 128), place("embedded")]
    )
    for number in (1, 2):
        model.add(keras.layers.LSTM(128, return_sequences=True))
        model.add(place(f"lstm{number}"))
    model.add(keras.layers.Dense(WORDS, activation="softmax"))
    return model


def random_words(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns windows of words, and the next word of each."""
    rng = np.random.default_rng(0)
    return tuple(rng.integers(0, WORDS, (2, number, WINDOW)))


class Model(NamedTuple):
    """A model and what it trains on."""

    build: Callable[[AtPlace], keras.Model]
    data: Callable[[int], tuple[np.ndarray, np.ndarray]]
    batch: int
    is_recurrent: bool = False


MODELS = {
    "MLP": Model(mlp, random_images, 128),
    "CNN": Model(example_cnn, random_images, 64),
    "LSTM": Model(lstm, random_words, 20, is_recurrent=True),
}


def compiled(name: str, method: str, jit_compile: bool = False) -> keras.Model:
    """Returns the model with a method's noise, ready for `fit`."""
    model, noise = MODELS[name], METHODS[method]
    activations = noise.locked if model.is_recurrent else noise.activations
    built = model.build(activations or (lambda name: keras.layers.Identity(name=name)))
    if noise.kernels is not None:
        built = _with_noise_on_kernels(built, noise.kernels)
    built.compile("adam", "sparse_categorical_crossentropy", jit_compile=jit_compile)
    return built


def _with_noise_on_kernels(model, around):
    """The same model anew, where layers with a kernel that read a place are wrapped."""
    noisy, is_behind = keras.Sequential([keras.Input(batch_shape=model.input_shape)]), 0
    for layer in model.layers:
        new = layer.__class__.from_config(layer.get_config())
        has_kernel = isinstance(
            layer, keras.layers.Dense | keras.layers.Conv2D | keras.layers.LSTM
        )
        noisy.add(around(new) if is_behind and has_kernel else new)
        is_behind = is_behind or isinstance(layer, keras.layers.Identity)
    return noisy
