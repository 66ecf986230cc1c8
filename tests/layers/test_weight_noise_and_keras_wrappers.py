"""Noise on weights together with the wrappers of Keras."""

import keras
import numpy as np
import pytest

from keras_sparseout import Bridgeout, Shakeout, SparseoutCellWrapper

L = keras.layers
X = np.random.default_rng(0).normal(size=(4, 5, 6)).astype("float32")


def bridgeout(layer, **kwargs):
    return Bridgeout(layer, 0.5, seed=1, **kwargs)


def shakeout(layer, **kwargs):
    return Shakeout(layer, 0.5, 0.3, seed=1, **kwargs)


@pytest.mark.parametrize(
    ("make", "remedy"),
    [
        (lambda: bridgeout(L.LSTM(3)), "around it: Bridgeout(Bidirectional(LSTM("),
        (lambda: shakeout(L.GRU(3)), "around it: Shakeout(Bidirectional(GRU("),
        (
            lambda: bridgeout(L.RNN(L.GRUCell(3))),
            "around it: Bridgeout(Bidirectional(RNN(",
        ),
        (
            lambda: shakeout(L.LSTMCell(3)),
            "in an RNN in it: Bidirectional(RNN(Shakeout(LSTMCell(",
        ),
        (
            lambda: SparseoutCellWrapper(L.LSTMCell(3), 0.3),
            "in an RNN in it: Bidirectional(RNN(SparseoutCellWrapper(LSTMCell(",
        ),
    ],
)
def test_bidirectional_says_which_goes_around_which(make, remedy):
    with pytest.raises(ValueError, match="`go_backwards` is no argument") as error:
        L.Bidirectional(make())
    assert "Received: go_backwards=True. A Bidirectional takes no " in str(error.value)
    assert remedy in str(error.value)


def test_a_backward_layer_says_so_too():
    backward = bridgeout(L.LSTM(3, go_backwards=True))
    with pytest.raises(AttributeError, match="put Bridgeout around it: Bridgeout"):
        L.Bidirectional(L.LSTM(3), backward_layer=backward)
    assert not hasattr(backward, "go_backwards")


@pytest.mark.parametrize(
    "layer",
    [
        lambda: bridgeout(L.Bidirectional(L.LSTM(3))),
        lambda: shakeout(L.Bidirectional(L.GRU(3))),
        lambda: L.Bidirectional(L.RNN(bridgeout(L.LSTMCell(3)))),
        lambda: L.Bidirectional(L.RNN(SparseoutCellWrapper(L.LSTMCell(3), 0.3))),
    ],
)
def test_the_remedies_work(layer):
    layer = layer()
    assert not np.allclose(layer(X, training=True), layer(X))


@pytest.mark.parametrize(
    ("wrap", "layer", "path"),
    [
        (bridgeout, lambda: L.SpectralNormalization(L.Dense(3)), "layer/kernel"),
        (shakeout, lambda: L.SpectralNormalization(L.Conv1D(3, 2)), "layer/kernel"),
        (
            shakeout,
            lambda: L.TimeDistributed(L.SpectralNormalization(L.Dense(3))),
            "layer/layer/kernel",
        ),
        (
            bridgeout,
            lambda: keras.Sequential([L.SpectralNormalization(L.Dense(3))]),
            "spectral_normalization.*/layer/kernel",
        ),
    ],
)
def test_weights_that_are_normalized_are_refused_before_training(wrap, layer, path):
    name = wrap.__name__.capitalize()
    match = rf"(?s)as keras.layers.SpectralNormalization does.*with {path} of "
    with pytest.raises(ValueError, match=match) as error:
        wrap(layer())(X)
    remedy = f"Put {name} inside: SpectralNormalization({name}("
    assert remedy in str(error.value)


@pytest.mark.parametrize(
    ("wrap", "layer"),
    [(bridgeout, lambda: L.Dense(3)), (shakeout, lambda: L.Conv1D(3, 2))],
)
def test_noise_inside_of_a_spectral_normalization(tmp_path, wrap, layer):
    inner = layer()
    normalized = L.SpectralNormalization(wrap(inner), power_iterations=20)
    model = keras.Sequential([keras.Input(X.shape[1:]), normalized])
    for _ in range(3):
        noisy = model(X, training=True)
    kernel = inner.kernel.numpy()
    # The layer assigns the weight without noise, of norm 1.
    np.testing.assert_allclose(np.linalg.norm(kernel.reshape(-1, 3), 2), 1, rtol=1e-4)
    np.testing.assert_allclose(model(X), inner(X), rtol=1e-6)
    assert not np.allclose(noisy, inner(X))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded(X), model(X), rtol=1e-6)


def test_other_weights_of_a_normalized_layer_have_noise():
    layer = L.SpectralNormalization(L.Dense(30, bias_initializer="ones"))
    layer = bridgeout(layer, weights="bias")
    layer(X)
    zeros = np.zeros_like(X)
    assert set(np.unique(layer(zeros, training=True))) == {0, 2}


def test_a_kernel_is_that_of_the_wrapped_layer():
    dense, embedding = L.Dense(3), L.Embedding(5, 3)
    layers = bridgeout(dense), shakeout(bridgeout(embedding))
    layers[0](X)
    layers[1](np.array([[1]]))
    assert layers[0].kernel is dense.kernel
    assert layers[1].embeddings is embedding.embeddings
    assert not hasattr(layers[0], "embeddings")
    assert not hasattr(layers[1], "kernel")
    assert [len(layer.weights) for layer in layers] == [2, 1]


class Normalizing(L.Dense):
    def call(self, x, training=False):
        if training:
            self.bias.assign(self.bias / 2)
        return super().call(x)


@pytest.mark.parametrize(
    ("layer", "weights"),
    [
        (lambda: Normalizing(3), "bias"),
        (lambda: L.BatchNormalization(), "moving_variance"),
        (lambda: L.SpectralNormalization(L.Dense(3)), "vector_u"),
        (lambda: keras.Sequential([L.Dense(3), Normalizing(3)]), "bias"),
    ],
)
def test_weights_that_a_call_assigns_are_refused_with_the_remedy(layer, weights):
    layer = bridgeout(layer(), weights=weights)
    layer(X)
    with pytest.raises(ValueError, match="does not assign when it is called") as error:
        layer(X, training=True)
    assert f"/{weights}. Name other `weights`, or wrap only the" in str(error.value)


def functional():
    inputs = keras.Input(X.shape[1:])
    return keras.Model(inputs, L.Dense(2)(L.Dense(4, "tanh")(inputs)))


@pytest.mark.parametrize(
    ("wrap", "layer", "weights"),
    [
        (shakeout, lambda: L.TimeDistributed(L.Dense(3)), 1),
        (
            bridgeout,
            lambda: keras.Sequential([L.Dense(3), L.TimeDistributed(L.Dense(2))]),
            2,
        ),
        (shakeout, functional, 2),
        (bridgeout, lambda: L.Bidirectional(L.LSTM(3, return_sequences=True)), 2),
    ],
)
def test_wrappers_and_models_of_keras_inside(wrap, layer, weights):
    layer = wrap(layer())
    plain = layer(X)
    assert len(layer.draw()) == weights
    assert not np.allclose(layer(X, training=True), plain)
    np.testing.assert_array_equal(layer(X), plain)
