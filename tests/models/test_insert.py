"""`insert`: what is put where, and the errors."""

import re

import keras
import numpy as np
import pytest
from keras import layers as L
from rebuilt import (
    IDS,
    MODELS,
    SEQUENCES,
    X,
    assert_same_outputs,
    attention,
    connections,
    encoder,
    layers_in,
    masked,
    outputs,
    preprocessed,
    sequential,
    two_inputs,
    u_net,
)

import keras_sparseout as ks
from keras_sparseout.models import insert


def sparse(layer):
    return ks.Sparseout(0.5, 1.5)


def numberless(names):
    return sorted(re.sub(r"_\d+(/|$)", r"\1", name) for name in names)


def doubled(layer):
    return L.Rescaling(2.0)


@pytest.mark.parametrize("name", MODELS)
def test_the_copy_predicts_what_the_model_does(name):
    make, x, places = MODELS[name]
    model = make()
    for variable in model.trainable_weights:
        variable.assign(variable + 0.1)
    before, connected = outputs(model, x), connections(model)
    new = insert(model, dict.fromkeys(places, sparse))
    assert_same_outputs(model, new, x)
    for old, now in zip(before, outputs(model, x), strict=True):
        np.testing.assert_array_equal(old, now)
    assert connections(model) == connected
    assert type(new) is type(model)
    assert new.name == model.name
    # All has its old path, but for numbers that Keras gives, and nothing is shared.
    inserted = [
        path
        for path, layer in layers_in(new).items()
        if isinstance(layer, ks.Sparseout)
    ]
    assert len(inserted) == len(places)
    assert numberless({*layers_in(new)} - {*inserted}) == numberless(layers_in(model))
    assert not {id(v) for v in model.variables} & {id(v) for v in new.variables}


def test_after_acts_on_the_output_and_before_on_the_input():
    model = keras.Sequential(
        [keras.Input((8,)), L.Dense(8, "relu", name="a"), L.Dense(3, name="b")]
    )
    a, b = model.layers
    new = insert(model, {"a": doubled})
    np.testing.assert_allclose(new(X), b(2 * a(X)), rtol=1e-6)
    new = insert(model, {"a": doubled, "b": doubled}, where="before")
    np.testing.assert_allclose(new(X), b(2 * a(2 * X)), rtol=1e-6)
    x = keras.Input((8,))
    functional = keras.Model(x, b(a(inputs=x)))
    new = insert(functional, {"a": doubled, "b": doubled}, where="before")
    np.testing.assert_allclose(new(X), b(2 * a(2 * X)), rtol=1e-6)
    new = insert(functional, {"b": doubled})
    np.testing.assert_allclose(new(X), 2 * b(a(X)), rtol=1e-6)
    assert new.output_names == [new.layers[-1].name] != functional.output_names


def test_a_shared_layer_gets_one_layer_that_is_shared_too():
    model = two_inputs()
    x = {"a": X, "b": X[::-1]}
    new = insert(model, {"shared": doubled, "inner/last": doubled})
    assert sum("rescaling" in path for path in layers_in(new)) == 2
    inner, shared = model.get_layer("inner"), model.get_layer("shared")
    a, b = 2 * inner(X), 2 * inner(X[::-1])
    both = 2 * shared(keras.ops.relu(a + b) * 2.0)
    np.testing.assert_allclose(new(x)["both"], both, rtol=1e-5)
    np.testing.assert_allclose(new(x)["one"][0], 2 * shared(a), rtol=1e-5)
    # They train alike: one variable for all calls.
    assert len(new.trainable_variables) == len(model.trainable_variables)


def test_the_first_floating_output_of_several_is_taken():
    model = masked()
    new = insert(model, {"lstm": doubled})
    lstm, gru, dense = model.layers[-3:]
    table = model.get_layer("table")
    y, h, _ = lstm(table(IDS), mask=IDS != 0)
    expected = dense(gru(2 * y, initial_state=h))
    np.testing.assert_allclose(new(IDS), expected, rtol=1e-5)
    # A recurrent layer may have states beside its input.
    new = insert(model, {"gru": doubled}, where="before")
    np.testing.assert_allclose(new(IDS), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("choice", "count"),
    [
        ("first", 1),
        ("(first|second)", 2),
        (re.compile("ond|t$"), 3),
        (L.Conv2D, 2),
        (None, 1),
        ("relu", 1),
        ("PReLU", 1),
    ],
)
def test_what_a_key_may_be(choice, count):
    model = keras.Sequential(
        [
            L.Conv2D(4, 3, activation="relu", name="first"),
            L.Conv2D(4, 3, name="second"),
            L.PReLU(name="act"),
        ]
    )
    if choice is None:
        choice = model.layers[1]
    new = insert(model, {choice: sparse})
    found = [layer for layer in new.layers if isinstance(layer, ks.Sparseout)]
    assert len(found) == count


def test_masks_that_attention_takes_away_stay_away():
    model = encoder()
    new = insert(model, {"norm": lambda layer: ks.TargetSparsity(0.5)})
    assert_same_outputs(model, new, IDS)
    new = insert(
        model, {"hidden": lambda layer: ks.TargetSparsity(0.5)}, where="before"
    )
    assert_same_outputs(model, new, IDS)
    # It sees the masks that are there.
    new = insert(masked(), {"table": lambda layer: ks.TargetSparsity(0.5, name="cut")})
    new(IDS, training=True)
    values = np.abs(new.get_layer("table").embeddings.numpy()[IDS[IDS != 0]])
    assert np.isclose(
        new.get_layer("cut").threshold, np.quantile(values, 0.5), atol=0.01
    )


def test_a_factory_gets_the_layer_and_may_be_a_class():
    seen = []

    def make(layer):
        seen.append(layer)
        return L.ReLU(name=f"{layer.name}_relu")

    model = sequential()
    new = insert(model, {L.Dense: make, "batch.*": L.LeakyReLU})
    assert seen == [model.layers[0], model.layers[2]]
    kinds = [type(layer).__name__ for layer in new.layers]
    assert kinds == [
        "Dense",
        "ReLU",
        "BatchNormalization",
        "LeakyReLU",
        "Dense",
        "ReLU",
    ]
    assert new.get_layer("hidden_relu") is new.layers[1]


def test_names_that_are_taken_get_a_number():
    model = sequential()
    model = insert(model, {L.Dense: lambda layer: L.ReLU(name="hidden")})
    names = [layer.name for layer in model.layers]
    assert [n for n in names if n.startswith("hidden")] == [
        "hidden",
        "hidden_1",
        "hidden_2",
    ]


def test_a_model_that_is_not_built_is_taken():
    model = keras.Sequential([L.Dense(6, "relu", name="a"), L.Dense(2)])
    new = insert(model, {"a": doubled})
    assert not new.built
    assert len(new.layers) == 3
    new(X)
    model(X)
    new.layers[0].set_weights(model.layers[0].get_weights())
    new.layers[2].set_weights(model.layers[1].get_weights())
    np.testing.assert_allclose(new(X), model.layers[1](2 * model.layers[0](X)), 1e-5)


def test_parts_of_a_layer_that_matches_are_passed_over():
    x = [SEQUENCES, SEQUENCES[:, :5], np.ones((4, 6, 5), "bool")]
    model = attention()
    new = insert(model, {"att.*": sparse})
    assert_same_outputs(model, new, x)
    assert sum(isinstance(layer, ks.Sparseout) for layer in new.layers) == 1


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = L.Dense(3)

    def call(self, x):
        return self.dense(x)


def test_bad_models_and_places_are_named():
    model = sequential()
    cases = [
        ((Subclassed(), {"dense": sparse}), "`model` must be a functional or Seq"),
        ((L.Dense(3), {"dense": sparse}), "`model` must be a Keras model"),
        ((model, {"hiden": sparse}), "Did you mean 'hidden'"),
        ((model, {}), "`layers` must be a dict"),
        ((model, ["hidden"]), r"Received: layers=\['hidden'\]"),
        (
            (model, {"hidden": sparse, L.Dense: sparse}),
            "'hidden' and Dense, which",
        ),
        ((model, {"hidden": ks.Sparseout(0.5)}), "lambda layer: Sparseout"),
        ((model, {"hidden": 0.5}), "{'hidden': 0.5}"),
        ((model, {"hidden": lambda layer: 3}), "returns 3 for 'hidden'"),
        ((model, {"hidden": lambda layer: layer}), "make a new layer each time"),
        ((model, {3: sparse}), "as keys .* Received: layers={3: ...}"),
        ((model, {"hidden": L.Dense}), "Give lambda layer: Dense"),
        ((model, {"hidden": lambda layer: L.Dense(3)}), "only layers that keep"),
        ((preprocessed(), {"lookup": sparse}), "'lookup', which returns int64"),
        ((masked(), {"lstm/.*": sparse}), "called by 'lstm'"),
        ((two_inputs(), {"a": sparse}), "an InputLayer"),
    ]
    for (given, layers), says in cases:
        with pytest.raises(ValueError, match=says):
            insert(given, layers)
    one = ks.Sparseout(0.5)
    with pytest.raises(ValueError, match="again for 'dense"):
        insert(model, {L.Dense: lambda layer: one})
    # The layers of this model, and of another, keep their names.
    for other in (model, sequential()):
        layer = other.layers[1]
        name = layer.name
        with pytest.raises(ValueError, match="again for 'hidden'"):
            insert(model, {"hidden": lambda _, layer=layer: layer})
        assert layer.name == name


def test_bad_sides_are_named():
    with pytest.raises(ValueError, match='`where` must be "after" or "before"'):
        insert(sequential(), {"hidden": sparse}, where="input")
    with pytest.raises(ValueError, match="'attention', which takes 2 tensors"):
        insert(attention(), {"attention": sparse}, where="before")
    with pytest.raises(ValueError, match=r"'concatenate\w*', which takes 2 tensors"):
        insert(u_net(), {L.Concatenate: sparse}, where="before")
    with pytest.raises(ValueError, match="takes no floating-point tensor"):
        insert(masked(), {"table": sparse}, where="before")
    states = keras.Sequential([keras.Input((6, 8)), L.LSTM(3, return_state=True)])
    with pytest.raises(ValueError, match="which returns several"):
        insert(states, {L.LSTM: sparse})
