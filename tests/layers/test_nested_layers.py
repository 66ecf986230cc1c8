"""Which layers are directly inside a layer, and by what names."""

import keras
import numpy as np
import pytest

from keras_sparseout import Sparseout, SparseoutScheduler
from keras_sparseout.layers.nested_layers import children, held_by
from keras_sparseout.layers.weight_lookup import find_weights


class Holder(keras.layers.Layer):
    """Holds a Sparseout layer in a way that `hold` decides, and calls it."""

    def __init__(self, hold, drop, **kwargs):
        super().__init__(**kwargs)
        self.dense = keras.layers.Dense(4, name="dense")
        self.drop_of = hold(self, drop)

    def call(self, x):
        return self.drop_of()(self.dense(x))


def in_default(layer, drop):
    layer.drops = {}
    layer.drops.setdefault("a", drop)
    return lambda: layer.drops["a"]


def in_list_of_dict(layer, drop):
    layer.drops = {}
    layer.drops["a"] = []
    layer.drops["a"].append(drop)
    return lambda: layer.drops["a"][0]


def in_inner_list(layer, drop):
    layer.drops = []
    layer.drops.append([])
    layer.drops[0].append(drop)
    return lambda: layer.drops[0][0]


def untracked(layer, drop):
    vars(layer)["drops"] = ({"a": drop},)
    return lambda: layer.drops[0]["a"]


HOLDS = [in_default, in_list_of_dict, in_inner_list, untracked]


@pytest.mark.parametrize("hold", HOLDS)
def test_layers_that_keras_does_not_track_are_found_and_moved(hold):
    drop = Sparseout(0.5, q=1.5, adjustable=True, name="drop", jit_compile=False)
    holder = Holder(hold, drop, name="holder")
    assert [child.name for child, _ in children(holder)] == ["dense", "drop"]
    model = keras.Sequential([keras.Input((4,)), holder])
    model.compile("sgd", "mse", run_eagerly=True)
    scheduler = SparseoutScheduler(rate=lambda step: 0.25, verbose=0)
    model.fit(np.ones((2, 4)), np.ones((2, 4)), verbose=0, callbacks=[scheduler])
    assert drop.rate == 0.25


@pytest.mark.parametrize("hold", HOLDS)
def test_weights_that_keras_does_not_track_get_no_noise(hold):
    hidden = keras.layers.Dense(4, name="hidden")
    holder = Holder(hold, hidden, name="holder")
    holder.call(np.ones((1, 4)))
    assert [w.owner for w in find_weights(holder, None)] == [holder.dense]
    assert len(hidden.weights) == 2


def test_names_are_the_ways_to_a_layer():
    layer = keras.layers.Layer(name="outer")
    first, second = (keras.layers.Dense(2, name=name) for name in ("one", "two"))
    layer.cells = [first, second]
    layer.best = second
    layer.branches = {"left": [first]}
    vars(layer)["around"] = around = [first]
    around.append(around)
    names = {child.name: names for child, names in children(layer)}
    assert names == {
        "one": ["cells/0", "branches/left/0", "around/0", "one"],
        "two": ["cells/1", "best", "two"],
    }


def test_objects_are_found_in_what_is_found():
    dense = keras.layers.Dense(2)
    inner = keras.Sequential(
        [Holder(lambda owner, drop: [drop], Sparseout(0.5)), dense]
    )
    layer = keras.layers.TimeDistributed(inner)
    found = held_by(layer, keras.layers.Layer)
    assert {type(each) for each in found} == {
        *(keras.Sequential, Holder, Sparseout, keras.layers.Dense)
    }
    assert sum(each is dense for each in found) == 1
    closed = held_by(layer, keras.layers.Layer, closed=(Holder,))
    assert not any(isinstance(each, Sparseout) for each in closed)
