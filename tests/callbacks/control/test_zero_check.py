"""Layers that are asked for zeros, and have none by their nature."""

import keras
import numpy as np
import pytest
from controlled import X, Y

from keras_sparseout import ActivationPenalty, Sparseout, SparsityController
from keras_sparseout.callbacks.control.zero_check import ZeroCheck
from keras_sparseout.measure import layer_selection

L = keras.layers


def checked(*layers):
    """The layers as they are watched, and a check of them."""
    model = keras.Sequential([keras.Input((4,)), *layers, L.Dense(1)])
    names = [layer.name for layer in layers]
    return layer_selection.select(model, names), ZeroCheck(model)


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
    layers, check = checked(L.PReLU(name="prelu"), L.Dense(4, "relu", name="relu"))
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
    layers, check = checked(layer)
    for _ in range(9):
        check.take(layers, figures(zeros, "x"))
    check.end_epoch(layers)


def test_a_rectifier_with_a_slope_has_no_zeros():
    layers, check = checked(L.ReLU(negative_slope=0.1, name="x"))
    check.take(layers, figures(0.0, "x"))
    with pytest.raises(ValueError, match="never were"):
        check.end_epoch(layers)


@pytest.mark.parametrize(
    ("activation", "actuator"), [("relu", "q"), ("relu", "weight"), ("gelu", "rate")]
)
def test_what_comes_before_an_adjustable_layer_counts(activation, actuator):
    layer = Sparseout(0.5, adjustable=True)
    if actuator == "weight":
        layer = ActivationPenalty(0.0, adjustable=True)
    # Positive everywhere, as yet.
    hidden = L.Dense(4, activation, bias_initializer=keras.initializers.Constant(9.0))
    model = keras.Sequential([keras.Input((12,)), hidden, layer, L.Dense(3)])
    model.compile(keras.optimizers.SGD(0.0), "mse", run_eagerly=True)
    controller = SparsityController(0.6, actuator=actuator, every=1, verbose=0)
    options = {"batch_size": 4, "verbose": 0, "callbacks": [controller]}
    if activation == "relu":
        model.fit(X[:40], Y[:40], **options)
        assert controller.history[f"zero_fraction/{layer.name}"] == [0] * 10
    else:
        with pytest.raises(ValueError, match="never were"):
            model.fit(X[:40], Y[:40], **options)
        # Several readings decide.
        assert len(controller.history["epoch"]) == 7


def added(*layers):
    """A Sequential model that is built anew with each layer."""
    model = keras.Sequential()
    for layer in (keras.Input((2, 4)), *layers):
        model.add(layer)
    return model


def listed(*layers):
    return keras.Sequential([keras.Input((2, 4)), *layers])


def functional(*layers):
    """A model whose layers were called before, in another model."""
    for _ in range(2):
        inputs = x = keras.Input((2, 4))
        for layer in layers:
            x = layer(x)
    return keras.Model(inputs, x)


@pytest.mark.parametrize("build", [added, listed, functional])
def test_the_relu_before_a_layer_is_found_through_layers_that_keep_zeros(build):
    noise = (L.Dropout, {"rate": 0.1}), (L.Flatten, {})
    pooling = (L.MaxPooling1D, {}), (Sparseout, {"rate": 0.5})
    for kinds in ((), noise, pooling):
        for activation in ("relu", "gelu"):
            kept = [kind(**options) for kind, options in kinds]
            last = Sparseout(0.5, name="last")
            model = build(L.Dense(4, activation), *kept, last)
            for side in ("input", "output"):
                (watched,) = layer_selection.select(model, ["last"], side)
                found = layer_selection.is_rectified(model, watched)
                assert found == (activation == "relu")
    # What moves zeros ends the search.
    model = build(L.Dense(4, "relu"), L.BatchNormalization(), Sparseout(0.5))
    (watched,) = layer_selection.select(model)
    assert not layer_selection.is_rectified(model, watched)
