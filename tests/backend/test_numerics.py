"""Training and measuring under tf.debugging.enable_check_numerics()."""

import math

import batched
import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_sparseout import (
    ActivationPenalty,
    Bridgeout,
    Shakeout,
    Sparseout,
    SparseoutCellWrapper,
    SparsityController,
    SparsityTracker,
    activation_sparsity,
    metrics,
)
from keras_sparseout.backend import numerics

FUNCTIONS = (
    *("hoyer", "gini", "population_sparseness", "pq_index", "kurtosis"),
    *("zero_fraction", "firing_rate", "dead_units", "lifetime_sparseness", "rms"),
)
STREAMING = (
    *("Hoyer", "Gini", "PopulationSparseness", "PQIndex", "Kurtosis", "ZeroFraction"),
    *("FiringRate", "DeadUnits", "LifetimeSparseness", "RMS", "ActivationHistogram"),
)
ALL_METRICS = [*FUNCTIONS, "histogram"]


@pytest.fixture(autouse=True)
def _checked():
    tf.debugging.enable_check_numerics()
    yield
    tf.debugging.disable_check_numerics()


def model_of(*layers, inputs=(9,)):
    model = keras.Sequential([keras.Input(inputs), *layers, keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return model


def fit(model, *callbacks, x=None, **kwargs):
    if x is None:
        x = np.random.default_rng(1).normal(size=(14, *model.input_shape[1:]))
    y = np.ones((14, 1))
    options = {"batch_size": 7, "verbose": 0, "callbacks": list(callbacks)}
    return batched.fit(model, x, y, **options, **kwargs)


def test_every_layer_trains():
    dense = keras.layers.Dense
    model = model_of(
        dense(185, activation="relu"),
        Sparseout(0.3, q=1.5),
        Sparseout(0.3, q=1.3, stop_gradient=False),
        Sparseout(0.3, q=4, adjustable=True),
        Sparseout(0.3, q=1, jit_compile=False),
        Bridgeout(dense(185), 0.3, q=1.5),
        Bridgeout(dense(185), 0.3, q=1.3, adjustable=True),
        ActivationPenalty(1e-3, "hoyer_square"),
        Bridgeout(dense(13), 0.3, q=1.5),
        Shakeout(dense(13), 0.3, 0.1),
        # All is dropped, and 1 / (1 - rate) infinite.
        Shakeout(dense(13), 1.0, 0.1, adjustable=True),
        Sparseout(1.0, q=1.5, adjustable=True),
        Sparseout(1.0, q=1.5, adjustable=True, jit_compile=False),
    )
    before = [w.numpy() for w in model.trainable_weights]
    fit(model)
    after = [w.numpy() for w in model.trainable_weights]
    assert np.any(before[-1] != after[-1])
    assert all(np.all(np.isfinite(w)) for w in after)
    assert numerics.is_checking()


@pytest.mark.parametrize("jit_compile", [True, False])
@pytest.mark.parametrize("eager", [True, False])
def test_what_is_kept_checks_nothing_afterwards(jit_compile, eager):
    layer = Sparseout(0.3, q=1.5, jit_compile=jit_compile)

    def gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
        return tape.gradient(y, x, tf.fill(x.shape, math.nan))

    def run(x):
        return (gradient if eager else tf.function(gradient, autograph=False))(x)

    with pytest.raises(tf.errors.InvalidArgumentError):
        run(tf.ones((3, 7)))
    tf.debugging.disable_check_numerics()
    assert np.isnan(run(tf.fill((3, 7), math.nan)).numpy()).any()


def test_a_cell_trains():
    cell = SparseoutCellWrapper(keras.layers.LSTMCell(5), 0.3, q=1.5)
    model = model_of(keras.layers.RNN(cell), inputs=(3, 4))
    before = [w.numpy() for w in model.trainable_weights]
    fit(model)
    for old, new in zip(before, model.trainable_weights, strict=True):
        assert np.any(old != new.numpy())
        assert np.all(np.isfinite(new.numpy()))
    assert numerics.is_checking()


@pytest.mark.onednn
def test_callbacks_and_tables_of_zeros():
    x = np.zeros((14, 9))
    # Without "gini" and "histogram" the sums of a step are compiled.
    trackers = [
        SparsityTracker(metrics=["hoyer", "dead_units"], verbose=0),
        SparsityTracker(x, metrics=ALL_METRICS, verbose=0),
    ]
    controller = SparsityController(0.6, every=1, verbose=0)
    model = model_of(
        keras.layers.Dense(13, activation="relu"),
        Sparseout(0.3, q=1.5, adjustable=True, name="hidden"),
    )
    fit(model, *trackers, controller, x=x)
    assert np.isnan(trackers[0].history["hoyer/hidden"]).all()
    assert np.isnan(trackers[1].history["val_kurtosis/hidden"]).all()
    assert controller.history["zero_fraction/hidden"][0] == 1.0
    every = SparsityTracker(metrics=ALL_METRICS, verbose=0)
    fit(model, every, x=x, validation_data=(x, np.ones((14, 1))))
    assert np.isnan(every.history["val_hoyer/hidden"]).all()
    table = activation_sparsity(model, x, verbose=0)
    assert np.isnan(table.rows[0]["hoyer"])
    assert numerics.is_checking()


@pytest.mark.parametrize("kind", [np.zeros, tf.zeros])
def test_undefined_figures_raise_nothing(kind):
    figures = {f: getattr(metrics, f)(kind((2, 3))) for f in FUNCTIONS}
    assert all(np.isnan(figures[name]).all() for name in FUNCTIONS[:5])
    assert np.isnan(figures["lifetime_sparseness"]).all()
    for name in STREAMING:
        metric = getattr(metrics, name)(name="zeros")
        assert np.isnan(metric.result()), name
        metric.update_state(kind((2, 3)))
        metric.result()
    assert np.isnan(metric.gini())


@pytest.mark.onednn
@pytest.mark.parametrize("jit_compile", [True, False])
def test_real_nan_is_still_found(jit_compile):
    model = model_of(
        keras.layers.Dense(13), Sparseout(0.3, q=1.5, jit_compile=jit_compile)
    )
    model.layers[0].kernel.assign(np.full((9, 13), np.nan))
    with pytest.raises(tf.errors.InvalidArgumentError, match="NaN"):
        fit(model, SparsityTracker(verbose=0))


def test_the_check_is_on_again_after_an_error():
    @numerics.unchecked()
    def fail():
        assert not numerics.is_checking()
        raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert numerics.is_checking()
    tf.debugging.disable_check_numerics()
    with pytest.raises(KeyError):
        fail()
    assert not numerics.is_checking()
