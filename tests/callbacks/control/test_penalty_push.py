"""What a push adds to the gradient is the gradient of the same penalty as a layer."""

import keras
import numpy as np
import pytest
from pushed import (
    WEIGHT,
    Pushing,
    assert_same,
    penalized,
    updates,
    weights,
)

from keras_sparseout import ActivationPenalty
from keras_sparseout.callbacks.control.penalty_push import SILENT
from keras_sparseout.models import insert

L = keras.layers
RNG = np.random.default_rng(0)
X = RNG.normal(size=(16, 5)).astype("float32")
Y = RNG.normal(size=(16, 3)).astype("float32")
IDS = RNG.integers(0, 6, (16, 7))
IMAGES = RNG.normal(size=(16, 4, 3, 3)).astype("float32")


def dense(activation="relu", dtype=None):
    keras.utils.set_random_seed(1)
    hidden = L.Dense(9, activation, name="hidden", dtype=dtype)
    return keras.Sequential([keras.Input((5,)), hidden, L.Dense(3, dtype=dtype)])


def masked():
    """The third output of a LSTM has a mask; its states are outputs too."""
    inputs = keras.Input((7,))
    x = L.Embedding(6, 4, mask_zero=True)(inputs)
    x, _, state = L.LSTM(6, return_sequences=True, return_state=True, name="hidden")(x)
    x = L.GlobalAveragePooling1D()(x)
    return keras.Model(inputs, L.Dense(3)(L.Concatenate()([x, state])))


def channels_first():
    inputs = keras.Input((4, 3, 3))
    x = L.Permute((3, 1, 2))(L.Dense(3, "relu")(inputs))
    pad = L.ZeroPadding2D(1, data_format="channels_first", name="hidden")
    return keras.Model(inputs, L.Dense(3)(L.Flatten()(L.Permute((2, 3, 1))(pad(x)))))


def shared():
    inputs = keras.Input((5,))
    hidden = L.Dense(5, "relu", name="hidden")
    return keras.Model(inputs, L.Dense(3)(hidden(hidden(inputs))))


def nested():
    inner = keras.Sequential([keras.Input((5,)), L.Dense(9, "relu")], name="hidden")
    inputs = keras.Input((5,))
    return keras.Model(inputs, L.Dense(3)(inner(inputs)))


PLACES = {
    "relu": (dense, X),
    "gelu": (lambda: dense("gelu"), X),
    "float64": (lambda: dense("tanh", "float64"), X),
    "masked, with states": (masked, IDS),
    "channels first": (channels_first, IMAGES),
    "shared": (shared, X),
    "nested": (nested, X),
}


def silent_length(model, x):
    layer = model.get_layer("hidden")
    first = keras.tree.flatten(layer.output)[0]
    a = np.asarray(keras.Model(model.inputs[0], first)(x))
    if getattr(layer, "data_format", "") == "channels_first":
        a = np.moveaxis(a, 1, -1)
    squares = np.square(a.astype("float64")).sum(-1)
    if x is IDS:
        squares = squares[x != 0]
    return float(SILENT * np.sqrt(squares.mean()))


def reference_of(model, place, kind, epsilon):
    if place != "channels first":
        return penalized(model, "hidden", kind, epsilon)

    def last(_):
        penalty = ActivationPenalty(WEIGHT, kind, epsilon=epsilon)
        return keras.Sequential([L.Permute((2, 3, 1)), penalty, L.Permute((3, 1, 2))])

    return insert(model, {"hidden": last})


# A shared layer has two lengths.
@pytest.mark.parametrize(
    ("place", "kind"),
    [(place, "l1") for place in PLACES]
    + [(place, "hoyer_square") for place in PLACES if place != "shared"],
)
def test_a_push_is_the_gradient_of_the_penalty_in_its_place(place, kind):
    make, x = PLACES[place]
    keras.utils.set_random_seed(1)
    model = make()
    reference = reference_of(model, place, kind, silent_length(model, x))
    for m in (model, reference):
        m.compile(keras.optimizers.SGD(0.5), "mse", jit_compile=False)
    plain = keras.models.clone_model(model)
    plain.set_weights(weights(model))
    plain.compile(keras.optimizers.SGD(0.5), "mse", jit_compile=False)
    options = {"batch_size": 16, "verbose": 0, "shuffle": False}
    pushed = updates(
        model, lambda: model.fit(x, Y, callbacks=[Pushing("hidden", kind)], **options)
    )
    by_layer = updates(reference, lambda: reference.fit(x, Y, **options))
    without = updates(plain, lambda: plain.fit(x, Y, **options))
    assert_same(pushed, by_layer)
    with pytest.raises(AssertionError):
        assert_same(pushed, without, rtol=0.01)
    assert not model.losses
