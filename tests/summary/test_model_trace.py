"""Which products come next after the activations of a layer, and which calls count."""

import keras
import numpy as np
import pytest
from channels import ChannelsFirst
from counted import count, rectified, rows
from keras import layers as kl
from tracked import X

from keras_sparseout import activation_sparsity


def test_several_next_layers_are_weighted_by_their_products():
    inputs = keras.Input((4,))
    relu = kl.ReLU(name="relu")(inputs)
    shifted = kl.Rescaling(1.0, offset=1.0, name="shifted")(relu)
    outputs = [kl.Dense(3)(relu), kl.Dense(9)(shifted)]
    x = rectified(20, 4)
    table = activation_sparsity(keras.Model(inputs, outputs), x)
    share = np.mean(x == 0)
    assert rows(table)["relu"]["needless_macs"] == pytest.approx(share * 3 / 12)
    assert rows(table)["shifted"]["needless_macs"] == 0
    assert table.macs == 48


def test_the_next_layer_is_not_one_behind_other_products():
    model = keras.Sequential(
        [
            keras.Input((6, 4)),
            kl.ReLU(name="a"),
            kl.EinsumDense("abc,cd->abd", output_shape=(None, 3), name="einsum"),
            kl.ReLU(name="b"),
            kl.LSTM(5, name="lstm"),
            kl.Dense(2, name="head"),
        ]
    )
    table = activation_sparsity(model, X)
    of = rows(table)
    assert of["a"]["needless_macs"] == pytest.approx(np.mean(X <= 0))
    zeros = of["b"]["zeros"]
    assert 0 < zeros < 1
    for name in ("einsum", "b"):
        assert of[name]["needless_macs"] == pytest.approx(zeros)
    assert of["lstm"]["needless_macs"] == 0
    assert of["head"]["needless_macs"] is None
    assert table.notes == [
        "Not read, since not called, or in an RNN cell, a loop or a tf.function of its "
        "own: lstm/lstm_cell."
    ]


def test_the_next_layer_is_not_one_that_looks_up_the_largest_activation():
    inputs = keras.Input((4,))
    codes = keras.ops.argmax(kl.ReLU(name="relu")(inputs), axis=-1)
    embedded = kl.Embedding(4, 3, embeddings_initializer="zeros", name="e")(codes)
    table = activation_sparsity(keras.Model(inputs, kl.Dense(2)(embedded)), X[:, 0])
    shares = [row["needless_macs"] for row in table.rows]
    assert shares == [None, 1, None]


class Residual(keras.Model):
    """One ReLU for all, a branch, and layers in a list."""

    def __init__(self):
        super().__init__()
        self.relu = kl.ReLU(name="relu")
        self.steps = [kl.Dense(4, name="first"), kl.Dense(6, name="second")]
        self.unused = kl.Dense(3, name="unused")
        self.unused.build((None, 4))

    def call(self, x):
        x = x + self.relu(self.steps[0](x))
        return self.relu(self.steps[1](x))


def test_a_subclassed_model_with_a_layer_called_on_different_sizes():
    model = Residual()
    table = activation_sparsity(model, X)
    listed = [(row["layer"], row["shape"]) for row in table.rows]
    assert sorted(listed) == [
        ("first", (6, 4)),
        ("relu", (6, 4)),
        ("relu", (6, 6)),
        ("second", (6, 6)),
    ]
    assert table.notes == [
        "Not read, since not called, or in an RNN cell, a loop or a tf.function of its "
        "own: unused."
    ]


def test_calls_of_one_size_count_together():
    shared, inputs = kl.Dense(4, activation="relu", name="shared"), keras.Input((4,))
    model = keras.Model(inputs, shared(shared(inputs)))
    x = rectified(20, 4)
    table = activation_sparsity(model, x)
    once, twice = shared(x).numpy(), shared(shared(x)).numpy()
    assert table.notes == ["shared is called 2 times, all of which count."]
    row = rows(table)["shared"]
    assert row["zeros"] == pytest.approx(np.mean([once == 0, twice == 0]))
    # The second call alone is next to a row.
    assert row["needless_macs"] == pytest.approx(np.mean(once == 0))
    assert table.macs == 32


@pytest.mark.onednn
def test_channels_first_convolutions_are_counted_along_their_own_axes():
    model = keras.Sequential(
        [
            keras.Input((2, 7, 4)),
            kl.ReLU(name="relu"),
            ChannelsFirst(5, 3, activation="relu", name="conv"),
            ChannelsFirst(1, 1, name="head"),
        ]
    )
    x = rectified(3, 2, 7, 4)
    table = activation_sparsity(model, x)
    needless, total = count(np.moveaxis(x, 1, -1), 3, 1, 1, "valid")
    assert rows(table)["relu"]["needless_macs"] == pytest.approx(needless / total)
    conv = rows(table)["conv"]
    assert conv["shape"] == (5, 2, 5)
    assert conv["needless_macs"] == pytest.approx(conv["zeros"])


def test_quantized_layers_are_read():
    model = keras.Sequential(
        [
            keras.Input((4,)),
            kl.Dense(8, activation="relu", name="hidden"),
            kl.Dense(2, name="head"),
        ]
    )
    for layer in model.layers:
        layer.quantize("int8")
    x = rectified(9, 4)
    table = activation_sparsity(model, x)
    zeros = np.mean(model.layers[0](x) == 0)
    assert list(rows(table)) == ["hidden", "head"]
    assert rows(table)["hidden"]["needless_macs"] == pytest.approx(zeros)
    assert rows(table)["hidden"]["zeros"] == pytest.approx(zeros)
    assert table.macs == 4 * 8 + 8 * 2
    assert not any("quantized_call" in vars(layer) for layer in model.layers)
