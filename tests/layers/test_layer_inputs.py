"""Tensors as arguments, keywords of Keras 2, ragged and sparse inputs, and `repr`."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_sparseout as ks

L = keras.layers
MAKERS = {
    "Sparseout": lambda **k: ks.Sparseout(**{"rate": 0.5, **k}),
    "SpatialSparseout1D": lambda **k: ks.SpatialSparseout1D(**{"rate": 0.5, **k}),
    "SpatialSparseout2D": lambda **k: ks.SpatialSparseout2D(**{"rate": 0.5, **k}),
    "SpatialSparseout3D": lambda **k: ks.SpatialSparseout3D(**{"rate": 0.5, **k}),
    "ActivationPenalty": lambda **k: ks.ActivationPenalty(**{"weight": 0.5, **k}),
    "TargetSparsity": lambda **k: ks.TargetSparsity(**{"target": 0.5, **k}),
    "SparseoutCellWrapper": lambda **k: ks.SparseoutCellWrapper(L.GRUCell(3), **k),
    "Bridgeout": lambda **k: ks.Bridgeout(L.Dense(3), **{"rate": 0.5, **k}),
    "Shakeout": lambda **k: ks.Shakeout(L.Dense(3), **{"rate": 0.5, "c": 0.1, **k}),
}
every_layer = pytest.mark.parametrize("name", MAKERS)
TENSORS = {
    "tf.Variable": lambda: tf.Variable(0.5),
    "keras.Variable": lambda: keras.Variable(0.5),
    "tf.Tensor": lambda: tf.constant(0.5),
    "KerasTensor": lambda: keras.KerasTensor(()),
}


def test_all_layers_are_tried():
    public = [getattr(ks, name) for name in ks.__all__]
    layers = [c for c in public if isinstance(c, type) and issubclass(c, L.Layer)]
    assert {c.__name__ for c in layers} == set(MAKERS)


@every_layer
@pytest.mark.parametrize("tensor", TENSORS)
def test_a_tensor_as_a_knob_is_told_of_adjustable(name, tensor):
    value = TENSORS[tensor]()
    adjustable = MAKERS[name](adjustable=True)
    for knob in adjustable.knobs:
        before = getattr(adjustable, knob)
        for assign in (
            lambda knob=knob: MAKERS[name](**{knob: value}),
            lambda knob=knob: setattr(adjustable, knob, value),
        ):
            with pytest.raises(ValueError, match=f"`{knob}` must be") as error:
                assign()
            assert str(error.value).endswith(
                f"Received: {knob}={value!r}. Give its value as a number. To change it "
                "while training, make the layer with adjustable=True and assign "
                f"numbers to layer.{knob}."
            )
        assert getattr(adjustable, knob) == before


@every_layer
def test_what_is_no_tensor_has_the_remedy_of_the_knob(name):
    for knob in MAKERS[name]().knobs:
        for value in ("0.5", None, np.array(0.5)):
            with pytest.raises(ValueError, match=f"`{knob}` must be") as error:
                MAKERS[name](**{knob: value})
            assert "adjustable" not in str(error.value)


@every_layer
@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("batch_input_shape", (None, 4)),
        ("batch_size", 32),
        ("input_length", 10),
        ("input_dtype", "float32"),
    ],
)
def test_keywords_of_keras_2_are_told_of_input(name, keyword, value):
    with pytest.raises(ValueError, match=f"`{keyword}` is no argument of {name}"):
        MAKERS[name](**{keyword: value})
    with pytest.raises(ValueError, match=r"begin the model with keras.Input\(shape,"):
        MAKERS[name](**{keyword: value})


@pytest.mark.parametrize(
    ("keyword", "value"), [("input_dim", 4), ("input_shape", (4,))]
)
def test_those_that_dropout_takes_are_taken_as_by_dropout(keyword, value):
    models = []
    for layer in (L.Dropout, ks.Sparseout):
        with pytest.warns(UserWarning, match="prefer using an `Input"):
            first = layer(0.5, **{keyword: value})
        models.append(keras.Sequential([first, L.Dense(2)]))
    assert [model.input_shape for model in models] == [(None, 4)] * 2


SHAPES = {
    "Sparseout": (2, 3),
    "SpatialSparseout1D": (2, 3, 4),
    "SpatialSparseout2D": (2, 3, 4, 5),
    "SpatialSparseout3D": (2, 3, 4, 5, 6),
    "ActivationPenalty": (2, 3),
    "TargetSparsity": (2, 3),
}


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("training", [False, True])
def test_ragged_and_sparse_inputs_are_named(name, training):
    ones = tf.ones(SHAPES[name])
    given = {
        "ragged": (tf.RaggedTensor.from_tensor(ones), "inputs.to_tensor()"),
        "sparse": (tf.sparse.from_dense(ones), "tf.sparse.to_dense(inputs)"),
    }
    for kind, (inputs, remedy) in given.items():
        symbolic = keras.Input(SHAPES[name][1:], ragged=True)
        for x in (inputs, symbolic) if kind == "ragged" else (inputs,):
            layer = MAKERS[name]()
            call = {"training": training} if name != "ActivationPenalty" else {}
            with pytest.raises(ValueError, match="`inputs` must be a dense") as error:
                layer(x, **call)
            assert f"kind {kind}, of shape {tuple(x.shape)}" in str(error.value)
            assert remedy in str(error.value)
            assert not layer.losses
    # The remedy works.
    MAKERS[name]()(given["ragged"][0].to_tensor())
    MAKERS[name]()(tf.sparse.to_dense(given["sparse"][0]))


@pytest.mark.parametrize("name", SHAPES)
def test_dense_inputs_that_keras_marks_as_sparse_are_taken(name):
    x = keras.Input(SHAPES[name][1:])
    scaled = x * 2.0
    assert scaled.sparse
    model = keras.Model(x, MAKERS[name]()(scaled))
    assert not model.output.sparse
    inputs = np.ones(SHAPES[name], "float32")
    np.testing.assert_array_equal(model.predict(inputs, verbose=0), 2 * inputs)


@pytest.mark.parametrize("mask", [None, np.ones((2, 3), "bool")])
def test_so_they_are_by_the_function(mask):
    x = tf.ones((2, 3))
    for kind, given, remedy in (
        ("ragged", tf.RaggedTensor.from_tensor(x), "x.to_tensor(), and"),
        ("ragged", tf.ragged.constant([[1.0, 2.0], [3.0]]), "x.to_tensor(), and"),
        ("sparse", tf.sparse.from_dense(x), "tf.sparse.to_dense(x)"),
    ):
        with pytest.raises(ValueError, match="`x` must be a dense tensor") as error:
            ks.ops.sparseout(given, 0.5, mask=mask)
        assert f"Received: x of kind {kind}" in str(error.value)
        assert str(error.value).endswith(
            f"with {remedy}"
            + (" keras.layers.Masking after it." if kind == "ragged" else ".")
        )


@every_layer
@pytest.mark.parametrize("adjustable", [False, True])
def test_repr_shows_the_knobs(name, adjustable):
    layer = MAKERS[name](name="hidden", adjustable=adjustable)
    shown = "".join(f"{knob}={getattr(layer, knob):g}, " for knob in layer.knobs)
    expected = f"<{name} {shown}name=hidden, built={layer.built}>"
    assert repr(layer) == str(layer) == expected
    assert f"[{expected}]" == str([layer])


def test_repr_shows_what_was_assigned_in_traced_code_too():
    layer = ks.Sparseout(0.3, 1.5, adjustable=True, name="hidden")
    layer.rate = 0.1
    shown = []

    def call(x):
        shown.append(repr(layer))
        return layer(x, training=True)

    tf.function(call)(np.ones((2, 3), "float32"))
    with tf.Graph().as_default():
        shown.append(repr(layer))
    assert shown == [
        "<Sparseout rate=0.1, q=1.5, name=hidden, built=True>",
        # There a variable has no value.
        "<Sparseout name=hidden, built=True>",
    ]


def test_repr_is_safe_while_a_layer_is_made():
    shown = []

    class Showing(ks.Sparseout):
        def __setattr__(self, name, value):
            super().__setattr__(name, value)
            if name in ("_knobs", "_rate"):
                shown.append(repr(self))

    Showing(0.5, 1.5, adjustable=True, name="a")
    assert shown == [
        "<Showing name=a, built=False>",
        "<Showing rate=0.5, name=a, built=False>",
    ]
