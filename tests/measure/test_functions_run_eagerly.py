"""With `tf.config.run_functions_eagerly(True)`, as one looks for a fault."""

import numpy as np
import pytest
import tensorflow as tf
from controlled import X, Y, classifier
from keras import layers as kl

from keras_sparseout import (
    Bridgeout,
    Sparseout,
    SparseoutScheduler,
    SparsityController,
    SparsityTracker,
    SpatialSparseout2D,
)


@pytest.fixture(autouse=True)
def _eagerly():
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.mark.parametrize("q", [1.0, 1.7, 2.0])
@pytest.mark.parametrize("adjustable", [False, True])
def test_layers_draw(q, adjustable):
    x = tf.random.stateless_uniform((30, 4, 4, 16), [1, 2], 0.5)
    knobs = {"rate": 0.3, "q": q, "seed": 1, "adjustable": adjustable}
    layers = [Sparseout(**knobs), Sparseout(**knobs, jit_compile=True)]
    for layer in [*layers, SpatialSparseout2D(**knobs)]:
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
        assert np.isfinite(tape.gradient(y, x)).all()
        # At q = 2 what is dropped is 0, else it is not.
        assert 0.2 < np.mean(y < x) < 0.8
        assert abs(np.mean(y) - np.mean(x)) < 0.2
    # Weights in a large number are drawn by a compiled function.
    dense = Bridgeout(kl.Dense(256), 0.3, q, seed=1, adjustable=adjustable)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(dense(tf.ones((1, 512)), training=True) ** 2)
    assert np.isfinite(tape.gradient(loss, dense.trainable_variables)[0]).all()


def test_a_fit_is_measured():
    model = classifier()
    model.compile("sgd", "mse")
    t, controller = SparsityTracker(verbose=0), SparsityController(0.5, verbose=0)
    rate = SparseoutScheduler(rate=lambda step: 0.3, verbose=0)
    with pytest.warns(UserWarning, match="run_functions_eagerly"):
        model.fit(X[:64], Y[:64], verbose=0, callbacks=[t, controller, rate])
    assert 0.2 < t.history["zero_fraction"][0] < 0.8
    assert controller.history["epoch"] == [0.5, 1]
