"""Models of many kinds to change, and what must hold of what becomes of them."""

import keras
import numpy as np
from keras import layers as L

from keras_sparseout.measure import layer_selection

RNG = np.random.default_rng(0)
X = RNG.normal(size=(4, 8)).astype("float32")
SEQUENCES = RNG.normal(size=(4, 6, 8)).astype("float32")
IMAGES = RNG.normal(size=(2, 16, 16, 3)).astype("float32")
IDS = np.array([[1, 2, 0, 0], [3, 4, 5, 0]])


def outputs(model, x):
    """What a model returns, as a list of float32 arrays."""
    found = keras.tree.flatten(model(x))
    return [np.asarray(keras.ops.cast(y, "float32")) for y in found]


def assert_same_outputs(old, new, x):
    for before, after in zip(outputs(old, x), outputs(new, x), strict=True):
        np.testing.assert_array_equal(before, after)


def layers_in(model):
    """All layers in a model, by their paths."""
    return {w.name: w.layer for w in layer_selection.all_layers(model)}


def connections(model):
    """How often each layer was called, and its output used: nothing may add to it."""
    return [
        (len(layer._inbound_nodes), len(layer._outbound_nodes))
        for layer in layers_in(model).values()
    ]


def sequential():
    layers = [L.Dense(6, "relu", name="hidden"), L.BatchNormalization(), L.Dense(2)]
    return keras.Sequential([keras.Input((8,)), *layers])


def two_inputs():
    """A nested model that is called twice, operations, and outputs by name."""
    inner = keras.Sequential(
        [keras.Input((8,)), L.Dense(8, "relu", name="hidden"), L.Dense(8, name="last")],
        name="inner",
    )
    a, b = keras.Input((8,), name="a"), keras.Input((8,), name="b")
    x, y = inner(a), inner(b)
    shared = L.Dense(3, name="shared")
    both = shared(keras.ops.relu(x + y) * 2.0)
    return keras.Model({"a": a, "b": b}, {"both": both, "one": [shared(x)]})


def nested_thrice():
    x = keras.Input((8,))
    inner = two_inputs()
    y = inner({"a": x, "b": x})["both"]
    return keras.Sequential([keras.Model(x, L.Dense(2)(y), name="middle")])


def u_net():
    x = keras.Input((16, 16, 3))
    first = L.Conv2D(4, 3, padding="same", activation="relu", name="first")(x)
    y = L.Conv2D(6, 3, padding="same", name="second")(L.MaxPooling2D()(first))
    y = L.PReLU(shared_axes=[1, 2])(L.BatchNormalization()(y))
    y = L.Conv2DTranspose(4, 3, strides=2, padding="same", name="up")(y)
    return keras.Model(x, L.Conv2D(2, 1, name="out")(L.Concatenate()([y, first])))


def masked():
    x = keras.Input((None,), dtype="int32")
    y = L.Embedding(10, 8, mask_zero=True, name="table")(x)
    y, h, _ = L.LSTM(5, return_sequences=True, return_state=True, name="lstm")(y)
    return keras.Model(x, L.Dense(2)(L.GRU(5, name="gru")(y, initial_state=h)))


def masked_sequential():
    return keras.Sequential(
        [
            keras.Input((None,), dtype="int32"),
            L.Embedding(10, 8, mask_zero=True, name="table"),
            L.Bidirectional(L.LSTM(3), name="both"),
            L.Dense(2, name="out"),
        ]
    )


def attention():
    query, value = keras.Input((6, 8)), keras.Input((5, 8))
    mask = keras.Input((6, 5), dtype="bool")
    attend = L.MultiHeadAttention(2, 4, name="attention")
    y = attend(query, value, attention_mask=mask)
    return keras.Model(
        [query, value, mask], L.LayerNormalization(name="norm")(y + query)
    )


def encoder(*layers):
    """Attention takes masks away when it is called, where Keras has noted them."""
    ids = keras.Input((None,), dtype="int32")
    x = L.Embedding(10, 8, mask_zero=True, name="table")(ids)
    x = L.Add()([x, L.MultiHeadAttention(2, 4)(x, x)])
    x = L.LayerNormalization(name="norm")(x)
    for layer in layers:
        x = layer(x)
    y = L.Dense(8, "relu", name="hidden")(x)
    return keras.Model(ids, L.MultiHeadAttention(2, 4)(query=y, value=x))


def in_time():
    inner = [keras.Input((8,)), L.Dense(4, "relu", name="hidden"), L.Dense(3)]
    time = L.TimeDistributed(keras.Sequential(inner, name="inner"), name="time")
    return keras.Sequential([keras.Input((6, 8)), L.Masking(), time, L.LSTM(3)])


def preprocessed():
    statistics = L.Normalization()
    statistics.adapt(X)
    x, words = keras.Input((8,)), keras.Input((), dtype="string")
    lookup = L.StringLookup(name="lookup")
    lookup.adapt(["a", "b", "a"])
    y = L.Embedding(4, 8, name="table")(lookup(words)) + statistics(x)
    return keras.Model([x, words], L.Lambda(lambda y: y * 2)(y))


MASK = RNG.random((4, 6, 5)) > 0.3
# Each with its inputs, and with names of places to insert at.
MODELS = {
    "sequential": (sequential, X, ["relu", "dense.*"]),
    "two inputs": (two_inputs, {"a": X, "b": X[::-1]}, ["inner/hidden", "shared"]),
    "nested thrice": (nested_thrice, X, [".*/inner/hidden", ".*/shared", "middle"]),
    "U-Net": (u_net, IMAGES, ["first", "up", "out"]),
    "masked": (masked, IDS, ["table", "lstm"]),
    "masked Sequential": (masked_sequential, IDS, ["table", "both"]),
    "attention": (
        attention,
        [SEQUENCES, SEQUENCES[:, :5], MASK],
        ["attention", "norm"],
    ),
    "in time": (in_time, SEQUENCES, [".*/hidden", "time"]),
    "preprocessed": (
        preprocessed,
        [*map(keras.ops.convert_to_tensor, (X, ["a", "b", "c", "a"]))],
        ["table", "lambda.*"],
    ),
}
