"""Wrappers in wrappers: the work grows with their number, and not faster."""

import keras
import numpy as np
import pytest

from keras_sparseout import Bridgeout, Shakeout, SparseoutCellWrapper
from keras_sparseout.layers import weight_lookup

L = keras.layers
X = np.ones((2, 4, 3), "float32")


class Count:
    """How often the methods of the innermost layer were called."""

    def __init__(self):
        self.get_config = self.from_config = self.build = self.call = self.weights = 0


COUNT = Count()


def counted(layer):
    @keras.saving.register_keras_serializable("counted", layer.__name__)
    class Counted(layer):
        def get_config(self):
            COUNT.get_config += 1
            return super().get_config()

        @classmethod
        def from_config(cls, config):
            COUNT.from_config += 1
            return super().from_config(config)

        def build(self, shape):
            COUNT.build += 1
            super().build(shape)

        def call(self, inputs, *args, **kwargs):
            COUNT.call += 1
            return super().call(inputs, *args, **kwargs)

        @property
        def weights(self):
            COUNT.weights += 1
            return super().weights

    return Counted


Dense, Cell = counted(L.Dense), counted(L.SimpleRNNCell)


def alternating(level, layer):
    return Bridgeout(layer, 0.3) if level % 2 else Shakeout(layer, 0.3, 0.1)


def with_others_between(level, layer):
    if level % 2:
        return Bridgeout(layer, 0.3)
    return keras.Sequential([L.TimeDistributed(layer)])


def cells(level, cell):
    kinds = (
        lambda: SparseoutCellWrapper(cell, 0.3),
        lambda: Bridgeout(cell, 0.3),
        lambda: Shakeout(cell, 0.3, 0.1),
    )
    return kinds[level % 3]()


def work(wrap, innermost, levels):
    """Counts the calls of the innermost layer in so many wrappers, by method."""
    COUNT.__init__()
    layer = innermost(3)
    x = X
    for level in range(levels):
        layer = wrap(level, layer)
        # TimeDistributed takes one dimension off.
        if wrap is with_others_between and not level % 2:
            x = x[:, None]
    layer = L.RNN(layer) if innermost is Cell else layer
    layer(x, training=True)
    config = layer.get_config()
    type(layer).from_config(config)
    keras.saving.serialize_keras_object(layer)
    return vars(COUNT)


@pytest.mark.parametrize(
    ("wrap", "innermost"),
    [(alternating, Dense), (with_others_between, Dense), (cells, Cell)],
)
def test_work_grows_with_the_levels_and_not_faster(wrap, innermost):
    few, many = ({**work(wrap, innermost, levels)} for levels in (4, 8))
    # Each wrapper looks for the weights.
    assert many.pop("weights") <= 2.5 * few.pop("weights")
    assert many == few


def test_a_model_in_models_is_searched_once():
    # Each Sequential holds its layers in two places.
    model = Dense(2)
    for _ in range(10):
        model = keras.Sequential([keras.Input((3,)), model])
    found = weight_lookup.layers_within(model)
    assert len({id(layer) for layer in found}) == len(found)
    COUNT.__init__()
    layer = Bridgeout(model, 0.5)
    assert COUNT.weights < 5
    noisy = layer(X[:, 0], training=True)
    assert not np.allclose(noisy, layer(X[:, 0]))


def test_tied_weights_stay_tied_in_a_file_through_two_wrappers(tmp_path):
    embedding = L.ReversibleEmbedding(9, 4)
    tokens = keras.Input((3,), dtype="int32")
    hidden = Bridgeout(Shakeout(embedding, 0.3, 0.1), 0.3)(tokens)
    model = keras.Model(tokens, embedding(hidden, reverse=True))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.layers[1].layer.layer is loaded.layers[-1]
    words = np.array([[1, 2, 3]])
    np.testing.assert_allclose(loaded(words), model(words), rtol=1e-6)


def test_a_config_is_that_of_the_moment():
    layer = Bridgeout(Bridgeout(L.Dense(2), 0.3, adjustable=True), 0.3, adjustable=True)
    first = layer.get_config()
    layer.layer.rate = 0.7
    first["layer"]["config"]["rate"] = 0.1
    second = layer.get_config()
    assert second["layer"]["config"]["rate"] == 0.7
    assert layer.layer.get_config()["rate"] == 0.7


@pytest.mark.parametrize(
    "layer",
    [
        lambda: L.LSTM(3),
        lambda: L.RNN(L.GRUCell(3)),
        lambda: L.RNN(SparseoutCellWrapper(L.SimpleRNNCell(3), 0.0)),
    ],
    ids=["LSTM", "RNN", "RNN of a wrapped cell"],
)
def test_a_recurrent_layer_in_two_wrappers_is_no_cell(layer):
    layer = layer()
    noisy = Bridgeout(layer, 0.5, seed=1)(X, training=True)
    nested = Bridgeout(Shakeout(layer, 0.0, 0.1), 0.5, seed=1)
    np.testing.assert_array_equal(nested(X, training=True), noisy)
    with pytest.raises(ValueError, match="`cell` must be an RNN cell"):
        SparseoutCellWrapper(Shakeout(layer, 0.0, 0.1))
