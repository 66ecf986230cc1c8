"""Copies have the user's own functions, classes and layers, wherever they are."""

import functools

import keras
import numpy as np
import pytest
from keras import layers as L
from rebuilt import IDS, SEQUENCES, X, assert_same_outputs

import keras_sparseout as ks
from keras_sparseout import models


def copied(model):
    """A copy of a model with a layer in it that does nothing at inference."""
    return models.insert(model, {"last": lambda layer: L.GaussianNoise(0.1)})


def with_last(*layers, shape=(8,)):
    return keras.Sequential([keras.Input(shape), *layers, L.Dense(2, name="last")])


def relu(x):
    """No ReLU: a function of the user with the name of one of Keras."""
    return keras.ops.tanh(x) * 3


def activation(scale):
    """Functions of one name."""
    return lambda x: keras.ops.tanh(scale * x)


def layer_class(scale):
    """Classes of one name."""

    class Own(L.Layer):
        def call(self, x):
            return keras.ops.tanh(scale * x)

    return Own


class Cell(L.SimpleRNNCell):
    pass


class Ones(keras.initializers.Initializer):
    def __call__(self, shape, dtype=None, **kwargs):
        return keras.ops.ones(shape, dtype)


class Two(L.Layer):
    """Has two layers in its config."""

    def __init__(self, first, second, **kwargs):
        super().__init__(**kwargs)
        self.first, self.second = first, second

    def call(self, x):
        return self.second(self.first(x))

    def get_config(self):
        parts = {"first": self.first, "second": self.second}
        write = keras.saving.serialize_keras_object
        return {**super().get_config(), **{k: write(v) for k, v in parts.items()}}

    @classmethod
    def from_config(cls, config):
        read = keras.saving.deserialize_keras_object
        parts = {key: read(config.pop(key)) for key in ("first", "second")}
        return cls(**parts, **config)


class Residual(L.Layer):
    """Makes models in its code, whose layers have names that Keras gives."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.steps = [
            keras.Sequential([L.Dense(8, "relu"), L.Dropout(0.5), L.Dense(8)])
            for _ in range(2)
        ]
        x = keras.Input((8,))
        y = L.Dense(8)(x)
        self.graph = keras.Model(x, L.Add()([y, L.Dense(8)(y)]))

    def call(self, x):
        for step in self.steps:
            x = x + step(x)
        return self.graph(x)


class Applies(L.Layer):
    """Takes a function, and gives what `written` makes of it in its config."""

    def __init__(self, function, written, **kwargs):
        super().__init__(**kwargs)
        known = {"relu": relu}
        self.function = known.get(function, function) if written is str else function
        self.written = written

    def call(self, x):
        return self.function(x)

    def get_config(self):
        name = self.function.__name__
        function = name if self.written is str else self.written(self.function)
        written = {"function": function, "written": self.written}
        return {**super().get_config(), **written}


class Reads(Applies):
    """Reads it in its own way."""

    @classmethod
    def from_config(cls, config):
        if config["written"] is str:
            return cls(**{**config, "function": globals()[config["function"]]})
        read = keras.saving.deserialize_keras_object(config["function"])
        return cls(**{**config, "function": read})


def doubled(x, by, of):
    return of(x) * by


ARRAY = np.arange(8, dtype="float32")
SIMPLE = functools.partial(L.SimpleRNNCell, 3)
ALONE = {
    "a wrapper": lambda: ks.Bridgeout(L.Dense(8, activation=relu), 0.1),
    "layers in a config": lambda: Two(
        L.Dense(8, activation(1.0)), L.Dense(8, activation(9.0))
    ),
    "classes of one name": lambda: Two(layer_class(1.0)(), layer_class(9.0)()),
    "an initializer": lambda: Two(
        L.Dense(3, kernel_initializer=Ones()), L.Dense(3, "relu")
    ),
    "models in the code": Residual,
    "a name in a config": lambda: Applies(relu, str),
    "a function in a config": lambda: Applies(
        relu, keras.saving.serialize_keras_object
    ),
    "a name that its class reads": lambda: Reads(relu, str),
    "a function that its class reads": lambda: Reads(
        relu, keras.saving.serialize_keras_object
    ),
    "shape of a Lambda": lambda: L.Lambda(
        lambda x: x[:, :2], output_shape=lambda shape: (shape[0], 2)
    ),
    "arguments of a Lambda": lambda: L.Lambda(
        doubled, arguments={"by": ARRAY, "of": relu}, output_shape=(8,)
    ),
}
IN_TIME = {
    "Dense": lambda: L.TimeDistributed(L.Dense(8, activation=relu)),
    "lambda": lambda: L.TimeDistributed(L.Dense(8, activation=lambda x: x * 2)),
    "Lambda": lambda: L.TimeDistributed(L.Lambda(lambda x: x * 2)),
    "model": lambda: L.TimeDistributed(
        keras.Sequential([L.Dense(4, activation=relu), layer_class(2.0)(), L.ReLU()])
    ),
    "cell": lambda: L.RNN(SIMPLE(activation=relu)),
    "cells": lambda: L.RNN([SIMPLE(activation=relu), SIMPLE(activation(2.0))]),
    "cells of a class": lambda: L.RNN([Cell(4), Cell(3)]),
    "LSTM": lambda: L.LSTM(3, activation=relu),
    "Bidirectional": lambda: L.Bidirectional(L.GRU(3, activation=relu)),
}


@pytest.mark.parametrize("made", ALONE.values(), ids=ALONE)
def test_a_copy_has_what_the_layer_has(made):
    model = with_last(made())
    assert_same_outputs(model, copied(model), X)


@pytest.mark.parametrize("made", IN_TIME.values(), ids=IN_TIME)
def test_a_copy_has_what_is_inside_a_layer(made):
    model = with_last(made(), shape=(6, 8))
    assert_same_outputs(model, copied(model), SEQUENCES)


def test_layers_of_the_user_are_put_into_a_model_inside():
    inner = [keras.Input((8,)), L.Dense(8, name="last")]
    time = L.TimeDistributed(keras.Sequential(inner, name="inner"), name="time")
    model = keras.Sequential([keras.Input((6, 8)), time])
    new = models.insert(model, {"time/inner/last": lambda _: layer_class(2.0)()})
    np.testing.assert_allclose(
        new(SEQUENCES), np.tanh(2 * np.asarray(model(SEQUENCES))), rtol=1e-5
    )


def test_a_mask_that_was_let_through_from_outside_is():
    own = layer_class(2.0)()
    own.supports_masking = True
    table = L.Embedding(9, 8, mask_zero=True)
    model = with_last(table, own, L.LSTM(3), shape=(None,))
    assert_same_outputs(model, copied(model), IDS)


class Linear(L.Layer):
    """As in Keras' guide: its weights have no names, so that Keras numbers them."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units

    def build(self, shape):
        self.w = self.add_weight(shape=(shape[-1], self.units))
        self.b = self.add_weight(shape=(self.units,))

    def call(self, x):
        return x @ self.w + self.b


def test_weights_without_names_are_copied_in_order():
    model = with_last(Linear(8), Linear(8))
    model.compile(keras.optimizers.Adam(0.1), "mse", run_eagerly=True)
    y = X[:, :2]
    model.train_on_batch(X, y)
    new = models.insert(model, {"last": lambda layer: L.Activation("linear")})
    assert_same_outputs(model, new, X)
    for each in (model, new):
        each.train_on_batch(X, y)
    assert_same_outputs(model, new, X)


def test_what_no_config_can_have_is_named():
    leaky = functools.partial(keras.ops.leaky_relu, negative_slope=0.3)
    for made in (L.Dense(3, leaky), L.TimeDistributed(L.Dense(3, leaky))):
        with pytest.raises(ValueError, match="functions that are written with `def`"):
            copied(with_last(made, shape=(6, 8)))


@pytest.mark.parametrize("is_model", [False, True])
@pytest.mark.parametrize("comes_first", [False, True])
def test_a_layer_that_a_wrapper_shares_stays_one(is_model, comes_first, tmp_path):
    one, many = keras.Input((8,)), keras.Input((6, 8))
    inner = L.Dense(8, name="inner")
    if is_model:
        drop = L.Dropout(0.5, name="drop")
        inner = keras.Sequential([one, L.Dense(8), drop], name="inner")
    calls = [inner(one), L.TimeDistributed(inner)(many)]
    if comes_first:
        calls = [inner(one), L.TimeDistributed(inner)(many)][::-1]
    y = L.Dense(2, name="last")(L.Dot((1, 2))(sorted(calls, key=lambda x: x.ndim)))
    model = keras.Model([one, many], y)
    new = copied(model)
    assert len(new.weights) == len(model.weights)
    assert_same_outputs(model, new, [X, SEQUENCES])
    new.save(tmp_path / "new.keras")
    loaded = keras.saving.load_model(tmp_path / "new.keras")
    assert_same_outputs(model, loaded, [X, SEQUENCES])
    if is_model:
        noisy = models.replace_dropout(model, q=1.5, verbose=0)
        time = next(x for x in noisy.layers if isinstance(x, L.TimeDistributed))
        assert time.layer is noisy.get_layer("inner")
        assert isinstance(time.layer.get_layer("drop"), ks.Sparseout)


def test_a_variable_that_an_operation_reads_is_named():
    ids = keras.Input((4,), dtype="int32")
    table = L.Embedding(9, 8, name="table")
    y = L.Dense(8, name="last")(table(ids))
    for tied in (
        keras.ops.einsum("btd,vd->btv", y, table.embeddings),
        keras.ops.einsum("btd,vd->btv", y, table.embeddings.value),
        keras.ops.take(axis=0, indices=ids, x=table.embeddings) + y,
    ):
        with pytest.raises(ValueError, match="which takes 'table/embeddings'"):
            copied(keras.Model(ids, tied))
    # This one is a constant: no layer has it, nor does a file.
    constant = keras.Variable(3.0)
    model = keras.Model(ids, y * constant)
    assert_same_outputs(model, copied(model), IDS)


def test_a_threshold_in_a_frozen_model_follows_its_input():
    inner = with_last(L.Dense(8, "relu", name="hidden"))
    inner.trainable = False
    model = keras.Sequential([keras.Input((8,)), inner])
    cut = ks.TargetSparsity(0.7)
    new = models.insert(model, {".*/hidden": lambda layer: cut})
    assert not new.trainable_weights
    new(X, training=True)
    assert cut.threshold.numpy() > 0
    still = ks.TargetSparsity(0.7, trainable=False)
    models.insert(model, {".*/hidden": lambda layer: still})(X, training=True)
    assert still.threshold.numpy() == 0


def test_penalties_of_what_is_replaced_or_unwrapped_stay():
    penalized = {"activity_regularizer": keras.regularizers.L2(0.1)}
    dropout = with_last(L.Dropout(0.5, **penalized), shape=(6, 8))
    bridge = keras.Sequential([ks.Bridgeout(L.Dense(2), 0.5, **penalized)])
    noisy = models.replace_dropout(dropout, q=1.5, verbose=0)
    bridge(X)
    plain = models.strip(bridge, verbose=0)
    for old, new, x in ((dropout, noisy, SEQUENCES), (bridge, plain, X)):
        old(x), new(x)
        [before], [after] = old.losses, new.losses
        assert before == after > 0
    dense = L.Dense(2, name="in", **penalized)
    twice = ks.Bridgeout(dense, 0.5, name="out", **penalized)
    with pytest.raises(ValueError, match="'out' and 'in', which have one each"):
        models.strip(keras.Sequential([twice]), verbose=0)


class Twice(Two):
    """Makes two layers from the config of one."""

    @classmethod
    def from_config(cls, config):
        first, _ = config.pop("first"), config.pop("second")
        read = keras.saving.deserialize_keras_object
        return cls(read(first), read(first), **config)


def test_two_layers_of_one_config_do_not_become_one():
    def inner():
        return keras.Sequential([keras.Input((8,)), L.Dropout(0.5), L.Dense(8)])

    model = with_last(Twice(inner(), inner()))
    with pytest.raises(ValueError, match="several layers are made of 'sequential"):
        models.replace_dropout(model, q=1.5, verbose=0)
