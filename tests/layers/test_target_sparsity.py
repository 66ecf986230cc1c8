"""TargetSparsity: that the threshold follows what it sees, whatever that is."""

import numpy as np
import pytest
import tensorflow as tf
from thresholded import ACTIVATIONS, batch, batches, train_in_a_loop, trainer, zeros

from keras_sparseout import TargetSparsity
from keras_sparseout.ops import quantile_tracking


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_new_data_have_the_zeros_that_are_asked(activation):
    rng = np.random.default_rng(0)
    new = batch(rng, activation, 4000)
    layer = TargetSparsity(0.7)
    first, *_ = train_in_a_loop(layer, batches(rng, 100, activation))
    assert zeros(first) == pytest.approx(0.7, abs=0.01)
    assert zeros(layer(new)) == pytest.approx(0.7, abs=0.01)


@pytest.mark.parametrize("target", [0.3, 0.95])
@pytest.mark.parametrize("axis", [None, -1])
def test_small_batches_have_no_bias(target, axis):
    rng = np.random.default_rng(0)
    layer = TargetSparsity(target, axis=axis)
    train_in_a_loop(layer, batches(rng, 600, size=8, units=16))
    new = layer(batch(rng, size=4000, units=16))
    # The spread from batch to batch is .006.
    assert zeros(new) == pytest.approx(target, abs=0.02)
    if axis == -1:
        assert layer.threshold.shape == (16,)
        np.testing.assert_allclose(zeros(new, axis=0), target, atol=0.1)


@pytest.mark.parametrize("target", [0.05, 0.5])
def test_heavy_tails_do_not_make_the_steps_large(target):
    # The largest of them is 1e6 times the median.
    rng = np.random.default_rng(0)
    layer = TargetSparsity(target)
    x = np.exp(4 * rng.normal(size=(60, 64, 64)))
    train_in_a_loop(layer, tf.constant(x, "float32"))
    new = np.exp(4 * rng.normal(size=(500, 64))).astype("float32")
    assert zeros(layer(new)) == pytest.approx(target, abs=0.02)


def test_units_of_small_batches_may_have_an_extreme_quantile():
    rng = np.random.default_rng(0)
    layer = TargetSparsity(0.99, axis=-1)
    train_in_a_loop(layer, batches(rng, 100, size=4))
    assert zeros(layer(batch(rng, size=4000))) == pytest.approx(0.99, abs=0.02)


@pytest.mark.parametrize("factor", [1.02, 0.98])
def test_it_follows_activations_that_grow_or_shrink(factor):
    rng = np.random.default_rng(0)
    layer = TargetSparsity(0.7)
    train_in_a_loop(layer, batches(rng, 200, scale=factor ** np.arange(200)))
    new = batch(rng, size=4000, scale=factor**200)
    assert zeros(layer(new)) == pytest.approx(0.7, abs=0.02)
    # And finds them again after a jump.
    train_in_a_loop(layer, batches(rng, 60, scale=100.0))
    new = batch(rng, size=4000, scale=100.0)
    assert zeros(layer(new)) == pytest.approx(0.7, abs=0.02)


def test_a_settled_threshold_is_soon_fast_when_activations_start_to_grow():
    rng = np.random.default_rng(0)
    layer = TargetSparsity(0.7)
    train_in_a_loop(layer, batches(rng, 60))
    # As after many batches that were alike.
    state = layer.weights[1].numpy()
    state[quantile_tracking.State._fields.index("gain")] = 0.02
    layer.weights[1].assign(state)
    y = train_in_a_loop(layer, batches(rng, 40, scale=1.03 ** np.arange(40)))
    assert zeros(y[20:]) == pytest.approx(0.7, abs=0.02)


@pytest.mark.parametrize("size", [64, 1024])
def test_a_last_batch_that_is_smaller_moves_it_little(size):
    rng = np.random.default_rng(0)
    layer = TargetSparsity(0.7)
    train_in_a_loop(layer, batches(rng, 60, size=size))
    new = batch(rng, size=4000)
    before = zeros(layer(new))
    layer(batch(rng, size=2, scale=9.0), training=True)
    assert zeros(layer(new)) == pytest.approx(before, abs=0.002)


def test_where_more_are_zero_by_nature_it_says_so():
    rng = np.random.default_rng(0)
    layer = TargetSparsity(0.3, name="hidden")
    train_in_a_loop(layer, batches(rng, 50, "relu"))
    x = batch(rng, "relu", 4000)
    assert layer.threshold.numpy() == 0
    with pytest.warns(UserWarning, match=r"'hidden': \d+% of its inputs are 0 by"):
        np.testing.assert_array_equal(layer(x), x)
    # Once.
    layer(x)
    assert layer.natural_zeros == pytest.approx(0.5, abs=0.02)
    shown = f"<TargetSparsity target=0.3, natural_zeros={layer.natural_zeros:.2g}, "
    assert repr(layer) == shown + "name=hidden, built=True>"
    # It cuts as soon as there are fewer.
    train_in_a_loop(layer, batches(rng, 50, "gelu"))
    assert zeros(layer(batch(rng, "gelu", 4000))) == pytest.approx(0.3, abs=0.02)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_equal_largest_values_are_never_all_cut(dtype):
    rng = np.random.default_rng(0)
    layer = TargetSparsity(0.9, dtype=dtype)
    saturated = tf.cast(tf.tanh(8 * batches(rng, 60)), dtype)
    top = np.mean(np.abs(np.asarray(saturated[-1], "float32")) == 1)
    assert top > 0.1
    last = train_in_a_loop(layer, saturated)[-1]
    assert min(0.9, 1 - top) - 0.06 < zeros(last) < 0.92
    constant = TargetSparsity(0.9, dtype=dtype)
    for _ in range(5):
        y = constant(tf.fill((8, 8), tf.cast(0.3, dtype)), training=True)
        assert zeros(y) == 0


def test_a_silent_layer_starts_when_it_is_heard():
    rng = np.random.default_rng(0)
    for axis in (None, -1):
        layer = TargetSparsity(0.7, axis=axis)
        layer(tf.zeros((64, 64)), training=True)
        assert not layer.threshold.numpy().any()
        # Silent at first, and for a while.
        heard = np.repeat([0.0, 1.0, 0.0, 1.0], [3, 60, 100, 100])
        y = train_in_a_loop(layer, batches(rng, len(heard), scale=heard))
        assert zeros(y[62]) == pytest.approx(0.7, abs=0.03)
        assert zeros(y[-1]) == pytest.approx(0.7, abs=0.03)


@pytest.mark.onednn
def test_units_that_were_silent_at_first_join():
    rng = np.random.default_rng(0)
    layer = TargetSparsity(0.7, axis=-1)
    # XLA passes a NaN where other operations drop it.
    train = trainer(layer, jit_compile=True)
    lives = np.arange(64) % 2
    for _ in range(3):
        train(batch(rng) * lives)
    for _ in range(50):
        train(batch(rng))
    found = zeros(layer(batch(rng, size=4000)), axis=0)
    assert found[lives == 0].mean() == pytest.approx(0.7, abs=0.03)


@pytest.mark.onednn
@pytest.mark.parametrize(
    ("value", "axis", "centre"),
    [
        (np.nan, None, None),
        (-np.inf, -1, None),
        (-np.inf, None, "mode"),
        (np.nan, -1, "mode"),
    ],
)
def test_what_is_not_finite_moves_nothing_and_passes(value, axis, centre):
    rng = np.random.default_rng(0)
    layer = TargetSparsity(0.7, axis=axis, centre=centre)
    bad = batch(rng).numpy()
    bad[3, 5] = value
    layer(bad, training=True)
    assert not any(w.numpy().any() for w in layer.weights)
    layer(batch(rng), training=True)
    before = [w.numpy() for w in layer.weights]
    y = layer(bad, training=True)
    np.testing.assert_array_equal(y[3, 5], value)
    for weight, kept in zip(layer.weights, before, strict=True):
        np.testing.assert_array_equal(weight, kept)


def test_an_empty_batch_moves_nothing():
    layer = TargetSparsity(0.7)
    assert layer(np.zeros((0, 64), "float32"), training=True).shape == (0, 64)
    layer(batch(np.random.default_rng(0)), training=True)
    before = [w.numpy() for w in layer.weights]
    layer(np.zeros((0, 64), "float32"), training=True)
    for weight, value in zip(layer.weights, before, strict=True):
        np.testing.assert_array_equal(weight, value)


@pytest.mark.onednn
@pytest.mark.parametrize(("axis", "unknown"), [(None, True), (-1, False)])
def test_padding_does_not_count(axis, unknown):
    rng = np.random.default_rng(0)
    layer = TargetSparsity(0.7, axis=axis)
    layer.build((None, None, 64))
    signature = [tf.TensorSpec(None), tf.TensorSpec(None, "bool")]
    train = tf.function(
        lambda x, mask: layer(x, training=True, mask=mask),
        input_signature=signature if unknown else None,
    )
    mask = np.arange(10) < rng.integers(1, 11, size=(32, 1))
    for padding in [0.0] * 40 + [np.nan] * 40:
        x = batch(rng, size=320).numpy().reshape(32, 10, 64)
        x[~mask] = padding
        y = train(x, mask)
    assert zeros(y.numpy()[mask]) == pytest.approx(0.7, abs=0.02)
    before = layer.threshold.numpy()
    train(x, np.zeros_like(mask))
    np.testing.assert_array_equal(layer.threshold.numpy(), before)


def test_padding_is_no_peak():
    layer = TargetSparsity(0.9, centre="mode")
    x = np.where(np.arange(64) % 2, 5.0, 5.125).astype("float32")
    x = np.stack([x, 0 * x])
    for _ in range(20):
        y = layer(x, training=True, mask=np.array([True, False]))
    # Half of the values are equal, and the largest: they stay.
    assert np.mean(y[0] == layer.centre_value.numpy()) == 0.5


def test_a_moved_target_is_followed_at_once():
    rng = np.random.default_rng(0)
    layer = TargetSparsity(0.5, adjustable=True)
    train_in_a_loop(layer, batches(rng, 300))
    train = trainer(layer)
    for target in (0.55, 0.9, 0.2, 0.99, 0.5):
        layer.target = target
        for _ in range(2):
            train(batch(rng))
        new = layer(batch(rng, size=4000))
        assert zeros(new) == pytest.approx(target, abs=0.025)


def test_it_goes_on_from_where_it_was_set():
    rng = np.random.default_rng(0)
    layer = TargetSparsity(0.7, centre="mode")
    layer.start(0.25, centre=0.125)
    assert layer.threshold.numpy() == 0.25
    assert layer.centre_value.numpy() == 0.125
    x = np.array([0.1, 0.4, -0.1, -0.3], "float32")
    np.testing.assert_array_equal(layer(x), np.float32([0.125, 0.4, 0.125, -0.3]))
    layer(batch(rng), training=True)
    assert layer.threshold.numpy() == 0.25
    train_in_a_loop(layer, batches(rng, 60))
    distance = np.abs(batch(rng, size=4000) - layer.centre_value.numpy())
    share = np.mean(distance <= layer.threshold.numpy())
    assert share == pytest.approx(0.7, abs=0.02)


def test_the_mode_is_followed():
    rng = np.random.default_rng(0)
    layer = TargetSparsity(0.6, centre="mode", add_back=False)
    shift = np.linspace(1, 2, 100)[:, None, None]
    x = 0.5 * rng.normal(size=(100, 64, 64)) + shift
    y = train_in_a_loop(layer, tf.constant(x, "float32"))
    assert layer.centre_value.numpy() == pytest.approx(2, abs=0.15)
    assert zeros(y[-1]) == pytest.approx(0.6, abs=0.03)
    # Half of the outputs of a ReLU are equal to 0, which is the mode.
    layer = TargetSparsity(0.8, centre="mode")
    y = train_in_a_loop(layer, batches(rng, 50, "relu"))
    assert layer.centre_value.numpy() == 0
    assert zeros(y[-1]) == pytest.approx(0.8, abs=0.02)


def test_the_mode_stays_among_values_of_which_many_are_equal():
    rng = np.random.default_rng(0)
    layer = TargetSparsity(0.6, centre="mode", add_back=False)
    train = trainer(layer)
    shares = []
    for _ in range(40):
        x = np.tanh(4 * rng.normal(size=(64, 64)))
        shares.append(zeros(train(tf.constant(x, "float32"))))
        assert 0.75 < np.abs(layer.centre_value.numpy()) <= 1
    assert np.mean(shares[5:]) == pytest.approx(0.6, abs=0.01)


def test_at_inference_and_frozen_it_is_a_constant():
    rng = np.random.default_rng(0)
    layer = TargetSparsity(0.7)
    layer(batch(rng), training=True)
    before = [w.numpy() for w in layer.weights]
    x = batch(rng, scale=5.0)
    layer(x)
    layer.trainable = False
    layer(x, training=True)
    for weight, value in zip(layer.weights, before, strict=True):
        np.testing.assert_array_equal(weight, value)
    assert not layer.trainable_weights


@pytest.mark.parametrize("shape", [(64, 12, 12, 30), (512, 4096), (7, 11, 13)])
@pytest.mark.parametrize("known", [False, True])
def test_a_sample_has_all_samples_and_channels(shape, known):
    index = np.stack(np.indices(shape), -1).astype("int32")
    index = np.stack([index[..., 0], index[..., -1]], -1)
    for axis in (0, 1):
        x = tf.constant(index[..., axis].astype("float32"))
        spec = tf.TensorSpec(shape if known else (None, *shape[1:]))
        take = tf.function(
            lambda x: quantile_tracking.take_sample(x, None, None).values, [spec]
        )
        taken = take(x).numpy()
        size = np.prod(shape)
        assert min(size, 2**12) * 0.9 <= len(taken) <= 2**14
        counts = np.bincount(taken.astype("int64"), minlength=shape[-axis])
        assert counts.min() >= 0.7 * counts.mean() - 1
        assert counts.max() <= 1.3 * counts.mean() + 1
