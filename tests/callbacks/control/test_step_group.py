"""What a controller says of layers that it moves inside the training step."""

import keras
import numpy as np
import pytest

from keras_sparseout import SparsityController

X = np.random.default_rng(0).uniform(size=(64, 4)).astype("float32")


def fit(layer, controller=None, epochs=2):
    model = keras.Sequential([keras.Input((4,)), layer, keras.layers.Dense(1)])
    # What it learns does not matter here.
    model.compile(keras.optimizers.SGD(0.0), "mse", jit_compile=False)
    callbacks = [controller or SparsityController(0.7, verbose=0)]
    options = {"batch_size": 8, "epochs": epochs, "verbose": 0}
    return model.fit(X, X[:, :1], callbacks=callbacks, **options).history


def test_zeros_of_activations_that_have_none_are_an_error():
    says = "'smooth' were never 0 in 8 readings, as after tanh or GELU.*or name others"
    with pytest.raises(ValueError, match=says):
        fit(keras.layers.Dense(8, "gelu", name="smooth"))


def test_a_relu_without_zeros_at_first_is_none():
    bias = keras.initializers.Constant(5.0)
    logs = fit(keras.layers.Dense(8, "relu", name="rectified", bias_initializer=bias))
    assert logs["zero_fraction/rectified"] == [0, 0]


def test_a_bound_is_named_as_it_was_given():
    controller = SparsityController(0.95, bounds=(0, 0.001), verbose=0)
    says = r"with penalty in \[0, 0.001\]: it reached 0\.\d{3}\. Widen `bounds`"
    with pytest.warns(UserWarning, match=says):
        fit(keras.layers.Dense(8, "relu"), controller, epochs=5)


def test_more_batches_are_advised_only_where_they_would_help(capsys):
    layer = keras.layers.Dense(8, "relu", trainable=False)
    with pytest.warns(UserWarning, match="no trainable weights come before"):
        fit(layer, SparsityController(0.95, layers=[layer]))
    assert "too few" not in capsys.readouterr().out
    fit(keras.layers.Dense(8, "relu"), SparsityController(0.95))
    assert "the run has 16 batches, which were too few" in capsys.readouterr().out
