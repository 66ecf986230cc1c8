"""The measures of activation sparsity of arrays and tensors: their figures."""

import functools
import math

import numpy as np
import pytest
from measures import HALF, NAN, RELATIVE, VECTOR_FUNCTIONS, each_function, normal

from keras_sparseout import metrics


@pytest.mark.parametrize(
    ("function", "x", "expected"),
    [
        (metrics.hoyer, [1, 1, 1, 1], 0),
        (metrics.hoyer, [2, -2, 2, -2], 0),
        (metrics.hoyer, [0, 0, -7, 0], 1),
        # sqrt(4) - 7 / 5 over sqrt(4) - 1
        (metrics.hoyer, [3, 4, 0, 0], 0.6),
        # sqrt(9) - 6 / sqrt(12) over sqrt(9) - 1
        (metrics.hoyer, [2, 2, 2, 0, 0, 0, 0, 0, 0], (3 - 3**0.5) / 2),
        (metrics.gini, [2, -2, 2, -2], 0),
        (metrics.gini, [0, 0, -7, 0], 3 / 4),
        (metrics.gini, [5], 0),
        # 1 - 2 (3 * 1.5 + 4 * 0.5) / (7 * 4)
        (metrics.gini, [3, -4, 0, 0], 15 / 28),
        # 1 - 2 (1 * 2.5 + 2 * 1.5 + 3 * 0.5) / (6 * 3)
        (metrics.gini, [2, 1, 3], 2 / 9),
        (metrics.population_sparseness, [2, -2, 2, -2], 0),
        (metrics.population_sparseness, [0, 0, -7, 0], 1),
        # 1 - (7 / 4)^2 / (25 / 4) over 1 - 1 / 4
        (metrics.population_sparseness, [3, -4, 0, 0], 0.68),
        (metrics.pq_index, [2, -2, 2, -2], 0),
        (metrics.pq_index, [0, 0, -7, 0], 0.5),
        (metrics.pq_index, [5], 0),
        # 1 - 4^(1/2 - 1) 7 / 5
        (metrics.pq_index, [3, -4, 0, 0], 0.3),
        # 1 - 4^(1 - 2) (1 + 2)^2 / 5
        (HALF, [1, -4, 0, 0], 0.55),
        # 1 - 3^(1/3 - 1/2) sqrt(5) / 9^(1/3)
        (
            functools.partial(metrics.pq_index, p=2, q=3),
            [1, 2, 0],
            1 - 3 ** (-1 / 6) * 5**0.5 / 9 ** (1 / 3),
        ),
        (metrics.kurtosis, [1, -1, 1, -1], -2),
        # n^2 / (n - 1) - 6
        (metrics.kurtosis, [7, 7, 7, 9], 16 / 3 - 6),
        # -2, -1, 0, 1, 2 about the mean: (34 / 5) / (10 / 5)^2 - 3
        (metrics.kurtosis, [1, 2, 3, 4, 5], -1.3),
        (metrics.zero_fraction, [3, -4, 0, 0], 0.5),
    ],
)
def test_closed_forms(function, x, expected):
    for dtype in ("float32", "float64", "int32", "int8"):
        np.testing.assert_allclose(function(np.array(x, dtype)), expected, atol=2e-6)


def hoyer(x, axis):
    n = x.shape[axis]
    ratio = np.abs(x).sum(axis) / np.sqrt((x**2).sum(axis))
    return (np.sqrt(n) - ratio) / (np.sqrt(n) - 1)


def gini(x, axis):
    """The mean difference of all pairs, over twice the mean."""
    magnitude = np.abs(np.moveaxis(x, axis, -1))
    pairs = np.abs(magnitude[..., :, None] - magnitude[..., None, :])
    return pairs.mean((-1, -2)) / (2 * magnitude.mean(-1))


def sparseness(x, axis):
    a = np.abs(x).mean(axis) ** 2 / (x**2).mean(axis)
    return (1 - a) / (1 - 1 / x.shape[axis])


def pq_index(x, axis, p=1, q=2):
    n = x.shape[axis]
    norms = [(np.abs(x) ** r).sum(axis) ** (1 / r) for r in (p, q)]
    return 1 - n ** (1 / q - 1 / p) * norms[0] / norms[1]


def kurtosis(x, axis):
    deviation = x - x.mean(axis, keepdims=True)
    return (deviation**4).mean(axis) / (deviation**2).mean(axis) ** 2 - 3


def zero_fraction(x, axis):
    rms = np.sqrt((x**2).mean(axis, keepdims=True))
    return (np.abs(x) <= 0.1 * rms).mean(axis)


@pytest.mark.parametrize(
    ("function", "reference"),
    [
        (metrics.hoyer, hoyer),
        (metrics.gini, gini),
        (metrics.population_sparseness, sparseness),
        (metrics.pq_index, pq_index),
        (HALF, functools.partial(pq_index, p=0.5, q=1)),
        (metrics.kurtosis, kurtosis),
        (RELATIVE, zero_fraction),
    ],
)
def test_numpy_references(function, reference):
    x = normal(7, 5, 31)
    for axis in (0, 1, -1):
        np.testing.assert_allclose(
            function(x, axis), reference(x, axis), rtol=1e-12, atol=1e-12
        )
    whole = reference(x.reshape(7, -1), -1)
    np.testing.assert_allclose(function(x, None), whole, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(function(x[0, 0], None), function(x[0, 0]))


FOURTH = 3 / 2 - 5 / (2 * np.pi) - 3 / (4 * np.pi**2)
VARIANCE = 1 / 2 - 1 / (2 * np.pi)


@pytest.mark.parametrize(
    ("function", "gaussian", "half_rectified", "spread"),
    [
        (metrics.hoyer, 1 - (2 / np.pi) ** 0.5, 1 - np.pi**-0.5, 0.4),
        (metrics.gini, 2**0.5 - 1, 2**-0.5, 0.4),
        (metrics.zero_fraction, 0, 0.5, 0.5),
        (RELATIVE, math.erf(0.1 / 2**0.5), (1 + math.erf(0.05)) / 2, 0.5),
        (metrics.population_sparseness, 1 - 2 / np.pi, 1 - 1 / np.pi, 0.4),
        (metrics.pq_index, 1 - (2 / np.pi) ** 0.5, 1 - np.pi**-0.5, 0.4),
        (metrics.kurtosis, 0, FOURTH / VARIANCE**2 - 3, 19),
        (lambda x: metrics.firing_rate(x[:, None])[0], 1, 0.5, 0.5),
        (lambda x: metrics.dead_units(x[:, None]), 0, 0, 0),
        (
            lambda x: metrics.lifetime_sparseness(x[:, None])[0],
            1 - 2 / np.pi,
            1 - 1 / np.pi,
            0.4,
        ),
        (lambda x: metrics.rms(x[:, None]), 1, 2**-0.5, 0.9),
    ],
)
def test_documented_limits_of_dense_vectors(function, gaussian, half_rectified, spread):
    x = normal(1_000_000)
    # The standard deviation of a figure was seen to be up to spread / sqrt(n).
    tolerance = 5 * spread / np.sqrt(x.size)
    assert abs(function(x) - gaussian) <= tolerance
    assert abs(function(np.maximum(x, 0)) - half_rectified) <= tolerance


@pytest.mark.parametrize(
    ("function", "of_zeros", "of_one_element"),
    [
        (metrics.hoyer, NAN, NAN),
        (metrics.gini, NAN, 0),
        (metrics.zero_fraction, 1, 0),
        (RELATIVE, 1, 0),
        (metrics.population_sparseness, NAN, NAN),
        (metrics.pq_index, NAN, 0),
        (metrics.kurtosis, NAN, NAN),
    ],
)
def test_all_zero_vectors_and_those_of_one_element(function, of_zeros, of_one_element):
    x = np.array([[0, 0, 0], [0, 1, 0]], "float32")
    np.testing.assert_array_equal(function(x)[0], of_zeros)
    assert np.isfinite(function(x)[1])
    one = np.full((2, 1), 3.0)
    np.testing.assert_array_equal(function(one), [of_one_element] * 2)


@pytest.mark.onednn
@each_function
def test_nan_activations_give_nan(function):
    x = np.array([[NAN, 0, 1], [1, 2, 3]], "float32")
    assert np.isnan(function(x)).any()
    if function in VECTOR_FUNCTIONS:
        np.testing.assert_array_equal(np.isnan(function(x)), [True, False])
    if function in (metrics.firing_rate, metrics.lifetime_sparseness):
        np.testing.assert_array_equal(np.isnan(function(x)), [True, False, False])


def test_zero_fraction_counts_up_to_the_threshold():
    x = np.array([[0.0, -0.0, 0.1, -0.1, 0.2]])
    np.testing.assert_allclose(metrics.zero_fraction(x), 0.4)
    np.testing.assert_allclose(metrics.zero_fraction(x, threshold=0.1), 0.8)
    np.testing.assert_allclose(metrics.zero_fraction(x, threshold=0.05), 0.4)


def test_a_relative_threshold_is_that_of_each_vector():
    x = np.array([[3.0, 4, 0, 0], [300, 400, 0, 0], [0, 0, 0, 0], [1, 1, 1, NAN]])
    # The root mean square of the first is 2.5.
    relative = functools.partial(metrics.zero_fraction, relative=True)
    expected = {1.1: [0.5, 0.5, 1, NAN], 1.3: [0.75, 0.75, 1, NAN]}
    for threshold, fractions in expected.items():
        np.testing.assert_array_equal(relative(x, threshold=threshold), fractions)


def test_infinite_activations_have_no_relative_threshold():
    for dtype in ("float32", "float64"):
        x = np.array([[math.inf, 1, 0, 0], [-math.inf] * 4, [1, 1, 0, 0]], dtype)
        np.testing.assert_array_equal(RELATIVE(x), [NAN, NAN, 0.5])
        np.testing.assert_array_equal(metrics.zero_fraction(x), [0.5, 0, 0.5])


def test_gini_has_the_six_properties_of_hurley_and_rickard():
    x = np.array([0.5, 1, 1, 2, 6])
    gini = metrics.gini(x)
    richest = np.array([0, 0, 0, 0, 1])
    # D1, Robin Hood: what goes from rich to poor makes it fall.
    assert metrics.gini(x + 0.2 * richest[::-1] - 0.2 * richest) < gini
    # D2, scaling.
    np.testing.assert_allclose(metrics.gini(7 * x), gini, rtol=1e-12)
    # D3, rising tide.
    assert metrics.gini(x + 0.1) < gini
    # D4, cloning.
    np.testing.assert_allclose(metrics.gini(np.tile(x, 3)), gini, rtol=1e-12)
    # P1, Bill Gates: one grows without end.
    growing = [metrics.gini(x + more * richest) for more in (1, 10, 100)]
    assert gini < growing[0] < growing[1] < growing[2]
    # P2, babies: zeros are added.
    assert gini < metrics.gini(np.append(x, 0)) < metrics.gini(np.append(x, [0, 0]))


def test_measures_of_zeros_alone():
    zeros = np.zeros((2, 3), "float32")
    np.testing.assert_array_equal(metrics.firing_rate(zeros), [0, 0, 0])
    np.testing.assert_array_equal(metrics.dead_units(zeros), 1)
    np.testing.assert_array_equal(metrics.lifetime_sparseness(zeros), [NAN] * 3)
    np.testing.assert_array_equal(metrics.rms(zeros), 0)


# Two samples of two positions of three units. The last unit is dead.
DATA = np.array([[[1, 0, 0], [-2, 0, 0]], [[0, 3, 0], [0, 0.5, 0]]])


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (metrics.firing_rate, [1 / 2, 1 / 2, 0]),
        (functools.partial(metrics.firing_rate, threshold=1), [1 / 4, 1 / 4, 0]),
        (metrics.dead_units, 1 / 3),
        (functools.partial(metrics.dead_units, threshold=2), 2 / 3),
        # a = (3 / 4)^2 / (5 / 4) and (3.5 / 4)^2 / (9.25 / 4), over 1 - 1 / 4
        (metrics.lifetime_sparseness, [0.55 / 0.75, (1 - 3.0625 / 9.25) / 0.75, NAN]),
        (metrics.rms, (14.25 / 12) ** 0.5),
    ],
)
def test_measures_of_a_data_set(function, expected):
    for x in (DATA, DATA.reshape(4, 3)):
        np.testing.assert_allclose(function(x), expected, rtol=1e-12)
