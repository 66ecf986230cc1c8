"""Noise on weights where models run it: in fit, on replicas, in half precision."""

import batched
import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_sparseout.layers.bridgeout import Bridgeout
from keras_sparseout.layers.shakeout import Shakeout
from keras_sparseout.ops import masks

L = keras.layers
every_layer = pytest.mark.parametrize("make", [Bridgeout, Shakeout])


def data(samples=48):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(samples, 8)).astype("float32")
    return x, rng.normal(size=(samples, 2)).astype("float32")


def network(**compile_args):
    layers = [Bridgeout(L.Dense(16, "relu"), 0.5, 1.5), Shakeout(L.Dense(2), 0.3, 0.1)]
    model = keras.Sequential([keras.Input((8,)), *layers])
    model.compile(**{"optimizer": "sgd", "loss": "mse", **compile_args})
    return model


def fit(model, x, y, **kwargs):
    options = {"batch_size": 16, "verbose": 0, **kwargs}
    return batched.fit(model, x, y, **options).history["loss"]


def draws(model):
    """How often each layer has drawn."""
    return [int(layer.seed_generator.state.numpy()[1]) for layer in model.layers]


def assert_finite(*arrays):
    for array in arrays:
        assert np.isfinite(np.asarray(array, "float64")).all()


@pytest.mark.parametrize(
    "compile_args",
    [
        {"jit_compile": True},
        {"run_eagerly": True},
        {
            "steps_per_execution": 3,
            "optimizer": keras.optimizers.SGD(0.01, gradient_accumulation_steps=2),
            "jit_compile": False,
        },
    ],
    ids=lambda args: next(iter(args)),
)
def test_every_way_to_run_fit_trains_the_true_weights(compile_args):
    model = network(**compile_args)
    before = model.get_weights()
    x, y = data()
    losses = fit(model, x, y, epochs=2)
    assert_finite(losses, *model.get_weights())
    for old, new in zip(before, model.get_weights(), strict=True):
        assert (old != new).any()
    # One draw a step and layer, and none in evaluation.
    model.evaluate(x, y, verbose=0)
    assert draws(model) == [6, 6]


@pytest.mark.onednn
@pytest.mark.parametrize(
    ("stop_gradient", "jit_compile"), [(True, True), (False, False)]
)
def test_a_step_of_sgd_is_the_one_computed_by_hand(stop_gradient, jit_compile):
    rate, q, step = 0.5, 1.0, 0.1
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(4, 6)), rng.normal(size=(4, 3))
    dense = L.Dense(3, use_bias=False, dtype="float64")
    layer = Bridgeout(dense, rate, q, seed=2, stop_gradient=stop_gradient)
    model = keras.Sequential([keras.Input((6,), dtype="float64"), layer])
    model.compile(keras.optimizers.SGD(step), "mse", jit_compile=jit_compile)
    w = dense.kernel.numpy()
    seed = masks.seed_pair(keras.random.SeedGenerator(2))
    xi = masks.bernoulli((6, 3), rate, seed)[0].numpy() * 2.0 - 1
    size = np.abs(w) + 1e-7
    n = slope = 1 + xi / np.sqrt(size)
    if not stop_gradient:
        slope = 1 + xi / np.sqrt(size) * (1 - 0.5 * np.abs(w) / size)
    gradient = x.T @ (2 * (x @ (w * n) - y) / y.size) * slope
    fit(model, x, y, batch_size=4)
    np.testing.assert_allclose(dense.kernel, w - step * gradient, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("policy", ["mixed_float16", "float16"])
def test_40_steps_in_half_precision_stay_finite(policy):
    dtype = keras.DTypePolicy(policy)
    layers = [Bridgeout(L.Dense(8, dtype=dtype), 0.5, q) for q in (0.5, 3.0)]
    layers.append(Bridgeout(L.Dense(8, dtype=dtype), 0.5, 1.5, stop_gradient=False))
    layers.append(Shakeout(L.Dense(2, dtype=dtype), 0.5, 0.05))
    model = keras.Sequential([keras.Input((8,)), *layers])
    optimizer = keras.optimizers.Adam(1e-4, epsilon=1e-3)
    if policy == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    if policy == "float16":
        # Adam squares gradients. In float16 squares of 256 and more are infinite.
        optimizer = keras.optimizers.SGD(1e-5)
    model.compile(optimizer, "mae", jit_compile=False)
    x, y = data(160)
    losses = fit(model, x, y, batch_size=4)
    assert_finite(losses, *model.get_weights())
    assert model.outputs[0].dtype == dtype.compute_dtype
    if policy == "mixed_float16":
        # The loss scale begins at 2^15 and halves at each skipped step.
        assert int(optimizer.inner_optimizer.iterations) >= 40 - 15


@pytest.mark.parametrize(
    ("policy", "cell"),
    [("mixed_bfloat16", False), ("mixed_float16", True), ("float64", False)],
)
def test_weights_are_perturbed_as_stored_and_then_cast(policy, cell):
    # Half precision would round 1 + 2^-12 to 1.
    layer = L.LSTM(2, dtype=policy)
    seen = []

    class Spy(Bridgeout):
        def perturb_weight(self, weight, value, seed):
            seen.append((value.dtype.name, value.numpy().max()))
            return super().perturb_weight(weight, value, seed)

    ones = keras.initializers.Constant(1 + 2**-12)
    if cell:
        inner = L.LSTMCell(2, kernel_initializer=ones, dtype=policy)
        layer = L.RNN(Spy(inner, 0.5), dtype=policy)
    else:
        layer = Spy(L.LSTM(2, kernel_initializer=ones, dtype=policy), 0.5)
    y = layer(np.ones((2, 3, 2)), training=True)
    stored = "float64" if policy == "float64" else "float32"
    assert seen == [(stored, 1 + 2**-12)]
    assert y.dtype.name == policy.removeprefix("mixed_")


@pytest.fixture
def strategy():
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


@pytest.mark.parametrize(("make", "units"), [(Shakeout, 16), (Bridgeout, 256)])
def test_no_replica_repeats_a_draw_of_any_step(strategy, make, units):
    with strategy.scope():
        layer = make(L.Dense(units, use_bias=False), 0.5, 1.5)
        layer.build((None, units))
    x = tf.eye(units)

    @tf.function
    def step():
        return strategy.run(lambda: layer(x, training=True))

    drawn = [
        y.numpy().tobytes()
        for _ in range(5)
        for y in strategy.experimental_local_results(step())
    ]
    assert len(set(drawn)) == 10


def test_fit_under_a_strategy_is_finite_and_keeps_replicas_alike(strategy):
    with strategy.scope():
        model = network(jit_compile=False)
    losses = fit(model, *data())
    assert_finite(losses, *model.get_weights())
    for weight in model.weights:
        first, second = strategy.experimental_local_results(weight.value)
        np.testing.assert_array_equal(first, second)


def test_no_retrace_as_knobs_change():
    traces = []

    class Counting(keras.Sequential):
        def train_step(self, *args, **kwargs):
            traces.append(1)
            return super().train_step(*args, **kwargs)

    layers = [
        Bridgeout(L.Dense(4, kernel_initializer="ones"), 0.5, adjustable=True),
        Shakeout(L.Dense(2, kernel_initializer="ones"), 0.5, 0.1, adjustable=True),
    ]
    model = Counting([keras.Input((8,)), *layers])
    model.compile(keras.optimizers.SGD(0.0), "mse", jit_compile=False)
    x, y = data()
    fit(model, x, y)
    noisy = [model.train_on_batch(x, y) for _ in range(4)]
    for layer in layers:
        layer.rate = 0.0
    quiet = [model.train_on_batch(x, y) for _ in range(4)]
    expected = np.mean((model(x) - y) ** 2)
    np.testing.assert_allclose(quiet[1:], expected, rtol=1e-4)
    assert len(set(np.diff([0, *noisy]))) > 1
    assert len(traces) <= 3


def test_knobs_take_effect():
    dense = L.Dense(1, kernel_initializer=keras.initializers.Constant(4.0))
    layer = Bridgeout(dense, 0.1, 5.0, adjustable=True)
    layer.build((None, 20))
    for (rate, q), expected in {
        (0.5, 2.0): {0, 8},
        (0.5, 1.0): {2, 6},
        (0.0, 1.0): {4},
        (1.0, 1.0): {0},
    }.items():
        layer.rate, layer.q = rate, q
        assert (layer.rate, layer.q) == (rate, q)
        assert set(np.unique(np.round(layer.draw()[0][1], 3))) == expected
    shake = Shakeout(dense, 0.5, 0.25, adjustable=True)
    for c in (0.25, 1.0):
        shake.c = c
        assert set(np.unique(shake.draw()[0][1])) == {8 + c, -c}


@pytest.mark.parametrize(
    ("make", "at_construction"), [(Bridgeout, True), (Shakeout, False)]
)
def test_a_frozen_layer_is_not_trained_but_perturbed(make, at_construction):
    layer = make(L.Dense(2), 0.5, 1.5, trainable=not at_construction)
    model = keras.Sequential([keras.Input((8,)), layer, L.Dense(2)])
    layer.trainable = False
    assert not layer.layer.trainable
    model.compile("sgd", "mse", jit_compile=False)
    before = layer.get_weights()
    x, y = data()
    fit(model, x, y)
    for old, new in zip(before, layer.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert len(model.trainable_variables) == 2
    assert (layer(x, training=True).numpy() != layer(x).numpy()).any()


def test_a_layer_frozen_at_construction_is_so_once_it_is_built():
    layer = Bridgeout(L.Dense(2), 0.5, trainable=False)
    model = keras.Sequential([keras.Input((8,)), layer])
    assert not model.trainable_variables


@every_layer
def test_draws_follow_the_seed_of_keras(make):
    def run(seed):
        keras.utils.set_random_seed(seed)
        layer = make(L.Dense(2), 0.5, 1.5)
        return np.stack([layer(data()[0], training=True) for _ in range(2)]).tobytes()

    assert run(1) == run(1) != run(2)
