"""The measures of activation sparsity: dtypes, shapes, extremes, bad arguments."""

import inspect
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from measures import (
    DATASET_FUNCTIONS,
    NAN,
    RELATIVE,
    VECTOR_FUNCTIONS,
    each_function,
    each_vector_function,
    normal,
)

from keras_sparseout import metrics


@each_vector_function
@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_scale_does_not_matter(function, scale):
    if function is metrics.zero_fraction:
        function = RELATIVE
    x = np.array([3, 4, 0, 0, 0.2], "float32")
    scaled = x * np.float32(scale)
    np.testing.assert_allclose(function(scaled), function(x), rtol=1e-5)


@pytest.mark.parametrize("scale", [1e-30, 1e-8, 1e20, 1e30])
@pytest.mark.parametrize("powers", [(1, 6), (2, 20), (20, 60), (0.5, 60)], ids=str)
def test_scale_does_not_matter_whatever_the_powers(powers, scale):
    p, q = powers
    x = np.array([[3, 4, 0, 0, 0.2], [1, -1, 1, 1, 1]], "float32")
    n = np.sum(np.abs(x.astype("float64")) ** p, -1) ** (1 / p)
    n /= np.sum(np.abs(x.astype("float64")) ** q, -1) ** (1 / q)
    expected = 1 - 5 ** (1 / q - 1 / p) * n
    scaled = x * np.float32(scale)
    result = metrics.pq_index(scaled, p=p, q=q)
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)


def test_rms_neither_overflows_nor_vanishes():
    x = np.array([[3, 4], [0, -5]], "float32")
    for scale in (1e-30, 1.0, 1e30):
        scaled = x * np.float32(scale)
        np.testing.assert_allclose(metrics.rms(scaled), 12.5**0.5 * scale, rtol=1e-6)


def test_kurtosis_of_constant_vectors_is_undefined_however_they_round():
    x = np.full((3, 49), [[0.1], [-1e20], [1 / 3]], "float32")
    np.testing.assert_array_equal(metrics.kurtosis(x), [NAN] * 3)
    for axis in (0, None):
        assert np.isnan(metrics.kurtosis(np.full((49, 1), 0.1), axis)).all()


def test_kurtosis_does_not_depend_on_an_added_constant():
    x = np.round(normal(4, 100) * 64).astype("float32")
    np.testing.assert_allclose(
        metrics.kurtosis(x + 100_000), metrics.kurtosis(x), rtol=1e-4
    )


def test_kurtosis_of_the_largest_numbers_and_of_the_least_differences():
    largest = np.array([3e38, -3e38, 3e38, -3e38], "float32")
    np.testing.assert_allclose(metrics.kurtosis(largest), -2, atol=1e-6)
    # The squared variance would be 0 in float32.
    n = 2_000_000
    almost_constant = np.ones(n, "float32")
    almost_constant[7] = np.nextafter(np.float32(1), np.float32(2))
    expected = n**2 / (n - 1) - 6
    np.testing.assert_allclose(metrics.kurtosis(almost_constant), expected, rtol=1e-3)


@each_function
def test_the_kind_of_the_input_is_that_of_the_result(function):
    x = np.array([[[1, 0, 2]], [[0, 0, 1]]], "float32")
    from_array = function(x)
    from_tensor = function(keras.ops.convert_to_tensor(x))
    assert isinstance(from_array, np.ndarray)
    assert tf.is_tensor(from_tensor)
    np.testing.assert_array_equal(from_array, from_tensor)
    if function in VECTOR_FUNCTIONS:
        assert from_array.shape == (2, 1)
        assert function(x, axis=None).shape == (2,)
        assert function(x, axis=0).shape == (1, 3)
        assert function(x, axis=np.int64(0)).shape == (1, 3)


@each_function
def test_float16_is_measured_in_float32(function):
    x = np.abs(normal(3, 2048)) * 60_000
    x = np.minimum(x, 65_000).astype("float16")
    np.testing.assert_allclose(function(x), function(x.astype("float32")), rtol=1e-6)
    assert function(x).dtype == "float32"
    assert function(x.astype("float64")).dtype == "float64"
    as_bfloat16 = keras.ops.cast(x, "bfloat16")
    assert function(as_bfloat16).dtype == "float32"


@each_function
def test_sizes_unknown_while_tracing(function):
    x = normal(4, 9).astype("float32")
    signature = [tf.TensorSpec((None, None), tf.float32)]
    traced = tf.function(function, input_signature=signature)
    np.testing.assert_allclose(traced(x), function(x), rtol=2e-6)


@each_vector_function
def test_sizes_unknown_of_whole_samples(function):
    x = normal(4, 3, 5).astype("float32")
    signature = [tf.TensorSpec((None, None, None), tf.float32)]
    traced = tf.function(
        lambda x: function(x, axis=None), input_signature=signature, autograph=False
    )
    np.testing.assert_allclose(traced(x), function(x, axis=None), rtol=2e-6)
    assert function(x[:0], axis=None).shape == (0,)
    assert function(x[:0]).shape == (0, 3)


@each_vector_function
@pytest.mark.parametrize(
    ("x", "axis", "says"),
    [
        (np.ones((2, 3)), 2, ["`axis`", "Received: axis=2"]),
        (np.ones((2, 3)), -3, ["`axis`", "Received: axis=-3"]),
        (np.ones((2, 3)), True, ["`axis`", "Received: axis=True"]),
        (np.ones((2, 3)), 1.0, ["`axis`", "Received: axis=1.0"]),
        (np.float32(1), None, ["`axis`", "Received: axis=None for x.shape=()"]),
        (np.ones((2, 3), complex), -1, ["`x`", "Received: x.dtype=complex128"]),
        (np.ones((2, 3), bool), -1, ["`x`", "Received: x.dtype=bool"]),
        (np.ones((2, 3), object), -1, ["`x`", "Received: x.dtype=object"]),
        (np.ones((2, 3), str), -1, ["`x`", "Received: x.dtype=<U1"]),
        (np.ones((2, 3), np.longdouble), -1, ["`x`", "Received: x.dtype=float"]),
        (np.ones((2, 0)), -1, ["`x`", "Received: x.shape=(2, 0)"]),
        (np.ones((2, 3, 0)), None, ["`x`", "Received: x.shape=(2, 3, 0)"]),
        (np.ones((0,)), None, ["`x`", "Received: x.shape=(0,)"]),
    ],
)
def test_bad_input_says_what_to_do(function, x, axis, says):
    with pytest.raises(ValueError, match=r"Give|Convert") as error:
        function(x, axis)
    for words in says:
        assert words in str(error.value)


@pytest.mark.parametrize("function", DATASET_FUNCTIONS)
@pytest.mark.parametrize(
    ("x", "received"),
    [
        (np.ones((2, 3), bool), "x.dtype=bool"),
        (np.ones(3), "x.shape=(3,)"),
        (np.ones((0, 3)), "x.shape=(0, 3)"),
        (np.ones((3, 0)), "x.shape=(3, 0)"),
    ],
)
def test_what_is_no_data_set_says_what_to_do(function, x, received):
    with pytest.raises(ValueError, match=r"`x` must .* (Give|Convert)") as error:
        function(x)
    assert f"Received: {received}" in str(error.value)


@pytest.mark.parametrize("threshold", [-0.1, NAN, "0", None])
@pytest.mark.parametrize(
    "function",
    [
        metrics.zero_fraction,
        metrics.firing_rate,
        metrics.dead_units,
        lambda x, threshold: metrics.ZeroFraction(threshold=threshold),
        lambda x, threshold: metrics.FiringRate(threshold=threshold),
    ],
)
def test_bad_threshold_says_what_to_do(function, threshold):
    with pytest.raises(ValueError, match=r"`threshold` .* Leave it out") as error:
        function(np.ones((2, 3)), threshold=threshold)
    assert f"Received: threshold={threshold!r}" in str(error.value)


@pytest.mark.parametrize(
    "function",
    [
        metrics.zero_fraction,
        lambda x, relative: metrics.ZeroFraction(relative=relative),
    ],
)
def test_bad_relative_says_what_to_do(function):
    with pytest.raises(ValueError, match=r"`relative` .* Received: relative=1"):
        function(np.ones(3), relative=1)


@pytest.mark.parametrize(
    ("p", "q"),
    [(0, 1), (-1, 1), (1, 1), (2, 1), (1, math.inf), (NAN, 2), (1, NAN), ("1", 2)],
)
@pytest.mark.parametrize(
    "function", [metrics.pq_index, lambda x, p, q: metrics.PQIndex(p=p, q=q)]
)
def test_bad_powers_say_what_to_do(function, p, q):
    with pytest.raises(ValueError, match=r"`p` and `q` .* Leave them out") as error:
        function(np.ones(3), p=p, q=q)
    assert f"Received: p={p!r}, q={q!r}" in str(error.value)


def test_every_public_name_is_documented_and_options_are_keyword_only():
    for name in metrics.__all__:
        member = getattr(metrics, name)
        assert inspect.getdoc(member), name
        for parameter in inspect.signature(member).parameters.values():
            positional = parameter.name in ("x", "axis", "function")
            keyword_only = parameter.kind is inspect.Parameter.KEYWORD_ONLY
            assert positional or keyword_only, f"{name}({parameter.name})"
