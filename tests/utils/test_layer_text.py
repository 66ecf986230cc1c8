"""Layers as text: that the text evaluates to an equal layer."""

import json

import keras
import numpy as np
import pytest

import keras_sparseout as ks
from keras_sparseout.utils.layer_text import call_of

L = keras.layers
NAMES = {"keras": keras} | {name: getattr(ks, name) for name in ks.__all__}


@keras.saving.register_keras_serializable("tests_calls")
class Own(L.Layer):
    """A layer that has no name in `keras`."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.kernel = self.add_weight(shape=(units, units), name="kernel")

    def call(self, x):
        return x @ self.kernel

    def get_config(self):
        return {**super().get_config(), "units": self.units}


def config(layer):
    """The config of a layer, as of a constant one."""
    plain = json.loads(json.dumps(layer.get_config()))
    return {**plain, "adjustable": False}


def assert_evaluates(layer):
    text = call_of(layer)
    made = eval(text, NAMES)
    assert type(made) is type(layer)
    assert config(made) == config(layer)
    assert call_of(made) == text
    assert not made.adjustable


# Each argument away from its default, those that are 0 or False among them.
EVERY = {
    "seed": [0, 7],
    "epsilon": [1e-12, 0.125],
    "stop_gradient": [False],
    "adjustable": [True],
    "trainable": [False],
    "name": ["a'b", "noise_1"],
}
DTYPES = {"dtype": ["mixed_float16", "float64"]}
COMPILED = {
    **{**EVERY, **DTYPES, "jit_compile": [False, True]},
    "target_fraction": [0.75, 0],
}
FORMATS = {**COMPILED, "data_format": ["channels_first"]}
# For layers that have all but their rank from SpatialSparseout2D.
SEEDED = {"seed": EVERY["seed"], "jit_compile": [False]}
SHAPED = {"noise_shape": [(None, 1), (1,)], "q": [0, 0.0, 3]}
LAYERS = {
    "Sparseout": (lambda **k: ks.Sparseout(0.3, **k), {**COMPILED, **SHAPED}),
    "SpatialSparseout1D": (lambda **k: ks.SpatialSparseout1D(0.3, **k), SEEDED),
    "SpatialSparseout2D": (lambda **k: ks.SpatialSparseout2D(0.3, **k), FORMATS),
    "SpatialSparseout3D": (lambda **k: ks.SpatialSparseout3D(1, **k), SEEDED),
    "ActivationPenalty": (
        lambda **k: ks.ActivationPenalty(1e-3, **k),
        {
            **{name: EVERY[name] for name in ("epsilon", "trainable", "adjustable")},
            **{"kind": ["tar", "hoyer_square"], **DTYPES},
        },
    ),
    "TargetSparsity": (
        lambda **k: ks.TargetSparsity(0.5, **k),
        {
            **{name: EVERY[name] for name in ("trainable", "adjustable", "name")},
            **{"axis": [-1], "centre": ["mode"], "add_back": [False], "soft": [True]},
            **{"straight_through": [True], "momentum": [0.0, 0.9], **DTYPES},
        },
    ),
    "SparseoutCellWrapper": (
        lambda **k: ks.SparseoutCellWrapper(L.LSTMCell(3, name="cell"), **k),
        {
            **EVERY,
            "rate": [0.5],
            "recurrent_rate": [0.5],
            "q": [0],
            "dtype": ["float32"],
        },
    ),
    "Bridgeout": (
        lambda **k: ks.Bridgeout(L.Dense(3, name="dense"), 0.3, **k),
        {
            **{**EVERY, **SHAPED, "weights": [("kernel",), "kernel"]},
            "activity_regularizer": ["l1"],
        },
    ),
    "Shakeout": (
        lambda **k: ks.Shakeout(L.Dense(3, name="dense"), 0.3, 0.0, **k),
        {
            **{name: EVERY[name] for name in ("seed", "adjustable", "trainable")},
            "axis": [0, (0, 1)],
        },
    ),
}


@pytest.mark.parametrize("name", LAYERS)
def test_each_argument_is_there(name):
    make, arguments = LAYERS[name]
    assert_evaluates(make())
    for argument, values in arguments.items():
        for value in values:
            assert_evaluates(make(**{argument: value}))
    assert_evaluates(make(**{name: values[0] for name, values in arguments.items()}))


def test_all_layers_are_tried():
    public = [getattr(ks, name) for name in ks.__all__]
    layers = [c for c in public if isinstance(c, type) and issubclass(c, L.Layer)]
    assert {c.__name__ for c in layers} == set(LAYERS)


def sequential():
    return keras.Sequential([keras.Input((3,)), L.Dense(4), L.Dropout(0.2)])


def full_dense():
    return L.Dense(
        4,
        activation=keras.activations.gelu,
        use_bias=False,
        kernel_initializer=keras.initializers.RandomNormal(stddev=0.1, seed=0),
        kernel_regularizer=keras.regularizers.L1L2(l2=0.5),
        kernel_constraint=keras.constraints.MaxNorm(2.0, axis=[0]),
        dtype="mixed_float16",
    )


WRAPPED = {
    "Dense": lambda: L.Dense(64, "relu"),
    "Dense of all arguments": full_dense,
    "Conv2D": lambda: L.Conv2D(4, (3, 1), strides=2, padding="same"),
    "EinsumDense": lambda: L.EinsumDense("abc,cde->abde", (None, 2, 4), bias_axes="e"),
    "Embedding": lambda: L.Embedding(9, 4, mask_zero=True),
    "LSTM": lambda: L.LSTM(4, dropout=0.2, go_backwards=True, return_sequences=True),
    "Bidirectional": lambda: L.Bidirectional(L.GRU(4), merge_mode=None),
    "MultiHeadAttention": lambda: L.MultiHeadAttention(2, 3),
    "BatchNormalization": lambda: L.BatchNormalization(epsilon=1e-5),
    "TimeDistributed": lambda: L.TimeDistributed(L.Dense(3)),
    "layer as activation": lambda: L.Dense(4, activation=L.LeakyReLU(0.25)),
    "Sequential": sequential,
    "of a user": lambda: Own(3),
    "ours": lambda: ks.Bridgeout(L.Dense(4), 0.1, seed=0, stop_gradient=False),
    "ours in an RNN": lambda: L.RNN(ks.SparseoutCellWrapper(L.GRUCell(3), 0.1)),
}
CELLS = {
    "half": lambda: L.LSTMCell(4, dropout=0.5, dtype="float16"),
    "stack": lambda: L.StackedRNNCells(
        [L.GRUCell(3), ks.Shakeout(L.SimpleRNNCell(2), 0.2, 0.1)]
    ),
}


@pytest.mark.parametrize("wrapped", WRAPPED)
def test_a_wrapped_layer_is_there_with_its_arguments(wrapped):
    names = ("gamma",) if wrapped == "BatchNormalization" else None
    assert_evaluates(ks.Bridgeout(WRAPPED[wrapped](), 0.3, weights=names))


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("dtype", [None, "float32", "float64"])
def test_a_cell_is_there_and_the_dtype_if_it_is_not_that_of_the_cell(cell, dtype):
    assert_evaluates(ks.SparseoutCellWrapper(CELLS[cell](), 0.3, 0.2, dtype=dtype))


def test_what_is_as_by_default_is_left_out():
    dense = L.Dense(4, activation="relu", name="dense")
    layer = ks.Bridgeout(dense, 0.3, name="noisy")
    assert call_of(layer) == (
        "Bridgeout(keras.layers.Dense(4, activation='relu', name='dense'), 0.3, q=2.0, "
        "name='noisy')"
    )
    layer = ks.Sparseout(0.5, adjustable=True, name="hidden")
    assert call_of(layer) == "Sparseout(0.5, q=2.0, name='hidden')"
    layer = ks.Shakeout(L.Dense(4, name="dense"), 0.3, 0.1, name="noisy")
    assert call_of(layer) == (
        "Shakeout(keras.layers.Dense(4, name='dense'), 0.3, 0.1, name='noisy')"
    )


def test_a_knob_that_was_found_is_shortened_to_four_digits():
    values = np.random.default_rng(0).uniform(0, 1, 50) * 10.0 ** -np.arange(50)
    for knob in ("rate", "q"):
        layer = ks.Sparseout(0.123456789, 1.23456789, name="hidden")
        for value in values:
            made = eval(call_of(layer, **{knob: value}), NAMES)
            assert getattr(made, knob) == pytest.approx(value, rel=5e-4)
            # The other one is what it was given as.
            other = {"rate": "q", "q": "rate"}[knob]
            assert getattr(made, other) == getattr(layer, other)
    layer = ks.ActivationPenalty(0.1, "tar")
    assert eval(call_of(layer, weight=3e-5), NAMES).weight == 3e-5


def test_without_the_defaults_of_keras_they_are_there(monkeypatch):
    layer = ks.SpatialSparseout2D(0.5)
    monkeypatch.setattr(keras.config, "epsilon", lambda: 1e-3)
    monkeypatch.setattr(keras.config, "image_data_format", lambda: "channels_first")
    text = call_of(layer)
    assert "epsilon=1e-07" in text
    assert "data_format='channels_last'" in text
