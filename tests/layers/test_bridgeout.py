"""What Bridgeout draws and computes, also where a large weight compiles it."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from noisy import DROPPED, RATE, Q, assert_two_points, gradients

from keras_sparseout import Sparseout
from keras_sparseout.backend import random
from keras_sparseout.layers.bridgeout import Bridgeout
from keras_sparseout.ops import masks

L = keras.layers
# With so many units the draw is compiled. Layers of one shape share programs.
COMPILED = 256


def test_at_q_2_it_is_dropconnect():
    x, w = np.float32([[1, 2, 3]]), np.float32([[1, -2], [3, 4], [0, 5]])
    dense = L.Dense(2, use_bias=False)
    layer = Bridgeout(dense, 0.5, seed=6)
    layer.build((1, 3))
    dense.kernel.assign(w)
    seed = masks.seed_pair(keras.random.SeedGenerator(6))
    keep = masks.bernoulli((3, 2), 0.5, seed)[0].numpy()
    np.testing.assert_array_equal(layer(x, training=True), x @ (w * keep * 2))


@pytest.mark.parametrize(("units", "size"), [(64, 0.05), (64, -1.7), (COMPILED, -1.7)])
def test_mean_and_variance_are_those_of_the_formula(units, size):
    constant = keras.initializers.Constant(size)
    layer = Bridgeout(L.Dense(units, kernel_initializer=constant), RATE, Q, seed=1)
    layer.build((1, 256))
    drawn = np.concatenate([layer.draw()[0][1].numpy().ravel() for _ in range(4)])
    variance = abs(size) ** Q * DROPPED / (1 - DROPPED)
    assert_two_points(drawn.astype("float64"), size, variance)


@pytest.mark.parametrize(
    ("units", "adjustable"),
    [(4, False), (4, True), (COMPILED, False), (COMPILED, True)],
)
def test_rates_0_and_1(units, adjustable):
    x = np.random.default_rng(0).normal(size=(3, units)).astype("float32")
    dense = L.Dense(units, use_bias=False)
    for rate in (0.0, 1.0):
        layer = Bridgeout(dense, rate, 0.5, adjustable=adjustable)
        y, found = gradients(layer, x, training=True)
        if rate == 0:
            np.testing.assert_array_equal(y, layer(x))
        else:
            assert not y.any()
            assert not found["kernel"].any()


@pytest.mark.parametrize(
    ("units", "q", "stop_gradient"),
    [
        *((6, q, True) for q in (0.0, 1.3, 2.0, 8.0)),
        *((6, q, False) for q in (1.3, 2.5)),
        # From q = 5.6 on products are saturated.
        *((COMPILED, q, True) for q in (1.3, 8.0)),
        (COMPILED, 1.3, False),
    ],
)
def test_it_is_sparseout_of_the_weights(units, q, stop_gradient):
    settings = {"seed": 4, "stop_gradient": stop_gradient}
    layer = Bridgeout(L.Dense(units, use_bias=False), 0.4, q, **settings)
    layer.build((None, units))
    w = np.random.default_rng(0).normal(0, 0.05, (units, units)).astype("float32")
    w[0] = 0
    layer.layer.kernel.assign(w)
    x = np.eye(units, dtype="float32")
    y, found = gradients(layer, x, training=True)
    reference = Sparseout(0.4, q, jit_compile=units > 6, **settings)
    with tf.GradientTape() as tape:
        tape.watch(w := tf.constant(w))
        expected = reference(w, training=True)
        loss = tf.reduce_sum(tf.square(expected))
    np.testing.assert_allclose(y, expected, rtol=1e-5)
    np.testing.assert_allclose(
        found["kernel"], tape.gradient(loss, w), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize(
    ("units", "q", "size"),
    [
        *((6, q, size) for q, size in ((1e3, 1e12), (0.0, 0.0))),
        # At 4.5 nothing is saturated, since nothing can overflow.
        *((COMPILED, q, 1e12) for q in (1e3, 8.0, 4.5)),
        (COMPILED, 0.0, 0.0),
    ],
)
def test_products_that_overflow_are_saturated(units, q, size):
    constant = keras.initializers.Constant(size)
    layer = Bridgeout(
        L.Dense(units, kernel_initializer=constant), 0.5, q, epsilon=1e-30
    )
    layer.build((None, units))
    kernel = layer.layer.kernel.value
    with tf.GradientTape() as tape:
        ((_, noisy),) = layer.draw()
    upstream = tf.fill(noisy.shape, 1e12)
    gradient = tape.gradient(noisy, kernel, output_gradients=upstream)
    assert np.isfinite(noisy).all()
    assert np.isfinite(gradient).all()
    assert len(np.unique(gradient)) == 2


@pytest.mark.parametrize("noise_shape", [(None, 1), (1, None), (6, 1), (1, 1)])
def test_noise_shape_sets_where_draws_are_shared(noise_shape):
    dense = L.Dense(8, kernel_initializer="ones")
    layer = Bridgeout(dense, 0.5, noise_shape=noise_shape)
    layer.build((None, 6))
    patterns = set()
    for _ in range(5):
        ((_, drawn),) = layer.draw()
        drawn = drawn.numpy()
        corner = drawn[tuple(slice(1 if n == 1 else None) for n in noise_shape)]
        np.testing.assert_array_equal(drawn, np.broadcast_to(corner, drawn.shape))
        patterns.add(drawn.tobytes())
    assert len(patterns) > 1


def test_an_embedding_has_one_draw_an_element_if_asked():
    ones = {"embeddings_initializer": "ones"}
    rows = Bridgeout(L.Embedding(50, 8, **ones), 0.5)
    elements = Bridgeout(L.Embedding(50, 8, **ones), 0.5, noise_shape=(None, None))
    for layer, constant in ((rows, True), (elements, False)):
        y = layer(np.arange(50), training=True).numpy()
        assert (y == y[:, :1]).all() == constant
        assert len(np.unique(y)) == 2


def test_a_word_is_dropped_wherever_it_is_in_the_batch():
    layer = Bridgeout(L.Embedding(20, 4, embeddings_initializer="ones"), 0.5)
    y = layer(np.tile(np.arange(20), (3, 2)), training=True).numpy()
    y = y.reshape(6, 20, 4)
    np.testing.assert_array_equal(y, np.broadcast_to(y[:1], y.shape))


class Twice(L.Embedding):
    """An Embedding with a call of its own."""

    def call(self, inputs):
        return 2 * super().call(inputs)


@pytest.mark.parametrize("noise_shape", [None, (None, None), (1, None), (1, 1)])
def test_rows_that_are_looked_up_have_the_noise_of_the_whole_table(noise_shape):
    ids = np.array([[3, 0, 3], [19, 7, -1]])
    results = []
    for kind in (L.Embedding, Twice):
        keras.utils.set_random_seed(1)
        layer = Bridgeout(kind(20, 4), 0.5, 1.5, noise_shape=noise_shape, seed=2)
        layer.build(ids.shape)
        with tf.GradientTape() as tape:
            y = layer(ids, training=True)
        slope = tape.gradient(y, layer.layer.embeddings.value)
        results.append((y, tf.convert_to_tensor(slope)))
    # The wrapper knows nothing of what `Twice` does: there it perturbs the table.
    for rows, whole in zip(*results, strict=True):
        np.testing.assert_allclose(2 * rows, whole, rtol=1e-6)


def test_no_mask_of_the_whole_table_is_drawn(monkeypatch):
    monkeypatch.delattr(random, "bits_at_least")
    layer = Bridgeout(L.Embedding(20, 4, embeddings_initializer="ones"), 0.5, seed=1)
    assert set(np.unique(layer(np.arange(20), training=True))) == {0, 2}


def test_an_embedding_with_an_activity_regularizer_keeps_its_loss():
    layer = Bridgeout(L.Embedding(20, 4, activity_regularizer="l2"), 0.5)
    layer(np.arange(20), training=True)
    (loss,) = layer.losses
    assert loss > 0


def test_an_embedding_takes_ragged_inputs_in_training():
    layer = Bridgeout(L.Embedding(20, 4, embeddings_initializer="ones"), 0.5, seed=1)
    rows = layer(tf.ragged.constant([[1, 2], [2]]), training=True)
    assert rows.shape[:1] + rows.shape[2:] == (2, 4)
    np.testing.assert_array_equal(rows[0][1], rows[1][0])
