"""One compiled program for all rates and exponents, and what is kept of it."""

import gc
from itertools import product

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_sparseout import Bridgeout, Sparseout
from keras_sparseout.ops import compiled_noise

RATES = (0.1, 0.45, 0.9)


def graphs():
    """How many graphs of TensorFlow there are."""
    gc.collect()
    return sum(issubclass(type(thing), tf.Graph) for thing in gc.get_objects())


def test_other_rates_and_exponents_need_no_other_program():
    def call(rate, q):
        for adjustable, jit_compile in product((True, False), repeat=2):
            x = tf.ones((3, 17 + adjustable))
            settings = {"adjustable": adjustable, "jit_compile": jit_compile}
            Sparseout(rate, q, seed=1, **settings)(x, training=True)

    def call_on_weights(rate, q):
        layer = Bridgeout(keras.layers.Dense(256), rate, q, seed=1)
        layer(tf.ones((1, 129)), training=True)

    # Roots and products are programs of their own, powers are one.
    for q in (1.5, 2.0, 1.3):
        call(0.3, q)
    call_on_weights(0.3, 1.3)
    before = graphs()
    for rate, q in zip(RATES * 2, (1.5, 2.0, 1.3, 1.7, 2.7, 6.5), strict=True):
        call(rate, q)
    for rate, q in zip(RATES, (1.2, 1.7, 2.7), strict=True):
        call_on_weights(rate, q)
    assert graphs() == before


def test_programs_are_bounded_in_number():
    settings = {"noise_shape": None, "table": None, "stop_gradient": True}

    def program(size):
        return compiled_noise._perturbing_program(
            (None, size), None, None, epsilon=1e-7, **settings
        )

    first = program(0)
    assert program(0) is first
    for size in range(1, 200):
        program(size)
    assert program(0) is not first


@pytest.mark.usefixtures("gradients_of_tensorflow")
def test_what_calls_noise_is_freed():
    layers = [
        Sparseout(0.3, q=1.5, seed=1, jit_compile=False),
        *(
            Sparseout(0.3, 1.5, adjustable=True, target_fraction=0.75, jit_compile=jit)
            for jit in (True, False)
        ),
    ]

    def train(layer):
        kernel = tf.Variable(tf.ones((5, 19)))

        @tf.function(autograph=False)
        def step(x):
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(layer(x @ kernel, training=True))
            return tape.gradient(loss, kernel)

        step(tf.ones((3, 5)))

    for layer in layers:
        train(layer)
    before = graphs()
    for layer in layers * 2:
        train(layer)
    assert graphs() == before


@pytest.mark.onednn
@pytest.mark.parametrize("q", [1.0, 1.3, 2.0, 4.0, 8.0])
def test_rates_0_and_1_in_a_variable_are_exact(q):
    layer = Sparseout(0.5, q, seed=1, adjustable=True, jit_compile=True)
    x = tf.constant([[-40.0, -1.0, -0.0, 0.0, 1e-8, 3.0, 1e30]])
    for rate in (0.0, 1.0):
        layer.rate = rate
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
        np.testing.assert_array_equal(y, (1 - rate) * x)
        np.testing.assert_array_equal(tape.gradient(y, x), np.full_like(x, 1 - rate))


@pytest.mark.onednn
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("q", [0.7, 1.3, 5.0])
def test_exponents_are_as_exact_as_constants(q, dtype):
    rate = 0.3
    x = np.linspace(0.3, 2, 23)[None].astype(dtype)
    layer = Sparseout(rate, q, seed=1, jit_compile=True, dtype=dtype)
    y = layer(x, training=True).numpy().astype("float64")
    keep_prob = 1 - round(rate * 2**32) / 2**32
    wide = x.astype("float64")
    power = (wide + 1e-7) ** ((q - 2) / 2)
    both = [wide * (1 + power * (kept - 1)) for kept in (0.0, 1 / keep_prob)]
    error = np.min([np.abs(y - b) / (np.abs(b) + np.abs(wide)) for b in both], axis=0)
    wide_eps = np.finfo("float64" if dtype == "float64" else "float32").eps
    assert error.max() < max(np.finfo(dtype).eps, 16 * wide_eps)
