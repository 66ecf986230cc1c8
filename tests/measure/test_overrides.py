"""Functions around methods of layers, beside hooks on the same layers."""

import threading

import keras
import numpy as np
import pytest

from keras_sparseout.measure.hooks import Hooks, Overrides
from keras_sparseout.measure.watched_layer import WatchedLayer

X = np.ones((2, 3), "float32")


def doubled(call, *args, **kwargs):
    return 2 * call(*args, **kwargs)


def increased(call, *args, **kwargs):
    return 1 + call(*args, **kwargs)


@pytest.mark.parametrize("first", ["hooks", "overrides"])
def test_hooks_and_overrides_come_and_go_in_any_order(first):
    layer, seen = keras.layers.Identity(), []
    contexts = [
        Hooks([WatchedLayer("a", layer, "output", False)], lambda *a: seen.append(a)),
        Overrides([(layer, "call", doubled)]),
    ]
    if first == "overrides":
        contexts.reverse()
    for context in contexts:
        context.__enter__()
    np.testing.assert_array_equal(layer(X), 2 * X)
    np.testing.assert_array_equal(seen[0][1], 2 * X)
    contexts[0].__exit__()
    np.testing.assert_array_equal(layer(X), X if first == "overrides" else 2 * X)
    contexts[1].__exit__()
    assert "call" not in vars(layer)
    np.testing.assert_array_equal(layer(X), X)


def test_the_last_one_is_outermost_and_other_threads_have_none():
    layer, found = keras.layers.Identity(), []
    mine = [(layer, "call", doubled), (layer, "compute_output_shape", increased)]
    with Overrides(mine), Overrides([(layer, "call", increased)]):
        np.testing.assert_array_equal(layer(X), 2 * X + 1)
        thread = threading.Thread(target=lambda: found.append(layer(X)))
        thread.start()
        thread.join()
    np.testing.assert_array_equal(found[0], X)
    assert not {"call", "compute_output_shape"} & set(vars(layer))


def failing(call, *args, **kwargs):
    raise ArithmeticError


def test_a_method_that_a_layer_has_of_its_own_comes_back():
    layer = keras.layers.Identity()
    own = layer.call = lambda x: 3 * x
    with Overrides([(layer, "call", doubled)]):
        np.testing.assert_array_equal(layer(X), 6 * X)
    with pytest.raises(ArithmeticError), Overrides([(layer, "call", failing)]):
        layer(X)
    assert layer.call is own
