"""What `sparsify` refuses, and how it says so."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as kl
from keras import ops
from sparsified import gated, normal

from keras_sparseout import sparsify
from keras_sparseout.models.thresholds.sparsification import Sparsification

X = normal(50, 16)


class Own(keras.Model):
    """A subclassed model."""

    def __init__(self):
        super().__init__()
        self.dense = kl.Dense(2)

    def call(self, inputs):
        """Returns the outputs of its layer."""
        return self.dense(inputs)


def quantized():
    model = gated(8)
    model.quantize("int8", filters="head|third")
    return model


def broken():
    model = gated(8)
    model.get_layer("second").bias.assign([np.nan] * 8)
    return model


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "Either `target` or `budget` must be given.*target=None, budget=None"),
        ({"target": 0.5, "budget": 0.5}, "Received: target=0.5, budget=0.5"),
        ({"target": 1.0}, "`target` must be a number >= 0 and < 1.*target=1.0"),
        ({"target": -0.1}, "`target` must be a number >= 0 and < 1"),
        ({"target": {"head": 2}}, "`target` must be .*It stands at 'head'"),
        ({"target": {}}, "`target` must be a number or a dict with at least one"),
        ({"target": {3: 0.5}}, "`target` must be a dict whose keys are layers"),
        ({"target": {"heads": 0.5}}, "keys of `target` must be .*mean 'head'"),
        (
            {"target": {"h.*": 0.5, re.compile("ea"): 0.6}},
            "one share for each layer.*'h\\.\\*' and 'ea' match 'head'.*0.5, 0.6",
        ),
        ({"target": {"head": 0.5}, "layers": "head"}, "`layers` must be left out"),
        ({"budget": 0}, "`budget` must be a number > 0 and <= 1"),
        ({"budget": 1.5}, "`budget` must be a number > 0 and <= 1.*budget=1.5"),
        ({"budget": True}, "`budget` must be"),
        ({"target": 0.5, "layers": "nothing"}, "'nothing', which is not among them"),
        ({"target": 0.5, "layers": []}, "`layers` must be a list of at least one"),
        ({"target": 0.5, "where": "input"}, '`where` must be "before" or "after"'),
        ({"target": 0.5, "where": "after"}, "must name the layers if `where`"),
        ({"target": 0.5, "axis": 1}, "`axis` must be None, .*or -1"),
        ({"target": 0.5, "centre": "mean"}, "`centre` must be None, for 0, or"),
        ({"target": 0.5, "return_table": 1}, "`return_table` must be True or False"),
        ({"target": 0.5, "batch_size": 0}, "`batch_size` must be an integer >= 1"),
        ({"target": 0.5, "metrics": ["mse"]}, "`y` must be given with `metrics`"),
        ({"target": 0.5, "y": X[:, :3]}, "`metrics` must be given with `y` if"),
        (
            {"target": 0.5, "y": X[:9], "metrics": ["mse"]},
            "`y` must have a label for each of the 50 samples.*length 9",
        ),
        (
            {"target": 0.5, "y": [1] * 50, "metrics": ["mse"]},
            r"`y` must be an array.*list with numbers in it. Give numpy\.asarray",
        ),
    ],
)
def test_arguments(options, says):
    with pytest.raises(ValueError, match=says):
        sparsify(gated(8), X, **options)


def test_labels_and_metrics_that_do_not_fit_raise_before_the_work(monkeypatch):
    monkeypatch.setattr(Sparsification, "reach_targets", None)
    with pytest.raises(ValueError, match="metric identifier: acuracy"):
        sparsify(gated(8), X, 0.5, y=X[:, :3], metrics="acuracy")


class Unlabelled(keras.utils.PyDataset):
    """A batch with None for labels, as `fit` allows."""

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return X, None


def test_none_in_a_data_set_is_no_label():
    model = gated(8)
    model.compile(loss="mse")
    with pytest.raises(ValueError, match="`y` must be given with `metrics`"):
        sparsify(model, Unlabelled(), 0.5, metrics="mse")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: kl.Dense(3), "`model` must be a Keras model"),
        (Own, "functional or Sequential model.*Own, a subclassed model"),
        (quantized, "must not be quantized.*third, head"),
        (broken, "must have finite weights.*layer 'second' are not finite"),
    ],
)
def test_models(make, says):
    model = make()
    with pytest.raises(ValueError, match=says):
        sparsify(model, X, 0.5)


@pytest.mark.onednn
def test_data_that_lead_to_nan():
    x = X.copy()
    x[7, 2] = np.nan
    model = gated(8)
    # In the outputs of a ReLU no NaN may be left.
    model.get_layer("first").activation = keras.activations.relu
    with pytest.raises(ValueError, match="NaN or infinity comes to 'first'"):
        sparsify(model, x, 0.5)
    inputs = keras.Input((16,))
    root = kl.Lambda(ops.sqrt, name="root")(kl.Dense(8, name="d")(inputs))
    model = keras.Model(inputs, kl.Dense(2, name="after")(root))
    with pytest.raises(ValueError, match="NaN or infinity comes to 'after'"):
        sparsify(model, X, 0.5)
    model = keras.Model(inputs, root)
    with pytest.raises(ValueError, match="NaN or infinity comes to 'root'"):
        sparsify(model, X, 0.5, layers="root", where="after")


@pytest.mark.parametrize(
    ("x", "options", "says"),
    [
        (X[:1], {}, "at least 2 samples, .*Received: x with 1"),
        (X[:0], {}, "at least one sample"),
        (X[:3], {"target": 0.9, "axis": -1}, "at least 11 samples for target=0.9"),
        (X[:, :9], {}, "shape of the model's inputs"),
        (tf.data.Dataset.from_tensor_slices(X).batch(9), {"y": X}, "`y` must be left"),
        (
            tf.data.Dataset.from_tensor_slices(X[:1]).batch(9),
            {"budget": 0.9, "target": None},
            "at least 2 samples",
        ),
    ],
)
def test_data(x, options, says):
    with pytest.raises(ValueError, match=says):
        sparsify(gated(8), x, **{"target": 0.5, **options})


def test_layers_without_floating_point_activations():
    inputs = keras.Input((4,), dtype="int32")
    x = kl.Embedding(9, 8, name="table")(inputs)
    x = kl.Dense(2, name="head")(kl.Flatten(name="flat")(x))
    model = keras.Model(inputs, kl.Lambda(lambda x: ops.argmax(x, -1), name="most")(x))
    ids = np.arange(20).reshape(5, 4) % 9
    for layers, where, says in (
        ("table", "before", "that take floating-point numbers. Received: table with"),
        ("most", "after", "that return floating-point numbers. Received: most with"),
    ):
        with pytest.raises(ValueError, match=says):
            sparsify(model, ids, 0.5, layers=layers, where=where)


def test_models_without_a_place():
    model = keras.Sequential([keras.Input((16,)), kl.Dense(2, name="only")])
    with pytest.raises(ValueError, match=r"must name the layers.*data .*go in: only"):
        sparsify(model, X, 0.5)


def test_layers_in_code_that_cannot_be_changed():
    inputs = keras.Input((4, 16))
    x = kl.MultiHeadAttention(2, 4, name="attention")(inputs, inputs)
    model = keras.Model(inputs, kl.Dense(2)(x))
    x = normal(9, 4, 16)
    with pytest.raises(ValueError, match=r"attention/query.*called by 'attention'"):
        sparsify(model, x, 0.5, layers="attention/query")
    lstm = keras.Sequential([keras.Input((4, 16)), kl.LSTM(4, name="lstm")])
    with pytest.raises(ValueError, match="inside an RNN cell"):
        sparsify(lstm, x, 0.5, layers="lstm/lstm_cell")


def test_a_layer_that_is_called_on_two_widths_has_one_threshold():
    x, relu = keras.Input((16,)), kl.ReLU(name="both")
    y = relu(kl.Dense(4)(relu(kl.Dense(6)(x))))
    model = keras.Model(x, kl.Dense(2)(y))
    with pytest.raises(ValueError, match="layer 'both', called on 4 and 6"):
        sparsify(model, X, 0.5, layers="both", where="after", axis=-1)
