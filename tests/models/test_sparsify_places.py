"""Where thresholds go if nobody says where, and what each place gets."""

import re

import keras
import numpy as np
import pytest
from keras import layers as kl
from sparsified import normal

from keras_sparseout import Bridgeout, activation_sparsity, sparsify
from keras_sparseout.measure import layer_selection
from keras_sparseout.models.thresholds.places import choose as choose_places


def choose(model, x, target=0.5, layers=None, where="before"):
    return choose_places(model, [keras.ops.convert_to_tensor(x)], target, layers, where)


def names_of(places):
    return [place.name for place in places.chosen]


def test_what_the_data_feed_is_left_alone():
    inputs = keras.Input((8, 8, 1), name="image")
    x = kl.Rescaling(1 / 255)(inputs)
    x = kl.BatchNormalization()(kl.ZeroPadding2D()(x))
    stem = kl.Conv2D(4, 3, name="stem")(x)
    x = kl.Conv2D(4, 3, name="body")(kl.ReLU()(stem))
    x = kl.GlobalAveragePooling2D()(x)
    extra = keras.Input((3,), name="extra")
    side = kl.Dense(4, name="side")(extra)
    x = kl.Concatenate()([x, side, extra])
    model = keras.Model({"image": inputs, "extra": extra}, kl.Dense(2, name="head")(x))
    batch = {"image": normal(2, 8, 8, 1), "extra": normal(2, 3)}
    places = choose_places(model, [batch], 0.5, None, "before")
    assert names_of(places) == ["body", "head"]
    [note] = places.notes
    assert "the data themselves go in: stem, side." in note
    assert "`layers`" in note
    places = choose_places(model, [batch], 0.5, ["stem"], "before")
    assert (names_of(places), places.notes) == (["stem"], [])


def test_rows_of_a_table_are_activations():
    model = keras.Sequential(
        [
            keras.Input((6,), dtype="int32"),
            kl.Embedding(9, 4, name="table"),
            kl.LSTM(4, return_sequences=True, name="lstm"),
            kl.TimeDistributed(kl.Dense(4, name="in"), name="timed"),
            Bridgeout(kl.Dense(3), 0.2, name="noisy"),
            kl.EinsumDense("abc,cd->abd", (None, 2), name="einsum"),
        ]
    )
    places = choose(model, np.zeros((2, 6), "int32"))
    assert names_of(places) == ["timed", "noisy", "einsum"]
    first = keras.Sequential(
        [keras.Input((6,), dtype="int32"), kl.Embedding(9, 4), kl.Dense(2, name="d")]
    )
    assert names_of(choose(first, np.zeros((2, 6), "int32"))) == ["d"]


class Patches(kl.Layer):
    def call(self, x):
        return keras.ops.image.extract_patches(x, 4)


class Correlations(kl.Layer):
    def call(self, x):
        return keras.ops.matmul(keras.ops.transpose(x, (0, 2, 1)), x)


class Palette(kl.Layer):
    def call(self, x):
        return keras.ops.take(np.eye(4, dtype="float32"), x, axis=0)


@pytest.mark.parametrize(
    ("layer", "x"),
    [
        (Patches, normal(2, 8, 8, 3)),
        (lambda: kl.MelSpectrogram(fft_length=8, num_mel_bins=4), normal(2, 32)),
        (lambda: kl.STFTSpectrogram(frame_length=8), normal(2, 32, 1)),
        (Correlations, normal(2, 5, 4)),
        (Palette, np.zeros((2, 5), "int32")),
    ],
)
def test_what_products_without_weights_make_of_the_data_is_data(layer, x):
    model = keras.Sequential([keras.Input(x.shape[1:], dtype=x.dtype), layer()])
    # Weights of normalizations are no factors of products either.
    model.add(kl.BatchNormalization())
    model.add(kl.LayerNormalization())
    model.add(layer() if layer is Correlations else kl.Flatten())
    frozen = kl.Dense(4, name="first", trainable=False)
    for added in (frozen, kl.ReLU(), kl.Dense(2, name="second")):
        model.add(added)
    places = choose(model, x)
    assert names_of(places) == ["second"]
    assert "the data themselves go in: first." in places.notes[0]


class Gate(kl.Layer):
    """A product with a kernel that the data scale."""

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 4))

    def call(self, x):
        scale = keras.ops.mean(x, axis=(1, 2))[:, None, None]
        return keras.ops.matmul(x, self.kernel * scale)


def test_a_kernel_that_the_data_scale_is_a_weight():
    # A normalization before it does not make a difference.
    for first in (kl.BatchNormalization, kl.LayerNormalization, kl.ReLU):
        layers = [first(), Gate(), kl.ReLU(), kl.Dense(2, name="head")]
        model = keras.Sequential([keras.Input((5, 3)), *layers])
        assert names_of(choose(model, normal(2, 5, 3))) == ["head"]


def test_layers_inside_others_are_out_of_reach():
    inputs = keras.Input((5, 8))
    x = kl.Dense(8, name="embed")(inputs)
    x = kl.MultiHeadAttention(2, 4, name="attention")(x, x)
    model = keras.Model(inputs, kl.Dense(2, name="head")(x))
    places = choose(model, normal(2, 5, 8))
    assert names_of(places) == ["head"]
    assert places.notes[1].startswith(
        "Out of reach, inside other layers: attention/query, attention/key"
    )


def chain():
    blocks = [
        keras.Sequential(
            [keras.Input((4,)), kl.Dense(4, name="a"), kl.Dense(4, name="b")],
            name=f"block{i}",
        )
        for i in (1, 2)
    ]
    return keras.Sequential([keras.Input((4,)), *blocks, kl.Dense(2, name="head")])


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ({"block1/b": 0.3}, {"block1/b": 0.3}),
        (
            {"block.*/b": 0.3, "block2/b": 0.9, "head": 0},
            {"block1/b": 0.3, "block2/b": 0.9, "head": 0},
        ),
        ({re.compile("2/"): 0.4}, {"block2/a": 0.4, "block2/b": 0.4}),
        ({"head": 0.2, re.compile("head$"): 0.6}, {"head": 0.2}),
        # Two expressions may match a layer if they agree.
        (
            {"block1/.*": 0.5, ".*/a": 0.5},
            {"block1/a": 0.5, "block1/b": 0.5, "block2/a": 0.5},
        ),
        (
            {kl.Dense: 0.5},
            {f"block{i}/{n}": 0.5 for i in (1, 2) for n in "ab"} | {"head": 0.5},
        ),
    ],
)
def test_targets_by_layer(target, expected):
    places = choose(chain(), normal(2, 4), target)
    assert {place.name: place.target for place in places.chosen} == expected


def test_an_expression_for_a_layer_and_what_is_inside_means_the_layer():
    model = keras.Sequential(
        [
            keras.Input((5, 4)),
            kl.LSTM(4, return_sequences=True, name="lstm"),
            kl.TimeDistributed(kl.Dense(3), name="lstm_head"),
        ]
    )
    places = choose(model, normal(2, 5, 4), layers=["lstm.*"])
    assert names_of(places) == ["lstm", "lstm_head"]


def inner():
    layers = [kl.Dense(8, "gelu", name="p"), kl.Dense(8, "gelu", name="q")]
    return keras.Sequential([keras.Input((8,)), *layers], name="inner")


class Block(kl.Layer):
    """Calls a model that its config has."""

    def __init__(self, model, **kwargs):
        super().__init__(**kwargs)
        self.model = model

    def call(self, x):
        return self.model(x)

    def get_config(self):
        model = keras.saving.serialize_keras_object(self.model)
        return {**super().get_config(), "model": model}

    @classmethod
    def from_config(cls, config):
        config["model"] = keras.saving.deserialize_keras_object(config["model"])
        return cls(**config)


AROUND = {
    "in time": (lambda: kl.TimeDistributed(inner(), name="outer"), (6, 8)),
    "in time, of any length": (
        lambda: kl.TimeDistributed(inner(), name="outer"),
        (None, 8),
    ),
    "noisy": (lambda: Bridgeout(inner(), 0.2, name="outer"), (8,)),
    "own": (lambda: Block(inner(), name="outer"), (8,)),
}


def around(kind):
    """A model in whose middle is a model inside another layer, and data for it."""
    make, shape = AROUND[kind]
    first = kl.Dense(8, "gelu", name="first")
    model = keras.Sequential(
        [keras.Input(shape), first, make(), kl.Dense(2, name="head")]
    )
    return model, normal(60, *(5 if size is None else size for size in shape))


@pytest.mark.parametrize("kind", ["noisy", "own"])
def test_a_model_inside_another_layer_is_reached(kind):
    model, x = around(kind)
    sparse, table = sparsify(model, x, 0.6, return_table=True, verbose=0)
    assert [row["layer"] for row in table.rows] == [
        *("outer/inner/p", "outer/inner/q", "head")
    ]
    # What was found is what the layers inside have.
    for row in activation_sparsity(sparse, x, layers=[".*_threshold"]).rows:
        assert row["zeros"] == pytest.approx(0.6, abs=0.01)


@pytest.mark.parametrize("kind", ["in time", "in time, of any length"])
def test_what_is_called_at_each_timestep_is_out_of_reach(kind):
    model, x = around(kind)
    places = choose(model, x)
    assert names_of(places) == ["head"]
    assert places.notes[1].endswith(
        "inside other layers: outer/inner/p, outer/inner/q."
    )
    # Its own input and output can be cut.
    assert names_of(choose(model, x, layers=["outer"])) == ["outer"]
    assert names_of(choose(model, x, layers=["outer.*"], where="after")) == ["outer"]


@pytest.mark.parametrize(
    "options",
    [
        {"layers": ["outer/inner/q"]},
        {"layers": ["gelu"], "where": "after"},
        {"target": {"outer/inner/.*": 0.5}},
    ],
)
def test_what_is_inside_it_cannot_be_named(options):
    with pytest.raises(ValueError, match=r"inner/q, called by 'outer' in its own code"):
        choose(*around("in time"), **options)


def test_the_table_lists_what_is_out_of_reach():
    sparse, table = sparsify(*around("in time"), 0.6, return_table=True, verbose=0)
    assert "inside other layers: outer/inner/p, outer/inner/q." in f"{table}"
    assert [row["layer"] for row in table.rows] == ["head"]
    assert table.rows[0]["zeros_after"] == pytest.approx(0.6, abs=0.01)
    found = [w.name for w in layer_selection.all_layers(sparse)]
    inside = ["outer", "outer/inner", "outer/inner/p", "outer/inner/q"]
    assert found == ["first", *inside, "head_threshold", "head"]
