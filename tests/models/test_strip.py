"""`strip`: plain models, with the same weights and predictions."""

import re

import keras
import numpy as np
import pytest
from keras import layers as L
from rebuilt import (
    IDS,
    MODELS,
    X,
    assert_same_outputs,
    connections,
    layers_in,
    sequential,
)
from stripped import GAPS, KINDS, all_kinds, casting, masked, started

import keras_sparseout as ks
from keras_sparseout.models import insert, strip


def weights_by_path(model):
    found = {}
    for path, layer in layers_in(model).items():
        for weight in layer.weights:
            if not re.search("seed|rate|target|threshold", weight.path):
                found[path, weight.name] = weight
    return found


@pytest.mark.parametrize("name", KINDS)
def test_plain_models_predict_the_same(name):
    make, x = KINDS[name]
    model = started(make())
    connected = connections(model)
    plain = strip(model, verbose=0)
    assert_same_outputs(model, plain, x)
    assert connections(model) == connected
    text = plain.to_json()
    assert "keras_sparseout" not in text
    assert len(plain.trainable_variables) == len(model.trainable_variables)
    pairs = zip(
        sorted(model.trainable_variables, key=_order),
        sorted(plain.trainable_variables, key=_order),
        strict=True,
    )
    for old, new in pairs:
        np.testing.assert_array_equal(old, new)


def _order(variable):
    values = np.asarray(keras.ops.convert_to_tensor(variable)).ravel()
    return tuple(variable.shape), values.tolist()


@pytest.mark.parametrize(
    "name", ["sequential", "two inputs", "masked", "attention", "in time"]
)
def test_what_was_inserted_is_gone_again(name):
    make, x, places = MODELS[name]
    model = make()
    new = insert(model, dict.fromkeys(places, lambda layer: ks.Sparseout(0.3)))
    plain = strip(new, verbose=0)
    assert_same_outputs(model, plain, x)
    assert type(plain) is type(model)
    mine, others = layers_in(model), layers_in(plain)
    assert len(mine) == len(others)
    assert [type(v) for v in mine.values()] == [type(v) for v in others.values()]
    found = weights_by_path(plain)
    for key, weight in weights_by_path(model).items():
        np.testing.assert_array_equal(found[key], weight)


SETTINGS = [
    {},
    {"axis": -1},
    {"soft": True},
    {"centre": "mode"},
    {"centre": "mode", "add_back": False},
    {"axis": -1, "centre": "mode", "soft": True, "adjustable": True},
]


@pytest.mark.parametrize(
    ("settings", "policy"),
    [
        *((settings, "float32") for settings in SETTINGS),
        *((settings, "mixed_bfloat16") for settings in SETTINGS),
        (SETTINGS[-1], "mixed_float16"),
    ],
)
def test_constant_thresholds_are_exact(settings, policy, tmp_path):
    x = keras.Input((8,))
    y = ks.TargetSparsity(0.5, dtype=policy, name="cut", **settings)(x)
    model = started(keras.Model(x, y))
    threshold = np.ravel(model.get_layer("cut").threshold)[0]
    centre = 0.1 if "centre" in settings else 0.0
    # At the threshold itself, both zeros, infinities.
    edges = [centre, centre + threshold, centre - threshold, -0.0, np.inf, -np.inf]
    inputs = np.concatenate([GAPS, np.full((1, 8), np.nan, "float32")])
    inputs[1, : len(edges)] = edges
    plain = strip(model, verbose=0)
    assert_same_outputs(model, plain, inputs)
    assert plain(inputs).dtype == model(inputs).dtype
    if policy != "float32":
        plain.save(tmp_path / "plain.keras")
        again = keras.saving.load_model(tmp_path / "plain.keras")
        assert_same_outputs(model, again, inputs)


def test_what_is_done_is_said(capsys):
    model = all_kinds()
    plain = strip(model)
    assert [layer.name for layer in plain.layers] == ["a", "b", "c"]
    said = "removed noise, penalty; unwrapped bridge, both, both/bridgeout"
    assert re.sub(r"_\d+$", "", capsys.readouterr().out.strip()) == f"strip: {said}"
    started_model = started(masked())
    strip(started_model)
    assert "made constant the thresholds of target_sparsity" in capsys.readouterr().out
    strip(sequential())
    assert capsys.readouterr().out == (
        "strip: the model has no layer of this package\n"
    )


def test_a_layer_that_casts_leaves_a_cast():
    plain = strip(casting(), verbose=0)
    assert isinstance(plain.get_layer("noise"), L.Activation)
    model = keras.Sequential(
        [keras.Input((8,)), ks.Sparseout(0.5, dtype="mixed_bfloat16"), L.Dense(2)]
    )
    plain = strip(model, verbose=0)
    assert [type(layer) for layer in plain.layers] == [L.Activation, L.Dense]
    assert_same_outputs(model, plain, X)


def test_thresholds_that_cut_nothing_are_removed_and_may_be_kept():
    layers = [L.Dense(6, "relu"), ks.TargetSparsity(0.5, axis=-1), ks.Sparseout(0.5)]
    model = keras.Sequential([keras.Input((8,)), *layers])
    assert len(strip(model, verbose=0).layers) == 1
    assert len(strip(keras.Sequential(layers), verbose=0).layers) == 1
    started(model)
    kept = strip(model, keep_thresholds=True, verbose=0)
    assert [type(layer) for layer in kept.layers] == [L.Dense, ks.TargetSparsity]
    np.testing.assert_array_equal(kept.layers[1].threshold, model.layers[1].threshold)
    plain = strip(model, verbose=0)
    assert type(plain) is not keras.Sequential
    assert plain.name == model.name


def test_a_model_that_is_not_built_is_taken():
    model = keras.Sequential(
        [L.Dense(3), ks.Sparseout(0.5), ks.Bridgeout(L.Dense(2), 0)]
    )
    plain = strip(model, verbose=0)
    assert not plain.built
    assert [type(layer) for layer in plain.layers] == [L.Dense, L.Dense]


class Holding(L.Layer):
    """Has a layer in its config, where another one can go in its place."""

    def __init__(self, inner, **kwargs):
        super().__init__(**kwargs)
        self.inner = inner

    def build(self, shape):
        self.inner.build(shape)

    def call(self, x):
        return self.inner(x)

    def get_config(self):
        inner = keras.saving.serialize_keras_object(self.inner)
        return {**super().get_config(), "inner": inner}

    @classmethod
    def from_config(cls, config):
        inner = keras.saving.deserialize_keras_object(config["inner"])
        return cls(**{**config, "inner": inner})


def test_layers_in_the_config_of_another_are_replaced():
    def holding(layer):
        model = started(keras.Sequential([keras.Input((8,)), Holding(layer)]))
        [held] = strip(model, verbose=0).layers
        np.testing.assert_array_equal(held(X), model(X))
        return held.inner

    assert type(holding(ks.Sparseout(0.5, name="noise"))) is L.Activation
    assert type(holding(ks.Shakeout(L.Dense(2), 0.5, 0.1))) is L.Dense
    assert type(holding(ks.TargetSparsity(0.5, name="cut"))) is L.Activation


@pytest.mark.filterwarnings(
    "ignore:Layer '.*was passed an input with a mask:UserWarning"
)
def test_masks_reach_a_model_inside(tmp_path):
    x = keras.Input((None,), dtype="int32")
    layers = [
        ks.TargetSparsity(0.5, axis=-1, name="cut"),
        L.TimeDistributed(ks.TargetSparsity(0.5), name="time"),
        L.LSTM(3),
    ]
    inner = keras.Sequential([keras.Input((None, 8)), *layers], name="inner")
    table = L.Embedding(10, 8, mask_zero=True)
    model = keras.Model(x, inner(table(x)))
    layers[0].start(np.arange(8) / 500)
    layers[1].layer.start(0.01)
    # Keras passes the mask on when it runs, not where it notes the calls.
    plain = strip(model, verbose=0)
    assert_same_outputs(model, plain, IDS)
    assert np.any(np.asarray(inner(np.asarray(table(IDS))) != model(IDS)))
    names = [layer.name for layer in plain.get_layer("inner").layers[:2]]
    assert names == ["cut", "time"]
    plain.save(tmp_path / "plain.keras")
    again = keras.saving.load_model(tmp_path / "plain.keras")
    assert_same_outputs(model, again, IDS)


class Block(L.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense, self.noise = L.Dense(3), ks.Sparseout(0.5)

    def call(self, x):
        return self.noise(self.dense(x))


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.block = Block()

    def call(self, x):
        return self.block(x)


class Stack(keras.Sequential):
    pass


def test_sequential_models_with_thresholds_must_have_a_graph():
    layers = [L.Dense(8), ks.TargetSparsity(0.5)]
    layers[1].start(np.float32(0.5))
    for kind, says in ((keras.Sequential, "must be built"), (Stack, "be a keras.Seq")):
        model = kind(layers)
        if kind is Stack:
            model(X)
        with pytest.raises(ValueError, match=says) as error:
            strip(model)
        assert str(error.value).endswith("or give keep_thresholds=True.")
        kept = strip(model, keep_thresholds=True, verbose=0)
        assert type(kept) is kind


def test_what_cannot_be_stripped_is_named():
    function = L.Lambda(ks.metrics.hoyer, output_shape=())
    model = keras.Sequential([keras.Input((8,)), function])
    with pytest.raises(ValueError, match="which has hoyer"):
        strip(model)
    model = keras.Sequential([keras.Input((8,)), Block(name="block")])
    with pytest.raises(
        ValueError, match="Sparseout, which the code of 'block'"
    ) as error:
        strip(model)
    assert str(error.value).endswith("Take it out of that code.")
    with pytest.raises(ValueError, match="Subclassed, a subclassed model"):
        strip(Subclassed())
    with pytest.raises(ValueError, match="`keep_thresholds` must be True or False"):
        strip(model, keep_thresholds="yes")
