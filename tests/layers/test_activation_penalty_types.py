"""ActivationPenalty in other types than float32: its own, and that of Keras."""

import batched
import keras
import numpy as np
import pytest
import tensorflow as tf
from penalties import gradient, loss

from keras_sparseout import ActivationPenalty


@pytest.fixture
def set_types():
    before = keras.config.floatx(), keras.config.dtype_policy()

    def set_both(floatx, policy):
        keras.config.set_floatx(floatx)
        # Keras may have made its policy already.
        keras.config.set_dtype_policy(policy)

    yield set_both
    set_both(*before)


@pytest.mark.parametrize("adjustable", [False, True])
@pytest.mark.parametrize("kind", ["l1", "hoyer_square"])
def test_float64_is_computed_in_float64(kind, adjustable, set_types):
    x = np.random.default_rng(0).normal(size=(4, 9))
    one, two = np.abs(x).sum(1, keepdims=True), np.square(x).sum(1, keepdims=True)
    two += 1e-14
    value, slope = one.mean(), np.sign(x) / 4
    if kind == "hoyer_square":
        value = (one**2 / two).mean()
        slope = (2 * one / two * np.sign(x) - 2 * one**2 / two**2 * x) / 4
    layer = ActivationPenalty(0.5, kind, dtype="float64", adjustable=adjustable)
    assert loss(layer, x) == pytest.approx(0.5 * value, rel=1e-7)
    found = gradient(layer, tf.constant(x))
    np.testing.assert_allclose(found, 0.5 * slope, rtol=1e-13, atol=1e-15)
    # The loss itself is float64 where Keras' own losses are.
    set_types("float64", "float64")
    layer = ActivationPenalty(0.5, kind, dtype="float64", adjustable=adjustable)
    assert loss(layer, x) == pytest.approx(0.5 * value, rel=1e-14)


@pytest.mark.parametrize("adjustable", [False, True])
@pytest.mark.parametrize(
    ("floatx", "policy"),
    [("float16", "float16"), ("float16", "float32"), ("float32", "float64")],
)
def test_fit_adds_it_to_a_loss_in_the_type_of_keras(
    floatx, policy, adjustable, set_types
):
    set_types(floatx, policy)
    same = keras.layers.Dense(4, kernel_initializer="identity")
    model = keras.Sequential([same, ActivationPenalty(0.5, adjustable=adjustable)])
    model.compile("sgd", "mse", jit_compile=False)
    # The sum of the penalties is no number of float16, the mean is.
    x = np.full((64, 4), 300, policy)
    history = batched.fit(model, x, x, batch_size=64, verbose=0).history
    assert history["loss"] == [600]
    model(x)
    (added,) = model.losses
    assert added.dtype == floatx
