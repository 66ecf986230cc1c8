"""ActivationPenalty: the loss that it adds, and that it changes nothing else."""

import json

import batched
import keras
import numpy as np
import pytest
import tensorflow as tf
from formula import compile_if
from penalties import gradient, loss, normal

from keras_sparseout import ActivationPenalty

KINDS = ("l1", "hoyer_square")
every_kind = pytest.mark.parametrize("kind", KINDS)
jit_or_not = pytest.mark.parametrize("jit_compile", [True, False])

# Rows with one active unit, with equal ones, with two, and with zeros.
ROWS = np.array([[0, -5, 0, 0], [2, 2, -2, 2], [3, 0, 0, -1], [0, 0, 0, 0]], "float32")
PENALTIES = {"l1": [5, 8, 4, 0], "hoyer_square": [1, 4, 1.6, 0]}


def penalty_of(x, kind, epsilon=0.0):
    """Returns the mean of the formula over vectors, and its gradient, in float64."""
    x = np.asarray(x, "float64")
    n = x.size / x.shape[-1]
    one = np.abs(x).sum(-1, keepdims=True)
    if kind == "l1":
        return one.sum() / n, np.sign(x) / n
    two = np.square(x).sum(-1, keepdims=True) + epsilon**2
    slope = 2 * one / two * np.sign(x) - 2 * one**2 / two**2 * x
    return (one**2 / two).sum() / n, slope / n


@every_kind
def test_values_by_hand(kind):
    layer = ActivationPenalty(0.5, kind)
    for row, penalty in zip(ROWS, PENALTIES[kind], strict=True):
        assert loss(layer, row[None]) == pytest.approx(0.5 * penalty, rel=1e-6)
    expected = 0.5 * np.mean(PENALTIES[kind])
    assert loss(layer, ROWS) == pytest.approx(expected, rel=1e-6)
    # Positions count as samples do.
    assert loss(layer, ROWS.reshape(2, 1, 2, 4)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.onednn
@every_kind
@jit_or_not
def test_value_and_gradient_are_those_of_the_formula(kind, jit_compile):
    x = normal(6, 5, 7)
    x[:, :, 2] = 0
    for epsilon in (1e-7, 0.5):
        layer = ActivationPenalty(0.3, kind, epsilon=epsilon)
        value, slope = penalty_of(x, kind, epsilon)
        assert loss(layer, x) == pytest.approx(0.3 * value, rel=1e-5)
        found = compile_if(jit_compile, gradient)(layer, tf.constant(x))
        np.testing.assert_allclose(found, 0.3 * slope, rtol=1e-4, atol=1e-7)


@every_kind
@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "float64"])
def test_at_zero_value_and_gradient_are_zero(kind, policy):
    layer = ActivationPenalty(1.0, kind, dtype=policy)
    x = np.zeros((3, 4), layer.compute_dtype)
    assert loss(layer, x) == 0
    assert not gradient(layer, tf.constant(x)).numpy().any()


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1, 1e19, 1e30])
def test_hoyer_square_does_not_see_the_scale(scale):
    layer = ActivationPenalty(1.0, "hoyer_square", epsilon=1e-12)
    x = normal(8, 16) * np.float32(scale)
    value, slope = penalty_of(x, "hoyer_square")
    assert loss(layer, x) == pytest.approx(value, rel=1e-5)
    found = gradient(layer, tf.constant(x))
    np.testing.assert_allclose(found, slope, rtol=1e-3, atol=1e-4 / scale)


def test_epsilon_bounds_the_gradient_of_hoyer_square():
    x = normal(1, 16)
    for epsilon in (1e-30, 1e-7, 1e-2):
        layer = ActivationPenalty(1.0, "hoyer_square", epsilon=epsilon)
        scales = epsilon * np.array([1e-3, 0.1, 1, 10, 1e3], "float32")
        slopes = [gradient(layer, tf.constant(x * scale)) for scale in scales]
        assert 1 / epsilon < np.abs(slopes).max() < 16 / epsilon


@every_kind
@jit_or_not
def test_half_precision_is_computed_in_float32(kind, jit_compile):
    # In float16 neither the sum of these nor their squares are finite.
    x = np.full((2, 64), 60000, "float16")
    layer = ActivationPenalty(1.0, kind, dtype="mixed_float16")
    expected = {"l1": 64 * 59999.0 + 64, "hoyer_square": 64}[kind]
    assert loss(layer, x) == pytest.approx(expected, rel=1e-3)
    (added,) = layer.losses
    assert added.dtype == "float32"
    assert layer(normal(2, 3)).dtype == "float16"
    found = compile_if(jit_compile, gradient)(layer, tf.constant(x))
    assert np.isfinite(found).all()


@every_kind
def test_masked_timesteps_do_not_count(kind):
    layer = ActivationPenalty(1.0, kind)
    x = normal(3, 5, 4)
    mask = np.array([[1, 1, 0, 0, 0], [0] * 5, [1, 1, 1, 0, 1]], bool)
    expected = penalty_of(x[mask], kind)[0]
    assert loss(layer, x, mask=mask) == pytest.approx(expected, rel=1e-5)
    assert loss(layer, x, mask=np.zeros((3, 5), bool)) == 0
    # More dimensions between the timesteps and the features.
    wide = normal(3, 5, 2, 4)
    expected = penalty_of(wide[mask], kind)[0]
    assert loss(layer, wide, mask=mask) == pytest.approx(expected, rel=1e-5)


@pytest.mark.onednn
@every_kind
def test_what_is_in_padding_does_not_reach_the_gradient(kind):
    layer = ActivationPenalty(1.0, kind)
    x = normal(2, 3, 4)
    x[:, 2] = np.nan
    mask = np.array([[True, True, False]] * 2)
    slope = gradient(layer, tf.constant(x), mask=mask).numpy()
    np.testing.assert_allclose(slope[:, :2], penalty_of(x[:, :2], kind)[1], rtol=1e-5)
    assert not slope[:, 2].any()


@every_kind
def test_keras_passes_the_mask_and_gets_it_on(kind):
    class Probe(keras.layers.Layer):
        supports_masking = True

        def call(self, inputs, mask=None):
            self.mask = mask
            return inputs

    layer, probe = ActivationPenalty(1.0, kind), Probe()
    x = normal(3, 5, 4)
    x[:, 3:] = 0
    model = keras.Sequential([keras.Input((5, 4)), keras.layers.Masking(), layer])
    model.add(probe)
    model(x)
    (added,) = model.losses
    assert float(added) == pytest.approx(penalty_of(x[:, :3], kind)[0], rel=1e-5)
    np.testing.assert_array_equal(probe.mask, x.any(-1))


@every_kind
@jit_or_not
def test_dimensions_may_be_unknown_and_the_batch_empty(kind, jit_compile):
    layer = ActivationPenalty(1.0, kind)

    def call(x):
        y = layer(x)
        return y, layer.losses[0]

    call = tf.function(
        call, jit_compile=jit_compile, input_signature=[tf.TensorSpec((None, None, 4))]
    )
    for shape in ((2, 3, 4), (5, 1, 4), (0, 3, 4), (3, 0, 4)):
        x = normal(*shape)
        y, added = call(x)
        np.testing.assert_array_equal(y, x)
        expected = penalty_of(x, kind)[0] if x.size else 0
        assert float(added) == pytest.approx(expected, rel=1e-5)
    assert loss(ActivationPenalty(1.0, kind), normal(0, 4)) == 0


def network(layer, **compile_args):
    """A model with no loss but the penalty, as long as it is not trained."""
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4, use_bias=False)])
    model.add(layer)
    model.add(keras.layers.Dense(1, kernel_initializer="zeros"))
    model.compile(**{"optimizer": keras.optimizers.SGD(0.1), **compile_args})
    return model


@pytest.mark.parametrize(
    ("kind", "compile_args"),
    [
        ("l1", {"jit_compile": True}),
        ("l1", {"run_eagerly": True}),
        ("hoyer_square", {"steps_per_execution": 2, "jit_compile": False}),
    ],
    ids=str,
)
def test_fit_minimizes_it_and_evaluate_counts_it(kind, compile_args):
    model = network(ActivationPenalty(0.2, kind), loss="mse", **compile_args)
    x, y = normal(8, 4), np.zeros((8, 1))
    hidden = model.layers[0]
    kernel = hidden.kernel.numpy()
    value, slope = penalty_of(x @ kernel, kind)
    evaluated = model.evaluate(batched.batches(x, y, 8), verbose=0)
    history = batched.fit(model, x, y, verbose=0).history
    assert history["loss"] == [pytest.approx(0.2 * value, rel=1e-5)]
    assert evaluated == pytest.approx(0.2 * value, rel=1e-5)
    stepped = kernel - 0.1 * 0.2 * x.T @ slope
    np.testing.assert_allclose(hidden.kernel, stepped, rtol=1e-4, atol=1e-6)


def test_under_a_strategy_it_is_the_mean_over_the_replicas():
    # Collective ops, the default, mistake models of two strategies for each other.
    to_one = tf.distribute.ReductionToOneDevice()
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"], to_one)
    with strategy.scope():
        layer = ActivationPenalty(0.2, "hoyer_square", adjustable=True)
        model = network(layer, loss="mse", jit_compile=False)
    layer.weight = 0.4
    x = normal(8, 4)
    value = penalty_of(x @ model.layers[0].kernel.numpy(), "hoyer_square")[0]
    history = batched.fit(model, x, np.zeros((8, 1)), verbose=0).history
    assert history["loss"] == [pytest.approx(0.4 * value, rel=1e-5)]


def test_mixed_float16_trains_finitely():
    model = keras.Sequential([keras.Input((8,))])
    for kind in KINDS:
        model.add(keras.layers.Dense(8, "relu", dtype="mixed_float16"))
        model.add(ActivationPenalty(0.01, kind, dtype="mixed_float16"))
    model.add(keras.layers.Dense(1, dtype="mixed_float16"))
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam())
    model.compile(optimizer, "mse", jit_compile=False)
    x = normal(240, 8)
    x[::2] = 0
    history = batched.fit(model, x, x[:, :1], batch_size=4, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    # Loss scaling starts at 2^15 and halves it at each step that it skips.
    assert int(optimizer.iterations) >= 60 - 15


def test_a_time_distributed_one_adds_the_sum_over_the_timesteps():
    x = normal(3, 5, 4)
    layer = keras.layers.TimeDistributed(ActivationPenalty(0.5))
    layer(x)
    total = sum(float(loss) for loss in layer.losses)
    assert total == pytest.approx(5 * 0.5 * penalty_of(x, "l1")[0], rel=1e-5)


def test_an_assigned_weight_takes_effect_at_the_next_step_without_a_retrace():
    class Counting(ActivationPenalty):
        calls = 0

        def call(self, inputs):
            self.calls += 1
            return super().call(inputs)

    layer = Counting(0.0, adjustable=True)
    model = network(layer, loss="mse", jit_compile=False)
    x, y = ROWS[:1], np.zeros((1, 1))
    model.layers[0].kernel.assign(np.eye(4))
    model.optimizer.learning_rate = 0.0
    assert model.train_on_batch(x, y) == 0
    traced = layer.calls
    for weight in (1.0, 0.3):
        layer.weight = weight
        assert layer.weight == weight
        model.reset_metrics()
        assert model.train_on_batch(x, y) == pytest.approx(5 * weight)
    assert layer.calls == traced
    assert [w.name for w in layer.weights] == ["weight"]
    assert not layer.trainable_weights


def test_a_constant_weight_of_0_adds_no_loss():
    layer = ActivationPenalty(0)
    layer(ROWS)
    assert not layer.losses
    assert not layer.weights
    assert loss(ActivationPenalty(0.0, adjustable=True), ROWS) == 0


@pytest.mark.parametrize("kind", ["hoyer_square", "ar", "tar"])
@pytest.mark.parametrize("adjustable", [False, True])
def test_config_brings_it_back(kind, adjustable):
    given = {
        "weight": 0.3,
        "kind": kind,
        "epsilon": 1e-3,
        "adjustable": adjustable,
        "name": "penalty",
        "trainable": False,
        "dtype": "mixed_bfloat16",
    }
    layer = ActivationPenalty(**given)
    config = layer.get_config()
    assert set(config) == set(given)
    assert layer.dtype_policy.name == given.pop("dtype")
    assert {name: config[name] for name in given} == given
    serialized = json.loads(json.dumps(keras.saving.serialize_keras_object(layer)))
    assert serialized["registered_name"] == "keras_sparseout>ActivationPenalty"
    restored = keras.saving.deserialize_keras_object(serialized)
    assert restored.get_config() == config
    assert restored.kind == kind


@pytest.mark.parametrize("adjustable", [False, True])
def test_files_bring_it_back(tmp_path, adjustable):
    layer = ActivationPenalty(0.3, adjustable=adjustable)
    model = network(layer, loss="mse", run_eagerly=True)
    if adjustable:
        model.layers[1].weight = 0.7
    x, y = normal(8, 4), np.ones((8, 1))
    data = batched.batches(x, y, 8)
    expected = model.evaluate(data, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.layers[1].weight == (0.7 if adjustable else 0.3)
    loaded.run_eagerly = True
    assert loaded.evaluate(data, verbose=0) == expected
    model.export(tmp_path / "exported", verbose=False)
    exported = tf.saved_model.load(tmp_path / "exported")
    np.testing.assert_allclose(exported.serve(x), model(x), rtol=1e-5)


def test_symbolic_calls_keep_shape_and_dtype():
    inputs = keras.Input((None, 4))
    layer = ActivationPenalty(0.1, dtype="mixed_float16")
    assert layer(inputs).shape == (None, None, 4)
    assert layer(inputs).dtype == "float16"
    assert layer.compute_output_shape((2, 3)) == (2, 3)
