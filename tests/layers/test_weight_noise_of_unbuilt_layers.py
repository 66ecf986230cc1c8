"""Noise on weights that a layer makes only when it is called."""

import copy

import batched
import keras
import numpy as np
import pytest

from keras_sparseout import Bridgeout, Shakeout, SparseoutCellWrapper

L = keras.layers
register = keras.saving.register_keras_serializable("test_weights_made_in_call")
X = np.random.default_rng(0).normal(size=(2, 4, 3)).astype("float32")


@register
class NoBuild(L.Layer):
    """Has no `build`: its children are built when they are called."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first, self.second = L.Dense(3), L.Dense(2)

    def call(self, x):
        return self.second(self.first(x))


@register
class MarkedBuilt(NoBuild):
    """Has a `build` that does not build the children."""

    def build(self, shape):
        self.built = True


@register
class Shaped(NoBuild):
    """Knows its output shape, so that Keras does not call it to find out."""

    def compute_output_shape(self, shape):
        return (*shape[:-1], 2)


@register
class Subclassed(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = L.Dense(2)

    def call(self, x):
        return self.dense(x)


@register
class Cell(L.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.state_size, self.output_size = [2, 3], 2
        self.dense = L.Dense(2)

    def call(self, x, states):
        y = self.dense(x) + states[0]
        return y, [y, states[1]]


def bridgeout(layer):
    return Bridgeout(layer, 0.5, weights="kernel", seed=1)


def shakeout(layer):
    return Shakeout(layer, 0.5, 0.3, seed=1)


def in_time_distributed(layer):
    return L.TimeDistributed(bridgeout(layer))


def twice(layer):
    return bridgeout(shakeout(layer))


def in_rnn(layer):
    return L.RNN(bridgeout(layer))


def called(kind, wrap):
    """Returns a model of a wrapped layer that was called once before."""
    layer = kind()
    if kind is Cell:
        layer(X[:, 0], [X[:, 0, :2], X[:, 0]])
    else:
        layer(X)
    return keras.Sequential([keras.Input(X.shape[1:]), wrap(layer)])


def saved(model, path, name):
    model.save(path / name)
    return keras.saving.load_model(path / name)


def from_weights(model, path):
    model.save_weights(path / "model.weights.h5")
    again = keras.models.clone_model(model)
    again.load_weights(path / "model.weights.h5")
    return again


def with_weights_of(model, again):
    again.set_weights(model.get_weights())
    return again


COPIES = {
    "keras": lambda model, path: saved(model, path, "model.keras"),
    "h5": lambda model, path: saved(model, path, "model.h5"),
    "weights": from_weights,
    "clone": lambda model, path: with_weights_of(
        model, keras.models.clone_model(model)
    ),
    "json": lambda model, path: with_weights_of(
        model, keras.models.model_from_json(model.to_json())
    ),
    "deepcopy": lambda model, path: copy.deepcopy(model),
    "deepcopy of the layer": lambda model, path: copy.deepcopy(model.layers[0]),
}


@pytest.mark.parametrize(
    ("kind", "wrap", "copies"),
    [
        (NoBuild, bridgeout, COPIES),
        (NoBuild, in_time_distributed, ("keras", "clone")),
        (MarkedBuilt, shakeout, ("keras", "weights")),
        (Shaped, twice, ("keras", "json")),
        (Subclassed, shakeout, ("keras", "h5")),
        # Other copies do not call the cell, and know no shape to build it.
        (Cell, in_rnn, ("keras", "deepcopy")),
    ],
)
def test_copies_have_the_weights_and_the_noise(tmp_path, kind, wrap, copies):
    model = called(kind, wrap)
    expected = model(X).numpy()
    for name in copies:
        again = COPIES[name](model, tmp_path)
        np.testing.assert_allclose(again(X), expected, rtol=1e-6, err_msg=name)
        assert not np.allclose(again(X, training=True), expected), name


@pytest.mark.parametrize(
    ("kind", "wrap"),
    [
        (NoBuild, shakeout),
        (MarkedBuilt, bridgeout),
        (Shaped, twice),
        (Subclassed, bridgeout),
    ],
)
def test_the_first_call_may_be_in_training(kind, wrap):
    layer = wrap(kind())
    noisy = layer(X, training=True)
    assert not np.allclose(noisy, layer(X))
    assert len(layer.trainable_variables) == 2 * len(layer.layer.weights) // 2 > 0


def test_a_cell_may_make_its_weights_in_training():
    # At this rate it draws, and drops nothing.
    cells = [Bridgeout(Cell(), 1e-9), SparseoutCellWrapper(L.LSTMCell(8), 0.5)]
    rnn = L.RNN(L.StackedRNNCells(cells))
    # The cell beside it still draws.
    noisy = rnn(X, training=True)
    assert not np.allclose(noisy, rnn(X))
    alone = L.RNN(bridgeout(Cell()))
    noisy = alone(X, training=True)
    assert not np.allclose(noisy, alone(X))


def test_weights_of_several_inputs_are_made_without_a_call_before():
    attention = bridgeout(L.MultiHeadAttention(2, 3))
    noisy = attention(X, X, training=True)
    assert not np.allclose(noisy, attention(X, X))
    assert len(attention.draw()) == 4
    inputs = keras.Input(X.shape[1:])
    model = keras.Model(inputs, attention(inputs, inputs))
    copied = keras.models.clone_model(model)
    copied.set_weights(model.get_weights())
    np.testing.assert_allclose(copied(X), model(X), rtol=1e-6)


@register
class OfTwo(NoBuild):
    """Takes a list of inputs, and has no shape of one to be built from."""

    def call(self, inputs):
        return super().call(inputs[0] + inputs[1])


def test_a_list_of_inputs_makes_the_weights_of_a_loaded_layer(tmp_path):
    inputs = [keras.Input(X.shape[1:]) for _ in range(2)]
    model = keras.Model(inputs, bridgeout(OfTwo())(inputs))
    loaded = saved(model, tmp_path, "model.keras")
    np.testing.assert_allclose(loaded([X, X]), model([X, X]), rtol=1e-6)
    assert not np.allclose(loaded([X, X], training=True), loaded([X, X]))


class Counting(NoBuild):
    def __init__(self):
        super().__init__()
        self.count = self.add_weight(shape=(), initializer="zeros", trainable=False)

    def call(self, x):
        self.count.assign_add(1.0)
        self.add_loss(keras.ops.sum(self.count))
        return super().call(x)


def test_making_them_does_nothing_else():
    inner = Counting()
    layer = bridgeout(inner)
    layer(X, training=True)
    assert float(inner.count) == 1
    assert len(layer.losses) == 1


def test_a_subclassed_model_fits():
    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.body = bridgeout(Shaped())

        def call(self, x):
            return self.body(x)

    model = Model()
    model.compile("sgd", "mse", jit_compile=False)
    batched.fit(model, X, X[..., :2], verbose=0)
    assert len(model.optimizer.variables) == 2
    before = model.get_weights()
    batched.fit(model, X, X[..., :2], verbose=0)
    assert all(np.any(a != b) for a, b in zip(before, model.get_weights(), strict=True))


@pytest.mark.parametrize(
    ("kind", "training"), [(NoBuild, False), (MarkedBuilt, True), (Shaped, True)]
)
def test_a_wrong_name_is_told_once_the_weights_are_there(kind, training):
    layer = Bridgeout(kind(), 0.5, weights="second/kernle")
    for _ in range(2):
        with pytest.raises(ValueError, match="`weights` must be names") as error:
            layer(X, training=training)
        assert "Did you mean 'second/kernel'?" in str(error.value)
    layer = Bridgeout(kind(), 0.5, weights="second/kernle")
    with pytest.raises(ValueError, match="`weights` must be names"):
        layer(keras.Input(X.shape[1:]))


def test_a_wrong_name_of_weights_that_are_there_is_told_at_once():
    inner = NoBuild()
    inner(X)
    with pytest.raises(ValueError, match="`weights` must be names"):
        Bridgeout(inner, 0.5, weights="kernle")


def test_without_weights_it_is_told_once_that_is_known():
    class Nothing(L.Layer):
        def __init__(self):
            super().__init__()
            self.inner = L.Dense(2)

        def build(self, shape):
            self.built = True

        def call(self, x):
            return x

    for training in (False, True):
        layer = bridgeout(Nothing())
        with pytest.raises(ValueError, match="`layer` must be a layer with") as error:
            layer(X, training=training)
        assert "Wrap a layer that has weights." in str(error.value)
