"""Models with the layers of this package, in all places where they can be."""

import keras
import numpy as np
from keras import layers as L
from rebuilt import IDS, RNG, SEQUENCES, X, layers_in

import keras_sparseout as ks

# A NaN must stay one.
GAPS = X.copy()
GAPS[0, 3] = np.nan


def started(model):
    """Gives thresholds that cut something to the layers in `model`."""
    for layer in layers_in(model).values():
        if isinstance(layer, ks.TargetSparsity):
            centred = layer.get_config()["centre"] is not None
            values = np.abs(RNG.normal(size=layer.threshold.shape)) / 2
            layer.start(values, *([0.1] if centred else []))
    return model


def all_kinds():
    return keras.Sequential(
        [
            keras.Input((8,)),
            L.Dense(6, "relu", name="a"),
            ks.Sparseout(0.5, adjustable=True, name="noise"),
            ks.ActivationPenalty(0.1, name="penalty"),
            ks.Bridgeout(L.Dense(4, name="b"), 0.3, adjustable=True, name="bridge"),
            ks.Shakeout(ks.Bridgeout(L.Dense(2, name="c"), 0.3), 0.2, 0.1, name="both"),
        ]
    )


def cells():
    def cell():
        return ks.SparseoutCellWrapper(L.LSTMCell(4), 0.3, 0.3)

    stack = L.StackedRNNCells([L.GRUCell(3), ks.Bridgeout(L.LSTMCell(4), 0.3)])
    return keras.Sequential(
        [
            keras.Input((6, 8)),
            ks.SpatialSparseout1D(0.3),
            L.RNN(cell(), return_sequences=True),
            L.Bidirectional(L.RNN(cell(), return_sequences=True)),
            L.RNN(stack),
        ]
    )


def in_time():
    inner = keras.Sequential(
        [
            keras.Input((3,)),
            ks.Bridgeout(L.Dense(4, name="d"), 0.2),
            ks.TargetSparsity(0.3, axis=-1, name="cut"),
            ks.Sparseout(0.3),
        ],
        name="inner",
    )
    return keras.Sequential(
        [
            keras.Input((6, 8)),
            L.TimeDistributed(ks.Sparseout(0.5)),
            L.TimeDistributed(ks.Bridgeout(L.Dense(3), 0.2)),
            L.TimeDistributed(ks.TargetSparsity(0.5)),
            L.TimeDistributed(inner),
        ]
    )


def masked():
    return keras.Sequential(
        [
            keras.Input((None,), dtype="int32"),
            L.Embedding(10, 8, mask_zero=True),
            ks.TargetSparsity(0.5),
            ks.Sparseout(0.5),
            L.LSTM(5, return_sequences=True),
            ks.ActivationPenalty(0.1),
            L.Bidirectional(L.LSTM(5)),
            L.Dense(2),
        ]
    )


def shared():
    inner = keras.Sequential(
        [
            keras.Input((8,)),
            ks.Bridgeout(L.Dense(8, "relu"), 0.3),
            ks.TargetSparsity(0.4),
        ],
        name="inner",
    )
    a, b = keras.Input((8,), name="a"), keras.Input((8,), name="b")
    noise, cut, dense = ks.Sparseout(0.3), ks.TargetSparsity(0.5), L.Dense(8)
    y = keras.ops.relu(noise(inner(a)) + noise(inner(b)))
    # The same layer with noise and without, and another one of its name.
    y = L.Add()(
        [
            dense(y),
            ks.Bridgeout(dense, 0.3)(y),
            ks.Bridgeout(L.Dense(8, name=dense.name), 0.2, name="other")(y),
        ]
    )
    return keras.Model([a, b], {"y": L.Dense(3)(cut(y)), "cut": [cut(inner(a))]})


def casting():
    x = keras.Input((8,))
    return keras.Model(x, ks.Sparseout(0.5, dtype="mixed_float16", name="noise")(x))


KINDS = {
    "all kinds": (all_kinds, GAPS),
    "cells": (cells, SEQUENCES),
    "in time": (in_time, SEQUENCES),
    "masked": (masked, IDS),
    "shared": (shared, [X, GAPS]),
    "casting": (casting, GAPS),
}
