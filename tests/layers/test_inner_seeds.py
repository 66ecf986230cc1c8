"""Layers inside ours continue their sequence of draws in a resumed run."""

import batched
import h5py
import keras
import numpy as np
import pytest

import keras_sparseout as ks

L = keras.layers


@keras.saving.register_keras_serializable("tests_inner_seeds")
class Block(L.Layer):
    """A user's layer with noise in a list and in a dict."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = L.Dense(3)
        self.noise = [L.Dropout(0.5), {"more": L.GaussianNoise(0.5), 3: None}]

    def build(self, input_shape):
        self.dense.build(input_shape)

    def call(self, x, training=False):
        x = self.noise[0](self.dense(x), training=training)
        return self.noise[1]["more"](x, training=training)


def dropping():
    return keras.Sequential([keras.Input((3,)), L.Dense(3), L.Dropout(0.5)])


def cell():
    return ks.SparseoutCellWrapper(
        L.LSTMCell(3, dropout=0.5, recurrent_dropout=0.5), 0.2, 0.1
    )


def cells():
    inner = ks.SparseoutCellWrapper(L.SimpleRNNCell(2, recurrent_dropout=0.5), 0.1)
    stack = L.StackedRNNCells([L.GRUCell(3, dropout=0.5), inner, L.LSTMCell(2)])
    return ks.SparseoutCellWrapper(stack, 0.1)


def shared():
    # Both of our layers contain it.
    dropout = L.Dropout(0.5)
    return [ks.Bridgeout(keras.Sequential([L.Dense(3), dropout]), 0.2) for _ in "ab"]


# With the number of seed generators of other layers inside.
MODELS = {
    "cell": (lambda: L.RNN(cell()), 1),
    "cells": (lambda: L.RNN(cells()), 3),
    "LSTM": (lambda: ks.Bridgeout(L.LSTM(3, dropout=0.5), 0.2), 1),
    "both directions": (
        lambda: ks.Bridgeout(L.Bidirectional(L.GRU(2, dropout=0.5)), 0.2),
        2,
    ),
    "model": (lambda: ks.Shakeout(L.TimeDistributed(dropping()), 0.2, 0.1, axis=0), 1),
    "layer of a user": (lambda: ks.Bridgeout(Block(), 0.2), 2),
    "nested": (lambda: ks.Bridgeout(ks.Shakeout(Block(), 0.1, 0.1), 0.2), 2),
    "cell in a layer": (lambda: ks.Bridgeout(L.RNN(cell()), 0.2), 1),
}


def network(name, seed=1):
    keras.utils.set_random_seed(seed)
    layer, _ = MODELS[name]
    layers = [keras.Input((2, 3)), layer(), L.Flatten(), L.Dense(1)]
    model = keras.Sequential(layers)
    model.compile("sgd", "mse", jit_compile=False, run_eagerly=True)
    return model


X = np.random.default_rng(0).normal(size=(4, 2, 3)).astype("float32")
Y = X.reshape(4, -1)[:, :1]


def seeds(model):
    states = [v for v in model.variables if v.name == "seed_generator_state"]
    return [v.numpy().tolist() for v in states]


def entries(path, name):
    """The shapes of the entries of that name in a weights file."""
    found = []

    def visit(path, entry):
        if path.split("/")[-1] == name:
            found.append(entry.shape)

    with h5py.File(path) as file:
        file.visititems(visit)
    return found


@pytest.mark.parametrize("name", MODELS)
def test_a_resumed_run_draws_as_the_uninterrupted_one(tmp_path, name):
    path = tmp_path / "model.weights.h5"
    whole, second = network(name), network(name, seed=2)
    whole(X, training=True)
    whole.save_weights(path)
    second.load_weights(path)
    assert seeds(second) == seeds(whole)
    np.testing.assert_array_equal(second(X, training=True), whole(X, training=True))
    assert seeds(second) == seeds(whole)
    # Each state is in the file once.
    kept = entries(path, "inner_seed_states")
    assert sum(count for count, _ in kept) == MODELS[name][1]


@pytest.mark.parametrize("name", ["cells", "layer of a user"])
def test_a_model_from_a_file_has_them(tmp_path, name):
    model = network(name)
    model(X, training=True)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert seeds(loaded) == seeds(model)
    np.testing.assert_array_equal(loaded(X, training=True), model(X, training=True))


def test_a_run_resumed_by_backup_and_restore_is_the_uninterrupted_one(tmp_path):
    class Interruption(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                raise InterruptedError

    def backup():
        return keras.callbacks.BackupAndRestore(tmp_path / "backup")

    def fit(model, **kwargs):
        batched.fit(model, X, Y, batch_size=4, verbose=0, **kwargs)

    whole, first, second = network("cells"), network("cells"), network("cells", seed=2)
    fit(whole, epochs=2)
    with pytest.raises(InterruptedError):
        fit(first, epochs=2, callbacks=[backup(), Interruption()])
    fit(second, epochs=2, callbacks=[backup()])
    assert seeds(second) == seeds(whole)
    for a, b in zip(second.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", ["cells", "both directions", "nested"])
def test_a_file_without_them_leaves_them_fresh(tmp_path, name):
    path = tmp_path / "old.weights.h5"
    old, new = network(name), network(name, seed=2)
    old(X, training=True)
    old.save_weights(path)
    with h5py.File(path, "r+") as file:
        found = []
        file.visit(found.append)
        for entry in found:
            if entry.endswith("/inner_seed_states"):
                del file[entry]
    fresh = seeds(new)
    new.load_weights(path)
    own = [v for v in new.variables if v.name == "seed_generator_state"]
    kept = [a == b for a, b in zip(seeds(new), fresh, strict=True)]
    assert kept.count(True) == MODELS[name][1] < len(own)


def test_a_file_of_other_layers_inside_leaves_them_fresh(tmp_path):
    def network(*rates):
        inner = [L.Dense(3), *(L.Dropout(rate) for rate in rates)]
        inner = keras.Sequential([keras.Input((3,)), *inner])
        return keras.Sequential([keras.Input((3,)), ks.Bridgeout(inner, 0.2)])

    # A Dropout of rate 0 has no seed generator.
    old, new = network(0.5, 0.25), network(0.0, 0.25)
    x = X[:, 0]
    old(x, training=True)
    old.save_weights(tmp_path / "old.weights.h5")
    fresh = seeds(new)
    new.load_weights(tmp_path / "old.weights.h5")
    assert [a == b for a, b in zip(seeds(new), fresh, strict=True)].count(True) == 1
    np.testing.assert_array_equal(new(x), old(x))


def test_layers_without_others_inside_save_no_more_than_their_own(tmp_path):
    layers = [ks.Sparseout(0.5), ks.Bridgeout(L.Dense(3), 0.5)]
    model = keras.Sequential([keras.Input((3,)), *layers])
    model.save_weights(tmp_path / "model.weights.h5")
    assert entries(tmp_path / "model.weights.h5", "inner_seed_states") == []
    assert entries(tmp_path / "model.weights.h5", "seed_state") == [(2,), (2,)]


def test_one_that_two_layers_of_ours_have_inside_is_restored(tmp_path):
    def network(seed):
        keras.utils.set_random_seed(seed)
        return keras.Sequential([keras.Input((3,)), *shared()])

    old, new, x = network(1), network(2), X[:, 0]
    old(x, training=True)
    old.save_weights(tmp_path / "model.weights.h5")
    new.load_weights(tmp_path / "model.weights.h5")
    assert seeds(new) == seeds(old)
    np.testing.assert_array_equal(new(x, training=True), old(x, training=True))
