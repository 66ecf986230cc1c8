"""What a controller says of layers that it moves inside the training step."""

import keras
import numpy as np
import pytest

from keras_sparseout import SparsityController

X = np.random.default_rng(0).uniform(size=(64, 4)).astype("float32")


def fit(layer):
    model = keras.Sequential([keras.Input((4,)), layer, keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.0), "mse", jit_compile=False)
    controller = SparsityController(0.7, verbose=0)
    options = {"batch_size": 8, "epochs": 2, "verbose": 0, "callbacks": [controller]}
    return model.fit(X, X[:, :1], **options).history


def test_zeros_of_activations_that_have_none_are_an_error():
    says = "'smooth' were never 0 in 8 readings, as after tanh or GELU.*or name others"
    with pytest.raises(ValueError, match=says):
        fit(keras.layers.Dense(8, "gelu", name="smooth"))


def test_a_relu_without_zeros_at_first_is_none():
    bias = keras.initializers.Constant(5.0)
    logs = fit(keras.layers.Dense(8, "relu", name="rectified", bias_initializer=bias))
    assert logs["zero_fraction/rectified"] == [0, 0]
