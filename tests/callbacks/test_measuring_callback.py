"""Trackers and controllers whose methods are called one by one, by no list."""

import keras
import numpy as np
import pytest
from stepped import X, Y, figures, net, tracker

from keras_sparseout import Bridgeout
from keras_sparseout.utils.layer_text import call_of


def test_a_tracker_that_no_list_calls_arms_itself():
    model = net()
    model.compile(keras.optimizers.SGD(0.0), "mse", run_eagerly=True)
    t = tracker()
    t.set_model(model)
    t.on_train_begin()
    t.on_epoch_begin(0)
    t.on_train_batch_begin(0)
    model.train_on_batch(X, Y)
    t.on_train_batch_end(0, {"loss": 1.0})
    t.on_test_begin()
    t.on_test_batch_begin(0)
    model.test_on_batch(X, Y)
    t.on_test_batch_end(0)
    t.on_test_end({"loss": 1.0})
    assert t.evaluated == pytest.approx(figures(model, prefix="val_"), rel=1e-5)
    logs = {}
    t.on_epoch_end(0, logs)
    expected = {**figures(model), **t.evaluated}
    assert logs == pytest.approx(expected, rel=1e-5)


def test_watching_inside_a_step_that_fit_measures_counts_once():
    t = tracker()

    class Watching(keras.Model):
        def train_step(self, data):
            with t.watching():
                return super().train_step(data)

    plain = net()
    model = Watching(plain.inputs, plain.outputs)
    model.compile(keras.optimizers.SGD(0.0), "mse")
    model.fit(X, Y, batch_size=len(X), verbose=0, callbacks=[t])
    expected = figures(model)
    assert {k: v for k, [v] in t.history.items() if k != "epoch"} == pytest.approx(
        expected, rel=1e-5
    )


def test_infinite_numbers_and_lists_as_text_evaluate():
    L = keras.layers
    constraint = keras.constraints.MaxNorm(float("inf"), axis=[0, 1])
    layer = Bridgeout(L.Conv2D(2, 1, kernel_constraint=constraint), 0.25)
    twin = eval(call_of(layer), {"keras": keras, "Bridgeout": Bridgeout})
    made = twin.layer.kernel_constraint
    assert made.max_value == np.inf
    assert list(made.axis) == [0, 1]
