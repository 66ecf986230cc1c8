"""Which layers add noise: they train, and everything else is in inference."""

import keras
import numpy as np
import pytest
from keras import layers as kl
from uncertain import InTraining, X, assert_untouched, states

from keras_sparseout import (
    Bridgeout,
    Shakeout,
    Sparseout,
    SparseoutCellWrapper,
    SpatialSparseout1D,
    TargetSparsity,
)
from keras_sparseout.models import mc_predict


class Cell(kl.SimpleRNNCell):
    """An RNN cell of a user, with a layer inside that tells of training."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.inner, self.drop = InTraining(), kl.Dropout(0.2)

    def call(self, x, states, training=False):
        output, states = super().call(x, states, training=training)
        return self.drop(self.inner(output), training=training), states


class Block(kl.Layer):
    """Layers of a user's layer, which get `training` from Keras."""

    def __init__(self, *layers):
        super().__init__()
        self.inner = [*layers, kl.BatchNormalization(), InTraining()]

    def build(self, shape):
        for layer in self.inner:
            layer.build(shape)

    def call(self, x):
        for layer in self.inner:
            x = layer(x)
        return x


class Always(kl.Dropout):
    """Drops at inference too."""

    def call(self, x):
        return super().call(x, training=True)


class Positional(kl.Layer):
    """Hands `training` on by position, to the method itself."""

    def __init__(self):
        super().__init__()
        self.drop = kl.Dropout(0.5)

    def call(self, x, training=False):
        return self.drop.call(x, training)


def within(layer):
    return keras.Sequential([layer, kl.BatchNormalization(), InTraining()])


NOISY = {
    "Dropout": lambda: kl.Dropout(0.5),
    "Always": lambda: Always(0.5),
    "Positional": lambda: Positional(),
    "AlphaDropout": lambda: kl.AlphaDropout(0.5),
    "GaussianDropout": lambda: kl.GaussianDropout(0.5),
    "GaussianNoise": lambda: kl.GaussianNoise(0.5),
    "Sparseout": lambda: Sparseout(0.5, q=1.5, jit_compile=False),
    "compiled": lambda: Sparseout(0.5, q=1.5, adjustable=True, jit_compile=True),
    "SpatialSparseout1D": lambda: SpatialSparseout1D(0.5, jit_compile=False),
    "Bridgeout": lambda: Bridgeout(within(kl.Dense(4)), 0.5),
    "Shakeout": lambda: Shakeout(within(kl.Dense(4)), 0.5, 0.1),
    "SimpleRNN": lambda: kl.SimpleRNN(4, dropout=0.5),
    "Bidirectional": lambda: kl.Bidirectional(kl.LSTM(4, dropout=0.5)),
    "cells": lambda: kl.RNN([Cell(4, dropout=0.2), Cell(4)]),
    "SparseoutCellWrapper": lambda: kl.RNN(
        SparseoutCellWrapper(kl.StackedRNNCells([Cell(4)]), 0.5, 0.2)
    ),
    "Bridgeout cell": lambda: kl.RNN(Bridgeout(Cell(4), 0.5)),
    "TimeDistributed": lambda: kl.TimeDistributed(within(kl.Dropout(0.5))),
    "Block": lambda: Block(Bridgeout(kl.Dense(8), 0.5), kl.Dropout(0.5)),
}


def test_noise_layers_train_and_nothing_else_does():
    y = inputs = keras.Input((3, 8))
    for quiet in (kl.BatchNormalization(), TargetSparsity(0.3), InTraining()):
        y = quiet(y)
    # All in one model: it is traced once.
    outputs = {kind: InTraining()(make()(y)) for kind, make in NOISY.items()}
    model = keras.Model(inputs, outputs)
    before = states(model)
    means, deviations = mc_predict(model, X, 8, 0)
    for kind in NOISY:
        # Where it trains, InTraining adds 1000.
        assert np.abs(means[kind]).max() < 100, kind
        assert np.mean(deviations[kind] > 0) > 0.5, kind
    assert_untouched(model, before)


@pytest.mark.parametrize("kind", ["multi-head", "grouped", "dot"])
def test_dropout_in_attention(kind):
    x = keras.Input((3, 8))
    if kind == "dot":
        y = kl.Attention(dropout=0.5)([x, x])
    elif kind == "grouped":
        y = kl.GroupQueryAttention(4, 2, 2, dropout=0.5)(x, x)
    else:
        y = kl.MultiHeadAttention(2, 4, dropout=0.5)(x, x)
    _, deviation = mc_predict(keras.Model(x, y), X, 8, 0)
    assert np.mean(deviation > 0) > 0.9


def test_convolutional_recurrent_layers():
    x = np.ones((2, 3, 4, 4, 1), "float32")
    layer = kl.ConvLSTM2D(2, 2, dropout=0.5, recurrent_dropout=0.2)
    model = keras.Sequential([keras.Input(x.shape[1:]), layer])
    assert np.mean(mc_predict(model, x, 8, 0)[1] > 0) > 0.5
