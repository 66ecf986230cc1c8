"""Layers that perturb a share of each sample: how they are called, what they refuse."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from formula import BOTH, signed
from sparseout_layers import CASES, every_image, every_layer, normal

import keras_sparseout as ks
from keras_sparseout import Sparseout

UNKNOWN = tf.TensorSpec(None)


def value_and_gradient(layer, x):
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, training=True)
    # The upstream gradient is x, so that what is not perturbed shows in both.
    return y, tape.gradient(y, x, output_gradients=x)


def assert_alike(result, expected, x):
    """Asserts equal values and gradients, with the same units left alone to the bit."""
    rtol = 2**-9 if x.dtype == "float16" else 1e-5
    np.testing.assert_allclose(result, expected, rtol=rtol, atol=rtol)
    np.testing.assert_array_equal(result == x, expected == x)


def perturbed(layer, x):
    """Where a layer of rate 1 perturbs: these are zeros."""
    return np.asarray(layer(x, training=True)) == 0


@pytest.mark.onednn
@pytest.mark.parametrize(
    ("shape", "q", "kwargs"),
    [
        ((6, 5), 2.0, {}),
        ((6, 5), 1.5, {"adjustable": True}),
        ((4, 3, 2, 5), 1.3, {"stop_gradient": False, "dtype": "float16"}),
    ],
    ids=str,
)
def test_compiled_and_plain_layers_agree(shape, q, kwargs):
    x = signed(np.random.default_rng(0), shape, kwargs.get("dtype", "float32"))
    compiled, plain = (
        Sparseout(0.5, q, seed=3, jit_compile=jit, target_fraction=0.75, **kwargs)
        for jit in BOTH
    )
    expected = np.stack(value_and_gradient(plain, x))
    assert_alike(np.stack(value_and_gradient(compiled, x)), expected, x)
    assert 0.25 <= np.mean(expected == x) < 0.5


@pytest.mark.onednn
def test_it_is_the_same_in_a_model_that_xla_compiles_for_unknown_sizes():
    x = signed(np.random.default_rng(0), (4, 3, 2, 5), "float16")
    kwargs = {"dtype": "float16", "stop_gradient": False, "jit_compile": False}
    layer = Sparseout(0.5, 1.3, seed=3, target_fraction=0.75, **kwargs)
    expected = np.stack(value_and_gradient(layer, x))
    layer.seed_generator.state.assign([3, 0])
    inside = tf.function(
        lambda x: value_and_gradient(layer, x),
        input_signature=[tf.TensorSpec((None,) * 4, x.dtype)],
        jit_compile=True,
        autograph=False,
    )
    assert_alike(np.stack(inside(x)), expected, x)


@pytest.mark.parametrize("jit_compile", BOTH)
def test_forward_mode_and_second_order_leave_the_choice_alone(jit_compile):
    x = signed(np.random.default_rng(1), (6, 5))

    def layer():
        kwargs = {"jit_compile": jit_compile, "stop_gradient": False}
        return Sparseout(0.5, 1.5, seed=1, target_fraction=0.75, **kwargs)

    with tf.autodiff.ForwardAccumulator(x, x) as accumulator:
        y = layer()(x, training=True)
    others = (y == x).numpy()
    with tf.GradientTape() as outer:
        outer.watch(x)
        _, gradient = value_and_gradient(layer(), x)
    np.testing.assert_allclose(accumulator.jvp(y), gradient, rtol=1e-5)
    # There the gradient is the upstream one, which is x, and its derivative 1.
    second = outer.gradient(gradient, x)
    assert others.sum() == 6 * 2
    np.testing.assert_array_equal(second[others], np.ones(12))
    assert np.all(second[~others] != 1)


@every_layer
def test_the_units_of_spatial_layers_are_channels(case):
    x = normal(case.shape)
    layer = case.make(1.0, target_fraction=0.75, jit_compile=False)
    if case.ours is Sparseout:
        sizes = np.abs(x)
    else:
        axes = tuple(range(1, x.ndim - 1))
        squares = x.astype("float64") ** 2
        sizes = np.sqrt(squares.sum(axis=axes, keepdims=True))
    flat = np.sort(sizes.reshape(len(x), -1), axis=1)
    limit = flat[:, flat.shape[1] * 3 // 4].reshape(-1, *[1] * (x.ndim - 1))
    expected = np.broadcast_to(sizes < limit, x.shape)
    np.testing.assert_array_equal(perturbed(layer, x), expected)


@every_image
def test_so_they_are_with_the_channels_first(case):
    x = normal(case.shape)
    last, first = (
        case.make(1.0, target_fraction=0.75, data_format=f"channels_{where}")
        for where in ("last", "first")
    )
    expected = np.moveaxis(perturbed(last, x), -1, 1)
    np.testing.assert_array_equal(perturbed(first, np.moveaxis(x, -1, 1)), expected)


def test_a_locked_mask_perturbs_a_feature_at_all_timesteps_or_none():
    layer = Sparseout(0.5, noise_shape=(None, 1, None), target_fraction=0.5, seed=1)
    x = normal((4, 5, 8)) + 3
    changed = np.asarray(layer(x, training=True)) != x
    assert (changed == changed[:, :1]).all()
    assert (changed[:, 0].sum(axis=1) == 4).all()


def test_rates_and_exponents_may_move():
    x = normal((4, 16))
    layer = Sparseout(0.0, 2.0, adjustable=True, target_fraction=0.5, seed=1)
    np.testing.assert_array_equal(layer(x, training=True), x)
    layer.rate, layer.q = 0.5, 1.0
    layer.seed_generator.state.assign([1, 0])
    constant = Sparseout(0.5, 1.0, target_fraction=0.5, seed=1)
    y = layer(x, training=True)
    np.testing.assert_allclose(y, constant(x, training=True), rtol=1e-5, atol=1e-6)
    assert (np.sum(y != x, axis=1) == 8).all()


@every_layer
def test_0_perturbs_nothing_and_draws_nothing(case):
    layer = case.make(0.5, adjustable=True, target_fraction=0)
    before = layer.seed_generator.state.numpy().tolist()
    x = normal(case.shape)
    assert layer(x, training=True) is not None
    np.testing.assert_array_equal(layer(x, training=True), x)
    assert layer.seed_generator.state.numpy().tolist() == before


@every_layer
def test_by_default_the_config_is_that_of_earlier_files(case):
    for layer in (case.make(0.5), case.make(0.5, target_fraction=1)):
        assert layer.target_fraction == 1.0
        assert "target_fraction" not in layer.get_config()
    config = json.loads(json.dumps(case.make(0.5, target_fraction=0.75).get_config()))
    assert case.ours.from_config(config).target_fraction == 0.75


def test_with_1_nothing_is_computed_for_it():
    def operations(**kwargs):
        layer = Sparseout(0.5, 1.5, seed=1, jit_compile=False, **kwargs)
        call = tf.function(lambda x: layer(x, training=True), autograph=False)
        graph = call.get_concrete_function(tf.TensorSpec((4, 8))).graph.as_graph_def()
        nodes = [*graph.node]
        for function in graph.library.function:
            nodes += function.node_def
        return sorted(node.op for node in nodes)

    assert operations() == operations(target_fraction=1.0)
    assert len(operations()) < len(operations(target_fraction=0.5))


def test_an_unknown_rank_is_refused_in_training_unless_the_noise_shape_tells_it():
    x = normal((4, 5, 8))
    layer = Sparseout(0.5, target_fraction=0.5, name="noise")
    with pytest.raises(ValueError, match="Layer 'noise': `inputs` must have a known"):
        tf.function(lambda x: layer(x, training=True), [UNKNOWN], autograph=False)(x)
    np.testing.assert_array_equal(tf.function(layer, [UNKNOWN])(x), x)
    for noise_shape in ((None,) * 3, (None, 1, None)):
        kwargs = {"target_fraction": 0.5, "seed": 1, "jit_compile": False}
        known, unknown = (Sparseout(1.0, 2, noise_shape, **kwargs) for _ in range(2))
        call = tf.function(lambda x, f=unknown: f(x, training=True), [UNKNOWN])
        np.testing.assert_array_equal(call(x), known(x, training=True))
        assert (call(x) == 0).numpy().mean() == 0.5


@pytest.mark.parametrize("shape", [(), (7,)], ids=str)
def test_samples_without_units_are_refused(shape):
    layer = Sparseout(0.5, target_fraction=0.75)
    for inputs in (np.ones(shape, "float32"), keras.KerasTensor(shape)):
        with pytest.raises(ValueError, match="`inputs` must have a batch") as error:
            layer(inputs)
        received = f"Received: inputs.shape={shape} with target_fraction=0.75."
        assert received in str(error.value)


@pytest.mark.parametrize(
    "make",
    [
        lambda **k: ks.SparseoutCellWrapper(keras.layers.GRUCell(3), 0.5, **k),
        lambda **k: ks.Bridgeout(keras.layers.Dense(3), 0.5, **k),
        lambda **k: ks.Shakeout(keras.layers.Dense(3), 0.5, 0.1, **k),
    ],
    ids=["SparseoutCellWrapper", "Bridgeout", "Shakeout"],
)
def test_other_layers_say_which_ones_take_it(make):
    with pytest.raises(ValueError, match="`target_fraction` is no argument") as error:
        make(target_fraction=0.75)
    assert "Received: target_fraction=0.75. Only Sparseout and" in str(error.value)


def test_limits_of_maps_pass_the_check_of_numbers():
    x = tf.constant(normal((2, 3, 3, 4)))
    tf.debugging.enable_check_numerics()
    try:
        for jit_compile in (True, False):
            layer = Sparseout(0.5, 1.5, target_fraction=0.5, jit_compile=jit_compile)
            y, gradient = value_and_gradient(layer, x)
            assert np.isfinite(y + gradient).all()
    finally:
        tf.debugging.disable_check_numerics()


def test_all_layers_are_tried():
    assert {case.ours.__name__ for case in CASES} == {
        name for name in ks.__all__ if name.endswith(("Sparseout", "1D", "2D", "3D"))
    }
