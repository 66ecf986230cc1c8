"""What share of a model's multiply-accumulates the zeros of its layers save."""

import keras
import numpy as np
import pytest
from keras import layers as kl

from keras_sparseout import activation_sparsity
from keras_sparseout.callbacks import knobs
from keras_sparseout.callbacks.control.macs_reader import MacsReader

X = np.random.default_rng(0).normal(size=(32, 6, 6, 1)).astype("float32")
X[:, :2] = 0


@pytest.fixture(scope="module")
def found():
    """A model with all that may come between zeros and products, and its reader."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 6, 1))
    x = kl.Conv2D(4, 3, padding="same", activation="relu", name="pooled")(inputs)
    x = kl.Dropout(0.5)(kl.MaxPooling2D()(x))
    y = kl.ReLU(name="shortcut")(kl.Conv2D(4, 3, padding="same", name="conv")(x))
    y = kl.Conv2D(4, 1, name="inner")(y) + y
    y = kl.ReLU(name="sum")(y)
    y = kl.Dense(5, "relu", name="last")(kl.Flatten(name="flat")(y))
    y = kl.Dense(2, name="head")(kl.BatchNormalization()(y))
    model = keras.Model(inputs, y)
    reader = MacsReader(model, knobs.layers_to_push(model, None))
    return model, reader, reader.shares(X)


def test_shares_are_of_the_products_that_come_next(found):
    _, _, shares = found
    first, conv, inner, last, head = 4 * 16 * 16, 4 * 4 * 7 * 7, 9 * 16, 36 * 5, 10
    total = first + conv + inner + last + head
    # Not behind the next of them: a shortcut leads there, but not only it.
    wanted = {"pooled": conv, "shortcut": inner, "sum": last, "last": 0}
    wanted = {name: products / total for name, products in wanted.items()}
    assert shares.of_layers == pytest.approx(wanted)
    # Of 16 readings of a row of the images, 2 and 3 are of the empty ones.
    assert shares.most == pytest.approx(sum(wanted.values()) + first * 5 / 16 / total)


def test_counts_are_those_of_activation_sparsity(found):
    model, reader, shares = found
    table = activation_sparsity(model, X, verbose=0)
    needless = 1 - table.effective_macs / table.macs
    counted = sum(p.share * p.needless for p in shares.products)
    assert shares.rest + counted == pytest.approx(needless)
    assert reader.measure([X[:12], X[12:]]) == pytest.approx(needless)


def test_products_are_read_before_noise(found):
    _, _, shares = found
    places = {p.layer.name: (p.place.name, p.place.side) for p in shares.products}
    assert places["conv"] == ("max_pooling2d", "output")
    assert places["last"] == ("sum", "output")
    assert places["pooled"] == ("pooled", "input")
