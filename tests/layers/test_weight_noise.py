"""Noise on weights, of every kind of layer; a new kind joins with a line in `KINDS`."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from noisy import DROPPED, KINDS, RATE, WRAPPERS, C, Q, gradients, keeps, perturbed

from keras_sparseout import Sparseout
from keras_sparseout.layers.bridgeout import Bridgeout
from keras_sparseout.layers.shakeout import Shakeout
from keras_sparseout.ops import masks

L = keras.layers
every_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
every_wrapper = pytest.mark.parametrize("wrapper", ["Bridgeout", "Shakeout"])


def seed_state(layer):
    return layer.seed_generator.state.numpy().tolist()


def values(layer):
    return [weight.numpy() for weight in layer.weights]


@pytest.mark.onednn
@every_kind
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_in_training_the_layer_is_called_on_the_perturbed_weights(kind, wrapper):
    # The reference is the plain layer, with the perturbed weights assigned to it.
    x, plain = kind.inputs(), kind.layer()
    layer = WRAPPERS[wrapper](kind.layer(), weights=kind.weights, seed=7)
    slopes = {}
    for name, keep in keeps(kind, plain, wrapper, 7).items():
        (weight,) = (w for w in plain.weights if w.name == name)
        noisy, slopes[name] = perturbed(weight, keep, wrapper)
        assert keep.any()
        assert not keep.all()
        weight.assign(noisy)
    assert set(slopes) == set(kind.masks)
    before = values(layer)
    expected, true = gradients(plain, x)
    y, found = gradients(layer, x, training=True)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
    assert set(found) == set(true)
    for name in true:
        size = np.abs(true[name]).max()
        np.testing.assert_allclose(
            found[name], true[name] * slopes.get(name, 1), rtol=1e-3, atol=1e-4 * size
        )
    for a, b in zip(values(layer), before, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.onednn
@every_kind
@every_wrapper
def test_inference_is_the_plain_layer_to_the_bit_and_draws_nothing(kind, wrapper):
    x, plain = kind.inputs(), kind.layer()
    layer = WRAPPERS[wrapper](kind.layer(), weights=kind.weights)
    before = seed_state(layer)
    np.testing.assert_array_equal(layer(x), plain(x))
    np.testing.assert_array_equal(layer(x, training=False), plain(x))
    assert seed_state(layer) == before
    assert not np.allclose(layer(x, training=True), plain(x))
    assert seed_state(layer) != before


@every_kind
@every_wrapper
def test_a_symbolic_call_has_the_shape_and_weights_of_the_plain_layer(kind, wrapper):
    plain, layer = kind.make(), WRAPPERS[wrapper](kind.make(), weights=kind.weights)
    inputs = keras.Input(kind.shape[1:], dtype=kind.inputs().dtype.name)
    assert layer(inputs).shape == plain(inputs).shape
    assert layer.compute_output_shape(kind.shape) == plain.compute_output_shape(
        kind.shape
    )
    assert layer.count_params() == plain.count_params()
    assert [(w.name, w.shape, w.trainable) for w in layer.weights] == [
        (w.name, w.shape, w.trainable) for w in plain.weights
    ]


@every_kind
@every_wrapper
def test_a_file_gives_back_the_layer_and_its_draws(tmp_path, kind, wrapper):
    layer = WRAPPERS[wrapper](kind.make(), weights=kind.weights)
    inputs = keras.Input(kind.shape[1:], dtype=kind.inputs().dtype.name)
    model = keras.Model(inputs, layer(inputs))
    x = kind.inputs()
    model(x, training=True)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(x), model(x))
    for _ in range(2):
        np.testing.assert_array_equal(loaded(x, training=True), model(x, training=True))


def test_bridgeout_at_q_2_is_dropconnect():
    x, w = np.float32([[1, 2, 3]]), np.float32([[1, -2], [3, 4], [0, 5]])
    dense = L.Dense(2, use_bias=False)
    layer = Bridgeout(dense, 0.5, seed=6)
    layer.build((1, 3))
    dense.kernel.assign(w)
    seed = masks.seed_pair(keras.random.SeedGenerator(6))
    keep = masks.bernoulli((3, 2), 0.5, seed)[0].numpy()
    np.testing.assert_array_equal(layer(x, training=True), x @ (w * keep * 2))


def test_shakeout_with_c_0_is_dropout_of_the_inputs():
    x = np.random.default_rng(0).normal(size=(4, 6)).astype("float32")
    layer = Shakeout(L.Dense(3), RATE, c=0, seed=5)
    layer.build((4, 6))
    seed = masks.seed_pair(keras.random.SeedGenerator(5))
    keep = masks.bernoulli((6, 1), RATE, seed)[0].numpy()[:, 0]
    np.testing.assert_allclose(
        layer(x, training=True), layer.layer(x * keep / (1 - DROPPED)), rtol=1e-5
    )


def test_shakeout_of_a_convolution_with_c_0_is_spatial_dropout_of_the_inputs():
    x = np.random.default_rng(0).normal(size=(4, 6, 6, 4)).astype("float32")
    layer = Shakeout(L.Conv2D(6, 3, groups=2), RATE, c=0, seed=5)
    layer.build(x.shape)
    seed = masks.seed_pair(keras.random.SeedGenerator(5))
    keep = masks.bernoulli((1, 1, 2, 2), RATE, seed)[0].numpy()[0, 0]
    # Channels of the first group, then those of the second.
    dropped = x * keep.T.ravel() / (1 - DROPPED)
    np.testing.assert_allclose(
        layer(x, training=True), layer.layer(dropped), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("size", [0.05, -1.7])
@pytest.mark.parametrize("large", [False, True], ids=["plain", "compiled"])
@pytest.mark.parametrize("make", [Bridgeout, Shakeout])
def test_mean_and_variance_are_those_of_the_formula(make, size, large):
    units = 512 if large else 32
    # As many draws with few weights a call as with many: Shakeout has one a row.
    calls = 4 if large else 64
    second = Q if make is Bridgeout else C
    constant = keras.initializers.Constant(size)
    layer = make(L.Dense(units, kernel_initializer=constant), RATE, second, seed=1)
    layer.build((1, units))
    rows = [layer.draw()[0][1].numpy() for _ in range(calls)]
    if make is Shakeout:
        rows = [row[:, :1] for row in rows]
    drawn = np.concatenate([row.ravel() for row in rows]).astype("float64")
    variance = DROPPED / (1 - DROPPED)
    variance *= abs(size) ** Q if make is Bridgeout else (abs(size) + C) ** 2
    # Five standard deviations of the mean, and of the variance of a two-point variable.
    n, p = len(drawn), DROPPED
    assert abs(drawn.mean() - size) < 5 * np.sqrt(variance / n)
    spread = variance * np.sqrt((1 / (p * (1 - p)) - 4) / n)
    assert abs(drawn.var() - variance) < 5 * spread
    assert len(np.unique(drawn)) == 2


@pytest.mark.parametrize("make", [Bridgeout, Shakeout])
@pytest.mark.parametrize("units", [4, 256], ids=["plain", "compiled"])
@pytest.mark.parametrize("adjustable", [False, True])
def test_rates_0_and_1(make, units, adjustable):
    x = np.random.default_rng(0).normal(size=(3, units)).astype("float32")
    for rate in (0.0, 1.0):
        layer = make(L.Dense(units, use_bias=False), rate, 0.5, adjustable=adjustable)
        y, found = gradients(layer, x, training=True)
        if rate == 0:
            np.testing.assert_array_equal(y, layer(x))
        else:
            assert not y.any()
            assert not found["kernel"].any()


@pytest.mark.parametrize(
    ("units", "q", "stop_gradient"),
    [
        *((6, q, True) for q in (0.0, 1.0, 1.3, 1.5, 2.0, 2.5, 4.0, 8.0)),
        *((6, q, False) for q in (0.0, 1.3, 2.0, 2.5)),
        # Compiled; from q = 5.6 on products are saturated.
        *((256, q, True) for q in (0.0, 1.3, 2.0, 4.0, 8.0)),
        (256, 1.5, False),
    ],
)
def test_bridgeout_is_sparseout_of_the_weights(units, q, stop_gradient):
    settings = {"seed": 4, "stop_gradient": stop_gradient}
    layer = Bridgeout(L.Dense(units, use_bias=False), 0.4, q, **settings)
    layer.build((None, units))
    w = np.random.default_rng(0).normal(0, 0.05, (units, units)).astype("float32")
    w[0] = 0
    layer.layer.kernel.assign(w)
    x = np.eye(units, dtype="float32")
    y, found = gradients(layer, x, training=True)
    reference = Sparseout(0.4, q, jit_compile=units > 6, **settings)
    with tf.GradientTape() as tape:
        tape.watch(w := tf.constant(w))
        expected = reference(w, training=True)
        loss = tf.reduce_sum(tf.square(expected))
    np.testing.assert_allclose(y, expected, rtol=1e-5)
    np.testing.assert_allclose(
        found["kernel"], tape.gradient(loss, w), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize(
    ("q", "size"), [(1e3, 1e12), (8.0, 1e12), (2.5, 1e12), (0.0, 0.0)]
)
@pytest.mark.parametrize("units", [6, 256], ids=["plain", "compiled"])
def test_products_that_overflow_are_saturated(q, size, units):
    constant = keras.initializers.Constant(size)
    layer = Bridgeout(
        L.Dense(units, kernel_initializer=constant), 0.5, q, epsilon=1e-30
    )
    layer.build((None, units))
    kernel = layer.layer.kernel.value
    with tf.GradientTape() as tape:
        ((_, noisy),) = layer.draw()
    upstream = tf.fill(noisy.shape, 1e12)
    gradient = tape.gradient(noisy, kernel, output_gradients=upstream)
    assert np.isfinite(noisy).all()
    assert np.isfinite(gradient).all()
    assert len(np.unique(gradient)) == 2


def test_shakeout_in_half_precision_saturates_the_gradient():
    layer = Shakeout(L.Dense(8, dtype="float16"), 0.5, 0.1)
    layer.build((None, 8))
    kernel = layer.layer.kernel.value
    with tf.GradientTape() as tape:
        ((_, noisy),) = layer.draw()
    upstream = tf.fill(noisy.shape, tf.constant(60000, "float16"))
    gradient = tape.gradient(noisy, kernel, output_gradients=upstream)
    assert set(np.unique(gradient)) == {0, 65504}


@pytest.mark.parametrize("noise_shape", [(None, 1), (1, None), (6, 1), (1, 1)])
def test_noise_shape_sets_where_draws_are_shared(noise_shape):
    dense = L.Dense(8, kernel_initializer="ones")
    layer = Bridgeout(dense, 0.5, noise_shape=noise_shape)
    layer.build((None, 6))
    patterns = set()
    for _ in range(5):
        ((_, drawn),) = layer.draw()
        drawn = drawn.numpy()
        corner = drawn[tuple(slice(1 if n == 1 else None) for n in noise_shape)]
        np.testing.assert_array_equal(drawn, np.broadcast_to(corner, drawn.shape))
        patterns.add(drawn.tobytes())
    assert len(patterns) > 1


def test_an_embedding_has_one_draw_an_element_if_asked():
    ones = {"embeddings_initializer": "ones"}
    rows = Bridgeout(L.Embedding(50, 8, **ones), 0.5)
    elements = Bridgeout(L.Embedding(50, 8, **ones), 0.5, noise_shape=(None, None))
    for layer, constant in ((rows, True), (elements, False)):
        y = layer(np.arange(50), training=True).numpy()
        assert (y == y[:, :1]).all() == constant
        assert len(np.unique(y)) == 2


def test_a_word_is_dropped_wherever_it_is_in_the_batch():
    layer = Bridgeout(L.Embedding(20, 4, embeddings_initializer="ones"), 0.5)
    y = layer(np.tile(np.arange(20), (3, 2)), training=True).numpy()
    y = y.reshape(6, 20, 4)
    np.testing.assert_array_equal(y, np.broadcast_to(y[:1], y.shape))


@pytest.mark.parametrize("make", [Bridgeout, Shakeout])
def test_draws_differ_between_steps_and_layers_and_follow_the_seed(make):
    def drawn(seed):
        layer = make(L.Dense(8, kernel_initializer="ones"), 0.5, 1.5, seed=seed)
        layer.build((None, 8))
        return [layer.draw()[0][1].numpy().tobytes() for _ in range(3)]

    assert drawn(1) == drawn(1)
    assert len({*drawn(1), *drawn(2), *drawn(None), *drawn(None)}) == 12


def test_two_weights_have_draws_of_their_own():
    layer = Bridgeout(L.LSTM(8), 0.5, weights=("kernel", "recurrent_kernel"))
    layer.build((None, 5, 8))
    for weight in layer.weights:
        weight.assign(np.ones(weight.shape))
    (_, kernel), (_, recurrent) = layer.draw()
    assert (kernel.numpy() != recurrent.numpy()).any()


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ("kernel", [0, 3]),
        ("recurrent_kernel", [1, 4]),
        ("cell/recurrent_kernel", [1, 4]),
        ("lstm_cell/recurrent_kernel", [1, 4]),
        ("backward_layer/cell/recurrent_kernel", [4]),
        (("forward_layer/cell/kernel", "bias"), [0, 2, 5]),
    ],
)
def test_a_name_stands_for_all_that_have_it_and_a_path_for_one(weights, expected):
    layer = Bridgeout(L.Bidirectional(L.LSTM(2)), 0.5, weights=weights)
    layer.build((None, 5, 3))
    drawn = [variable for variable, _ in layer.draw()]
    assert drawn == [layer.layer.weights[i] for i in expected]


def test_weights_of_layers_in_a_model_and_in_a_list_are_found():
    cells = [L.LSTMCell(2), L.GRUCell(2)]
    rnn, last = L.RNN(cells, name="rnn"), L.Dense(2, name="last")
    model = keras.Sequential([keras.Input((5, 3)), rnn, last])
    for name, weight in {
        "cells/1/recurrent_kernel": cells[1].recurrent_kernel,
        "rnn/cell/cells/0/kernel": cells[0].kernel,
        "last/kernel": last.kernel,
    }.items():
        layer = Bridgeout(model, 0.5, weights=name)
        layer.build((None, 5, 3))
        ((variable, _),) = layer.draw()
        assert variable is weight
