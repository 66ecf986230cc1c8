"""The layers where models run them: in fit, in loops, compiled, on replicas."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_sparseout
from keras_sparseout import Sparseout, SpatialSparseout1D

jit_or_not = pytest.mark.parametrize("jit_compile", [True, False])


class Counting(keras.Sequential):
    """Counts how often its training step is traced."""

    traces = 0

    def train_step(self, *args, **kwargs):
        self.traces += 1
        return super().train_step(*args, **kwargs)


def data(samples=48):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(samples, 8)).astype("float32")
    return x, rng.normal(size=(samples, 2)).astype("float32")


def network(*layers, model=keras.Sequential, **compile_args):
    model = model([keras.Input((8,)), keras.layers.Dense(16, "relu"), *layers])
    model.add(keras.layers.Dense(2))
    model.compile(**{"optimizer": "sgd", "loss": "mse", **compile_args})
    return model


def fit(model, x, y, **kwargs):
    settings = {"batch_size": 16, "shuffle": False, "verbose": 0}
    return model.fit(x, y, **{**settings, **kwargs}).history["loss"]


def assert_finite(*arrays):
    for array in arrays:
        assert np.isfinite(np.asarray(array, "float64")).all()


@pytest.mark.parametrize("adjustable", [False, True])
@pytest.mark.parametrize(("samples", "most"), [(48, 1), (42, 2)])
def test_a_fit_traces_its_step_once_and_once_more_for_a_partial_batch(
    adjustable, samples, most
):
    model = network(Sparseout(0.5, 1.5, adjustable=adjustable), model=Counting)
    fit(model, *data(samples), epochs=3)
    assert 1 <= model.traces <= most


class EachBatch(keras.callbacks.Callback):
    """Runs `begin(batch)` before each batch; `losses` are those of the batches."""

    def __init__(self, begin):
        super().__init__()
        self.begin = begin
        self.means = []

    def on_train_batch_begin(self, batch, logs=None):
        self.begin(batch)

    def on_train_batch_end(self, batch, logs=None):
        self.means.append(logs["loss"])

    @property
    def losses(self):
        # Keras logs the mean over the batches of the epoch until now.
        sums = np.multiply(self.means, np.arange(1, len(self.means) + 1))
        return np.diff(sums, prepend=0)


@jit_or_not
def test_assigned_rate_and_q_take_effect_at_the_next_step_without_a_retrace(
    jit_compile,
):
    # The loss is |y - x| = |x|^(q / 2) |xi|, and at rate 1/2 |xi| is 1.
    expected = {
        (0.0, 2.0): 0,
        (1.0, 2.0): 4,
        (0.5, 2.5): 4**1.25,
        (0.5, 1.0): 2,
        (1.0, 1.0): 4,
        (0.5, 3.0): 8,
        (0.0, 3.0): 0,
    }
    settings = list(expected)
    layer = Sparseout(0.1, 5.0, adjustable=True, jit_compile=jit_compile)
    identity = keras.layers.Dense(4, kernel_initializer="identity")
    model = Counting([keras.Input((4,)), identity, layer])
    model.compile(keras.optimizers.SGD(0.0), "mae")

    def assign(batch):
        layer.rate, layer.q = settings[batch]

    steps = EachBatch(assign)
    x = np.full((len(settings), 4), 4.0, "float32")
    fit(model, x, x, batch_size=1, callbacks=[steps])
    np.testing.assert_allclose(steps.losses, list(expected.values()), atol=1e-4)
    assert model.traces == 1


@pytest.mark.onednn
@pytest.mark.parametrize(
    "compile_args",
    [
        {"jit_compile": True},
        {"jit_compile": False},
        {"run_eagerly": True},
        {"steps_per_execution": 3},
    ],
    ids=str,
)
@pytest.mark.parametrize("adjustable", [False, True])
def test_every_way_to_run_fit_perturbs_and_stays_finite(compile_args, adjustable):
    layer = Sparseout(0.5, 1.5, adjustable=adjustable)
    model = network(layer, optimizer=keras.optimizers.SGD(0.0), **compile_args)
    x, y = data()
    losses = fit(model, x, y, epochs=2)
    assert_finite(losses, *model.get_weights())
    assert len({*losses, model.evaluate(x, y, verbose=0)}) == 3


@pytest.mark.parametrize(
    ("policy", "jit_compile"), [("mixed_float16", True), ("mixed_bfloat16", False)]
)
def test_200_steps_in_mixed_precision_stay_finite(policy, jit_compile):
    dtype = keras.DTypePolicy(policy)
    inputs = keras.Input((8,))
    outputs = []
    for q in (0.5, 1.0, 1.5, 3.0):
        hidden = keras.layers.Dense(8, "relu", dtype=dtype)(inputs)
        for x in (inputs, hidden):
            outputs.append(Sparseout(0.5, q, dtype=dtype)(x))
    joined = keras.layers.Concatenate(dtype=dtype)(outputs)
    model = keras.Model(inputs, keras.layers.Dense(2, dtype=dtype)(joined))
    optimizer = keras.optimizers.Adam(0.001)
    if policy == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    model.compile(optimizer, "mse", jit_compile=jit_compile)
    x, y = data(200 * 4)
    x[:, ::2] = 0
    # Rows of zeros make all hidden units 0 until there is a bias.
    x[::2] = 0
    losses = fit(model, x, y, batch_size=4)
    assert_finite(losses, *model.get_weights())
    # Loss scaling skips a step with a gradient that is not finite, and halves its
    # scale of 2^15: more than 15 skipped steps are none of a scale too large.
    applied = getattr(optimizer, "inner_optimizer", optimizer).iterations
    assert int(applied) >= 200 - 15


def test_q_1_on_tanh_and_on_lstm_outputs_with_padded_steps_stays_finite():
    def sparseout(x):
        return Sparseout(0.5, q=1.0, epsilon=1e-12)(x)

    lstm = keras.layers.LSTM(8, return_sequences=True, zero_output_for_mask=True)
    tokens = keras.Input((6,), dtype="int32")
    x = keras.layers.Embedding(9, 8, mask_zero=True)(tokens)
    x = sparseout(lstm(x))
    x = sparseout(keras.layers.LSTM(8)(x))
    x = sparseout(keras.layers.Dense(8, "tanh")(x))
    model = keras.Model(tokens, keras.layers.Dense(2)(x))
    model.compile("adam", "mse", jit_compile=False)
    _, y = data()
    x = np.random.default_rng(1).integers(1, 9, (48, 6))
    x[::2, 3:] = 0
    x[1::4, :2] = 0
    x[0] = 0
    losses = fit(model, x, y, epochs=10)
    assert_finite(losses, *model.get_weights())


@pytest.mark.parametrize("layer", [Sparseout, SpatialSparseout1D])
def test_an_lstm_behind_it_ignores_padded_steps(layer):
    embedding = keras.layers.Embedding(9, 4, mask_zero=True)
    model = keras.Sequential([embedding, layer(0.5), keras.layers.LSTM(3)])
    padded, bare = np.array([[5, 2, 0, 0]]), np.array([[5, 2]])
    np.testing.assert_allclose(model(padded), model(bare), rtol=1e-6)


def test_auto_compiles_where_all_but_the_batch_is_known():
    x = np.ones((4, 5, 6), "float32")

    def masks(jit_compile, shape):
        layer = Sparseout(0.5, seed=3, jit_compile=jit_compile)
        spec = tf.TensorSpec(shape)
        call = tf.function(lambda x: layer(x, training=True), input_signature=[spec])
        return call(x).numpy().tobytes()

    batch_unknown, time_unknown = (None, 5, 6), (None, None, 6)
    for shape in (batch_unknown, time_unknown):
        assert masks(True, shape) != masks(False, shape)
    assert masks("auto", batch_unknown) == masks(True, batch_unknown)
    assert masks("auto", time_unknown) == masks(False, time_unknown)


class Cell(keras.layers.Layer):
    state_size = output_size = 64

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def call(self, inputs, states, training=False):
        outputs = self.layer(inputs, training=training)
        return outputs, [outputs]


def in_rnn(layer, x):
    rnn = keras.layers.RNN(Cell(layer), return_sequences=True)
    return rnn(x[None], training=True)[0]


def in_time_distributed(layer, x):
    return keras.layers.TimeDistributed(layer)(x[None], training=True)[0]


def in_map_fn(layer, x):
    return tf.map_fn(lambda row: layer(row[None], training=True)[0], x)


def in_while_loop(layer, x):
    rows = tf.TensorArray("float32", len(x))

    def body(i, rows):
        return i + 1, rows.write(i, layer(x[i : i + 1], training=True)[0])

    return tf.while_loop(lambda i, _: i < len(x), body, (0, rows))[1].stack()


def in_data_map(layer, x):
    rows = tf.data.Dataset.from_tensor_slices(x)
    rows = rows.map(lambda row: layer(row[None], training=True)[0])
    return rows.batch(len(x)).get_single_element()


def in_gradient_of(wrap):
    def gradient(layer, x):
        call = wrap(lambda x: layer(x, training=True))
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = call(x)
        return tape.gradient(y, x)

    return gradient


PLACES = {
    "RNN": in_rnn,
    "TimeDistributed": in_time_distributed,
    "map_fn": in_map_fn,
    "while_loop": in_while_loop,
    "data.map": in_data_map,
    "recompute_grad": in_gradient_of(tf.recompute_grad),
    "remat": in_gradient_of(keras.remat),
}


@jit_or_not
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("traced", [False, True])
def test_rows_are_drawn_apart_and_finite_in(place, jit_compile, traced):
    layer = Sparseout(0.5, 1.5, jit_compile=jit_compile)
    layer.build((None, 64))
    x = tf.constant(np.full((4, 64), 4.0, "float32"))
    call = PLACES[place]
    y = (tf.function(call) if traced else call)(layer, x).numpy()
    assert y.shape == x.shape
    assert_finite(y)
    assert len(np.unique(y, axis=0)) == 4


@pytest.fixture
def strategy():
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


@jit_or_not
@pytest.mark.parametrize("seed", [None, 7])
def test_no_replica_repeats_a_mask_of_any_step(strategy, jit_compile, seed):
    with strategy.scope():
        layer = Sparseout(0.5, seed=seed, jit_compile=jit_compile)
    x = tf.ones((64,))

    @tf.function
    def step():
        return strategy.run(lambda: layer(x, training=True))

    masks = [
        y.numpy().tobytes()
        for _ in range(10)
        for y in strategy.experimental_local_results(step())
    ]
    assert len(masks) == len(set(masks)) == 20


def test_fit_under_a_strategy_is_finite(strategy):
    with strategy.scope():
        layer = Sparseout(0.5, 1.5, adjustable=True)
        model = network(layer, Sparseout(0.5, 1.5), jit_compile=False)

    def assign(batch):
        layer.rate = 1.0 if batch == 1 else 0.3

    steps = EachBatch(assign)
    losses = fit(model, *data(), callbacks=[steps])
    assert_finite(losses, *model.get_weights())


def test_equal_seeds_give_equal_runs_and_others_do_not():
    def run(seed):
        keras.utils.set_random_seed(seed)
        model = network(Sparseout(0.5, 1.5), Sparseout(0.5, jit_compile=False))
        fit(model, *data(), epochs=2)
        return [weight.tobytes() for weight in model.get_weights()]

    assert run(1) == run(1) != run(2)


def test_the_draws_themselves_follow_the_global_seed():
    def run(seed):
        keras.utils.set_random_seed(seed)
        return Sparseout(0.5)(tf.ones(64), training=True).numpy().tobytes()

    assert run(1) == run(1) != run(2)


@jit_or_not
def test_a_varying_batch_size_does_not_retrace_without_end(jit_compile, monkeypatch):
    traces = []
    perturb = keras_sparseout.ops.perturb

    def counting(*args, **kwargs):
        traces.append(args[0].shape)
        return perturb(*args, **kwargs)

    monkeypatch.setattr(keras_sparseout.ops, "perturb", counting)
    # A rate of its own: the compiled call is shared between layers of equal settings.
    layer = Sparseout(0.123, 1.5, jit_compile=jit_compile)
    model = network(layer, model=Counting)
    x, y = data()
    for size in range(1, 6):
        model.train_on_batch(x[:size], y[:size])
    assert model.traces <= 2
    assert len(traces) <= 2
    if jit_compile:
        # Called eagerly it is the compiled call alone that is traced.
        for size in range(1, 6):
            layer(x[:size], training=True)
        assert len(traces) <= 4
