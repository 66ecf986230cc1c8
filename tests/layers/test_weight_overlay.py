"""A layer called on noisy weights updates everything else as without noise."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_sparseout.layers.bridgeout import Bridgeout
from keras_sparseout.layers.shakeout import Shakeout

L = keras.layers


def ones(*shape):
    return np.ones(shape, "float32")


def traced(layer):
    return tf.function(lambda x: layer(x, training=True))


def eager(layer):
    return lambda x: layer(x, training=True)


every_mode = pytest.mark.parametrize("mode", [eager, traced])


@every_mode
def test_moving_statistics_and_seeds_inside_are_updated(mode):
    inner = keras.Sequential(
        [L.Dense(4), L.BatchNormalization(), L.Dropout(0.5, seed=1)]
    )
    layer = Bridgeout(inner, 0.5)
    x = np.random.default_rng(0).normal(size=(64, 3)).astype("float32")
    layer.build(x.shape)
    call = mode(layer)
    dropped = {(np.asarray(call(x)) == 0).tobytes() for _ in range(3)}
    assert len(dropped) == 3
    # The layer before it was called on noisy weights.
    norm = inner.layers[1]
    moved = norm.moving_mean.numpy()
    assert moved.any()
    norm.moving_mean.assign(np.zeros(4))
    for _ in range(3):
        inner(x, training=True)
    assert not np.allclose(norm.moving_mean, moved)


@every_mode
def test_states_of_a_stateful_rnn_go_on(mode):
    inner = L.LSTM(4, stateful=True)
    layer = Bridgeout(inner, 0.5, weights="recurrent_kernel")
    call = mode(layer)
    layer.build((2, 5, 3))
    states = []
    for _ in range(3):
        call(ones(2, 5, 3))
        states.append(inner.states[0].numpy())
    assert len({s.tobytes() for s in states}) == 3
    # The first output depends on the state before it.
    carried = layer(ones(2, 5, 3)).numpy()
    inner.reset_state()
    assert not np.allclose(carried, layer(ones(2, 5, 3)))


class DroppingCell(L.Layer):
    state_size = output_size = 64

    def __init__(self):
        super().__init__()
        self.dense, self.drop = L.Dense(64, kernel_initializer="ones"), L.Dropout(0.5)

    def build(self, shape):
        self.dense.build(shape)

    def call(self, x, states, training=False):
        y = self.drop(self.dense(x), training=training)
        return y, [y]


@every_mode
def test_a_seed_inside_a_loop_goes_on_while_the_noise_is_drawn_once(mode):
    layer = Bridgeout(L.RNN(DroppingCell(), return_sequences=True), 0.5)
    layer.build((1, 6, 8))
    (steps,) = np.asarray(mode(layer)(ones(1, 6, 8)))
    kept = [set(np.flatnonzero(step)) for step in steps]
    assert len({frozenset(k) for k in kept}) == 6
    # A unit that is kept at two steps has the same weights at both.
    for step, units in zip(steps[1:], kept[1:], strict=True):
        both = sorted(units & kept[0])
        np.testing.assert_array_equal(step[both], steps[0][both])


class Penalized(L.Dense):
    """Has losses of all three kinds, and counts its calls."""

    def __init__(self, units, **kwargs):
        settings = {"kernel_regularizer": "l2", "activity_regularizer": "l1"}
        super().__init__(units, **settings, **kwargs)

    def build(self, shape):
        super().build(shape)
        self.count = self.add_weight(shape=(), initializer="zeros", trainable=False)

    def call(self, x, training=False):
        self.count.assign_add(1.0)
        self.add_loss(keras.ops.sum(self.kernel))
        return super().call(x)


def test_losses_count_once_and_regularizers_see_the_true_weights():
    inner = Penalized(3)
    layer = Bridgeout(inner, 0.5, seed=1)
    layer.build((None, 2))
    # It draws the same noise, to know what was summed.
    twin = Bridgeout(L.Dense(3), 0.5, seed=1)
    twin.build((None, 2))
    twin.layer.kernel.assign(inner.kernel)
    ((_, noisy),) = twin.draw()
    y = layer(ones(4, 2), training=True)
    expected = [np.sum(noisy), np.abs(y).sum() * 0.01 / 4]
    expected.append(0.01 * np.sum(np.square(inner.kernel)))
    np.testing.assert_allclose(sorted(layer.losses), sorted(expected), rtol=1e-5)
    assert float(inner.count) == 1
    layer(ones(4, 2))
    assert len(layer.losses) == 3
    assert any(np.isclose(loss, np.sum(inner.kernel)) for loss in layer.losses)


def test_fit_has_the_loss_of_the_plain_layer():
    def loss(wrap, **kwargs):
        keras.utils.set_random_seed(3)
        model = keras.Sequential([keras.Input((2,)), wrap(Penalized(3, **kwargs))])
        model.compile(keras.optimizers.SGD(0.01), "mse", jit_compile=False)
        history = model.fit(ones(8, 2), ones(8, 3), epochs=3, verbose=0)
        return history.history["loss"], float(model.weights[-1])

    plain, count = loss(lambda layer: layer)
    # At this rate the wrapper draws, and drops nothing.
    wrapped, wrapped_count = loss(lambda layer: Bridgeout(layer, 1e-9))
    np.testing.assert_allclose(wrapped, plain, rtol=1e-5)
    assert count == wrapped_count > 0


def test_a_stateless_call_is_the_call_and_leaves_all_as_it_was():
    inner = Penalized(3)
    model = keras.Sequential([keras.Input((2,)), Bridgeout(inner, 0.5, seed=1)])
    (layer,) = model.layers
    x = ones(4, 2)
    for called in (layer, model):
        trainable = [v.value + 1 for v in called.trainable_variables]
        others = [tf.identity(v.value) for v in called.non_trainable_variables]
        before = [v.numpy() for v in called.variables]
        y, updated, losses = called.stateless_call(
            trainable, others, x, training=True, return_losses=True
        )
        for variable, old in zip(called.variables, before, strict=True):
            np.testing.assert_array_equal(variable, old)
        assert len(losses) == 3
        for variable, value in zip(called.trainable_variables, trainable, strict=True):
            variable.assign(value)
        np.testing.assert_allclose(called(x, training=True), y, rtol=1e-6)
        np.testing.assert_allclose(sorted(called.losses), sorted(losses), rtol=1e-6)
        for variable, new in zip(called.non_trainable_variables, updated, strict=True):
            np.testing.assert_array_equal(variable, new)


def test_an_outer_scope_that_collects_nothing_holds_back_all_assignments():
    layer = Bridgeout(Penalized(3), 0.5)
    layer.build((None, 2))
    before = [v.numpy() for v in layer.variables]
    with keras.StatelessScope() as scope:
        layer(ones(4, 2), training=True)
    assert not scope.losses
    for variable, old in zip(layer.variables, before, strict=True):
        np.testing.assert_array_equal(variable, old)
    assert len(layer.losses) == 1


def test_an_error_inside_leaves_the_true_weights_in_place():
    class Failing(L.Dense):
        def call(self, x, training=False):
            if training:
                raise InterruptedError
            return super().call(x)

    layer = Bridgeout(Failing(3), 0.5)
    expected = layer(ones(1, 2)).numpy()
    with pytest.raises(InterruptedError):
        layer(ones(1, 2), training=True)
    np.testing.assert_array_equal(layer(ones(1, 2)), expected)
    assert not isinstance(layer.layer.kernel.value, tf.Tensor)


def test_noise_comes_on_noise():
    dense = L.Dense(40, kernel_initializer="ones", use_bias=False)
    layer = Shakeout(Bridgeout(dense, 0.5), 0.5, c=1)
    y = layer(np.eye(40, dtype="float32"), training=True).numpy()
    # The outer layer turns 1 into 3 or -1; the inner one drops half of them.
    assert set(np.unique(y)) == {-2, 0, 6}
    for row in y:
        assert len(set(np.sign(row))) == 2


def test_a_weight_that_the_layer_assigns_is_refused():
    layer = Bridgeout(L.BatchNormalization(), 0.5, weights="moving_mean")
    layer(ones(2, 3))
    with pytest.raises(ValueError, match="does not assign when it is called") as error:
        layer(ones(2, 3), training=True)
    path = layer.layer.moving_mean.path
    assert f"Received: weights with {path}. Name other `weights`" in str(error.value)
