"""TargetSparsity in `fit`, on replicas, in loops, in files; and what it refuses."""

import math

import batched
import keras
import numpy as np
import pytest
import tensorflow as tf
from thresholded import batch, trainer, zeros

from keras_sparseout import TargetSparsity, activation_sparsity

L = keras.layers
X = np.random.default_rng(0).normal(size=(1280, 12)).astype("float32")
NEW = np.random.default_rng(1).normal(size=(2000, 12)).astype("float32")


def network(layer, **compile_args):
    model = keras.Sequential([keras.Input((12,)), L.Dense(48, "gelu"), layer])
    model.add(L.Dense(1))
    model.compile("sgd", "mse", **{"jit_compile": False, **compile_args})
    return model


def fit(model):
    batched.fit(model, X, X[:, :1], verbose=0)


def zeros_of_new_data(model, layer):
    return zeros(layer(model.layers[0](NEW)))


@pytest.mark.parametrize(
    ("compile_args", "axis"),
    [
        ({"jit_compile": True}, -1),
        ({"run_eagerly": True}, -1),
        ({"steps_per_execution": 8}, None),
    ],
    ids=str,
)
def test_fit_has_the_zeros_that_are_asked(compile_args, axis):
    layer = TargetSparsity(0.8, axis=axis)
    model = network(layer, **compile_args)
    fit(model)
    assert zeros_of_new_data(model, layer) == pytest.approx(0.8, abs=0.02)
    assert float(layer.threshold.numpy().min()) > 0


def test_the_last_batch_may_be_smaller():
    # With no Input and 8,192 activations the rank of a sample is unknown there.
    layer = TargetSparsity(0.8)
    model = keras.Sequential([L.Dense(128, "relu"), layer, L.Dense(1)])
    model.compile("sgd", "mse", jit_compile=False)
    model.fit(X[:136], X[:136, :1], batch_size=64, verbose=0)
    assert zeros_of_new_data(model, layer) == pytest.approx(0.8, abs=0.05)


@pytest.mark.parametrize("policy", ["mixed_float16", "float64"])
def test_other_precisions_do_too(policy):
    keras.config.set_dtype_policy(policy)
    try:
        layer = TargetSparsity(0.8)
        model = network(layer)
    finally:
        keras.config.set_dtype_policy("float32")
    fit(model)
    assert zeros_of_new_data(model, layer) == pytest.approx(0.8, abs=0.02)
    assert {w.dtype for w in layer.weights} == {"float32"}


def test_replicas_have_the_same_threshold():
    # Collective ops, the default, mistake models of two strategies for each other.
    to_one = tf.distribute.ReductionToOneDevice()
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"], to_one)
    with strategy.scope():
        layer = TargetSparsity(0.8, axis=-1)
        model = network(layer)
    fit(model)
    for weight in layer.weights:
        copies = strategy.experimental_local_results(weight.value)
        assert len(copies) == 2
        np.testing.assert_array_equal(*copies)
    y = layer(model.layers[0](NEW))
    assert zeros(y) == pytest.approx(0.8, abs=0.02)


class Cell(L.Layer):
    state_size = output_size = 8

    def __init__(self):
        super().__init__()
        self.cut = TargetSparsity(0.5, name="cut")

    def call(self, inputs, states):
        outputs = self.cut(inputs + states[0])
        return outputs, [outputs]


@pytest.mark.parametrize("unroll", [False, True])
def test_inside_an_rnn_cell_it_is_an_error_that_says_so(unroll):
    x = np.ones((2, 3, 8), "float32")
    model = keras.Sequential([keras.Input((3, 8)), L.RNN(Cell(), unroll=unroll)])
    model.compile("sgd", "mse", jit_compile=False)
    for call in (model, lambda x: model.fit(x, x[:, 0], verbose=0)):
        with pytest.raises(ValueError, match="'cut' is inside an RNN cell") as error:
            call(x)
        assert "Put it behind the RNN layer." in str(error.value)
    layer = TargetSparsity(0.5)
    behind = keras.Sequential([L.LSTM(8, return_sequences=True), layer])
    assert zeros(behind(x * np.arange(3)[:, None], training=True)) >= 0.4


@pytest.mark.parametrize("timesteps", [5, None])
def test_time_distributed_moves_it_at_each_timestep(timesteps):
    layer = TargetSparsity(0.7)
    model = keras.Sequential([keras.Input((timesteps, 16)), L.TimeDistributed(layer)])
    train = tf.function(lambda x: model(x, training=True))
    rng = np.random.default_rng(0)
    for _ in range(15):
        y = train(tf.reshape(batch(rng, size=160, units=16), (32, 5, 16)))
    assert zeros(y) == pytest.approx(0.7, abs=0.04)


def test_a_shared_layer_moves_at_each_call():
    class Counting(TargetSparsity):
        calls = 0

        def call(self, inputs, training=False, mask=None):
            self.calls += bool(training)
            return super().call(inputs, training=training, mask=mask)

    layer, rng = Counting(0.7), np.random.default_rng(0)
    inputs = keras.Input((64,))
    model = keras.Model(inputs, layer(layer(inputs)))
    calls = layer.calls
    model(batch(rng), training=True)
    assert layer.calls == calls + 2
    # The second one sees what the first one cut: all zeros that it asks for.
    assert layer.natural_zeros > 0.3


@pytest.mark.parametrize(("axis", "centre"), [(None, "mode"), (-1, None)])
def test_a_resumed_run_is_the_run_that_was_not_interrupted(axis, centre, tmp_path):
    rng = np.random.default_rng(0)
    batches = [batch(rng) for _ in range(6)]

    def made():
        return TargetSparsity(0.6, axis=axis, centre=centre, adjustable=True)

    whole = made()
    for x in batches:
        whole(x, training=True)
    model = keras.Sequential([keras.Input((64,)), made()])
    model.layers[0].target = 0.6
    for x in batches[:3]:
        model(x, training=True)
    model.save_weights(tmp_path / "a.weights.h5")
    model.save(tmp_path / "a.keras")
    other = keras.Sequential([keras.Input((64,)), made()])
    other.load_weights(tmp_path / "a.weights.h5")
    for resumed in (other, keras.saving.load_model(tmp_path / "a.keras")):
        for x in batches[3:]:
            resumed(x, training=True)
        for a, b in zip(whole.weights, resumed.layers[0].weights, strict=True):
            np.testing.assert_array_equal(a, b)


def test_recomputed_gradients_are_finite():
    layer = TargetSparsity(0.6)
    x = batch(np.random.default_rng(0))
    layer(x, training=True)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = tf.recompute_grad(lambda x: layer(x, training=True))(x)
    assert np.isfinite(tape.gradient(y, x)).all()


def test_the_table_lists_what_it_leaves():
    layer = TargetSparsity(0.9, name="cut")
    model = network(layer)
    model(X, training=True)
    rows = activation_sparsity(model, NEW, layers=["cut"]).rows
    [row] = [row for row in rows if row["layer"] == "cut"]
    assert row["zeros"] == pytest.approx(0.9, abs=0.02)


BAD = [
    *[("target", value) for value in (-0.1, 1, 1.0 - 1e-9, math.nan, "0.5", None)],
    *[("axis", 1), ("axis", (0,)), ("axis", True), ("centre", "mean")],
    *[("momentum", 1.0), ("momentum", -1), ("momentum", None)],
    *[(name, 1) for name in ("add_back", "soft", "straight_through", "adjustable")],
]


@pytest.mark.parametrize(("argument", "value"), BAD)
def test_bad_arguments_are_named(argument, value):
    with pytest.raises(ValueError, match=f"`{argument}` must be") as error:
        TargetSparsity(**{"target": 0.5, argument: value})
    assert f"Received: {argument}={value!r}." in str(error.value)


def test_bad_starts_inputs_and_files_are_named():
    layer = TargetSparsity(0.5, axis=-1, name="cut")
    with pytest.raises(AttributeError, match="a `threshold` for each unit"):
        layer.start(0.5)
    for shape in [(4,), (4, None)]:
        with pytest.raises(ValueError, match="`inputs` must have a batch dimension"):
            TargetSparsity(0.5, axis=-1).build(shape)
    layer.build((None, 3))
    for value in (-1.0, math.nan, [0.1, 0.2], "a"):
        with pytest.raises(ValueError, match="`threshold` must be") as error:
            layer.start(value)
        assert f"Received: threshold={value!r}." in str(error.value)
    with pytest.raises(AttributeError, match='centre="mode"'):
        layer.start(0.5, centre=0.5)
    with pytest.raises(AttributeError, match='centre="mode"'):
        _ = layer.centre_value
    assert not layer.threshold.numpy().any()
    layer.start([0.1, 0.2, 0.3])
    with pytest.raises(ValueError, match="must have 3 units in the last dimension"):
        layer(np.ones((2, 4), "float32"))
    with pytest.raises(ValueError, match=r"`mask` must have the shape \(2, 1\)"):
        layer(np.ones((2, 3), "float32"), training=True, mask=np.ones((2, 3, 1), bool))
    store = {}
    layer.save_own_variables(store)
    for bad in (np.float32([0.1, math.nan, 0.3]), np.float32(0.5)):
        with pytest.raises(ValueError, match="`threshold` in a file must be finite"):
            layer.load_own_variables({**store, "threshold": bad})
    with pytest.raises(AttributeError, match=r"TargetSparsity\(..., adjustable=True"):
        layer.target = 0.3


def test_it_can_be_called_in_a_map_too():
    layer = TargetSparsity(0.7)
    rng = np.random.default_rng(0)
    x = tf.stack([batch(rng) for _ in range(4)])
    y = tf.function(lambda x: tf.map_fn(trainer(layer), x))(x)
    assert zeros(y) == pytest.approx(0.7, abs=0.02)


@pytest.mark.parametrize(
    ("axis", "bad"), [(None, -0.5), (-1, [0.1, -1e-3, 0.3]), (-1, [-1, -1, -1])]
)
def test_a_threshold_below_0_in_a_file_is_refused(axis, bad):
    layer = TargetSparsity(0.5, axis=axis)
    layer.build((None, 3))
    layer.start(0.2)
    store = {}
    layer.save_own_variables(store)
    bad = np.float32(bad)
    with pytest.raises(ValueError, match=rf"must be >= 0.*with {bad.min():g}, which"):
        layer.load_own_variables({**store, "threshold": bad})
    assert np.all(layer.threshold.numpy() == np.float32(0.2))
    # 0 cuts nothing but zeros, and is what a new layer has.
    layer.load_own_variables({**store, "threshold": 0 * bad})
    assert not np.any(layer.threshold)
