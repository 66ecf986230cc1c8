"""Which units of a sample are perturbed, beside NumPy and the authors' later code."""

import numpy as np
import pytest
import tensorflow as tf
from formula import (
    BOTH,
    DTYPES_AND_MODES,
    EPSILON,
    as_float64,
    compile_if,
    signed,
    value_and_gradient,
)

from keras_sparseout import ops
from keras_sparseout.ops import targeting

SHAPES = [(6, 40), (4, 5, 6), (4, 16, 3, 2)]
FRACTIONS = [0.0, 0.1, 0.5, 0.75, 0.99]


def chosen_by_the_authors(x, fraction):
    """What their code perturbs; of rank 4 it has the channels second."""
    samples = len(x)
    if x.ndim > 3:
        maps = x.reshape(samples, x.shape[1], -1).astype("float64")
        sizes = np.linalg.norm(maps, axis=2).astype(x.dtype)
    else:
        sizes = np.abs(x).reshape(samples, -1)
    rank = int(sizes.shape[1] * fraction)
    chosen = sizes < np.sort(sizes, axis=1)[:, rank : rank + 1]
    if x.ndim <= 3:
        return chosen.reshape(x.shape)
    return np.broadcast_to(chosen[..., None, None], x.shape)


def noise_and_slope(x, keep, rate, q):
    """Their noise, but with the sign of x, and the derivative of it."""
    xi = keep / (1 - rate) - 1
    size = np.abs(x).astype("float64") + EPSILON
    noise = np.sign(x) * size ** (q / 2) * xi
    return noise, q / 2 * size ** (q / 2 - 1) * xi


@pytest.mark.parametrize(
    ("shape", "q"),
    [*zip(SHAPES, (1.0, 1.3, 2.0), strict=True), (SHAPES[2], 3.0)],
    ids=str,
)
def test_value_and_derivative_are_those_of_the_authors_with_the_sign(shape, q):
    rng = np.random.default_rng(0)
    x, upstream = (signed(rng, shape).numpy() for _ in range(2))
    keep = rng.random(shape) < 0.6

    def last(array):
        return tf.constant(np.moveaxis(array, 1, -1) if array.ndim > 3 else array)

    for fraction in FRACTIONS:
        chosen = chosen_by_the_authors(x, fraction)
        noise, slope = noise_and_slope(x, keep, 0.4, q)
        value, gradient = value_and_gradient(
            *(last(x), last(upstream), 0.4, q, False),
            mask=last(keep),
            target_fraction=fraction,
        )
        np.testing.assert_allclose(
            [value, gradient],
            [last(x + chosen * noise), last(upstream * (1 + chosen * slope))],
            rtol=1e-5,
            atol=1e-5,
        )
        # What is not chosen passes to the bit.
        others = ~last(chosen).numpy()
        np.testing.assert_array_equal(value[others], last(x)[others])
        np.testing.assert_array_equal(gradient[others], last(upstream)[others])
        _, held = value_and_gradient(
            *(last(x), last(upstream), 0.4, q),
            mask=last(keep),
            target_fraction=fraction,
        )
        np.testing.assert_allclose(
            held, last(upstream) * value / last(x), rtol=1e-4, atol=1e-5
        )


def perturbed(x, fraction, **kwargs):
    """Where x is perturbed: at rate 1 these are zeros."""
    x = tf.constant(x, "float32")
    kwargs = kwargs or {"mask": np.zeros(x.shape, bool)}
    return (ops.sparseout(x, 1.0, target_fraction=fraction, **kwargs) == 0).numpy()


def test_the_count_is_rounded_down_and_ties_with_the_others_stay():
    x = [[1.0, -2.0, 3.0, -4.0, 5.0]]
    counts = [perturbed(x, f).sum() for f in (0.0, 0.19, 0.2, 0.39, 0.4, 0.99, 1.0)]
    assert counts == [0, 0, 1, 1, 2, 4, 5]
    # The third smallest is 2, and so are others.
    tied = perturbed([[2.0, 1.0, -2.0, 2.0, 7.0], [1.0, 1.0, -1.0, 1.0, 1.0]], 0.4)
    assert tied.tolist() == [[False, True, False, False, False], [False] * 5]


def test_what_shares_a_draw_is_one_unit():
    assert targeting.unit_axes(None, 2) == targeting.unit_axes((1, None), 2) == ()
    assert targeting.unit_axes(None, 5) == (1, 2, 3)
    assert targeting.unit_axes((None, 3, 2, 8), 4) == (1, 2)
    assert targeting.unit_axes((None, 8, 1, 1), 4) == (2, 3)
    x = np.random.default_rng(0).normal(size=(5, 4, 3, 8)).astype("float32")
    cases = [(None, (1, 2)), ((None, 1, 1, None), (1, 2)), ((None, None, 1, 1), (2, 3))]
    cases += [((None, None, None, 1), (3,)), ((1, 1, None, 8), (1,))]
    for noise_shape, axes in cases:
        sizes = np.linalg.norm(x.astype("float64"), axis=axes, keepdims=True)
        ordered = np.sort(sizes.reshape(5, -1), axis=1)
        limit = ordered[:, ordered.shape[1] // 2].reshape(5, 1, 1, 1)
        expected = np.broadcast_to(sizes < limit, x.shape)
        both = zip(noise_shape or x.shape, x.shape, strict=True)
        mask = np.zeros([noise or size for noise, size in both], bool)
        np.testing.assert_array_equal(perturbed(x, 0.5, mask=mask), expected)
        found = perturbed(x, 0.5, noise_shape=noise_shape, seed=1)
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("dtype", "compiled"), DTYPES_AND_MODES)
def test_limits_are_order_statistics_to_the_bit(dtype, compiled):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(7, 33)) * 10.0 ** rng.integers(-4, 5, (7, 33))
    x[0], x[1, ::2] = 0, 0
    x = tf.cast(x, dtype)

    fractions = [0.0, 0.3, 0.99]

    def find(x):
        return [targeting.limits(x, fraction, None) for fraction in fractions]

    found_limits = compile_if(compiled, find)(x)
    ordered = np.sort(np.abs(as_float64(x)), axis=1)
    for fraction, found in zip(fractions, found_limits, strict=True):
        assert found.dtype == (tf.float64 if dtype == "float64" else tf.float32)
        rank = int(fraction * 33)
        np.testing.assert_array_equal(found, ordered[:, rank : rank + 1])


def test_large_and_small_maps_are_told_apart():
    scales = np.array([1e-30, 1e30, 2e30, 3e-30], "float32")
    x = scales * np.ones((2, 3, 3, 4), "float32")
    assert perturbed(x, 0.5)[0, 0, 0].tolist() == [True, False, False, True]
    assert perturbed(x, 0.75)[0, 0, 0].tolist() == [True, True, False, True]


@pytest.mark.onednn
@pytest.mark.parametrize("compiled", BOTH)
def test_nan_and_infinity_are_largest_and_stay(compiled):
    x = np.array([[np.nan, 1, 2, 3], [-np.inf, 1, 2, 3], [np.nan, np.inf, 1, 2]])
    x = tf.constant(np.concatenate([x, np.full((1, 4), np.nan)]), "float32")

    def call(x):
        return ops.sparseout(x, 1.0, target_fraction=0.75, seed=1)

    nan, inf = np.nan, np.inf
    expected = [[nan, 0, 0, 0], [-inf, 0, 0, 0], [nan, inf, 0, 0], [nan] * 4]
    np.testing.assert_array_equal(compile_if(compiled, call)(x), expected)


def test_samples_do_not_depend_on_each_other_and_may_be_empty():
    x = np.random.default_rng(2).normal(size=(6, 5, 4)).astype("float32")
    alone = [perturbed(x[i : i + 1], 0.3) for i in range(6)]
    np.testing.assert_array_equal(perturbed(x, 0.3), np.concatenate(alone))
    for shape in ((0, 4), (3, 0), (0, 3, 3, 2), (2, 0, 3, 2), (2, 3, 3, 0)):
        assert ops.sparseout(tf.zeros(shape), 0.5, target_fraction=0.75).shape == shape


@pytest.mark.parametrize(("rate", "q"), [(0.3, 1.3), (0.9, 2.0)])
def test_the_mean_is_x_and_only_what_is_chosen_varies(rate, q):
    n = 10**5
    row = np.array([[-0.3, 2.0, 0.5, -1.0]], "float32")
    kwargs = {"target_fraction": 0.5, "seed": 1}
    y = as_float64(ops.sparseout(tf.repeat(row, n, axis=0), rate, q, **kwargs))
    variance = np.abs(row[0]) ** q * rate / (1 - rate) * [1, 0, 1, 0]
    assert np.all(np.abs(y.mean(0) - row[0]) <= 5 * np.sqrt(variance / n))
    assert (y[:, [1, 3]] == row[:, [1, 3]]).all()
    assert (y[:, [0, 2]] != row[:, [0, 2]]).all()
