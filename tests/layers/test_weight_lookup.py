"""Finding weights by name, in a layer and inside it."""

import keras
import numpy as np
import pytest

from keras_sparseout.layers import weight_lookup
from keras_sparseout.layers.bridgeout import Bridgeout
from keras_sparseout.layers.shakeout import Shakeout

L = keras.layers


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ("kernel", [0, 3]),
        ("recurrent_kernel", [1, 4]),
        ("cell/recurrent_kernel", [1, 4]),
        ("lstm_cell/recurrent_kernel", [1, 4]),
        ("backward_layer/cell/recurrent_kernel", [4]),
        (("forward_layer/cell/kernel", "bias"), [0, 2, 5]),
    ],
)
def test_a_name_stands_for_all_that_have_it_and_a_path_for_one(weights, expected):
    layer = Bridgeout(L.Bidirectional(L.LSTM(2)), 0.5, weights=weights)
    layer.build((None, 5, 3))
    drawn = [variable for variable, _ in layer.draw()]
    assert drawn == [layer.layer.weights[i] for i in expected]


def test_weights_of_layers_in_a_model_and_in_a_list_are_found():
    cells = [L.LSTMCell(2), L.GRUCell(2)]
    rnn, last = L.RNN(cells, name="rnn"), L.Dense(2, name="last")
    model = keras.Sequential([keras.Input((5, 3)), rnn, last])
    for name, weight in {
        "cells/1/recurrent_kernel": cells[1].recurrent_kernel,
        "rnn/cell/cells/0/kernel": cells[0].kernel,
        "last/kernel": last.kernel,
    }.items():
        layer = Bridgeout(model, 0.5, weights=name)
        layer.build((None, 5, 3))
        ((variable, _),) = layer.draw()
        assert variable is weight


class Block(L.Layer):
    """Wrappers in wrappers and in a list, and a layer that is inside by two ways."""

    def __init__(self):
        super().__init__()
        wide = L.Dense(3, name="wide")
        self.first = Bridgeout(L.TimeDistributed(wide), 0.1)
        self.second = Shakeout(Bridgeout(L.Dense(3, name="wide"), 0.1), 0.1, 0.1)
        self.both = [Bridgeout(L.Dense(3), 0.1), Bridgeout(L.Dense(3), 0.1)]
        self.other = L.TimeDistributed(wide)

    def call(self, x):
        x = self.second(self.other(self.first(x)))
        return self.both[1](self.both[0](x))


@pytest.fixture(scope="module")
def block():
    block = Block()
    block(np.ones((2, 4, 3), "float32"))
    return block


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("kernel", 4),
        ("layer/kernel", 4),
        ("layer/layer/kernel", 2),
        ("layer/layer/layer/kernel", 0),
        ("first/layer/layer/kernel", 1),
        ("other/layer/kernel", 1),
        ("wide/kernel", 2),
        ("both/0/layer/kernel", 1),
        ("0/layer/kernel", 1),
        ("oth/0/layer/kernel", 0),
    ],
)
def test_a_name_is_the_end_of_any_path(block, name, number):
    if number:
        found = weight_lookup.find_weights(block, (name,))
        assert len(found) == number
    else:
        with pytest.raises(ValueError, match="`weights` must be names"):
            weight_lookup.find_weights(block, (name,))


def test_a_weight_is_found_once_by_whatever_ways(block):
    layer = Bridgeout(block, 0.5)
    drawn = layer.draw()
    assert len({id(variable) for variable, _ in drawn}) == len(drawn) == 4


@pytest.mark.parametrize(
    ("weights", "shown", "remedy"),
    [
        ("recurent_kernel", "kernel, recurrent_kernel", "mean 'recurrent_kernel'?"),
        ("embeddings", "kernel, recurrent_kernel", "example weights=('kernel',)."),
        (("kernel", "biass"), "bias", "mean 'bias'?"),
        ("call/kernel", "bias", "mean 'kernel'?"),
    ],
)
@pytest.mark.parametrize("built", [False, True])
def test_a_weight_that_is_not_there_is_named_with_those_that_are(
    weights, shown, remedy, built
):
    layer = L.LSTM(3)
    if built:
        layer.build((2, 3, 3))
    names = (weights,) if isinstance(weights, str) else weights
    with pytest.raises(ValueError, match="`weights` must be names") as error:
        Bridgeout(layer, 0.5, weights=weights).build((2, 3, 3))
    message = str(error.value)
    assert f"Received: weights={names!r} for layer 'lstm" in message
    assert shown in message
    assert message.endswith(remedy)


def test_where_a_name_is_not_enough_paths_are_shown():
    layer = Bridgeout(L.Bidirectional(L.LSTM(3)), 0.5, weights="forward_layer/kernel")
    with pytest.raises(ValueError, match="forward_layer/cell/recurrent_") as error:
        layer(np.ones((2, 3, 3), "float32"))
    assert str(error.value).endswith("Did you mean 'forward_layer/cell/kernel'?")
