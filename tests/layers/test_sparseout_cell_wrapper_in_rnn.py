"""SparseoutCellWrapper with the options of keras.layers.RNN, and in models."""

import batched
import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops
from sequences import (
    BATCH,
    CELLS,
    DRAWING_CELLS,
    FEATURES,
    STEPS,
    UNITS,
    Echo,
    OwnCell,
    rnn,
    sequences,
)

from keras_sparseout import SparseoutScheduler
from keras_sparseout.layers.sparseout_cell_wrapper import SparseoutCellWrapper

some_cells = pytest.mark.parametrize(
    "cell", [CELLS["lstm"], CELLS["stack"]], ids=["lstm", "stack"]
)
NOISE = {"rate": 0.5, "recurrent_rate": 0.3, "q": 1.5, "seed": 1}


def pair(cell, options, others):
    """Returns two layers of equal weights and seeds, with other options of RNN."""
    first = rnn(cell(), **NOISE, **options)
    return first, rnn(cell(), **NOISE, **others, weights=first.get_weights())


def assert_close(a, b):
    keras.tree.map_structure(
        lambda u, v: np.testing.assert_allclose(u, v, rtol=1e-4, atol=1e-5), a, b
    )


@some_cells
def test_unrolled_is_the_same(cell):
    loop, unrolled = pair(cell, {}, {"unroll": True})
    x = sequences()
    assert_close(unrolled(x, training=True), loop(x, training=True))
    assert (loop(x, training=True) != loop(x)).numpy().any()


@pytest.mark.onednn
def test_compiled_by_xla_is_the_same():
    plain, compiled = pair(CELLS["own"], {}, {})
    call = tf.function(compiled, jit_compile=True)
    x = tf.constant(sequences())
    for _ in range(2):
        assert_close(call(x, training=True), plain(x, training=True))


def test_going_backwards_is_the_reversed_sequence():
    forward, backward = pair(CELLS["lstm"], {}, {"go_backwards": True})
    x = sequences()
    assert_close(backward(x, training=True), forward(x[:, ::-1], training=True))


@some_cells
def test_masked_steps_are_passed_over(cell):
    short, padded = pair(cell, *[{"return_sequences": False, "return_state": True}] * 2)
    x = sequences()
    mask = np.arange(STEPS) < STEPS - 2
    x[:, ~mask] = 7
    masked = padded(x, mask=np.tile(mask, (BATCH, 1)), training=True)
    assert_close(masked, short(x[:, mask], training=True))


def test_stateful_carries_the_states_and_draws_anew():
    stateful, given = pair(CELLS["lstm"], {"stateful": True}, {"return_state": True})
    x = sequences()
    y, *states = given(x, training=True)
    assert_close(stateful(x, training=True), y)
    assert_close([state.value for state in stateful.states], states)
    again, *_ = given(x, initial_state=states, training=True)
    assert_close(stateful(x, training=True), again)


@pytest.mark.parametrize("seed", [None, 1])
def test_bidirectional_draws_a_mask_for_each_direction(seed):
    cell = SparseoutCellWrapper(Echo(), 0.5, 0.5, seed=seed)
    layer = layers.Bidirectional(layers.RNN(cell, return_sequences=True))
    x = np.ones((BATCH, STEPS, FEATURES), "float32")
    y = layer(x, training=True)
    assert y.shape == (BATCH, STEPS, 2 * Echo.output_size)
    forward, backward = np.split(y, 2, -1)
    for way in (forward, backward):
        np.testing.assert_array_equal(np.unique(way), [0, 1, 2])
    assert (forward != backward).any() == (seed is None)
    assert (layer(x) == 1).numpy().all()


def test_a_model_takes_any_length_and_batch():
    inputs = keras.Input((None, FEATURES))
    outputs = layers.RNN(SparseoutCellWrapper(small_stack(), **NOISE))(inputs)
    model = keras.Model(inputs, outputs)
    call = tf.function(
        lambda x: model(x, training=True),
        input_signature=[tf.TensorSpec((None, None, FEATURES))],
    )
    for batch, steps in ((1, 1), (3, 4), (2, 9)):
        y = call(sequences(batch, steps)).numpy()
        assert y.shape == (batch, UNITS)
        assert np.isfinite(y).all()


@pytest.mark.parametrize("cell", DRAWING_CELLS.values(), ids=DRAWING_CELLS)
def test_dropout_of_the_cell_itself_goes_on(cell):
    layer = rnn(cell(), q=1.5, return_sequences=False)
    x = np.ones((BATCH, STEPS, FEATURES), "float32")
    # The sequences of the batch are equal: but for rounding only noise differs.
    assert np.ptp(layer(x, training=True), axis=0).max() > 0.01
    assert np.ptp(layer(x), axis=0).max() < 1e-5


@pytest.mark.parametrize(
    ("name", "policy"),
    [
        ("stack", "mixed_float16"),
        ("own", "mixed_bfloat16"),
        ("simple", "mixed_bfloat16"),
        ("stack", "float64"),
    ],
)
def test_dtypes_are_those_of_the_policy(name, policy):
    keras.config.set_dtype_policy(policy)
    try:
        layer = rnn(CELLS[name](), **NOISE, return_state=True)
    finally:
        keras.config.set_dtype_policy("float32")
    assert layer.cell.dtype_policy.name == policy
    outputs = layer(sequences(), training=True)
    for output in keras.tree.flatten(outputs):
        assert output.dtype.name == policy.removeprefix("mixed_")
        assert np.isfinite(np.asarray(output, "float64")).all()


def test_the_dtype_is_that_of_the_cell_unless_given():
    cell = layers.LSTMCell(UNITS, dtype="float64")
    assert SparseoutCellWrapper(cell).dtype_policy.name == "float64"
    given = SparseoutCellWrapper(cell, dtype="mixed_float16")
    assert given.dtype_policy.name == "mixed_float16"


@keras.saving.register_keras_serializable("tests")
class ImageCell(layers.Layer):
    """A convolutional cell: its state has the shape of an image."""

    state_size = (2,)
    output_size = 2

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.conv = layers.Conv2D(2, 3, padding="same", activation="tanh")

    def build(self, input_shape):
        self.conv.build((*input_shape[:-1], input_shape[-1] + 2))

    def get_initial_state(self, batch_size=None):
        return [ops.zeros((batch_size, 5, 5, 2))]

    def call(self, inputs, states):
        state = self.conv(ops.concatenate([inputs, states[0]], -1))
        return state, [state]


def test_states_may_be_images():
    layer = layers.RNN(SparseoutCellWrapper(ImageCell(), **NOISE))
    x = np.random.default_rng(0).normal(size=(2, 4, 5, 5, 3)).astype("float32")
    y = layer(x, training=True)
    assert y.shape == (2, 5, 5, 2)
    assert (y != layer(x)).numpy().any()


def test_a_wrapper_in_a_wrapper_adds_its_noise():
    inner = SparseoutCellWrapper(Echo(), 0.5, 0.5, seed=1)
    layer = rnn(inner, 0.5, 0.5, seed=2)
    x = np.ones((BATCH, STEPS, FEATURES), "float32")
    y = layer(x, training=True)
    assert set(np.unique(y)) == {0, 1, 4}
    np.testing.assert_array_equal(y, np.broadcast_to(y[:, :1], y.shape))


def model_of(*cells, **kwargs):
    model = keras.Sequential(
        [
            keras.Input((STEPS, FEATURES)),
            *[layers.RNN(cell, return_sequences=True) for cell in cells],
            layers.Dense(1),
        ]
    )
    model.compile("sgd", "mse", **kwargs)
    return model


def small_stack():
    return layers.StackedRNNCells([layers.LSTMCell(UNITS), OwnCell(UNITS)])


@pytest.mark.parametrize(
    ("cell", "options"),
    [
        (small_stack, {}),
        (CELLS["simple"], {"jit_compile": True}),
        (small_stack, {"run_eagerly": True}),
    ],
    ids=["traced", "compiled", "eager"],
)
def test_fit_in_every_mode(cell, options):
    model = model_of(SparseoutCellWrapper(cell(), **NOISE), **options)
    x = sequences(8)
    before = model.get_weights()
    history = batched.fit(model, x, x[..., :1], batch_size=4, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    for a, b in zip(before, model.get_weights(), strict=True):
        assert (a != b).any()


@pytest.mark.parametrize("at_construction", [False, True])
def test_a_frozen_cell_is_not_trained_but_perturbed(at_construction):
    cell = SparseoutCellWrapper(OwnCell(UNITS), 0.5, trainable=not at_construction)
    model = model_of(cell, run_eagerly=True)
    if not at_construction:
        cell.trainable = False
    assert len(model.trainable_variables) == 2
    before = cell.get_weights()
    x = sequences()
    batched.fit(model, x, x[..., :1], verbose=0)
    for a, b in zip(before, cell.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert (model(x, training=True) != model(x)).numpy().any()


def test_the_scheduler_finds_it():
    cell = SparseoutCellWrapper(OwnCell(UNITS), adjustable=True)
    model = model_of(cell, run_eagerly=True)
    x = sequences(8)
    schedule = keras.optimizers.schedules.PolynomialDecay(2.0, 4, 1.0)
    callback = SparseoutScheduler(q=schedule)
    options = {"batch_size": 2, "verbose": 0, "callbacks": [callback]}
    batched.fit(model, x, x[..., :1], **options)
    assert cell.q == 1.25


def test_the_scheduler_says_how_to_make_it_adjustable():
    cell = SparseoutCellWrapper(layers.LSTMCell(UNITS, name="cell"), 0.5, name="noisy")
    model = model_of(cell)
    x = sequences(2)
    callback = SparseoutScheduler(q=lambda step: 2.0)
    with pytest.raises(ValueError, match="Make it SparseoutCellWrapper") as error:
        model.fit(x, x[..., :1], verbose=0, callbacks=[callback])
    assert str(error.value).endswith(
        "Make it SparseoutCellWrapper(keras.layers.LSTMCell(5, name='cell'), rate=0.5, "
        "recurrent_rate=0.0, q=2.0, name='noisy', adjustable=True)."
    )


def test_training_may_be_told_in_a_functional_model():
    inputs = keras.Input((None, FEATURES))
    layer = layers.RNN(SparseoutCellWrapper(layers.LSTMCell(UNITS), **NOISE))
    model = keras.Model(inputs, layer(inputs, training=True))
    x = sequences()
    assert (model(x) != model(x)).numpy().any()


class Lookup(layers.Layer):
    """A cell whose inputs are integers."""

    state_size = output_size = UNITS

    def build(self, input_shape):
        self.rows = self.add_weight(shape=(FEATURES, UNITS))

    def call(self, inputs, states):
        state = ops.tanh(ops.take(self.rows, inputs[:, 0], axis=0) + states[0])
        return state, [state]


def test_inputs_that_are_no_floats_may_not_be_perturbed():
    x = np.zeros((2, STEPS, 1), "int32")
    states_alone, inputs_too = (
        layers.RNN(SparseoutCellWrapper(Lookup(), rate, 0.5)) for rate in (0, 0.5)
    )
    y = states_alone(x, training=True)
    assert (y != states_alone(x)).numpy().any()
    with pytest.raises(ValueError, match=r"`inputs` must be.*int32"):
        inputs_too(x, training=True)


class Counting(Echo):
    """An Echo that assigns at each step, where the replicas take turns."""

    def build(self, input_shape):
        self.count = self.add_weight(shape=(), trainable=False, aggregation="mean")

    def call(self, inputs, states):
        self.count.assign(self.count + 1)
        return super().call(inputs, states)


@pytest.mark.parametrize(("cell", "unroll"), [(Echo, False), (Counting, True)])
def test_replicas_draw_masks_of_their_own(cell, unroll):
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        layer = rnn(cell(), 0.5, 0.5, unroll=unroll)
    x = tf.ones((BATCH, STEPS, FEATURES))

    @tf.function
    def step():
        return strategy.run(lambda: layer(x, training=True))

    seen = []
    for _ in range(4):
        for y in strategy.experimental_local_results(step()):
            y = y.numpy()
            np.testing.assert_array_equal(y, np.broadcast_to(y[:, :1], y.shape))
            seen.append(y.tobytes())
    assert len(seen) == len(set(seen)) == 8
