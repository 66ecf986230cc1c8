"""The measures of activation sparsity."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_sparseout import metrics

FUNCTIONS = (metrics.hoyer, metrics.zero_fraction)


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        ([1, 1, 1, 1], 0.0),
        ([2, -2, 2, -2], 0.0),
        ([0, 0, -7, 0], 1.0),
        # sqrt(4) - 7 / 5 over sqrt(4) - 1
        ([3, 4, 0, 0], 0.6),
        # sqrt(9) - 6 / sqrt(12) over sqrt(9) - 1
        ([2, 2, 2, 0, 0, 0, 0, 0, 0], (3 - 3**0.5) / 2),
    ],
)
def test_hoyer_equals_its_closed_form(x, expected):
    for dtype in ("float32", "float64", "int32"):
        np.testing.assert_allclose(
            metrics.hoyer(np.array(x, dtype)), expected, atol=1e-6
        )


def test_hoyer_equals_a_numpy_reference():
    x = np.random.default_rng(0).normal(size=(7, 5, 31))
    for axis in (0, 1, -1):
        n = x.shape[axis]
        ratio = np.abs(x).sum(axis) / np.sqrt((x**2).sum(axis))
        expected = (np.sqrt(n) - ratio) / (np.sqrt(n) - 1)
        np.testing.assert_allclose(metrics.hoyer(x, axis), expected, rtol=1e-12)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_hoyer_does_not_depend_on_scale(scale):
    x = np.array([3, 4, 0, 0], "float32") * np.float32(scale)
    np.testing.assert_allclose(metrics.hoyer(x), 0.6, rtol=1e-6)


def test_hoyer_of_gaussian_and_half_rectified_vectors():
    x = np.random.default_rng(0).normal(size=1_000_000)
    # The documented limits; their error falls as 1 / sqrt(n), and so does the bias.
    tolerance = 5 / np.sqrt(x.size)
    assert abs(metrics.hoyer(x) - (1 - np.sqrt(2 / np.pi))) < tolerance
    assert abs(metrics.hoyer(np.maximum(x, 0)) - (1 - 1 / np.sqrt(np.pi))) < tolerance


def test_all_zero_vectors_have_no_hoyer_and_all_zeros():
    x = np.array([[0, 0, 0], [0, 1, 0]], "float32")
    np.testing.assert_array_equal(metrics.hoyer(x), [np.nan, 1])
    np.testing.assert_allclose(metrics.zero_fraction(x), [1, 2 / 3], rtol=1e-6)


def test_nan_activations_give_nan():
    x = np.array([np.nan, 0, 1], "float32")
    for function in FUNCTIONS:
        assert np.isnan(function(x))


def test_zero_fraction_counts_up_to_the_threshold():
    x = np.array([[0.0, -0.0, 0.1, -0.1, 0.2]])
    np.testing.assert_allclose(metrics.zero_fraction(x), 0.4)
    np.testing.assert_allclose(metrics.zero_fraction(x, threshold=0.1), 0.8)
    np.testing.assert_allclose(metrics.zero_fraction(x, threshold=0.05), 0.4)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_the_kind_of_the_input_is_that_of_the_result(function):
    x = np.array([[[1, 0, 2]], [[0, 0, 1]]], "float32")
    from_array = function(x)
    from_tensor = function(keras.ops.convert_to_tensor(x))
    assert isinstance(from_array, np.ndarray)
    assert tf.is_tensor(from_tensor)
    assert from_array.shape == (2, 1)
    np.testing.assert_array_equal(from_array, from_tensor)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_float16_is_measured_in_float32(function):
    x = np.abs(np.random.default_rng(0).normal(size=(3, 2048))) * 60_000
    x = np.minimum(x, 65_000).astype("float16")
    np.testing.assert_allclose(function(x), function(x.astype("float32")), rtol=1e-6)
    assert function(x).dtype == "float32"


@pytest.mark.parametrize("function", FUNCTIONS)
def test_sizes_unknown_while_tracing(function):
    x = np.random.default_rng(0).normal(size=(4, 9)).astype("float32")
    signature = [tf.TensorSpec((None, None), tf.float32)]
    traced = tf.function(function, input_signature=signature)
    np.testing.assert_allclose(traced(x), function(x), rtol=1e-6)


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize(
    ("x", "axis", "says"),
    [
        (np.ones((2, 3)), 2, ["`axis`", "Received: axis=2"]),
        (np.ones((2, 3)), -3, ["`axis`", "Received: axis=-3"]),
        (np.ones((2, 3)), None, ["`axis`", "Received: axis=None"]),
        (np.ones((2, 3)), True, ["`axis`", "Received: axis=True"]),
        (np.ones((2, 3)), 1.0, ["`axis`", "Received: axis=1.0"]),
        (np.ones((2, 3), complex), -1, ["`x`", "Received: x.dtype=complex128"]),
        (np.ones((2, 3), bool), -1, ["`x`", "Received: x.dtype=bool"]),
        (np.ones((2, 0)), -1, ["`x`", "Received: x.shape=(2, 0)"]),
    ],
)
def test_bad_input_says_what_to_do(function, x, axis, says):
    with pytest.raises(ValueError, match=r"Give|Convert") as error:
        function(x, axis)
    for words in says:
        assert words in str(error.value)


def test_hoyer_of_single_elements_is_undefined():
    np.testing.assert_array_equal(metrics.hoyer(np.ones((2, 1))), [np.nan, np.nan])


@pytest.mark.parametrize("threshold", [-0.1, float("nan"), "0", None])
def test_bad_threshold_says_what_to_do(threshold):
    with pytest.raises(ValueError, match="`threshold`") as error:
        metrics.zero_fraction(np.ones(3), threshold=threshold)
    assert f"Received: threshold={threshold!r}" in str(error.value)
