"""Which layers a tracker finds, how it names them, and what it can't read."""

import re

import batched
import keras
import pytest
import tensorflow as tf
from tracked import X, Y, small_model

from keras_sparseout import Sparseout, SparsityTracker
from keras_sparseout.measure import layer_selection


def fit(model, *callbacks, run_eagerly=True):
    """Trains eagerly: most of these tests are about names, and tracing takes time."""
    model.compile("sgd", "mse", run_eagerly=run_eagerly)
    batched.fit(model, X[:8], Y[:8], verbose=0, callbacks=list(callbacks))


class Block(keras.layers.Layer):
    """Layers in a list of a custom layer: `model.layers` does not show them."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.steps = [
            keras.layers.Dense(4, "relu"),
            Sparseout(0.3, name="drop", jit_compile=False),
        ]

    def build(self, input_shape):
        for step in self.steps:
            step.build(input_shape)

    def call(self, x, training=False):
        for step in self.steps:
            x = step(x, training=training) if isinstance(step, Sparseout) else step(x)
        return x


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.block = Block(name="block")
        self.flatten = keras.layers.Flatten()
        self.head = keras.layers.Dense(1)

    def call(self, x, training=False):
        return self.head(self.flatten(self.block(x, training=training)))


def test_without_sparseout_layers_it_watches_nonlinear_activations():
    inputs = keras.Input((6, 4))
    x = keras.layers.Dense(8, activation="relu", name="a")(inputs)
    x = keras.layers.ReLU(name="b")(keras.layers.Dense(8, name="linear")(x))
    x = keras.layers.Activation("tanh", name="c")(x)
    x = keras.layers.LSTM(3, name="d")(x)
    model = keras.Model(inputs, keras.layers.Dense(1, name="head")(x))
    tracker = SparsityTracker(X)
    fit(model, tracker)
    watched = {key.split("/")[1] for key in tracker.history if "/" in key}
    assert watched == {"a", "b", "c", "d"}


@pytest.mark.parametrize("probe", [None, X])
def test_parts_that_a_layer_may_go_without_are_not_watched_by_default(probe):
    inputs = keras.Input((6, 4))
    # Its Softmax is not called: there is a faster way.
    x = keras.layers.MultiHeadAttention(2, 3)(inputs, inputs)
    x = keras.layers.TimeDistributed(keras.layers.Dense(5, "relu"), name="each")(x)
    x = keras.layers.Dense(3, "relu", name="a")(x)
    outputs = keras.layers.Dense(1)(keras.layers.Flatten()(x))
    tracker = SparsityTracker(probe)
    # A graph shows which layers attention calls.
    fit(keras.Model(inputs, outputs), tracker, run_eagerly=False)
    watched = {key.split("/", 1)[1] for key in tracker.history if "/" in key}
    assert watched == {"each", "a"}


def test_an_expression_for_all_layers_leaves_out_those_that_stand_for_inputs():
    inputs = keras.Input((6, 4), name="in")
    outputs = keras.layers.Dense(1, name="out")(keras.layers.Flatten(name="f")(inputs))
    tracker = SparsityTracker(layers=".*", metrics="rms")
    fit(keras.Model(inputs, outputs), tracker)
    assert set(tracker.history) == {"epoch", "rms", "rms/f", "rms/out"}


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("nested", {"encoder/first", "encoder/second"}),
        ("subclassed", {"block/drop"}),
        ("nested functional", {"encoder/inner/layer"}),
        ("not built", {"first", "second"}),
    ],
)
def test_layers_inside_others_go_by_their_path(kind, names):
    if kind == "subclassed":
        model = Subclassed()
    elif kind == "not built":
        model = keras.Sequential(small_model().layers)
    elif kind == "nested":
        encoder = keras.Sequential(small_model().layers[:-1], name="encoder")
        model = keras.Sequential([keras.Input((6, 4)), encoder, keras.layers.Dense(1)])
    else:
        inner_in = keras.Input((24,))
        inner = keras.Model(
            inner_in,
            Sparseout(0.5, name="layer", jit_compile=False)(inner_in),
            name="inner",
        )
        encoder_in = keras.Input((6, 4))
        encoder = keras.Model(
            encoder_in, inner(keras.layers.Flatten()(encoder_in)), name="encoder"
        )
        inputs = keras.Input((6, 4))
        model = keras.Model(inputs, keras.layers.Dense(1)(encoder(inputs)))
    tracker = SparsityTracker(X)
    fit(model, tracker)
    assert {k.split("/", 1)[1] for k in tracker.history if "/" in k} == names


def test_layers_in_odd_attributes_are_found_once():
    class Odd(keras.layers.Layer):
        def __init__(self, parent, **kwargs):
            super().__init__(**kwargs)
            # Keys that can't be sorted, and ways back to where one came from.
            dense = keras.layers.Dense(4, "relu", name="dense")
            self.parts = {1: dense, "a": [Sparseout(0.3, name="drop")], None: dense}
            vars(self)["parent"] = parent
            vars(self)["round"] = around = [dense]
            around.append({"again": around})

        def call(self, x):
            return self.parts["a"][0](self.parts[1](x))

    model = keras.Sequential(name="model")
    model.add(odd := Odd(model, name="odd"))
    vars(odd.parts[1])["parent"] = odd
    assert [w.name for w in layer_selection.all_layers(model)] == [
        "odd",
        "odd/dense",
        "odd/drop",
    ]
    model.add(keras.layers.Flatten())
    model.add(keras.layers.Dense(1))
    fit(model, tracker := SparsityTracker(verbose=0))
    assert "hoyer/odd/drop" in tracker.history


def test_one_layer_needs_no_list():
    for kind in (str, keras.layers.Layer):
        model = small_model()
        layer = "second" if kind is str else model.get_layer("second")
        tracker = SparsityTracker(X, layers=layer, metrics="hoyer")
        fit(model, tracker)
        assert set(tracker.history) == {"epoch", "val_hoyer", "val_hoyer/second"}


@pytest.mark.parametrize(
    ("layers", "names"),
    [
        (["first|sec.*"], ["first", "second"]),
        # A string is to match a whole name, a compiled expression a part of it.
        ([re.compile("ir|con")], ["first", "second"]),
        ([Sparseout], ["first", "second"]),
        ([keras.layers.Flatten, "second"], ["flat", "second"]),
        (["a+b"], ["a+b"]),
    ],
)
def test_layers_may_be_chosen_by_expression_or_type(layers, names):
    model = small_model()
    model.layers[2].name = "flat"
    model.layers[0].name = "a+b"
    assert [w.name for w in layer_selection.select(model, layers)] == names


@pytest.mark.parametrize(
    ("layers", "says"),
    [
        (["fist"], r"layers='fist'.*Did you mean 'first'\? .*first, .*second"),
        (["irs"], r"layers='irs', which is not among them"),
        (["fi(rst"], r"layers='fi\(rst'.*Did you mean 'first'\?"),
        ([re.compile("third")], r"layers='third'.*Name others\. .*first, .*second"),
        ([keras.layers.Conv2D], r"layers='Conv2D', which is not among"),
        ([Sparseout(0.5, name="alien")], r"layers='alien', which is not among"),
        (["relu6"], r"types or activations\. .*Did you mean 'relu'\?"),
        (["sparseot"], r"Did you mean 'sparseout'\?"),
        (["Dens"], r"Did you mean 'dense'\?"),
    ],
)
def test_near_misses_say_what_is_there(layers, says):
    with pytest.raises(ValueError, match=says):
        layer_selection.select(small_model(), layers)


def test_layers_can_be_named_or_given(capsys):
    model = small_model()
    # One of them twice, which counts once.
    layers = [model.get_layer("second"), "first", model.layers[0], "second"]
    tracker = SparsityTracker(X, layers=layers, metrics="hoyer")
    fit(model, tracker)
    names = {key.split("/")[1] for key in tracker.history if "/" in key}
    assert names == {"first", "second", model.layers[0].name}
    assert "the inputs of second, first and the output of dense" in (
        capsys.readouterr().out
    )


def test_two_layers_of_one_name_keep_apart():
    class Twins(keras.Model):
        def __init__(self):
            super().__init__()
            options = {"name": "twin", "jit_compile": False}
            self.twins = [Sparseout(0.5, **options), Sparseout(0.5, **options)]
            self.flatten, self.head = keras.layers.Flatten(), keras.layers.Dense(1)

        def call(self, x, training=False):
            for twin in self.twins:
                x = twin(x, training=training)
            return self.head(self.flatten(x))

    tracker = SparsityTracker(X)
    fit(Twins(), tracker)
    assert {"val_hoyer/twin", "val_hoyer/twin_1"} < set(tracker.history)


def test_a_shared_layer_counts_all_its_calls(capsys):
    shared = Sparseout(0.5, name="shared", jit_compile=False)
    inputs = keras.Input((6, 4))
    zeros = keras.layers.Rescaling(0.0)(inputs)
    outputs = keras.layers.Concatenate()([shared(inputs), shared(zeros)])
    outputs = keras.layers.Dense(1)(keras.layers.Flatten()(outputs))
    tracker = SparsityTracker(X, metrics="zero_fraction")
    fit(keras.Model(inputs, outputs), tracker)
    assert tracker.history["val_zero_fraction"][0] == pytest.approx(0.5)
    assert "called in each step shared 2 times" in capsys.readouterr().out


def test_hooks_are_gone_after_training_and_after_an_error():
    model = small_model()
    fit(model, SparsityTracker(X), SparsityTracker())
    assert not any("call" in vars(layer) for layer in model.layers)

    def failing(x):
        raise RuntimeError("no figure")

    with pytest.raises(RuntimeError, match="no figure"):
        fit(model, SparsityTracker(X, metrics=failing))
    assert not any("call" in vars(layer) for layer in model.layers)


class CellWithSparseout(keras.layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.state_size = 4
        self.drop = Sparseout(0.5, name="drop", jit_compile=False)

    def build(self, input_shape):
        self.drop.build(input_shape)

    def call(self, x, states, training=False):
        x = self.drop(x, training=training) + states[0]
        return x, [x]


class WithOwnFunction(Subclassed):
    @tf.function
    def call(self, x, training=False):
        return super().call(x, training=training)


def test_layers_that_cannot_be_read_are_an_error_that_names_them():
    in_cell = keras.Sequential(
        [
            keras.Input((6, 4)),
            keras.layers.RNN(CellWithSparseout(name="cell"), name="rnn"),
            keras.layers.Dense(1),
        ]
    )
    for model, name in ((in_cell, "rnn/cell/drop"), (WithOwnFunction(), "block/drop")):
        with pytest.raises(ValueError, match="`layers` must be given, since") as error:
            fit(model, SparsityTracker(X))
        assert f"Received: layers=None, for {name}" in str(error.value)


def test_layers_that_are_not_there_say_what_is():
    with pytest.raises(ValueError, match=r"Received: layers='third'.*first.*second"):
        fit(small_model(), SparsityTracker(X, layers=["third"]))
    linear = keras.Sequential(
        [keras.Input((6, 4)), keras.layers.Flatten(), keras.layers.Dense(1, name="out")]
    )
    with pytest.raises(ValueError, match=r"`layers` must name.*flatten.*out"):
        fit(linear, SparsityTracker(X))
