"""The largest exponents: values and gradients are the formula's limit, and finite."""

from itertools import product

import keras
import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from formula import BOTH, DTYPES_AND_MODES, as_float64, compile_if, value_and_gradient

from keras_sparseout import Bridgeout, Sparseout, ops

LARGEST = float(np.finfo("float32").max)
# With this epsilon the base of the power is exactly 1 at x = 1, as in float32 with that
# of the authors. Below it the power is 0, above it infinite.
X = np.array([0.0, 0.5, -0.5, 1.0, -1.0, 2.0, -2.0])
EPSILON = 1e-20


def limits(q, keep, largest):
    """Value, multiplier and derivative of the formula at rate 1/4, for a large q."""
    xi = 1 / 3 if keep else -1.0
    n = np.array([1, 1, 1, 1 + xi, 1 + xi, np.inf * xi, np.inf * xi])
    slope = 1 + xi * q / 2
    derivative = np.array([1, 1, 1, slope, slope, np.inf * xi, np.inf * xi])
    return [np.clip(each, -largest, largest) for each in (X * n, n, derivative)]


@pytest.mark.onednn
@pytest.mark.parametrize(("dtype", "compiled"), DTYPES_AND_MODES)
def test_value_and_gradient_are_the_limit_of_the_formula(dtype, compiled):
    info = ml_dtypes.finfo(dtype)
    call = compile_if(compiled, value_and_gradient)
    cases = [
        (1e30, tf.constant(1e30)),
        (LARGEST, LARGEST),
        (LARGEST, tf.constant(LARGEST)),
    ]
    if not compiled:  # XLA compiles each number anew.
        cases.append((1e10, 1e10))
    for (q, of_q), keep, held in product(cases, BOTH, BOTH):
        result = call(
            *(tf.constant(X, dtype), None, 0.25, of_q, held),
            # A tensor, so that one compiled function serves both masks.
            mask=tf.constant([keep]),
            epsilon=EPSILON,
        )
        value, n, derivative = limits(q, keep, float(info.max))
        np.testing.assert_allclose(
            [as_float64(tensor) for tensor in result],
            [value, n if held else derivative],
            rtol=max(1e-5, float(info.eps)),
            err_msg=f"{q=}, {keep=}, {held=}",
        )


def test_a_tensor_of_more_than_float32_holds_is_as_large_as_can_be():
    x = X.astype("float32")
    value, more = (
        ops.sparseout(x, 0.25, q, mask=[True], epsilon=EPSILON)
        for q in (LARGEST, tf.constant(1e39, tf.float64))
    )
    np.testing.assert_array_equal(value, more)


@pytest.mark.parametrize("q", [1e39, 1e300, 3.403e38])
def test_more_than_float32_holds_is_refused(q):
    layer = Sparseout(0.5, adjustable=True)
    makers = (
        lambda: ops.sparseout(np.ones(2, "float64"), 0.5, q, epsilon=EPSILON),
        lambda: Sparseout(0.5, q),
        lambda: Sparseout(0.5, q, adjustable=True),
        lambda: Bridgeout(keras.layers.Dense(2), 0.5, q),
        lambda: setattr(layer, "q", q),
    )
    for make in makers:
        with pytest.raises(ValueError, match=r"`q` must be at most 3\.4e38") as error:
            make()
        assert f"Received: q={q!r}. Give a smaller one" in str(error.value)
    assert layer.q == 2


@pytest.mark.parametrize("jit_compile", BOTH)
@pytest.mark.parametrize("adjustable", BOTH)
def test_layers_take_the_largest_exponent(adjustable, jit_compile):
    layer = Sparseout(
        *(0.25, LARGEST),
        seed=1,
        epsilon=EPSILON,
        adjustable=adjustable,
        jit_compile=jit_compile,
    )
    assert layer.q == pytest.approx(LARGEST)
    y = layer(np.tile(X, (40, 1)), training=True).numpy()
    kept, dropped = (limits(LARGEST, keep, LARGEST)[0] for keep in BOTH)
    for column, both in zip(y.T, zip(kept, dropped, strict=True), strict=True):
        np.testing.assert_allclose(np.unique(column), np.unique(both), rtol=1e-6)
    assert Sparseout.from_config(layer.get_config()).q == layer.q


@pytest.mark.parametrize("large", BOTH, ids=["compiled", "plain"])
def test_noise_on_weights_with_the_largest_exponent_is_finite(large):
    size = 512 if large else 4
    dense = keras.layers.Dense(size, kernel_initializer="ones", use_bias=False)
    layer = Bridgeout(dense, 0.25, LARGEST, seed=1, epsilon=EPSILON)
    x = tf.eye(size)
    with tf.GradientTape() as tape:
        y = layer(x, training=True)
    np.testing.assert_allclose(np.unique(y), [0, 4 / 3], rtol=1e-6)
    [gradient] = tape.gradient(y, layer.trainable_variables)
    np.testing.assert_allclose(gradient, y, rtol=1e-6)


@pytest.mark.parametrize("drawn", [True, False])
def test_a_rate_that_float32_rounds_to_0_keeps_what_is_kept(drawn):
    # 1 / (1 - 1e-9) is 1 in float32: the noise of what is kept is 0, not NaN.
    x = np.array([1, 1e10, 3e38], "float32")
    how = {"seed": 1} if drawn else {"mask": np.ones(3, bool)}
    np.testing.assert_array_equal(ops.sparseout(x, 1e-9, q=8.0, **how), x)
