"""Masks, arguments and input shapes reach the layer with noise on its weights."""

import keras
import numpy as np
import pytest

from keras_sparseout.layers.bridgeout import Bridgeout
from keras_sparseout.layers.shakeout import Shakeout

L = keras.layers


def ones(*shape):
    return np.ones(shape, "float32")


def test_masks_pass_through_as_without():
    tokens = np.array([[5, 2, 0, 0], [1, 0, 0, 0]])
    embedding = L.Embedding(9, 4, mask_zero=True)
    lstm = L.LSTM(3, return_sequences=True, return_state=True)
    plain = lstm(embedding(tokens))
    wrapped = Bridgeout(lstm, 0.5, weights="recurrent_kernel")
    noisy = wrapped(Bridgeout(embedding, 0.5)(tokens))
    for a, b in zip(noisy, plain, strict=True):
        np.testing.assert_array_equal(a, b)
    mask = wrapped.compute_mask(tokens, tokens != 0)
    np.testing.assert_array_equal(mask[0], tokens != 0)
    assert mask[1:] == [None, None]
    assert Bridgeout(L.Dense(2), 0.5).compute_mask(tokens, None) is None


def test_padded_steps_change_nothing_in_training():
    x = np.random.default_rng(0).normal(size=(1, 4, 3)).astype("float32")
    padded, bare = (Bridgeout(L.LSTM(3, seed=1), 0.5, seed=1) for _ in range(2))
    y = padded(x, mask=np.array([[True, True, False, False]]), training=True)
    bare.build(x.shape)
    bare.set_weights(padded.get_weights())
    np.testing.assert_allclose(y, bare(x[:, :2], training=True), rtol=1e-6)


def test_a_symbolic_mask_reaches_the_next_layer():
    tokens = keras.Input((4,), dtype="int32")
    hidden = Bridgeout(L.Embedding(9, 4, mask_zero=True), 0.5)(tokens)
    model = keras.Model(tokens, L.LSTM(3)(hidden))
    padded, bare = np.array([[5, 2, 0, 0]]), np.array([[5, 2]])
    expected = model.layers[-1](model.layers[1].layer(bare))
    np.testing.assert_allclose(model(padded), expected, rtol=1e-6)


def test_call_arguments_pass_through():
    x, states = ones(2, 5, 3), [ones(2, 4), ones(2, 4)]
    lstm = L.LSTM(4)
    layer = Bridgeout(lstm, 0.5)
    expected = lstm(x, initial_state=states)
    np.testing.assert_array_equal(layer(x, initial_state=states), expected)
    inputs = keras.Input((5, 3)), [keras.Input((4,)), keras.Input((4,))]
    outputs = layer(inputs[0], initial_state=inputs[1])
    model = keras.Model(inputs, outputs)
    np.testing.assert_array_equal(model([x, states]), expected)
    attention = L.MultiHeadAttention(2, 3)
    layer = Bridgeout(attention, 0.5)
    attention.build(x.shape, x.shape)
    expected = attention(x, x, use_causal_mask=True)
    np.testing.assert_array_equal(layer(x, x, use_causal_mask=True), expected)
    assert not np.allclose(layer(x, x, training=True), attention(x, x))
    assert len(layer.draw()) == 4


def test_an_argument_of_that_name_of_another_layer_leaves_the_noise():
    class Flow(L.Dense):
        def call(self, x, reverse=False):
            return super().call(-x if reverse else x)

    layer = Bridgeout(Flow(32), 0.5)
    x = ones(1, 4)
    np.testing.assert_array_equal(layer(x, reverse=True), layer.layer(-x))
    noisy = layer(x, reverse=True, training=True)
    assert not np.allclose(noisy, layer(x, reverse=True))


@pytest.mark.parametrize(("make", "second"), [(Bridgeout, 1.5), (Shakeout, 0.1)])
def test_noise_is_there_in_training_alone_whatever_the_layer_takes_for_it(make, second):
    class Eager(L.Dense):
        def call(self, x, training=True):
            return super().call(x)

    layer = make(Eager(32), 0.5, second)
    x = ones(1, 4)
    np.testing.assert_array_equal(layer(x), layer.layer(x))
    assert not np.allclose(layer(x, training=True), layer.layer(x))


def test_the_rank_of_the_input_is_checked_as_by_the_layer_itself():
    layer = Bridgeout(L.Conv1D(2, 2), 0.5)
    with pytest.raises(ValueError, match="incompatible with the layer"):
        layer(keras.Input((3,)))
    layer(keras.Input((4, 3)))
    with pytest.raises(ValueError, match="incompatible with the layer"):
        layer(keras.Input((4, 5)))


@pytest.mark.parametrize(
    "wrap", [lambda y: Bridgeout(y, 0.5), lambda y: Shakeout(y, 0.5, 0.1)]
)
def test_a_mask_reaches_the_layer_in_time_distributed(wrap):
    lstm = L.LSTM(3)
    x = np.random.default_rng(0).normal(size=(2, 2, 4, 5)).astype("float32")
    mask = np.array([[[1, 1, 0, 0], [1, 0, 0, 0]], [[1, 1, 1, 0], [0, 0, 0, 0]]], bool)
    expected = L.TimeDistributed(lstm)(x, mask=mask)
    outputs = L.TimeDistributed(wrap(lstm))(x, mask=mask)
    np.testing.assert_array_equal(outputs, expected)


ATTENTION_CALLS = [
    lambda layer, x, mask: layer(query=x, value=x),
    lambda layer, x, mask: layer(value=x, query=x, training=False),
    lambda layer, x, mask: layer(x, x, attention_mask=mask, use_causal_mask=True),
    lambda layer, x, mask: layer(x, x, key=x, return_attention_scores=True)[1],
]


@pytest.mark.parametrize("call", ATTENTION_CALLS)
def test_every_call_of_attention_works(call):
    x = np.random.default_rng(0).normal(size=(2, 3, 4)).astype("float32")
    mask = np.tri(3, dtype=bool)[None]
    layer = L.MultiHeadAttention(2, 3)
    wrapped = Shakeout(layer, 0.5, 0.1, axis=0)
    expected = call(layer, x, mask)
    np.testing.assert_array_equal(call(wrapped, x, mask), expected)
    inputs = keras.Input((3, 4)), keras.Input((3, 3), dtype="bool")
    model = keras.Model(inputs, call(wrapped, *inputs))
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    outputs = copy([x, np.repeat(mask, 2, axis=0)])
    np.testing.assert_allclose(outputs, expected, rtol=1e-5)


def test_the_input_goes_by_each_of_its_names():
    x = ones(2, 5, 3)
    lstm = L.LSTM(4)
    layer = Bridgeout(lstm, 0.5)
    expected = lstm(x)
    np.testing.assert_array_equal(layer(sequences=x), expected)
    np.testing.assert_array_equal(layer(inputs=x), expected)
    np.testing.assert_array_equal(layer.call(training=False, sequences=x), expected)
    table = L.Embedding(5, 2)
    noisy = [Bridgeout(table, 0.5, seed=1) for _ in range(2)]
    ids = np.arange(5)
    by_name = noisy[0](training=True, inputs=ids)
    np.testing.assert_array_equal(by_name, noisy[1](ids, training=True))
    assert not np.allclose(by_name, table(ids))
