"""What SparseoutCellWrapper computes, against plain cells and NumPy."""

import math

import batched
import keras
import numpy as np
import pytest
import tensorflow as tf
from formula import reference
from keras import layers
from sequences import (
    BATCH,
    CELLS,
    DRAWING_CELLS,
    FEATURES,
    STEPS,
    UNITS,
    Echo,
    built,
    rnn,
    sequences,
)

from keras_sparseout import ops
from keras_sparseout.layers.sparseout_cell_wrapper import SparseoutCellWrapper
from keras_sparseout.ops import masks

every_cell = pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)


def train(layer, x):
    return np.asarray(layer(x, training=True))


def values_and_gradients(layer, x, training):
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, training=training)
    return y, *tape.gradient(y, [x, *layer.trainable_weights])


def plain_and_wrapped(cell, **kwargs):
    plain = built(layers.RNN(cell(), return_sequences=True))
    return plain, rnn(cell(), q=1.5, weights=plain.get_weights(), **kwargs)


@pytest.mark.onednn
@pytest.mark.parametrize(
    "name", ["lstm", "own", "stack", "gru_dropout", "stack_dropout", "wrapper"]
)
def test_rates_0_are_the_plain_cell_to_the_bit(name):
    pair = plain_and_wrapped((CELLS | DRAWING_CELLS)[name])
    x = sequences(steps=2)
    # Twice, since a cell that draws must draw the same the second time too.
    for _ in range(2):
        results = [values_and_gradients(layer, x, training=True) for layer in pair]
        for theirs, ours in zip(*results, strict=True):
            np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(*[layer(x) for layer in pair])


@pytest.mark.parametrize("cell", [CELLS["lstm"], CELLS["stack"]], ids=["lstm", "stack"])
def test_rates_0_that_are_variables_give_the_values_of_the_plain_cell(cell):
    plain = built(layers.RNN(cell(), return_sequences=True))
    adjustable = rnn(cell(), q=1.5, adjustable=True)
    adjustable.cell.cell.set_weights(plain.get_weights())
    x = sequences(steps=3)
    np.testing.assert_array_equal(train(adjustable, x), train(plain, x))


@every_cell
def test_inference_is_the_plain_cell_to_the_bit_and_draws_nothing(cell):
    plain, wrapped = plain_and_wrapped(cell, rate=0.5, recurrent_rate=0.5)
    state = wrapped.cell.seed_generator.state
    before = state.numpy().tolist()
    x = sequences(steps=2)
    np.testing.assert_array_equal(wrapped(x), plain(x))
    if cell is CELLS["lstm"]:
        traced = [tf.function(layer)(x) for layer in (wrapped, plain)]
        np.testing.assert_array_equal(*traced)
    assert state.numpy().tolist() == before
    train(wrapped, x)
    assert state.numpy().tolist() != before


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def numpy_lstm(x, weights, keep, keep_h, q):
    """Returns h of each timestep, with inputs and states perturbed at rate 1/2."""
    kernel, recurrent_kernel, bias = (np.float64(w) for w in weights)
    h = c = np.zeros((len(x), UNITS))
    outputs = []
    for x_t in np.float64(x).swapaxes(0, 1):
        noisy_x, noisy_h = (
            reference(v, k, 0.5, q)[0] for v, k in ((x_t, keep), (h, keep_h))
        )
        z = noisy_x @ kernel + noisy_h @ recurrent_kernel + bias
        i, f, g, o = np.split(z, 4, axis=1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        outputs.append(h)
    return np.stack(outputs, 1)


def give_masks(monkeypatch, *given):
    """Makes the draws of the next sequence give these masks."""
    left = list(given)

    def bernoulli(shape, rate, seed):
        mask = left.pop(0)
        assert tuple(shape) == mask.shape
        return tf.constant(mask), masks.quantise(rate)[1]

    monkeypatch.setattr(masks, "bernoulli", bernoulli)


def coins(*shapes):
    rng = np.random.default_rng(1)
    return [rng.random(shape) < 0.5 for shape in shapes]


@pytest.mark.parametrize("q", [2.0, 1.0, 3.0])
def test_an_lstm_is_that_of_numpy_on_the_same_masks(monkeypatch, q):
    keep, keep_h = coins((BATCH, FEATURES), (BATCH, UNITS))
    layer = rnn(layers.LSTMCell(UNITS), 0.5, 0.5, q)
    give_masks(monkeypatch, keep_h, keep)
    expected = numpy_lstm(sequences(), layer.get_weights(), keep, keep_h, q)
    np.testing.assert_allclose(train(layer, sequences()), expected, atol=2e-5)
    # At q = 2 it is a masked LSTM, at other q it is not.
    others = numpy_lstm(sequences(), layer.get_weights(), keep, keep_h, 2.0)
    assert np.allclose(others, expected, atol=1e-2) == (q == 2)


@pytest.mark.parametrize(
    ("name", "q", "stop_gradient"),
    [
        ("lstm", 2.0, False),
        ("lstm", 1.5, True),
        ("gru", 1.5, False),
        ("simple", 1.3, True),
        ("own", 1.3, False),
    ],
)
def test_values_and_gradients_are_those_of_a_loop(monkeypatch, name, q, stop_gradient):
    keep, keep_h = coins((BATCH, FEATURES), (BATCH, UNITS))
    layer = rnn(CELLS[name](), 0.25, 0.5, q, stop_gradient=stop_gradient)

    def loop(x, training):
        cell = layer.cell.cell
        states = [tf.zeros((BATCH, UNITS))] * (2 if name == "lstm" else 1)
        outputs = []
        for t in range(STEPS):
            noisy_x, noisy_h = (
                ops.sparseout(v, rate, q, mask=k, stop_gradient=stop_gradient)
                for v, rate, k in ((x[:, t], 0.25, keep), (states[0], 0.5, keep_h))
            )
            output, states = cell(noisy_x, [noisy_h, *states[1:]])
            outputs.append(output)
        return tf.stack(outputs, 1)

    loop.trainable_weights = layer.trainable_weights
    give_masks(monkeypatch, keep_h, keep)
    ours = values_and_gradients(layer, sequences(), True)
    theirs = values_and_gradients(loop, sequences(), True)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def multipliers(layer, batch=BATCH):
    """Returns the multipliers of inputs, h and c, from a layer around an Echo."""
    y = train(layer, np.ones((batch, STEPS, FEATURES), "float32"))
    return np.split(y, [FEATURES, FEATURES + UNITS], -1)


def test_a_mask_is_one_a_sequence_and_not_a_timestep():
    layer = rnn(Echo(), 0.5, 0.25, seed=1)
    first = multipliers(layer)
    *noisy, c = first
    for n, kept in zip(noisy, (2, 4 / 3), strict=True):
        np.testing.assert_allclose(np.unique(n), [0, kept], rtol=1e-6)
        np.testing.assert_array_equal(n, np.broadcast_to(n[:, :1], n.shape))
        assert len(np.unique(n[:, 0], axis=0)) > 1
    assert (c == 1).all()
    second = multipliers(layer)
    assert all((a != b).any() for a, b in zip(noisy, second, strict=False))


def test_the_share_of_kept_units_is_that_of_each_rate():
    batch = 400
    on_x, on_h, _ = multipliers(rnn(Echo(), 0.3, 0.6), batch)
    for n, rate in ((on_x, 0.3), (on_h, 0.6)):
        draws = n[:, 0].size
        sigma = math.sqrt(rate * (1 - rate) / draws)
        assert abs((n[:, 0] == 0).mean() - rate) < 5 * sigma


@pytest.mark.parametrize("rates", [(0.5, 0.0), (0.0, 0.5)])
def test_one_rate_may_be_0(rates):
    *noisy, c = multipliers(rnn(Echo(), *rates))
    for n, rate in zip(noisy, rates, strict=True):
        assert (n == 1).all() == (rate == 0)
    assert (c == 1).all()


@pytest.mark.parametrize(
    ("q", "adjustable"),
    [(0.0, False), (2.0, False), (3.0, False), (0.0, True), (1.5, True)],
)
def test_rates_1_give_zeros(q, adjustable):
    on_x, on_h, _ = multipliers(rnn(Echo(), 1.0, 1.0, q, adjustable=adjustable))
    assert not on_x.any()
    assert not on_h.any()


def test_each_cell_of_a_stack_has_a_mask_of_its_own():
    # The output of the second cell holds the output of the first and its own state.
    cell = layers.StackedRNNCells([Echo(), Echo()])
    layer = rnn(cell, 0.0, 0.5, seed=1)
    y = train(layer, np.ones((BATCH, STEPS, FEATURES), "float32"))
    sizes = np.cumsum([FEATURES, UNITS, UNITS, UNITS])
    x, h1, c1, h2, c2 = np.split(y, sizes, -1)
    assert all((same == 1).all() for same in (x, c1, c2))
    for h in (h1, h2):
        np.testing.assert_array_equal(np.unique(h), [0, 2])
        np.testing.assert_array_equal(h, np.broadcast_to(h[:, :1], h.shape))
    assert (h1 != h2).any()


def cell_that_passes_on(cell, gate):
    """Returns a layer that ignores its inputs, with its `gate` open."""
    layer = rnn(cell, 0.0, 0.5, seed=1, return_state=True)
    weights = [np.zeros_like(w) for w in layer.get_weights()]
    weights[-1][..., gate * UNITS : (gate + 1) * UNITS] = 100
    layer.set_weights(weights)
    return layer


def test_the_cell_state_of_an_lstm_is_passed_on_as_it_is():
    layer = cell_that_passes_on(layers.LSTMCell(UNITS), gate=1)
    c = tf.constant(np.random.default_rng(0).normal(size=(BATCH, UNITS)), "float32")
    *_, last = layer(sequences(), initial_state=[c, c], training=True)
    np.testing.assert_array_equal(last, c)


def test_in_a_gru_the_state_that_is_passed_on_is_perturbed_as_documented():
    layer = cell_that_passes_on(layers.GRUCell(UNITS), gate=0)
    h = tf.ones((BATCH, UNITS))
    _, last = layer(sequences(), initial_state=[h], training=True)
    np.testing.assert_array_equal(np.unique(last), [0, 2.0**STEPS])


def test_assigned_knobs_take_effect_without_a_retrace():
    layer = rnn(Echo(), 0.5, 0.5, adjustable=True)
    traces = []

    @tf.function
    def call(x):
        traces.append(x)
        return layer(x, training=True)

    x = np.full((BATCH, STEPS, FEATURES), 4, "float32")
    for knobs, seen_x, seen_h in [
        ((0.0, 0.5, 2), {4}, {0, 2}),
        ((0.5, 0.0, 2), {0, 8}, {1}),
        ((0.5, 1.0, 1), {2, 6}, {0}),
    ]:
        layer.cell.rate, layer.cell.recurrent_rate, layer.cell.q = knobs
        on_x, on_h, _ = np.split(call(x), [FEATURES, FEATURES + UNITS], -1)
        assert set(np.round(np.unique(on_x), 4)) == seen_x
        assert set(np.unique(on_h)) == seen_h
    assert len(traces) == 1
    assert (layer.cell.rate, layer.cell.recurrent_rate, layer.cell.q) == (0.5, 1, 1)
    assert len(layer.weights) == 3


@pytest.fixture
def policy(request):
    # For the whole model, so that `compile` scales the loss in float16.
    keras.config.set_dtype_policy(request.param)
    yield
    keras.config.set_dtype_policy("float32")


@pytest.mark.parametrize(
    ("policy", "q"),
    [("mixed_bfloat16", 1.0), ("mixed_float16", 0.5)],
    indirect=["policy"],
)
@pytest.mark.usefixtures("policy")
def test_training_a_cell_stays_finite(q):
    noisy = SparseoutCellWrapper(layers.SimpleRNNCell(UNITS), 0.5, 0.5, q)
    rnn = layers.RNN(noisy, return_sequences=True)
    model = keras.Sequential([keras.Input((None, FEATURES)), rnn])
    model.add(layers.Dense(1, dtype="float32"))
    x = sequences(40)
    x[::3, :2] = 0
    optimizer = keras.optimizers.SGD(0.01, clipnorm=1.0)
    model.compile(optimizer, "mse", jit_compile=False)
    history = batched.fit(model, x, x[..., :1], batch_size=8, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    assert all(np.isfinite(w).all() for w in model.get_weights())
