"""ActivationPenalty of recurrent networks: kinds "ar" and "tar"."""

import batched
import keras
import numpy as np
import pytest
import tensorflow as tf
from formula import compile_if
from penalties import gradient, loss, normal

from keras_sparseout import ActivationPenalty

KINDS = ("ar", "tar")
every_kind = pytest.mark.parametrize("kind", KINDS)
jit_or_not = pytest.mark.parametrize("jit_compile", [True, False])


def penalty_of(x, kind, mask=None):
    """Computes the formula vector by vector, and its gradient, in float64."""
    x = np.asarray(x, "float64")
    mask = np.ones(x.shape[:2], bool) if mask is None else mask
    slope, values = np.zeros_like(x), []
    for sample, t in np.ndindex(x.shape[:2]):
        if kind == "tar" and (t == 0 or not mask[sample, t - 1]):
            continue
        if not mask[sample, t]:
            continue
        step = x[sample, t] - (x[sample, t - 1] if kind == "tar" else 0)
        values.append(np.square(step).mean(-1))
        slope[sample, t] += 2 * step / x.shape[-1]
        if kind == "tar":
            slope[sample, t - 1] -= 2 * step / x.shape[-1]
    return np.mean(values), slope / np.size(values)


def test_values_by_hand():
    x = np.array([[[1, -3], [2, 0], [2, 4]], [[0, 0], [0, 2], [6, 2]]], "float32")
    assert loss(ActivationPenalty(0.5, "ar"), x) == 0.5 * (5 + 2 + 10 + 0 + 2 + 20) / 6
    assert loss(ActivationPenalty(0.5, "tar"), x) == 0.5 * (5 + 8 + 2 + 18) / 4


@pytest.mark.onednn
@every_kind
@jit_or_not
@pytest.mark.parametrize("shape", [(4, 5, 3), (2, 4, 3, 5)])
def test_value_and_gradient_are_those_of_the_formula(kind, jit_compile, shape):
    x = normal(*shape)
    layer = ActivationPenalty(0.3, kind)
    value, slope = penalty_of(x, kind)
    assert loss(layer, x) == pytest.approx(0.3 * value, rel=1e-5)
    found = compile_if(jit_compile, gradient)(layer, tf.constant(x))
    np.testing.assert_allclose(found, 0.3 * slope, rtol=1e-4, atol=1e-7)


def test_together_they_are_the_regularizers_of_awd_lstm():
    # alpha times the mean square, beta times that of the differences, of all elements.
    x = normal(4, 6, 3)
    square, difference = np.mean(x**2), np.mean((x[:, 1:] - x[:, :-1]) ** 2)
    assert loss(ActivationPenalty(2.0, "ar"), x) == pytest.approx(2 * square)
    assert loss(ActivationPenalty(1.0, "tar"), x) == pytest.approx(difference)
    # "ar" takes vectors of any input.
    assert loss(ActivationPenalty(2.0, "ar"), x[0]) == pytest.approx(
        2 * np.mean(x[0] ** 2)
    )


@pytest.mark.onednn
@every_kind
@jit_or_not
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision_is_computed_in_float32(kind, jit_compile, policy):
    layer = ActivationPenalty(1.0, kind, dtype=policy)
    # In float16 the squares are not finite; nor are the differences.
    x = np.stack([np.full((2, 8), 60000), np.full((2, 8), -60000)], 1)
    x = tf.cast(x, layer.compute_dtype)
    value, slope = penalty_of(tf.cast(x, "float64"), kind)
    layer(x)
    (added,) = layer.losses
    assert added.dtype == "float32"
    assert float(added) == pytest.approx(value, rel=1e-6)
    found = compile_if(jit_compile, gradient)(layer, x)
    assert found.dtype == x.dtype
    np.testing.assert_allclose(tf.cast(found, "float64"), slope, rtol=0.01)


@pytest.mark.onednn
@every_kind
@jit_or_not
def test_masked_timesteps_do_not_count(kind, jit_compile):
    layer = ActivationPenalty(1.0, kind)
    mask = np.array([[1, 1, 1, 0, 0], [0] * 5, [1, 1, 0, 1, 1], [0, 1, 0, 1, 0]], bool)
    for x in (normal(4, 5, 3), normal(4, 5, 2, 3)):
        # What is in padding reaches neither the value nor the gradient.
        x[~mask] = np.nan
        value, slope = penalty_of(x, kind, mask)
        assert loss(layer, x, mask=mask) == pytest.approx(value, rel=1e-5)
        found = compile_if(jit_compile, gradient)(layer, tf.constant(x), mask=mask)
        np.testing.assert_allclose(found, slope, rtol=1e-4, atol=1e-7)
    assert loss(layer, normal(4, 5, 3), mask=np.zeros((4, 5), bool)) == 0


def test_a_pair_counts_only_when_both_steps_do():
    layer = ActivationPenalty(1.0, "tar")
    x = np.array([[[1.0], [2.0], [4.0], [9.0]]], "float32")
    for mask, expected in (
        ([1, 1, 1, 1], (1 + 4 + 25) / 3),
        ([1, 1, 0, 1], 1),
        ([0, 1, 1, 0], 4),
        ([1, 0, 1, 0], 0),
    ):
        assert loss(layer, x, mask=np.array([mask], bool)) == expected


def test_keras_passes_the_mask_of_an_embedding():
    embedding = keras.layers.Embedding(9, 3, mask_zero=True)
    layer = ActivationPenalty(1.0, "tar")
    model = keras.Sequential([keras.Input((4,)), embedding, layer])
    tokens = np.array([[3, 5, 8, 0], [2, 0, 0, 0]])
    x = model(tokens)
    (added,) = model.losses
    expected, _ = penalty_of(x, "tar", tokens > 0)
    assert float(added) == pytest.approx(expected, rel=1e-5)


@every_kind
@jit_or_not
def test_dimensions_may_be_unknown_and_empty(kind, jit_compile):
    layer = ActivationPenalty(1.0, kind)

    def call(x):
        layer(x)
        return layer.losses[0]

    call = tf.function(
        call, jit_compile=jit_compile, input_signature=[tf.TensorSpec((None, None, 4))]
    )
    for shape in ((2, 3, 4), (5, 1, 4), (0, 3, 4), (3, 0, 4)):
        x = normal(*shape)
        pairs = shape[1] - 1 if kind == "tar" else shape[1]
        expected = penalty_of(x, kind)[0] if shape[0] and pairs > 0 else 0
        assert float(call(x)) == pytest.approx(expected, rel=1e-5)


def test_an_lstm_trains_with_both():
    def train(weight):
        keras.utils.set_random_seed(1)
        model = keras.Sequential(
            [
                keras.Input((5, 4)),
                keras.layers.LSTM(8, return_sequences=True),
                ActivationPenalty(weight, "tar"),
                ActivationPenalty(weight, "ar"),
            ]
        )
        model.compile(keras.optimizers.SGD(0.5), "mse", jit_compile=False)
        x = normal(16, 5, 4)
        y = np.tile(normal(1, 1, 8), (16, 5, 1))
        losses = batched.fit(model, x, y, epochs=3, verbose=0).history["loss"]
        out = model(x)
        return losses, np.square(out).mean() + np.square(np.diff(out, axis=1)).mean()

    losses, free = train(0.0)
    penalized, small = train(10.0)
    assert penalized[-1] < penalized[0]
    assert losses[-1] < losses[0]
    assert small < 0.5 * free
