"""Layers with noise on weights in files and exports."""

import json

import batched
import keras
import numpy as np
import pytest
import tensorflow as tf
from fresh import random_ops_of_file

from keras_sparseout.layers.bridgeout import Bridgeout
from keras_sparseout.layers.shakeout import Shakeout

L = keras.layers
WORDS = 9


def tied():
    """A language model with noise on all weights, its embeddings tied to the output."""
    tokens = keras.Input((6,), dtype="int32")
    embedding = L.ReversibleEmbedding(WORDS, 8)
    x = Bridgeout(embedding, 0.3)(tokens)
    rnn = L.SimpleRNN(8, return_sequences=True)
    x = Bridgeout(rnn, 0.3, 1.5, weights="recurrent_kernel")(x)
    x = L.RNN(Shakeout(L.GRUCell(8), 0.3, 0.1), return_sequences=True)(x)
    x = Shakeout(L.Dense(8, kernel_regularizer="l2"), 0.3, 0.1)(x)
    return keras.Model(tokens, embedding(x, reverse=True))


def compiled(model):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, run_eagerly=True)
    return model


def data():
    words = np.random.default_rng(0).integers(0, WORDS, (24, 6))
    return words, np.roll(words, -1, axis=1)


def fit(model, **kwargs):
    batched.fit(model, *data(), batch_size=12, verbose=0, **kwargs)


def state(model):
    """All that training changes: weights, seeds, the optimizer's variables."""
    return [np.asarray(v.value) for v in (*model.variables, *model.optimizer.variables)]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    keras.utils.set_random_seed(0)
    folder = tmp_path_factory.mktemp("saved")
    x, _ = data()
    model = tied()
    model(x, training=True)
    model.save(folder / "model.keras")
    model.export(folder / "exported", verbose=False)
    expected = {"predicted": model(x)}
    expected["continued"] = [model(x, training=True) for _ in range(2)]
    return folder, expected


def test_a_file_predicts_and_draws_on_alike(saved):
    (folder, expected), (x, _) = saved, data()
    model = keras.saving.load_model(folder / "model.keras")
    np.testing.assert_array_equal(model(x), expected["predicted"])
    for noisy in expected["continued"]:
        np.testing.assert_array_equal(model(x, training=True), noisy)


def test_an_export_predicts_alike_and_holds_no_random_op(saved):
    folder, expected = saved
    exported = tf.saved_model.load(folder / "exported")
    found = exported.serve(data()[0])
    np.testing.assert_allclose(found, expected["predicted"], rtol=1e-5, atol=1e-6)
    assert not random_ops_of_file(folder / "exported")


def test_tied_weights_count_once_are_trained_once_and_stay_tied(saved):
    model, loaded = tied(), keras.saving.load_model(saved[0] / "model.keras")
    for m in (model, loaded):
        wrapper, embedding = m.layers[1], m.layers[-1]
        assert wrapper.layer is embedding
        shapes = [tuple(w.shape) for w in m.trainable_variables]
        assert shapes.count((WORDS, 8)) == 1
        assert m.count_params() == sum(int(np.prod(w.shape)) for w in m.weights)
    # In training too, the output layer uses the true weights.
    x, _ = data()
    wrapper, embedding = model.layers[1], model.layers[-1]
    true = embedding.embeddings.numpy()
    hidden = wrapper(x, training=True).numpy()
    assert (hidden == 0).all(-1).any()
    logits = embedding(hidden, reverse=True)
    np.testing.assert_allclose(logits, hidden @ true.T, rtol=1e-5, atol=1e-6)
    through = wrapper(hidden, reverse=True, training=True)
    np.testing.assert_array_equal(through, logits)


def test_the_gradients_of_both_uses_of_tied_weights_add_up():
    embedding = L.ReversibleEmbedding(WORDS, 4)
    wrapper = Bridgeout(embedding, 0.3, 1.5, seed=1)
    x, _ = data()
    wrapper.build(x.shape)
    e, weights = embedding.embeddings.value, embedding.embeddings.numpy()
    with tf.GradientTape() as tape:
        hidden = wrapper(x, training=True)
        loss = tf.reduce_sum(tf.square(embedding(hidden, reverse=True)))
    found = tf.convert_to_tensor(tape.gradient(loss, e))
    twin = Bridgeout(L.Embedding(WORDS, 4), 0.3, 1.5, seed=1)
    twin.build(x.shape)
    twin.layer.embeddings.assign(weights)
    noisy = twin.draw()[0][1].numpy()
    h = noisy[x]
    outer = 2 * (h @ weights.T)
    expected = np.einsum("bts,btd->sd", outer, h)
    inner = np.zeros_like(weights)
    np.add.at(inner, x, outer @ weights)
    expected += inner * noisy / weights
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_a_run_resumed_from_a_file_is_the_uninterrupted_one(tmp_path):
    def network():
        keras.utils.set_random_seed(1)
        embedding = L.ReversibleEmbedding(WORDS, 8)
        tokens = keras.Input((6,), dtype="int32")
        x = Bridgeout(embedding, 0.3, adjustable=True)(tokens)
        x = Shakeout(L.Dense(8), 0.3, 0.1)(x)
        return compiled(keras.Model(tokens, embedding(x, reverse=True)))

    whole, first = network(), network()
    fit(whole, epochs=2)
    fit(first)
    first.save(tmp_path / "model.keras")
    second = keras.saving.load_model(tmp_path / "model.keras")
    second.run_eagerly = True
    fit(second, initial_epoch=1, epochs=2)
    for a, b in zip(state(second), state(whole), strict=True):
        np.testing.assert_array_equal(a, b)


def test_weights_bring_seeds_and_assigned_knobs(tmp_path):
    def network():
        layers = [
            Bridgeout(L.Dense(3), 0.5, adjustable=True),
            Shakeout(L.Dense(3), 0.5, 0.1, adjustable=True),
        ]
        return keras.Sequential([keras.Input((2,)), *layers])

    old, new = network(), network()
    old.layers[0].rate, old.layers[0].q, old.layers[1].c = 0.7, 1.3, 0.2
    x = np.ones((1, 2), "float32")
    old(x, training=True)
    old.save_weights(tmp_path / "model.weights.h5")
    new.load_weights(tmp_path / "model.weights.h5")
    assert (new.layers[0].rate, new.layers[0].q) == (0.7, 1.3)
    assert new.layers[1].c == 0.2
    np.testing.assert_array_equal(new(x, training=True), old(x, training=True))


@pytest.mark.parametrize(
    ("layer", "given"),
    [
        (
            Bridgeout,
            {
                "rate": 0.3,
                "q": 1.25,
                "weights": ("kernel",),
                "noise_shape": (None, 1),
                "seed": 7,
                "epsilon": 1e-5,
                "stop_gradient": False,
            },
        ),
        (
            Shakeout,
            {"rate": 0.3, "c": 0.5, "weights": ("kernel",), "seed": 7, "axis": (0,)},
        ),
    ],
)
def test_config_holds_every_argument_and_makes_an_equal_layer(layer, given):
    given |= {"adjustable": True, "name": "noisy", "trainable": False}
    original = layer(L.Dense(3), **given)
    config = original.get_config()
    inner = config["layer"]
    assert {name: config[name] for name in given} == given
    assert set(config) == {*given, "layer"}
    assert inner["config"]["units"] == 3
    for _ in range(2):
        restored = layer.from_config(config)
        assert restored.get_config() == config
        assert restored.layer is not original.layer
    serialized = json.loads(json.dumps(keras.saving.serialize_keras_object(original)))
    assert serialized["registered_name"] == f"keras_sparseout>{layer.__name__}"
    restored = keras.saving.deserialize_keras_object(serialized)
    assert restored.get_config() == config


def test_a_clone_draws_alike():
    layers = [
        Bridgeout(L.Dense(4), 0.5, seed=1),
        Shakeout(L.Dense(2), 0.5, 0.1, seed=2),
    ]
    model = keras.Sequential([keras.Input((3,)), *layers])
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    x = np.ones((2, 3), "float32")
    np.testing.assert_array_equal(clone(x, training=True), model(x, training=True))
