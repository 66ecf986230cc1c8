"""Models whose layers are called by keyword, in any order of the arguments."""

import keras
import numpy as np
import pytest
from keras import layers as L
from rebuilt import SEQUENCES, X, assert_same_outputs
from sparsified import normal

import keras_sparseout as ks
from keras_sparseout.models import insert, replace_dropout, strip

PRESENT = np.ones((4, 6), bool)


class Own(L.Layer):
    """Has another name for its input than the layers around it."""

    def build(self, shape):
        self.kernel = self.add_weight(shape=shape[-1:], name="kernel")

    def call(self, x, training=False):
        return self.kernel * x


def doubled(layer):
    return L.Rescaling(2.0)


def called(layer, shape=(8,), **kwargs):
    """A model of one layer; the input is the last keyword."""
    *others, name = kwargs
    x = keras.Input(shape)
    return keras.Model(x, layer(**{key: kwargs[key] for key in others}, **{name: x}))


CALLS = {
    "Dense": lambda: called(L.Dense(3, name="d"), training=False, inputs=None),
    "LSTM": lambda: called(
        L.LSTM(3, name="d"), (6, 8), mask=PRESENT, training=False, sequences=None
    ),
    "Bidirectional": lambda: called(
        L.Bidirectional(L.GRU(2), name="d"), (6, 8), training=False, sequences=None
    ),
    "own": lambda: called(Own(name="d"), training=False, x=None),
    "model": lambda: called(
        keras.Sequential([keras.Input((8,)), L.Dense(2)], name="d"),
        **{"training": False, "inputs": None},
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_layer_goes_before_the_input(name):
    model = CALLS[name]()
    x = SEQUENCES if model.input_shape == (None, 6, 8) else X
    new = insert(model, {"d": doubled}, where="before")
    assert [type(layer) for layer in new.layers][1] is L.Rescaling
    np.testing.assert_allclose(new(x), model(2 * x), rtol=1e-6)
    assert_same_outputs(model, insert(model, {"d": lambda _: Own()}), x * 0)


def test_several_tensors_are_still_refused():
    query, value = keras.Input((6, 8)), keras.Input((6, 8))
    y = L.MultiHeadAttention(2, 4, name="a")(value=value, query=query)
    model = keras.Model([query, value], y)
    with pytest.raises(ValueError, match="'a', which takes 2 tensors"):
        insert(model, {"a": doubled}, where="before")
    x = keras.Input((8,), dtype="int32")
    table = L.Embedding(3, 4, name="table")(inputs=x)
    with pytest.raises(ValueError, match="'table', which takes no floating-point"):
        insert(keras.Model(x, table), {"table": doubled}, where="before")


def started():
    layer = ks.TargetSparsity(0.5, name="cut")
    layer.start(0.4)
    return layer


@pytest.mark.parametrize(
    ("make", "kwargs"),
    [
        (lambda: ks.Sparseout(0.5), {"training": False, "inputs": None}),
        (lambda: ks.Sparseout(0.5, dtype="float16"), {"training": None, "inputs": 0}),
        (started, {"training": False, "inputs": None}),
        (lambda: ks.ActivationPenalty(0.1), {"inputs": None}),
        # The layer inside names its input otherwise.
        (lambda: ks.Bridgeout(Own(), 0.5), {"training": False, "inputs": None}),
        (lambda: ks.Bridgeout(L.Dense(3), 0.5), {"training": False, "inputs": None}),
    ],
)
def test_strip_takes_layers_out(make, kwargs):
    model = called(make(), **kwargs)
    plain = strip(model, verbose=0)
    assert_same_outputs(model, plain, X)
    assert "keras_sparseout" not in plain.to_json()


@pytest.mark.filterwarnings("ignore:.*was passed an input with a mask:UserWarning")
def test_a_mask_by_keyword_stays_with_the_cut_sequence():
    x, mask = keras.Input((6, 8)), keras.Input((6,), dtype="bool")
    model = keras.Model([x, mask], L.LSTM(2)(started()(mask=mask, inputs=x)))
    present = np.arange(6) < np.array([[2], [3], [6], [1]])
    assert_same_outputs(model, strip(model, verbose=0), [SEQUENCES, present])


def test_sparseout_takes_the_place_of_a_dropout():
    model = called(L.Dropout(0.5, name="drop"), training=False, inputs=None)
    new = replace_dropout(model, 2.0, verbose=0)
    assert isinstance(new.layers[-1], ks.Sparseout)
    assert_same_outputs(model, new, X)


def test_sparsify_reaches_such_a_layer():
    x = keras.Input((8,))
    y = L.Dense(16, "gelu")(x)
    model = keras.Model(x, L.Dense(2, name="head")(training=None, inputs=y))
    sparse = ks.sparsify(model, normal(200, 8), 0.7, verbose=0)
    assert sparse.layers[-2].name == "head_threshold"
    assert sparse.layers[-2].threshold > 0
