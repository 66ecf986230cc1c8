"""Layers chosen by their activation or type, for models of many layers."""

import keras
import numpy as np
import pytest
from counted import rectified, rows
from keras import layers as kl

from keras_sparseout import (
    Bridgeout,
    Shakeout,
    SparseoutCellWrapper,
    SparsityTracker,
    activation_sparsity,
)
from keras_sparseout.measure import layer_selection


def model(**names):
    return keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            kl.Conv2D(3, 3, name="edges"),
            kl.ReLU(name=names.get("first", "first")),
            kl.Conv2D(3, 3, activation="relu", name="second"),
            kl.Reshape((4, 3), name="reshape"),
            kl.LSTM(4, activation="relu", name="memory"),
            kl.Dense(3, activation=kl.ReLU(name="own"), name="wrapped"),
            kl.Dense(2, activation="softmax", name="head"),
        ]
    )


X = rectified(3, 6, 6, 2)
MODEL = model()


@pytest.mark.parametrize(
    ("layers", "names"),
    [
        ("relu", ["first", "second", "memory", "wrapped", "wrapped/own"]),
        ("ReLU", ["first", "second", "memory", "wrapped", "wrapped/own"]),
        ("conv2d", ["edges", "second"]),
        ("Dense", ["wrapped", "head"]),
        ("linear", ["edges"]),
        (["softmax", "edges", "LSTM"], ["head", "edges", "memory"]),
        ("lstmcell", ["memory/lstm_cell"]),
    ],
)
def test_a_name_of_an_activation_or_a_type_chooses(layers, names):
    chosen = layer_selection.select(MODEL, layer_selection.check_layers(layers))
    assert [w.name for w in chosen] == names


def test_a_layer_that_is_an_activation_counts_once_by_default():
    names = [w.name for w in layer_selection.select(MODEL)]
    assert names == ["first", "second", "memory", "wrapped", "head"]
    [own] = layer_selection.select(MODEL, ["wrapped/own"])
    assert own.layer is MODEL.get_layer("wrapped").activation


@pytest.mark.parametrize(
    ("activation", "is_rectifier", "ends_a_model", "names"),
    [
        (kl.ReLU(), True, False, ["layer"]),
        (kl.LeakyReLU(), False, False, ["layer"]),
        (kl.Softmax(), False, True, ["layer"]),
        (kl.Activation("relu"), True, False, ["layer"]),
        (kl.Activation("linear"), False, True, []),
        (kl.Identity(), False, False, ["layer"]),
    ],
)
def test_it_gives_the_layer_around_it_its_kind(
    activation, is_rectifier, ends_a_model, names
):
    layer = kl.Dense(3, activation=activation, name="layer")
    assert layer_selection.is_rectifier(layer) == is_rectifier
    assert layer_selection.has_output_activation(layer) == ends_a_model
    small = keras.Sequential([keras.Input((4,)), layer, kl.ReLU(name="last")])
    assert [w.name for w in layer_selection.select(small)] == [*names, "last"]


@pytest.mark.parametrize(
    ("cell", "is_rectifier", "names"),
    [
        (kl.LSTMCell(3), False, ["layer"]),
        ([kl.LSTMCell(3, activation="linear"), kl.GRUCell(2)], False, ["layer"]),
        ([kl.GRUCell(2), kl.SimpleRNNCell(3, activation="linear")], False, []),
        (SparseoutCellWrapper(kl.SimpleRNNCell(3, "relu")), True, ["layer"]),
        (Bridgeout(kl.SimpleRNNCell(3, "relu"), 0.5), True, ["layer"]),
        ([kl.GRUCell(2), Shakeout(kl.SimpleRNNCell(3), 0.5, 0.1)], False, ["layer"]),
    ],
)
def test_an_rnn_has_the_activation_of_its_last_cell(cell, is_rectifier, names):
    layer = kl.RNN(cell, name="layer")
    small = keras.Sequential([keras.Input((4, 2)), layer, kl.Softmax(name="last")])
    assert [w.name for w in layer_selection.select(small)] == [*names, "last"]
    assert layer_selection.is_rectifier(layer) == is_rectifier
    if is_rectifier:
        assert [w.layer for w in layer_selection.select(small, ["relu"])] == [layer]


def test_names_and_expressions_go_before():
    named = model(first="relu")
    assert [w.name for w in layer_selection.select(named, ["relu"])] == ["relu"]
    chosen = layer_selection.select(named, ["re.*", "softmax"])
    assert [w.name for w in chosen] == ["relu", "reshape", "head"]


def test_totals_stay_those_of_the_whole_model():
    x = X[:, 0, :, 0]
    layers = [kl.Dense(3), kl.Dense(2, "softmax", name="head")]
    small = keras.Sequential([keras.Input((6,)), *layers])
    cut = activation_sparsity(small, x, layers="softmax")
    assert list(rows(cut)) == ["head"]
    effective = 6 * np.mean(x != 0) * 3 + 3 * 2
    assert cut.macs_by_kind == {"Dense": (pytest.approx(effective), 24)}
    assert cut.macs_by_kind == activation_sparsity(small, x).macs_by_kind


def test_a_tracker_takes_them_too():
    MODEL.compile("sgd", "mse", run_eagerly=True)
    tracker = SparsityTracker(layers="softmax", metrics="hoyer", verbose=0)
    MODEL.fit(X, np.ones((3, 2)), verbose=0, callbacks=[tracker])
    assert list(tracker.history) == ["epoch", "hoyer/head", "hoyer"]


def test_what_names_neither_says_so():
    with pytest.raises(ValueError, match=r"`layers` must be layers of the model"):
        layer_selection.select(MODEL, ["gelu"])


def test_an_activation_that_is_called_by_itself_too_counts():
    act = kl.ReLU(name="act")
    inputs = keras.Input((4,))
    x = act(kl.Dense(3, name="first")(inputs))
    twice = keras.Model(inputs, kl.Dense(3, activation=act, name="second")(x))
    assert [w.name for w in layer_selection.select(twice)] == ["act", "second"]
