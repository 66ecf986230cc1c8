"""A small model and data that the tests of trackers share."""

import batched
import keras
import numpy as np

from keras_sparseout import Sparseout

X = np.random.default_rng(0).normal(size=(70, 6, 4)).astype("float32")
Y = X.sum((1, 2))[:, None]


def fit(model, *callbacks, x=X, epochs=2, **kwargs):
    # Probe data are measured beside the training, which need not be traced.
    model.compile("sgd", "mse", **(kwargs or {"run_eagerly": True}))
    options = {"epochs": epochs, "verbose": 0, "callbacks": list(callbacks)}
    return batched.fit(model, x, Y, **options)


def small_model(**kwargs):
    kwargs = {"jit_compile": False, **kwargs}
    return keras.Sequential(
        [
            keras.Input((6, 4)),
            keras.layers.Dense(8, activation="relu"),
            Sparseout(0.5, q=1.5, name="first", **kwargs),
            keras.layers.Flatten(),
            keras.layers.Dense(5, activation="relu"),
            Sparseout(0.5, q=1.5, name="second", **kwargs),
            keras.layers.Dense(1),
        ]
    )
