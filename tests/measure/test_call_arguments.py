"""The input of a layer is read the same, however its call gives the arguments."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as L

from keras_sparseout.layers.bridgeout import Bridgeout
from keras_sparseout.measure import call_arguments
from keras_sparseout.measure.batch_statistics import BatchStatistics
from keras_sparseout.measure.hooks import Hooks
from keras_sparseout.measure.watched_layer import WatchedLayer

X = np.random.default_rng(0).normal(size=(4, 3, 2)).astype("float32")
MASK = np.array([[1, 1, 0]] * 4, bool)


class Weighted(L.Layer):
    """Takes its input after a keyword, as calls in user code do."""

    def call(self, x, mask=None, factor=1.0):
        return factor * x


class Anything(L.Layer):
    """Names none of its arguments."""

    def call(self, *args, **kwargs):
        return (args or list(kwargs.values()))[0]


class Compiled(L.Layer):
    @tf.function
    def call(self, x, factor=1.0):
        return factor * x


@pytest.mark.parametrize(
    ("layer", "name", "others"),
    [
        (L.Dense(2), "inputs", {"training": False}),
        (L.LSTM(2), "sequences", {"mask": MASK}),
        (Weighted(), "x", {"factor": 2.0}),
        (Compiled(), "x", {"factor": 2.0}),
        (Bridgeout(L.LSTM(2), 0.5), "sequences", {"training": False}),
        (Anything(), "x", {}),
    ],
)
def test_the_input_is_the_first_argument_of_call(layer, name, others):
    kwargs = {**others, name: X}
    assert call_arguments.first(layer, (), kwargs) is X
    assert call_arguments.first(layer, (X,), others) is X
    args, changed = call_arguments.with_first(layer, lambda x: [x], (), kwargs)
    assert (args, changed) == ((), {**others, name: [X]})
    args, changed = call_arguments.with_first(layer, lambda x: [x], (X,), others)
    assert (args, changed) == (([X],), others)
    for args, changed in (((), kwargs), ((X,), others)):
        found = call_arguments.first_by_place(layer, args, changed)
        assert found[0][0] is X
        assert found[1] == others


def test_a_call_may_leave_the_first_argument_out():
    class Either(L.Layer):
        def call(self, a=None, b=None, training=False):
            return a if b is None else b

    kwargs = {"training": False, "b": X}
    assert call_arguments.first(Either(), (), kwargs) is X
    assert call_arguments.first(Either(), (), {}) is None
    assert call_arguments.with_first(Either(), list, (), {}) == ((), {})


def test_an_argument_is_found_by_place_and_by_name():
    layer = L.LSTM(2)
    assert call_arguments.named(layer, "mask", (X, None, MASK), {}) is MASK
    assert call_arguments.named(layer, "mask", (X,), {"mask": MASK}) is MASK
    assert call_arguments.named(Weighted(), "mask", (X, MASK), {}) is MASK
    assert call_arguments.named(Anything(), "mask", (X,), {"mask": MASK}) is MASK
    assert call_arguments.named(L.Dense(2), "mask", (X,), {}) is None
    wrapper = Bridgeout(layer, 0.5)
    assert call_arguments.named(wrapper, "mask", (X, None, MASK), {}) is MASK


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((X,), {"mask": MASK}),
        ((X, MASK), {"factor": 2.0}),
        ((), {"mask": MASK, "factor": 2.0, "x": X}),
    ],
)
@pytest.mark.parametrize("wrap", [lambda layer: layer, lambda y: Bridgeout(y, 0.0)])
def test_hooks_read_the_input_and_its_mask(wrap, args, kwargs):
    layer, seen = Weighted(), []
    layer.supports_masking = True
    layer.kernel = layer.add_weight(name="kernel")
    layer = wrap(layer)
    watched = [WatchedLayer("a", layer, side, False) for side in ("input", "output")]
    with Hooks(watched, lambda *found: seen.append(found)):
        layer(*args, **kwargs)
    np.testing.assert_array_equal(seen[0][1], X)
    for _, _, mask in seen:
        np.testing.assert_array_equal(mask, MASK)


def test_statistics_of_batches_know_inputs_and_masks_by_any_name():
    found = []
    for args, kwargs in (((X,), {"mask": MASK}), ((), {"mask": MASK, "inputs": X})):
        x = keras.Input((3, 2))
        layer = L.BatchNormalization(name="norm")
        args = tuple(x if a is X else a for a in args)
        kwargs = {key: x if a is X else a for key, a in kwargs.items()}
        model = keras.Model(x, layer(*args, **kwargs))
        found.append(BatchStatistics(model).measure([X])["norm"])
    np.testing.assert_allclose(found[0].mean, X[:, :2].mean((0, 1)), rtol=1e-5)
    np.testing.assert_array_equal(found[0].mean, found[1].mean)
