"""What the tests of mc_predict share: models, and a NumPy reference of the noise."""

import keras
import numpy as np

from keras_sparseout.measure import layer_selection
from keras_sparseout.utils import counter_hash

X = np.random.default_rng(0).normal(size=(7, 3, 8)).astype("float32")


@keras.saving.register_keras_serializable("tests")
class InTraining(keras.layers.Layer):
    """Adds 1000 in training, so that the outputs show in which mode it was."""

    def call(self, x, training=False):
        return x + 1000.0 if training else x


def seeds(seed, batch, sample, number):
    """Returns where each of `number` generators starts a sample of a batch."""
    sequence = np.random.SeedSequence(seed, spawn_key=(batch, sample))
    return sequence.generate_state(2 * number).reshape(number, 2).astype("int64")


def sparseout(x, rate, q, pair, epsilon=1e-7):
    """Sparseout in NumPy."""
    threshold = round(rate * 2**32)
    keep = counter_hash.bits(x.shape, pair) >= threshold
    xi = keep / (1 - threshold / 2**32) - 1
    return x * (1 + (np.abs(x) + epsilon) ** ((q - 2) / 2) * xi)


def states(model):
    """Returns copies of all variables."""
    return [v.numpy().copy() for v in model.variables]


def assert_untouched(model, before):
    for old, new in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(old, new.numpy())
    names = {"call", "quantized_call", "get_recurrent_dropout_mask"}
    for layer in every_layer(model):
        assert not names & set(vars(layer)), layer.name
    assert model.losses == []


def every_layer(model):
    return [model, *(w.layer for w in layer_selection.all_layers(model))]
