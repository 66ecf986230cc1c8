"""The threshold as a function: values, gradients, and what is no number."""

import numpy as np
import pytest
import tensorflow as tf

from keras_sparseout.ops.threshold import threshold

X = np.array([-3, -1, -0.5, 0, 0.5, 1, 2], "float32")
T, C = 1.0, 0.5

# Options, y by hand, and its derivative.
CASES = {
    "plain": ({}, [-3, 0, 0, 0, 0, 0, 2], [1, 0, 0, 0, 0, 0, 1]),
    "soft": ({"soft": True}, [-2, 0, 0, 0, 0, 0, 1], [1, 0, 0, 0, 0, 0, 1]),
    "straight": ({"straight_through": True}, [-3, 0, 0, 0, 0, 0, 2], [1] * 7),
    "centre": (
        {"centre": C},
        [-3, -1, 0.5, 0.5, 0.5, 0.5, 2],
        [1, 1, 0, 0, 0, 0, 1],
    ),
    "centre taken away": (
        {"centre": C, "add_back": False},
        [-3.5, -1.5, 0, 0, 0, 0, 1.5],
        [1, 1, 0, 0, 0, 0, 1],
    ),
    "centre, soft": (
        {"centre": C, "soft": True, "straight_through": True},
        [-2, 0, 0.5, 0.5, 0.5, 0.5, 1],
        [1] * 7,
    ),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_values_and_gradients_are_those_by_hand(case, dtype):
    options, values, slopes = CASES[case]
    x = tf.cast(X, dtype)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = threshold(x, tf.constant(T), **options)
    assert y.dtype == dtype
    np.testing.assert_array_equal(tf.cast(y, "float32"), values)
    np.testing.assert_array_equal(tf.cast(tape.gradient(y, x), "float32"), slopes)
    if "centre" not in options:
        # Not -0.0 either.
        assert not np.signbit(np.asarray(y, "float32")[1:6]).any()


@pytest.mark.onednn
@pytest.mark.parametrize("straight_through", [False, True])
def test_what_is_no_number_passes(straight_through):
    x = np.array([np.nan, np.inf, -np.inf, 0.5], "float32")
    y = threshold(x, 1.0, straight_through=straight_through)
    np.testing.assert_array_equal(y, [np.nan, np.inf, -np.inf, 0])


def test_each_unit_may_have_its_threshold():
    x = np.array([[1, 1, 1], [-3, -3, -3]], "float32")
    t = np.array([0.5, 2, 3], "float32")
    np.testing.assert_array_equal(threshold(x, t), [[1, 0, 0], [-3, -3, 0]])


def test_it_cuts_in_the_precision_of_x():
    x = tf.constant([1.0, 1.0078125], "bfloat16")
    # In bfloat16 there is no number between these two.
    np.testing.assert_array_equal(threshold(x, 1.001) == 0, [True, False])
