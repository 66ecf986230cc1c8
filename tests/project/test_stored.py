"""Files that earlier versions wrote still load, and give what they then gave."""

import json

import keras
import numpy as np
import pytest
import stored
import tensorflow as tf

FOLDER = stored.FILES / "0.1.0"


def case(name):
    """The folder of a layer, its inputs, what it gave for them, and its states."""
    here = FOLDER / name
    with np.load(here / "predictions.npz") as arrays:
        x, y = arrays["x"], arrays["y"]
    return here, x, y, json.loads((here / "states.json").read_text())


def assert_predicts(model, x, y):
    # Other processors round otherwise.
    np.testing.assert_allclose(model(x), y, rtol=1e-4, atol=1e-5)


@pytest.mark.onednn
@pytest.mark.parametrize("name", stored.LAYERS)
def test_a_model_is_what_it_was(name):
    here, x, y, states = case(name)
    model = keras.saving.load_model(here / "model.keras")
    assert_predicts(model, x, y)
    assert stored.states(model) == states
    # And it still trains; to trace that would take longer.
    model.run_eagerly = True
    model.train_on_batch(x, np.ones((5, 2)))


# Of a layer, one with knobs, and two kinds around others. All weights are in files of
# whole models, too.
@pytest.mark.onednn
@pytest.mark.parametrize(
    "name", ["sparseout", "target_sparsity", "cells", "bridgeout_lstm"]
)
def test_weights_load_into_a_model_of_today(name):
    here, x, y, states = case(name)
    model = stored.build(name)
    model.load_weights(here / "model.weights.h5")
    assert_predicts(model, x, y)
    assert stored.states(model) == states


# An export runs no code of this package.
@pytest.mark.onednn
@pytest.mark.parametrize("name", ["target_sparsity", "bridgeout_lstm"])
def test_a_saved_model_predicts(name):
    here, x, y, _ = case(name)
    exported = tf.saved_model.load(str(here / "exported"))
    assert_predicts(exported.serve, x, y)


@pytest.mark.parametrize("name", stored.METRICS)
def test_a_metric_has_its_options_and_gives_what_it_gave(name):
    old = json.loads((FOLDER / "metrics.json").read_text())[name]
    metric = keras.saving.deserialize_keras_object(old["config"])
    assert type(metric) is type(stored.METRICS[name]())
    # Keras numbers the names of metrics that are made later.
    today = stored.METRICS[name]().get_config()
    assert metric.get_config() == {**today, "name": old["config"]["config"]["name"]}
    metric.update_state(stored.ACTIVATIONS)
    np.testing.assert_allclose(np.asarray(metric.result()), old["result"], rtol=1e-6)


def test_what_these_tests_compare_can_differ():
    model = stored.build("bridgeout")
    _, x, y, states = case("bridgeout")
    with pytest.raises(AssertionError):
        assert_predicts(model, x, y)
    assert stored.states(model) != states
