"""Every layer on the smallest and largest numbers of its dtype."""

from itertools import product

import keras
import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf

from keras_sparseout import (
    ActivationPenalty,
    Bridgeout,
    Shakeout,
    Sparseout,
    SparseoutCellWrapper,
    SpatialSparseout1D,
)

L = keras.layers
# By policy, the dtype of activations, and that of weights.
ACTIVATIONS = {
    "float16": "float16",
    "mixed_bfloat16": "bfloat16",
    "float32": "float32",
    "float64": "float64",
}
WEIGHTS = {
    "float16": "float16",
    "bfloat16": "bfloat16",
    "mixed_float16": "float32",
    "float64": "float64",
}
QS = (0.0, 1.0, 1.3, 2.0, 4.0)


def rates_and(seconds):
    """Rate 1/2 with each of `seconds`, rates 0 and 1 with the first and the last."""
    return [*product([0.5], seconds), *product([0.0, 1.0], (seconds[0], seconds[-1]))]


# Draws for each number: that all 24 are kept, or all dropped, has probability 2^-23.
DRAWS = 24
pytestmark = pytest.mark.onednn
every_policy = pytest.mark.parametrize("policy", ACTIVATIONS)


def edges(dtype):
    """0, subnormal, smallest normal, usual and largest numbers, of both signs."""
    info = ml_dtypes.finfo(dtype)
    sizes = (0, info.smallest_subnormal, info.smallest_normal, 0.05, 1, info.max)
    return np.array([[size, -size] for size in sizes], dtype).reshape(-1, 1)


def sparseout(x, keep, p, q):
    """x n and n, in NumPy."""
    if p == 1:
        return 0 * x, 0 * x
    n = 1 + (np.abs(x) + 1e-7) ** ((q - 2) / 2) * (keep / (1 - p) - 1)
    return x * n, n


def shakeout(w, keep, p, c):
    if p == 1:
        return 0 * w, 0 * w
    sign = np.sign(w)
    return (w + c * p * sign) / (1 - p) if keep else -c * sign, 0 * w + keep / (1 - p)


def assert_kept_or_dropped(formula, x, value, gradient, *settings):
    """Asserts that `formula` gives each element, for a kept or for a dropped unit."""
    dtype = x.dtype
    info = ml_dtypes.finfo(dtype)
    # Subnormal numbers are flushed to 0, except in float16.
    tiny = 0 if dtype == "float16" else float(info.smallest_normal)
    wide = x.astype("float64")
    wide = np.where(np.abs(wide) < tiny, 0, wide)
    largest, rtol = float(info.max), max(1e-5, 2 * float(info.eps))
    value, gradient = (np.asarray(t).astype("float64") for t in (value, gradient))
    kinds = []
    # Differences of the largest numbers overflow.
    with np.errstate(over="ignore", invalid="ignore"):
        for keep in (1, 0):
            exact = formula(wide, keep, *settings)
            y, n = (np.clip(a, -largest, largest) for a in exact)
            # The rounding error of 1 minus nearly 1.
            rest = np.minimum(np.abs(wide), 1e3) * 1e-6 + tiny * (1 + np.abs(n))
            close = np.abs(value - y) <= rtol * np.abs(y) + rest
            kinds.append(close & (np.abs(gradient - n) <= rtol * np.abs(n) + 1e-6))
    assert np.all(np.isfinite(value)), settings
    assert np.all(np.isfinite(gradient)), settings
    wrong = ~(kinds[0] | kinds[1])
    assert not wrong.any(), (settings, x[wrong.any(1)], value[wrong], gradient[wrong])
    if settings[0] == 0.5:
        assert all(kind.any(1).all() for kind in kinds)


def gradient_of(call, x):
    """`call(x)`, and the gradient of its sum."""
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = call(x)
    return y, tape.gradient(y, x)


@every_policy
def test_sparseout(policy):
    x = edges(ACTIVATIONS[policy])
    given = tf.constant(np.repeat(x, DRAWS, axis=1))
    layer = Sparseout(0.5, seed=1, dtype=policy, adjustable=True)
    for p, q in rates_and(QS):
        layer.rate, layer.q = p, q
        y, n = gradient_of(lambda x: layer(x, training=True), given)
        assert_kept_or_dropped(sparseout, x, y, n, p, q)
    # One draw a channel: the numbers are the timesteps.
    spatial = SpatialSparseout1D(0.5, 1.3, seed=2, dtype=policy, jit_compile=False)
    y, n = gradient_of(lambda x: spatial(x[None], training=True)[0], given)
    assert_kept_or_dropped(sparseout, x, y, n, 0.5, 1.3)


def noisy(layer):
    """The noisy weight of a layer with one, and the gradient of its sum."""
    with tf.GradientTape() as tape:
        ((variable, noisy),) = layer.draw()
    return noisy, tf.convert_to_tensor(tape.gradient(noisy, variable.value))


@pytest.mark.parametrize("policy", WEIGHTS)
@pytest.mark.parametrize("make", [Bridgeout, Shakeout])
def test_weights(policy, make):
    w = edges(WEIGHTS[policy])
    embedding = L.Embedding(len(w), DRAWS, dtype=policy)
    embedding.build(())
    embedding.embeddings.assign(np.repeat(w, DRAWS, axis=1))

    def wrap(p, second, **kwargs):
        if make is Shakeout:
            return Shakeout(embedding, p, second, axis=(0, 1), seed=1, **kwargs)
        return Bridgeout(embedding, p, second, None, (None, None), seed=1, **kwargs)

    # As variables all exponents take one way, as constants some have ways of their own.
    formula, seconds, moved = sparseout, QS, (0.0, 1.3, 4.0)
    if make is Shakeout:
        formula, seconds, moved = shakeout, (0, 0.1), (0, 0.1)
    adjustable = wrap(0.5, 0.0, adjustable=True)
    for p, second in rates_and(moved):
        adjustable.rate = p
        setattr(adjustable, adjustable.knobs[1], second)
        assert_kept_or_dropped(formula, w, *noisy(adjustable), p, second)
    for second in seconds:
        assert_kept_or_dropped(formula, w, *noisy(wrap(0.5, second)), 0.5, second)


@every_policy
def test_cells(policy):
    x = edges(ACTIVATIONS[policy])
    units = len(x)
    settings = {"kernel_initializer": "identity", "recurrent_initializer": "zeros"}
    cell = L.SimpleRNNCell(units, None, use_bias=False, dtype=policy, **settings)
    noisy_cell = SparseoutCellWrapper(cell, 0.5, 0.5, seed=1, adjustable=True)
    rnn = L.RNN(noisy_cell, dtype=policy)
    # One number at a time: the product with the identity adds 0 times all others.
    given = tf.constant(np.repeat(x[:, None], DRAWS, axis=1).transpose(1, 2, 0))
    for p, q in rates_and((0.0, 1.3, 4.0)):
        noisy_cell.rate, noisy_cell.q = p, q
        y, n = gradient_of(lambda x: rnn(x, training=True), given)
        y, n = np.transpose(y), np.transpose(n[:, 0])
        assert_kept_or_dropped(sparseout, x, y, n, p, q)


@every_policy
@pytest.mark.parametrize("kind", ["l1", "hoyer_square", "ar", "tar"])
def test_penalties(policy, kind):
    dtype = ACTIVATIONS[policy]
    layer = ActivationPenalty(0.01, kind, dtype=policy)
    # The sum and the squares of the largest numbers overflow their dtype.
    x = edges(dtype)[:, 0]
    for some in (x[:2], x[2:4], x[4:6], x[:6], x[:-2], -x[:-2]):
        given = tf.constant(np.broadcast_to(some, (2, 3, len(some))))

        def loss(x, layer=layer):
            layer(x)
            return layer.losses[0]

        value, slope = gradient_of(loss, given)
        assert np.isfinite(value)
        assert np.all(np.isfinite(np.asarray(slope).astype("float64")))


ZERO = {"kernel_initializer": "zeros", "recurrent_initializer": "zeros"}


def zero_dense(**kwargs):
    return L.Dense(2, kernel_initializer="zeros", **kwargs)


# The noise is the same whatever the layer is: to try one dtype of each is enough.
@pytest.mark.parametrize(
    ("layer", "dtype"),
    [
        *((zero_dense, dtype) for dtype in WEIGHTS.values()),
        (lambda **k: L.Conv1D(2, 2, kernel_initializer="zeros", **k), "float16"),
        (lambda **k: L.GRU(2, **ZERO, **k), "bfloat16"),
        (
            lambda **k: L.SeparableConv1D(2, 2, depthwise_initializer="zeros", **k),
            "float32",
        ),
    ],
)
def test_shakeout_leaves_weights_of_0(layer, dtype):
    layer = Shakeout(layer(dtype=dtype), 0.5, 0.1, seed=1)
    y = layer(tf.ones((1, 4, 3), dtype), training=True)
    np.testing.assert_array_equal(np.asarray(y).astype("float32"), np.zeros(y.shape))
