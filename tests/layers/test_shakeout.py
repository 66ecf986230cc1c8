"""What Shakeout draws and computes."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from noisy import DROPPED, RATE, C, assert_two_points, gradients

from keras_sparseout.layers.shakeout import Shakeout
from keras_sparseout.ops import masks

L = keras.layers


def test_with_c_0_it_is_dropout_of_the_inputs():
    x = np.random.default_rng(0).normal(size=(4, 6)).astype("float32")
    layer = Shakeout(L.Dense(3), RATE, c=0, seed=5)
    layer.build((4, 6))
    seed = masks.seed_pair(keras.random.SeedGenerator(5))
    keep = masks.bernoulli((6, 1), RATE, seed)[0].numpy()[:, 0]
    np.testing.assert_allclose(
        layer(x, training=True), layer.layer(x * keep / (1 - DROPPED)), rtol=1e-5
    )


def test_of_a_convolution_with_c_0_it_is_spatial_dropout_of_the_inputs():
    x = np.random.default_rng(0).normal(size=(4, 6, 6, 4)).astype("float32")
    layer = Shakeout(L.Conv2D(6, 3, groups=2), RATE, c=0, seed=5)
    layer.build(x.shape)
    seed = masks.seed_pair(keras.random.SeedGenerator(5))
    keep = masks.bernoulli((1, 1, 2, 2), RATE, seed)[0].numpy()[0, 0]
    # Channels of the first group, then those of the second.
    dropped = x * keep.T.ravel() / (1 - DROPPED)
    np.testing.assert_allclose(
        layer(x, training=True), layer.layer(dropped), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("size", [0.05, -1.7])
def test_mean_and_variance_are_those_of_the_formula(size):
    constant = keras.initializers.Constant(size)
    layer = Shakeout(L.Dense(2, kernel_initializer=constant), RATE, C, seed=1)
    # It draws once per row.
    layer.build((1, 2**15))
    drawn = np.concatenate([layer.draw()[0][1].numpy()[:, 0] for _ in range(2)])
    variance = (abs(size) + C) ** 2 * DROPPED / (1 - DROPPED)
    assert_two_points(drawn.astype("float64"), size, variance)


@pytest.mark.parametrize("adjustable", [False, True])
def test_rates_0_and_1(adjustable):
    x = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
    for rate in (0.0, 1.0):
        dense = L.Dense(4, use_bias=False)
        layer = Shakeout(dense, rate, 0.5, adjustable=adjustable)
        y, found = gradients(layer, x, training=True)
        if rate == 0:
            np.testing.assert_array_equal(y, layer(x))
        else:
            assert not y.any()
            assert not found["kernel"].any()


def test_in_half_precision_it_saturates_the_gradient():
    layer = Shakeout(L.Dense(8, dtype="float16"), 0.5, 0.1)
    layer.build((None, 8))
    kernel = layer.layer.kernel.value
    with tf.GradientTape() as tape:
        ((_, noisy),) = layer.draw()
    upstream = tf.fill(noisy.shape, tf.constant(60000, "float16"))
    gradient = tape.gradient(noisy, kernel, output_gradients=upstream)
    assert set(np.unique(gradient)) == {0, 65504}
