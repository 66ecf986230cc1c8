"""`replace_dropout`: what becomes Sparseout, and what is listed."""

import keras
import numpy as np
import pytest
from keras import layers as L
from rebuilt import IMAGES, SEQUENCES, X, assert_same_outputs, layers_in, sequential

import keras_sparseout as ks
from keras_sparseout.models import find_dropout, replace_dropout


class Block(L.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense, self.drop = L.Dense(8), L.Dropout(0.2)

    def call(self, x, training=False):
        return self.drop(self.dense(x), training=training)


class OwnDropout(L.Dropout):
    pass


def everything():
    x = keras.Input((6, 8))
    y = L.Dropout(0.3, noise_shape=(None, 1, None), seed=3, name="drop")(x * 2.0)
    y = L.SpatialDropout1D(0.1, name="spatial")(y)
    y = L.GaussianNoise(0.2, name="noise")(L.GaussianDropout(0.2, name="gauss")(y))
    y = L.TimeDistributed(L.Dropout(0.4, name="drop"), name="time")(y)
    y = L.LSTM(4, dropout=0.1, recurrent_dropout=0.2, return_sequences=True)(y)
    y = L.Bidirectional(L.GRU(3, dropout=0.1, return_sequences=True), name="both")(y)
    y = L.MultiHeadAttention(2, 3, dropout=0.1, name="attention")(y, y)
    y = OwnDropout(0.1, name="own")(Block(name="block")(y))
    inner = keras.Sequential([L.Dropout(0.5, name="drop"), L.Dropout(0)], name="inner")
    return keras.Model(x, inner(inner(y)))


def test_each_place_is_replaced_or_listed(capsys):
    model = everything()
    new = replace_dropout(model, 1.5, adjustable=True)
    printed = capsys.readouterr().out.splitlines()
    rows = find_dropout(model)
    assert printed[0] == "replace_dropout"
    for line, place in zip(printed[1:], rows, strict=True):
        assert line.startswith(place.name)
        end = f"becomes {place.becomes}" if place.becomes else f"stays: {place.why}"
        assert line.endswith(end)
    assert {place.name: place.becomes or place.why for place in rows} == {
        "drop": "Sparseout",
        "spatial": "SpatialSparseout1D",
        "gauss": "other noise",
        "noise": "other noise",
        "time/drop": "Sparseout",
        rows[5].name: "its own rate, out of reach",
        "both/forward_" + rows[6].name[13:]: "its own rate, out of reach",
        "both/backward_" + rows[6].name[13:]: "its own rate, out of reach",
        "attention": "its own rate, out of reach",
        rows[9].name: "in the code of block, out of reach",
        "own": "a class of its own",
        "inner/drop": "Sparseout",
        rows[12].name: "Sparseout",
    }
    assert rows[5].rates == {"dropout": 0.1, "recurrent_dropout": 0.2}
    assert rows[5].kind == "LSTM"
    assert_same_outputs(model, new, SEQUENCES)
    found = layers_in(new)
    sparse = [name for name, v in found.items() if isinstance(v, ks.Sparseout)]
    assert sparse == [place.name for place in rows if place.becomes]
    drop = found["drop"]
    assert (drop.rate, drop.q, drop.noise_shape) == (0.3, 1.5, (None, 1, None))
    assert drop.adjustable
    assert found["inner/drop"].rate == 0.5


def test_seeds_go_on():
    model = keras.Sequential([keras.Input((8,)), L.Dropout(0.3, seed=3), L.Dense(2)])
    model(X, training=True)
    new = replace_dropout(model, verbose=0)
    old, drop = model.layers[0], new.layers[0]
    assert drop.seed == 3
    np.testing.assert_array_equal(drop.seed_generator.state, old.seed_generator.state)


@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
def test_spatial_dropout_keeps_its_format(data_format):
    for old, new, x in (
        (L.SpatialDropout2D, ks.SpatialSparseout2D, IMAGES),
        (L.SpatialDropout3D, ks.SpatialSparseout3D, IMAGES[..., None]),
    ):
        layer = old(0.3, data_format=data_format, dtype="float16")
        model = keras.Sequential([keras.Input(x.shape[1:]), layer])
        [sparse] = replace_dropout(model, 3, verbose=0).layers
        assert type(sparse) is new
        assert (sparse.data_format, sparse.q, sparse.dtype) == (
            data_format,
            3,
            "float16",
        )


def test_a_model_without_dropout_is_copied(capsys):
    model = sequential()
    new = replace_dropout(model)
    assert (
        capsys.readouterr().out == "replace_dropout: the model has no Dropout layer.\n"
    )
    assert new is not model
    assert_same_outputs(model, new, X)


def test_a_trained_model_trains_on():
    model = keras.Sequential([keras.Input((8,)), L.Dropout(0.5), L.Dense(2)])
    model.compile("adam", "mse", run_eagerly=True)
    model.train_on_batch(X, X[:, :2])
    new = replace_dropout(model, 1.0, verbose=0)
    assert new.optimizer.iterations == 1
    new.train_on_batch(X, X[:, :2])


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.drop = L.Dropout(0.5)

    def call(self, x):
        return self.drop(x)


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="Subclassed, a subclassed model"):
        replace_dropout(Subclassed())
    [place] = find_dropout(Subclassed())
    assert place.becomes is None
    with pytest.raises(ValueError, match="`q` must be"):
        replace_dropout(sequential(), -1)
    with pytest.raises(ValueError, match="`adjustable` must be"):
        replace_dropout(sequential(), 1, adjustable=1)
    with pytest.raises(ValueError, match="`model` must be a Keras model"):
        find_dropout(3)
