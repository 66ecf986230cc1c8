"""Noise on the weights of RNN cells: one draw per sequence, before the loop."""

import batched
import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_sparseout.layers.bridgeout import Bridgeout
from keras_sparseout.layers.shakeout import Shakeout

L = keras.layers
CELLS = {"LSTM": L.LSTMCell, "GRU": L.GRUCell, "SimpleRNN": L.SimpleRNNCell}
every_wrapper = pytest.mark.parametrize("make", [Bridgeout, Shakeout])
NAMES = ("kernel", "recurrent_kernel")


def inputs(*shape):
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def draws(layer):
    return int(layer.seed_generator.state.numpy()[1])


@pytest.mark.parametrize(
    ("make", "cell", "unroll", "trace"),
    [
        (Bridgeout, "LSTM", True, True),
        (Bridgeout, "SimpleRNN", False, False),
        (Shakeout, "GRU", False, True),
        (Shakeout, "SimpleRNN", True, False),
    ],
)
def test_a_cell_in_rnn_is_the_layer_itself_in_the_wrapper(make, cell, unroll, trace):
    x = inputs(2, 5, 3)
    outer = make(getattr(L, cell)(4), 0.5, 1.5, NAMES, seed=1)
    inner = make(CELLS[cell](4), 0.5, 1.5, NAMES, seed=1)
    rnn = L.RNN(inner, unroll=unroll)
    outer.build(x.shape)
    rnn.build(x.shape)
    for weight in outer.weights:
        weight.assign(np.random.default_rng(2).uniform(0.2, 1, weight.shape))
    rnn.set_weights(outer.get_weights())
    call = (tf.function if trace else lambda f: f)(lambda x: rnn(x, training=True))
    for step in range(2):
        y = call(x)
        # One draw for each of the two weights, and not one for each timestep.
        assert draws(inner) == 2 * (step + 1)
        np.testing.assert_allclose(y, outer(x, training=True), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(rnn(x), outer(x), rtol=1e-6)
    assert draws(inner) == 4


@every_wrapper
def test_gradients_come_to_the_true_weights(make):
    x = inputs(2, 5, 3)
    rnn = L.RNN(make(L.LSTMCell(4), 0.5, 1.5, NAMES))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(rnn(x, training=True))
    found = tape.gradient(loss, [v.value for v in rnn.trainable_variables])
    assert len(found) == 3
    for gradient in found:
        assert np.isfinite(gradient).all()
        assert np.any(gradient)


def train(model, **compile_args):
    model.compile("sgd", "mse", **compile_args)
    before = model.get_weights()
    x, y = inputs(8, 5, 3), inputs(8, 2)
    losses = batched.fit(model, x, y, batch_size=4, verbose=0)
    assert np.isfinite(losses.history["loss"]).all()
    for old, new in zip(before, model.get_weights(), strict=True):
        assert (old != new).any()


def test_an_rnn_around_a_noisy_cell_trains_compiled():
    cell = Bridgeout(L.SimpleRNNCell(2), 0.5, 1.5, weights="recurrent_kernel")
    train(keras.Sequential([keras.Input((5, 3)), L.RNN(cell)]), jit_compile=True)


def stack_beside_dropout():
    cells = [
        Bridgeout(L.LSTMCell(4, dropout=0.5), 0.5, weights="recurrent_kernel"),
        Shakeout(L.GRUCell(4, recurrent_dropout=0.5), 0.5, 0.1),
    ]
    return L.RNN(L.StackedRNNCells(cells))


def around_a_stack():
    stack = L.StackedRNNCells([L.LSTMCell(4), L.SimpleRNNCell(4)])
    return L.Bidirectional(L.RNN(Bridgeout(stack, 0.5)))


@pytest.mark.parametrize(
    ("layer", "run_eagerly"), [(stack_beside_dropout, False), (around_a_stack, True)]
)
def test_cells_train_in_stacks(layer, run_eagerly):
    model = keras.Sequential([keras.Input((5, 3)), layer(), L.Dense(2)])
    train(model, run_eagerly=run_eagerly, jit_compile=False)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16", "float64"])
def test_a_cell_runs_in_the_precision_of_its_own(policy):
    rnn = L.RNN(Bridgeout(L.LSTMCell(4, dtype=policy), 0.5, 1.5), dtype=policy)
    y = rnn(inputs(2, 5, 3), training=True)
    assert y.dtype.name == policy.removeprefix("mixed_")
    assert np.isfinite(np.asarray(y, "float64")).all()


def test_a_file_gives_back_an_rnn_around_a_noisy_cell(tmp_path):
    cell = Bridgeout(L.LSTMCell(4), 0.5, weights="recurrent_kernel")
    model = keras.Sequential([keras.Input((5, 3)), L.RNN(cell, return_state=True)])
    x = inputs(2, 5, 3)
    model(x, training=True)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for training in (False, True, True):
        found, expected = (m(x, training=training) for m in (loaded, model))
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_cell_outside_of_an_rnn_says_where_it_belongs():
    cell = Bridgeout(L.LSTMCell(4), 0.5)
    states = cell.get_initial_state(2)
    cell(inputs(2, 3), states)
    with pytest.raises(RuntimeError, match="Received: a call of"):
        cell(inputs(2, 3), states, training=True)


@every_wrapper
def test_a_cell_at_rate_0_is_the_plain_one_and_draws_nothing(make):
    x, plain = inputs(2, 5, 3), L.RNN(L.LSTMCell(4))
    cell = make(L.LSTMCell(4), 0.0, 1.5)
    rnn = L.RNN(cell)
    for layer in (plain, rnn):
        layer.build(x.shape)
    rnn.set_weights(plain.get_weights())
    np.testing.assert_array_equal(rnn(x, training=True), plain(x, training=True))
    assert draws(cell) == 0
