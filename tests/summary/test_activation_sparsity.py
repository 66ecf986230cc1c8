"""The table of a model's activations, and the products that zeros make needless."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from counted import behind_a_relu, count, rectified, rows
from keras import layers as kl
from tracked import X, small_model

from keras_sparseout import activation_sparsity, metrics


def test_dense_layers_count_each_input_for_each_unit():
    x = rectified(5, 3, 4)
    share, table = behind_a_relu(kl.Dense(7), (3, 4), x)
    assert (share, table.macs) == (pytest.approx(np.mean(x == 0)), 84)
    assert table.effective_macs == pytest.approx(84 * np.mean(x != 0))


def test_figures_are_those_of_the_metrics_over_all_batches():
    inputs = keras.Input((8, 8, 3))
    conv = kl.Conv2D(6, 3, activation="relu", name="conv")(inputs)
    flat = kl.Flatten(name="flat")(kl.MaxPooling2D(name="pool")(conv))
    dense = kl.Dense(5, activation="relu", name="dense")(flat)
    model = keras.Model(inputs, kl.Dense(1, name="head")(dense))
    x = np.random.default_rng(0).normal(size=(30, 8, 8, 3)).astype("float32")
    table = rows(activation_sparsity(model, x, batch_size=7))
    assert list(table) == ["conv", "pool", "flat", "dense", "head"]
    seen = {n: keras.Model(inputs, model.get_layer(n).output)(x).numpy() for n in table}
    for name, activations in seen.items():
        row = table[name]
        each = metrics.Hoyer(), metrics.ZeroFraction()
        for metric in each:
            metric.update_state(activations)
        hoyer, zeros = (float(m.result()) for m in each)
        assert row["hoyer"] == pytest.approx(hoyer, rel=1e-5, nan_ok=True)
        assert row["zeros"] == pytest.approx(zeros)
        assert row["dead"] == pytest.approx(float(metrics.dead_units(activations)))
        assert row["rms"] == pytest.approx(float(metrics.rms(activations)), rel=1e-5)
        assert row["shape"] == activations.shape[1:]
        assert row["kind"] == type(model.get_layer(name)).__name__
    share = np.mean(seen["flat"] == 0)
    assert [table[n]["needless_macs"] for n in ("conv", "pool", "flat")] == (
        pytest.approx([share] * 3)
    )
    assert table["dense"]["needless_macs"] == pytest.approx(np.mean(seen["dense"] == 0))
    assert table["head"]["needless_macs"] is None
    whole = rows(activation_sparsity(model, x, axis=None, layers="conv"))
    hoyer = metrics.hoyer(seen["conv"].reshape(30, -1)).mean()
    assert list(whole) == ["conv"]
    assert whole["conv"]["hoyer"] == pytest.approx(float(hoyer), rel=1e-5)


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


def test_layers_inside_others_go_by_their_path_and_containers_are_left_out():
    encoder = keras.Sequential(small_model().layers[:-1], name="encoder")
    model = keras.Sequential([keras.Input((6, 4)), encoder, kl.Dense(1, name="head")])
    table = activation_sparsity(model, X)
    names = list(rows(table))
    assert "encoder" not in names
    assert {"encoder/first", "encoder/second", "head"} < set(names)
    second = rows(table)["encoder/second"]
    assert second["needless_macs"] == pytest.approx(second["zeros"])
    assert "encoder" in rows(activation_sparsity(model, X, layers=["encoder", "head"]))


@pytest.mark.parametrize("lengths", [(5, 8, 8), (5, 1, 3)])
def test_layers_whose_number_of_units_varies_are_left_out_and_said(lengths):
    def batches():
        for length in lengths:
            yield rectified(2, length, 4, seed=length)

    data = tf.data.Dataset.from_generator(
        batches, output_signature=tf.TensorSpec((None, None, 4))
    )
    model = keras.Sequential(
        [
            keras.Input((None, 4)),
            kl.ReLU(name="relu"),
            kl.Permute((2, 1), name="turned"),
        ]
    )
    table = activation_sparsity(model, data)
    assert list(rows(table)) == ["relu"]
    zeros = np.mean([np.mean(x == 0, (1, 2)) for x in batches()])
    assert rows(table)["relu"]["zeros"] == pytest.approx(zeros)
    assert table.notes == [
        "Left out, since their number of units varies between batches: turned."
    ]
    with pytest.raises(ValueError, match=r"one number of units.*Received: turned"):
        activation_sparsity(model, data, layers="turned")


def test_an_activation_that_is_a_layer_does_not_hide_the_dense_layer():
    model = keras.Sequential(
        [keras.Input((4,)), kl.Dense(3, activation=kl.ReLU(name="act"), name="dense")]
    )
    assert list(rows(activation_sparsity(model, rectified(5, 4)))) == [
        "dense",
        "dense/act",
    ]


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
    table = activation_sparsity(model, data)
    assert rows(table)["joined"]["needless_macs"] == pytest.approx(share)
    assert table.macs == 7 * 2 + 4


def test_preprocessing_layers_of_other_types_are_skipped():
    text = kl.TextVectorization(max_tokens=9)
    text.adapt(["a b c", "a b"])
    model = keras.Sequential(
        [
            keras.Input((), dtype="string"),
            text,
            kl.Embedding(9, 4, name="embedding"),
            kl.GlobalAveragePooling1D(name="mean"),
            kl.Dense(1, name="head"),
        ]
    )
    x = np.array(["a b", "c", "b b a"], object)
    table = activation_sparsity(model, x, batch_size=2)
    assert list(rows(table)) == ["embedding", "mean", "head"]
    assert rows(table)["embedding"]["shape"] == (None, 4)
    with pytest.raises(ValueError, match=r"floating-point.*int64 of shape.*Leave it"):
        activation_sparsity(model, x, layers=kl.TextVectorization)


def test_half_precision_counts_alike():
    x, tables = rectified(2, 9, 7, 3), []
    for dtype in ("float32", "mixed_float16"):
        layer = kl.DepthwiseConv2D(3, strides=2, dtype=dtype)
        tables.append(behind_a_relu(layer, (9, 7, 3), x))
    assert tables[0][0] == tables[1][0]
    assert tables[0][1].macs == tables[1][1].macs


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


class ChannelsFirst(kl.Conv2D):
    """Conv2D of data in channels_first, which TensorFlow has not on each CPU."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, data_format="channels_first", **kwargs)

    def convolution_op(self, inputs, kernel):
        outputs = keras.ops.conv(
            keras.ops.moveaxis(inputs, 1, -1), kernel, data_format="channels_last"
        )
        return keras.ops.moveaxis(outputs, -1, 1)


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


def test_a_large_model_is_read_and_stays_as_it_was():
    x = inputs = keras.Input((16, 16, 3))
    for block in range(5):  # As a MobileNet has them.
        if block == 2:
            x = kl.ZeroPadding2D(name="pad")(x)
        x = kl.DepthwiseConv2D(3, padding="valid" if block == 2 else "same")(x)
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


@pytest.mark.onednn
def test_nan_shows_in_the_row_and_a_note():
    model = keras.Sequential([keras.Input((4,)), kl.ReLU(name="relu"), kl.Dense(2)])
    x = rectified(5, 4)
    x[0, 0] = np.nan
    # What a ReLU makes of NaN is up to TensorFlow.
    table = activation_sparsity(model, x, layers=["relu"], where="input")
    assert math.isnan(rows(table)["relu"]["hoyer"])
    assert math.isnan(rows(table)["relu"]["rms"])
    assert table.notes == ["NaN or infinity among the activations of: relu."]


class Idle(kl.Layer):
    """It has layers that it does not call."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.idle = [kl.ReLU(name=f"{i}") for i in range(12)]

    def call(self, x):
        return x


def test_lines_below_the_table_name_a_few_layers():
    inputs = keras.Input((3,))
    x = Idle(name="idle")(inputs)
    model = keras.Model(inputs, [kl.Dense(2, name=f"used_{i}")(x) for i in range(12)])
    table = activation_sparsity(model, np.full((4, 3), np.inf, "float32"))
    used = ", ".join(f"used_{i}" for i in range(7))
    idle = ", ".join(f"idle/{i}" for i in range(8))
    assert [note.split(": ")[1] for note in table.notes] == [
        f"idle, {used} and 5 more.",
        f"{idle} and 4 more.",
    ]


def test_the_side_can_be_chosen():
    model = keras.Sequential([keras.Input((4,)), kl.ReLU(), kl.Dense(2, name="dense")])
    x = rectified(5, 4)
    row = rows(activation_sparsity(model, x, layers="dense", where="input"))["dense"]
    assert row["zeros"] == row["needless_macs"] == pytest.approx(np.mean(x == 0))


def test_a_bar_shows_only_for_many_batches(capsys):
    model = small_model()
    activation_sparsity(model, X, batch_size=4)
    activation_sparsity(model, X, batch_size=2, verbose=0)
    assert capsys.readouterr().out == ""
    activation_sparsity(model, X, batch_size=2)
    assert "35/" in capsys.readouterr().out


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
