"""One call gives the table of a model, and changes nothing in it."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from counted import rectified, rows
from keras import layers as kl
from tracked import X, small_model

from keras_sparseout import activation_sparsity


@pytest.mark.parametrize("form", ["dict", "tuple", "dataset"])
def test_several_inputs_and_outputs(form):
    a, b = keras.Input((4,), name="a"), keras.Input((3,), name="b")
    joined = kl.Concatenate(name="joined")([a, b])
    outputs = [kl.Dense(2, name="one")(joined), kl.Dense(1, name="two")(a)]
    model = keras.Model([a, b], outputs)
    data = (rectified(9, 4), rectified(9, 3, seed=1))
    share = np.mean(np.concatenate(data, 1) == 0)
    if form == "dict":
        model = keras.Model({"a": a, "b": b}, outputs)
        data = {"a": data[0], "b": data[1]}
    elif form == "dataset":
        data = tf.data.Dataset.from_tensor_slices((data, np.zeros(9))).batch(4)
    table = activation_sparsity(model, data, layers="joined")
    assert rows(table)["joined"]["needless_macs"] == pytest.approx(share)
    assert table.macs == 7 * 2 + 4


def test_a_large_model_is_read_and_stays_as_it_was():
    x = inputs = keras.Input((16, 16, 3))
    for block in range(2):  # As a MobileNet has them.
        if block == 1:
            x = kl.ZeroPadding2D(name="pad")(x)
        x = kl.DepthwiseConv2D(3, padding="valid" if block == 1 else "same")(x)
        x = kl.ReLU(6.0)(kl.BatchNormalization()(x))
        x = kl.Conv2D(4, 1, use_bias=False)(x)
        x = kl.ReLU(6.0)(kl.BatchNormalization()(x))
    outputs = kl.Dense(9, "softmax")(kl.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, outputs)
    before = [w.copy() for w in model.get_weights()]
    table = activation_sparsity(model, rectified(2, 16, 16, 3))
    assert len(table.rows) == len(model.layers) - 1
    row = rows(table)["pad"]
    assert row["needless_macs"] == pytest.approx(row["zeros"], abs=0.1)
    assert str(table).splitlines()[-2].endswith(" %)")
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert not any("call" in vars(layer) for layer in model.layers)


def test_it_leaves_seeds_and_recurrent_states_alone():
    class Noisy(kl.Layer):
        def __init__(self):
            super().__init__()
            self.generator = keras.random.SeedGenerator(1)

        def call(self, x):
            return x + keras.random.normal(keras.ops.shape(x), seed=self.generator)

    model = keras.Sequential(
        [keras.Input((6, 4), batch_size=10), Noisy(), kl.GRU(3, stateful=True)]
    )
    before = [np.array(v) for v in model.variables]
    activation_sparsity(model, X, batch_size=10)
    for old, new in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(old, np.array(new))


def test_printing_and_the_dataframe():
    pd = pytest.importorskip("pandas")
    model = keras.Sequential(
        [
            keras.Input((1000,)),
            kl.ReLU(name="relu"),
            kl.Dense(4000, kernel_initializer="zeros", name="dead"),
            kl.Dense(1, name="head"),
        ]
    )
    x = np.ones((4, 1000), "float32")
    x[:, 500:] = 0
    table = activation_sparsity(model, x)
    assert str(table).splitlines() == [
        "layer  kind   shape    hoyer  zeros   dead    rms  needless_macs",
        "relu   ReLU   (1000,)  0.302  0.500  0.500  0.707          0.500",
        "dead   Dense  (4000,)    nan  1.000  1.000      0          1.000",
        "head   Dense  (1,)       nan  1.000  1.000      0              -",
        "2.0 M of 4.0 M multiply-accumulates a sample are effective (50 %)",
    ]
    frame = table.to_dataframe()
    assert isinstance(frame, pd.DataFrame)
    assert list(frame.columns) == list(table.rows[0])
    assert list(frame["layer"]) == ["relu", "dead", "head"]
    assert frame["needless_macs"].dtype == float
    assert math.isnan(frame["needless_macs"][2])


def test_a_bar_shows_only_for_many_batches(capsys):
    model = keras.Sequential([keras.Input((6, 4)), kl.ReLU()])
    activation_sparsity(model, X[:20], batch_size=1)
    activation_sparsity(model, X[:21], batch_size=1, verbose=0)
    assert capsys.readouterr().out == ""
    activation_sparsity(model, X[:21], batch_size=1)
    assert "21/" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": None}, r"`model` must be a Keras model\. Received: model=None"),
        ({"x": X[:0]}, "`x` must hold at least one sample"),
        ({"x": X[:, :3]}, "`x` must have the shape of the model's inputs"),
        ({"layers": "densee"}, "`layers` must be layers of the model"),
        ({"layers": []}, "`layers` must be a list of at least one"),
        ({"layers": "lstm/lstm_cell"}, r"layers=\['lstm/lstm_cell'\]"),
        ({"where": "inside"}, '`where` must be "input", "output" or None'),
        ({"axis": 1}, "`axis` must be -1"),
        ({"batch_size": 0}, "`batch_size` must be an integer >= 1"),
        ({"steps": 0}, "`steps` must be an integer >= 1"),
    ],
)
def test_errors(options, message):
    model = keras.Sequential([keras.Input((6, 4)), kl.LSTM(3, name="lstm")])
    arguments = {"model": model, "x": X, **options}
    with pytest.raises(ValueError, match=message):
        activation_sparsity(arguments.pop("model"), arguments.pop("x"), **arguments)


def test_eager_functions_are_refused():
    tf.config.run_functions_eagerly(True)
    try:
        with pytest.raises(RuntimeError, match="run_functions_eagerly"):
            activation_sparsity(small_model(), X)
    finally:
        tf.config.run_functions_eagerly(False)
