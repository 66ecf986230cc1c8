"""Measures in `compile(metrics=[...])`, where Keras gives targets and predictions."""

import keras
import numpy as np
import pytest

from keras_sparseout import metrics

X = np.array([[1.0, 2.0, 0.0], [3.0, 0.0, 0.0]], "float32")
CLASSES = [name for name in metrics.__all__ if isinstance(getattr(metrics, name), type)]
FUNCTIONS = [name for name in metrics.__all__ if name not in CLASSES]


def made(name):
    options = [keras.ops.max] if name == "SampleMean" else []
    return getattr(metrics, name)(*options)


def refusal(name):
    return pytest.raises(
        ValueError,
        match=rf"`x` must be the activations of a layer, .*Received: a call of {name} "
        r"with both\. .*SparsityTracker\(metrics=",
    )


@pytest.mark.parametrize("place", ["metrics", "weighted_metrics"])
@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize("name", ["Hoyer", "FiringRate", "hoyer", "rms"])
def test_keras_gets_what_to_do(name, eager, place):
    metric, what = getattr(metrics, name), name
    if name in CLASSES:
        metric, what = metric(), f"{name}.update_state"
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3)])
    kept = {place: [metric], "run_eagerly": eager, "jit_compile": False}
    model.compile("sgd", "mse", **{"metrics": [], **kept})
    with refusal(what):
        model.evaluate(X, X, verbose=0)


@pytest.mark.parametrize("name", CLASSES)
def test_each_metric_refuses_targets(name):
    with refusal(f"{name}.update_state"):
        made(name).update_state(X, X, sample_weight=None)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_each_function_refuses_targets(name):
    for x in (X, keras.ops.convert_to_tensor(X)):
        with refusal(name):
            getattr(metrics, name)(x, x)


def test_arguments_by_position_stay():
    by_place, by_name = metrics.Hoyer(), metrics.Hoyer()
    by_place.update_state(X, [1, 2], np.array([True, False]))
    by_name.update_state(x=X, sample_weight=[1, 2], mask=np.array([True, False]))
    assert float(by_place.result()) == float(by_name.result())
    np.testing.assert_array_equal(metrics.hoyer(X, 0), metrics.hoyer(X, axis=0))
