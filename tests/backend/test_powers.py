"""Powers for compiled functions, and their gradients."""

import numpy as np
import pytest
import tensorflow as tf

from keras_sparseout.backend import powers


@pytest.mark.onednn
@pytest.mark.parametrize("exponent", [-1.0, -0.35, 0.65, 1.5, 4.0])
def test_fused_powers_are_as_exact_as_exp_and_log(exponent):
    a = np.exp(np.random.default_rng(1).uniform(-69, 60, 10**5)).astype("float32")
    call = tf.function(powers.fused_power, jit_compile=True, autograph=False)
    result = call(a, tf.constant(exponent, tf.float32)).numpy().astype("float64")
    exact = a.astype("float64") ** exponent
    inside = (exact > 1e-37) & (exact < 1e38)
    # The error of the logarithm, up to 100 in base 2, counts times the exponent.
    error = np.abs(result / exact - 1)[inside]
    assert error.max() < 1e-6 + abs(exponent) * 100 * np.finfo("float32").eps
    assert np.all(result[exact > 3.5e38] == np.inf)
    assert np.all(result[exact < 1e-37] < 2e-37)


@pytest.mark.onednn
def test_fused_powers_have_the_gradient_of_powers():
    a = tf.constant([1e-7, 0.3, 1.0, 7.0])

    @tf.function(jit_compile=True, autograph=False)
    def derivatives(a):
        with tf.GradientTape() as outer:
            outer.watch(a)
            with tf.GradientTape() as tape:
                tape.watch(a)
                power = powers.fused_power(a, -0.35)
            first = tape.gradient(power, a)
        return first, outer.gradient(first, a)

    first, second = derivatives(a)
    wide = a.numpy().astype("float64")
    np.testing.assert_allclose(first, -0.35 * wide**-1.35, rtol=1e-5)
    np.testing.assert_allclose(second, 0.35 * 1.35 * wide**-2.35, rtol=1e-5)
