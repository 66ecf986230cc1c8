"""Layers that are asked for zeros, and have none by their nature."""

import keras
import numpy as np
import pytest
from controlled import X, Y

from keras_sparseout import SparsityController
from keras_sparseout.callbacks.control.zero_check import ZeroCheck
from keras_sparseout.measure import layer_selection

L = keras.layers


def watched(*layers):
    model = keras.Sequential([keras.Input((4,)), *layers, L.Dense(1)])
    return layer_selection.select(model, [layer.name for layer in layers])


def figures(number, *names):
    return {f"zero_fraction/{name}": number for name in names}


def test_in_a_fit_the_error_names_the_layers_and_the_remedy():
    layers = [keras.Input((12,)), L.Dense(8, "swish", name="a")]
    layers += [L.Dense(8, "gelu", name="b"), L.Dense(8, "relu", name="c"), L.Dense(3)]
    model = keras.Sequential(layers)
    model.compile("sgd", "mse", jit_compile=False)
    controller = SparsityController(0.7, verbose=0)
    with pytest.raises(ValueError, match=r"Those of a, b never were\.") as error:
        model.fit(X[:64], Y[:64], batch_size=16, verbose=0, callbacks=[controller])
    assert "Give metric=\"hoyer\", or name others, such as layers=['c']" in str(
        error.value
    )


def test_it_decides_by_several_readings():
    layers = watched(L.PReLU(name="prelu"), L.Dense(4, "relu", name="relu"))
    check = ZeroCheck()
    check.take(layers, figures(0.5, "prelu", "relu"))
    for _ in range(6):
        check.take(layers, figures(0.0, "prelu", "relu"))
    with pytest.raises(ValueError, match="Those of prelu never were"):
        check.take(layers, figures(0.0, "prelu", "relu"))


@pytest.mark.parametrize(
    ("layer", "zeros"),
    [
        (L.ReLU(name="x"), 0.0),  # Positive everywhere, as yet.
        (L.Activation("relu6", name="x"), 0.0),
        (L.Activation("tanh", name="x"), np.nan),
        (L.Activation("tanh", name="x"), 0.1),
    ],
)
def test_layers_that_may_have_zeros_are_none_of_them(layer, zeros):
    layers, check = watched(layer), ZeroCheck()
    for _ in range(9):
        check.take(layers, figures(zeros, "x"))
    check.end_epoch(layers)


def test_a_rectifier_with_a_slope_has_no_zeros():
    layers, check = watched(L.ReLU(negative_slope=0.1, name="x")), ZeroCheck()
    check.take(layers, figures(0.0, "x"))
    with pytest.raises(ValueError, match="never were"):
        check.end_epoch(layers)
