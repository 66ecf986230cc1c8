"""A small classifier and data that tests of controllers share, and their states."""

import batched
import keras
import numpy as np

from keras_sparseout import Sparseout
from keras_sparseout.callbacks.control.feedback_loop import LoopState

RNG = np.random.default_rng(0)
X = RNG.normal(size=(640, 12)).astype("float32")
Y = np.abs(X @ RNG.normal(size=(12, 3))).astype("float32")


def classifier(*, activation="relu", regularizer=None, names=("hidden",), bias="zeros"):
    regularizer = regularizer or (
        lambda name: Sparseout(0.5, q=2.0, adjustable=True, name=name)
    )
    layers = [keras.Input((12,))]
    for name in names:
        layers += [keras.layers.Dense(64, activation, bias_initializer=bias)]
        layers += [regularizer(name)]
    return keras.Sequential([*layers, keras.layers.Dense(3)])


def mostly_dead():
    """A classifier of which 48 of 64 units are dead."""
    bias = keras.initializers.Constant(np.where(np.arange(64) < 48, -9.0, 0.0))
    return classifier(bias=bias)


def loss_of_known(y, predicted):
    """The squared error, and NaN where `y` is NaN, of which the gradient has none.

    So weights and activations stay finite.
    """
    unknown = keras.ops.isnan(y)
    error = keras.ops.where(unknown, 0.0, predicted - y)
    return keras.ops.mean(error**2 + keras.ops.where(unknown, y, 0.0), axis=-1)


def loop_state(model, name="hidden"):
    """The state that a controller left in a layer."""
    _, *numbers = model.get_layer(name).controller_state
    return LoopState.from_numbers(numbers)


def fit(model, *callbacks, epochs=3, rows=640, **kwargs):
    options = {"optimizer": "sgd", "loss": "mse", "jit_compile": False}
    model.compile(**{**options, **kwargs})
    options = {"batch_size": 16, "epochs": epochs, "verbose": 0}
    options["callbacks"] = list(callbacks)
    return batched.fit(model, X[:rows], Y[:rows], **options).history
