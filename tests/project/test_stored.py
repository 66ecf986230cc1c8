"""Files that earlier versions wrote still load, and give what they then gave."""

import json

import keras
import numpy as np
import pytest
import stored
import tensorflow as tf

FOLDER = stored.FILES / "0.1.0"


@pytest.fixture(params=stored.LAYERS)
def case(request):
    here = FOLDER / request.param
    with np.load(here / "predictions.npz") as arrays:
        x, y = arrays["x"], arrays["y"]
    states = json.loads((here / "states.json").read_text())
    return request.param, here, x, y, states


def assert_predicts(model, x, y):
    # Other processors round otherwise.
    np.testing.assert_allclose(model(x), y, rtol=1e-4, atol=1e-5)


@pytest.mark.onednn
def test_a_model_is_what_it_was(case):
    _, here, x, y, states = case
    model = keras.saving.load_model(here / "model.keras")
    assert_predicts(model, x, y)
    assert stored.states(model) == states
    # And it still trains; to trace that would take longer.
    model.run_eagerly = True
    model.train_on_batch(x, np.ones((5, 2)))


@pytest.mark.onednn
def test_weights_load_into_a_model_of_today(case):
    name, here, x, y, states = case
    model = stored.build(name)
    model.load_weights(here / "model.weights.h5")
    assert_predicts(model, x, y)
    assert stored.states(model) == states


@pytest.mark.onednn
def test_a_saved_model_predicts(case):
    _, here, x, y, _ = case
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
    here = FOLDER / "bridgeout"
    with np.load(here / "predictions.npz") as arrays:
        x, y = arrays["x"], arrays["y"]
    with pytest.raises(AssertionError):
        assert_predicts(model, x, y)
    assert stored.states(model) != json.loads((here / "states.json").read_text())
