"""Sparseout in models: in `fit`, compiled, in mixed precision, on replicas."""

import batched
import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_sparseout import Sparseout, SpatialSparseout1D
from keras_sparseout.ops import compiled_noise, noise

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


def fit_history(model, x, y, **kwargs):
    options = {"batch_size": 16, "verbose": 0, **kwargs}
    return batched.fit(model, x, y, **options).history


def fit(model, x, y, **kwargs):
    return fit_history(model, x, y, **kwargs)["loss"]


def assert_finite(*arrays):
    for array in arrays:
        assert np.isfinite(np.asarray(array, "float64")).all()


def test_a_fit_traces_its_step_once_and_once_more_for_a_partial_batch():
    plain = {"jit_compile": False}
    layers = Sparseout(0.5, 1.5, **plain), Sparseout(0.5, adjustable=True, **plain)
    model = network(*layers, model=Counting, **plain)
    fit(model, *data(48), epochs=3)
    assert model.traces == 1
    fit(model, *data(42), epochs=3)
    assert 1 <= model.traces <= 2


class EachBatch(keras.callbacks.Callback):
    """Calls `begin(batch)` before each batch; `losses` has the loss of each batch."""

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
        {"run_eagerly": True},
        {"steps_per_execution": 3, "jit_compile": False},
    ],
    ids=str,
)
def test_every_way_to_run_fit_perturbs_and_stays_finite(compile_args):
    # An output for each layer: the loss of each shows whether it perturbs.
    inputs = keras.Input((8,))
    noisy = {
        "constant": Sparseout(0.5, 1.5)(inputs),
        "adjustable": Sparseout(0.5, 1.5, adjustable=True)(inputs),
    }
    dense = keras.layers.Dense(2)
    model = keras.Model(inputs, {name: dense(x) for name, x in noisy.items()})
    optimizer = keras.optimizers.SGD(0.0)
    model.compile(optimizer, dict.fromkeys(noisy, "mse"), **compile_args)
    x, y = data()
    history = fit_history(model, x, dict.fromkeys(noisy, y), epochs=2)
    evaluated = model.evaluate(x, dict.fromkeys(noisy, y), verbose=0, return_dict=True)
    for name in noisy:
        losses = history[f"{name}_loss"]
        assert_finite(losses, *model.get_weights())
        assert len({*losses, evaluated[f"{name}_loss"]}) == 3


def test_60_steps_in_mixed_precision_stay_finite():
    dtype = keras.DTypePolicy("mixed_float16")
    inputs = keras.Input((8,))
    hidden = keras.layers.Dense(8, "relu", dtype=dtype)(inputs)
    outputs = [
        Sparseout(0.5, q, dtype=dtype)(x) for q in (0.5, 3.0) for x in (inputs, hidden)
    ]
    joined = keras.layers.Concatenate(dtype=dtype)(outputs)
    model = keras.Model(inputs, keras.layers.Dense(2, dtype=dtype)(joined))
    adam = keras.optimizers.Adam(0.001)
    model.compile(keras.optimizers.LossScaleOptimizer(adam), "mse", jit_compile=False)
    x, y = data(60 * 4)
    x[:, ::2] = 0
    # Rows of zeros make all hidden units 0 until there is a bias.
    x[::2] = 0
    losses = fit(model, x, y, batch_size=4)
    assert_finite(losses, *model.get_weights())
    # Loss scaling skips a step with a gradient that is not finite, and halves its
    # scale of 2^15. A scale that is too large explains at most 15 skipped steps.
    assert int(adam.iterations) >= 60 - 15


def test_q_1_on_tanh_and_on_lstm_outputs_with_padded_steps_stays_finite():
    def sparseout(x):
        return Sparseout(0.5, q=1.0, epsilon=1e-12, jit_compile=False)(x)

    lstm = keras.layers.LSTM(8, return_sequences=True, zero_output_for_mask=True)
    tokens = keras.Input((6,), dtype="int32")
    x = keras.layers.Embedding(9, 8, mask_zero=True)(tokens)
    x = sparseout(lstm(x))
    x = sparseout(keras.layers.Dense(8, "tanh")(keras.ops.sum(x, axis=1)))
    model = keras.Model(tokens, keras.layers.Dense(2)(x))
    model.compile("sgd", "mse", jit_compile=False)
    _, y = data()
    x = np.random.default_rng(1).integers(1, 9, (48, 6))
    x[::2, 3:] = 0
    x[1::4, :2] = 0
    x[0] = 0
    losses = fit(model, x, y, epochs=5)
    assert_finite(losses, *model.get_weights())


@pytest.mark.parametrize("layer", [Sparseout, SpatialSparseout1D])
def test_an_lstm_behind_it_ignores_padded_steps(layer):
    embedding = keras.layers.Embedding(9, 4, mask_zero=True)
    model = keras.Sequential([embedding, layer(0.5), keras.layers.LSTM(3)])
    padded, bare = np.array([[5, 2, 0, 0]]), np.array([[5, 2]])
    np.testing.assert_allclose(model(padded), model(bare), rtol=1e-6)


def test_auto_compiles_large_inputs_where_all_but_the_batch_is_known():
    def compiles(jit_compile, shape):
        layer = Sparseout(0.5, seed=3, jit_compile=jit_compile)
        call = tf.function(lambda x: layer(x, training=True))
        graph = call.get_concrete_function(tf.TensorSpec(shape)).graph.as_graph_def()
        functions = graph.library.function
        return any(f.attr["_XlaMustCompile"].b for f in functions)

    large = (None, 16, 4), (32, 256), (2**13,)
    small = (None, 7, 9), (32, 255), (2**13 - 1,), (None,), ()
    time_unknown = (None, None, 600)
    assert compiles(True, small[0])
    assert compiles(True, time_unknown)
    assert not compiles(False, large[0])
    assert all(compiles("auto", shape) for shape in large)
    assert not any(compiles("auto", shape) for shape in (*small, time_unknown))


@jit_or_not
@pytest.mark.parametrize("shape", [(), (None,), (None, 5), (2, None, 3), (None, 600)])
def test_results_have_the_shape_that_is_known_of_the_input(shape, jit_compile):
    layer = Sparseout(0.5, 1.5, jit_compile=jit_compile)
    call = tf.function(lambda x: layer(x, training=True))
    result = call.get_concrete_function(tf.TensorSpec(shape)).structured_outputs
    assert result.shape.as_list() == list(shape)


@pytest.mark.onednn
@pytest.mark.parametrize(
    ("q", "dtype", "tolerance"),
    [
        (1.5, "float32", 1e-6),
        (2.0, "float32", 0),
        # 1 ulp. XLA computes bfloat16 in float32 as it does float16.
        (1.3, "float16", 2**-10),
    ],
)
def test_a_seed_gives_the_same_values_compiled_or_not(q, dtype, tolerance):
    x, upstream = tf.cast(np.random.default_rng(0).normal(size=(2, 16, 5, 6)), dtype)
    layers = [
        Sparseout(0.3, q, seed=3, jit_compile=jit, dtype=dtype) for jit in (True, False)
    ]
    for _ in range(3):
        results = []
        for layer in layers:
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = layer(x, training=True)
            dx = tape.gradient(y, x, output_gradients=upstream)
            results.append([tf.cast(v, "float64").numpy() for v in (y, dx)])
        # x n is a difference where n is near 0: so the error counts beside x too.
        for compiled, plain, v in zip(*results, (x, upstream), strict=True):
            size = np.maximum(np.abs(plain), np.abs(tf.cast(v, "float64")))
            assert np.all(np.abs(compiled - plain) <= tolerance * size)


@pytest.fixture
def strategy():
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


@pytest.mark.parametrize(("jit_compile", "seed"), [(True, None), (False, 7)])
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
        layers = Sparseout(0.5, 1.5), Sparseout(0.5, jit_compile=False)
        model = network(*layers, run_eagerly=True)
        fit(model, *data(16))
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
    room = compiled_noise if jit_compile else noise
    times_n = room.times_n

    def counting(*args, **kwargs):
        # Plain, the gradient is a second call. Compiled, it is the same program.
        if jit_compile or "slope" not in kwargs:
            traces.append(args[0].shape)
        return times_n(*args, **kwargs)

    monkeypatch.setattr(room, "times_n", counting)
    # Settings of its own: layers with the same settings share the compiled call.
    layer = Sparseout(0.5, 1.5, epsilon=0.123, jit_compile=jit_compile)
    model = network(layer, model=Counting, jit_compile=False)
    x, y = data()
    for size in range(1, 4):
        model.train_on_batch(x[:size], y[:size])
    assert model.traces <= 2
    assert 1 <= len(traces) <= 2
    if jit_compile:
        # An eager call traces only the compiled call.
        for size in range(1, 4):
            layer(x[:size], training=True)
        assert len(traces) <= 4
